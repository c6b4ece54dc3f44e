"""Numbers of the files that git keeps."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singflow.artifacts.tolerances import kept, rounded, tolerance_of

FIELDS = ["is_mean", "unique_r2_low", "p_holm", "max_logit_change", "difference", "turn_deg"]


@given(st.sampled_from(FIELDS), st.floats(-1e6, 1e6), st.floats(-1e-9, 1e-9))
def test_a_number_in_git_is_within_tolerance_also_if_another_processor_rounds_otherwise(
    field, value, noise
):
    value = value % 1.0 if field == "p_holm" else value
    found, other = kept(field, value), kept(field, value * (1 + noise))
    rule = tolerance_of("metrics.json", field)
    assert abs(found - value) <= rule.absolute + rule.relative * abs(value)
    assert abs(found - other) <= rule.absolute + rule.relative * max(abs(found), abs(other))
    assert kept(field, found) == found
    assert found != 0 or math.copysign(1, found) == 1


def test_digits_that_processors_agree_on_stay_and_parameters_are_not_rounded():
    for field, value, wanted in (
        ("is_mean", 27.161568785979908, 27.16),
        ("is_mean", 27.151568785979908, 27.16),  # which 27.2 is, and 27.15 might not be
        ("unique_r2", 0.05363677885525576, 0.0536),
        ("unique_r2", 0.05353677885525576, 0.0536),
        ("is_mean", -27.1484, -27.14),
        ("unique_r2", 0.0450097, 0.0451),  # which 0.05 is, and 0.0450 might not be
        ("unique_r2", 0.0449997, 0.0449),
        ("p", 2.2549e-05, 2.26e-05),
        ("unique_r2", -3.996976924894484e-05, 0.0),
        ("p", 2.2577e-05, 2.26e-05),
        ("max_logit_change", 3.4e-07 + 1e-15, 0.0),
        ("margin", 0.005, 0.005),
        ("lambda", 1e-05, 1e-05),
        ("n", 123456, 123456),
        ("verdict", "nothing found", "nothing found"),
        ("known_leak", True, True),
        ("detectable", None, None),
    ):
        assert kept(field, value) == wanted and type(kept(field, value)) is type(wanted), field
    assert math.isnan(kept("is_mean", math.nan))


@given(st.one_of(st.floats(-1e6, 1e6), st.integers(-99, 99).map(lambda n: n / 100 + 0.00501)))
def test_a_number_in_git_shows_the_digits_of_the_number_itself(value):
    assert f"{kept('is_mean', value):z.1f}" == f"{value:z.1f}"
    for digits in (1, 2, 3):
        assert f"{kept('unique_r2', value):z.{digits}f}" == f"{value:z.{digits}f}"


def test_a_table_keeps_its_types_and_what_is_no_number():
    table = pd.DataFrame({"model": ["a", "b"], "n": [1, 2], "known_zero": [True, False]})
    table = table.assign(is_mean=[7.075112887969473, np.nan], p=[1 / 3, 1.0])
    found = rounded(table)
    wanted = table.assign(is_mean=[7.08, np.nan], p=[0.333, 1.0])
    pd.testing.assert_frame_equal(found, wanted)
    assert table["is_mean"][0] == pytest.approx(7.075112887969473, abs=0)

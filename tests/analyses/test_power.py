import importlib
import re

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.power import ADVISED, TABLE, images_needed, smallest_leak
from tests.project import ROOT


@pytest.fixture(scope="module")
def leaks():
    return pd.read_csv(TABLE, index_col="images_per_dim")["leak"]


@pytest.mark.nightly
def test_the_table_is_made_by_the_program_that_it_names(leaks, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    program = importlib.import_module("evidence")
    assert leaks.index.tolist() == list(program.PER_DIMENSION)
    assert program.smallest_leak(0.5, 5) == pytest.approx(leaks[0.5], rel=0.5)


def test_more_images_show_smaller_leaks_in_the_table_that_the_page_shows(leaks):
    assert leaks.index.is_monotonic_increasing and leaks.fillna(1).is_monotonic_decreasing
    assert leaks[ADVISED] < leaks.fillna(1).iloc[0]
    page = (ROOT / "docs/planning.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) % \|$", page, flags=re.MULTILINE)
    assert rows == [(f"{ratio:g}", f"{100 * leak:g}") for ratio, leak in leaks.items()]


def test_what_images_can_show_is_read_off_between_the_rows_and_too_few_show_nothing(leaks):
    for images in (320, 507, 1_280, 5_119, 5_120, 1_281_167):
        said, ratio = smallest_leak(images, 1280), images / 1280
        (shown,) = re.findall(r"leak of about ([\d.]+) %", said.partition(";")[0])
        above = leaks[leaks.index <= ratio].iloc[-1]
        below = leaks[leaks.index >= min(ratio, leaks.index[-1])].iloc[0]
        assert 100 * below * 0.95 <= float(shown) <= 100 * above * 1.05
        assert said.startswith(f"{images:,} images")
        assert ("; 5,120 images: an evenly spread leak of" in said) == (images < 5_120)
    nothing = "0.0 per feature dimension: too few to call any leak meaning"
    assert nothing in smallest_leak(20, 1280)


def test_the_images_that_a_leak_needs_are_those_of_the_table_from_what_the_study_found(leaks):
    ratio = np.exp(np.interp(np.log(0.1), np.log(leaks[::-1]), np.log(leaks.index[::-1])))
    assert images_needed(100, 1280, 0.1, None) == pytest.approx(1280 * ratio, rel=0.05)
    assert images_needed(5_000, 1280, 0.1, None) == 10_000
    assert images_needed(507, 1280, 0.056, 0.098) == pytest.approx(1014, rel=0.05)

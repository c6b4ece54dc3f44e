"""Flags of steps: as DVC spells them, and as a shell takes them."""

import subprocess

from dvc.parsing.interpolate import to_str
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.engines.flags import flags_of, spell

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False), st.none())
NAMES, VALUES = st.from_regex("[a-z_]{1,8}", fullmatch=True), (st.booleans(), st.lists(SCALARS))


@given(st.dictionaries(NAMES, st.one_of(SCALARS, *VALUES)))
def test_flags_are_spelled_as_dvc_spells_them(values):
    assert spell(values) == to_str(values)


@settings(max_examples=30)
@given(st.lists(TEXTS, min_size=1))
def test_texts_reach_a_step_through_the_shell_as_they_are(texts):
    said = subprocess.check_output(["bash", "-c", "printf '%s\\0' " + spell({"texts": texts})])
    assert said.decode().split("\0")[:-1] == ["--texts", *texts]


def test_keys_are_sections_lists_and_values_whose_flags_may_have_other_names():
    study = {"seed": 3, "models": ["a", "b"], "probe": {"alphas": [1.0], "kind": "x"}, "none": []}
    study["data"] = {"root": "a b"}
    keys = ("probe", "models", "none", "number=seed", "data.root")
    assert flags_of(study, keys) == '--alphas 1.0 --kind x --models a b  --number 3 --root "a b"'

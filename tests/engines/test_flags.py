"""Values of params.yaml as flags of a command."""

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.engines.flags import flags_of, spell

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=30)
@given(st.lists(TEXTS, min_size=1))
def test_texts_reach_a_step_through_the_shell_as_they_are(texts):
    said = subprocess.check_output(["bash", "-c", "printf '%s\\0' " + spell({"texts": texts})])
    assert said.decode().split("\0")[:-1] == ["--texts", *texts]


def test_a_key_names_a_section_a_list_or_a_value_and_perhaps_another_flag():
    data = {"root": "my photos", "classes": None}
    study = {"seed": 3, "data": data, "steering": {"prompts": ["a jeep", "b"]}}
    study["extraction"] = {"views": [], "shards": 2}
    for key, flags in (
        ("seed", "--seed 3"),
        ("extraction", "--shards 2"),
        ("data", "--root 'my photos' --classes None"),
        ("data.root", "--root 'my photos'"),
        ("class_list=data.classes", "--class_list None"),
        ("targets=steering.prompts", "--targets 'a jeep' b"),
    ):
        assert flags_of(study, [key]) == flags
    assert flags_of(study, ["seed", "targets=steering.prompts"]) == "--seed 3 --targets 'a jeep' b"

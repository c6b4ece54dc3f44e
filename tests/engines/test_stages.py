"""The stages of dvc.yaml, out of the rules."""

import subprocess

import pytest
import yaml
from dvc.parsing.interpolate import to_str
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.config.reading import read_yaml
from singflow.engines.code import step_files
from singflow.engines.flags import spell
from singflow.engines.stages import WRITTEN, main, pipeline, read_rules
from singflow.study import render_params, with_derived_keys
from tests.project import ROOT, Project

NEEDED = {
    "reference": (
        *("embed_prompts", "fit_translator", "train_translator"),
        *("measure_evidence", "probe_principal"),
    ),
    "archives": ("build_manifest", "resolve_model", "extract_head"),
    "own_files": ("resolve_model", "resolve_space", "render_pictures"),
}  # what of results/code.json a step depends on besides its code
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


def test_another_study_gives_the_stages_that_are_in_git(tmp_path):
    parts = "Snakefile rules src scripts config report profiles checkpoints"
    for part in parts.split():
        (tmp_path / part).symlink_to(ROOT / part)
    study = with_derived_keys(read_yaml(ROOT / "config/studies/paper.yaml"))
    (tmp_path / "params.yaml").write_text(render_params(study))
    assert pipeline(ROOT / "dvc.yaml", read_rules(tmp_path)) == (ROOT / "dvc.yaml").read_text()


def test_stages_that_are_not_the_rules_are_told_and_written_anew(tmp_path):
    project = Project(tmp_path)
    file, right = tmp_path / "dvc.yaml", (tmp_path / "dvc.yaml").read_text()
    project.edit("dvc.yaml", "  fit_translator:", "  fit_translater:")
    project.edit("dvc.yaml", "title: Models", "title: Mine")
    others = {name: (tmp_path / name).read_text() for name in WRITTEN if name != "dvc.yaml"}
    project.edit("slurm/config.yaml", "  scan_concepts: model", "  scan_concepts: data")
    project.edit("slurm/config.yaml", r"#   render_pictures: \*gpu\n", "")
    project.edit("docs/artifacts.md", r"\| `orders\.csv` [^\n]*\n", "")
    with pytest.raises(SystemExit, match=r"dvc\.yaml: is not what the rules say"):
        main(tmp_path, "--check")
    main(tmp_path)
    by_hand = right.replace("title: Models", "title: Mine")
    assert file.read_text() == by_hand, "what is written by hand stays"
    main(tmp_path, "--check")
    assert {name: (tmp_path / name).read_text() for name in others} == others


def test_every_stage_runs_its_script_and_depends_on_its_code():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(step_files(ROOT)) == set(stages)
    first = stages.pop(next(iter(stages)))
    assert first["always_changed"] and "`dvc status` always lists it" in first["desc"]
    for name in stages:
        body = stages[name].get("do", stages[name])
        figure = f"python -m singflow.figures.{name} "
        start = figure if name.startswith("plot_") else f"python scripts/{name}.py "
        assert body["cmd"].startswith(start)
        more = [key for key, steps in NEEDED.items() if name in steps]
        assert {"results/code.json": [name, *more]} in body["params"]
        assert not [dep for dep in body["deps"] if dep.endswith(".py")]

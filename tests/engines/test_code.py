"""Digests of the code of steps."""

import json
import shutil
import subprocess
import sys

import pytest

from singflow.engines.code import SHARED, modules_of, step_files
from tests.project import ROOT, Project

STEPS = list(step_files(ROOT))
DIGESTS = """
import json
from singflow.engines.code import digest_of, step_files
print(json.dumps({step: digest_of(program) for step, program in step_files().items()}))
"""
LOADED = """
import json, runpy, sys
from singflow.engines.code import step_files
loaded = {}
for step, program in step_files().items():
    for name in [name for name in sys.modules if name.startswith("singflow.")]:
        del sys.modules[name]
    runpy.run_path(str(program), run_name="x")
    loaded[step] = [name for name in sys.modules if name.startswith("singflow.")]
print(json.dumps(loaded))
"""
READ_OUT = {"compare_models", "measure_evidence", "plot_hidden_texts", "summarize", "write_report"}
STEERING = {"steer_concepts", "tabulate_steering", "render_pictures"}
STEERING |= {"plot_pictures", "plot_closeups"}
TOWERS = {"extract_features", "embed_images", "embed_prompts", "embed_classes"}
WITHOUT_TENSORS = {"resolve_space", "resolve_study", "compare_models", "summarize"}
WITHOUT_TENSORS |= {"tabulate_steering", "plot_scores", "plot_probes"}
WITHOUT_TENSORS |= {"plot_hidden_texts", "plot_null_validation"}
EDITS = {  # of a function in a file, and the steps that run again
    "src/singflow/analyses/readout.py": READ_OUT,
    "src/singflow/analyses/steering.py": STEERING,
    "src/singflow/towers/extraction.py": TOWERS,
    "src/singflow/artifacts/tensors.py": {*STEPS} - WITHOUT_TENSORS,
    "src/singflow/figures/style.py": {"write_report"} | {step for step in STEPS if "plot_" in step},
    "src/singflow/figures/plot_scores.py": {"plot_scores"},
    "scripts/fit_projector.py": {"fit_projector"},
}
PLUMBING = "cli", "errors", "system", "study", "artifacts/catalog", "config/registry"
METRICS, SUMMARY = (f"src/singflow/analyses/{name}.py" for name in ("metrics", "summary"))


def asked(folder, program):
    """What a program prints as JSON with the code of this checkout."""
    given = {"cwd": folder, "env": {"PYTHONPATH": str(folder / "src")}, "text": True}
    return json.loads(subprocess.check_output([sys.executable, "-c", program], **given))


@pytest.fixture
def tree(tmp_path):
    own = shutil.ignore_patterns("__pycache__")
    for name in ("scripts", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=own, symlinks=True)
    return Project.at(tmp_path)


def test_what_python_loads_for_a_step_is_in_its_digest_or_shared_by_all_steps():
    loaded, programs = asked(ROOT, LOADED), step_files(ROOT)
    followed = {step for step in STEPS if "singflow.study" not in loaded[step]}
    assert followed == {*STEPS} - {"build_manifest", "resolve_study"}
    for step in followed:
        counted = {name for name in loaded[step] if name.split(".")[1] not in SHARED}
        files = {name for name in counted if name.count(".") > 1}  # a folder's own file is empty
        assert files <= {*modules_of(programs[step])}, step


def test_an_edit_re_runs_the_steps_that_import_the_module_and_no_others(tree):
    before = asked(tree.folder, DIGESTS)
    for name, steps in EDITS.items():
        right = (tree.folder / name).read_text()
        tree.edit(name, r"\n    (?=return |cli\.)", "\n    print()\n    ")
        after = asked(tree.folder, DIGESTS)
        assert {step for step in STEPS if after[step] != before[step]} == steps, name
        (tree.folder / name).write_text(right)


def test_prose_formatting_and_plumbing_change_no_digest(tree):
    before = asked(tree.folder, DIGESTS)
    tree.edit(METRICS, r'""".*?"""', '"""Other words."""')
    tree.edit(METRICS, "def unit", "# a comment\n\n\n\ndef unit")
    tree.edit(SUMMARY, "bootstrap resamples behind", "resamples behind")
    text = (tree.folder / METRICS).read_text()
    (tree.folder / METRICS).write_text(text.replace("    ", "        ") + "\n\n")
    for name in PLUMBING:
        with (tree.folder / f"src/singflow/{name}.py").open("a") as file:
            file.write("\n\ndef new():\n    return 1\n")
    assert asked(tree.folder, DIGESTS) == before

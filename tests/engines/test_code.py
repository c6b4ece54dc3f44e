"""Digests of the code of steps."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest

from singflow.engines import code
from singflow.engines.code import SHARED, digest_of, modules_of, step_files
from tests.project import ROOT, Project

STEPS = step_files(ROOT)
ALL = "import json; from singflow.engines.code import digest_of, step_files\n"
ALL += "print(json.dumps({step: digest_of(path) for step, path in step_files().items()}))"
LOADED = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='x')\n"
LOADED += "print(*(name for name in sys.modules if name.startswith('singflow.')))"


def run(tree, *command):
    given = {"cwd": tree, "env": {"PYTHONPATH": str(tree / "src")}, "text": True}
    return subprocess.check_output([sys.executable, "-c", *command], **given)


@pytest.fixture(scope="module")
def before():
    return {step: digest_of(path) for step, path in STEPS.items()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for name in ("scripts", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def edited(tree, before):
    """Steps with another digest after edits (file, pattern, replacement), which are undone."""
    saved = {}

    def stale(*edits):
        for name, pattern, replacement in edits:
            saved.setdefault(tree / name, (tree / name).read_text())
            Project.at(tree).edit(name, pattern, replacement)
        after = json.loads(run(tree, ALL))
        assert after.keys() == before.keys()
        return {step for step in before if after[step] != before[step]}

    yield stale
    for path, text in saved.items():
        path.write_text(text)


def test_a_step_has_a_digest_of_its_own(before):
    assert {"fit_projector", "plot_scores", "check_study"} <= before.keys()
    assert len(set(before.values())) == len(before)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in before.values())


@pytest.mark.parametrize("step", ["fit_translator", "measure_evidence", "write_report"])
def test_what_python_loads_for_a_step_is_in_its_digest_or_shared_by_all(step):
    loaded = run(ROOT, LOADED, str(STEPS[step])).split()
    files = {name: ROOT / "src" / f"{name.replace('.', '/')}.py" for name in loaded}
    missing = {name for name, file in files.items() if file.is_file()} - {*modules_of(STEPS[step])}
    assert len(loaded) > 20 and len(missing) > 5
    assert {name.split(".")[1] for name in missing} <= {*SHARED}


METRICS = "src/singflow/analyses/metrics.py"
SAME = [
    (METRICS, "def unit", "# a comment\n\n\n\ndef unit"),
    (METRICS, r'(?<=\n    )""".*?"""', '"""Other words."""'),
    (METRICS, r'^""".*?"""', '"""Other words."""'),
    (METRICS, r"    return (.*?)\n", "    return (\n        \\1\n    )\n"),
    ("src/singflow/analyses/summary.py", "bootstrap resamples behind", "resamples behind"),
    *(
        (f"src/singflow/{name}.py", "$", "\n\nNEW = 1\n")
        for name in ("cli", "errors", "system", "study", "artifacts/catalog", "config/registry")
    ),
]


def test_prose_formatting_and_what_all_steps_share_change_no_digest(edited, tree):
    *others, (name, pattern, _) = SAME[:4]
    returned = re.search(pattern, (tree / name).read_text())[1]
    reformatted = name, pattern, f"    return (\n        {returned}\n    )\n"
    assert edited(*others, reformatted, *SAME[4:]) == set()


TEXTS = {"embed_prompts", "embed_classes"}
STEERED = {"steer_concepts", "render_pictures"}  # which compute, and those that read their results
STEERED |= {"tabulate_steering", "plot_pictures", "plot_angle_ladder"}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("src/singflow/analyses/steering.py", STEERED),
        ("src/singflow/analyses/zero_shot.py", {"measure_zero_shot", "summarize"}),
        ("src/singflow/towers/spaces.py", TEXTS | {"extract_features", "embed_images"}),
        ("src/singflow/figures/style.py", {step for step in STEPS if step.startswith("plot_")}),
        ("src/singflow/figures/plot_scores.py", {"plot_scores"}),
        ("scripts/fit_projector.py", {"fit_projector"}),
        ("src/singflow/artifacts/tolerances.py", {"summarize", "compare_models"}),
    ],
)
def test_an_edit_changes_the_digests_of_the_steps_that_import_it_and_no_others(edited, name, steps):
    assert edited((name, "$", "\n\nNEW = 1\n")) == steps


def test_an_edit_of_how_tensors_are_written_changes_every_step_that_has_tensors(edited):
    found = edited(("src/singflow/artifacts/tensors.py", "$", "\n\nNEW = 1\n"))
    assert {"extract_features", "fit_projector", "measure_scores"} <= found
    assert not {"resolve_space", "compare_models", "plot_scores"} & found


def test_the_text_of_a_syntax_tree_is_the_same_for_every_python():
    tree = ast.parse("@f\ndef g(x: int, *, y=0) -> str:\n    '''Words.'''\n    return f'{x!r:>3}'")
    digest = hashlib.sha256(code._text(tree).encode()).hexdigest()
    assert digest == "c48704c75207fb8927e3c84ac219d81795f18d243dc6fd6bb91e1737bdc7ab5b"
    assert code._text(ast.parse("x = 0")) != code._text(ast.parse("x = False"))
    assert code._text(ast.parse("x = None")) != code._text(ast.parse("x = ''"))

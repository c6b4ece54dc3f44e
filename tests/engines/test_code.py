"""Digests of the code that steps reach."""

import re
import shutil
import subprocess
import sys

import pytest
from singflow.engines.acceptance import render_accepted

from singflow.engines.code import ACCEPTED, KEPT, Acceptance, Code, step_files
from tests import warm
from tests.project import ROOT, Project
from tests.refusals import refused

STEPS = list(step_files(ROOT))
METRICS, STEERING = "src/singflow/analyses/metrics.py", "src/singflow/analyses/steering.py"
STYLE, FIGURES = "src/singflow/figures/style.py", {s for s in STEPS if s.startswith("plot_")}


@pytest.fixture(scope="module")
def before():
    return Code(ROOT).digests()


@pytest.fixture
def tree(tmp_path):
    own = shutil.ignore_patterns("__pycache__")
    for folder in ("scripts", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=own)
    return tmp_path


def edit(tree, name, pattern, replacement):
    Project.at(tree).edit(name, pattern, replacement)


def stale(tree, before):
    after = Code(tree).digests()
    assert after.keys() == before.keys()
    return {step for step in before if after[step] != before[step]}


def test_a_step_has_a_digest_of_its_own(before):
    assert list(before) == STEPS and len(set(before.values())) == len(STEPS)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in before.values())


@pytest.mark.nightly
def test_an_edited_definition_makes_the_steps_stale_that_reach_it_and_no_others(tree, before):
    edited, cli = "def summarize_steering(*a):\n    return 1\n", "src/singflow/cli.py"
    for name, pattern, replacement, steps in (
        (STEERING, r"def summarize_steering\(.*", edited, {"tabulate_steering"}),
        (STYLE, r'"font.size": 7', '"font.size": 8', FIGURES),
        (STYLE, r"context\(\"default\"\)", 'context(["default"])', FIGURES),
        (cli, r"100_000, 50, 50", "100_000, 50, 51", set(STEPS)),
    ):
        right = (tree / name).read_text()
        edit(tree, name, pattern, replacement)
        assert stale(tree, before) - {"write_report"} == steps - {"write_report"}, pattern
        (tree / name).write_text(right)


# workflow/test_engines has comments, docstrings, other classes and other artifacts
HARMLESS = [
    (METRICS, r"\) -> np\.ndarray:", ") -> 'np.ndarray | None':"),
    (METRICS, r"$", "\n\ndef new(a: int) -> int:\n    return a\n"),
    ("src/singflow/analyses/summary.py", r"2000, ge=100, le", "999, ge=100, le"),
    ("src/singflow/analyses/summary.py", "bootstrap resamples behind", "resamples behind"),
    ("src/singflow/commands/plan.py", r"def plan", "def other():\n    ...\n\n\ndef plan"),
    ("src/singflow/translators/cards.py", r"How to use", "Use"),
    ("src/singflow/translators/hub.py", r"def fetch", "def other():\n    ...\n\n\ndef fetch"),
    ("src/singflow/translators/hub.py", r"revision=branch", "revision=None"),
    ("src/singflow/planning/sizes.py", r"IMAGENET = ", "NEW = 1\nIMAGENET = "),
]


def test_edits_that_change_no_result_make_nothing_stale(tree, before):
    """Also in another order of the definitions, and with other spaces."""
    for name, pattern, replacement in HARMLESS:
        edit(tree, name, pattern, replacement)
    path = tree / METRICS
    head, *definitions = re.split(r"\n\n\n(?=def |class |@)", path.read_text())
    path.write_text("\n\n".join([head, *reversed(definitions)]).replace("    ", "        "))
    assert stale(tree, before) == set()


FILES = {
    "scripts/run.py": "from singflow.a import f\n\nf()\n",
    "src/singflow/__init__.py": "",
    "src/singflow/a.py": """
from singflow import b
from singflow.c import C as D
SIZE = 1
def f():
    from singflow.d import late
    return b.g(SIZE), D(), late
""",
    "src/singflow/b.py": """
import numpy as np
from singflow.e import h
def g(x):
    return h(x) + np.ones(1)
def unreached():
    return 1
""",
    "src/singflow/c.py": "class Base:\n    pass\nclass C(Base):\n    field: int = 1\n",
    "src/singflow/d.py": "late = {}\nlate['x'] = 1\n",
    "src/singflow/e.py": """
import singflow.e2
print('loading')
def h(x):
    return singflow.e2.deep(x)
""",
    "src/singflow/e2.py": """
@staticmethod
def deep(x: int) -> int:
    '''Words.'''
    return x
""",
}


@pytest.fixture
def small(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_code_is_followed_through_every_spelling_of_an_import(small):
    for name, old, new in (
        ("a", "SIZE = 1", "SIZE = 2"),
        ("b", "h(x)", "h(x + 1)"),
        ("b", "import numpy as np", "import cupy as np"),
        ("c", "pass", "x = 1"),
        ("c", "field: int = 1", "field: float = 1"),
        ("d", "late['x'] = 1", "late['x'] = 2"),
        ("e", "'loading'", "'loaded'"),
        ("e2", "return x", "return -x"),
        ("e2", "@staticmethod\n", ""),
    ):
        before = Code(small).digest("run")
        edit(small, f"src/singflow/{name}.py", re.escape(old), new)
        assert Code(small).digest("run") != before


def test_a_name_that_stands_for_another_definition_is_a_change_though_both_were_reached(small):
    digests = set()
    for names in ("C, Base", "Base as C, C as Base"):
        script = f"from singflow.c import {names}\n\nC(), Base()\n"
        (small / "scripts/run.py").write_text(script)
        digests.add(Code(small).digest("run"))
    assert len(digests) == 2


def test_the_digest_is_the_same_for_every_python_and_where_a_definition_moved(small):
    known = "c93bf5c050cbb1e6500f99d8a5f912b8d32de3c023a13db54425eb8f37935722"
    assert Code(small).digest("run") == known
    (small / "src/singflow/c.py").rename(small / "src/singflow/c2.py")
    edit(small, "src/singflow/a.py", r"singflow\.c ", "singflow.c2 ")
    assert Code(small).digest("run") == known


def test_every_import_is_absolute_as_others_are_not_followed():
    for file in (*(ROOT / "src/singflow").rglob("*.py"), *(ROOT / "scripts").glob("*.py")):
        assert not re.search(r"^\s*from\s+\.|import \*", file.read_text(), re.MULTILINE), file


def test_what_python_loads_for_a_step_is_among_the_modules_that_its_digest_knows():
    program = """
import runpy, sys
runpy.run_path('scripts/fit_translator.py', run_name='x')
print(*(name for name in sys.modules if name.startswith('singflow.')))"""
    given = {"cwd": ROOT, "env": {"PYTHONPATH": str(ROOT / "src")}, "text": True}
    said = subprocess.check_output([sys.executable, "-c", program], **given)
    files = {name: ROOT / "src" / f"{name.replace('.', '/')}.py" for name in said.split()}
    loaded = {name for name, file in files.items() if file.is_file()}
    code = Code(ROOT)
    code._computed("fit_translator")
    known = {name for name, module in code._modules.items() if module}
    assert len(loaded) > 10 and loaded - known <= {"singflow.artifacts.catalog", "singflow.study"}


def test_digests_are_kept_until_any_code_is_another(small, monkeypatch):
    before = Code(small).digests()
    with monkeypatch.context() as patch:
        patch.setattr(Code, "_computed", None)
        assert Code(small).digests() == before and Code(small).digest("run") == before["run"]
    for broken in ("{", '{"of": 1}'):
        (small / KEPT).write_text(broken)
        assert Code(small).digests() == before
    (small / KEPT).unlink()
    (small / "scripts/unfinished.py").write_text("def main(:")
    assert Code(small).digest("run") == before["run"] and not (small / KEPT).exists()
    with pytest.raises(SyntaxError):
        Code(small).computed()


def test_accepted_code_counts_as_that_which_made_the_artifacts(small):
    before, e2 = Code(small).digest("run"), "src/singflow/e2.py"
    edit(small, e2, "return x", "return -x")
    made = {"made_with": before, "accepted_for": Code(small).digest("run")}
    accepted = {"run": Acceptance(**made, reason="only: 'renamed' é\n#")}
    (small / ACCEPTED).parent.mkdir()
    (small / ACCEPTED).write_text(render_accepted(accepted))
    assert Code(small).digest("run") == before and Code(small).accepted == accepted
    assert Code(small).computed()["run"] == made["accepted_for"]
    edit(small, e2, "return -x", "return 2")
    assert Code(small).digest("run") not in made.values(), "one state of the code was accepted"


def test_a_damaged_list_of_accepted_code_is_named(tmp_path):
    (tmp_path / "config").mkdir()
    for content, message in (
        ("a: {made_with: x}", r"accepted\.yaml: a: accepted_for: missing; write it"),
        ("a: 1", r"accepted\.yaml: a: \(whole file\)"),
        ("a: {", r"accepted\.yaml: not valid YAML"),
        (f"a: {{made_with: {'0f' * 32}, accepted_for: {'0f' * 32}, reason: b}}", "a: no such step"),
    ):
        (tmp_path / ACCEPTED).write_text(content)
        refused(message, lambda: Code(tmp_path).accepted)


def test_the_first_stage_of_dvc_writes_the_digests_and_refuses_a_study_that_is_not_valid(tmp_path):
    for name in ("scripts", "src", "config", "params.yaml", "checkpoints", "reference"):
        (tmp_path / name).symlink_to(ROOT / name)

    def check(params):
        options = ("--params", params, "--output", "code.json")
        return warm.run(ROOT / "scripts/check_study.py", *options, cwd=tmp_path)

    done = check("params.yaml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "code.json").read_text().count("\n") == len(STEPS) + 5
    text = (ROOT / "params.yaml").read_text()
    for right, wrong, message in (
        ("resamples: 2000", "resamples: 1e3", "resamples is '1e3' to Snakemake, and 1000.0 to DVC"),
        ("study: demo", "stduy: demo", "stduy: unknown key; did you mean 'study'?"),
        ("efficientnet_lite1", "efficientnet_lite9", "no entry 'efficientnet_lite9'"),
    ):
        assert right in text
        (tmp_path / "wrong.yaml").write_text(text.replace(right, wrong, 1))
        refused = check("wrong.yaml")
        assert refused.returncode == 1 and message in refused.stderr
        assert "Traceback" not in refused.stderr

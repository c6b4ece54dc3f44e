import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from singflow.dependencies import code_files, imported, needs_torch, write_code_dependencies
from tests.project import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


LIGHT = [script for script in SCRIPTS if not needs_torch(script, ROOT)]
HEAVY = ["torch", "matplotlib", "sklearn", *(f"scipy.{name}" for name in ("linalg", "optimize", "sparse", "special", "stats"))]


@pytest.fixture(scope="module")
def loaded():
    """By script: the repository's files that Python loads when it imports what the script imports, and all modules until then."""
    program = """
import json, runpy, sys
loaded = {}
for script in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "singflow"]:
        del sys.modules[name]
    runpy.run_path(f"scripts/{script}.py", run_name="x")
    ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "singflow"]
    loaded[script] = ours, list(sys.modules)
print(json.dumps(loaded))
"""
    ours = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    finished = subprocess.run([sys.executable, "-c", program, *LIGHT], capture_output=True, text=True, check=True, cwd=ROOT, env=ours)
    return {
        script: ({f"scripts/{script}.py", *(str(Path(file).relative_to(ROOT)) for file in files)}, modules)
        for script, (files, modules) in json.loads(finished.stdout).items()
    }


@pytest.fixture
def tree(tmp_path):
    """A copy of dvc.yaml and of the code that it names."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for folder in ("scripts", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_code_of_fit_projector_is_these_files():
    modules = ["__init__", "cli", "config", "errors", "geometry", "store", "tables"]
    assert code_files("fit_projector", ROOT) == ["scripts/fit_projector.py", *(f"src/singflow/{name}.py" for name in modules)]


@pytest.mark.parametrize("script", LIGHT)
def test_the_code_of_a_script_is_what_python_loads_and_nothing_out_of_reach(script, loaded):
    static, dynamic = set(code_files(script, ROOT)), loaded[script][0]
    assert static >= dynamic
    names = set().union(*(imported(ROOT / file) for file in static))
    assert {file for file in static - dynamic if f"singflow.{Path(file).stem}" not in names} == set()
    assert "src/singflow/config.py" in dynamic


@pytest.mark.parametrize("script", LIGHT)
def test_a_script_without_torch_starts_without_heavy_libraries(script, loaded):
    assert set(HEAVY) & set(loaded[script][1]) == set()


def test_scripts_that_need_torch_are_the_ones_that_run_a_network_or_read_a_checkpoint():
    networks = {"embed_images", "embed_prompts", "extract_features", "extract_head", "train_translator", "render_pictures", "analyze_image"}
    assert set(SCRIPTS) - set(LIGHT) == networks | {"import_translator"}


def test_imports_are_followed_in_functions_and_in_every_spelling_and_through_modules(tmp_path):
    (tmp_path / "scripts").mkdir()
    package = tmp_path / "src/singflow"
    package.mkdir(parents=True)
    files = {
        "a": "def f():\n    from singflow import b\n",
        "b": "if True:\n    import singflow.c as c, os.path\n",
        "c": "class C:\n    from singflow.d import (D, E)\n",
        "d": "from singflow.a import f\nimport singflowery.unused\nfrom other.singflow import unused\n",
        "unused": "",
        "__init__": "",
    }
    for name, content in files.items():
        (package / f"{name}.py").write_text(content, encoding="utf-8")
    (tmp_path / "scripts/run.py").write_text("try:\n    import singflow.a\nexcept ImportError:\n    import unused\n", encoding="utf-8")
    assert code_files("run", tmp_path) == ["scripts/run.py", *(f"src/singflow/{name}.py" for name in ["__init__", "a", "b", "c", "d"])]


def test_dvc_yaml_is_in_sync_with_the_imports(tree):
    write_code_dependencies(tree / "dvc.yaml")
    assert (tree / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()


def test_a_stale_dvc_yaml_is_brought_back_byte_for_byte(tree):
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert text.count("src/singflow/store.py\n") > 5
    (tree / "dvc.yaml").write_text(text.replace("src/singflow/store.py\n", "src/singflow/removed.py\n"), encoding="utf-8")
    write_code_dependencies(tree / "dvc.yaml")
    assert (tree / "dvc.yaml").read_text(encoding="utf-8") == text


def test_a_new_import_adds_a_dependency_to_its_stages_only(tree):
    before = yaml.safe_load((tree / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    with (tree / "src/singflow/steering.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef late():\n    import singflow.statistics\n")
    write_code_dependencies(tree / "dvc.yaml")
    after = yaml.safe_load((tree / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    added = {name: set(stage.get("do", stage)["deps"]) - set(before[name].get("do", before[name])["deps"]) for name, stage in after.items()}
    expected = {"steer_concepts", "tabulate_steering", "render_pictures"}
    assert {name: files for name, files in added.items() if files} == {name: {"src/singflow/statistics.py"} for name in expected}


def test_every_stage_names_a_script_and_runs_it():
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items():
        assert name in SCRIPTS
        assert stage.get("do", stage)["cmd"].startswith(f"python scripts/{name}.py ")

"""docs/api.md and the notebook, run as a reader would run them, and the public names that they are about."""

import ast
import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jupytext
import matplotlib
import numpy as np
import pandas as pd
import pytest
import sklearn

import singflow
from singflow.artifacts.tensors import read_tensors
from singflow.data.manifest import data_root
from tests.photo.conftest import MODEL, SCORES
from tests.project import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(encoding="utf-8"), flags=re.DOTALL)
NUMBER = r"[-+]?\d+\.?\d*(?:e-\d+)?"
HEAVY = {"torch", "numpy", "pandas", "scipy", "PIL", "matplotlib", "pydantic", "yaml", "typer"}


@pytest.fixture
def reader(home, packaged, monkeypatch):
    """The working directory, with two photos."""
    matplotlib.use("agg")
    root, manifest = packaged
    for name, path in zip(("photo.jpg", "other.jpg"), manifest["path"], strict=False):
        shutil.copy(root / path, home / name)
    return home


def test_the_examples_of_the_page_run_one_after_the_other(reader, capsys):
    names = {}
    for block in BLOCKS:
        exec(compile(block, "docs/api.md", "exec"), names)  # noqa: S102
    said = capsys.readouterr().out
    assert "photo.jpg: bull mastiff" in said and "a rug: from" in said and names["steered"].logit_change < 1e-4
    assert json.loads(json.dumps(names["record"]))["image"] == "photo.jpg" and (reader / "photo.png").is_file()
    assert names["split"].basis.shape == (1280, 280) and names["images"].shape == (1, 384)
    assert names["removal"].image_score()[0] == pytest.approx(names["result"].is_deg, abs=1e-5) == names["table"]["photo.jpg"]
    assert names["features"].shape == (20, 1280) and names["rank"] == 1000 and list(names["models"]["model"]) == [MODEL]
    public = set(re.findall(r"singflow\.(\w+)", "".join(BLOCKS))) | {"NullSpace", "Removal", "Result", "Steered", "Study", "InputError"}
    assert public == set(singflow.__all__)


def test_the_notebook_runs_from_a_photo_to_the_study_s_table(reader, capsys, monkeypatch):
    cells = [cell for cell in jupytext.read(ROOT / "notebooks/photo.py").cells if cell.cell_type == "code"]
    monkeypatch.chdir(reader / "docs")
    names = {}
    for cell in cells:
        *statements, last = ast.parse(cell.source).body
        exec(compile(ast.Module(statements, []), "photo.py", "exec"), names)  # noqa: S102
        value = eval(compile(ast.Expression(last.value), "photo.py", "eval"), names) if isinstance(last, ast.Expr) else None  # noqa: S307
        if not isinstance(last, ast.Expr):
            exec(compile(ast.Module([last], []), "photo.py", "exec"), names)  # noqa: S102
    assert len(cells) == 8 and MODEL in value.columns and "folding chair" in names["result"]._repr_html_()
    assert "turned by 40.0" in capsys.readouterr().out and len(names["table"]) == 10


def test_the_guide_quotes_what_the_command_says(home):
    page = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
    temple, chair = re.findall(r"```\n((?:photo|chair)\.jpg: .*?)```", page, flags=re.DOTALL)
    photos = Path(sklearn.__file__).parent / "datasets/images/china.jpg", data_root("packaged", "") / "imagenet_01_559.jpg"
    analyzer = singflow.Analyzer.load(MODEL)
    for quoted, photo, texts in zip((temple, chair), photos, (["a rug", "a temple"], []), strict=True):
        said = repr(analyzer.analyze(photo, texts, name=quoted.partition(":")[0])).splitlines()
        for line, ours in zip(quoted.splitlines(), said, strict=quoted is temple):
            assert re.sub(NUMBER, "#", line) == re.sub(NUMBER, "#", ours)
            assert np.allclose(*([float(each) for each in re.findall(NUMBER, words)] for words in (line, ours)), atol=1.1)


def test_a_study_s_files_are_found_by_their_names(home):
    study = singflow.load_study("results/demo")
    assert study.table(SCORES.removeprefix("results/demo/").removesuffix(".parquet")).equals(pd.read_parquet(SCORES))
    head = study.tensors(f"features/{MODEL}/head")
    assert np.array_equal(head["weight"], read_tensors(home / f"results/demo/features/{MODEL}/head.safetensors", ["weight"])[0]["weight"])
    for refused, words in (
        (lambda: study.table("tables/model"), r"has no csv or parquet file 'tables/model'; near: tables/models"),
        (lambda: study.tensors("../../params"), r"has no safetensors file '../../params'"),
        (lambda: study.report("projectors/none"), r"has no json file"),
        (lambda: singflow.load_study("results"), r"results: holds no params.yaml of a study"),
    ):
        with pytest.raises(singflow.InputError, match=words):
            refused()


def test_importing_the_package_loads_no_library():
    code = "import sys, singflow; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert "singflow" in loaded and not loaded & HEAVY


def test_the_public_names_are_typed_and_are_what_their_modules_have():
    tree = ast.parse((ROOT / "src/singflow/__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    named = {alias.name: node.module for node in typed.body for alias in node.names}
    assert sorted(named) == sorted(singflow.__all__) == sorted({*dir(singflow)} & named.keys())
    assert all(getattr(singflow, name) is getattr(import_module(module), name) for name, module in named.items())
    with pytest.raises(AttributeError, match="module 'singflow' has no attribute 'analyse'"):
        _ = singflow.analyse

"""docs/api.md and the notebook, run as a reader would run them, and the public names in them."""

import ast
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import jupytext
import matplotlib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from nbclient import NotebookClient
from PIL import Image

import singflow
from singflow.artifacts.tensors import read_tensors
from singflow.data.manifest import data_root
from tests.photo.conftest import MODEL, SCORES, SPACE
from tests.project import ROOT, blocks, quoted

pytestmark = pytest.mark.nightly

BLOCKS, (TEN_LINES,), OF_FEATURES = (
    blocks((ROOT / page).read_text(encoding="utf-8"), "python")
    for page in ("docs/api.md", "README.md", "docs/features.md")
)
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
    assert "photo.jpg: bull mastiff" in said and "a rug: from" in said
    assert names["steered"].logit_change < 1e-4 and (reader / "photo.png").is_file()
    assert json.loads(json.dumps(names["record"]))["image"] == "photo.jpg"
    assert names["split"].basis.shape == (1280, 280) and names["images"].shape == (1, 384)
    is_deg = names["removal"].image_score()[0]
    assert is_deg == pytest.approx(names["result"].is_deg, abs=1e-5) == names["table"]["photo.jpg"]
    assert names["features"].shape == (20, 1280) and names["rank"] == 1000
    assert list(names["models"]["model"]) == [MODEL]
    public = set(re.findall(r"singflow\.(\w+)", "".join([*BLOCKS, *OF_FEATURES])))
    returned = {"Collected", "NullSpace", "Removal", "Result", "Steered", "Study"}
    assert public | returned | {"InputError", "Evidence"} == set(singflow.__all__)


def test_the_ten_lines_of_the_readme_give_a_verdict_on_a_model_in_memory(home, capsys):
    packaged = singflow.Classifier.load(MODEL)
    photos = sorted(data_root("packaged", "").glob("imagenet_*.jpg"))
    whole = packaged.tower.preprocess.whole
    loader = [(torch.stack([whole(Image.open(photo).convert("RGB"))]), [0]) for photo in photos]
    given = {"model": packaged.tower.model, "loader": loader, "photos": photos}
    exec(compile(TEN_LINES, "README.md", "exec"), given | {"class_names": packaged.class_names})  # noqa: S102
    said = capsys.readouterr().out
    assert said.startswith("20 images") or "a suit" in said, said


def test_the_notebook_runs_from_a_photo_to_the_study_s_table(reader, capsys, monkeypatch):
    cells = jupytext.read(ROOT / "notebooks/photo.py").cells
    cells = [ast.parse(cell.source).body for cell in cells if cell.cell_type == "code"]
    monkeypatch.chdir(reader / "notebooks")
    names = {}
    for statements in cells:
        shown = statements.pop() if isinstance(statements[-1], ast.Expr) else None
        exec(compile(ast.Module(statements, []), "photo.py", "exec"), names)  # noqa: S102
        if shown:
            value = eval(compile(ast.Expression(shown.value), "photo.py", "eval"), names)  # noqa: S307
    assert len(cells) == 8 and MODEL in value.columns and len(names["table"]) == 10
    assert "folding chair" in names["result"]._repr_markdown_()
    assert "turned by 40.0" in capsys.readouterr().out


def test_the_notebook_of_an_own_model_runs_in_an_empty_folder(tmp_path):
    notebook = jupytext.read(ROOT / "notebooks/own_model.py")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.data for outputs in cells for output in outputs if "data" in output]
    said = "\n".join(data["text/plain"] for data in shown)
    assert "before the head 'classifier' of 398 classes; W f + b is within" in said
    assert "Keep the features: its head drops at least " in said
    assert "**Keep the features" in "".join(d.get("text/markdown", "") for d in shown)
    assert "trailer truck" in said and "photo: " in said
    assert sum("image/png" in data for data in shown) == 2  # which a kernel can show
    source = tmp_path / "checkpoints/features/animals"
    assert len(pd.read_parquet(source / "data/manifest.parquet")) == 20


def test_the_guide_quotes_what_the_command_says(home):
    page = (ROOT / "docs/photo.md").read_text(encoding="utf-8")
    (shown,) = (
        block for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) if "palace" in block
    )
    china = Path(sklearn.__file__).parent / "datasets/images/china.jpg"
    photo = singflow.Analyzer.load(MODEL).analyze(china, ["a rug"], name="photo.jpg")
    for told, found in quoted(shown, repr(photo)):
        assert told == pytest.approx(found, abs=1.1)


def test_a_study_s_files_are_found_by_their_names(home):
    study = singflow.load_study("results/demo")
    table = study.table(SCORES.removeprefix("results/demo/").removesuffix(".parquet"))
    assert table.equals(pd.read_parquet(SCORES))
    head = f"heads/{MODEL}"
    theirs = read_tensors(home / f"results/demo/{head}.safetensors", ["weight"])[0]
    assert np.array_equal(study.tensors(head)["weight"], theirs["weight"])
    assert np.array_equal(*(study.rows(f"{at}features/{MODEL}") for at in ("", "./")))
    pair = study.of(MODEL, SPACE)
    for image_id, removal in pair.removals():
        wanted = table.set_index("image_id")["is_deg"][image_id]
        np.testing.assert_allclose(removal.image_score(), wanted, atol=1e-5)
    for read, name, words in (
        (study.of, "lite0", rf"results/demo: has no shards of the model 'lite0'; it .* {MODEL}"),
        (partial(study.of, MODEL), "clip", rf"of the space 'clip'; it has those of {SPACE}"),
        (study.table, "tables/model", r"no csv or parquet file 'tables/model'; near: tables/mo"),
        (study.tensors, f"../demo/features/{MODEL}", r"has no safetensors file '../demo/features/"),
        (singflow.load_study, "results", r"results: holds no params.yaml of a study"),
    ):
        with pytest.raises(singflow.InputError, match=words):
            read(name)


def test_importing_the_package_loads_no_library():
    code = "import sys, singflow; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command, streams = [sys.executable, "-c", code], {"capture_output": True, "text": True}
    loaded = set(subprocess.run(command, check=True, **streams).stdout.split())
    assert "singflow" in loaded and not loaded & HEAVY


def test_the_public_names_are_typed_and_are_what_their_modules_have():
    tree = ast.parse((ROOT / "src/singflow/__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    named = {alias.name: node.module for node in typed.body for alias in node.names}
    assert sorted(named) == sorted(singflow.__all__) == sorted({*dir(singflow)} & named.keys())
    for name, module in named.items():
        assert getattr(singflow, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="module 'singflow' has no attribute 'analyse'"):
        _ = singflow.analyse

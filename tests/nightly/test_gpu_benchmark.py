"""The benchmark of GPUs, run on a CPU with the smallest towers."""

import re

import pandas as pd
import pytest
import yaml

from singflow.config.registry import resolve_models
from tests import warm
from tests.project import ROOT

TOWERS = {"timm": ["test_resnet.r160_in1k", "test_vit.r160_in1k"], "open_clip": ["ViT-S-32-alt"]}
SMALL = {"count": 3, "batch_size": 2, "iterations": 1, "threads": 1, "device": "cpu"}
PRECISIONS = ["float32", "tf32", "bfloat16"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the benchmark ran, and what it printed."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "config").mkdir()
    (folder / "config/models.yaml").write_text((ROOT / "config/models.yaml").read_text())
    tiny = {"source": "open_clip", "id": TOWERS["open_clip"][0], "dim": 256, "weights": "random"}
    (folder / "config/spaces.yaml").write_text(yaml.safe_dump({"tiny": tiny}))
    models = [f"timm/{name}" for name in TOWERS["timm"]]
    flags = ["--models", *models, "--spaces", "tiny", "--precisions", *PRECISIONS]
    flags += [f"--{name}={value}" for name, value in SMALL.items()]
    done = warm.run(ROOT / "benchmarks/gpu.py", *flags, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return folder, done.stdout


def test_every_tower_is_measured_in_every_precision_on_three_paths_or_its_row_says_why(ran):
    folder, said = ran
    table = pd.read_csv(folder / "benchmarks/rates.csv")
    assert len(table) == 3 * 3 * 3
    assert not table.duplicated(["tower", "precision", "path"]).any()
    assert table.groupby("source")["tower"].unique().map(list).to_dict() == TOWERS
    assert set(table["path"]) == {"product", "timm", "dataloader"}
    assert set(table["batch"]) == {2} and set(table["decode_threads"]) == {1}
    assert set(table["on"]) == {"CPU"} and table["busy"].isna().all()
    fast = table["precision"] == "tf32"
    assert (table.loc[~fast, "images_per_s"] > 0).all() and table.loc[~fast, "note"].isna().all()
    assert table.loc[fast, "images_per_s"].isna().all()
    assert set(table.loc[fast, "note"]) == {"this device has no TF32"}
    assert len(re.findall(r"^not measured: .*, tf32, .*: this device has no", said, re.M)) == 9
    rows = [line.strip("| ").split("|") for line in said.splitlines() if line.startswith("| ")]
    shown = {(row[0].strip(), row[1].strip()): row[2].strip() for row in rows[1:]}
    product = table[table["path"] == "product"].set_index(["tower", "precision"])["images_per_s"]
    expected = product.map("{:.4g}".format).where(product.notna(), "-")
    assert shown == expected.to_dict()


def test_multiply_adds_are_those_that_are_published(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    from singflow.towers.classifiers import load_classifier

    name = "resnet50"
    entry = resolve_models(ROOT / "config/models.yaml", [name], "random")[name]
    assert gpu.multiply_adds(load_classifier(entry)) == pytest.approx(4.09, rel=0.01)

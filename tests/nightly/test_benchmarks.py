"""The benchmarks at small sizes: each measures everything, and ends with 0 if it misses marks."""

import re

import pandas as pd
import pytest
import yaml

from tests import warm
from tests.project import ROOT


def run(name, *flags, root=ROOT, **options):
    """What a benchmark prints, and its figures that have marks: value, and whether it is reached.

    The last line names those that are missed.
    """
    done = warm.run(root / f"benchmarks/{name}.py", *flags, **options)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    rows = re.findall(r"^ *(\S.*?) +(\S+) +[<>]= +\S+ +(True|False)$", done.stdout, re.M)
    missed = "; ".join(figure for figure, _, reached in rows if reached == "False")
    if rows:
        said = f"MISSED: {missed}" if missed else "every mark is reached"
        assert done.stdout.splitlines()[-1] == said
    return done.stdout, {figure: (float(value), reached) for figure, value, reached in rows}


def test_every_figure_of_the_numerical_core_is_measured():
    sizes = {"images": 200, "features": 32, "null": 8, "dims": 16, "labels": 5, "rows": 5000}
    sizes |= {"square": 64, "evidence_images": 60, "repeats": 1, "threads": 1}
    _, figures = run("numerics", *(f"--{name}={size}" for name, size in sizes.items()))
    parts = [figure.partition(":")[0] for figure in figures]
    assert parts == ["scoring"] * 3 + ["ridge path"] * 3 + ["evidence"] * 2
    assert all(value > 0 for value, _ in figures.values())
    # 60 images do not outweigh what a test of meaning costs in any case.
    assert figures["evidence: times as long as one ridge path"][1] == "False"


def test_extraction_beside_the_stock_path_and_what_its_options_change():
    sizes = ["--count", 4, "--batch_size", 2, "--threads", 1, "--repeats", 1]
    said, figures = run("extraction", *sizes)
    rows = [re.split(r" {2,}| (?=[-\d])", line.strip()) for line in said.splitlines()[1:4]]
    found = {name: [*map(float, row)] for name, *row in rows}
    assert [*found] == ["stock", "product", "bfloat16"]
    assert all(seconds > 0 for row in found.values() for seconds in row[:3])
    largest, degrees = ({name: row[place] for name, row in found.items()} for place in (3, 5))
    assert largest["stock"] == degrees["stock"] == 0
    assert 0 < largest["product"] < 1e-4 < largest["bfloat16"] < 0.5
    faster, far = figures.values()
    assert faster[0] == pytest.approx(found["stock"][1] / found["product"][1], rel=0.02)
    assert far == (largest["product"], "True")


def test_towers_run_on_three_paths_in_every_precision_or_the_table_says_why(tmp_path):
    (tmp_path / "config").mkdir()
    models = (ROOT / "config/models.yaml").read_text()
    (tmp_path / "config/models.yaml").write_text(models)
    tiny = {"source": "open_clip", "id": "ViT-S-32-alt", "dim": 256, "weights": "random"}
    (tmp_path / "config/spaces.yaml").write_text(yaml.safe_dump({"tiny": tiny}))
    towers = ["timm/test_resnet.r160_in1k", "timm/test_vit.r160_in1k"]
    flags = ["--models", *towers, "--spaces", "tiny", "--precisions", "float32", "tf32", "bfloat16"]
    flags += ["--count", 3, "--batch_size", 2, "--threads", 1, "--device", "cpu"]
    said, _ = run("gpu", *flags, cwd=tmp_path)
    rows = [[*map(str.strip, line.strip("|").split("|"))] for line in said.splitlines()[2:]]
    table = pd.DataFrame(rows[2:], columns=rows[0]).set_index(["tower", "precision"])
    assert [*table.columns] == [f"{path}, images/s" for path in ("timm", "dataloader", "product")]
    assert [*table.index.unique("tower")] == [*towers, "tiny"] and len(table) == 9
    fast = table.index.get_level_values("precision") == "tf32"
    assert (table[fast] == "this device has no TF32").all(axis=None)
    assert (table[~fast].astype(float) > 0).all(axis=None)

import pandas as pd
import pytest

from singflow.config.registry import ModelEntry, resolve_models, resolve_spaces
from singflow.planning.sizes import (
    IMAGENET,
    Sizes,
    disk_bytes,
    expected_images,
    images_here,
    sizes_of,
)
from tests.data.archives import pack, write_rows


@pytest.fixture
def towers(study):
    """Models and spaces of the demo."""
    models = resolve_models("config/models.yaml", study["models"])
    return models, resolve_spaces("config/spaces.yaml", study["spaces"])


def test_sizes_are_those_of_the_largest_shard_and_of_the_widest_towers(study, towers, tmp_path):
    study["extraction"] |= {"views": 3, "shards": 6}
    reference = sizes_of(study, tmp_path, *towers)
    assert reference == Sizes(507, 3 * 507, 1280, 384)  # which is one shard
    study["translator"]["reference"] = None
    assert sizes_of(study, tmp_path, *towers) == Sizes(20, 3 * 4, 1280, 384)
    assert sizes_of(study, tmp_path, {}, towers[1]) == Sizes(20, 12, 0, 384)
    unknown = {"x": ModelEntry(source="timm", id="resnet18.a1_in1k")}
    assert sizes_of(study, tmp_path, unknown | towers[0], {}) == Sizes(20, 12, 2048, 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images in every form in which a study takes them, of few bytes."""
    root = tmp_path_factory.mktemp("data")
    pd.DataFrame({"path": [f"{n}.jpg" for n in range(5000)]}).to_parquet(root / "5000.parquet")
    classes = [f"class{label}/{number}.jpg" for label in range(40) for number in range(3)]
    parts = ("plain", "split/train", "split/val")
    for name in [f"{part}/{name}" for part in parts for name in classes]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    names = [f"{row:04d}.{ending}" for row in range(2000) for ending in ("cls", "jpg")]
    for number in range(3):
        pack(root / f"{number}.tar", dict.fromkeys(names, b"x" * 700))
    for number in range(20):
        write_rows(root / f"rows{number}.parquet", [b"x"] * 50, [0] * 50)
    pack(root / "small.tar", {"a.jpg": b"x", "b.JPEG": b"x", "c.txt": b"x"})
    (root / "cut.tar").write_bytes(b"x" * 999)
    return root


@pytest.mark.parametrize(
    ("source", "given", "images", "drawn"),
    [
        ("table", {"table": "{data}/5000.parquet"}, 5000, 2000),
        ("folder", {"root": "{data}/plain"}, 120, 80),
        ("folder", {"root": "{data}/split"}, 240, 160),
        ("archive", {"root": "{data}", "archives": ["?.tar"]}, 6000, 2000),
        ("archive", {"root": "{data}", "archives": ["rows*.parquet"]}, 1000, 1000),
        ("archive", {"root": "{data}", "archives": ["small.tar"]}, 2, 2),
        # data that is not here, or not readable, counts as ImageNet
        ("archive", {"root": "{data}", "archives": ["cut.tar"]}, IMAGENET, 2000),
        ("table", {"table": "not/here.csv"}, IMAGENET, 2000),
        ("folder", {"root": "not/here"}, IMAGENET, 2000),
    ],
)
def test_images_are_counted_or_told_from_some_of_them(
    study, data, tmp_path, source, given, images, drawn
):
    for key in given.keys() & {"root", "table"}:
        given = given | {key: given[key].format(data=data)}
    for per_class, expected in ((None, images), (2, drawn)):
        study["data"] |= given | {"source": source, "per_class": per_class}
        assert expected_images(study, tmp_path) == pytest.approx(expected, rel=0.02)
        assert bool(images_here(study, tmp_path)) == (images != IMAGENET)


def test_large_results_are_as_large_as_their_tensors(study, towers):
    models, spaces = towers
    study["analyses"] = ["scores"]
    study["extraction"]["views"] = 9
    (one,) = {model.feature_dim for model in models.values()}
    tensors = 9000 * (4 * (4 * one + 12) + 4 * 384 + 12)  # of four models and a space
    whole = disk_bytes(study, 1000, models, spaces)
    assert tensors < whole < 1.5 * tensors
    study["analyses"] += ["networks", "pictures"]
    assert 3e6 < disk_bytes(study, 1000, models, spaces) - whole < 1e7  # three small networks
    study["pictures"]["renderer"] = "unclip"
    drawn = 4 * 20 * study["pictures"]["count"] * len(study["pictures"]["seeds"])
    assert disk_bytes(study, 1000, models, spaces) - whole > 1.5e5 * drawn

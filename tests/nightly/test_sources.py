"""One study of the same images from a folder, a tar, WebDataset shards and Parquet shards."""

import json
import shutil
import tarfile

import pandas as pd
import pytest

from singflow.artifacts.shards import read_manifest
from singflow.data.manifest import data_root, read_classes
from tests.data.archives import pack, write_rows
from tests.project import ROOT, Project

CLASSES = read_classes(ROOT / "config/vocab/imagenet_1k.csv")
SOURCES = {
    "folder": {"source": "folder", "root": "images/photos"},
    "tar": {"source": "archive", "root": "images", "archives": ["photos.tar"]},
    "webdataset": {"source": "archive", "root": "images", "archives": ["wds-*.tar"]},
    "parquet": {"source": "archive", "root": "images", "archives": ["data/train-*.parquet"]},
}
READ = ("params.yaml", "data/manifest.parquet", "features/tiny/shard-00000.safetensors")
PICTURED = "pictures/conse_minilm/tiny.parquet"


def write_images(folder):
    """The packaged images below a folder, in all four forms, ordered by label and name."""
    listed = pd.read_csv(ROOT / "config/vocab/packaged.csv")
    root, listed = data_root("packaged", "."), listed[["label", "path"]].to_numpy().tolist()
    photos = [(label, path, (root / path).read_bytes()) for label, path in sorted(listed)]
    for label, path, content in photos:
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / label / path).write_bytes(content)
    with tarfile.open(folder / "photos.tar", "w") as tar:
        tar.add(folder / "photos", "photos")
    for shard in range(2):
        part = list(enumerate(photos))[10 * shard : 10 * shard + 10]
        members, codes = {}, [CLASSES.find(label) for _, (label, _, _) in part]
        for code, (number, (_, path, content)) in zip(codes, part, strict=True):
            named = json.dumps({"filename": path}).encode()
            sample = {"cls": str(code).encode(), "JPG": content, "json": named}
            members |= {f"{number:06d}.{kind}": data for kind, data in sample.items()}
        pack(folder / f"wds-{shard:05d}.tar", members)
        images = [{"bytes": content, "path": path} for _, (_, path, content) in part]
        file = folder / f"data/train-{shard:05d}-of-00002.parquet"
        write_rows(file, images, codes, CLASSES.names, group=3)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("sources"))
    (project.folder / "images").mkdir()
    write_images(project.folder / "images")
    return project


@pytest.fixture(scope="module")
def made(project):
    """Artifacts of each study, and its manifest."""
    found = {}
    for name in ("parquet", "webdataset", "folder", "tar"):
        data = SOURCES[name]
        shutil.rmtree(project.folder / "results/demo", ignore_errors=True)
        project.study(
            models=["tiny"], data=data, extraction={"views": 1}, comparison={"models": []}
        )
        targets = READ + ((PICTURED,) if name in ("folder", "tar") else ())
        project.snakemake(*(f"results/demo/{target}" for target in targets))
        manifest = read_manifest(project.folder / "results/demo/data/manifest.parquet")
        found[name] = project.artifacts(), manifest
    return found


@pytest.mark.parametrize("source", ["tar", "webdataset", "parquet"])
def test_a_study_of_archives_is_that_of_the_folder_to_the_byte_but_for_where_its_images_lie(
    made, source
):
    (expected, listed), (found, manifest) = made["folder"], made[source]
    assert found.keys() <= expected.keys() and len(found) > (14 if source == "tar" else 4)
    assert found.keys() == expected.keys() or source != "tar"
    where = {"params.yaml", "data/manifest.parquet"}
    assert {name for name in found if found[name] != expected[name]} == where
    same_rows = manifest[listed.columns].drop(columns="path")
    pd.testing.assert_frame_equal(same_rows, listed.drop(columns="path"))
    assert list(manifest.columns) == [*listed.columns, "archive", "offset", "bytes"]
    paths = zip(manifest["path"], manifest["archive"], strict=True)
    assert [path.startswith(f"{archive}/") for path, archive in paths] == [True] * 20

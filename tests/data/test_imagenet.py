"""What docs/paper.md does with ImageNet's downloads, on tiny copies of them."""

import hashlib
import io
import tarfile

import numpy as np
import pandas as pd
from scipy.io import savemat
from torchvision.datasets import imagenet

from singflow.data.listing import list_folder, list_table
from tests.data.archives import pack, picture
from tests.data.manifests import CLASSES
from tests.project import ROOT, blocks

# By ILSVRC2012_ID, as in the real devkit: not in the order of synsets. The last is no leaf.
SYNSETS = ["n02119789", "n02100735", "n02110185", "n02096294", "n00001740"]
WORDS = ["kit fox", "English setter", "Siberian husky", "Australian terrier"]
IDS = [3, 1, 2, 4, 1, 2]  # of the validation images, by name
NAMES = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(IDS) + 1)]
IMAGES = {f"{name}.JPEG": picture(number, "JPEG") for number, name in enumerate(NAMES)}
LABELS = {name: WORDS[number - 1] for name, number in zip(NAMES, IDS, strict=True)}


def write_devkit(path, ids=IDS, synsets=SYNSETS):
    """A devkit whose meta.mat has structures as the real one."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    rows = np.zeros((len(synsets), 1), dtype=[(field, object) for field in fields])
    for row, synset in enumerate(synsets):
        rows[row, 0] = (row + 1, synset, f"words {row}", "gloss", int(row == len(synsets) - 1))
    file = io.BytesIO()
    savemat(file, {"synsets": rows})
    truth = "".join(f"{number}\n" for number in ids).encode()
    files = {"meta.mat": file.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_downloads(folder, images=IMAGES, **devkit):
    """The three files of image-net.org, and their names and MD5 as torchvision wants them."""
    pack(folder / "ILSVRC2012_img_val.tar", images)
    write_devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", **devkit)
    for number, synset in enumerate(SYNSETS[:4]):
        pack(folder / f"{synset}.tar", {f"{synset}_1.JPEG": picture(50 + number, "JPEG")})
    inner = {f"{synset}.tar": (folder / f"{synset}.tar").read_bytes() for synset in SYNSETS[:4]}
    pack(folder / "ILSVRC2012_img_train.tar", inner)
    return {
        kind: (name, hashlib.md5((folder / name).read_bytes()).hexdigest())  # noqa: S324
        for kind, (name, _) in imagenet.ARCHIVE_META.items()
    }


def snippet(word):
    """The program of docs/paper.md that holds a word."""
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    (program,) = (block for block in blocks(page, "python") if word in block)
    return program


def test_torchvision_sorts_the_files_of_image_net_into_class_folders(tmp_path, monkeypatch):
    (tmp_path / "imagenet").mkdir()
    # the tiny files have other checksums than ImageNet's
    monkeypatch.setattr(imagenet, "ARCHIVE_META", write_downloads(tmp_path / "imagenet"))
    monkeypatch.chdir(tmp_path)
    of_train = dict(zip((f"{synset}_1" for synset in SYNSETS[:4]), WORDS, strict=True))
    for split, expected in (("val", LABELS), ("train", of_train)):
        exec(snippet("torchvision").replace('"val"', f'"{split}"'), {})  # noqa: S102
        found, rejected = list_folder(tmp_path / "imagenet" / split, CLASSES)
        labels = {image.path.partition("/")[2].removesuffix(".JPEG"): image for image in found}
        assert {name: image.label for name, image in labels.items()} == expected
        assert all(image.class_index == CLASSES.find(image.label) for image in found)
        assert rejected == []


def test_a_table_has_the_labels_of_kaggles_validation_images(tmp_path, monkeypatch):
    boxes = [f"{name},{SYNSETS[i - 1]} 85 1 499 272 " for name, i in zip(NAMES, IDS, strict=True)]
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet/LOC_val_solution.csv").write_text(
        "\n".join(["ImageId,PredictionString", *boxes])
    )
    monkeypatch.chdir(tmp_path)
    exec(snippet("LOC_val_solution.csv"), {})  # noqa: S102
    found, rejected = list_table(tmp_path / "imagenet/val.csv", "label", CLASSES)
    assert {image.path: image.label for image in found} == {
        f"{name}.JPEG": label for name, label in LABELS.items()
    }
    assert rejected == [] and len(pd.read_csv("imagenet/val.csv")) == len(NAMES)

"""ImageNet as it is downloaded: every layout on a tiny copy, with labels that are known."""

import io
import tarfile
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from singflow.data.imagenet import META, TRUTH
from singflow.data.listing import list_archives, list_folder
from tests.data.archives import pack, picture
from tests.data.manifests import CLASSES, CLASSES_FILE
from tests.project import ROOT
from tests.refusals import refused
from tests.results import Results

# By ILSVRC2012_ID, as in the real devkit: not in the order of synsets. The last is no leaf.
SYNSETS = ["n02119789", "n02100735", "n02110185", "n02096294", "n00001740"]
IDS = [3, 1, 2, 4, 1, 2]  # of the images, by name
NAMES = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(IDS) + 1)]
WORDS = ["Siberian husky", "kit fox", "English setter", "Australian terrier"]
LABELS = dict(zip(NAMES, [*WORDS, *WORDS[1:3]], strict=True))
IMAGES = {f"{name}.JPEG": picture(number, "JPEG") for number, name in enumerate(NAMES)}
SYNSET_OF = {name: SYNSETS[number - 1] for name, number in zip(NAMES, IDS, strict=True)}
DEVKIT, BASE = "ILSVRC2012_devkit_t12", "ILSVRC/Data/CLS-LOC"


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def devkit(ids=IDS, synsets=SYNSETS):
    """The files of a devkit, below its folder; structures in meta.mat as in the real one."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
    rows = np.zeros((len(synsets), 1), dtype=[(field, object) for field in fields])
    for row, synset in enumerate(synsets):
        leaf = row < len(synsets) - 1
        facts = (float(row + 1), synset, f"words {row}", "gloss", float(not leaf), np.zeros(0))
        rows[row, 0] = facts
    file = io.BytesIO()
    savemat(file, {"synsets": rows})
    truth = "".join(f"{number}\n" for number in ids).encode()
    return {f"{DEVKIT}/data/{META}": file.getvalue(), f"{DEVKIT}/data/{TRUTH}": truth}


def packed_devkit(root, *facts):
    with tarfile.open(root / f"{DEVKIT}.tar.gz", "w:gz") as tar:
        for name, content in devkit(*facts).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def solution(path):
    boxes = "".join(
        f"{name},{synset} 85 1 499 272 {synset} 1 2 3 4 \n" for name, synset in SYNSET_OF.items()
    )
    path.write_text(f"ImageId,PredictionString\n{boxes}")


def flat_archive(root, images=IMAGES):
    pack(root / "ILSVRC2012_img_val.tar", images)


def flat_folder(root, below="val"):
    write(root, {f"{below}/{name}": content for name, content in IMAGES.items()})


def table(root, column="label", folder="val/"):
    rows = [f"{folder}{name}.JPEG,{synset}\n" for name, synset in SYNSET_OF.items()]
    root.with_name("mine.csv").write_text("".join([f"path,{column}\n", *rows]))


def kaggle(root, train=True):
    """Kaggle's archive, unpacked: test images have no labels."""
    flat_folder(root, f"{BASE}/val")
    write(root, {f"{BASE}/test/ILSVRC2012_test_00000001.JPEG": picture(99, "JPEG")})
    write(root, {"ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml": b"<annotation/>"})
    write(root, {"ILSVRC/ImageSets/CLS-LOC/val.txt": b"ILSVRC2012_val_00000001 1\n"})
    for number, synset in enumerate(SYNSETS[:4] if train else []):
        name = f"{BASE}/train/{synset}/{synset}_1.JPEG"
        write(root, {name: picture(50 + number, "JPEG")})
    (root / "LOC_synset_mapping.txt").write_text("n02119789 kit fox, Vulpes macrotis\n")
    solution(root / "LOC_val_solution.csv")


def class_folders(root):
    write(root, {f"val/{SYNSET_OF[name]}/{name}.JPEG": IMAGES[f"{name}.JPEG"] for name in NAMES})


def unpacked_devkit(root):
    write(root, devkit())


def kaggle_labels(root):
    solution(root / LABELS_OF_KAGGLE)


def table_of_synsets(root):
    table(root, "synset", "")


LABELS_OF_KAGGLE, PACKED = "LOC_val_solution.csv", f"{DEVKIT}.tar.gz"
VAL_TAR = {"source": "archive", "archives": ["ILSVRC2012_img_val.tar"]}
CSV = {"table": "mine.csv"}
# How each layout is made, the keys of `data`, and where labels are from, as the log says it.
LAYOUTS = {
    "archive with the devkit": ([flat_archive, packed_devkit], VAL_TAR, PACKED),
    "archive with the unpacked devkit": ([flat_archive, unpacked_devkit], VAL_TAR, DEVKIT),
    "archive with a CSV": (
        [flat_archive, table_of_synsets],
        VAL_TAR | CSV | {"label_column": "synset"},
        "mine.csv",
    ),
    "archive with Kaggle's labels": ([flat_archive, kaggle_labels], VAL_TAR, LABELS_OF_KAGGLE),
    "flat val with the devkit": ([flat_folder, packed_devkit], {}, PACKED),
    "flat val with the unpacked devkit": ([flat_folder, unpacked_devkit], {}, DEVKIT),
    "flat val itself": ([flat_folder, packed_devkit], {"below": "val"}, PACKED),
    "flat val with a CSV": ([flat_folder, table], CSV, "mine.csv"),
    "a table": ([flat_folder, table], CSV | {"source": "table"}, None),
    "above Kaggle's ILSVRC": ([kaggle], {}, LABELS_OF_KAGGLE),
    **{
        f"Kaggle's {below.rpartition('/')[2]}": ([kaggle], {"below": below}, LABELS_OF_KAGGLE)
        for below in ("ILSVRC", "ILSVRC/Data", BASE, f"{BASE}/val")
    },
    "Kaggle without train": ([partial(kaggle, train=False)], {}, LABELS_OF_KAGGLE),
    "above val/<synset>": ([class_folders], {}, None),
    "above val/<synset>, with the unpacked devkit": ([class_folders, unpacked_devkit], {}, None),
    "val/<synset> itself": ([class_folders], {"below": "val"}, None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_imagenet_is_read_as_it_is_downloaded(tmp_path, layout, caplog):
    parts, keys, origin = LAYOUTS[layout]
    root = tmp_path / "downloads"
    root.mkdir()
    for part in parts:
        part(root)
    data = {"source": "folder", "table": str(ROOT / "config/vocab/packaged.csv")} | keys
    data["root"] = str(root / data.pop("below", "."))
    if data["table"] == "mine.csv":
        data["table"] = str(root.with_name("mine.csv"))
    flags = {"classes": str(CLASSES_FILE), "max_rejected_fraction": 0.0, "folds": 5, "seed": 0}
    caplog.set_level("INFO")
    Results(tmp_path / "out").run("build_manifest", threads=1, **flags, **data)
    manifest = pd.read_parquet(tmp_path / "out/data/manifest.parquet")
    names = manifest["path"].str.extract(r"([^/]+)\.JPEG$")[0]
    of_val = names.str.startswith("ILSVRC2012_val")
    assert dict(zip(names[of_val], manifest["label"][of_val], strict=True)) == LABELS
    assert [CLASSES.find(label) for label in manifest["label"]] == list(manifest["class_index"])
    trained = manifest[~of_val]
    assert len(trained) == (4 if layout.startswith(("above K", "Kaggle's")) else 0) * (
        layout != "Kaggle's val"
    )
    if len(trained):
        assert set(trained["split"]) == {"train"}
        assert set(manifest["split"][of_val]) == {"validation"}
    else:
        assert set(manifest["split"]) == {"train", "validation"}, "drawn"
    assert (tmp_path / "out/data/rejected.csv").read_text() == "path,reason\n"
    if origin:
        place = data["table"] if origin == "mine.csv" else root / origin
        said = f"{len(IDS)} images in no class folder: with the labels of {place}"
        assert said in caplog.messages
    if layout in ("above Kaggle's ILSVRC", "Kaggle's ILSVRC", "Kaggle's CLS-LOC"):
        assert any("no image there has a label: " in line for line in caplog.messages)
    assert not manifest["path"].str.contains("test").any()


def test_images_of_the_archive_and_of_a_flat_folder_have_the_same_labels(tmp_path):
    flat_folder(tmp_path)
    (tmp_path / "val/README").touch()
    flat_archive(tmp_path, IMAGES | {"README": b""})
    packed_devkit(tmp_path)
    of_folder, others = list_folder(tmp_path, CLASSES)
    of_archive, others_in_archive, _ = list_archives(tmp_path, ["*.tar"], "label", CLASSES)
    assert ("val/README", "not in a class folder") in others
    assert others_in_archive == [("ILSVRC2012_img_val.tar/README", "not in a class folder")]
    facts = [
        {image.path.rpartition("/")[2]: image[1:4] for image in found}
        for found in (of_folder, of_archive)
    ]
    assert facts[0] == facts[1] and len(facts[0]) == 6
    (tmp_path / f"{DEVKIT}.tar.gz").unlink()
    refused("6 images without labels: put ImageNet's", list_folder, tmp_path, CLASSES)

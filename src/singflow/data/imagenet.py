"""ImageNet as it is downloaded: labels for its validation images, which lie in no class folders."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from singflow.data.reading import DEVKIT, SOLUTION, iterate_rows
from singflow.errors import InputError, readable_as
from singflow.system import regular

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"  # files of the devkit
IMAGE = "ILSVRC2012_val_{:08d}"
MOST_BYTES = 2**26  # of a file in the devkit
ABOVE = 4  # folders above the images: Kaggle's labels lie beside ILSVRC/Data/CLS-LOC/val
FETCH = "fetch it anew"
WAYS = (
    f"put ImageNet's {DEVKIT}.tar.gz or Kaggle's {SOLUTION} beside them, name a CSV with the "
    "columns path and {} as data.table, or sort them into a folder for each class"
)


class Truth(NamedTuple):
    """The synset of every image by the image's name without its ending, and the file it is from."""

    origin: Path
    synsets: dict[str, str]


def find_truth(images: Path) -> Truth | None:
    """The labels in or beside a folder of images, or beside an archive, or in folders above."""
    for folder in [images, *images.absolute().parents][: ABOVE + 2]:
        if (folder / SOLUTION).is_file():
            return Truth(folder / SOLUTION, dict(_of_solution(folder / SOLUTION)))
        for devkit in sorted(folder.glob(f"{DEVKIT}*")):
            return Truth(devkit, _of_devkit(devkit))
    return None


def _of_solution(path: Path) -> Iterator[tuple[str, str]]:
    needed = dict.fromkeys(("ImageId", "PredictionString"), "of Kaggle")
    for number, row in iterate_rows(path, needed):
        words = row["PredictionString"].split()
        if not words:
            raise InputError(f"{path}: line {number} names no synset: {FETCH}")
        yield row["ImageId"].strip(), words[0]


def _of_devkit(path: Path) -> dict[str, str]:
    """Line i of the ground truth is the id of image i. Ids do not count sorted synsets."""
    from scipy.io import loadmat

    with readable_as("ImageNet's devkit", path, FETCH):
        files = dict(_files(path))
        if missing := {TRUTH, META} - files.keys():
            raise InputError(f"{path}: holds no {' and no '.join(sorted(missing))}: {FETCH}")
        table = loadmat(io.BytesIO(files[META]), squeeze_me=True)["synsets"]
        ids, synsets = (np.atleast_1d(table[key]).tolist() for key in ("ILSVRC2012_ID", "WNID"))
        synset_of = dict(zip(map(int, ids), map(str, synsets), strict=True))
        numbers = [int(line) for line in files[TRUTH].split()]
        if unknown := set(numbers) - synset_of.keys():
            raise InputError(f"{path}: {META} has no ILSVRC2012_ID {min(unknown)}: {FETCH}")
        return {IMAGE.format(i): synset_of[number] for i, number in enumerate(numbers, start=1)}


def _files(devkit: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of both files in a devkit, unpacked or not."""
    if devkit.is_dir():
        for name in (TRUTH, META):
            for path in sorted(devkit.rglob(name))[:1]:
                yield name, regular(path).read_bytes()
        return
    with tarfile.open(regular(devkit)) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            wanted = name in (TRUTH, META) and member.size <= MOST_BYTES
            if wanted and (file := tar.extractfile(member)):
                yield name, file.read()

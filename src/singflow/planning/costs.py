"""Expected time, memory and disk space of every step's jobs.

costs.toml says seconds and megabytes for a million of a driver, or for each job, and the bytes of
the large artifacts, which follow from their shapes. A driver is a product `a*b/c` of quantities of
Size and of keys of the study: a number counts as it is, a list with its length, and `key=value` as
1 or 0.

The figures have no margins and are for one job on a server CPU of 2 to 3 GHz; `python
benchmarks/growth.py --write .` measures what a small machine can. Nobody measured the seconds of
drivers with `gpu`: they decide what jobs request and how far the progress bar is, and `make plan`
shows their order of magnitude.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import islice, product
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from singflow.analyses.concepts import CELLS
from singflow.analyses.readout import LANDMARKS
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import count_rows
from singflow.config.registry import ModelEntry, SpaceEntry, objection
from singflow.data import archives
from singflow.data.reading import class_folders, flat_folders
from singflow.parallel import AHEAD
from singflow.study import with_defaults
from singflow.system import gpu_count
from singflow.towers.parameters import CPU_BATCH, GPU_BATCH, WAITING_BYTES
from singflow.translators.reference import reference_folder

TABLE = Path(__file__).with_name("costs.toml")
Entry = TypeVar("Entry")
JOB = "job"  # the driver of the costs that every job has once
VIEW = 4 * 3 * 224**2  # bytes of a view
PINNED = 3  # batches of views in memory that is pinned for a GPU
# A ViT-L/16 (10^6 parameters, 10^9 multiply-adds per view), and the width of a wide feature: what a
# tower of unknown size counts as.
ASSUMED = (304.3, 61.6, 2048)
IMAGENET = 1_281_167  # images of a study whose data is not here yet
# Class folders or archives that are inspected, and entries that are counted in a folder, at most.
LOOKED_AT, COUNTED = (10, 20_000)


@dataclass(frozen=True)
class Size:
    """The quantities that determine the cost of a job."""

    images: int
    views: int = 1
    shards: int = 1
    labels: int = 1000
    concepts: int = 30
    classes: int = 1000
    feature_dim: int = 2048
    space_dim: int = 768
    parameters_m: float = 0.0  # 10^6, of the job's tower; 0: it has none
    gmacs: float = 0.0  # 10^9 multiply-adds of it per view
    space_parameters_m: float = 0.0  # of the space's tower
    space_gmacs: float = 0.0
    assumed: bool = False  # the tower's size, or the feature's, is not known
    threads: int = 2
    decoders: int = 2  # threads that decode images for a tower
    gpu: bool = False
    batch: int = GPU_BATCH  # views per forward pass
    models: int = 1
    spaces: int = 1
    steered: int = 0  # images steered, times texts, times targets
    pictures: int = 0  # drawn by a generator for one model and space
    reference: tuple[int, int] = (0, 0)  # images and shards on which translators are fitted instead
    study: Mapping[str, Any] = field(default_factory=partial(with_defaults, {}))

    @property
    def rows(self) -> int:
        """Rows of all shards: every view of every image."""
        return self.images * self.views

    @property
    def shard_rows(self) -> int:
        """Rows of the largest shard."""
        return -(-self.images // self.shards) * self.views

    @property
    def null_dim(self) -> int:
        """Dimensions of the null space under the rule `exact`, for a head of full rank."""
        return max(0, self.feature_dim - self.classes)

    @cached_property
    def drivers(self) -> dict[str, float]:
        """What a cost may grow with: the quantities above, and those that follow from them."""
        images, shards = self.reference
        fold_count, width = self.study["translator"]["folds"], self.study["training"]["width"]
        tested = self.images + images
        largest_shard = max(self.shard_rows, -(-images // max(shards, 1)) * self.views)
        folds = fold_count or 5  # without folds, read-outs take 5
        kernel = tested if tested <= LANDMARKS else 0
        waiting = max(self.decoders, WAITING_BYTES // (self.views * VIEW))
        return vars(self) | {
            JOB: 1,
            "cpu": not self.gpu,
            "rows": self.rows,
            "shard_rows": self.shard_rows,
            "null_dim": self.null_dim,
            "fitted": max(self.images, images),  # images on which translators are fitted
            "tested": tested,  # images of the study and of the reference
            "largest_shard": largest_shard,  # its rows, of the study and of the reference
            "fits": fold_count + 1,  # translators of a model in a space: of each fold, and of all
            # folds and pairs of folds that read-outs leave out in turn
            "left_out": folds + (folds * (folds - 1) // 2 if folds > 2 else 0),
            "kernel": kernel,  # rows of the exact kernel of a read-out; 0 if it has landmarks
            # features of a read-out with landmarks, null coordinates included; else 0
            "summed": 0 if kernel else LANDMARKS + self.null_dim,
            # weights of the largest nonlinear translator
            "network": width * (2 * self.feature_dim + width + self.space_dim),
            "results": tested * self.models * self.spaces,  # that a step gathers
            "scanned": min(self.labels * self.concepts, CELLS),  # by a thread at once
            "drawn": self.pictures > 0,  # by a generator
            "at_once": min(self.batch, CPU_BATCH),  # views in a forward pass
            # views in pinned batches, which hold whole images
            "pinned": self.gpu * PINNED * self.views * max(1, self.batch // self.views),
            # decoded views in memory: those that wait for the tower, and an image of each decoder
            "waiting": self.views * (min(AHEAD * self.decoders, waiting) + self.decoders),
        }

    def of(self, driver: str) -> float:
        """A sum of products of quantities and keys of the study, `a*b/c+d`."""
        if "+" in driver:
            return sum(map(self.of, driver.split("+")))
        above, *below = driver.split("/")
        product = math.prod(map(self._quantity, above.split("*")))
        return float(product / math.prod(map(self._quantity, below)))

    def _quantity(self, name: str) -> float:
        if "." not in name:
            return self.drivers[name]
        key, _, wanted = name.partition("=")
        section, key = key.split(".")
        found = self.study[section][key]
        if wanted:
            return float(found == wanted)
        return len(found) if isinstance(found, list) else found


def has_gpu(device: str) -> bool:
    """Whether towers run on an NVIDIA GPU: as extraction.device says, or if there is one here."""
    return device == "cuda" or (device == "auto" and gpu_count() > 0)


def size_of(
    study: dict[str, Any],
    images: int,
    model: ModelEntry | None,
    space: SpaceEntry | None,
    gpu: bool | None = None,
) -> Size:
    """The size of a job of one model, of one space, of both, or (None, None) of all of them.

    The tower is that of the model; without a model it is the image tower of the space. Labels are
    at most the classes in data.classes. gpu: whether the job has a GPU; None: as extraction.device
    says.
    """
    imported = study["data"]["source"] == "features"
    tower = None if imported else model or space
    sizes = (tower.parameters_m, tower.gmacs) if tower else (0.0, 0.0)
    parameters, gmacs, wide = ASSUMED
    extraction, steering, pictures = study["extraction"], study["steering"], study["pictures"]
    labels = min(images, _lines(study["data"]["classes"]) - 1)
    steered = images * min(1.0, len(steering["labels"]) / labels) if steering["labels"] else images
    if gpu is None:
        gpu = has_gpu(extraction["device"])
    wanted = pictures["renderer"] == "unclip" or (pictures["renderer"] == "auto" and gpu)
    drawn = wanted and not imported and space is not None and objection(space) is None
    shown = len(pictures["images"]) or pictures["count"]
    size = Size(
        images=images,
        views=extraction["views"],
        shards=extraction["shards"],
        parameters_m=parameters if None in sizes else sizes[0] or 0.0,
        gmacs=gmacs if None in sizes else sizes[1] or 0.0,
        labels=labels,
        concepts=_lines(study["concepts"]["vocabulary"]),
        assumed=any(number is None for number in (*sizes, model.feature_dim if model else 0)),
        threads=study["threads"],
        decoders=(gpu and extraction["decode_threads"]) or study["threads"],
        gpu=gpu,
        batch=extraction["batch_size"] or (GPU_BATCH if gpu else CPU_BATCH),
        models=len(study["models"]),
        spaces=len(study["spaces"]),
        steered=round(steered * len(steering["prompts"]) * len(steering["target_is_deg"])),
        pictures=shown * 20 * len(pictures["seeds"]) if drawn else 0,
        reference=_reference(study["translator"]["reference"]),
        study=study,
    )
    if model is not None:
        size = replace(size, feature_dim=model.feature_dim or wide, classes=model.head_classes)
    if space is not None:
        size = replace(
            size,
            space_dim=space.dim,
            space_parameters_m=space.parameters_m or parameters,
            space_gmacs=space.gmacs or gmacs,
        )
    return size


def expected_images(study: dict[str, Any], results: Path) -> int:
    """Number of images that are here.

    If the data is not here yet: per_class images of every class, or as many as ImageNet's training
    images.
    """
    data = study["data"]
    per_class, classes = data["per_class"], _lines(data["classes"]) - 1
    return images_here(study, results) or (per_class * classes if per_class else IMAGENET)


def images_here(study: dict[str, Any], results: Path) -> int:
    """Number of images in the manifest, or an estimate from the table or some folders or archives.

    0: the data is not here yet.
    """
    manifest, data = results / "data/manifest.parquet", study["data"]
    if known := count_rows(manifest):
        return known
    per_class, classes = data["per_class"], _lines(data["classes"]) - 1
    if data["source"] == "features":
        from singflow.data.imported import rows_path  # which needs NumPy

        found = count_rows(rows_path(Path(data["root"])))
    elif data["source"] == "folder":
        root = Path(data["root"])
        found = _in_folders(root, per_class, classes) if root.is_dir() else 0
    else:
        table = Path(data["table"] or "")
        if data["source"] == "archive":
            found = archives.estimate_images(Path(data["root"]), data["archives"], LOOKED_AT)
        elif table.suffix.lower() in (".parquet", ".pq"):
            found = count_rows(table)
        else:
            found = _lines(data["table"]) - 1 if table.is_file() else 0
        found = min(found, (per_class or found) * classes)
    return found


@cache
def _reference(reference: str | None) -> tuple[int, int]:
    """Numbers of images and shards of a reference."""
    if reference is None:
        return 0, 0
    folder = reference_folder(reference)
    shards = [len(list(space.glob("shard-*"))) for space in folder.glob("embeddings/*")]
    return count_rows(folder / "data/manifest.parquet"), max(shards, default=0)


def _in_folders(root: Path, per_class: int | None, classes: int) -> int:
    """Images in class folders (also below train and val), told from the first of some folders.

    Those of validation images without class folders are counted.
    """
    flat = sum(
        archives.is_image(file.name) for folder in flat_folders(root) for file in folder.iterdir()
    )
    flat = min(flat, (per_class or flat) * classes)
    folders = class_folders(root)
    if not folders:
        return flat
    looked_at = folders[:: -(-len(folders) // LOOKED_AT)]
    counts = [sum(1 for _ in islice(folder.iterdir(), COUNTED)) for folder in looked_at]
    return flat + round(len(folders) * fmean(min(count, per_class or count) for count in counts))


@cache
def _lines(path: str) -> int:
    """Lines of a text file; 2 if the file is missing."""
    if not Path(path).is_file():
        return 2
    with Path(path).open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


@dataclass(frozen=True)
class Term:
    """A part of the cost of a step's job, for a million of a driver or for each job.

    most: how many millions count at most.
    """

    driver: str
    seconds: float
    megabytes: float
    most: float = math.inf

    def times(self, size: Size) -> float:
        """Millions of the driver in a job."""
        return 1.0 if self.driver == JOB else min(1e-6 * size.of(self.driver), self.most)


@dataclass(frozen=True)
class Bytes:
    """Bytes of an artifact, for each of a driver."""

    artifact: str
    driver: str
    number: float


_TABLES = tomllib.loads(TABLE.read_text(encoding="utf-8"))
COSTS = {step: [Term(*row) for row in rows] for step, rows in _TABLES["costs"].items()}
WRITTEN = {step: [Bytes(*row) for row in rows] for step, rows in _TABLES["disk"].items()}
# What steps run on a GPU, by the steps whose jobs ask for one.
ON_GPU = {step: runs for step, (row, *_) in WRITTEN.items() if (runs := CATALOG[row.artifact].gpu)}


def _of(table: dict[str, list[Entry]], step: str) -> list[Entry]:
    """The entries of a step; those of figures or of analyses if the table lacks it."""
    return table.get(step, table["plot_*" if step.startswith("plot_") else "*"])


def start(step: str) -> Term:
    """The part of a step's cost that does not depend on the size of a job."""
    return next(term for term in _of(COSTS, step) if term.driver == JOB)


def seconds(step: str, size: Size) -> float:
    """Expected seconds of one job, from start to end."""
    return sum(term.seconds * term.times(size) for term in _of(COSTS, step))


def tower_seconds(step: str, size: Size, rate: float) -> float:
    """Expected seconds of a job that runs a tower, at so many views a second."""
    others = [term for term in COSTS[step] if "shard_rows" not in term.driver]
    return sum(term.seconds * term.times(size) for term in others) + size.shard_rows / rate


def peak_mb(step: str, size: Size) -> float:
    """Expected peak of the resident memory of one job, in 10^6 bytes."""
    return sum(term.megabytes * term.times(size) for term in _of(COSTS, step))


def disk_bytes(step: str, size: Size) -> int:
    """Expected bytes of the outputs of one job."""
    return round(sum(row.number * size.of(row.driver) for row in _of(WRITTEN, step)))


def wildcards(step: str) -> list[str]:
    """What tells the jobs of a step apart: model, space, kind, shard."""
    return CATALOG[_of(WRITTEN, step)[0].artifact].wildcards


def study_bytes(
    study: dict[str, Any],
    images: int,
    models: Mapping[str, ModelEntry],
    spaces: Mapping[str, SpaceEntry],
) -> int:
    """Expected bytes of results/<study> once the study is finished, without logs."""
    total = 0
    comparison = study["comparison"]
    for step in WRITTEN:
        names = wildcards(step)
        compared = comparison["models"] if "kind" in names else models
        towers = [models[name] for name in compared] if "model" in names else [None]
        jobs = study["extraction"]["shards"] if "shard" in names else 1
        jobs *= len(comparison["kinds"]) if "kind" in names else 1
        for model, space in product(towers, spaces.values() if "space" in names else [None]):
            total += jobs * disk_bytes(step, size_of(study, images, model, space))
    return total

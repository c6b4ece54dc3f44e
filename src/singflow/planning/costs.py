"""Expected time, memory and disk space of every step's jobs.

The figures have no margins and are for one job on a server CPU of 2 to 3 GHz. Work is counted from
the code (multiply-adds of matrix products, elements touched) and converted to seconds by the rates
below. Rates, start times and base memory were measured on two cores: linear steps and tables by
benchmarks/growth.py, all others by benchmarks/memory.py. No GPU was available: its rate is 40 % of
the published FP32 peak of an A100 (19.5 TFLOPS). A tower of unknown size counts as a ViT-L/16.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from singflow.config.registry import ModelEntry, SpaceEntry, objection
from singflow.data import archives
from singflow.data.reading import class_folders
from singflow.parallel import AHEAD
from singflow.pictures.parameters import CELL, PROBES
from singflow.towers.parameters import CPU_BATCH, WAITING_BYTES
from singflow.translators.reference import reference_folder

F64, F32 = 25.0, 50.0  # 10^9 multiply-adds per second and thread of matrix products
TOWER = 25.0  # the same for a tower on a CPU: measured 10 (depthwise convolutions) to 67 (ViT-L)
ELEMENTS = 0.8  # 10^9 elements per second of elementwise float64 work, with any number of threads
GPU = 3900.0  # 10^9 multiply-adds per second of a tower on a GPU
STEP = 0.002  # seconds of a training step on a GPU, which small matrices do not fill: not measured
# Seconds on one thread: decode a photo of 500 x 400 pixels, make its view 0, make a further view.
DECODE, PREPARE, CROP = (0.002, 0.0025, 0.0012)
# Cost of embedding a text, in forward passes of the space's image tower; the same for ViT-L/14 and
# for the packaged space.
TEXT = 0.08
LOADED = 0.015  # seconds to build, load and hash a million parameters
ACTIVATIONS = 30.0  # MB of a view in a forward pass on a CPU: measured 3 to 60
VIEW = 4 * 3 * 224**2  # bytes of a view
# MB of a view of 224 x 224 pixels that waits for the tower, with memory that making the view leaves
# in use: measured.
PIXELS = 1.2
# A ViT-L/16 (10^6 parameters, 10^9 multiply-adds per view), and the width of a wide feature.
ASSUMED = (304.3, 61.6, 2048)
IMAGENET = 1_281_167  # images of a study whose data is not here yet
BLOCK = 4096  # rows that some steps work on at once (artifacts.shards.in_blocks)
PROBED = 2**27  # numbers that a logistic regression holds at most (probes.IN_MEMORY)
# Most concepts, and most labels x concepts, that a thread scans at once (concepts.BLOCK and CELLS).
SCANNED = (500, 500_000)
FEATURES, FLEXIBLE, CLASSES = (3072, 1024, 1365)  # of read-outs in sum form (analyses/readout.py)
# Most columns of one planted leak, and of all planted leaks in sum form (evidence.MOST_NOISE and
# MOST_COLUMNS).
NOISE, PLANTED = (64, 480)
# Penalties that a read-out in sum form tries, and those that some target chooses: measured.
SEARCHED, USED = (5, 3)
EIGEN = 6.0  # multiply-adds / n^3 of decomposing an n x n matrix and using the result: measured
# Class folders or archives that are inspected, and entries that are counted in a folder, at most.
LOOKED_AT, COUNTED = (10, 20_000)


@dataclass(frozen=True)
class Size:
    """The quantities that determine the cost of a job.

    parameters_m (10^6) and gmacs (10^9 multiply-adds per view) describe the tower of the job,
    of_space the tower of the space; 0: no tower.
    """

    images: int
    views: int = 1
    shards: int = 1
    labels: int = 1000
    concepts: int = 30
    classes: int = 1000
    feature_dim: int = 2048
    space_dim: int = 768
    parameters_m: float = 0.0
    gmacs: float = 0.0
    of_space: tuple[float, float] = (0.0, 0.0)
    assumed: bool = False  # the tower's size, or the feature's, is not known
    threads: int = 2
    decoders: int = 2  # threads that decode images for a tower
    gpu: bool = False
    batch: int = 32  # views per forward pass
    models: int = 1
    spaces: int = 1
    dimensions: tuple[int, ...] = ()  # of controls
    draws: int = 5  # random subspaces per case
    folds: int = 5
    planted: int = 20  # draws of planted leaks per size, and of random signs for a floor
    lambdas: int = 13  # penalties tried
    logistic: bool = True  # probes are logistic regressions, not ridge
    alphas: int = 6  # penalties of a probe
    points: int = 10  # of a rank curve
    steered: int = 0  # images steered, times texts, times targets
    passes: int = 0  # most passes over the training rows: losses times epochs
    step_rows: int = 128  # rows of a training step
    width: int = 1024  # of hidden layers
    pictures: int = 0  # drawn by a generator for one model and space
    exact_up_to: int = 100_000
    resamples: int = 2000
    permutations: int = 10_000
    reference: tuple[int, int] = (0, 0)  # images and shards on which translators are fitted instead

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

    @property
    def cases(self) -> int:
        """Number of subspaces that controls compare.

        Every dimension up to that of the null space has a subspace of the null space, one of the
        whole space and, if it fits, one of the row space.
        """
        wanted = {
            *(dimension for dimension in self.dimensions if dimension < self.null_dim),
            *([self.null_dim] if self.null_dim else []),
        }
        return sum(2 + (dimension <= self.feature_dim - self.null_dim) for dimension in wanted)

    @property
    def fits(self) -> int:
        """Number of translators of a model in a space: one per fold, and one for all images."""
        return self.folds + 1

    @property
    def visible_dim(self) -> int:
        """Dimensions of a feature outside the null space."""
        return self.feature_dim - self.null_dim

    @property
    def results(self) -> int:
        """Per-image results that a step gathers: images times models times spaces."""
        return self.images * self.models * self.spaces


def size_of(
    study: dict[str, Any],
    images: int,
    model: ModelEntry | None,
    space: SpaceEntry | None,
    gpu: bool | None = None,
) -> Size:
    """The size of a job of one model, of one space, of both, or (None, None) of all of them.

    The tower is that of the model; without a model it is the image tower of the space. Labels are
    at most the classes in data.classes. gpu: whether the job has a GPU; None: if extraction.device
    asks for one, or is auto and this machine has one.
    """
    tower = model or space
    sizes = (tower.parameters_m, tower.gmacs) if tower else (0.0, 0.0)
    parameters, gmacs, wide = ASSUMED
    extraction, controls, steering = study["extraction"], study["controls"], study["steering"]
    labels = min(images, _lines(study["data"]["classes"]) - 1)
    steered = images * min(1.0, len(steering["labels"]) / labels) if steering["labels"] else images
    if gpu is None:
        gpu = extraction["device"] == "cuda" or (
            extraction["device"] == "auto" and Path("/dev/nvidia0").exists()
        )
    renderer = study["pictures"]["renderer"]
    drawn = (
        space is not None
        and objection(space) is None
        and (renderer == "unclip" or (renderer == "auto" and gpu))
    )
    shown = len(study["pictures"]["images"]) or study["pictures"]["count"]
    size = Size(
        images=images,
        views=extraction["views"],
        shards=extraction["shards"],
        parameters_m=sizes[0] or 0.0,
        gmacs=sizes[1] or 0.0,
        labels=labels,
        concepts=_lines(study["concepts"]["vocabulary"]),
        assumed=any(number is None for number in (*sizes, model.feature_dim if model else 0)),
        threads=study["threads"],
        decoders=extraction["decode_threads"] or study["threads"],
        gpu=gpu,
        batch=extraction["batch_size"],
        models=len(study["models"]),
        spaces=len(study["spaces"]),
        dimensions=tuple(controls["dimensions"]),
        draws=controls["min_draws"],
        folds=study["translator"]["folds"],
        planted=study["evidence"]["draws"],
        lambdas=len(study["translator"]["lambdas"]),
        logistic=study["probe"]["classifier"] == "logistic",
        alphas=len(study["probe"]["alphas"]),
        points=len(study["rank_curve"]["kept"]) + 3,
        steered=round(steered * len(steering["prompts"]) * len(steering["target_is_deg"])),
        passes=len(study["training"]["losses"]) * study["training"]["epochs"],
        step_rows=study["training"]["batch_size"],
        width=study["training"]["width"],
        pictures=shown * 20 * len(study["pictures"]["seeds"]) if drawn else 0,
        exact_up_to=study["pictures"]["exact_up_to"],
        resamples=study["summary"]["resamples"],
        permutations=study["summary"]["permutations"],
        reference=_reference(study["translator"]["reference"]),
    )
    if None in sizes:
        size = replace(size, parameters_m=parameters, gmacs=gmacs)
    if model is not None:
        size = replace(size, feature_dim=model.feature_dim or wide, classes=model.head_classes)
    if space is not None:
        size = replace(
            size,
            space_dim=space.dim,
            of_space=(space.parameters_m or parameters, space.gmacs or gmacs),
        )
    return size


def expected_images(study: dict[str, Any], results: Path) -> int:
    """Number of images in the manifest, or an estimate from the table or some folders or archives.

    If the data is not here yet: per_class images of every class, or as many as ImageNet's training
    images.
    """
    manifest, data = results / "data/manifest.parquet", study["data"]
    if known := _rows(manifest):
        return known
    per_class, classes = data["per_class"], _lines(data["classes"]) - 1
    if data["source"] == "folder":
        found = _in_folders(Path(data["root"]), per_class)
    elif data["source"] == "archive":
        found = archives.expected(Path(data["root"]), data["archives"], LOOKED_AT)
        found = min(found, (per_class or found) * classes)
    else:
        table = Path(data["table"])
        if not table.is_file():
            found = 0
        elif table.suffix.lower() in (".parquet", ".pq"):
            found = _rows(table)
        else:
            found = _lines(data["table"]) - 1
        found = min(found, (per_class or found) * classes)
    return found or (per_class * classes if per_class else IMAGENET)


def _rows(path: Path) -> int:
    """Rows of a Parquet file; 0 if it is missing or damaged (reported where it is used)."""
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return 0


@cache
def _reference(reference: str | None) -> tuple[int, int]:
    """Numbers of images and shards of a reference."""
    if reference is None:
        return 0, 0
    folder = reference_folder(reference)
    shards = [len(list(space.glob("shard-*"))) for space in folder.glob("embeddings/*")]
    return _rows(folder / "data/manifest.parquet"), max(shards, default=0)


def _in_folders(root: Path, per_class: int | None) -> int:
    """Estimated number of images in class folders (also below train and val); 0 if there are none.

    The first entries of some folders are counted.
    """
    folders = class_folders(root) if root.is_dir() else []
    looked_at = folders[:: -(-len(folders) // LOOKED_AT)] if folders else []
    counts = [sum(1 for _ in islice(folder.iterdir(), COUNTED)) for folder in looked_at]
    return round(
        len(folders) * sum(min(count, per_class or count) for count in counts) / max(len(counts), 1)
    )


@cache
def _lines(path: str) -> int:
    """Lines of a text file; 2 if the file is missing."""
    if not Path(path).is_file():
        return 2
    with Path(path).open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


Work = Callable[[Size], float]


@dataclass(frozen=True)
class Cost:
    """Coefficients of a step; work is that of one job.

    start: seconds before work begins; f64, f32: 10^9 multiply-adds; elements: 10^9; base: MB of the
    process; shard, block: bytes per row of a shard and of a block of BLOCK rows, as multiples of
    feature_dim, space_dim and classes; square: number of float64 matrices of feature_dim^2; held:
    bytes of tables of images; disk: bytes written.
    """

    start: float
    base: float
    f64: Work = lambda s: 0.0
    f32: Work = lambda s: 0.0
    elements: Work = lambda s: 0.0
    shard: tuple[float, float, float] = (0.0, 0.0, 0.0)
    block: tuple[float, float, float] = (0.0, 0.0, 0.0)
    square: float = 0.0
    held: Work = lambda s: 0.0
    disk: Work = lambda s: 0.0


def _candidates(s: Size) -> float:
    """Images that the search for neighbours compares with a point."""
    return s.images if s.images <= s.exact_up_to else min(s.images, CELL * PROBES)


def _cells(s: Size) -> float:
    """Cells of the index of neighbours; 0 if the search is exact."""
    return 0.0 if s.images <= s.exact_up_to else s.images / CELL


def _passes(s: Size) -> int:
    """How often scan_concepts visits every concept.

    Twice if the concepts need more than one block, because it needs their overall mean first.
    """
    return 1 + (s.concepts > min(SCANNED[0], SCANNED[1] // max(s.labels, 1)))


def _network(s: Size) -> float:
    """Number of weights of the largest nonlinear translator."""
    return s.width * (2.0 * s.feature_dim + s.width + s.space_dim)


def _sums(s: Size, count: int) -> float:
    """Bytes of the sums over `count` groups of images from which translators are fitted."""
    return 8.0 * count * s.feature_dim * (s.feature_dim + s.space_dim)


def _kernels(s: Size) -> bool:
    """Whether read-outs have kernel form."""
    return s.images < max(FEATURES, s.feature_dim)


def _features(s: Size) -> int:
    """Features of a read-out in sum form, null coordinates included."""
    return max(FEATURES, s.feature_dim + FLEXIBLE)


def _columns(s: Size) -> float:
    """Columns that measure_evidence predicts: remainder, blind check, planted leaks."""
    width = NOISE if _kernels(s) else min(NOISE, max(1, PLANTED // (3 * s.planted)))
    return 2.0 * s.space_dim + 3 * s.planted * min(width, s.space_dim)


def _judged(s: Size) -> tuple[int, int]:
    """Numbers of folds, and of pairs of folds, that fits leave out in turn.

    Without cross-fitting, the manifest has 5 folds.
    """
    folds = s.folds or 5
    return folds, folds * (folds - 1) // 2 if folds > 2 else 0


def _summed(s: Size, columns: float) -> float:
    """Multiply-adds to prepare read-outs of `columns` columns: kernels, or sums over features."""
    if _kernels(s):
        return float(s.images**2 * (2 * s.visible_dim + 3 * s.classes + s.null_dim))
    roots = 3 * min(s.classes, CLASSES)
    return s.images * (_features(s) * (_features(s) + columns) + roots**2) + EIGEN * roots**3


def _fitted(s: Size, columns: float) -> float:
    """Multiply-adds to fit both read-outs of `columns` columns.

    They are fitted without each fold, with several penalties, and without each pair of folds.
    """
    folds, pairs = _judged(s)
    if _kernels(s):
        fits, judges = s.images * (folds - 1) / folds, s.images / folds
        once = EIGEN * fits**3 + fits**2 * columns
        return 2 * (
            folds * (once + s.lambdas * judges * fits * columns)
            + pairs * (once + 2 * USED * judges * fits * columns)
        )
    work = 0.0
    for width in (_features(s) - s.null_dim, _features(s)):
        solved, judged = width**2 * columns, width**2 * columns / 2  # errors are judged in float32
        work += folds * SEARCHED * (width**3 / 6 + solved + judged) + pairs * (
            USED * width**3 / 6 + solved + 2 * judged
        )
    return work


def _nested(s: Size) -> float:
    """Multiply-adds of read-outs of the remainder with a growing number of null directions.

    They are fitted without each fold and without each pair of folds.
    """
    folds, pairs = _judged(s)
    if _kernels(s):
        fits = s.images * (folds - 1) / folds
        return (folds + pairs) * (
            EIGEN * fits**3
            + 3 * fits**3
            + fits**2 * (3 * s.space_dim + 2 * s.null_dim)
            + EIGEN * s.null_dim**3
        )
    width, narrow = _features(s), _features(s) - s.null_dim + min(s.null_dim, s.space_dim)
    plain = (width - s.null_dim) ** 2 * (width / 3 + 3 * s.space_dim)
    once = (
        width**2 * (width / 6 + s.space_dim)
        + s.null_dim**2 * s.space_dim
        + EIGEN * s.space_dim**3
        + narrow**3 / 6
    )
    return (folds + pairs) * (plain + once) + (folds + 2 * pairs) * narrow**3


def _read_out(s: Size, columns: float) -> float:
    """Bytes that read-outs of `columns` columns hold while they are fitted."""
    if _kernels(s):
        return 8.0 * s.images * (6 * s.images + 4 * columns + 2 * s.feature_dim)
    width = _features(s)
    return 8.0 * width * (_judged(s)[0] * (width + columns) + 2.5 * width + 5 * columns)


def _blocks(s: Size, times: int) -> float:
    """Multiply-adds to compute coordinates and logits of all images `times` times."""
    return times * s.images * s.feature_dim * (s.feature_dim + 2.0 * s.classes)


def _probed(s: Size) -> float:
    """Bytes of the logistic regressions on features and on embeddings.

    They hold their rows three times, and 25 float64 per weight.
    """
    rows = sum(min(s.rows * (width + s.labels), PROBED) for width in (s.feature_dim, s.space_dim))
    return 12.0 * rows + 200.0 * s.labels * (s.feature_dim + s.space_dim)


def _each(size: float) -> Work:
    """`size` bytes per image."""
    return lambda s: size * s.images


LINEAR = Cost(start=1.5, base=220)
GATHERED = Cost(start=1.5, base=250)
FIGURE = Cost(start=2.5, base=250, disk=lambda s: 3e5)
TOWER_STEP = Cost(start=5.0, base=400)
IMAGE_FIGURE = replace(FIGURE, held=lambda s: 250 * s.results, elements=lambda s: 3e-6 * s.results)
DEFAULT = Cost(start=2.5, base=600, shard=(16, 16, 0), square=4, held=_each(420), disk=_each(100))
COSTS = {  # of steps that cost neither DEFAULT nor FIGURE
    "resolve_study": Cost(start=2.5, base=350, disk=lambda s: 1e4),
    "resolve_model": Cost(start=2.5, base=350, disk=lambda s: 1e3),
    "resolve_space": Cost(start=2.5, base=350, disk=lambda s: 1e3),
    "build_manifest": Cost(start=2.0, base=200, held=_each(1050), disk=lambda s: 180.0 * s.images),
    "extract_head": replace(TOWER_STEP, disk=lambda s: 4.0 * s.classes * (s.feature_dim + 1)),
    "extract_features": replace(
        TOWER_STEP,
        shard=(8, 0, 0),
        held=_each(300),
        disk=lambda s: s.shard_rows * (4.0 * s.feature_dim + 12),
    ),
    "embed_images": replace(
        TOWER_STEP,
        shard=(0, 8, 0),
        held=_each(300),
        disk=lambda s: s.shard_rows * (4.0 * s.space_dim + 12),
    ),
    "embed_prompts": replace(
        TOWER_STEP, start=10.0, base=800, disk=lambda s: 4.0 * (s.labels + s.concepts) * s.space_dim
    ),
    "embed_classes": replace(
        TOWER_STEP, start=10.0, base=800, disk=lambda s: 8.0 * s.classes * s.space_dim
    ),
    "fit_projector": replace(
        LINEAR,
        f64=lambda s: (
            1e-9
            * (
                s.rows * s.feature_dim * (2 * s.null_dim + s.classes)
                + 10 * s.classes * s.feature_dim**2
            )
        ),
        elements=lambda s: 1e-9 * s.rows * (6 * s.feature_dim + 2 * s.classes),
        shard=(8, 0, 0),
        block=(16, 0, 8),
        square=3,
        held=_each(420),
        disk=lambda s: 8.0 * s.feature_dim * (s.null_dim + 1),
    ),
    "fit_translator": replace(
        LINEAR,
        f64=lambda s: (
            1e-9 * s.feature_dim * (s.rows * (s.feature_dim + s.space_dim) + s.images * s.space_dim)
            + 1e-9 * s.fits * s.feature_dim**2 * (13 * s.feature_dim + 4 * s.space_dim)
        ),
        elements=lambda s: 1e-9 * s.rows * (4 * s.feature_dim + 4 * s.space_dim),
        shard=(16, 20, 0),
        square=4,
        held=lambda s: 380 * s.images + _sums(s, s.fits + 2),
        disk=lambda s: 4.0 * s.fits * s.space_dim * (s.feature_dim + 1),
    ),
    "train_translator": replace(
        LINEAR,
        start=5.0,
        base=600,
        f32=lambda s: 3e-9 * s.passes * s.rows * _network(s),
        elements=lambda s: 1e-9 * s.passes * s.rows * (20 * s.width + _network(s) / 100),
        shard=(8, 8, 0),
        square=1,
        held=lambda s: 300 * s.images + 28 * _network(s),
        disk=lambda s: 4.0 * _network(s),
    ),
    "measure_controls": replace(
        LINEAR,
        f64=lambda s: (
            1e-9 * s.cases * s.draws * s.feature_dim**2 * (s.null_dim + 2 * s.fits * s.space_dim)
        ),
        f32=lambda s: (
            1e-9 * s.draws * s.images * s.feature_dim * (s.cases * s.space_dim + 2 * s.null_dim)
        ),
        elements=lambda s: 1e-9 * s.cases * s.draws * s.images * 36 * s.space_dim,
        shard=(8, 0, 0),
        block=(0, 64, 0),
        square=3,
        held=lambda s: s.images * (420 + 46 * s.cases) + 4e8,
        disk=lambda s: 46.0 * s.cases * s.images,
    ),
    "measure_evidence": replace(
        LINEAR,
        f64=lambda s: (
            1e-9
            * (
                _summed(s, _columns(s))
                + _fitted(s, _columns(s))
                + (28 * s.images + 4 * s.rows) * s.classes * s.space_dim
            )
            + 1e-9 * s.rows * s.feature_dim * (s.feature_dim + s.space_dim)
            + 1e-9
            * s.fits
            * (
                EIGEN * (s.feature_dim**3 + s.visible_dim**3)
                + s.feature_dim**2 * (s.feature_dim + 4 * s.space_dim)
            )
        ),
        f32=lambda s: (
            1e-9 * (_blocks(s, 8) + 2 * s.rows * s.feature_dim**2)
            + 1e-9
            * s.planted
            * s.feature_dim
            * s.space_dim
            * (s.rows + s.images + s.fits * s.feature_dim)
        ),
        elements=lambda s: (
            1e-9
            * ((7 * s.images + s.rows) * 60 * s.classes + s.planted * s.images * 40 * s.space_dim)
        ),
        shard=(8, 8, 0),
        block=(8, 24, 40),
        square=2,
        held=lambda s: (
            350 * s.images
            + max(
                _read_out(s, _columns(s)),
                _sums(s, 3 * s.fits)
                + 4 * s.threads * s.fits * s.feature_dim * (s.feature_dim + s.space_dim),
            )
        ),
        disk=lambda s: 32.0 * s.images + 4.0 * s.classes * s.space_dim + 4e4,
    ),
    "measure_head_extension": replace(
        LINEAR,
        f64=lambda s: (
            1e-9 * (_summed(s, s.space_dim) + _nested(s) + 4 * s.images * s.classes * s.space_dim)
        ),
        f32=lambda s: 1e-9 * _blocks(s, 4),
        elements=lambda s: 60e-9 * s.images * s.classes,
        shard=(8, 8, 0),
        block=(8, 24, 40),
        square=2,
        held=lambda s: 350 * s.images + _read_out(s, s.space_dim),
        disk=lambda s: 1e4 + 32.0 * min(s.null_dim, s.space_dim),
    ),
    "measure_null_removal": replace(
        LINEAR,
        f64=lambda s: 1e-9 * s.images * s.feature_dim * (5 * s.null_dim + s.classes),
        f32=lambda s: 1e-9 * s.images * s.feature_dim * (2 * s.space_dim + s.classes),
        elements=lambda s: 1e-9 * s.images * (40 * s.space_dim + 8 * s.feature_dim + 4 * s.classes),
        shard=(8, 0, 0),
        block=(20, 40, 8),
        square=2,
        held=_each(600),
        disk=lambda s: 150.0 * s.images,
    ),
    "measure_zero_shot": replace(
        LINEAR,
        f32=lambda s: 1e-9 * s.images * s.space_dim * (2 * s.feature_dim + 3 * s.labels),
        elements=lambda s: 1e-9 * s.images * (8 * s.space_dim + 4 * s.labels),
        shard=(8, 8, 0),
        square=2,
        held=_each(600),
        disk=lambda s: 20.0 * s.images,
    ),
    "measure_rank_curve": replace(
        LINEAR,
        f64=lambda s: (
            1e-9
            * s.feature_dim
            * (
                s.images * (2 * s.feature_dim + 2 * s.classes + 2 * s.space_dim)
                + 20 * s.classes * s.feature_dim
            )
        ),
        elements=lambda s: 1e-9 * s.images * s.points * (36 * s.space_dim + 12 * s.classes),
        shard=(8, 8, 0),
        square=6,
        held=_each(390),
        disk=lambda s: 2e4,
    ),
    "validate_null_space": replace(
        LINEAR,
        f64=lambda s: 1e-9 * s.images * s.feature_dim * (2 * s.null_dim + 7 * s.classes),
        elements=lambda s: 1e-9 * s.images * (20 * s.classes + 20 * s.feature_dim + 20_000),
        shard=(8, 0, 0),
        square=2,
        held=_each(670),
        disk=lambda s: 75.0 * s.images,
    ),
    "scan_concepts": replace(
        LINEAR,
        f32=lambda s: 2e-9 * s.images * s.space_dim * (s.feature_dim + _passes(s) * s.concepts),
        elements=lambda s: 1e-9 * s.images * (14 * _passes(s) * s.concepts + 24 * s.space_dim),
        shard=(8, 0, 0),
        square=1,
        held=lambda s: (
            470 * s.images
            + 4 * s.concepts * s.space_dim
            + 340 * s.threads * min(s.labels * min(s.concepts, SCANNED[0]), SCANNED[1])
        ),
        disk=lambda s: 53.0 * s.labels * s.concepts,
    ),
    "steer_concepts": replace(
        LINEAR,
        f64=lambda s: (
            1e-9
            * s.steered
            * (
                s.feature_dim * (2 * s.space_dim + s.null_dim + s.classes)
                + 2 * s.space_dim * s.null_dim
            )
        ),
        elements=lambda s: 1e-9 * s.steered * (50 * s.space_dim + 10 * s.feature_dim),
        shard=(8, 0, 0),
        square=2,
        held=lambda s: 380 * s.images + 240 * s.steered,
        disk=lambda s: 70.0 * s.steered,
    ),
    "probe_principal": replace(
        LINEAR,
        f64=lambda s: (
            1e-9 * s.rows * s.feature_dim * (2 * s.null_dim + s.space_dim)
            + (
                0.0
                if s.logistic
                else 1e-9
                * (2 * s.rows * (s.feature_dim**2 + s.space_dim**2) + 25 * s.feature_dim**3)
            )
            + 1e-9 * (0.16 * s.alphas + 0.2) * s.images * s.labels * (s.feature_dim + s.space_dim)
        ),
        f32=lambda s: (
            s.logistic
            * 1e-9
            * (15 * s.alphas + 10)
            * 1.6
            * s.rows
            * s.labels
            * (s.feature_dim + s.space_dim)
        ),
        elements=lambda s: 1e-9 * s.rows * (10 * s.feature_dim + 4 * s.labels * s.alphas),
        shard=(8, 0, 0),
        square=10,
        held=lambda s: 400 * s.images + s.logistic * _probed(s),
        disk=lambda s: 2e3,
    ),
    "find_neighbours": replace(
        LINEAR,
        f32=lambda s: (
            1e-9
            * s.space_dim
            * (s.images * (2 * _candidates(s) + 3 * _cells(s)) + 200 * s.threads * _cells(s) ** 2)
        ),
        elements=lambda s: (
            1e-9 * s.images * (2.5 * _candidates(s) + 2 * _cells(s) + 100 * s.space_dim)
        ),
        shard=(8, 90, 0),
        square=1,
        held=lambda s: s.images * (460 + 0.3 * s.space_dim),
        disk=lambda s: 40.0 * s.images,
    ),
    "render_pictures": replace(
        LINEAR,
        start=5.0,
        base=600,
        shard=(8, 8, 0),
        held=_each(810),
        disk=lambda s: 1.5e5 * (s.pictures or 30),
    ),
    "summarize": replace(
        GATHERED,
        base=400,
        elements=lambda s: 1e-9 * s.results * (12 * s.resamples + 1500),
        held=lambda s: 480 * s.images + 8 * s.permutations * s.models**2,
        disk=lambda s: 300.0 * s.labels * s.models * s.spaces,
    ),
    "compare_models": replace(
        GATHERED,
        base=400,
        elements=lambda s: 1e-9 * s.results * (36 * s.resamples + 10 * s.permutations),
        held=lambda s: s.images * (300 + 120 * s.cases + 230 * s.models),
        disk=lambda s: 2e4 * s.models * s.spaces,
    ),
    "list_concepts": replace(
        GATHERED,
        elements=lambda s: 50e-9 * s.labels * s.concepts * s.models * s.spaces,
        disk=lambda s: 1500.0 * s.labels * s.models * s.spaces,
    ),
    "tabulate_steering": replace(
        GATHERED,
        held=lambda s: 340 * s.steered,
        elements=lambda s: 1e-6 * s.steered * s.models * s.spaces,
        disk=lambda s: 1e4,
    ),
    "compare_translators": replace(GATHERED, disk=lambda s: 1e4),
    "plot_scores": IMAGE_FIGURE,
    "plot_labels": IMAGE_FIGURE,
    "plot_null_validation": IMAGE_FIGURE,
    "plot_pictures": replace(FIGURE, start=4.0, disk=lambda s: 1.2e6),
    "plot_angle_ladder": replace(FIGURE, held=_each(390)),
    "write_report": replace(GATHERED, start=8.0, base=500, held=_each(420), disk=lambda s: 2e7),
}
FITTED = ("fit_translator", "train_translator")
BOTH = ("measure_evidence", "measure_head_extension", "summarize", "compare_models")
TOWERS = ("extract_head", "extract_features", "embed_images", "embed_prompts", "embed_classes")


def cost_of(step: str) -> Cost:
    """The cost of a step; without an entry in COSTS, that of a figure or an analysis."""
    return COSTS.get(step, FIGURE if step.startswith("plot_") else DEFAULT)


def seconds(step: str, size: Size) -> float:
    """Expected seconds of one job, from start to end."""
    cost, size = cost_of(step), _read_by(step, size)
    work = (
        cost.f64(size) / (F64 * size.threads)
        + cost.f32(size) / (F32 * size.threads)
        + cost.elements(size) / ELEMENTS
    )
    if step == "train_translator" and size.gpu:
        work = cost.f32(size) / GPU + STEP * size.passes * size.rows / size.step_rows
    loading = LOADED * size.parameters_m if step in TOWERS else 0.0
    return cost.start + work + loading + _tower_seconds(step, size)


def _read_by(step: str, size: Size) -> Size:
    """The size with the tower and the images that a step uses.

    With a reference, the steps in FITTED use the larger of the reference and the study, and the
    steps in BOTH use both.
    """
    if step == "embed_classes":
        return replace(size, parameters_m=size.of_space[0], gmacs=size.of_space[1])
    images, shards = max(size.reference, (size.images, size.shards))
    if step in BOTH:
        return replace(size, images=size.images + size.reference[0], shards=shards)
    return replace(size, images=images, shards=shards) if step in FITTED else size


def _tower_seconds(step: str, s: Size) -> float:
    """Seconds to decode photos, to run a tower over photos or texts, and to draw pictures."""
    forward = s.gmacs / (GPU if s.gpu else TOWER * s.threads)
    if step in ("extract_features", "embed_images"):
        return s.shard_rows * (
            forward + (DECODE + PREPARE + CROP * (s.views - 1)) / (s.views * s.decoders)
        )
    return {
        "build_manifest": s.images * DECODE / s.threads,
        "embed_prompts": TEXT * forward * (s.labels + s.concepts),
        "embed_classes": TEXT * forward * 2 * s.classes,
        "render_pictures": s.pictures * (3.0 if s.gpu else 300.0),
        "write_report": min(s.images, 10_000) * DECODE / s.threads,
    }.get(step, 0.0)


def peak_mb(step: str, size: Size) -> float:
    """Expected peak of the resident memory of one job, in 10^6 bytes."""
    cost, size = cost_of(step), _read_by(step, size)
    widths = (size.feature_dim, size.space_dim, size.classes)
    rows = (
        sum(times * width for times, width in zip(cost.shard, widths, strict=True))
        * size.shard_rows
    )
    rows += sum(times * width for times, width in zip(cost.block, widths, strict=True)) * min(
        BLOCK, size.shard_rows
    )
    tower = _tower_bytes(step, size) if step in TOWERS else 0.0
    generator = 9e9 if step == "render_pictures" and size.pictures else 0.0
    return cost.base + 1e-6 * (
        rows + cost.square * 8 * size.feature_dim**2 + cost.held(size) + tower + generator
    )


def _tower_bytes(step: str, s: Size) -> float:
    """Bytes of a tower: a forward pass, views that wait, and its weights twice during loading.

    For a space, the weights of both towers count.
    """
    at_once = s.threads * min(s.batch, CPU_BATCH)
    images = step in ("extract_features", "embed_images")
    activations = ACTIVATIONS * at_once if images and not s.gpu else 0.0
    waiting = min(AHEAD * s.decoders, max(s.decoders, WAITING_BYTES // (s.views * VIEW)))
    decoded = PIXELS * s.views * (waiting + s.decoders) if images else 0.0
    return 1e6 * (
        8 * s.parameters_m * (1.4 if step.startswith("embed") else 1.0) + activations + decoded
    )


def disk_bytes(step: str, size: Size) -> int:
    """Expected bytes of the outputs of one job."""
    return round(cost_of(step).disk(size))


PER_MODEL = ("resolve_model", "extract_head", "fit_projector", "validate_null_space")
PER_SPACE = ("resolve_space", "embed_prompts")
PER_PAIR = (
    "embed_classes",
    "fit_translator",
    "measure_controls",
    "measure_evidence",
    "measure_head_extension",
    "measure_null_removal",
    "measure_zero_shot",
    "measure_rank_curve",
    "scan_concepts",
    "steer_concepts",
    "probe_principal",
    "find_neighbours",
    "render_pictures",
)


def study_bytes(
    study: dict[str, Any],
    images: int,
    models: Mapping[str, ModelEntry],
    spaces: Mapping[str, SpaceEntry],
) -> int:
    """Expected bytes of results/<study> once the study is finished, without logs."""
    shards, kinds = study["extraction"]["shards"], len(study["comparison"]["kinds"])
    whole = size_of(study, images, None, None)
    jobs = {step: [whole] for step in COSTS}
    jobs |= {
        key: [size_of(study, images, model, None) for model in models.values()] for key in PER_MODEL
    }
    jobs |= {
        key: [size_of(study, images, None, space) for space in spaces.values()] for key in PER_SPACE
    }
    pairs = {
        name: [size_of(study, images, model, space) for space in spaces.values()]
        for name, model in models.items()
    }
    jobs |= {key: [size for sizes in pairs.values() for size in sizes] for key in PER_PAIR}
    jobs["extract_features"] = jobs["extract_head"] * shards
    jobs["embed_images"] = jobs["embed_prompts"] * shards
    jobs["train_translator"] = [
        size for name in study["comparison"]["models"] for size in pairs[name]
    ] * kinds
    return sum(disk_bytes(step, size) for step, sizes in jobs.items() for size in sizes)

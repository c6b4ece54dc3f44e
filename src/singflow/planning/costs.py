"""What a job costs before it runs: seconds, memory and disk of every step, from the study and the sizes of its models.

Expectations, without margins, for one job on a server CPU of 2 to 3 GHz. Work is counted from the code (multiply-adds of matrix
products, elements touched) and turned into seconds by the rates below. Rates, starts and bases were measured: linear steps and
tables by benchmarks/growth.py, all others by benchmarks/memory.py, on two cores. No GPU was at hand: its rate is 40 % of the
published FP32 peak of an A100 (19.5 TFLOPS). An architecture without a known size counts as a ViT-L/16.
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
TOWER = 25.0  # the same of a tower on a CPU: measured 10 (depthwise convolutions) to 67 (ViT-L)
ELEMENTS = 0.8  # 10^9 elements per second of elementwise float64 work, whatever the threads
GPU = 3900.0  # 10^9 multiply-adds per second of a tower on a GPU
STEP = 0.002  # seconds of a training step on a GPU, which small matrices do not fill: not measured
DECODE, PREPARE, CROP = (
    0.002,
    0.0025,
    0.0012,
)  # seconds of one thread: decode a photo of 500 x 400 pixels, its view 0, a further view
TEXT = 0.08  # forward passes of a space's image tower that a text costs: those of ViT-L/14 with its text tower, and of the packaged space
LOADED = 0.015  # seconds to build, load and hash a million parameters
ACTIVATIONS = 30.0  # MB of a view in a forward pass on a CPU: measured 3 to 60
VIEW = 4 * 3 * 224**2  # bytes of a view
PIXELS = 1.2  # MB of a view of 224 x 224 pixels that waits for the tower, with what making it leaves: measured
ASSUMED = (
    304.3,
    61.6,
    2048,
)  # a ViT-L/16: 10^6 parameters, 10^9 multiply-adds a view; a wide feature
IMAGENET = 1_281_167  # images of a study whose data is not here yet
BLOCK = 4096  # rows that some steps work on at once (artifacts.shards.in_blocks)
PROBED = 2**27  # numbers that a logistic regression holds at most (probes.IN_MEMORY)
SCANNED = (
    500,
    500_000,
)  # concepts, and labels x concepts, that a thread scans at once at most (concepts.BLOCK, concepts.CELLS)
FEATURES, FLEXIBLE, CLASSES = (
    3072,
    1024,
    1365,
)  # of a read-out in the form of sums (analyses/readout.py)
NOISE, PLANTED = (
    64,
    480,
)  # columns of a planted leak, and of all of them in the form of sums, at most (evidence.MOST_NOISE, MOST_COLUMNS)
SEARCHED, USED = (
    5,
    3,
)  # penalties that a read-out in the form of sums is fitted with, and those of them that some target chooses: measured
EIGEN = 6.0  # a decomposition of n x n, in multiply-adds of n^3, with what is made of it: measured
LOOKED_AT, COUNTED = (
    10,
    20_000,
)  # class folders, or archives, that are looked into, and entries counted in each folder


@dataclass(frozen=True)
class Size:
    """What the cost of a job depends on. A tower's parameters_m (10^6) and gmacs (10^9 multiply-adds a view), and of_space: those of the
    space's tower; 0: no tower."""

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
    planted: int = 20  # planted leaks of each size, and random signs behind a floor
    lambdas: int = 13  # penalties tried
    logistic: bool = True  # probes are logistic regressions, not ridge
    alphas: int = 6  # penalties of a probe
    points: int = 10  # of a rank curve
    steered: int = 0  # images steered, times texts, times targets
    passes: int = 0  # over the training rows, at most: losses times epochs
    step_rows: int = 128  # rows of a training step
    width: int = 1024  # of hidden layers
    pictures: int = 0  # that a generator draws for one model and space
    exact_up_to: int = 100_000
    resamples: int = 2000
    permutations: int = 10_000
    reference: tuple[int, int] = (
        0,
        0,
    )  # images and shards that translators are fitted on, in place of the study's

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
        """Dimensions of the null space by the rule `exact`, for a head of full rank."""
        return max(0, self.feature_dim - self.classes)

    @property
    def cases(self) -> int:
        """Subspaces that controls compare: each dimension up to the null space's, in the null, the row and the whole space."""
        wanted = {
            *(each for each in self.dimensions if each < self.null_dim),
            *([self.null_dim] if self.null_dim else []),
        }
        return sum(2 + (each <= self.feature_dim - self.null_dim) for each in wanted)

    @property
    def fits(self) -> int:
        """Translators of a model in a space."""
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
    """The size of a job of a valid study on so many images, of one model, one space, both, or (None, None) all of them.

    The tower is the model's, or without a model the space's for images. Labels are at most the classes of data.classes.
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
        assumed=any(each is None for each in (*sizes, model.feature_dim if model else 0)),
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
    """Images of the study: those of its manifest, or an estimate that reads no more than a table, or some of a few folders or archives.

    Data that is not here yet counts as ImageNet's training images, or per_class of every class.
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
    """Rows of a Parquet file; 0 for one that is not here or damaged, which the step that reads it says."""
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return 0


@cache
def _reference(reference: str | None) -> tuple[int, int]:
    """Images and shards of a reference."""
    if reference is None:
        return 0, 0
    folder = reference_folder(reference)
    shards = [len(list(each.glob("shard-*"))) for each in folder.glob("embeddings/*")]
    return _rows(folder / "data/manifest.parquet"), max(shards, default=0)


def _in_folders(root: Path, per_class: int | None) -> int:
    """Images in class folders, perhaps below train and val, as far as the first entries of some folders tell; 0: no such folder."""
    folders = class_folders(root) if root.is_dir() else []
    looked_at = folders[:: -(-len(folders) // LOOKED_AT)] if folders else []
    counts = [sum(1 for _ in islice(folder.iterdir(), COUNTED)) for folder in looked_at]
    return round(
        len(folders) * sum(min(count, per_class or count) for count in counts) / max(len(counts), 1)
    )


@cache
def _lines(path: str) -> int:
    """Lines of a text file; 2 for one that is not here."""
    if not Path(path).is_file():
        return 2
    with Path(path).open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


Work = Callable[[Size], float]


@dataclass(frozen=True)
class Cost:
    """Coefficients of a step. Work is that of one job.

    start: seconds until work begins; f64, f32: 10^9 multiply-adds; elements: 10^9; base: MB of the process; shard, block: bytes a
    row held of a shard, and of a block of BLOCK rows, as multiples of feature_dim, space_dim and classes; square: matrices of
    feature_dim^2 float64; held: bytes of tables of images; disk: bytes written.
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
    """Images whose cosines with a point are computed."""
    return s.images if s.images <= s.exact_up_to else min(s.images, CELL * PROBES)


def _cells(s: Size) -> float:
    """Cells of an index; 0 where neighbours are searched exactly."""
    return 0.0 if s.images <= s.exact_up_to else s.images / CELL


def _passes(s: Size) -> int:
    """Times that scan_concepts meets every concept: twice where their mean over all is not that over one block."""
    return 1 + (s.concepts > min(SCANNED[0], SCANNED[1] // max(s.labels, 1)))


def _network(s: Size) -> float:
    """Weights of a nonlinear translator, the largest of the kinds."""
    return s.width * (2.0 * s.feature_dim + s.width + s.space_dim)


def _sums(s: Size, count: int) -> float:
    """Bytes of the sums over so many groups of images, out of which translators are fitted."""
    return 8.0 * count * s.feature_dim * (s.feature_dim + s.space_dim)


def _kernels(s: Size) -> bool:
    """Whether read-outs have the form of kernels."""
    return s.images < max(FEATURES, s.feature_dim)


def _features(s: Size) -> int:
    """Features of a read-out in the form of sums, null coordinates among them."""
    return max(FEATURES, s.feature_dim + FLEXIBLE)


def _columns(s: Size) -> float:
    """Columns that measure_evidence reads out: the remainder, that of the blind check, and planted leaks."""
    width = NOISE if _kernels(s) else min(NOISE, max(1, PLANTED // (3 * s.planted)))
    return 2.0 * s.space_dim + 3 * s.planted * min(width, s.space_dim)


def _judged(s: Size) -> tuple[int, int]:
    """Folds, and pairs of folds, that are left out of a fit in turn; without cross-fitting there are 5 in the manifest."""
    folds = s.folds or 5
    return folds, folds * (folds - 1) // 2 if folds > 2 else 0


def _summed(s: Size, columns: float) -> float:
    """Multiply-adds that make what read-outs of so many columns are fitted from: kernels, or sums over features."""
    if _kernels(s):
        return float(s.images**2 * (2 * s.visible_dim + 3 * s.classes + s.null_dim))
    roots = 3 * min(s.classes, CLASSES)
    return s.images * (_features(s) * (_features(s) + columns) + roots**2) + EIGEN * roots**3


def _fitted(s: Size, columns: float) -> float:
    """Multiply-adds of both read-outs of so many columns, fitted without each fold with several penalties, and without each pair."""
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
    """Multiply-adds of read-outs of the remainder with a growing number of null directions, without each fold and each pair."""
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
    """Bytes that read-outs of so many columns hold while some fits are made."""
    if _kernels(s):
        return 8.0 * s.images * (6 * s.images + 4 * columns + 2 * s.feature_dim)
    width = _features(s)
    return 8.0 * width * (_judged(s)[0] * (width + columns) + 2.5 * width + 5 * columns)


def _blocks(s: Size, times: int) -> float:
    """Multiply-adds that give the coordinates and logits of all images so many times."""
    return times * s.images * s.feature_dim * (s.feature_dim + 2.0 * s.classes)


def _probed(s: Size) -> float:
    """Bytes that the logistic regressions on features and on embeddings hold: their rows thrice, and 25 float64 for each weight."""
    rows = sum(min(s.rows * (width + s.labels), PROBED) for width in (s.feature_dim, s.space_dim))
    return 12.0 * rows + 200.0 * s.labels * (s.feature_dim + s.space_dim)


def _each(size: float) -> Work:
    """So many bytes for every image."""
    return lambda s: size * s.images


LINEAR = Cost(start=1.5, base=220)
GATHERED = Cost(start=1.5, base=250)
FIGURE = Cost(start=2.5, base=250, disk=lambda s: 3e5)
TOWER_STEP = Cost(start=5.0, base=400)
IMAGE_FIGURE = replace(FIGURE, held=lambda s: 250 * s.results, elements=lambda s: 3e-6 * s.results)
DEFAULT = Cost(start=2.5, base=600, shard=(16, 16, 0), square=4, held=_each(420), disk=_each(100))
COSTS = {  # of steps that differ from the default, and from that of a figure
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
    """What a step costs."""
    return COSTS.get(step, FIGURE if step.startswith("plot_") else DEFAULT)


def seconds(step: str, size: Size) -> float:
    """Expected seconds of one job of a step."""
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
    """The size with the tower and images that a step reads: with a reference, fits have the larger of it and the study, tests have both."""
    if step == "embed_classes":
        return replace(size, parameters_m=size.of_space[0], gmacs=size.of_space[1])
    images, shards = max(size.reference, (size.images, size.shards))
    if step in BOTH:
        return replace(size, images=size.images + size.reference[0], shards=shards)
    return replace(size, images=images, shards=shards) if step in FITTED else size


def _tower_seconds(step: str, s: Size) -> float:
    """Seconds of decoding photos, of running a tower over them or over texts, and of drawing pictures."""
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
    """Expected peak resident memory of one job of a step."""
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
    """Memory of a tower: its weights twice while they are read (of a space: both towers), a forward pass, and views that wait."""
    at_once = s.threads * min(s.batch, CPU_BATCH)
    images = step in ("extract_features", "embed_images")
    activations = ACTIVATIONS * at_once if images and not s.gpu else 0.0
    waiting = min(AHEAD * s.decoders, max(s.decoders, WAITING_BYTES // (s.views * VIEW)))
    decoded = PIXELS * s.views * (waiting + s.decoders) if images else 0.0
    return 1e6 * (
        8 * s.parameters_m * (1.4 if step.startswith("embed") else 1.0) + activations + decoded
    )


def disk_bytes(step: str, size: Size) -> int:
    """Expected size of the outputs of one job of a step."""
    return round(cost_of(step).disk(size))


PER_MODEL = ("resolve_model", "extract_head", "fit_projector", "validate_null_space")
PER_SPACE = ("resolve_space", "embed_prompts")
PER_PAIR = (
    "embed_classes", "fit_translator", "measure_controls", "measure_evidence", "measure_head_extension", "measure_null_removal",
    "measure_zero_shot", "measure_rank_curve", "scan_concepts", "steer_concepts", "probe_principal", "find_neighbours", "render_pictures",
)  # fmt: skip


def study_bytes(
    study: dict[str, Any],
    images: int,
    models: Mapping[str, ModelEntry],
    spaces: Mapping[str, SpaceEntry],
) -> int:
    """Expected size of results/<study> once a valid study on so many images is finished; logs are left out."""
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

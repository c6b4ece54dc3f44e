"""Growth of seconds and peak memory with the images, of every step that reads features or tables.

Runs the commands of dvc.yaml with one thread on made-up features of one classifier in shards of
constant size, and on tiny images. The temporary folder needs 15 GB of disk; the tables gather two
models. Seconds are processor time, which other programs hardly change. Ends with exit status 1 when
the time of a step grows faster than the number of images, or its memory by more than the tables
that it reads and writes. `--write FILE` writes the table of costs, scaled to what was measured.
"""

import io
import json
import math
import resource
import tarfile
import tempfile
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from memory import MODELS, PER_MODEL, PICTURED, SPACE, STEPS, jobs, measure, multiply, path, project
from PIL import Image
from pydantic import Field

from singflow import cli
from singflow.analyses.metrics import unit
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import shard_path, shard_rows
from singflow.artifacts.tables import read_parquet, write_csv
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, resolve_models, resolve_spaces
from singflow.errors import InputError
from singflow.planning import costs

TWO = MODELS[:2]
MADE_UP = (
    "resolve_model",
    "resolve_space",
    "extract_head",
    "extract_features",
    "embed_images",
    "embed_prompts",
    "embed_classes",
)
STEEP = 1.5  # times what a line through the two smaller sizes says for the largest
SLACK_S, SLACK_MB = 5.0, 60.0  # differences between runs of one command
COPIES = 3.0  # of its tables that a step may hold
# Bytes per image that a step may also hold: lists of files and hashes, the scores of an image, rows
# that fit in memory.
LISTED = {"build_manifest": 850.0, "render_pictures": 400.0, "probe_principal": 300.0}
INDEXED = 150.0  # more where images are in archives: the place of each


class Flags(cli.Command):
    rows: list[int] = Field(
        [20_000, 160_000, 1_280_000],
        min_length=3,
        description="numbers of images, ascending, at least three",
    )
    shard: int = Field(5_000, ge=20, description="images in a shard")
    features: int = Field(256, ge=2, description="dimensions of the features")
    dims: int = Field(128, ge=2, description="dimensions of the space")
    labels: int = Field(100, ge=2, description="labels, which are the classes of the head")
    archives: int = Field(
        0,
        ge=0,
        description="tars that the images are in, of the form of a folder tree (0: a folder)",
    )
    steps: list[str] = STEPS
    folder: Path = Field(Path(tempfile.gettempdir()), description="folder for the temporary one")
    write: Path | None = Field(
        None, description="file for the table of costs, scaled to what was measured"
    )


def prepare(images: int, flags: Flags) -> None:
    """A project of two models whose images are tiny files that all differ."""
    labels = [f"label {number:03d}" for number in range(flags.labels)]
    shards = max(1, images // flags.shard)
    entry = ModelEntry(
        source="timm",
        id="test_resnet.r160_in1k",
        weights="random",
        feature_dim=flags.features,
        classes=len(labels),
        class_names=labels,
    ).model_dump()
    archives = {"source": "archive", "archives": ["*.tar"]} if flags.archives else {}
    project(
        TWO,
        dict.fromkeys(TWO, entry),
        data={"per_class": None} | archives,
        extraction={"shards": shards, "shard_ids": [f"{shard:05d}" for shard in range(shards)]},
        controls={"dimensions": []},
        rank_curve={"kept": [1.0, 0.5]},
        translator={"lambdas": [0.01, 1.0, 100.0]},
        evidence={"draws": 3},
        steering={"prompts": ["an image of a jellyfish"], "target_is_deg": [10.0]},
        probe={"alphas": [0.01, 1.0]},
        pictures={"exact_up_to": 1000},
        summary={"resamples": 400, "permutations": 400},
    )
    Path("params.yaml").write_text(json.dumps(read_yaml("params.yaml") | {"threads": 1}))
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save("tiny.jpg")
    content = Path("tiny.jpg").read_bytes()
    places = [
        (f"{labels[number % len(labels)]}/{number}.jpg", content + str(number).encode())
        for number in range(images)
    ]
    if flags.archives:
        Path("images").mkdir()
        for number in range(flags.archives):
            with tarfile.open(f"images/{number:05d}.tar", "w") as tar:
                for name, data in places[number :: flags.archives]:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    tar.members.clear()
        return
    for label in labels:
        Path("images", label).mkdir(parents=True)
    for name, data in places:
        Path("images", name).write_bytes(data)


def make_up(flags: Flags) -> None:
    """Write made-up tower results: features around a mean per label, embeddings T f + noise."""
    generator = np.random.default_rng(1)
    study, manifest = read_yaml("params.yaml"), read_parquet(path("manifest"))
    codes, labels = pd.factorize(manifest["label"], sort=True)
    labels = labels.tolist()
    facts = provenance(
        ["torch"],
        weights_sha256="0",
        weight_dtype="float32",
        class_names=labels,
        head_max_error=0.0,
        top1=None,
        top1_images=0,
    )

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    def texts(embeddings: np.ndarray) -> np.ndarray:
        return unit(embeddings).astype(np.float32)

    centres = normal(len(labels), flags.features)
    relation = normal(flags.features, flags.dims) / np.float32(flags.features**0.5)
    shards = study["extraction"]["shards"]
    write_tensors(path("head"), {"weight": centres, "bias": normal(len(labels))}, facts)
    for shard in range(shards):
        ids = np.asarray(shard_rows(len(manifest), shard, shards), dtype=np.int64)
        places = {"image_id": ids, "view": np.zeros(len(ids), dtype=np.int32)}
        features = centres[codes[ids]] + normal(len(ids), flags.features)
        embeddings = features @ relation + np.float32(0.3) * normal(len(ids), flags.dims)
        for name, rows in (("features", features), ("embeddings", embeddings)):
            write_tensors(shard_path(path(name).parent, shard), {name: rows, **places}, facts)
    concepts = Path(study["concepts"]["vocabulary"]).read_text(encoding="utf-8").split("\n")[:-1]
    targets, means = study["steering"]["prompts"], centres @ relation
    embedded = {
        "label_embeddings": texts(means),
        "concept_embeddings": texts(normal(len(concepts), flags.dims)),
        "target_embeddings": texts(normal(len(targets), flags.dims)),
    }
    write_tensors(path("texts"), embedded, facts)
    others = texts(means + normal(len(labels), flags.dims))
    classes = {"class_embeddings": texts(means), "other_embeddings": others}
    write_tensors(path("classes"), classes, facts)
    write_json(path("names"), {"labels": labels, "concepts": concepts, "targets": targets})
    entry = resolve_models("config/models.yaml", TWO)[TWO[0]]
    write_json(path("model_entry"), entry.model_dump())
    space = resolve_spaces("config/spaces.yaml", [SPACE])[SPACE].model_dump() | {"dim": flags.dims}
    write_json(path("space_entry"), space)


def busy() -> float:
    """Processor seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table_bytes(files: list[str], images: int) -> float:
    """Bytes an image, in memory, of the tables that a job reads and writes, alone or in folders."""
    tables = {
        file
        for place in map(Path, files)
        for file in [place, *place.rglob("*")]
        if file.suffix == ".parquet" and "concepts" not in file.parts
    }
    sizes = (pd.read_parquet(file).memory_usage(deep=True, index=False).sum() for file in tables)
    return int(sum(sizes)) / images


def run_steps(images: int, flags: Flags) -> pd.DataFrame:
    """Seconds, peak memory (MB) and bytes of the tables an image of every step."""
    gathered = {"summarize": PER_MODEL, "plot_pictures": PICTURED}
    rows = []
    for step, (command, files) in jobs().items():
        if step == "fit_projector":
            make_up(flags)
        if step in MADE_UP or (flags.steps and step not in flags.steps):
            continue
        multiply(gathered.get(step, []), TWO)
        started = busy()
        peak, _ = measure(command)
        rows.append((step, busy() - started, peak / 1e6, table_bytes(files, images)))
        cli.log.info("-- %s of %d images: %.1f s, %.0f MB", step, images, *rows[-1][1:3])
    return pd.DataFrame(rows, columns=["step", "s", "MB", "tables"]).set_index("step")


def judge(
    sizes: list[int], seconds: np.ndarray, peaks: np.ndarray, tables: float, listed: float = 0.0
) -> dict[str, object]:
    """How time and memory (MB) of a step grow over the last three sizes.

    `tables` and `listed` are in bytes per image. The exponent is that of the time beyond the
    start-up; it is NaN where the smaller difference is lost in noise.
    """
    first, middle, last = sizes[-3:]
    steps, ratio = np.diff(seconds), (last - middle) / (middle - first)
    line = seconds[1] + max(steps[0], 0.0) * ratio
    grown = peaks[-1] - peaks[0]
    allowed = SLACK_MB + (COPIES * tables + listed) * (last - first) / 1e6
    known = steps.min() > 0.1 and steps[1] > 1.0
    return {
        "exponent": math.log(steps[1] / steps[0]) / math.log(ratio) if known else math.nan,
        "B/image": max(grown * 1e6 / (last - first), 0.0),
        "tables B/image": tables,
        "linear": bool(seconds[-1] <= STEEP * line + SLACK_S),
        "flat": bool(grown <= allowed),
    }


def series(runs: dict[int, pd.DataFrame], step: str) -> list[np.ndarray]:
    """Seconds and peaks (MB) of a step at every size."""
    return [np.array([run.at[step, name] for run in runs.values()]) for name in ("s", "MB")]


def growth(runs: dict[int, pd.DataFrame], indexed: float = 0.0) -> pd.DataFrame:
    """Seconds and peaks of every step at every size, and the verdict; `indexed`: see INDEXED."""
    listed = LISTED | {"build_manifest": LISTED["build_manifest"] + indexed}
    sizes, last = list(runs), runs[max(runs)]
    rows = []
    for step in last.index:
        seconds, peaks = series(runs, step)
        numbers = {f"s {size}": value for size, value in zip(sizes, seconds, strict=True)}
        numbers |= {f"MB {size}": value for size, value in zip(sizes, peaks, strict=True)}
        tables = last.at[step, "tables"]
        verdict = judge(sizes, seconds[-3:], peaks[-3:], tables, listed.get(step, 0.0))
        rows.append({"step": step, **numbers, **verdict})
    return pd.DataFrame(rows)


def size_here(images: int, flags: Flags) -> costs.Size:
    """The size of the jobs of the project in the working folder."""
    model = resolve_models("config/models.yaml", TWO)[TWO[0]]
    space = resolve_spaces("config/spaces.yaml", [SPACE])[SPACE]
    space = space.model_copy(update={"dim": flags.dims})
    size = costs.size_of(read_yaml("params.yaml"), images, model, space, gpu=False)
    return replace(size, labels=flags.labels)


def scaled(
    step: str, sizes: list[costs.Size], seconds: np.ndarray, peaks: np.ndarray
) -> list[costs.Term]:
    """The terms of a step's cost, scaled to the measured time if it grows by more than a second.

    Memory is raised where more was needed, and never lowered.
    """
    start = costs.start(step)
    grown = np.array([costs.seconds(step, size) for size in sizes]) - start.seconds
    known = seconds[-1] - seconds[0] > 1.0 and grown[-1] > grown[0]
    faster = (seconds[-1] - seconds[0]) / (grown[-1] - grown[0]) if known else 1.0
    more = max(1.0, *(peaks / [costs.peak_mb(step, size) for size in sizes]))
    first = max(seconds[0] - faster * grown[0], 0.1)
    return [
        costs.Term(
            term.driver,
            first if term == start else term.seconds * (1.0 if "gpu" in term.driver else faster),
            more * term.megabytes,
        )
        for term in costs.COSTS[step]
    ]


def write_costs(path: Path, runs: dict[int, pd.DataFrame], sizes: list[costs.Size]) -> None:
    """Write the table of costs with the measured steps scaled, and the others as they are."""
    table = dict(costs.COSTS)
    measured_steps = set(next(iter(runs.values())).index) & set(table)
    for step in measured_steps - {"build_manifest"}:  # it decodes images that are tiny here
        table[step] = scaled(step, sizes, *series(runs, step))
    rows = [
        (step, term.driver, f"{term.seconds:.3g}", f"{term.megabytes:.3g}")
        for step, terms in table.items()
        for term in terms
    ]
    write_csv(path, ["step", "driver", "seconds", "megabytes"], rows)


def main(flags: Flags) -> None:
    runs, sizes = {}, []
    for images in sorted(flags.rows):
        with tempfile.TemporaryDirectory(dir=flags.folder) as temporary, chdir(temporary):
            prepare(images, flags)
            runs[images] = run_steps(images, flags)
            sizes.append(size_here(images, flags))
    table = growth(runs, INDEXED if flags.archives else 0.0)
    print(table.to_string(index=False, float_format="{:.1f}".format))
    if flags.write:
        write_costs(flags.write, runs, sizes)
    broken = [
        f"{row.step} is not {name}"
        for row in table.itertuples()
        for name in ("linear", "flat")
        if not getattr(row, name)
    ]
    if broken:
        raise InputError("; ".join(broken))
    print("time grows no faster than the images, memory by no more than the tables")


if __name__ == "__main__":
    cli.run_step(main, Flags)

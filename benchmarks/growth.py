"""Growth of seconds and peak memory with the images, of every step that reads features or tables.

Runs the commands of dvc.yaml with one thread on made-up features of one classifier in shards of
constant size, and on tiny images, of which none is mapped. The temporary folder needs 15 GB of
disk; the tables gather two models. Seconds are processor time, which other programs hardly change.
Ends with exit status 1 when the time of a step grows faster than the number of images, or its
memory by more than the tables that it reads and writes. `--write .` scales the checkout's tables of
costs to what was measured.
"""

import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import common
import numpy as np
import pandas as pd
from common import MODEL, SPACE, Mark, path, size
from PIL import Image
from pydantic import Field

from singflow import cli
from singflow.analyses.metrics import unit
from singflow.artifacts.files import write_bytes, write_json
from singflow.artifacts.shards import shard_path, shard_rows
from singflow.artifacts.tables import read_parquet
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, SpaceEntry, resolve_models, resolve_spaces
from singflow.planning import costs

TWO = [MODEL, "model01"]
MADE_UP = (
    *("resolve_model", "resolve_space", "extract_head", "extract_features"),
    *("embed_images", "embed_prompts", "embed_classes"),
)
STEEP = 1.5  # times what a line through the two smaller sizes says for the largest
SLACK_S, SLACK_MB = 5.0, 60.0  # differences between runs of one command
COPIES = 3.0  # of its tables that a step may hold
# Bytes per image that a step may also hold: lists of files and hashes, the scores of an image, rows
# that fit in memory.
LISTED = {"build_manifest": 850.0, "render_pictures": 400.0, "probe_principal": 300.0}


class Flags(common.Flags):
    rows: list[int] = Field(
        [20_000, 160_000, 1_280_000],
        min_length=3,
        max_length=3,
        description="three numbers of images, ascending",
    )
    shard: int = size(5_000, 20, "images in a shard")
    features: int = size(256, 2, "dimensions of the features")
    dims: int = size(128, 2, "dimensions of the space")
    labels: int = size(100, 2, "labels, which are the classes of the head")
    steps: list[str] = Field([], description="steps that are measured (default: all)")
    write: Path | None = Field(
        None, description="checkout whose table of costs is scaled to what was measured"
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
    common.project(
        TWO,
        entry,
        threads=1,
        data={"per_class": None},
        extraction={"shards": shards, "shard_ids": [f"{shard:05d}" for shard in range(shards)]},
        translator={"lambdas": [0.01, 1.0, 100.0]},
        evidence={"draws": 3},
        steering={"prompts": ["an image of a jellyfish"], "target_is_deg": [10.0]},
        probe={"alphas": [0.01, 1.0]},
        summary={"resamples": 400},
    )
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save("tiny.jpg")
    content = Path("tiny.jpg").read_bytes()
    for label in labels:
        Path("images", label).mkdir(parents=True)
    for number in range(images):
        file = Path("images", labels[number % len(labels)], f"{number}.jpg")
        file.write_bytes(content + str(number).encode())


def make_up(flags: Flags) -> None:
    """Write made-up tower results: features around a mean per label, embeddings T f + noise."""
    generator = np.random.default_rng(1)
    study, manifest = read_yaml("params.yaml"), read_parquet(path("manifest"))
    codes, labels = pd.factorize(manifest["label"], sort=True)
    facts = provenance(
        ["torch"],
        weights_sha256="0",
        weight_dtype="float32",
        class_names=labels.tolist(),
        head_max_error=0.0,
        top1=None,
        top1_images=0,
    )

    def noise(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    def texts(embeddings: np.ndarray) -> np.ndarray:
        return unit(embeddings).astype(np.float32)

    centres = noise(len(labels), flags.features)
    relation = noise(flags.features, flags.dims) / np.float32(flags.features**0.5)
    shards, means = study["extraction"]["shards"], centres @ relation
    for shard in range(shards):
        ids = np.asarray(shard_rows(len(manifest), shard, shards), dtype=np.int64)
        places = {"image_id": ids, "view": np.zeros(len(ids), dtype=np.int32)}
        features = centres[codes[ids]] + noise(len(ids), flags.features)
        embeddings = features @ relation + np.float32(0.3) * noise(len(ids), flags.dims)
        for name, rows in (("features", features), ("embeddings", embeddings)):
            write_tensors(shard_path(path(name).parent, shard), {name: rows, **places}, facts)
    concepts = Path(study["concepts"]["vocabulary"]).read_text(encoding="utf-8").split("\n")[:-1]
    targets = study["steering"]["prompts"]
    embedded = {
        "label_embeddings": texts(means),
        "concept_embeddings": texts(noise(len(concepts), flags.dims)),
        "target_embeddings": texts(noise(len(targets), flags.dims)),
    }
    others = texts(means + noise(len(labels), flags.dims))
    made = {
        "head": {"weight": centres, "bias": noise(len(labels))},
        "texts": embedded,
        "classes": {"class_embeddings": texts(means), "other_embeddings": others},
    }
    common.write_arrays(made, facts)
    names = {"labels": labels.tolist(), "concepts": concepts, "targets": targets}
    write_json(path("names"), names)
    model, space = entries(flags)
    write_json(path("model_entry"), model.model_dump())
    write_json(path("space_entry"), space.model_dump())
    common.multiply([path("features").parent, path("classes"), path("model_entry")], TWO)


def entries(flags: Flags) -> tuple[ModelEntry, SpaceEntry]:
    """The model and the space of the project in the working folder."""
    model = resolve_models("config/models.yaml", TWO)[MODEL]
    space = resolve_spaces("config/spaces.yaml", [SPACE])[SPACE]
    return model, space.model_copy(update={"dim": flags.dims})


def table_bytes(files: list[str], images: int) -> float:
    """Bytes an image, in memory, of the tables that a job reads and writes, alone or in folders."""
    tables = {
        file
        for place in map(Path, files)
        for file in [place, *place.rglob("*")]
        if file.suffix == ".parquet"
    }
    sizes = (pd.read_parquet(file).memory_usage(deep=True, index=False).sum() for file in tables)
    return int(sum(sizes)) / images


def run_steps(images: int, flags: Flags) -> pd.DataFrame:
    """Seconds, peak memory (MB) and bytes of the tables an image of every step."""
    rows = []
    for step, job in common.jobs().items():
        if step == "fit_projector":
            make_up(flags)
        if step in MADE_UP or (flags.steps and step not in flags.steps):
            continue
        cost = common.measure(job.command)
        common.multiply(job.outs, TWO)
        tables = table_bytes(job.deps + job.outs, images)
        rows.append((step, cost.busy, cost.peak / 1e6, tables))
        cli.log.info("-- %s of %d images: %.1f s, %.0f MB", step, images, *rows[-1][1:3])
    return pd.DataFrame(rows, columns=["step", "s", "MB", "tables"]).set_index("step")


Runs = dict[int, pd.DataFrame]  # by the number of images


def series(runs: Runs, step: str) -> list[np.ndarray]:
    """Seconds and peaks (MB) of a step at every size."""
    return [np.array([run.at[step, name] for run in runs.values()]) for name in ("s", "MB")]


def growth(runs: Runs) -> pd.DataFrame:
    """Seconds and peaks of every step at every size, and how they grow.

    The exponent is that of the time beyond the start-up; it is NaN where the smaller difference is
    lost in noise.
    """
    (first, middle, last), rows = runs, []
    for step in runs[last].index:
        seconds, peaks = series(runs, step)
        numbers = {f"s {n}": value for n, value in zip(runs, seconds, strict=True)}
        numbers |= {f"MB {n}": value for n, value in zip(runs, peaks, strict=True)}
        steps, ratio = np.diff(seconds), (last - middle) / (middle - first)
        known = steps.min() > 0.1 and steps[1] > 1.0
        exponent = math.log(steps[1] / steps[0]) / math.log(ratio) if known else math.nan
        more = max((peaks[-1] - peaks[0]) * 1e6 / (last - first), 0.0)
        tables = runs[last].at[step, "tables"]
        rows.append({"step": step, **numbers, "exponent": exponent, "B/image": more})
        rows[-1]["tables B/image"] = tables
    return pd.DataFrame(rows)


def marks(runs: Runs) -> Iterator[Mark]:
    """That time grows no faster than the images, and memory by no more than the tables."""
    first, middle, last = runs
    for step in runs[last].index:
        seconds, peaks = series(runs, step)
        grown = max(seconds[1] - seconds[0], 0.0) * (last - middle) / (middle - first)
        line = STEEP * (seconds[1] + grown) + SLACK_S
        held = COPIES * runs[last].at[step, "tables"] + LISTED.get(step, 0.0)
        allowed = SLACK_MB + held * (last - first) / 1e6
        yield Mark(f"{step}: s at the largest size", seconds[-1], "<=", line)
        yield Mark(f"{step}: MB more at the largest size", peaks[-1] - peaks[0], "<=", allowed)


def size_here(images: int, flags: Flags) -> costs.Size:
    """The size of the jobs of the project in the working folder."""
    found = costs.size_of(read_yaml("params.yaml"), images, *entries(flags), gpu=False)
    return replace(found, labels=flags.labels)


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
        replace(
            term,
            seconds=first
            if term == start
            else term.seconds * (1.0 if "gpu" in term.driver else faster),
            megabytes=more * term.megabytes,
        )
        for term in costs.COSTS[step]
    ]


def write_costs(checkout: Path, runs: Runs, sizes: list[costs.Size]) -> None:
    """Scale the costs of the measured steps in a checkout's table; all else stays as it is."""
    file = checkout / "src/singflow/planning/costs.toml"
    text = file.read_text(encoding="utf-8")
    measured_steps = set(next(iter(runs.values())).index) & set(costs.COSTS)
    for step in measured_steps - {"build_manifest"}:  # here images are tiny
        rows = "".join(
            f'  ["{term.driver}", {term.seconds:.3g}, {term.megabytes:.3g}'
            f"{'' if math.isinf(term.most) else f', {term.most:.4g}'}],\n"
            for term in scaled(step, sizes, *series(runs, step))
        )
        block = rf"(?m)^{step} = (\[\n(  .*\n)*\]|\[\[.*\]\])$"
        text = re.sub(block, f"{step} = [\n{rows}]", text, count=1)
    write_bytes(file, text.encode())


def main(flags: Flags) -> None:
    runs, sizes = {}, []
    for images in sorted(flags.rows):
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            prepare(images, flags)
            runs[images] = run_steps(images, flags)
            sizes.append(size_here(images, flags))
    common.show(growth(runs))
    if flags.write:
        write_costs(flags.write, runs, sizes)
    common.hold(marks(runs), flags.ease)


if __name__ == "__main__":
    cli.run_step(main, Flags)

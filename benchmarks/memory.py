"""Peak memory of every step of dvc.yaml for 14 models and 10,000 images, the paper's largest size.

The commands run for one classifier of 4,096 features, the widest in the paper, and one space
widened to 768 dimensions, as of CLIP. The results are then copied under 14 names for the steps that
gather all models. The memory of a model is the peak of a process that only loads it, libraries
included. Ends with exit status 1 when a step needs more than the limit besides its model.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import Field

from singflow import cli
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.study import with_derived_keys

ROOT = Path(__file__).resolve().parents[1]
MODELS = [f"model{number:02d}" for number in range(14)]
SPACE = "conse_minilm"
PER_LABEL = 10
RESULTS = Path("results/sweep")

# A small process in between, because Linux counts the peak of the process that starts a command as
# the peak of the command.
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
TOWER = """
import sys
from pathlib import Path
from singflow.config import registry
from singflow.towers import {0}
{0}.{1}(registry.{2}(Path(sys.argv[1])))
"""
CLASSIFIER = TOWER.format("classifiers", "load_classifier", "read_model")
TEXTS = TOWER.format("spaces", "load_text_tower", "read_space")
TOWERS = {
    "extract_head": CLASSIFIER,
    "extract_features": CLASSIFIER,
    "embed_images": TOWER.format("spaces", "load_image_tower", "read_space"),
    "embed_prompts": TEXTS,
    "embed_classes": TEXTS,
}
WIDENED = {
    "embeddings": ["embeddings", "image_id", "view"],
    "texts": ["label_embeddings", "concept_embeddings", "target_embeddings"],
    "classes": ["class_embeddings", "other_embeddings"],
}
PER_MODEL = [
    *("model_entry", "projector_report", "translator_report", "controls", "controls_report"),
    *("scores", "zero_shot", "rank_curves", "head_extensions", "evidence", "null_validation"),
    *("concepts", "steering", "probes"),
]
PICTURED = ["neighbours", "pictures", "head"]
STEPS: list[str] = Field(
    [],
    description="steps that are measured (default: all); what they read must be made by steps "
    "before them",
)


class Flags(cli.Command):
    images: int = Field(
        1000 * PER_LABEL,
        ge=2 * PER_LABEL,
        le=1000 * PER_LABEL,
        description="number of images, 10 a label",
    )
    classifier: str = Field(
        "torchvision/alexnet.IMAGENET1K_V1",
        description=(
            "a model as params.yaml names it, untrained (default: as wide as VGG, but fast)"
        ),
    )
    limit_gb: float = Field(
        4.0,
        gt=0,
        description="memory that a step may need besides the model, in units of 10^9 bytes",
    )
    steps: list[str] = STEPS
    folder: Path | None = Field(
        None, description="empty folder to work in and keep (default: a temporary one)"
    )


def project(models: list[str], entries: dict[str, Any], **changes: dict[str, Any]) -> None:
    """Make the working folder a project: the sweep over models, few draws, short training."""
    for name in ("scripts", "checkpoints", "report"):
        Path(name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config", "config")
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    Path(".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", ".dvc/config")
    Path(".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    study = with_derived_keys(read_yaml("config/studies/sweep.yaml"))
    study |= {"models": models, "spaces": [SPACE]}
    study["threads"] = min(study["threads"], os.cpu_count() or 1)
    study["data"] |= {"root": "images", "per_class": PER_LABEL}
    study["extraction"]["device"] = "cpu"
    study["controls"] |= {"min_draws": 2, "max_draws": 2}
    study["training"] |= {"epochs": 1, "losses": ["mse"]}
    study["comparison"] = {"models": models[:1], "kinds": ["mlp3"]}
    study["pictures"]["closeup"] = models[0]
    for section in ("plot_labels", "plot_concepts", "plot_concept_scans", "steering"):
        study[section]["labels"] = []
    study["plot_concepts"]["shown"] = []
    for section, keys in changes.items():
        study[section] |= keys
    # YAML too, and to every reader the same: PyYAML leaves 00008 bare.
    Path("params.yaml").write_text(json.dumps(study))
    Path("config/models.yaml").write_text(yaml.safe_dump(entries))


def prepare(images: int, classifier: str) -> None:
    """A project of MODELS, with image files that all differ."""
    entry = resolve_models(ROOT / "config/models.yaml", [classifier], "random")[classifier]
    project(MODELS, dict.fromkeys(MODELS, entry.model_dump()))
    contents = [path.read_bytes() for path in sorted(data_root("packaged", ".").glob("imagenet_*"))]
    synsets = pd.read_csv("config/vocab/imagenet_1k.csv")["synset"]
    for number in range(images):
        path = Path("images", synsets[number // PER_LABEL], f"{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % len(contents)] + str(number).encode())


def path(artifact: str, model: str = MODELS[0]) -> Path:
    """Where an artifact of a model lies."""
    return CATALOG[artifact].at(RESULTS, model=model, space=SPACE, shard="00000")


def jobs(steps: Sequence[str] = ()) -> dict[str, tuple[list[str], list[str]]]:
    """The command and files of the first job of each step of dvc.yaml, or of the named steps."""
    from dvc.repo import Repo  # type: ignore[import-untyped]

    first: dict[str, tuple[list[str], list[str]]] = {}
    with Repo() as repo:
        for stage in repo.index.stages:
            words = [sys.executable, *shlex.split(stage.cmd)[1:]]
            files = [item.def_path for item in (*stage.deps, *stage.outs)]
            first.setdefault(stage.name.partition("@")[0], (words, files))
    if unknown := set(steps) - set(first):
        raise InputError(
            f"--steps: dvc.yaml has no {', '.join(sorted(unknown))}: "
            f"name some of {', '.join(first)}"
        )
    return {step: job for step, job in first.items() if not steps or step in steps}


def measure(command: list[str]) -> tuple[float, float]:
    """Peak resident memory (bytes) and seconds of a command."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise InputError(f"this command failed: {shlex.join(command)}")
    unit = 1 if sys.platform == "darwin" else 2**10
    return int(done.stdout.split()[-1]) * unit, time.perf_counter() - started


def seconds(command: list[str], cwd: Path | None = None) -> float:
    """Seconds that a command takes. Raises InputError with its output when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise InputError(f"{shlex.join(command)}: {done.stdout[-3000:]}")
    return time.perf_counter() - started


def made_up(images: int, labels: int) -> list[str]:
    """Write a manifest of images whose labels take turns; the labels."""
    names, image_id = [f"label {number:04d}" for number in range(labels)], np.arange(images)
    columns = {"image_id": image_id, "label": np.resize(names, images), "fold": image_id % 5}
    columns["split"] = np.where(columns["fold"] == 0, "validation", "train")
    columns["sha256"] = image_id.astype(str)
    others = dict.fromkeys(("path", "prompt"), "-")
    numbers = dict.fromkeys(("class_index", "width", "height"), 1)
    write_parquet(path("manifest"), pd.DataFrame(columns).assign(**others, **numbers))
    return names


def program(step: str, **flags: object) -> list[str]:
    """The command of a step for the first model. The value of a flag may be a list."""
    given = {"results": RESULTS, "model": MODELS[0], "space": SPACE, "shards": 1} | flags
    values = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    words = [str(word) for name, own in values.items() for word in (f"--{name}", *own)]
    return [sys.executable, str(ROOT / f"scripts/{step}.py"), *words]


def widen() -> None:
    """Give the space twice its dimensions: every vector beside itself, at its old norm."""
    for artifact, tensors in WIDENED.items():
        read, metadata = read_tensors(path(artifact), tensors)
        write_tensors(
            path(artifact),
            {n: np.tile(t, 2) / np.float32(2**0.5) if t.ndim == 2 else t for n, t in read.items()},
            metadata,
        )


def multiply(artifacts: list[str], models: list[str]) -> None:
    """Copy artifacts of the first model under the names of the others."""
    for artifact in artifacts:
        for model in models[1:]:
            path(artifact, model).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path(artifact, models[0]), path(artifact, model))


def benchmark(steps: Sequence[str]) -> pd.DataFrame:
    """Run every step, or those named; one row each."""
    before = {
        "fit_translator": widen,
        "summarize": partial(multiply, PER_MODEL, MODELS),
        "plot_pictures": partial(multiply, PICTURED, MODELS),
    }
    rows = []
    for step, (command, _) in jobs(steps).items():
        before.get(step, lambda: None)()
        cli.log.info("-- %s", step)
        peak, seconds = measure(command)
        model = 0.0
        if step in TOWERS:
            entry = path("model_entry" if step.startswith("extract_") else "space_entry")
            model, _ = measure([sys.executable, "-c", TOWERS[step], str(entry)])
        gib = [size / 2**30 for size in (peak, model, max(peak - model, 0.0))]
        rows.append((step, *gib, seconds))
    return pd.DataFrame(
        rows, columns=["step", "peak GiB", "of which model GiB", "besides GiB", "seconds"]
    )


def judge(table: pd.DataFrame, limit_gb: float) -> None:
    """Name the step that needs most memory besides its model. Raises InputError above the limit."""
    largest = table.loc[table["besides GiB"].idxmax()]
    said = f"{largest['step']} needs most besides its model: {largest['besides GiB']:.2f} GiB"
    limit = limit_gb * 1e9 / 2**30
    if largest["besides GiB"] > limit:
        raise InputError(f"{said}, above the limit of {limit_gb:g} GB ({limit:.2f} GiB)")
    print(f"{said}, within the limit of {limit_gb:g} GB ({limit:.2f} GiB)")


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"--folder {folder}: is not empty: name another")
        with chdir(folder):
            prepare(flags.images, flags.classifier)
            table = benchmark(flags.steps)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    judge(table, flags.limit_gb)


if __name__ == "__main__":
    cli.run_step(main, Flags)

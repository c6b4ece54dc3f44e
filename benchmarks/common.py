"""What benchmarks share: marks, races, processes of their own, photos, and made-up projects."""

import hashlib
import json
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import yaml
from pydantic import Field

from singflow import cli
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.config.reading import read_yaml
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.study import with_derived_keys

ROOT = Path(__file__).resolve().parents[1]
MODEL, SPACE = "model00", "conse_minilm"
PER_LABEL = 10
RESULTS = Path("results/sweep")
MAX_PIXELS = 10**9


class Flags(cli.Command):
    """Flags of every benchmark."""

    ease: float = Field(1.0, gt=0, description="marks are eased by this factor")


def size(default: int | None, least: int, about: str) -> Any:
    """A flag that is a number of something."""
    return Field(default, ge=least, description=about)


@dataclass(frozen=True)
class Mark:
    """A figure, and the value that it must reach, or not exceed."""

    figure: str
    value: float
    sense: Literal[">=", "<="]
    mark: float


def hold(marks: Iterable[Mark], ease: float = 1.0) -> None:
    """Print figures beside their marks. Raises InputError that names those that are missed."""
    rows = []
    for each in marks:
        at_least = each.sense == ">="
        eased = each.mark / ease if at_least else each.mark * ease
        reached = each.value >= eased if at_least else each.value <= eased
        rows.append((each.figure, each.value, f"{each.sense} {eased:.4g}", reached))
    table = pd.DataFrame(rows, columns=["figure", "value", "mark", "reached"])
    show(table)
    if missed := list(table.loc[~table["reached"], "figure"]):
        raise InputError(f"missed: {'; '.join(missed)}")
    print("every mark is reached")


def show(table: pd.DataFrame) -> None:
    """Print a table."""
    print(table.to_string(index=False, float_format="{:.3g}".format, na_rep="-"))


def race(
    contestants: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Seconds of contestants that take turns: a column each, and a row a round."""
    rounds = []
    for _ in range(repeats):
        rounds.append({})
        for name, run in contestants.items():
            started = clock()
            run()
            rounds[-1][name] = clock() - started
    return pd.DataFrame(rounds)


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    busy: float  # seconds of processors
    peak: float  # bytes of resident memory


def measure(command: Sequence[str], cwd: Path | None = None) -> Cost:
    """What a command takes. Raises InputError with its output when it fails."""
    words = [sys.executable, str(ROOT / "benchmarks/launch.py"), *command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{shlex.join(command)}: {done.stderr[-3000:]}")
    return Cost(*map(float, done.stdout.split()))


def alone(threads: int, function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns in a process of its own, and the peak memory (bytes) of that."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, threads, function, *arguments).result()


def _with_peak(threads: int, function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    cli.limit_threads(threads)
    return function(*arguments), peak_bytes()


def peak_bytes() -> int:
    """Largest resident memory of this process so far, and not of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1])  # type: ignore[index]


def normal(*shape: int) -> np.ndarray:
    """Made-up numbers in float32, the same for a shape."""
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


def photos(folder: Path | None) -> tuple[Path, pd.DataFrame]:
    """Data root, and path and sha256 of every photo of a folder (None: the packaged ones)."""
    if folder:
        names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    else:
        names = list(pd.read_csv(ROOT / "config/vocab/packaged.csv")["path"])
    if not names:
        raise InputError(f"{folder}: holds no images: name another folder")
    root = folder or data_root("packaged", ".")
    hashes = [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names]
    return root, pd.DataFrame({"path": names, "sha256": hashes})


def repeated(rows: pd.DataFrame, count: float) -> pd.DataFrame:
    """The first `count` of the rows, again and again, as rows of a manifest."""
    again = rows.iloc[np.arange(int(count)) % len(rows)].reset_index(drop=True)
    return again.assign(image_id=again.index)


# Projects of made-up data in the working folder


def project(models: list[str], entry: dict[str, Any]) -> None:
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
    study["threads"] = min(study["threads"], 2)
    study["comparison"] = {"models": models[:1], "kinds": ["mlp3"]}
    for section in ("plot_labels", "plot_concepts", "steering"):
        study[section]["labels"] = []
    for section, keys in (
        ("data", {"root": "images", "per_class": PER_LABEL}),
        ("extraction", {"device": "cpu"}),
        ("training", {"epochs": 1, "losses": ["mse"]}),
        ("pictures", {"closeup": models[0]}),
        ("plot_concepts", {"shown": []}),
    ):
        study[section] |= keys
    # YAML too, and to every reader the same: PyYAML leaves 00008 bare.
    Path("params.yaml").write_text(json.dumps(study))
    Path("config/models.yaml").write_text(yaml.safe_dump(dict.fromkeys(models, entry)))


def path(artifact: str) -> Path:
    """Where an artifact of the model lies."""
    return CATALOG[artifact].at(RESULTS, model=MODEL, space=SPACE, shard="00000")


class Job(NamedTuple):
    """A command, and the files or folders that it writes."""

    command: list[str]
    outs: list[str]


def jobs(steps: Sequence[str] = ()) -> dict[str, Job]:
    """The first job of each step of dvc.yaml, or of the named steps: makers before readers."""
    import networkx as nx  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    first: dict[str, Job] = {}
    with Repo() as repo:
        for stage in nx.dfs_postorder_nodes(repo.index.graph):
            words = [sys.executable, *shlex.split(stage.cmd)[1:]]
            outs = [out.def_path for out in stage.outs]
            first.setdefault(stage.name.partition("@")[0], Job(words, outs))
    if unknown := set(steps) - set(first):
        raise InputError(
            f"--steps: dvc.yaml has no {', '.join(sorted(unknown))}: "
            f"name some of {', '.join(first)}"
        )
    return {step: job for step, job in first.items() if not steps or step in steps}


def program(step: str, **flags: object) -> list[str]:
    """The command of a step for the model. The value of a flag may be a list."""
    given = {"results": RESULTS, "model": MODEL, "space": SPACE, "shards": 1} | flags
    values = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    words = [str(word) for name, own in values.items() for word in (f"--{name}", *own)]
    return [sys.executable, str(ROOT / f"scripts/{step}.py"), *words]


def multiply(places: Iterable[str | Path], models: list[str]) -> None:
    """Link the files of the first model, alone or in folders, under the names of the others."""
    for place in map(Path, places):
        for file in (each for each in (place, *place.rglob("*")) if each.is_file()):
            for other in models[1:] if models[0] in str(file) else ():
                to = Path(str(file).replace(models[0], other))
                to.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, to)  # a step replaces a file, and never changes it


def write_manifest(images: int, labels: int) -> list[str]:
    """Write a manifest of images whose labels take turns; the labels."""
    names, image_id = [f"label {number:04d}" for number in range(labels)], np.arange(images)
    columns = {"image_id": image_id, "label": np.resize(names, images), "fold": image_id % 5}
    columns["split"] = np.where(columns["fold"] == 0, "validation", "train")
    columns["sha256"] = image_id.astype(str)
    others = dict.fromkeys(("path", "prompt"), "-")
    numbers = dict.fromkeys(("class_index", "width", "height"), 1)
    write_parquet(path("manifest"), pd.DataFrame(columns).assign(**others, **numbers))
    return names


def write_arrays(arrays: dict[str, dict[str, np.ndarray]], metadata: dict[str, str]) -> None:
    """Write the tensors of artifacts of the model."""
    for artifact, tensors in arrays.items():
        write_tensors(path(artifact), tensors, metadata)

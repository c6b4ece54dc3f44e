"""The project as tests see it, and copies of it in which they run its engines."""

import atexit
import compileall
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, get_args

import pytest

from singflow.artifacts.catalog import Analysis
from singflow.config.reading import read_yaml
from singflow.study import render_params, with_derived_keys
from tests import PATIENCE, warm

CHECKOUT = Path(__file__).parents[1]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PROCESSOR = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE")
LOADING = ("HF_HUB_CACHE", *PROCESSOR, *THREADS)  # read while libraries are loaded
MAKES = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # of a `make test`
FAILED = {"make": 2, "dvc": 255}  # exit status of a program that fails, if it is not 1
COMMAND = r"python (?:scripts/|-m singflow\.figures).*"  # of a step, in what an engine prints
# Where a file that git does not know yet counts.
CODE = ("src/", "scripts/", "rules/", "tests/", "benchmarks/", "docs/", "report/")
ROLES = [f"GIT_{role}_{what}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
AUTHOR = dict.fromkeys(ROLES, "t@example.org")
MADE = [  # options of make: these environments are up to date
    word for name in ("demo", "workflow", "app", "docs", "test") for word in ("-o", f".venv/{name}")
]
SMALL: dict[str, Any] = {  # differences of a study that takes seconds
    "models": ["efficientnet_lite0", "tiny"],
    "analyses": [*get_args(Analysis)],
    "extraction": {"views": 2, "shards": 2},
    "controls": {"known": "none"},
    "evidence": {"draws": 4},
    "training": {"epochs": 3},
    "summary": {"resamples": 200},
}
TINY_MODEL = """
tiny: {source: timm, id: test_resnet.r160_in1k, weights: random}
"""


def _files() -> list[str]:
    """The project's own files in this checkout: not what its user made of it."""

    def listed(which: str) -> list[str]:
        command = ["git", "ls-files", which, "--exclude-standard"]
        done = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    if not (CHECKOUT / ".git").exists():  # as where mutants are tried
        return [str(path.relative_to(CHECKOUT)) for path in CHECKOUT.rglob("*")]
    made = ("results/", "dvc.lock")
    known = [name for name in listed("-c") if not name.startswith(made)]
    own = [name for name in known if not name.endswith(".dvc")]
    return [*own, *(name for name in listed("-o") if name.startswith(CODE))]


def _copy(source: Path, names: list[str], folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_symlink() and (source / name).is_dir():  # the package's data
            (folder / name).symlink_to((source / name).readlink())
        else:
            shutil.copy2(source / name, folder / name)


def _pristine() -> Path:
    """A folder with the project as users get it, made once per test run; files listed beside."""
    if "SINGFLOW_PRISTINE" in os.environ:
        return Path(os.environ["SINGFLOW_PRISTINE"])
    around = Path(tempfile.mkdtemp(prefix="singflow-tests-"))
    atexit.register(shutil.rmtree, around, ignore_errors=True)
    folder = around / "project"
    os.environ["SINGFLOW_PRISTINE"] = str(folder)
    there = [
        name for name in _files() if (CHECKOUT / name).is_file() or (CHECKOUT / name).is_symlink()
    ]
    names = sorted({*there, "params.yaml"})
    (around / "files").write_text("\n".join(names))
    _copy(CHECKOUT, names, folder)
    studies = {
        path.stem: with_derived_keys(read_yaml(path))
        for path in (folder / "config/studies").glob("*.yaml")
    }
    (folder / "params.yaml").write_text(render_params(studies["demo"]))
    for kind in ("models", "spaces"):  # without a user's own entries
        _keep(folder / f"config/{kind}.yaml", r"^(?=[^\s#])", lambda part: part[0] == "#")
    remotes = folder / ".dvc/config"
    _keep(
        remotes,
        r"^(?=\[)",
        lambda part: not part.startswith("['remote") or "local" in part.splitlines()[0],
    )
    set_default = re.sub(r"^(    remote = ).*", r"\g<1>local", remotes.read_text(), flags=re.M)
    remotes.write_text(set_default)
    # Else every program would compile, where Python is told to write no bytecode.
    compileall.compile_dir(folder / "src", quiet=1)
    return folder


def _keep(path: Path, between: str, wanted: Callable[[str], bool]) -> None:
    """Keep the wanted parts of a file, which begin where the pattern is found."""
    parts = re.split(between, path.read_text(), flags=re.MULTILINE)
    path.write_text("".join(part for part in parts if not part or wanted(part)))


ROOT = _pristine()
# Without what programs that ran there left.
FILES = (ROOT.parent / "files").read_text().splitlines()
COMPILED = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.pyc")]


def without(part: str) -> NoReturn:
    """Skip a test for want of a part of the machine; where CI is set, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{part} (see .ci/packages)")


def blocks(text: str, language: str = "sh") -> list[str]:
    """The blocks of code in a page, or in a part of one."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def block(text: str, word: str, language: str = "sh") -> str:
    """The block of code that holds a word."""
    (found,) = (block for block in blocks(text, language) if word in block)
    return found


NUMBER = r"-?\d+\.?\d*"


def quoted(shown: str, said: str) -> Iterator[tuple[list[float], list[float]]]:
    """The numbers of each line that a page shows, and of the same line of what was said."""
    ours = {" ".join(re.sub(NUMBER, "#", line).split()): line for line in said.splitlines()}
    for line in shown.splitlines():
        found = ours[" ".join(re.sub(NUMBER, "#", line).split())]
        yield tuple([*map(float, re.findall(NUMBER, text))] for text in (line, found))


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def artifacts_of(results: Path) -> dict[str, bytes]:
    skipped = ("logs/", "benchmarks/")
    return {n: data for n, data in files_of(results).items() if not n.startswith(skipped)}


class Project:
    """A copy of the project as a repository of its own, with a study small enough to run."""

    warm = True  # whether the server of the tests (warm/) starts programs where a call does not say

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _copy(ROOT, [*FILES, *COMPILED], folder)
        self.study()
        (folder / "config/models.yaml").open("a").write(TINY_MODEL)
        self.run("git", "init", "-q", warm_start=False)
        self.commit()

    def study(self, study: str = "demo", **differences: Any) -> None:
        """Write params.yaml from differences to the defaults; sections replace those of SMALL."""
        (self.folder / "params.yaml").write_text(
            render_params(with_derived_keys({"study": study} | SMALL | differences))
        )

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """A checkout that is there already."""
        project = cls.__new__(cls)
        project.folder = folder
        return project

    def copy(self, folder: Path) -> "Project":
        """A copy, results and engines' records included, with all that git knows committed."""
        shutil.copytree(self.folder, folder, symlinks=True)
        copy = Project.at(folder)
        copy.commit()
        return copy

    def equip(self) -> None:
        """The environment that `make` would make; to activate it changes nothing here."""
        (self.folder / ".venv/bin").mkdir(parents=True)
        (self.folder / ".venv/bin/activate").touch()

    def clone(self, folder: Path) -> "Project":
        """What a colleague gets from git."""
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        return Project.at(folder)

    def commit(self) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "-A", warm_start=False)
        self.run("git", "commit", "-q", "--allow-empty", "-m", "t", warm_start=False)

    def command(self, name: str, *options: str, **kwargs) -> str:
        return self.run("singflow", name, *options, **kwargs).stdout

    def make(self, *words: str, **kwargs) -> subprocess.CompletedProcess[str]:
        """Run `make`, which takes its environments for finished."""
        return self.run("make", *MADE, *words, **kwargs)

    def shell(self, commands: str, **kwargs) -> str:
        """Run commands of a page, as a reader types them."""
        make = f'make() {{ command make {" ".join(MADE)} "$@"; }}\n'
        return self.run("bash", "-euc", make + commands, **kwargs).stdout

    def edit(self, name: str, pattern: str, replacement: str) -> None:
        path = self.folder / name
        text, count = re.subn(
            pattern, lambda _: replacement, path.read_text(), count=1, flags=re.DOTALL
        )
        assert count == 1, f"{pattern!r} is not in {name}"
        path.write_text(text)

    def environment(self, warm_start: bool | None = None, **variables: str) -> dict[str, str]:
        """Environment variables of a program that is started here.

        `warm_start`: whether the tests' server starts it; None: as the project says.
        """
        outer = {name: os.environ[name] for name in os.environ.keys() - MAKES}
        ours = {"PYTHONPATH": str(self.folder / "src"), "HF_HUB_OFFLINE": "1", "COLUMNS": "1000"}
        if self.warm if warm_start is None else warm_start:
            started = warm.environment(**{n: v for n, v in variables.items() if n in LOADING})
        else:
            started = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return outer | AUTHOR | started | ours | variables

    def run(
        self,
        *command: str,
        check: bool = True,
        warm_start: bool | None = None,
        patience: float | None = PATIENCE,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        started = {"cwd": self.folder, "env": self.environment(warm_start, **environment)}
        started |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, timeout=patience, **started)
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def refused(self, *command: str, **kwargs) -> str:
        """What a command says that fails without a traceback."""
        done = self.run(*command, check=False, **kwargs)
        assert done.returncode == FAILED.get(command[0], 1), done.stdout[-6000:]
        assert "Traceback" not in done.stdout
        return done.stdout

    def snakemake(self, *options: str, **kwargs) -> str:
        return self.run("snakemake", "--cores", "2", *options, **kwargs).stdout

    def dvc(self, *options: str, **kwargs) -> str:
        return self.run("dvc", *options, **kwargs).stdout

    def artifacts(self) -> dict[str, bytes]:
        return artifacts_of(self.folder / "results/demo")

    def differs(self, other: "Project | dict[str, bytes]") -> set[str]:
        """Names of the artifacts of which one side has none, or other bytes."""
        ours, theirs = self.artifacts(), other if isinstance(other, dict) else other.artifacts()
        return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}

    def planned(self, *targets: str, direct: bool = True) -> set[str]:
        """Jobs that Snakemake would start. `direct`: not those caused by an earlier job."""
        jobs = set()
        said = self.snakemake("--dry-run", *targets)
        for block in re.split(r"\n(?=(?:local)?rule )", said)[1:]:
            name = re.match(r"(?:local)?rule (\w+):", block)[1]
            reasons = re.search(r"reason: (.*)", block)[1].split("; ")
            wildcards = re.search(r"wildcards: (.*)", block)
            values = [part.split("=")[1] for part in wildcards[1].split(", ")] if wildcards else []
            if name != "all" and not (
                direct
                and all(part.startswith("Input files updated by another job") for part in reasons)
            ):
                jobs.add(_named(name, values))
        return jobs

    def lock(self) -> str:
        """What DVC has recorded."""
        return (self.folder / "dvc.lock").read_text()

    @staticmethod
    def ran_by_dvc(said: str) -> list[str]:
        """Stages that DVC ran, by what it said."""
        return re.findall(r"Running stage '(.*)'", said)

    def changed(self) -> set[str]:
        """Stages that DVC calls changed."""
        return {*json.loads(self.dvc("status", "--json").strip().splitlines()[-1])}


def _named(name: str, values: list[str]) -> str:
    return "@".join([name, *(["-".join(sorted(values))] if values else [])])

"""The project as tests see it, and copies of it in which they run its engines."""

import atexit
import compileall
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from singflow.config.reading import read_yaml
from singflow.engines.acceptance import render_accepted
from singflow.engines.code import ACCEPTED, FILE, KEPT, Code
from singflow.engines.stages import FIRST
from singflow.study import render_params, with_derived_keys
from tests import PATIENCE, warm

CHECKOUT = Path(__file__).parents[1]
ELSEWHERE = (
    "HOME",
    "MPLCONFIGDIR",
    "LC_ALL",
    "TZ",
    "PYTHONHASHSEED",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
LOADING = (
    "HF_HUB_CACHE",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    *ELSEWHERE,
)  # read while libraries are loaded
FAULTS = Path(__file__).with_name("faults")
COMMAND = r"python (?:scripts/|-m singflow\.figures).*"  # of a step, in what an engine prints
CODE = (
    "src/",
    "scripts/",
    "rules/",
    "tests/",
    "benchmarks/",
    "docs/",
    "report/",
)  # where a file that git does not know yet counts
SMALL: dict[str, Any] = {  # differences of a study that takes seconds
    "models": ["efficientnet_lite0", "tiny"],
    "extraction": {"views": 2, "shards": 2},
    "controls": {"max_draws": 5},
    "evidence": {"draws": 4},
    "training": {"epochs": 3},
    "summary": {"resamples": 200},
}
TINY_MODEL = """
tiny:
  source: timm
  id: test_resnet.r160_in1k
  weights: random
  parameters_m: 0.5
  gmacs: 0.1
"""


def _files() -> list[str]:
    """The project's own files in this checkout: not what its user made of it."""

    def listed(*which: str) -> list[str]:
        command = ["git", "ls-files", *which, "--exclude-standard"]
        return subprocess.run(
            command, cwd=CHECKOUT, check=True, capture_output=True, text=True
        ).stdout.splitlines()

    if not (CHECKOUT / ".git").exists():  # as where mutants are tried
        return [str(path.relative_to(CHECKOUT)) for path in CHECKOUT.rglob("*")]
    known = [
        name
        for name in listed("-c")
        if not name.startswith("results/") and name != "dvc.lock" and not name.endswith(".dvc")
    ]
    return [*known, *(name for name in listed("-o") if name.startswith(CODE))]


def _copy(source: Path, names: list[str], folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, folder / name)


def _pristine() -> Path:
    """A folder with the project as users get it, made once per test run; files listed beside."""
    if "SINGFLOW_PRISTINE" in os.environ:
        return Path(os.environ["SINGFLOW_PRISTINE"])
    around = Path(tempfile.mkdtemp(prefix="singflow-tests-"))
    atexit.register(shutil.rmtree, around, ignore_errors=True)
    folder = around / "project"
    os.environ["SINGFLOW_PRISTINE"] = str(folder)
    names = sorted({*filter(lambda name: (CHECKOUT / name).is_file(), _files()), "params.yaml"})
    (around / "files").write_text("\n".join(names))
    _copy(CHECKOUT, names, folder)
    (folder / "params.yaml").write_text(
        render_params(with_derived_keys(read_yaml(folder / "config/studies/demo.yaml")))
    )
    studies = [
        with_derived_keys(read_yaml(path)) for path in (folder / "config/studies").glob("*.yaml")
    ]
    for kind in (
        "models",
        "spaces",
    ):  # a user's own entries stand beside those of the project's studies
        named, registry = (
            {name for study in studies for name in study[kind]},
            folder / f"config/{kind}.yaml",
        )
        entries = re.split(r"^(?=[^\s#])", registry.read_text(), flags=re.MULTILINE)
        registry.write_text(
            "".join(
                entry
                for entry in entries
                if entry.startswith("#") or entry.partition(":")[0] in named
            )
        )
    (folder / ACCEPTED).write_text(render_accepted({}))
    remotes = re.split(r"^(?=\[)", (folder / ".dvc/config").read_text(), flags=re.MULTILINE)
    local = "".join(
        part
        for part in remotes
        if not part.startswith("['remote") or "local" in part.splitlines()[0]
    )
    (folder / ".dvc/config").write_text(
        re.sub(r"^(    remote = ).*", r"\g<1>local", local, flags=re.MULTILINE)
    )
    compileall.compile_dir(
        folder / "src", quiet=1
    )  # else every program would, where Python is told to write no bytecode
    Code(folder).computed()  # which keeps the digests of all code for every copy
    return folder


ROOT = _pristine()
FILES = (
    (ROOT.parent / "files").read_text().splitlines()
)  # without what programs that ran there left
PROMPTS = (
    ROOT.parent / "prompts"
)  # embedded texts, which every project finds again by their content
PROMPTS.mkdir(exist_ok=True)
COMPILED = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.pyc")]


def without(part: str) -> NoReturn:
    """Skip a test for want of a part of the machine; where CI is set, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{part} (.ci/run names the packages)")


class Project:
    """A copy of the project as a repository of its own, with a study small enough to run."""

    warm = True  # whether the server of the tests (warm/) starts programs where a call does not say

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _copy(ROOT, [*FILES, *COMPILED, str(KEPT)], folder)
        self.study()
        (folder / "config/models.yaml").open("a").write(TINY_MODEL)
        (folder / ".cache/prompts").symlink_to(PROMPTS)
        for command in (
            "git init -q",
            "git add -A",
            "git -c user.name=t -c user.email=t@example.org commit -qm t",
        ):
            subprocess.run(command.split(), cwd=folder, check=True)

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
        """The environment that `make` would make, of programs by the tests' server."""
        programs = self.folder / ".venv/bin"
        programs.mkdir(parents=True)
        ours = self.environment()["PATH"]
        for path in (Path(sys.prefix) / "bin").iterdir():
            (programs / path.name).symlink_to(shutil.which(path.name, path=ours) or path)
        activate = programs / "activate"
        activate.unlink()
        activate.write_text(
            (Path(sys.prefix) / "bin/activate")
            .read_text()
            .replace(sys.prefix, str(programs.parent))
        )
        for stamp in ("demo", "workflow", "test"):
            (programs.parent / stamp).touch()

    def clone(self, folder: Path) -> "Project":
        """What a colleague gets from git."""
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        return Project.at(folder)

    def commit(self) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "-A")
        self.run(
            "git",
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "t",
        )

    def command(self, name: str, *options: str, **kwargs) -> str:
        return self.run("singflow", name, *options, **kwargs).stdout

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
        outer = {
            name: value
            for name, value in os.environ.items()
            if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        }
        cold = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        loading = {name: value for name, value in variables.items() if name in LOADING}
        started = (
            warm.environment(**loading)
            if (self.warm if warm_start is None else warm_start)
            else cold
        )
        ours = {"PYTHONPATH": str(self.folder / "src"), "HF_HUB_OFFLINE": "1", "COLUMNS": "1000"}
        return outer | started | ours | variables

    def run(
        self,
        *command: str,
        check: bool = True,
        warm_start: bool | None = None,
        patience: float | None = PATIENCE,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        variables = self.environment(warm_start, **environment)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def killed(self, *command: str, fault: dict[str, Any]) -> str:
        """Run a command until `fault` kills it (faults/sitecustomize.py); its output.

        `cold` in `fault`: the programs are new processes, as is needed where one of them is to go
        on without the others.
        """
        once = self.folder / ".snakemake/fault"
        once.parent.mkdir(exist_ok=True)
        once.touch()
        order = {"nth": 1, "cut": "", "orphans": False, "cold": False, "once": str(once)} | fault
        variables = self.environment(warm_start=not (order["cold"] or order["orphans"]))
        variables |= {
            "PYTHONPATH": f"{variables['PYTHONPATH']}:{FAULTS}",
            "FAULT": json.dumps(order),
        }
        variables |= {"SINGFLOW_WARM_FIRST": str(FAULTS / "sitecustomize.py")}
        with tempfile.TemporaryFile(
            "w+"
        ) as said:  # a pipe ends when all have, which some are not to
            out = said if order["orphans"] else subprocess.PIPE
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=variables,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            told = process.communicate(timeout=PATIENCE)[0]
            said.seek(0)
            told = said.read() if told is None else told
        assert process.returncode == -signal.SIGKILL and not once.exists(), (
            f"{command} was not killed at {fault}:\n{told[-6000:]}"
        )
        return told

    def snakemake(self, *options: str, **kwargs) -> str:
        return self.run("snakemake", "--cores", "2", *options, **kwargs).stdout

    def dvc(self, *options: str, **kwargs) -> str:
        return self.run("dvc", *options, **kwargs).stdout

    def artifacts(self) -> dict[str, bytes]:
        results = self.folder / "results/demo"
        skipped = ("logs", "benchmarks")
        return {
            str(p.relative_to(results)): p.read_bytes()
            for p in results.rglob("*")
            if p.is_file() and p.relative_to(results).parts[0] not in skipped
        }

    def planned(self, *, direct: bool = True) -> set[str]:
        """Jobs that Snakemake would start. `direct`: not those caused by an earlier job."""
        jobs = set()
        for block in re.split(r"\n(?=(?:local)?rule )", self.snakemake("--dry-run"))[1:]:
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

    @staticmethod
    def ran_by_dvc(said: str) -> list[str]:
        """Stages that DVC ran, by what it said, but for the one that always runs."""
        return [stage for stage in re.findall(r"Running stage '(.*)'", said) if stage != FIRST]

    def changed(self) -> set[str]:
        """Stages that DVC calls changed, except the one that always runs, as in planned()."""
        self.run(
            "python", f"scripts/{FIRST}.py", "--params", "params.yaml", "--output", str(FILE)
        )  # as the stage does
        stages = json.loads(self.dvc("status", "--json").strip().splitlines()[-1])
        names = [
            re.sub(r"@study$|-(?:steering|controls|translator)0(?=-|$)", "", stage).partition("@")
            for stage in stages
        ]
        return {
            _named(name, values.split("-") if values else [])
            for name, _, values in names
            if name != FIRST
        }


def _named(name: str, values: list[str]) -> str:
    return "@".join([name, *(["-".join(sorted(values))] if values else [])])

"""A copy of the project in which tests run its engines."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY_MODEL = """
tiny:
  source: timm
  id: test_resnet.r160_in1k
  weights: random
  parameters_m: 0.5
  gmacs: 0.1
"""


class Project:
    """A copy of the working tree as a repository of its own, with a study small enough to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.edit("params.yaml", r"models:.*?(?=spaces:)", "models:\n  - efficientnet_lite0\n  - tiny\n")
        self.edit("params.yaml", r"threads: \d+", "threads: 1")
        self.edit("params.yaml", r"views: \d+", "views: 2")
        self.edit("params.yaml", r"shards: 1 ", "shards: 2 ")
        self.edit("params.yaml", r'shard_ids: \["00000"\]', 'shard_ids: ["00000", "00001"]')
        self.edit("params.yaml", r"resamples: \d+", "resamples: 200")
        self.edit("params.yaml", r"max_draws: \d+", "max_draws: 5")
        self.edit("params.yaml", r"epochs: \d+", "epochs: 3")
        (folder / "models.yaml").open("a").write(TINY_MODEL)
        for command in ("git init -q", "git add -A", "git -c user.name=t -c user.email=t@example.org commit -qm t"):
            subprocess.run(command.split(), cwd=folder, check=True)

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

    def clone(self, folder: Path) -> "Project":
        """What a colleague gets from git."""
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        return Project.at(folder)

    def commit(self) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "t")

    def script(self, name: str, *options: str, **kwargs) -> str:
        return self.run("python", f"scripts/{name}.py", *options, **kwargs).stdout

    def edit(self, name: str, pattern: str, replacement: str) -> None:
        path = self.folder / name
        text, count = re.subn(pattern, lambda _: replacement, path.read_text(), count=1, flags=re.DOTALL)
        assert count == 1, f"{pattern!r} is not in {name}"
        path.write_text(text)

    def environment(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        return outer | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "1000",
        }

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = self.environment() | environment
        done = subprocess.run(
            command, cwd=self.folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3600
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

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
        """Jobs that Snakemake would start; direct: for a reason of their own, not because an earlier job does."""
        jobs = set()
        for block in re.split(r"\n(?=(?:local)?rule )", self.snakemake("--dry-run"))[1:]:
            name = re.match(r"(?:local)?rule (\w+):", block)[1]
            reasons = re.search(r"reason: (.*)", block)[1].split("; ")
            wildcards = re.search(r"wildcards: (.*)", block)
            values = [part.split("=")[1] for part in wildcards[1].split(", ")] if wildcards else []
            if name != "all" and not (direct and all(part.startswith("Input files updated by another job") for part in reasons)):
                jobs.add(_named(name, values))
        return jobs

    def changed(self) -> set[str]:
        """Stages that DVC calls changed, named as planned() names them."""
        stages = json.loads(self.dvc("status", "--json").strip().splitlines()[-1])
        names = [stage.removesuffix("@study").removesuffix("-steering0").partition("@") for stage in stages]
        return {_named(name, values.split("-") if values else []) for name, _, values in names}


def _named(name: str, values: list[str]) -> str:
    return "@".join([name, *(["-".join(sorted(values))] if values else [])])

"""The workflow, called from other folders and by other workflows."""

import os
import re
import subprocess
import textwrap

import pytest

from tests import warm
from tests.project import ROOT

PAGE = (ROOT / "docs/installation.md").read_text(encoding="utf-8")
PLACE = "/data/singflow"


def snakemake(folder, *options, **variables):
    folder.mkdir(exist_ok=True)
    known = os.environ | warm.environment() | {"PYTHONPATH": f"{ROOT}/src"} | variables
    return subprocess.run(
        ["snakemake", *options],
        cwd=folder,
        env=known,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--snakefile", f"{ROOT}/Snakefile"],
        ["--snakefile", f"{ROOT}/Snakefile", "--directory", "there"],
    ],
)
def test_another_folder_is_refused_with_the_option_that_is_needed(tmp_path, options):
    done = snakemake(tmp_path / "elsewhere", "--dry-run", *options)
    assert (
        done.returncode == 1
        and f"works in its own folder, not in {tmp_path}/elsewhere" in done.stdout
    ), done.stdout
    assert f"add `--directory {ROOT}`" in done.stdout and "Traceback" not in done.stdout


def test_a_module_of_it_is_refused_with_what_to_do(tmp_path):
    uses = (
        f'module sing:\n    snakefile: "{ROOT}/Snakefile"\n    config: config\n'
        "use rule * from sing as sing_*\n"
    )
    (tmp_path / "Snakefile").write_text(uses)
    done = snakemake(tmp_path, "--dry-run")
    assert (
        done.returncode == 1
        and f"{ROOT} is no module" in done.stdout
        and "docs/installation.md" in done.stdout
    ), done.stdout


BARE = """
import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if not Path(path, "singflow").is_dir()]
"""


def test_a_snakemake_without_the_package_lints_and_says_so_before_a_run(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    linted, refused = (
        snakemake(tmp_path, option, "-s", f"{ROOT}/Snakefile", "--directory", str(ROOT), **bare)
        for option in ("--lint", "--dry-run")
    )
    assert linted.returncode == 0 and "in a good condition" in linted.stdout, linted.stdout
    said = f"singflow is not installed beside this snakemake: run `make workflow` in {ROOT}"
    assert refused.returncode == 1 and said in refused.stdout and "Traceback" not in refused.stdout


def test_the_page_s_rule_of_another_workflow_runs_a_study_here(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "checkout")
    (rule,) = re.findall(r"```\n(rule sing:.*?)```", PAGE, flags=re.DOTALL)
    (command,) = re.findall(r"```sh\n(snakemake -s .*)\n```", PAGE)
    assert command.removesuffix("all") in textwrap.dedent(rule).replace("--configfile {input} ", "")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "Snakefile").write_text(
        rule.replace(PLACE, str(project.folder)).replace("results/mine", "results/demo")
    )
    (theirs / "mine.yaml").write_text("study: demo\n")
    done = snakemake(theirs, "--cores", "2", **project.environment())
    assert done.returncode == 0 and (project.folder / "results/demo/report.html").is_file(), (
        done.stdout
    )
    assert re.findall(r"^write_report +(\d)", done.stdout, flags=re.MULTILINE) == ["1"]

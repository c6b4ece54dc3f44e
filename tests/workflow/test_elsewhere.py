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


def test_a_snakemake_without_the_package_says_so(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['singflow'] = None\n")
    anew = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = snakemake(
        tmp_path, "--dry-run", "-s", f"{ROOT}/Snakefile", "--directory", str(ROOT), **anew
    )
    assert (
        done.returncode == 1
        and f"singflow is not installed beside this snakemake: run `make workflow` in {ROOT}"
        in done.stdout
    )


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

"""The workflow, called from other folders and by other workflows."""

import os
import re
import textwrap

import pytest

from tests.project import ROOT, Project, blocks

PAGE = (ROOT / "docs/installation.md").read_text(encoding="utf-8")
SNAKEFILE = f"{ROOT}/Snakefile"
BARE = """
import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if not Path(path, "singflow").is_dir()]
"""


def snakemake(folder, *options, **variables):
    """Exit status, and what Snakemake says in a folder of another project."""
    folder.mkdir(exist_ok=True)
    known = {"PYTHONPATH": f"{ROOT}/src"} | variables
    done = Project.at(folder).run("snakemake", *options, check=False, **known)
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [[], ["--directory", "there"]])
def test_another_folder_is_refused_with_the_option_that_is_needed(tmp_path, options):
    here = tmp_path / "elsewhere"
    status, said = snakemake(here, "--dry-run", "--snakefile", SNAKEFILE, *options)
    assert status == 1 and f"works in its own folder, not in {here}" in said, said
    assert f"add `--directory {ROOT}`" in said


def test_a_module_of_it_is_refused_with_what_to_do(tmp_path):
    uses = f'module sing:\n    snakefile: "{SNAKEFILE}"\n    config: config\n'
    (tmp_path / "Snakefile").write_text(f"{uses}use rule * from sing as sing_*\n")
    status, said = snakemake(tmp_path, "--dry-run")
    assert status == 1 and f"{ROOT} is no module" in said and "docs/installation.md" in said, said


def test_a_snakemake_without_the_package_lints_and_says_so_before_a_run(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    options = ("-s", SNAKEFILE, "--directory", str(ROOT))
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    status, said = snakemake(tmp_path, "--lint", *options, **bare)
    assert status == 0 and "in a good condition" in said, said
    status, said = snakemake(tmp_path, "--dry-run", *options, **bare)
    missing = f"singflow is not installed beside this snakemake: run `make workflow` in {ROOT}"
    assert status == 1 and missing in said


def test_the_page_s_rule_of_another_workflow_runs_a_study_here(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "checkout")
    (rule,) = re.findall(r"```\n(rule sing:.*?)```", PAGE, flags=re.DOTALL)
    (command,) = [block.strip() for block in blocks(PAGE) if block.startswith("snakemake -s ")]
    assert command.removesuffix("all") in textwrap.dedent(rule).replace("--configfile {input} ", "")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    rule = rule.replace("/data/singflow", str(project.folder)).replace(
        "results/mine", "results/demo"
    )
    (theirs / "Snakefile").write_text(rule)
    (theirs / "mine.yaml").write_text("study: demo\n")
    status, said = snakemake(theirs, "--cores", "2", PYTHONPATH=f"{project.folder}/src")
    assert status == 0 and (project.folder / "results/demo/report.html").is_file(), said
    assert re.findall(r"^write_report +(\d)", said, flags=re.MULTILINE) == ["1"]

"""Analyses are taken out of a checkout with a finished study, as CONTRIBUTING.md says."""

import re

import pytest
import yaml

from tests.project import ROOT

OWN = {  # section of params.yaml, and other names of the analysis
    "rank_curve": ("rank_curve", "rank_curves"),
    "unusual": ("null_energy", "unusual"),
    "probes": ("probe", "probes", "probe_principal", "fig12"),
}


def take_out(project, analysis):
    """Delete the files of an analysis, its lines in study.py, and its section of the study."""
    section, *others = OWN[analysis]
    names = {analysis, *others}
    stems = names | {f"{verb}_{name}" for verb in ("measure", "tabulate", "plot") for name in names}
    tracked = project.run("git", "ls-files", "scripts", "rules", "report", "src").stdout.split()
    gone = [name for name in tracked if name.rpartition("/")[2].partition(".")[0] in stems]
    for name in gone:
        (project.folder / name).unlink()
    for line in (rf"from singflow\.analyses\.{analysis} import \w+\n", rf"    {section}: \w+\n"):
        project.edit("src/singflow/study.py", line, "")
    params = project.folder / "params.yaml"
    study = yaml.safe_load(params.read_text())
    del study[section]
    params.write_text(yaml.safe_dump(study, sort_keys=False))
    project.run("python", "-m", "singflow.engines.stages")
    project.command("study", "params.yaml")
    return gone


@pytest.fixture(scope="module")
def reduced(published, tmp_path_factory):
    return published.copy(tmp_path_factory.mktemp("removed") / "checkout")


@pytest.mark.parametrize("analysis", OWN)
def test_an_analysis_leaves_by_its_files_and_its_lines_in_one_list(reduced, analysis):
    before, gone = reduced.artifacts(), take_out(reduced, analysis)
    folders = {name.rpartition("/")[0] for name in gone}
    assert {"rules", "scripts", "report/captions", "src/singflow/analyses"} <= folders

    stages = yaml.safe_load((reduced.folder / "dvc.yaml").read_text())["stages"]
    steps = {name.rpartition("/")[2].removesuffix(".py") for name in gone if name.endswith(".py")}
    assert steps & yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].keys()
    assert not steps & stages.keys()
    reduced.snakemake("--lint")
    planned = reduced.planned(direct=False)
    assert {"resolve_study", "write_report"} <= planned <= stages.keys()  # no job of a model
    reduced.snakemake()
    summary = {"metrics.json", "tables/models.csv"} if analysis == "unusual" else set()
    assert reduced.differs(before) == {"report.html", "params.yaml"} | summary
    page = reduced.artifacts()["report.html"].decode()
    assert not {*OWN[analysis]} & set(re.findall(r'(?:data-table|option value)="(\w+)"', page))

"""Analyses are taken out of a checkout with a finished study, as CONTRIBUTING.md says."""

import re

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


def test_an_analysis_leaves_by_its_files_and_its_lines_in_one_list(published, tmp_path):
    project = published.copy(tmp_path / "checkout")
    before, known = project.artifacts(), yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for analysis in OWN:
        gone = take_out(project, analysis)
        folders = {name.rpartition("/")[0] for name in gone}
        assert {"rules", "scripts", "report/captions", "src/singflow/analyses"} <= folders
        stages = yaml.safe_load((project.folder / "dvc.yaml").read_text())["stages"]
        files = [name.rpartition("/")[2] for name in gone if name.endswith(".py")]
        steps = {name.removesuffix(".py") for name in files}
        assert steps & known.keys() and not steps & stages.keys(), analysis
        planned = project.planned(direct=False)
        assert {"resolve_study", "write_report"} <= planned <= stages.keys()  # no job of a model
    project.snakemake("--lint")
    project.snakemake()
    changed = {"report.html", "params.yaml", "metrics.json", "tables/models.csv"}
    assert project.differs(before) == changed
    page = project.artifacts()["report.html"].decode()
    names = {name for own in OWN.values() for name in own}
    assert not names & set(re.findall(r'(?:data-table|option value)="(\w+)"', page))

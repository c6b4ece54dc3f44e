"""`make demo` killed at every distinct moment and restarted: nothing is lost or locked."""

import platform
import re
import subprocess
import time

import pytest

DEMO = ["make", "-o", ".venv/demo", "demo"]
FIGURES = "plot_concepts"  # a step that writes two files, after which the page is written
FIGURE = ["figures/fig5.png", "figures/fig5.pdf"]
# Program, event, path and more of each, found by listing every change of a file that the engine and
# these steps make (EVENTS of faults/sitecustomize.py).
ENGINE, LOCK, PNG, PDF = "snakemake", "locks/0.output.lock", r"/\.fig5\.png", r"/\.fig5\.pdf"
GOES_ON, SECOND, COLD = {"orphans": True}, {"nth": 2}, {"cold": True}
HALF_PNG = {"cut": "results/demo/figures/.fig5.png.*"}
HALF_PAGE = {"cut": "results/demo/.report.html.*"}
HALF_RECORD = {"cut": ".snakemake/metadata/*"}
MOMENTS = {
    "between the locks": (ENGINE, "open", LOCK, {}),
    "between the marks of a job that began": (ENGINE, "open", "/incomplete/", SECOND),
    "before a file is written": (FIGURES, "open", PNG, {}),
    "before a file is written, and its step goes on": (FIGURES, "open", PNG, GOES_ON),
    "within the write of a file": (FIGURES, "os.rename", PNG, HALF_PNG),
    "between two files of a step": (FIGURES, "open", PDF, {}),
    "within the last file, and its step goes on": (FIGURES, "os.rename", PDF, GOES_ON),
    "after the last file of a step": (FIGURES, "os.remove", PDF, {}),
    "before the record of a job": (ENGINE, "open", "/metadata/", {}),
    "between the records of a job": (ENGINE, "open", "/metadata/", SECOND),
    "within the record of a job": (ENGINE, "os.remove", "/incomplete/", HALF_RECORD),
    "within the page": ("write_report", "os.rename", r"/\.report\.html", HALF_PAGE),
    "when all is done, between the locks": (ENGINE, "os.remove", LOCK, COLD),
}
FEW = ["within the write of a file", "between two files of a step"]
WAIT = "import os\n\nos.system('touch began; until test -e go; do sleep 0.1; done')\n\n\n"


def temporary_files(project):
    return [path for path in (project.folder / "results").rglob(".*") if path.is_file()]


@pytest.mark.parametrize("moments", [FEW, pytest.param([*MOMENTS], marks=pytest.mark.nightly)])
def test_the_demo_killed_at_any_moment_ends_in_the_artifacts_of_an_undisturbed_one(
    snakemake_project, tmp_path, moments
):
    whole = snakemake_project.artifacts()
    project = snakemake_project.copy(tmp_path / "chaos")
    results = project.folder / "results/demo"
    for moment in moments:
        program, event, path, more = MOMENTS[moment]
        last = [results / name for name in (*FIGURE, "report.html")]
        if all(file.exists() for file in last):
            for file in last[:2]:
                file.unlink()
        project.killed(*DEMO, fault={"program": program, "event": event, "path": path} | more)
        # Files of the whole study alone are read: a step that goes on has others, and removes them.
        made = [name for name in whole if (results / name).exists()]
        half = [n for n in made if (results / n).read_bytes() != whole[n]]
        assert half == [], moment
    project.run(*DEMO)
    assert project.artifacts() == whole
    assert temporary_files(project) == []
    assert "Nothing to be done" in project.snakemake("--dry-run")


@pytest.mark.nightly
def test_a_lock_that_a_killed_demo_of_this_machine_did_not_leave_is_respected(
    snakemake_project, tmp_path
):
    project = snakemake_project.copy(tmp_path / "locked")
    project.edit("params.yaml", "extremes: 8", "extremes: 7")
    locks, owner = (project.folder / ".snakemake" / name for name in ("locks", "run"))
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/demo/figures/fig5.png\n")
    for name in (None, f"not-{platform.node()}"):
        if name:
            owner.write_text(name)
        assert "Directory cannot be locked" in project.refused(*DEMO)
    owner.write_text(platform.node())
    assert "going on where it stopped" in project.run(*DEMO).stdout and not owner.exists()


ENGINES = {
    "Snakemake": ["snakemake", "--cores", "2", "results/demo/figures/fig5.png"],
    "DVC": ["dvc", "repro", "--single-item", "plot_concepts@study"],
}


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ENGINES)
def test_a_study_is_refused_while_an_engine_is_at_work_on_it(snakemake_project, tmp_path, engine):
    project = snakemake_project.copy(tmp_path / "twice")
    project.edit("params.yaml", "extremes: 8", "extremes: 7")
    project.edit("src/singflow/figures/plot_concepts.py", "def main", f"{WAIT}def main")
    project.dvc("repro", "--single-item", "check_study")
    variables = project.environment(warm_start=False)  # it is found by its command
    with subprocess.Popen(
        ENGINES[engine], cwd=project.folder, env=variables, stderr=subprocess.DEVNULL
    ) as first:
        while not (project.folder / "began").exists():
            assert first.poll() is None
            time.sleep(0.1)
        others = {"Snakemake": [DEMO, ["dvc", "repro"]], "DVC": [DEMO, ["singflow", "fetch"]]}
        refused = [project.refused(*other) for other in others[engine]]
        (project.folder / "go").touch()
    assert first.returncode == 0
    for said in refused:
        assert re.search(rf"({engine}|`dvc repro`) is at work", said)
        assert f"(process {first.pid})" in said

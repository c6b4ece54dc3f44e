"""`make demo` killed at every distinct moment and restarted: nothing is lost or locked."""

import platform
import re
import subprocess
import time

import pytest

DEMO = ["make", "-o", ".venv/demo", "demo"]
FIGURES = "plot_concepts"  # a step that writes two files, after which the page is written
FIGURE = ["figures/fig5.png", "figures/fig5.pdf"]
# Found by listing every change of a file that the engine and these steps make (EVENTS of
# faults/sitecustomize.py).
MOMENTS = {
    "between the locks": {"program": "snakemake", "event": "open", "path": "locks/0.output.lock"},
    "between the marks of a job that began": {
        "program": "snakemake", "event": "open", "path": "/incomplete/", "nth": 2,
    },
    "before a file is written": {"program": FIGURES, "event": "open", "path": r"/\.fig5\.png"},
    "before a file is written, and its step goes on": {
        "program": FIGURES, "event": "open", "path": r"/\.fig5\.png", "orphans": True,
    },
    "within the write of a file": {
        "program": FIGURES, "event": "os.rename", "path": r"/\.fig5\.png",
        "cut": "results/demo/figures/.fig5.png.*",
    },
    "between two files of a step": {"program": FIGURES, "event": "open", "path": r"/\.fig5\.pdf"},
    "within the last file, and its step goes on": {
        "program": FIGURES, "event": "os.rename", "path": r"/\.fig5\.pdf", "orphans": True,
    },
    "after the last file of a step": {
        "program": FIGURES, "event": "os.remove", "path": r"/\.fig5\.pdf",
    },
    "before the record of a job": {"program": "snakemake", "event": "open", "path": "/metadata/"},
    "between the records of a job": {
        "program": "snakemake", "event": "open", "path": "/metadata/", "nth": 2,
    },
    "within the record of a job": {
        "program": "snakemake", "event": "os.remove", "path": "/incomplete/",
        "cut": ".snakemake/metadata/*",
    },
    "within the page": {
        "program": "write_report", "event": "os.rename", "path": r"/\.report\.html",
        "cut": "results/demo/.report.html.*",
    },
    "when all is done, between the locks": {
        "program": "snakemake", "event": "os.remove", "path": "locks/0.output.lock", "cold": True,
    },
}  # fmt: skip


WAIT = "import os\n\nos.system('touch began; until test -e go; do sleep 0.1; done')\n\n\n"


def temporary_files(project):
    return [path for path in (project.folder / "results").rglob(".*") if path.is_file()]


def test_the_demo_killed_at_any_moment_ends_in_the_artifacts_of_an_undisturbed_one(
    snakemake_project, tmp_path
):
    whole = snakemake_project.artifacts()
    project = snakemake_project.copy(tmp_path / "chaos")
    for moment, fault in MOMENTS.items():
        last = [project.folder / "results/demo" / name for name in (*FIGURE, "report.html")]
        if all(path.exists() for path in last):
            for path in last[:2]:
                path.unlink()
        project.killed(*DEMO, fault=fault)
        held = project.artifacts()
        half = [name for name in held.keys() & whole.keys() if held[name] != whole[name]]
        assert half == [], moment
    project.run(*DEMO)
    assert project.artifacts() == whole
    assert temporary_files(project) == []
    assert "Nothing to be done" in project.snakemake("--dry-run")


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
        refused = project.run(*DEMO, check=False)
        assert refused.returncode != 0 and "Directory cannot be locked" in refused.stdout
    owner.write_text(platform.node())
    assert "going on where it stopped" in project.run(*DEMO).stdout and not owner.exists()


ENGINES = {
    "Snakemake": ["snakemake", "--cores", "2", "results/demo/figures/fig5.png"],
    "DVC": ["dvc", "repro", "--single-item", "plot_concepts@study"],
}


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
        refused = [project.run(*other, check=False) for other in others[engine]]
        (project.folder / "go").touch()
    assert first.returncode == 0
    for other in refused:
        assert other.returncode != 0
        assert re.search(rf"({engine}|`dvc repro`) is at work", other.stdout)
        assert f"(process {first.pid})" in other.stdout

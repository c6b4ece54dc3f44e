"""`make demo` killed at every distinct moment, unlocked and restarted: nothing is lost."""

import pytest

DEMO = ["make", "-o", ".venv/demo", "demo"]
FIGURES = "plot_concepts"  # a step that writes two files, after which the page is written
FIGURE = ["figures/fig5.png", "figures/fig5.pdf"]
# Program, event, path and more of each, found by listing every change of a file that Snakemake and
# these steps make (EVENTS of faults/sitecustomize.py).
ENGINE, LOCK, PNG, PDF = "singflow run", "locks/0.output.lock", r"/\.fig5\.png", r"/\.fig5\.pdf"
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
        assert "cannot be locked" in project.refused(*DEMO)
        project.snakemake("--unlock")
    project.run(*DEMO)
    assert project.artifacts() == whole
    assert temporary_files(project) == []
    assert "Nothing to be done" in project.snakemake("--dry-run")

"""The cost preview on real dry runs of Snakemake."""

import re

import pytest

from tests.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("plan"))


def plan(project, *flags):
    return project.command("plan", *flags)


def rows(output):
    """Jobs to run and in all, by step."""
    found = re.findall(r"^ *([a-z_]+\*?|plot_\*) +(\d+) +(\d+) ", output, flags=re.MULTILINE)
    return {step: (int(jobs), int(every)) for step, jobs, every in found}


@pytest.fixture(scope="module")
def planned(project):
    return plan(project, "--device", "cpu")


def test_a_study_is_planned_before_anything_ran_and_nothing_is_started(project, planned):
    said = project.snakemake("--dry-run")
    counts = re.findall(r"^([a-z_0-9]+) +(\d+) *$", said, flags=re.MULTILINE)
    stats = {step: int(count) for step, count in counts}
    jobs = stats.pop("total") - stats.pop("all")
    plots = [step for step in stats if step.startswith("plot_")]
    expected = stats | {"plot_*": sum(stats[step] for step in plots)}
    found = {step: jobs for step, (jobs, _) in rows(planned).items()}
    assert found == {step: count for step, count in expected.items() if step not in plots}
    assert f"{jobs} of {jobs} jobs to run, 0 done" in planned
    assert "measured" not in planned and not (project.folder / "results").exists()


def test_a_model_without_a_registered_size_is_called_assumed(planned):
    line = next(line for line in planned.splitlines() if " extract_features " in line)
    # Two shards each of efficientnet_lite0 and of tiny.
    assert line.endswith("2 estimated, 2 assumed")


def test_a_gpu_is_reckoned_with_when_asked_for(project, planned):
    with_one = plan(project, "--device", "cuda")
    assert "0.0 GPU-hours" in planned and "GPU-hours" in with_one
    assert " GPU " not in planned.split("core hours", 1)[1].split("jobs to run")[0]
    assert " GPU " in with_one.split("core hours", 1)[1]


def test_what_is_done_is_not_planned_again(project):
    project.snakemake("results/demo/data/manifest.parquet")
    output = plan(project)
    assert rows(output)["build_manifest"] == (0, 1)
    assert re.search(r" build_manifest .* done$", output, flags=re.MULTILINE)
    assert re.search(r"^\d+ of \d+ jobs to run, 1 done$", output, flags=re.MULTILINE)


def test_a_study_that_is_not_valid_is_refused(project):
    study = (project.folder / "params.yaml").read_text()
    (project.folder / "wrong.yaml").write_text(study.replace("views: 2", "views: 0"))
    refused = project.run("singflow", "plan", "--params", "wrong.yaml", check=False)
    assert refused.returncode == 1 and "wrong.yaml: extraction.views" in refused.stdout

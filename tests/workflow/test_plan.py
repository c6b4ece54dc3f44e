"""The cost preview on real dry runs of Snakemake."""

import re

import pytest

from tests.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("plan"))


def plan(project, *flags):
    return project.run("singflow", "plan", *flags).stdout


def rows(output):
    """Jobs to run and in all, by step."""
    found = re.findall(r"^ *([a-z_]+\*?|plot_\*) +(\d+) +(\d+) ", output, flags=re.MULTILINE)
    return {step: (int(jobs), int(every)) for step, jobs, every in found}


def test_a_study_is_planned_before_anything_ran_and_nothing_is_started(project):
    stats = dict(
        re.findall(r"^([a-z_0-9]+) +(\d+) *$", project.snakemake("--dry-run"), flags=re.MULTILINE)
    )
    output = plan(project)
    expected = {
        step: int(count)
        for step, count in stats.items()
        if not step.startswith("plot_") and step not in ("all", "total")
    }
    expected["plot_*"] = sum(
        int(count) for step, count in stats.items() if step.startswith("plot_")
    )
    assert {step: jobs for step, (jobs, _) in rows(output).items()} == expected
    assert f"{int(stats['total']) - 1} of {int(stats['total']) - 1} jobs to run, 0 done" in output
    assert "measured" not in output and not (project.folder / "results").exists()


def test_a_model_without_a_registered_size_is_called_assumed(project):
    line = next(line for line in plan(project).splitlines() if " extract_features " in line)
    assert line.endswith(
        "2 estimated, 2 assumed"
    )  # two shards each of efficientnet_lite0 and of tiny


def test_a_gpu_is_reckoned_with_when_asked_for(project):
    without, with_one = plan(project, "--device", "cpu"), plan(project, "--device", "cuda")
    assert "0.0 GPU-hours" in without and "GPU-hours" in with_one
    assert (
        " GPU " not in without.split("core hours", 1)[1].split("jobs to run")[0]
        and " GPU " in with_one.split("core hours", 1)[1]
    )


def test_what_is_done_is_not_planned_again(project):
    project.snakemake("results/demo/data/manifest.parquet")
    output = plan(project)
    assert rows(output)["build_manifest"] == (0, 1)
    assert re.search(r" build_manifest .* done$", output, flags=re.MULTILINE)
    assert re.search(r"^\d+ of \d+ jobs to run, 1 done$", output, flags=re.MULTILINE)


def test_a_study_that_is_not_valid_is_refused(project):
    (project.folder / "wrong.yaml").write_text(
        (project.folder / "params.yaml").read_text().replace("views: 2", "views: 0")
    )
    refused = project.run("singflow", "plan", "--params", "wrong.yaml", check=False)
    assert refused.returncode == 1 and "wrong.yaml: extraction.views" in refused.stdout

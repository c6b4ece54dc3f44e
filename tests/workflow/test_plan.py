"""The cost preview on real dry runs of Snakemake."""

import re

from tests.project import Project


def rows(output):
    """Jobs to run and in all, by step."""
    found = re.findall(r"^ *([a-z_]+\*?|plot_\*) +(\d+) +(\d+) ", output, flags=re.MULTILINE)
    return {step: (int(jobs), int(every)) for step, jobs, every in found}


def test_a_study_is_planned_before_anything_ran_and_what_is_done_is_not_planned_again(tmp_path):
    project = Project(tmp_path)
    planned = project.command("plan")
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

    project.snakemake("results/demo/data/manifest.parquet")
    output = project.command("plan")
    assert rows(output)["build_manifest"] == (0, 1)
    assert re.search(r" build_manifest .* done$", output, flags=re.MULTILINE)
    assert re.search(r"^\d+ of \d+ jobs to run, 1 done$", output, flags=re.MULTILINE)

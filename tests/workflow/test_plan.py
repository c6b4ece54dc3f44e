"""The plan of a study, on real dry runs of Snakemake."""

import re

from tests.project import Project


def rows(output):
    """Jobs to run and in all, by step."""
    found = re.findall(r"^([a-z_]+) +(\d+) +(\d+) ", output, flags=re.MULTILINE)
    return {step: (int(jobs), int(every)) for step, jobs, every in found}


def test_a_study_is_planned_before_anything_ran_and_what_is_done_is_not_planned_again(tmp_path):
    project = Project(tmp_path)
    planned = project.command("plan")
    said = project.snakemake("--dry-run")
    counts = re.findall(r"^([a-z_0-9]+) +(\d+) *$", said, flags=re.MULTILINE)
    stats = {step: int(count) for step, count in counts}
    jobs = stats.pop("total") - stats.pop("all")
    assert rows(planned) == {step: (count, count) for step, count in stats.items()}
    assert planned.startswith("Study demo: 20 images, ") and "leak of about" in planned
    assert f"{jobs} of {jobs} jobs to run, 0 done" in planned
    asked = re.findall(r"mem_mb=(\d+)", said)
    assert f"{max(map(int, asked)) / 1e3:.1f} GB of memory asked for the largest job" in planned
    assert not (project.folder / "results").exists()

    project.snakemake("results/demo/data/manifest.parquet", "results/demo/params.yaml")
    output = project.command("plan")
    assert rows(output)["build_manifest"] == (0, 1)
    assert re.search(r"^build_manifest .* done$", output, flags=re.MULTILINE)
    assert re.search(rf"^{jobs - 2} of {jobs} jobs to run, 2 done$", output, flags=re.MULTILINE)
    (project.folder / "results/demo/data/rejected.csv").unlink()
    output = project.command("plan")
    assert re.search(r"^build_manifest +1 +1 +CPU +\d", output, flags=re.MULTILINE)

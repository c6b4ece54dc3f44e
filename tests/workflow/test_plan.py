"""The cost preview on real dry runs of Snakemake."""

import re

import pandas as pd
import pytest

from singflow.translators.reference import PACKAGED
from tests.planning.test_rates import CARD, ROW
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
    head, _, table = planned.partition("\n\n")
    useful = (
        "Study demo: 20 images",
        "leak of about",
        f"{jobs} of {jobs} jobs",
        " core-hours in all",
    )
    useful += (" GB of memory in the largest job, ", " GB to write, ")
    places = [head.find(words) for words in useful]
    assert places[0] == 0 and places == sorted(places), head
    assert table.split("\n", 1)[0].split()[:2] == ["step", "jobs"]
    assert "measured" not in planned and not (project.folder / "results").exists()

    project.snakemake("results/demo/data/manifest.parquet")
    output = project.command("plan")
    assert rows(output)["build_manifest"] == (0, 1)
    assert re.search(r" build_manifest .* done$", output, flags=re.MULTILINE)
    assert re.search(r"^\d+ of \d+ jobs to run, 1 done$", output, flags=re.MULTILINE)


@pytest.mark.nightly
def test_the_hours_of_a_gpu_are_given_at_measured_rates_and_else_as_an_order_of_magnitude(tmp_path):
    project = Project(tmp_path)

    def hours(output, step):
        """GPU hours, core hours and the longest ones of a step, as they are shown."""
        return re.search(rf"^ *{step} .* GPU +(\S+) +(\S+) +(\S+) ", output, re.M).groups()

    planned = project.command("plan", "--device", "cuda")
    towers, others = ("extract_features", "embed_images"), ("train_translator",)
    for step in (*towers, *others):
        assert all(re.fullmatch(r"~(10*|0\.0*1|1e-\d+)", cell) for cell in hours(planned, step))
    left_out = f", without {', '.join((*towers, *others))}: unmeasured\n"
    assert re.search(rf"^[\d.]+ core-hours .*{left_out}", planned, re.M)
    assert re.search(
        r"^~\S+ GPU-hours more: ~ marks an order of magnitude that nobody", planned, re.M
    )
    assert "\nto know these hours: `make bench-gpu` on the card" in planned
    assert "Hours by precision" not in planned

    measuring = project.make("--dry-run", "bench-gpu", "BENCH_GPU=--count 4").stdout
    assert "python benchmarks/gpu.py --count 4" in measuring  # which test_gpu_benchmark runs
    rates = project.folder / "benchmarks/rates.csv"
    # two shards of 10 images, each with two views, in an hour and 5 seconds to start
    pd.DataFrame([ROW | {"gmacs": 0.86, "images_per_s": 20 / 3600}]).to_csv(rates, index=False)
    planned = project.command("plan", "--device", "cuda")
    assert hours(planned, "embed_images") == ("2.00", "16", "1.00")
    assert f", without {', '.join(others)}: unmeasured\n" in planned
    by_precision = planned.partition(
        f"\nHours by precision, at the rates in benchmarks/rates.csv, {CARD}, "
        "8 threads that decode:\n"
    )[2].splitlines()
    assert by_precision[0].split() == ["step", "float32", "tf32", "float16", "bfloat16"]
    assert by_precision[2].split() == ["embed_images", "2.00", "-", "-", "-"]

    named = ["--rates", str(rates.rename(project.folder / "other.csv"))]
    again = project.command("plan", "--device", "cuda", *named)
    assert hours(again, "embed_images") == hours(planned, "embed_images")
    assert f"at the rates in {named[1]}, {CARD}" in again
    said = project.refused("singflow", "plan", "--device", "cpu", *named)
    assert f"error: {named[1]}: has no rates of a CPU" in said


@pytest.mark.nightly
def test_what_is_known_of_a_reference_is_said_before_the_first_step(tmp_path):
    project = Project(tmp_path)
    allowed = f"{PACKAGED} was made in float32, and this study is made in tf32: allowed"
    beside = {"models": ["efficientnet_lite0"], "translator": {"reference": "packaged"}}
    project.study(extraction={"precision": "tf32"}, **beside)
    assert project.command("plan").count(allowed) == 1
    assert project.snakemake("--dry-run").count(allowed) == 1
    done = project.run(
        "python", "scripts/check_study.py", "--params=params.yaml", "--output=x.json"
    )
    assert done.stdout.count(allowed) == 1
    refused = f"{PACKAGED} has features of efficientnet_lite0 with other extraction.decode; "
    project.study(extraction={"decode": "reduced"}, **beside)
    assert all(refused in project.refused("singflow", command) for command in ("plan", "run"))
    assert not (project.folder / "results").exists()

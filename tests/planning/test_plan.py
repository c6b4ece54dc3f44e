import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from singflow.artifacts.tensors import write_tensors
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.planning.calibration import Calibration, read_benchmark
from singflow.planning.costs import ON_GPU, peak_mb, seconds, size_of
from singflow.planning.plan import Job, Planner, cost_table, made_of, parse_jobs
from tests.refusals import refused

LISTING = """Building DAG of jobs...
Job stats:
job                 count
total                   3

[Wed Nov 25 09:19:33 2026]
rule extract_features:
    input: a.json, b.parquet
    output: results/demo/features/timm/resnet18.a1_in1k/shard-00000.safetensors
    jobid: 60
    benchmark: results/demo/benchmarks/extract_features/timm/resnet18.a1_in1k-00000.tsv
    reason: Missing output files: x; Input files updated by another job: y
    wildcards: model=timm/resnet18.a1_in1k, shard=00000
    threads: 2
    resources: tmpdir=/tmp, runtime=17, gpu=1, cpus_per_task=8, mem_mb=11040, mem=11.04 GB
[Wed Nov 25 09:19:33 2026]
rule summarize:
    output: results/demo/tables/models.csv
    benchmark: results/demo/benchmarks/summarize.tsv
    resources: tmpdir=<TBD>, mem_mb=1380, gpu=0
[Wed Nov 25 09:19:33 2026]
rule all:
    input: results/demo/tables/models.csv
    resources: tmpdir=<TBD>
"""
TSV = "s\th:m:s\tmax_rss\tmax_vms\n{}\t0:00:10\t{}\t9\n"
MODEL = "efficientnet_lite0"
STEPS = ["build_manifest", "extract_features", "plot_scores", "plot_labels"]


def test_jobs_are_read_from_a_dry_run():
    results, model = Path("results/demo/benchmarks"), "timm/resnet18.a1_in1k"
    wildcards = {"model": model, "shard": "00000"}
    file = results / f"extract_features/{model}-00000.tsv"
    assert parse_jobs(LISTING) == [
        Job("extract_features", False, True, 2, 8, 11040.0, wildcards, file),
        Job("summarize", True, False, 1, 1, 1380.0, {}, results / "summarize.tsv"),
    ]
    done = "Nothing to be done (all requested files are present and up to date)."
    assert parse_jobs(f"Building DAG of jobs...\n{done}\n") == []
    invalid = "WorkflowError: the study is not valid\n"
    refused(f"it says\n{invalid.strip()}", parse_jobs, invalid)


def test_a_benchmark_file_gives_mean_time_and_highest_peak(tmp_path):
    path = tmp_path / "b.tsv"
    path.write_text("s\tmax_rss\n10\t100\n20\t-\n30\t300\n")
    assert read_benchmark(path) == (20.0, pytest.approx(314.5728))
    path.write_text("s\tmax_rss\n1\tNA\n")
    assert read_benchmark(path) == (1.0, 0.0)
    for content in ("", "s\tmax_rss\n", "s\n1\n", "s\tmax_rss\nfast\t1\n"):
        path.write_text(content)
        refused(r"b\.tsv: not a benchmark file", read_benchmark, path)
    refused("absent", read_benchmark, tmp_path / "absent")


def planner(study, results, gpu=False, known=None, rates=None):
    models = resolve_models("config/models.yaml", study["models"])
    spaces = resolve_spaces("config/spaces.yaml", study["spaces"])
    return Planner(study, models, spaces, results, gpu, known, rates)


def job(results, step, *place, **wildcards):
    """A job with two threads, or on a GPU with eight cores, if its step may have one.

    Its benchmark file lies at `place`, or where the wildcards say.
    """
    file = Path(results, "demo/benchmarks", step, *(place or wildcards.values()))
    gpu, cpus = (True, 8) if step in ON_GPU else (False, 2)
    return Job(step, False, gpu, 2, cpus, 4000.0, wildcards, file.with_name(f"{file.name}.tsv"))


def finish(folder, images, views):
    """What is left of a study of one shard a model: its manifest, and features."""
    (folder / "data").mkdir(parents=True)
    pd.DataFrame({"image_id": range(images)}).to_parquet(folder / "data/manifest.parquet")
    rows = {"image_id": np.zeros(images * views, np.int64)}
    for model in ("efficientnet_lite0", "timm/resnet18.a1_in1k"):
        write_tensors(folder / f"features/{model}/shard-00000.safetensors", rows, {})


def test_nothing_is_measured_before_anything_ran(study, tmp_path):
    extract = job(tmp_path, "extract_features", model=MODEL, shard="00000")
    estimate = planner(study, tmp_path).estimate(extract)
    size = size_of(study, 20, resolve_models("config/models.yaml", [MODEL])[MODEL], None)
    expected = (seconds(extract.step, size), peak_mb(extract.step, size))
    assert (estimate.seconds, estimate.peak_mb, estimate.source) == (*expected, "estimated")
    name = "timm/resnet18.a1_in1k"
    unknown = study | {"models": [name], "comparison": study["comparison"] | {"models": []}}
    extract = job(tmp_path, "extract_features", model=name, shard="00000")
    assert planner(unknown, tmp_path).estimate(extract).source == "assumed"


def test_what_was_measured_on_as_much_is_taken_from_this_study_then_from_others(study, tmp_path):
    assert made_of(tmp_path) is None
    fit = job(tmp_path, "fit_translator", space="conse_minilm", model=MODEL)
    gather = job(tmp_path, "summarize", "x")
    views = study["extraction"]["views"]
    own = {"a": (20, views, 11.0), "b": (20, 1, 12.0), "c": (30, views, 13.0)}
    for name, (images, own_views, taken) in own.items():
        finish(tmp_path / name, images, own_views)
        assert made_of(tmp_path / name) == (images, 1, images * own_views)
        for measured in (fit, gather):
            path = tmp_path / name / measured.benchmark.relative_to(tmp_path / "demo")
            path.parent.mkdir(parents=True)
            path.write_text(TSV.format(taken, 1000))
    estimate = planner(study, tmp_path).estimate(fit)
    assert (estimate.seconds, estimate.source) == (11.0, "measured")
    assert estimate.peak_mb == pytest.approx(1048.576)
    assert planner(study, tmp_path).estimate(gather).source == "estimated"  # it gathers all models
    shutil.copytree(tmp_path / "a", tmp_path / "demo")
    fit.benchmark.write_text(TSV.format(5.0, 1000))
    assert planner(study, tmp_path).estimate(fit).seconds == 5.0
    assert planner(study, tmp_path).estimate(gather).source == "measured"


def test_the_table_adds_up(study, tmp_path):
    step, shard = "extract_features", {"shard": "00000"}
    extract = [job(tmp_path, step, model=model, **shard) for model in study["models"]]
    jobs = [*extract, *(job(tmp_path, step, step) for step in ("plot_scores", "plot_labels"))]
    for gpu in (False, True):
        plan = planner(study, tmp_path, gpu, {step: Calibration(1, 2.0, None)} if gpu else {})
        table = cost_table(jobs[1:], jobs, plan, STEPS).set_index("step")
        assert list(table.index) == ["extract_features", "plot_*"]
        assert list(table["jobs"]) == [3, 2] and list(table["of"]) == [4, 2]
        hours = sum(plan.estimate(one).seconds for one in extract[1:]) / 3600
        assert table.at["extract_features", "GPU hours"] == pytest.approx(hours * gpu)
        cores = 8 if gpu else 2
        assert table.at["extract_features", "core hours"] == pytest.approx(cores * hours)
        assert list(table["on"]) == ["GPU" if gpu else "CPU", "CPU"]
        source = "calibrated" if gpu else "estimated"
        assert list(table["time and memory"]) == [f"3 {source}", "2 estimated"]
    done = cost_table([], jobs, plan, STEPS)
    assert list(done["time and memory"]) == ["done"] * 2
    assert done[["core hours", "disk GB"]].sum().sum() == 0
    plan = planner(study, tmp_path)
    mean = np.mean([plan.estimate(one).seconds for one in extract])
    assert plan.mean_seconds("extract_features") == pytest.approx(mean)

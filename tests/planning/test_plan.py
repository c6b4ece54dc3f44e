import json
from pathlib import Path

import pandas as pd
import pytest

from singflow.config.registry import resolve_models
from singflow.planning.plan import (
    Job,
    Row,
    alike,
    parse_jobs,
    rows_by_step,
    seconds_in,
    step_seconds,
)
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
    benchmark: results/demo/benchmarks/extract_features/timm/resnet18.a1_in1k/00000.tsv
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


def test_jobs_are_read_from_a_dry_run():
    results, model = Path("results/demo/benchmarks"), "timm/resnet18.a1_in1k"
    wildcards = {"model": model, "shard": "00000"}
    file = results / f"extract_features/{model}/00000.tsv"
    assert parse_jobs(LISTING) == [
        Job("extract_features", True, 11040.0, wildcards, file),
        Job("summarize", False, 1380.0, {}, results / "summarize.tsv"),
    ]
    done = "Nothing to be done (all requested files are present and up to date)."
    assert parse_jobs(f"Building DAG of jobs...\n{done}\n") == []
    invalid = "WorkflowError: the study is not valid\n"
    refused(f"it says\n{invalid.strip()}", parse_jobs, invalid)


def test_a_benchmark_file_gives_the_mean_time_and_one_that_is_damaged_none(tmp_path):
    path = tmp_path / "b.tsv"
    path.write_text("s\tmax_rss\n10\t100\n20\t-\n30\t300\n")
    assert seconds_in(path) == 20.0
    for content in ("", "s\tmax_rss\n", "max_rss\n1\n", "max_rss\ts\n1\n", "s\nfast\n", "\0"):
        path.write_text(content)
        assert seconds_in(path) is None
    assert seconds_in(tmp_path / "absent") is None


def job(step, *names):
    file = Path("results/mine/benchmarks", step, *names)
    return Job(step, step == "extract_features", 4000.0, {}, file.with_name(f"{file.name}.tsv"))


def took(study, one, seconds):
    path = Path("results", study, *one.benchmark.parts[2:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:10\t9\n")


def finish(study, images=20, **extraction):
    """What tells how large a finished study was."""
    folder = Path("results", study)
    (folder / "data").mkdir(parents=True)
    pd.DataFrame({"image_id": range(images)}).to_parquet(folder / "data/manifest.parquet")
    content = {"extraction": {"shards": 1, "views": 1} | extraction}
    (folder / "params.yaml").write_text(json.dumps(content))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with results of studies of which some are as large as the study `mine`."""
    monkeypatch.chdir(tmp_path)
    for study in ("zoo", "mine", "ark"):
        finish(study)
    finish("more", images=21)
    finish("shards", shards=2)
    finish("views", views=2)
    Path("results/fetched/tables").mkdir(parents=True)
    Path("results/old").mkdir()
    Path("results/old/params.yaml").write_text("study: old\n")


@pytest.mark.usefixtures("checkout")
def test_studies_are_alike_with_as_many_images_shards_and_views():
    study = {"study": "mine", "extraction": {"shards": 1, "views": 1}}
    assert [folder.name for folder in alike(study, 20)] == ["mine", "ark", "zoo"]
    assert [folder.name for folder in alike(study, 21)] == ["more"]


@pytest.mark.usefixtures("checkout")
def test_a_job_takes_what_it_took_in_a_study_alike_or_else_what_its_step_did():
    a, b, c = (job("extract_features", "timm", name) for name in "abc")
    first, last = job("build_manifest"), job("summarize")
    took("mine", a, 10.0)
    took("ark", a, 500.0)
    took("ark", b, 60.0)
    took("zoo", first, 7.0)
    took("more", last, 9.0)  # it has more images
    folders = [Path("results", name) for name in ("mine", "ark", "zoo")]
    assert rows_by_step([a, b, c, last], [first, a, b, c, last], folders) == [
        Row("build_manifest", 0, 1, False, 0.0, 0, 0),
        Row("extract_features", 3, 3, True, 4000.0, 10 + 60 + (10 + 500 + 60) / 3, 0),
        Row("summarize", 1, 1, False, 4000.0, 0, 1),
    ]
    assert step_seconds(Path("results").glob("*"), "summarize") == 9.0
    assert step_seconds(folders, "extract") is None, "a step with a longer name is another one"


def test_what_a_study_takes_is_printed(capsys, monkeypatch, study):
    from singflow.commands import plan
    from singflow.planning import plan as planning

    model = "efficientnet_lite0"
    jobs = [job("build_manifest"), *(job("extract_features", name) for name in "ab")]
    took_row = Row("extract_features", 2, 2, True, 5400.0, 120.0, 1)
    monkeypatch.setattr(planning, "list_jobs", lambda _, *options: jobs[not options :])
    rows = [Row("build_manifest", 0, 1, False, 0.0, 0, 0), took_row]
    monkeypatch.setattr(planning, "rows_by_step", lambda *_: rows)
    plan.plan()
    head, table = capsys.readouterr().out.split("\n\n")
    useful = ("Study demo: 20 images, 4 models", f"{model}, ", "leak of about", "2 of 3 jobs")
    useful += ("5.4 GB of memory", " on the disk", "2 min of", "the time of 1 jobs")
    places = [head.find(words) for words in useful]
    assert places[0] == 0 and places == sorted(places), head
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["build_manifest", "0", "1", "done"],
        ["extract_features", "2", "2", "GPU", "5.4", "2", "min,", "1", "not", "measured"],
    ]
    wide = resolve_models("config/models.yaml", ["resnet50", model])
    plan.print_leaks(527, wide)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [*wide]

from singflow.commands import plan
from singflow.planning import plan as planning
from singflow.planning.plan import Job, parse_jobs
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
[Wed Nov 25 09:19:33 2026] Group job pictures (jobs in lexicogr. order):

    [Wed Nov 25 09:19:33 2026]
    rule summarize:
        output: results/demo/tables/models.csv
        benchmark: results/demo/benchmarks/summarize.tsv
        threads: 4
        resources: tmpdir=<TBD>, slurm_account=a, b, mem_mb=1380, gpu=0, gres=gpu:1
[Wed Nov 25 09:19:33 2026]
rule resolve_study:
    benchmark: results/demo/benchmarks/resolve_study.tsv
    resources: mem_mb=<TBD>, gpu=0
[Wed Nov 25 09:19:33 2026]
rule all:
    input: results/demo/tables/models.csv
    resources: tmpdir=<TBD>
"""


def test_jobs_are_read_from_a_dry_run():
    tower, last, first = parse_jobs(LISTING)
    assert (tower.step, tower.gpu, tower.asked_mb) == ("extract_features", True, 11040)
    assert tower.wildcards == {"model": "timm/resnet18.a1_in1k", "shard": "00000"}
    assert tower.resources["cpus_per_task"] == "8" and tower.resources["runtime"] == "17"
    asked = {"slurm_account": "a, b", "mem_mb": "1380", "gpu": "0", "gres": "gpu:1"}
    assert last == Job("summarize", {}, asked | {"cpus_per_task": "4"}) and last.gpu
    assert (first.step, first.gpu, first.asked_mb) == ("resolve_study", False, 0)
    done = "Nothing to be done (all requested files are present and up to date)."
    assert parse_jobs(f"Building DAG of jobs...\n{done}\n") == []
    invalid = "WorkflowError: the study is not valid\n"
    refused(f"it says\n{invalid.strip()}", parse_jobs, invalid)


def job(step):
    return Job(step, {}, {"mem_mb": "4000", "gpu": str(int(step == "extract_features"))})


def test_what_a_study_takes_is_printed(capsys, monkeypatch, study):
    model, tower = "efficientnet_lite0", job("extract_features")
    jobs = [job("build_manifest"), tower, tower, job("summarize")]
    monkeypatch.setattr(planning, "list_jobs", lambda _, *options: jobs[not options :])
    plan.plan()
    head, table = capsys.readouterr().out.split("\n\n")
    useful = ("Study demo: 20 images, 4 models", f"{model}, ", "leak of about", "3 of 4 jobs")
    useful += ("4.0 GB of memory", " on the disk")
    places = [head.find(words) for words in useful]
    assert places[0] == 0 and places == sorted(places), head
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["build_manifest", "0", "1", "done"],
        ["extract_features", "2", "2", "GPU", "4.0"],
        ["summarize", "1", "1", "CPU", "4.0"],
    ]

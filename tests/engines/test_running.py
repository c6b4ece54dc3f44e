import os
import time
from pathlib import Path

import pytest

from singflow.engines.running import PROFILE, Run
from tests.project import ROOT

SECONDS = {"extract_features": 100.0, "fit_projector": 10.0, "summarize": 1.0}


def event(kind, **told):
    return {"event": kind, "level": "INFO", "text": "", **told}


def begun(number, step, **wildcards):
    own = {"jobid": number, "rule_name": step, "wildcards": wildcards}
    return event("job_info", **own, log=[f"results/mine/logs/{number}.log"])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A run of six steps, of which `all` is none, in a folder with the names of the steps."""
    monkeypatch.chdir(tmp_path)
    Path("scripts").symlink_to(ROOT / "scripts")
    Path("results/mine/logs").mkdir(parents=True)
    run = Run(SECONDS.__getitem__)
    assert run.line() == "looking for what is to be done"
    stats = {"extract_features": 2, "fit_projector": 3, "summarize": 1, "all": 1, "total": 7}
    run.take(event("run_info", stats=stats))
    return run


def test_a_line_says_steps_what_runs_and_what_is_left_by_the_steps_costs(run):
    assert run.line() == "0 of 6 steps" and run.complete
    for number in range(5):
        step = "extract_features" if number < 2 else "fit_projector"
        run.take(begun(number, step, model=f"m{number}"))
    now = "extract_features m0, extract_features m1, fit_projector m2 and 2 more"
    assert run.line() == f"0 of 6 steps: {now}"
    run.started = time.time() - 60
    for number in (0, 2):
        run.take(event("job_finished", job_id=number))
    # 121 of 231 are left
    assert run.line().startswith("2 of 6 steps, about 66 s left: extract_features m1, ")
    run.started -= 3600
    assert ", about 67 min left: " in run.line() and run.results == Path("results/mine")
    run.take(begun(5, "summarize"))
    for number in (1, 3, 4, 5, 6):
        run.take(event("job_finished", job_id=number))
    assert run.line() == "6 of 6 steps"


def failed(run, number, step):
    run.take(begun(number, step, model="m"))
    run.take(begun(number, step) | {"event": "job_error"})


def test_every_step_that_failed_is_named_with_its_last_words_and_one_that_succeeds_later_is_not(
    run,
):
    log = Path("results/mine/logs/1.log")
    log.write_text("20 images\nerror: a.csv: line 3: no number\n  a hint\n")
    failed(run, 1, "fit_projector")
    failed(run, 2, "summarize")
    assert run.error_messages(f"{PROFILE} x\nspam\rusage: x.py\nx.py: error: --seed\n") == [
        f"fit_projector m failed:\nerror: a.csv: line 3: no number\n  a hint\nits log: {log}",
        "summarize m failed:\nspam\nusage: x.py\nx.py: error: --seed",
    ]
    run.take(begun(1, "fit_projector", model="m"))
    assert run.error_messages("") == ["summarize m failed:"]
    os.utime(log, (time.time() - 100, time.time() - 100))
    failed(run, 1, "fit_projector")
    of_1 = "fit_projector m failed:\ndied at once"
    assert of_1 in run.error_messages("died at once"), "a log of an earlier run is not quoted"


def test_where_no_step_failed_snakemake_is_quoted_and_a_dry_run_is_no_run(run):
    run.take(event("error", level="ERROR") | {"text": "MissingRuleException: fig99.png"})
    assert run.error_messages("noise") == ["MissingRuleException: fig99.png"]
    dry = Run(SECONDS.__getitem__)
    assert dry.error_messages("usage: x\n\nerror: --what\n") == ["usage: x", "error: --what"]
    dry.take(event("run_info", stats={"all": 1}) | {"text": "Job stats:"})
    assert dry.messages == ["Job stats:"] and not dry.complete and dry.total == 0

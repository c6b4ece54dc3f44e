import os
import re
import time
from pathlib import Path

import pytest

from singflow.engines.running import PROFILE, Run, is_busy, seconds_left
from tests.project import ROOT

SECONDS = {"extract_features": 100.0, "fit_projector": 10.0, "summarize": 1.0}


def event(kind, **told):
    return {"event": kind, "level": "INFO", "text": "", **told}


def begun(number, step, **wildcards):
    own = {"jobid": number, "rule_name": step, "wildcards": wildcards}
    return event("job_info", **own, log=[f"results/mine/logs/{number}.log"])


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, at clock[0], on a machine that is idle."""
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    return clock


@pytest.fixture
def run(clock, monkeypatch, tmp_path):
    """A run of six steps, of which `all` is none, in a folder with the names of the steps."""
    monkeypatch.chdir(tmp_path)
    Path("scripts").symlink_to(ROOT / "scripts")
    Path("results/mine/logs").mkdir(parents=True)
    run = Run(SECONDS.__getitem__)
    assert run.line() == "looking for what is to be done"
    stats = {"extract_features": 2, "fit_projector": 3, "summarize": 1, "all": 1, "total": 7}
    run.take(event("run_info", stats=stats))
    return run


def test_a_line_says_steps_what_runs_and_what_is_left(run, clock, monkeypatch):
    assert run.line() == "0 of 6 steps" and run.complete
    for number in range(5):
        step = "extract_features" if number < 2 else "fit_projector"
        run.take(begun(number, step, model=f"m{number}"))
    now = "extract_features m0, extract_features m1, fit_projector m2 and 2 more"
    assert run.line() == f"0 of 6 steps: {now}"
    clock[0] += 60
    for number in (0, 2):
        run.take(event("job_finished", job_id=number))
    # Two steps of 10 s run for 60 s, as one did: pace 245 / 135. Of 231 s, 110 are done, 9 + 9 and
    # 60 / pace begun, five at a time.
    assert run.line().startswith("2 of 6 steps, about 25 s left: extract_features m1, ")
    clock[0] += 3600
    assert ", about 7 min left: " in run.line() and run.results == Path("results/mine")
    monkeypatch.setattr(os, "getloadavg", lambda: (1e4, 0.0, 0.0))
    assert ", about 7 min left (this machine is busy): " in run.line()
    run.take(begun(5, "summarize"))
    for number in (1, 3, 4, 5, 6):
        run.take(event("job_finished", job_id=number))
    assert run.line() == "6 of 6 steps"


@pytest.mark.parametrize("slower", [1.0, 3.0, 8.0])
def test_the_time_left_is_honest_on_a_slow_machine_and_through_long_steps(run, clock, slower):
    """Steps of 1, 10 and 100 s, two at a time, all `slower` than expected."""
    stats = {"summarize": 20, "extract_features": 4, "fit_projector": 10}
    run.take(event("run_info", stats=stats | {"all": 1}))
    order = [*["summarize"] * 20, *["extract_features"] * 4, *["fit_projector"] * 10]
    begin, until = clock[0], slower * 520 / 2
    shown, ends = [], {}
    while clock[0] < begin + until - 30:
        for job in [job for job, end in ends.items() if end <= clock[0] - begin]:
            run.take(event("job_finished", job_id=job))
            del ends[job]
        while len(ends) < 2 and order:
            step, job = order.pop(0), len(order)
            run.take(begun(job, step))
            ends[job] = clock[0] - begin + slower * SECONDS[step]
        if left := re.search(r"about ([\d.]+) (s|min|h) left", run.line()):
            seconds = float(left[1]) * {"s": 1, "min": 60, "h": 3600}[left[2]]
            shown.append((seconds, begin + until - clock[0]))
        clock[0] += 1
    assert len(shown) > until / 2
    for said, true in shown:
        assert true / slower - 30 <= said <= 1.3 * true + 30, (said, true)
    # After a quarter of the time, with a step of every kind to judge by, within a half.
    late = [(said, true) for said, true in shown if until / 2 > true > 90]
    assert late and all(0.5 < said / true < 1.5 for said, true in late)


def test_a_long_step_does_not_raise_the_time_left_until_it_is_overdue():
    def left(time):
        return seconds_left(300.0, [(10.0, 30.0)] * 4, [(100.0, float(time))] * 2, 60.0 + time)

    pace = (5 + 120) / (5 + 40)
    usual = [left(time) for time in range(0, int(90 * pace), 10)]
    assert usual == sorted(usual, reverse=True) and usual[0] == pytest.approx(pace * 260 / 2)
    overdue = [left(time) for time in range(int(101 * pace), 2000, 10)]
    assert overdue == sorted(overdue) and overdue[-1] > 2 * overdue[0] > 0


def test_a_machine_is_busy_with_more_than_its_cores_can_do():
    assert is_busy(3.1, 2) and not is_busy(3.0, 2)
    assert is_busy(81.0, 64) and not is_busy(80.0, 64)


def failed(run, number, step):
    run.take(begun(number, step, model="m"))
    run.take(begun(number, step) | {"event": "job_error"})


def test_every_failed_step_is_named_with_its_last_words_and_one_that_succeeds_later_is_not(run):
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

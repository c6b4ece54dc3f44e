"""A run of Snakemake: its progress, the time left, and the messages of failed steps."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from singflow.engines.code import step_files
from singflow.system import in_time

POLL = 0.2  # seconds between two readings of the events
SILENCE = 30.0  # seconds without a line, if the output is no terminal
PATIENCE = 10.0  # seconds that steps have to end after a signal
MOST_NAMES = 3  # running steps that a progress line names
MOST_LINES = 5  # shown of the log of a step that failed without an error message
PROFILE = "Using workflow specific profile"  # first line of Snakemake's output
USUAL = 5.0  # seconds of steps that are taken to have run as fast as expected
ALMOST = 0.9  # most of a step that counts as done while it runs
HINTS = {"SIGKILL": ": is there memory enough? --cores 1 takes less"}


@dataclass
class Run:
    """The state of a run, from the events so far."""

    expected: Callable[[str], float]  # seconds of a step as measured here; else 1, as of any other
    started: float = field(default_factory=time.time)
    total: int = 0
    done: int = 0
    work: float = 0.0
    finished: list[tuple[float, float]] = field(default_factory=list)  # expected, measured seconds
    began: dict[int, float] = field(default_factory=dict)
    jobs: dict[int, dict[str, Any]] = field(default_factory=dict)
    running: dict[int, str] = field(default_factory=dict)
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    complete: bool = True  # whether the study is finished if this run succeeds
    results: Path | None = None  # folder of the study, once a step has begun

    def take(self, event: dict[str, Any]) -> None:
        """Update the state with an event of the logger."""
        kind = event["event"]
        if event["text"] and event["level"] == "INFO":  # a dry run
            self.messages.append(event["text"])
            self.complete = False
        elif kind == "run_info":
            counts = {step: count for step, count in event["stats"].items() if step in step_files()}
            self.total = sum(counts.values())
            self.work = sum(count * self.expected(step) for step, count in counts.items())
            self.complete = "all" in event["stats"]
        elif kind == "job_info" and event["rule_name"] in step_files():
            self.jobs[event["jobid"]] = event
            self.results = Path(*Path(event["log"][0]).parts[:2])
            self.running[event["jobid"]] = _name(event)
            self.began[event["jobid"]] = time.time()
            self.failed.pop(event["jobid"], None)
        elif kind == "job_error":
            self.failed[event["jobid"]] = event
            self.running.pop(event["jobid"], None)
        elif kind == "job_finished" and event["job_id"] in self.jobs:
            self.running.pop(event["job_id"], None)
            self.done += 1
            took = time.time() - self.began[event["job_id"]]
            self.finished.append((self._expected(event["job_id"]), took))
        elif event["text"]:
            self.messages.append(event["text"])

    def line(self) -> str:
        """The progress line: the steps done, the time left and the running steps."""
        if not self.total:
            return "looking for what is to be done"
        left = ""
        if self.finished and self.done < self.total:
            now = time.time()
            running = [(self._expected(job), now - self.began[job]) for job in self.running]
            seconds = seconds_left(self.work, self.finished, running, now - self.started)
            busy = is_busy(os.getloadavg()[0], os.cpu_count() or 1)
            left = f", about {in_time(seconds)} left{' (this machine is busy)' if busy else ''}"
        names = list(self.running.values())
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        at_work = f": {', '.join(names[:MOST_NAMES])}{more}" if names else ""
        return f"{self.done} of {self.total} steps{left}{at_work}"

    def _expected(self, job: int) -> float:
        return self.expected(self.jobs[job]["rule_name"])

    def error_messages(self, printed: str) -> list[str]:
        """A message for each failed step, or else what Snakemake said or printed (to stderr)."""
        lines = printed.replace("\r", "\n").splitlines()
        rest = [line for line in lines if line.strip() and not line.startswith(PROFILE)]
        messages = []
        for event in self.failed.values():
            written = [log for log in map(Path, event["log"]) if self._wrote(log)]
            own = [text for text in self.messages if any(log in text for log in event["log"])]
            killed = [
                f"it was killed by {name}{HINTS.get(name, '')}"
                for name in re.findall(r"died with <Signals\.(\w+)", "".join(own))
            ]
            said = killed or list(filter(None, map(_error_in, written))) or rest[-MOST_LINES:]
            name = _name(self.jobs.get(event["jobid"], event))
            logs = [f"its log: {log}" for log in written]
            messages.append("\n".join([f"{name} failed:", *said, *logs]))
        return messages or self.messages or rest

    def _wrote(self, log: Path) -> bool:
        """Whether this run wrote something into a log."""
        if not log.is_file():
            return False
        return log.stat().st_size > 0 and log.stat().st_mtime >= self.started - 1


def seconds_left(
    work: float,
    finished: Sequence[tuple[float, float]],
    running: Sequence[tuple[float, float]],
    elapsed: float,
) -> float:
    """Seconds until all steps have ended, if the rest are as slow and as parallel as those so far.

    work: expected seconds of all steps. finished, running: steps, with the expected seconds and
    those measured so far. The pace is that of steps that ended. So a long step does not raise the
    estimate while it runs, unless it is overdue.
    """
    pace = _pace(finished)
    pace = _pace([*finished, *((whole, took) for whole, took in running if took > pace * whole)])
    done = sum(whole for whole, _ in finished)
    begun = sum(min(ALMOST * whole, took / pace) for whole, took in running)
    parallel = sum(took for _, took in [*finished, *running]) / elapsed
    return pace * (work - done - begun) / max(parallel, 1.0)


def _pace(steps: Sequence[tuple[float, float]]) -> float:
    """Measured seconds for an expected one."""
    expected, measured = (sum(seconds) for seconds in zip(*steps, strict=True))
    return (USUAL + measured) / (USUAL + expected)


def is_busy(load: float, cores: int) -> bool:
    """Whether more processes want a core than there are cores, so that a run of all is slowed."""
    return load > cores + max(1.0, cores / 4)


def _name(job: dict[str, Any]) -> str:
    return " ".join([job["rule_name"], *job.get("wildcards", {}).values()])


def _error_in(log: Path) -> str:
    """The error message at the end of a log, or its last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if errors:
        return "\n".join(lines[errors[-1] :])
    defects = [line for line in lines if line.startswith("a defect of this program")]
    return f"{defects[-1]} {lines[-1]}" if defects else "\n".join(lines[-MOST_LINES:])


def follow(command: Sequence[str], run: Run) -> tuple[int, str]:
    """Run Snakemake with a progress line; returns its exit status and standard error.

    The line is live on a terminal; otherwise a line is printed for every tenth of the steps and
    after 30 s of silence. If this function is interrupted, it ends Snakemake and its steps, which
    leave no partial files. If this process is killed, the pipe to Snakemake closes, and the logger
    ends them.
    """
    with tempfile.TemporaryDirectory(prefix="singflow-run-") as folder, _display() as show:
        events, errors = Path(folder, "events"), Path(folder, "errors")
        events.touch()
        program, *options = command
        words = [program, "--logger", "singflow", "--logger-singflow-events", str(events), *options]
        with (
            events.open(encoding="utf-8") as told,
            errors.open("wb") as printed,
            subprocess.Popen(
                words, stderr=printed, stdin=subprocess.PIPE, process_group=0
            ) as process,
        ):
            try:
                ended, part = False, ""
                while not ended:
                    ended = process.poll() is not None
                    *lines, part = (part + told.read()).split("\n")
                    for line in lines:
                        run.take(json.loads(line))
                    show(run)
                    time.sleep(0 if ended else POLL)
            finally:
                if process.poll() is None:
                    stop(psutil.Process(process.pid))
        return process.returncode, errors.read_text(encoding="utf-8", errors="replace")


@contextmanager
def _display() -> Iterator[Callable[[Run], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    console = Console(stderr=True, force_terminal=sys.stderr.isatty(), soft_wrap=True)
    if console.is_interactive:
        column = Column(no_wrap=True, overflow="ellipsis")
        text = TextColumn("{task.description}", markup=False, table_column=column)
        columns = SpinnerColumn(), BarColumn(20), text
        with Progress(*columns, console=console, transient=True) as live:
            task = live.add_task("", total=None)
            yield lambda run: live.update(
                task, description=run.line(), completed=run.done, total=run.total or None
            )
        return
    tenth, last = -1, time.monotonic()

    def show(run: Run) -> None:
        nonlocal tenth, last
        reached = 10 * run.done // run.total if run.total else -1
        if reached > tenth or time.monotonic() - last > SILENCE:
            print(run.line(), file=sys.stderr, flush=True)
            tenth, last = reached, time.monotonic()

    yield show


def stop(snakemake: psutil.Process) -> None:
    """Interrupt Snakemake, terminate its steps, and kill what is left (also at another Ctrl-C)."""
    told: set[psutil.Process] = set()
    family: list[psutil.Process] = []
    until = time.monotonic() + PATIENCE
    with suppress(psutil.Error):
        try:
            snakemake.send_signal(signal.SIGINT)
            while snakemake.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
                family = snakemake.children(recursive=True)
                for child in {*family} - told:
                    with suppress(psutil.Error):
                        child.terminate()
                told |= {*family}
                time.sleep(POLL)
        finally:
            if snakemake.status() != psutil.STATUS_ZOMBIE:
                for process in (*family, snakemake):
                    with suppress(psutil.Error):
                        process.kill()

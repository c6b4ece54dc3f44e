"""Snakemake's logger `singflow`: a progress line with the time left, then what went wrong."""

import shutil
import sys
import time
from collections.abc import Iterator
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

MOST_NAMES = 3  # running steps that the line names
MOST_LINES = 5  # shown of the log of a step that failed without an error message
SILENCE = 30.0  # seconds without a line, if the output is no terminal
KILLED = ("died with <Signals.SIGKILL", "exit status 137")
STOPPING = ("Terminating processes on user request", "Will exit after finishing")


class LogHandler(LogHandlerBase):
    """Shows the progress on standard error, and at the end the errors."""

    writes_to_stream = True  # replaces Snakemake's handler for the terminal
    has_filter = True  # --quiet must not filter events
    writes_to_file = has_formatter = needs_rulegraph = False

    def __post_init__(self) -> None:
        self.started, self.shown, self.total, self.done = time.time(), 0.0, 0, 0
        self.names: dict[int, str] = {}
        self.running: set[int] = set()
        self.failed: dict[int, list[Path]] = {}
        self.said: list[str] = []
        self.stopping = False

    def emit(self, record: LogRecord) -> None:
        """Take an event into account; show the line."""
        event, told = getattr(record, "event", None), vars(record)
        if event == LogEvent.RUN_INFO:
            self.total = told["stats"]["total"]
        elif event == LogEvent.JOB_INFO:
            job = told["jobid"]
            self.names[job] = " ".join([told["rule_name"], *dict(told["wildcards"]).values()])
            self.running.add(job)
            self.failed.pop(job, None)
        elif event == LogEvent.JOB_ERROR:
            self.running.discard(told["jobid"])
            self.failed[told["jobid"]] = [Path(log) for log in told["log"]]
        elif event == LogEvent.JOB_FINISHED:
            self.running.discard(told["job_id"])
            self.done += 1
        elif record.levelname in ("WARNING", "ERROR", "CRITICAL"):
            self.said.append(self.format(record))
        else:
            self.stopping |= record.getMessage().startswith(STOPPING)
            return
        if self.total:
            self.show(self.line())

    def line(self) -> str:
        """The steps done, the time left and the running steps."""
        left, names = "", [self.names[job] for job in sorted(self.running)]
        if self.done < self.total and self.done:
            seconds = (time.time() - self.started) * (self.total - self.done) / self.done
            left = f", about {in_time(seconds)} left"
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        at_work = f": {', '.join(names[:MOST_NAMES])}{more}" if names else ""
        return f"{self.done} of {self.total} steps{left}{at_work}"

    def show(self, line: str) -> None:
        """Replace the line on a terminal; elsewhere write one in a while."""
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)
        elif time.time() - self.shown > SILENCE or self.done == self.total:
            print(line, file=sys.stderr, flush=True)
            self.shown = time.time()

    def close(self) -> None:
        """End the line; say how to go on, or what went wrong."""
        if self.total and sys.stderr.isatty():
            print(file=sys.stderr)
        for line in self.outcome():
            print(line, file=sys.stderr)
        self.total, self.stopping, self.said, self.failed = 0, False, [], {}  # it is closed twice
        super().close()

    def outcome(self) -> Iterator[str]:
        """Which steps failed and why, or else what Snakemake said."""
        if self.stopping:
            yield f"stopped, {self.done} of {self.total} steps done: run the same again to go on"
            return
        for job, logs in self.failed.items():
            yield f"error: {self.names.get(job, job)} failed:"
            for log in filter(Path.is_file, logs):
                yield from filter(None, [last_words(log), f"its log: {log}"])
        if any(word in text for text in self.said for word in KILLED):
            yield "a step was killed: is there memory enough? --cores 1 takes less"
        if not self.failed:
            yield from dict.fromkeys(self.said)


def last_words(log: Path) -> str:
    """The error message at the end of a log, or its last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[starts[-1] :] if starts else lines[-MOST_LINES:])


def in_time(seconds: float) -> str:
    """A duration in seconds, minutes or hours, to about two digits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

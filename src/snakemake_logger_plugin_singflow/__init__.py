"""Snakemake's logger `singflow`: writes every event as a line of JSON.

`singflow run` makes its progress line from the events. If it is killed, Snakemake ends.
"""

import json
import os
import stat
import threading
from dataclasses import dataclass, field
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

TOLD = ("stats", "jobid", "job_id", "rule_name", "wildcards", "log")


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Options of the logger."""

    events: Path | None = field(
        default=None,
        metadata={"help": "File that the lines are added to.", "required": True, "type": Path},
    )


class LogHandler(LogHandlerBase):
    """Appends events to a file; writes nothing to the terminal."""

    writes_to_stream = True  # replaces Snakemake's handler for the terminal
    has_filter = True  # --quiet must not filter events
    writes_to_file = has_formatter = needs_rulegraph = False

    def __post_init__(self) -> None:
        self.file = self.settings.events.open("a", encoding="utf-8")
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            threading.Thread(target=end_with_starter, args=(os.dup(0),), daemon=True).start()
            with Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), 0)  # for the jobs

    def emit(self, record: LogRecord) -> None:
        """Append the event and its fields, and Snakemake's text in dry runs and for warnings."""
        told = {name: getattr(record, name) for name in TOLD if hasattr(record, name)}
        shown = self.common_settings.dryrun or record.levelname in ("WARNING", "ERROR", "CRITICAL")
        told |= {
            "event": getattr(record, "event", None),
            "level": record.levelname,
            "text": self.format(record) if shown else "",
        }
        self.file.write(json.dumps(told, default=str) + "\n")
        self.file.flush()


def end_with_starter(pipe: int) -> None:
    """Wait until the pipe closes, which `singflow run` holds open; then end Snakemake."""
    if not os.read(pipe, 1):
        import psutil

        from singflow.engines.running import stop

        stop(psutil.Process())

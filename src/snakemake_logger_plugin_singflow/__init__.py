"""Snakemake's logger `singflow`: what happens in a run, a line of JSON each, for `singflow run`, which shows it."""

import json
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
    """Adds what is told about jobs to a file; nothing is written to the terminal."""

    writes_to_stream = True  # in place of the handler that does
    has_filter = True  # --quiet is about words, and these are none
    writes_to_file = has_formatter = needs_rulegraph = False

    def __post_init__(self) -> None:
        self.file = self.settings.events.open("a", encoding="utf-8")

    def emit(self, record: LogRecord) -> None:
        """Add a line with the event, its fields, and the words that Snakemake would write."""
        told = {name: getattr(record, name) for name in TOLD if hasattr(record, name)}
        shown = self.common_settings.dryrun or record.levelname in ("WARNING", "ERROR", "CRITICAL")
        told |= {
            "event": getattr(record, "event", None),
            "level": record.levelname,
            "text": self.format(record) if shown else "",
        }
        self.file.write(json.dumps(told, default=str) + "\n")
        self.file.flush()

"""The console command `singflow <verb>`."""

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

import typer

from singflow.cli import prepared

REST = "Rest"
PANELS = {
    "Study": ("study", "plan", "prefetch", "run", "doctor"),
    "Photo and model": ("analyze", "app", "models"),
    "Share": ("publish", "fetch", "verify"),
    REST: ("import_translator", "show_summary", "spaces"),
}
program = typer.Typer(
    help="What image classifiers do not see: prepare, run, read and share studies.",
    epilog=f"Also: {', '.join(PANELS[REST])}. `singflow <command> --help` explains a command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, verbs in PANELS.items():
    for verb in verbs:
        called = getattr(import_module(f"{__name__}.{verb}"), verb)
        settings = {"ignore_unknown_options": verb == "run"}  # which are Snakemake's
        hidden = panel == REST
        program.command(verb, rich_help_panel=panel, hidden=hidden, context_settings=settings)(
            called
        )


def main() -> None:
    """Run the command that the words of the command line name."""
    if not shutil.which("snakemake"):  # called by its path, without its environment
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with prepared(offline="prefetch" not in sys.argv[1:2]):
        program()

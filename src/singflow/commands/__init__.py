"""The console command `singflow <verb>`."""

import os
import pkgutil
import shutil
import sys
from importlib import import_module
from pathlib import Path

import typer

from singflow.cli import prepared

program = typer.Typer(
    help="What image classifiers do not see: prepare, run, read and share studies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in pkgutil.iter_modules(__path__):
    verb = getattr(import_module(f"{__name__}.{module.name}"), module.name, None)
    if verb:  # a module that shares its name with a function is a command
        settings = {"ignore_unknown_options": module.name == "run"}  # which are Snakemake's
        program.command(module.name, context_settings=settings)(verb)


def main() -> None:
    """Run the command that the words of the command line name."""
    if not shutil.which("snakemake"):  # called by its path, without its environment
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with prepared(offline="prefetch" not in sys.argv[1:2]):
        program()

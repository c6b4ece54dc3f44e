"""The console command `singflow <verb>`."""

import os
import shutil
import sys
from pathlib import Path

import typer

from singflow.cli import prepared
from singflow.commands.accept import accept
from singflow.commands.analyze import analyze
from singflow.commands.app import app
from singflow.commands.crate import crate
from singflow.commands.doctor import doctor
from singflow.commands.export_translator import export_translator
from singflow.commands.fetch import fetch
from singflow.commands.import_texts import import_texts
from singflow.commands.import_translator import import_translator
from singflow.commands.pack_reference import pack_reference
from singflow.commands.plan import plan
from singflow.commands.prefetch import prefetch
from singflow.commands.publish import publish
from singflow.commands.reproduce import reproduce
from singflow.commands.resume import resume
from singflow.commands.run import run
from singflow.commands.search import search
from singflow.commands.show_summary import show_summary
from singflow.commands.study import study
from singflow.commands.translators import translators
from singflow.commands.verify import verify

program = typer.Typer(
    help="What image classifiers do not see: prepare, run, read and share studies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verbs = (
    accept,
    analyze,
    app,
    crate,
    doctor,
    export_translator,
    fetch,
    import_texts,
    import_translator,
    pack_reference,
    plan,
    prefetch,
    publish,
    reproduce,
    resume,
    run,
    search,
    show_summary,
    study,
    translators,
    verify,
)
for verb in verbs:
    program.command(verb.__name__)(verb)


def main() -> None:
    """Run the command that the words of the command line name."""
    if not shutil.which("snakemake"):  # called by its path, without its environment
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with prepared(offline="prefetch" not in sys.argv[1:2]):
        program()

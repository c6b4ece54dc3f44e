import fcntl
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from singflow.cli import log
from singflow.commands.options import PARAMS
from singflow.errors import InputError
from singflow.system import gpu_count

if TYPE_CHECKING:
    from singflow.study import Params

OWNER = Path(".snakemake/run")  # names the machine on which a run has locked this folder
LOCKS = Path(".snakemake/locks")
LOADING = {  # steps that load the weights of a model or a space
    "model": ("resolve_model", "extract_head", "extract_features"),
    "space": ("resolve_space", "embed_images", "embed_prompts", "embed_classes"),
}


def run(
    options: Annotated[
        list[str] | None,
        typer.Argument(help="After `--`: further options and targets of snakemake."),
    ] = None,
    cores: Annotated[
        str, typer.Option(help="Cores that steps use at a time, a number or all.")
    ] = "all",
    configfile: Annotated[
        Path, typer.Option(help="The study: a complete params.yaml, or changes to params.yaml.")
    ] = PARAMS,
) -> None:
    """Run a study, show its progress, and print its results.

    After an interruption, the same command continues where the run stopped.
    """
    from singflow.artifacts.catalog import CATALOG
    from singflow.commands.show_summary import print_summary
    from singflow.config.reading import read_yaml
    from singflow.engines.running import Run, follow
    from singflow.planning.plan import RESULTS, step_seconds
    from singflow.study import made_with_others, read_layers, settle

    study, entries = settle(read_layers(configfile), str(configfile))
    for line in made_with_others(RESULTS / study.study):
        log.warning(line)
    layer = [] if configfile == PARAMS else ["--configfile", str(configfile)]
    if not any(option.startswith(("--config", "-C")) for option in options or []):  # other models
        check_weights(study, entries, configfile, options or [])
    finished = list(RESULTS.glob("*"))
    progress = Run(cache(lambda step: step_seconds(finished, step) or 1.0))  # else all are alike
    signal.set_wakeup_fd(-1)  # Snakemake and its steps are ended first, however long that takes
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # SIGHUP is ignored under nohup
        if signal.getsignal(number) is not signal.SIG_IGN:
            end = signal.default_int_handler if number == signal.SIGINT else _end
            signal.signal(number, end)
    limit = gpu_limit(options or [])
    command = ["snakemake", *limit, "--cores", cores, "--rerun-incomplete", *layer]
    command += options or []
    with sole_run(study.study):
        clear_lock(configfile)
        try:
            status, printed = follow(command, progress)
        except KeyboardInterrupt:
            log.info(
                "stopped with %d of %d steps done: run the same again, and it goes on there",
                progress.done,
                progress.total,
            )
            raise typer.Exit(130) from None
        finally:
            if not any(LOCKS.glob("*.lock")):
                OWNER.unlink(missing_ok=True)
    if status:
        for message in progress.error_messages(printed):
            log.error("error: %s", message)
        raise typer.Exit(1)
    for message in progress.messages:
        print(message)
    if progress.complete:
        results = progress.results or RESULTS / study.study
        print_summary(results, read_yaml(CATALOG["params"].at(results))["analyses"])


def gpu_limit(options: list[str]) -> list[str]:
    """At most one job for each GPU of this machine, unless the options set limits of their own."""
    own = {"--resources", "--res", "--profile", "--executor", "-e"}
    count = 0 if own & {option.partition("=")[0] for option in options} else gpu_count()
    return ["--resources", f"gpu={count}"] if count else []


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


def check_weights(
    study: "Params",
    entries: Mapping[str, Mapping[str, Any]],
    configfile: Path,
    options: Sequence[str],
) -> None:
    """Refuse a run whose steps would load weights that are not here.

    A run that only reads what is finished, as after a fetch, needs no weights.
    """
    from singflow.planning.plan import list_jobs
    from singflow.towers.weights import FETCH, missing, with_texts

    absent = {
        (kind, name): files
        for kind, towers in entries.items()
        if kind == "space" or study.data.source != "features"
        for name, entry in towers.items()
        if (files := missing(with_texts, entry))
    }
    if not absent:
        return
    loaded = {
        (kind, job.wildcards.get(kind))
        for job in list_jobs(configfile, *options)
        for kind, steps in LOADING.items()
        if job.step in steps
    }
    wanting = [(name, files) for (kind, name), files in absent.items() if (kind, name) in loaded]
    lines = [f"{name}: {file}" for name, files in wanting for file in files]
    if lines:
        raise InputError("\n".join(["weights that this run needs are not here:", *lines, FETCH]))


@contextmanager
def sole_run(study: str) -> Iterator[None]:
    """Hold a study in this folder; InputError names the run that holds it already."""
    OWNER.parent.mkdir(exist_ok=True)
    with OWNER.with_name(f"study-{study}").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"`singflow run` is at work on study {study} in this folder already "
                f"({file.read()}): wait for its end, then run the same again"
            ) from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def clear_lock(params: Path) -> None:
    """Remove the locks that a killed run left on this machine, but no other locks.

    InputError names an engine that is at work here.
    """
    from singflow.artifacts.files import write_bytes
    from singflow.engines.at_work import running_dvc, running_snakemake
    from singflow.engines.running import PATIENCE

    if params == PARAMS and (process := running_dvc(Path.cwd())):
        raise InputError(
            f"DVC is at work in this folder already (process {process}): wait for its end, then "
            "run the same again"
        )
    until = time.monotonic() + PATIENCE + 5
    while process := running_snakemake(Path.cwd(), params):
        if not OWNER.is_file() or time.monotonic() > until:
            raise InputError(
                f"Snakemake is at work in this folder already (process {process}): wait for its "
                "end, then run the same again"
            )
        time.sleep(1)  # it ends, because its `singflow run` was killed
    here = platform.node()
    locks = list(LOCKS.glob("*.lock"))
    if (
        locks
        and OWNER.is_file()
        and OWNER.read_text(encoding="utf-8") == here
        and not running_snakemake(Path.cwd())
    ):
        log.info("the run before was killed: going on where it stopped")
        for lock in locks:
            lock.unlink()
        locks = []
    if not locks:
        write_bytes(OWNER, here.encode())

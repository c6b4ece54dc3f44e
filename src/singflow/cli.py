"""What every script shares: flags out of a pydantic class, a log file, fixed threads, and errors without tracebacks."""

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError

from singflow.config import Section
from singflow.errors import InputError

log = logging.getLogger("singflow")


class Command(Section):
    """Flags that every script has."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    positional: ClassVar[str | None] = None  # field whose values, one or more, come before the flags and without one

    log: Path | None = Field(None, description="file that receives the log")


Flags = TypeVar("Flags", bound=Command)
Item = TypeVar("Item")


def run(main: Callable[[Flags], None], schema: type[Flags], *, offline: bool = True) -> None:
    """Parse the flags, open the log and call main. Bad input ends with one message and exit status 1.

    offline: model hubs are looked for in their caches alone.
    """
    flags = _parse(schema)
    gc.set_threshold(100_000, 50, 50)  # at Python's own, seeking garbage takes a quarter of the time of loading libraries
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that files half written are removed
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    logging.raiseExceptions = False  # a line that the log has no room for is on the terminal
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.StreamHandler(sys.stderr)], force=True)
    try:
        if flags.log:
            flags.log.parent.mkdir(parents=True, exist_ok=True)
            log.root.addHandler(logging.FileHandler(flags.log, mode="w", encoding="utf-8"))
    except OSError as error:
        log.error("error: %s: cannot be written (%s): see to its folder, then run the same again", flags.log, error.strerror)
        sys.exit(1)
    logging.captureWarnings(True)
    for noisy in ("httpx", "httpx2", "urllib3", "filelock", "fontTools", "sentence_transformers", "timm"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        main(flags)
    except InputError as error:
        log.error("error: %s", error)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            log.error("error: %s: %s: see to this file or its folder, then run the same again", error.filename, error.strerror)
        else:
            log.exception("a defect of this program, not of your input:")
        sys.exit(1)


def _parse(schema: type[Flags]) -> Flags:
    single: set[str] = set()
    lists: dict[str, Any] = {}
    parser = argparse.ArgumentParser(description=schema.__doc__, allow_abbrev=False)
    for name, field in schema.model_fields.items():
        if name == schema.positional:
            parser.add_argument(name, nargs="+", help=(field.description or "").replace("%", "%%"))
            continue
        many = any(get_origin(kind) is list for kind in (field.annotation, *get_args(field.annotation)))
        single |= set() if many else {f"--{name}"}
        lists |= {name: []} if many and field.is_required() else {}
        parser.add_argument(
            f"--{name}",
            nargs="*" if many else None,
            required=field.is_required() and not many,
            default=argparse.SUPPRESS,
            help=(field.description or "").replace("%", "%%"),
        )
    joined, words = [], iter(sys.argv[1:])
    for word in words:  # `--root -x` as `--root=-x`: argparse takes a value that starts with a dash for a flag
        value = next(words, None) if word in single else None
        joined.append(word if value is None else f"{word}={value}")
    given = {name: None if value == "None" else value for name, value in vars(parser.parse_args(joined)).items()}
    try:
        return schema.model_validate(lists | given)
    except ValidationError as error:
        mistakes = "; ".join(f"--{'.'.join(map(str, e['loc']))} {e['input']!r}: {e['msg']}" for e in error.errors())
        parser.exit(2, f"{parser.prog}: error: {mistakes}\n")


def limit_threads(threads: int) -> None:
    """Fix the threads of BLAS, on which the rounding of sums depends."""
    import scipy.linalg  # noqa: F401 (SciPy's own BLAS can be limited once it is loaded)
    from threadpoolctl import threadpool_limits

    cores = os.cpu_count() or threads
    if threads > cores:
        log.warning("threads is %d, but this machine has %d cores: decompositions become many times slower", threads, cores)
    threadpool_limits(threads)


def progress(items: Iterable[Item], total: int, unit: str, description: str) -> Iterable[Item]:
    """A bar on a terminal, a line every ten seconds elsewhere; with the rate."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        unit=f" {unit}",
        desc=description,
        mininterval=0.5 if terminal else 10.0,
        ascii=not terminal,
        dynamic_ncols=terminal,
    )

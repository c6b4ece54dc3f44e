"""What all scripts share: flags from a pydantic class, log, threads, errors without tracebacks."""

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError

from singflow.artifacts.catalog import CATALOG
from singflow.config.sections import Section
from singflow.errors import InputError
from singflow.extras import explained
from singflow.system import choose_gpu

log = logging.getLogger("singflow")


QUIET = "SINGFLOW_QUIET"  # variable in which `singflow run` tells steps to write to logs alone
GRACE = 5  # seconds to remove partial files after a signal to end
NOISY = ["httpx", "httpx2", "urllib3", "filelock", "fontTools", "sentence_transformers", "timm"]

Item = TypeVar("Item")


class Stopped(SystemExit):
    """A signal told the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.words = f"stopped by {signal.Signals(number).name}"


class Command(Section):
    """Flags that every script has."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    log: Path | None = Field(None, description="file that receives the log")


class Step(Command):
    """Flags of every step of a study."""

    results: Path

    @property
    def study(self) -> str:
        """Name of the study."""
        return self.results.name

    @property
    def named(self) -> dict[str, str]:
        """The study, and the model, space and kind of the flags, for the metadata of a file."""
        names = ("study", "model", "space", "kind")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def path(self, artifact: str, **names: str) -> Path:
        """Where an artifact lies: of the model, space and kind that the flags or the names give."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return CATALOG[artifact].at(self.results, **(own | names))


class ModelStep(Step):
    """Flags of a step that reads the features of a model."""

    model: str
    shards: int
    threads: int


class PairStep(ModelStep):
    """Flags of a step that reads the features of a model and the embeddings or texts of a space."""

    space: str


class Selection(Step):
    """Flags of a step that gathers what was measured of every model in every space."""

    models: list[str]
    spaces: list[str]

    def gather(self, artifact: str, read: Callable[[Path], Item]) -> dict[str, dict[str, Item]]:
        """What `read` returns for the artifact of each space and model."""
        return {
            space: {
                model: read(self.path(artifact, space=space, model=model)) for model in self.models
            }
            for space in self.spaces
        }


Flags = TypeVar("Flags", bound=Command)


def run_step(main: Callable[[Flags], None], schema: type[Flags]) -> None:
    """Parse the flags of a step, open its log and call main."""
    with prepared():
        flags = _parse(schema)
        if flags.log:
            flags.log.parent.mkdir(parents=True, exist_ok=True)
            file = flags.log.open("w", encoding="utf-8")
            if QUIET in os.environ:  # what libraries print goes to the log, too
                log.root.handlers = []
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            log.root.addHandler(logging.StreamHandler(file))
        if getattr(flags, "device", "cpu") != "cpu":
            choose_gpu()  # before a library asks CUDA
        main(flags)


@contextmanager
def prepared(*, offline: bool = True) -> Iterator[None]:
    """Set up a program: its messages, offline model hubs, and an end with one message on errors.

    SIGTERM and SIGINT (Ctrl-C) interrupt the work, so that partial files are removed.
    """
    # With Python's thresholds, garbage collection takes a quarter of the time of loading libraries.
    gc.set_threshold(100_000, 50, 50)
    _heed_signals()
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    logging.raiseExceptions = False  # on a full disk, the line is still on the terminal
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[logging.StreamHandler(sys.stderr)],
        force=True,
    )
    logging.captureWarnings(True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with _quiet_if_output_closes(), explained():
            yield
    except Stopped as stopped:
        log.error(stopped.words)
        raise
    except InputError as error:
        log.error("error: %s", error)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            told = f"{error.filename}: {error.strerror}: see to this file or its folder"
            log.error("error: %s", InputError(f"{told}, then run the same again"))
        else:
            log.exception("a defect of this program, not of your input:")
        sys.exit(1)


@contextmanager
def _quiet_if_output_closes() -> Iterator[None]:
    """End silently if the reader of the output closes it early, as `head` does."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)


def _heed_signals() -> None:
    """Make SIGTERM and SIGINT interrupt the work, and kill it if it goes on for GRACE seconds."""

    def stop(number: int, _: object) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        signal.alarm(GRACE)
        raise Stopped(number)

    def tell(what: "sys.UnraisableHookArgs") -> None:
        # A library in whose callback the signal arrives may swallow it: the alarm ends the program.
        if not isinstance(what.exc_value, Stopped):
            sys.__unraisablehook__(what)

    sys.unraisablehook = tell
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)


def _parse(schema: type[Flags]) -> Flags:
    """Parse the flags of a step, of which only lists and switches may be left out."""
    single: set[str] = set()
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, allow_abbrev=False
    )
    for name, field in schema.model_fields.items():
        described = (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(f"--{name}", action="store_true", help=described)
            continue
        many = any(
            get_origin(kind) is list for kind in (field.annotation, *get_args(field.annotation))
        )
        single |= set() if many else {f"--{name}"}
        must = field.is_required() or (issubclass(schema, Step) and name != "log")
        parser.add_argument(
            f"--{name}",
            nargs="*" if many else None,
            required=must and not many,
            default=[] if must else argparse.SUPPRESS,
            help=described,
        )
    joined, words = [], iter(sys.argv[1:])
    # argparse takes a value that starts with a dash for a flag: `--root -x` becomes `--root=-x`.
    for word in words:
        value = next(words, None) if word in single else None
        joined.append(word if value is None else f"{word}={value}")
    given = {
        name: None if value == "None" else value
        for name, value in vars(parser.parse_args(joined)).items()
    }
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        mistakes = "; ".join(
            f"--{'.'.join(map(str, e['loc']))} {e['input']!r}: {e['msg']}" for e in error.errors()
        )
        parser.exit(2, f"{parser.prog}: error: {mistakes}\n")


def limit_threads(threads: int) -> None:
    """Fix the number of BLAS threads, on which the rounding of sums depends."""
    import scipy.linalg  # noqa: F401 (SciPy's own BLAS can be limited once it is loaded)
    from threadpoolctl import threadpool_limits

    cores = os.cpu_count() or threads
    if threads > cores:
        log.warning(
            "threads is %d, but this machine has %d cores: decompositions become many times slower",
            threads,
            cores,
        )
    threadpool_limits(threads)


def progress(
    items: Iterable[Item], total: int | None, unit: str, description: str
) -> Iterable[Item]:
    """A progress bar on a terminal, otherwise a line every ten seconds."""
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
        disable=QUIET in os.environ,
    )

"""Models and spaces of the local page, loaded in the background."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from singflow.artifacts.files import read_json, write_json
from singflow.cli import log
from singflow.errors import InputError
from singflow.photo.analyzer import Analyzer

FIRST = 20  # seconds on two idle cores where no model was loaded before: most are fits


@dataclass
class Loading:
    """A model and a space that are loaded, or will be. expected: the seconds that this takes."""

    pair: tuple[str, str]
    expected: str
    began: float = field(default_factory=time.monotonic)
    analyzer: Future[Analyzer] = field(default_factory=Future)

    def __str__(self) -> str:
        model, space = self.pair
        seconds = time.monotonic() - self.began
        return f"Loading {model} and its space {space}: {self.expected}; {seconds:.0f} s so far."


class Loader:
    """Analyzers by model and space, loaded one at a time; the last `most` are kept.

    load: makes one. record: file of the seconds that loading took, by model and space.
    """

    def __init__(self, load: Callable[[str, str], Analyzer], record: Path, most: int) -> None:
        self._load, self._record, self._most = load, record, most
        self._begun: OrderedDict[tuple[str, str], Loading] = OrderedDict()
        self._turn, self._changing = threading.Lock(), threading.Lock()

    def __call__(self, model: str, space: str) -> Analyzer:
        """The analyzer of a model and a space, once it is loaded."""
        return self.begin(model, space).analyzer.result()

    def begin(self, model: str, space: str) -> Loading:
        """A thread loads a model and a space, unless they are kept or loaded already."""
        pair = model, space
        with self._changing:
            found = self._begun.get(pair)
            if found is None or (found.analyzer.done() and found.analyzer.exception()):
                found = self._begun[pair] = Loading(pair, self._expected(*pair))
                if len(self._begun) > self._most:
                    self._begun.popitem(last=False)
                # A daemon, so that the end of the page does not wait for it.
                threading.Thread(target=self._run, args=[found], daemon=True).start()
            if pair in self._begun:
                self._begun.move_to_end(pair)
        return found

    def _run(self, loading: Loading) -> None:
        with self._turn:
            (model, space), began = loading.pair, time.monotonic()
            log.info("loading %s and its space %s: %s", model, space, loading.expected)
            try:
                analyzer = self._load(model, space)
            except Exception as error:  # noqa: BLE001 (whoever waits gets it)
                loading.analyzer.set_exception(error)
                return
            seconds = time.monotonic() - began
            log.info("%s is ready after %.0f s", model, seconds)
            try:
                write_json(self._record, self._taken() | {f"{space} {model}": round(seconds, 1)})
            except InputError as error:  # in the checkout of another user
                log.warning("%s", error)
            loading.analyzer.set_result(analyzer)

    def _expected(self, model: str, space: str) -> str:
        taken = self._taken()
        if f"{space} {model}" in taken:
            return f"about {taken[f'{space} {model}']:.0f} s, as the last time"
        return f"about {max(taken.values(), default=FIRST):.0f} s, as this is its first time here"

    def _taken(self) -> dict[str, float]:
        try:
            return {name: float(seconds) for name, seconds in read_json(self._record).items()}
        except (InputError, TypeError, ValueError):
            return {}

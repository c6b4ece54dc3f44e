"""Models and spaces of the local page, loaded in the background."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from singflow.cli import log
from singflow.photo.analyzer import Analyzer


@dataclass
class Loading:
    """A model and a space that are loaded, or will be."""

    model: str
    space: str
    began: float = field(default_factory=time.monotonic)
    analyzer: Future[Analyzer] = field(default_factory=Future)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        return f"Loading {self.model} and its space {self.space}: {seconds:.0f} s so far."


class Loader:
    """Analyzers by model and space, loaded by `load` one at a time; the last `most` are kept."""

    def __init__(self, load: Callable[[str, str], Analyzer], most: int) -> None:
        self._load, self._most = load, most
        self._begun: OrderedDict[tuple[str, str], Loading] = OrderedDict()
        self._turn, self._changing = threading.Lock(), threading.Lock()

    def __call__(self, model: str, space: str) -> Analyzer:
        """The analyzer of a model and a space, once it is loaded."""
        return self.begin(model, space).analyzer.result()

    def begin(self, model: str, space: str) -> Loading:
        """A thread loads a model and a space, unless they are kept or loaded already."""
        pair = model, space
        with self._changing:
            found = self._begun.pop(pair, None)
            if found is None or (found.analyzer.done() and found.analyzer.exception()):
                found = Loading(model, space)
                # A daemon, so that the end of the page does not wait for it.
                threading.Thread(target=self._run, args=[found], daemon=True).start()
            self._begun[pair] = found  # as the last
            if len(self._begun) > self._most:
                self._begun.popitem(last=False)
        return found

    def _run(self, loading: Loading) -> None:
        with self._turn:
            began = time.monotonic()
            log.info("loading %s and its space %s", loading.model, loading.space)
            try:
                analyzer = self._load(loading.model, loading.space)
            except Exception as error:  # noqa: BLE001 (whoever waits gets it)
                loading.analyzer.set_exception(error)
                return
            log.info("%s is ready after %.0f s", loading.model, time.monotonic() - began)
            loading.analyzer.set_result(analyzer)

"""The local web page that analyzes photos."""

import ipaddress
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.shards import towers_in
from singflow.artifacts.tables import read_models
from singflow.cli import log
from singflow.config.registry import MODELS, read_registry
from singflow.config.sections import at_hand
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.markdown import as_list, escaped
from singflow.photo.analyzer import Analyzer, Result
from singflow.photo.facts import describe_steered
from singflow.sources import require_file
from singflow.towers.live import open_image
from singflow.translators.reference import reference_folder

if TYPE_CHECKING:
    import gradio as gr
    from matplotlib.figure import Figure

Load = Callable[[str, str], Analyzer]

MOST_TEXTS, MOST_LETTERS = 20, 200  # texts in one request, letters in one text
WAITING = 100  # limit on the requests in the queue
KEPT = 4  # models that stay loaded
HOUR = 3600  # seconds after which photos and their results are deleted
EXAMPLES = 6
TITLE = "SING: what a classifier does not see"
HEADER = """# What does a classifier not see in your photo?

A classifier ends in a matrix. What that maps to zero, its null space, changes no logit. Here that
part of a photo is removed, and turned toward your words."""
FORMATS = "JPEG, PNG, WebP, GIF (its first picture), BMP or TIFF"
EMPTY = "Drop a photo, and what the classifier ignores in it is said here."
STEERING = "## Steer it where the classifier does not look"


class Looked(NamedTuple):
    """A photo that one user looks at, without its pixels, and what analyzed it."""

    analyzer: Analyzer
    result: Result

    def most(self, text: str) -> float:
        """The largest IS of the slider for a text, in degrees; 0 where there is no such text."""
        for way in self.result.reach:
            if way.text == text:
                return float(np.floor(10 * min(way.is_deg, 0.99 * way.limit_deg)) / 10)
        return 0.0


def offered(
    reference: str, results: Path | None, names: Sequence[str], into: Sequence[str], registry: Path
) -> tuple[list[str], list[str]]:
    """The named models and spaces, or all of a study or a reference.

    registry: of own models. Raises InputError if there is nothing to offer.
    """
    if results is None:
        folder = reference_folder(reference)
        known = read_registry(registry, MODELS).entries
        models, spaces = towers_in(folder)
        models = [name for name in models if name in known or "/" in name]
    else:
        folder = results
        table = read_models(require_file(CATALOG["tables/models.csv"].at(results)), [])
        models, spaces = (list(table[column].unique()) for column in ("model", "space"))
    models, spaces = list(names) or models, list(into) or spaces
    if not models or not spaces:
        raise InputError(
            f"{folder}: holds no model or space that could be offered: name the results folder "
            "of a finished study"
        )
    return models, spaces


def loader(**options: Any) -> Load:
    """Analyzers by model and space, of which the last ones stay; the page's queue asks for one.

    options: of Analyzer.load().
    """
    return lru_cache(KEPT)(partial(Analyzer.load, **options))


def texts_of(words: str) -> list[str]:
    """Distinct texts from the lines of a user's input."""
    texts = list(dict.fromkeys(filter(None, (line.strip() for line in words.splitlines()))))
    if len(texts) > MOST_TEXTS:
        raise InputError(
            f"{len(texts)} texts are more than the {MOST_TEXTS} that are looked at at once: leave "
            "some out"
        )
    if long := [text for text in texts if len(text) > MOST_LETTERS]:
        raise InputError(
            f"{long[0][:30]}…: has {len(long[0])} letters, more than {MOST_LETTERS}: shorten it"
        )
    return texts


def look(
    load: Load, max_pixels: int, photo: str | None, model: str, space: str, words: str
) -> tuple[Looked, str, "Figure"]:
    """Analyze a user's photo: the result, what is said of it in Markdown, and its figure."""
    if photo is None:
        raise InputError("no photo so far: drop or choose one")
    if not Path(photo).is_file():
        raise InputError("the photo is no longer here: drop it again")
    texts, name = texts_of(words) or None, "this photo"
    try:
        open_image(photo, max_pixels)  # before a model is waited for
    except InputError as error:
        raise InputError(str(error).replace(photo, name)) from None
    analyzer = load(model, space)
    result = analyzer.analyze(photo, texts, name=name, max_pixels=max_pixels)
    bare = replace(result, image=Image.new("RGB", (1, 1)))
    return Looked(analyzer, bare), as_list(str(result)), result.figure()


def blocks(
    models: list[str], spaces: list[str], load: Load, max_pixels: int, max_mb: int, uploads: Path
) -> "gr.Blocks":
    """The page; its queue analyzes one photo at a time. Examples are copied to the uploads."""
    import gradio as gr

    def nothing(said: str = EMPTY) -> tuple[Any, ...]:
        hidden = gr.update(visible=False)
        return said, hidden, None, hidden, gr.update(), gr.update(), ""

    def analyze(photo: str | None, model: str, space: str, words: str) -> tuple[Any, ...]:
        try:
            looked, said, figure = look(load, max_pixels, photo, model, space, words)
        except InputError as error:
            return nothing(f"**{escaped(str(error))}**")
        texts = [way.text for way in looked.result.reach]
        choices = gr.update(choices=texts, value=texts[0])
        shown, seen = gr.update(value=figure, visible=True), gr.update(visible=True)
        return said, shown, looked, seen, choices, *turn(looked, texts[0])

    def again(photo: str | None, *choices: str) -> tuple[Any, ...]:
        return analyze(photo, *choices) if photo else (gr.update(),) * len(outputs)

    def turn(looked: Looked | None, text: str) -> tuple[Any, str]:
        """The slider at 0 for a new text, and what is said below it."""
        most = looked.most(text) if looked else 0.0
        slider = gr.update(value=0, maximum=max(most, 0.1), interactive=most > 0)
        return slider, move(looked, text, 0)

    def move(looked: Looked | None, text: str, is_deg: float) -> str:
        if looked is None:
            return ""
        is_deg = min(is_deg, looked.most(text))
        steered = looked.analyzer.steer(looked.result, text, is_deg)
        return as_list(describe_steered(looked.result, steered))

    packaged = pd.read_csv(at_hand(Path("config/vocab/packaged.csv")))[::3][:EXAMPLES]
    folder = data_root("packaged", "")
    life = HOUR // 6, HOUR
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=life) as page:
        gr.Markdown(HEADER)
        looked = gr.State(time_to_live=HOUR)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                sources: Any = ["upload", "clipboard"]
                photo: Any = gr.Image(
                    label="Photo", sources=sources, height=260, buttons=[], elem_id="photo"
                )
                photo.preprocess = lambda file: file and file.path  # look() decodes, with limits
                gr.Markdown(f"{FORMATS}, up to {max_mb} MB. Or take one of these:")
                with gr.Row(elem_id="examples"):
                    for label, path in zip(packaged["label"], packaged["path"], strict=True):
                        file = shutil.copy(folder / path, uploads)
                        button = gr.Button(label, icon=file, size="sm", min_width=80)
                        taken = partial(str, file)
                        button.click(taken, outputs=photo, queue=False, api_visibility="private")
                words = gr.Textbox(
                    label="Words, one text a line",
                    placeholder="none: the three likeliest classes",
                    lines=3,
                    max_lines=6,
                    elem_id="words",
                )
                with gr.Row():
                    model = gr.Dropdown(models, value=models[0], label="Model", elem_id="model")
                    space = gr.Dropdown(spaces, value=spaces[0], label="Space", elem_id="space")
                ask = gr.Button("Say what it ignores", variant="primary", elem_id="look")
            with gr.Column(scale=5, min_width=320):
                said = gr.Markdown(EMPTY, latex_delimiters=[], elem_id="said")
                figure = gr.Plot(format="png", show_label=False, visible=False, elem_id="figure")
                with gr.Column(visible=False, elem_id="steering") as steering:
                    gr.Markdown(STEERING)
                    toward = gr.Radio([], label="Toward", elem_id="toward")
                    label = "Turn its meaning by (degrees)"
                    slider = gr.Slider(0, 1, 0, step=0.1, label=label, elem_id="turn", buttons=[])
                    way = gr.Markdown(latex_delimiters=[], elem_id="way")
        inputs = [photo, model, space, words]
        outputs: list[Any] = [said, figure, looked, steering, toward, slider, way]
        queued: Any = {"api_visibility": "private", "concurrency_id": "photos"}
        gr.on([ask.click, words.submit], analyze, inputs, outputs, show_progress_on=said, **queued)
        changed = [photo.change, model.change, space.change]
        gr.on(changed, again, inputs, outputs, show_progress_on=said, **queued)
        photo.clear(nothing, outputs=outputs, queue=False, api_visibility="private")
        quiet = queued | {"show_progress": "hidden"}
        toward.input(turn, [looked, toward], [slider, way], **quiet)
        slider.input(move, [looked, toward, slider], way, trigger_mode="always_last", **quiet)
    return page.queue(max_size=WAITING, api_open=False)


def serve(page: Callable[[Path], "gr.Blocks"], host: str, port: int | None, max_mb: int) -> None:
    """Serve a page until Ctrl-C; without a port, at the first free one from 7860 on.

    At an address of this machine alone, requests under other host names are refused.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    alone = is_loopback(host)
    names = ["localhost", f"[{host}]" if ":" in host else host] if alone else ["*"]
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    with tempfile.TemporaryDirectory(prefix="singflow-app-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        import gradio as gr  # which reads them

        fills = ("", "_hover", "_dark", "_hover_dark")  # dark enough for white letters
        theme = gr.themes.Default(primary_hue="blue", **fonts).set(
            **{f"button_primary_background_fill{fill}": "*primary_700" for fill in fills}
        )
        if not alone:
            log.warning("whoever reaches %s can use the page: it asks for no password", host)
        served = page(Path(folder))
        try:
            _, address, _ = served.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                max_file_size=max_mb * 2**20,
                theme=theme,
                app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=names)]},
                run_history=False,
                ssr_mode=False,
                enable_monitoring=False,
            )
        except OSError as error:
            raise InputError(f"--host {host} --port {port}: {error}: name another") from None
        log.info("the page is at %s until Ctrl-C", address)
        try:
            threading.Event().wait()
        finally:
            served.close(verbose=False)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

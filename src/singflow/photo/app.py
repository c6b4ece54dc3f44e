"""The local web page that analyzes photos, and its server."""

import asyncio
import html
import ipaddress
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from PIL import Image

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.shards import read_manifest, towers_in
from singflow.artifacts.tables import read_models, read_parquet
from singflow.cli import log, scratch
from singflow.config.registry import MODELS, read_registry
from singflow.config.sections import at_hand
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.photo.analysis import Reach, steering_path
from singflow.photo.analyzer import CACHE, Analyzer, Result
from singflow.photo.finished import asked, require_file
from singflow.photo.guard import Guard, checked_calls
from singflow.photo.loading import Loader
from singflow.photo.page import Picture, analysis_html, maps_html, model_html, steering_html
from singflow.towers.live import open_image
from singflow.translators.reference import reference_folder

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

MOST_TEXTS, MOST_LETTERS = 20, 200  # texts in one request, letters in one text
POINTS = 24  # of the curve that shows the way toward a text
WAITING = 100  # limit on the requests in the queue
CONNECTIONS = 200  # at once, of which an open page has two
SESSIONS = 1000  # open pages whose photo is remembered
KEPT = 4  # models that stay loaded
HOUR = 3600  # seconds after which photos and their results are deleted
EXAMPLES = 6
WORDS = "none: the three likeliest classes"
TITLE = "SING: what a classifier does not see"
HEADER = (
    '<header class="sing"><h1>What does a classifier not see in your photo?</h1><p>A classifier '
    "ends in a matrix. What that maps to zero, its null space, changes no logit. Here that part of "
    "a photo is removed, and turned toward your words.</p></header>"
)
HINT = '<p class="sing hint">{}</p>'
FORMATS = "JPEG, PNG, WebP, GIF (its first picture), BMP or TIFF"
DRAWN = {  # captions of the pictures of figure 1
    "original": "drawn by Karlo, before",
    "null removed": "drawn by Karlo, after null removal",
}
EMPTY = HINT.format("Drop a photo, and what the classifier ignores in it is said here.")
STEERING = "Steer it where the classifier does not look"
# On a phone, what is said of a photo is a screen or two below the photo.
SHOW = """(...inputs) => {
    const said = document.querySelector("#about");
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (inputs[0] && said.getBoundingClientRect().top > innerHeight / 2) {
        said.scrollIntoView({behavior: still ? "instant" : "smooth"});
    }
    return inputs;
}"""
# What the browser cannot show, such as a TIFF file or what is no photo, leaves no broken picture.
SHOWN = """() => ["load", "error"].forEach(kind => document.addEventListener(kind, event => {
    if (event.target.closest?.("#photo")) {
        event.target.classList.toggle("broken", kind === "error");
    }
}, true))"""
# With this policy, the browser sends no request to any other host.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'"
)
HEADERS = [("content-security-policy", POLICY)]


@dataclass
class PageState:
    """The models and spaces that the page offers.

    load: the analyzers. results: folder of a study, or None. max_pixels: limit on the size of a
    photo.
    """

    models: list[str]
    spaces: list[str]
    load: Loader
    results: Path | None
    max_pixels: int

    @classmethod
    def open(
        cls,
        reference: str,
        results: Path | None,
        names: Sequence[str],
        into: Sequence[str],
        max_pixels: int,
        **parts: Any,
    ) -> Self:
        """Offer the named models and spaces, or all that exist.

        Raises InputError if there is nothing to offer. `parts` are options of Analyzer.load().
        """
        if results is None:
            folder = reference_folder(reference)
            known = read_registry(parts["models"], MODELS).entries
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

        make = partial(Analyzer.load, reference=reference, results=results, **parts)
        load = Loader(make, Path(parts.get("cache", CACHE)) / "seconds.json", KEPT)
        return cls(models, spaces, load, results, max_pixels)


@dataclass
class PhotoSession:
    """A photo that one user looks at; its pixels are not kept."""

    analyzer: Analyzer
    result: Result

    @property
    def texts(self) -> list[str]:
        """Texts that the photo can be steered toward."""
        return [reach.text for reach in self.result.reach]

    def reach(self, text: str) -> tuple[Reach, float]:
        """How far the photo can be steered toward a text, and the largest IS of the slider."""
        reach = self.result.reach[self.texts.index(text)]
        return reach, np.floor(10 * min(reach.is_deg, 0.99 * reach.limit_deg)) / 10


def texts_of(words: str) -> list[str]:
    """Distinct texts from the lines of a user's input."""
    texts = list(dict.fromkeys(filter(None, (line.strip() for line in words.splitlines()))))
    if len(texts) > MOST_TEXTS:
        raise InputError(
            f"{len(texts)} texts are more than the {MOST_TEXTS} that are looked at at once: leave "
            "some out"
        )
    for text in texts:
        if len(text) > MOST_LETTERS:
            raise InputError(
                f"{text[:30]}…: has {len(text)} letters, more than {MOST_LETTERS}: shorten it"
            )
    return texts


class NoPhoto(InputError):
    """What was given is no photo that can be looked at."""


def analyze_upload(
    state: PageState, model: str, space: str, photo: str | None, words: str
) -> tuple[PhotoSession, str, str, str]:
    """Analyze a user's photo; returns the HTML of analysis_html() and maps_html(), too."""
    if photo is None:
        raise NoPhoto("no photo so far: drop or choose one")
    if not Path(photo).is_file():
        raise NoPhoto("the photo is no longer here: drop it again")
    if model not in state.models or space not in state.spaces:
        raise InputError(f"{model} in {space}: is not offered here")
    texts, name = texts_of(words) or None, "this photo"
    try:
        open_image(photo, state.max_pixels)  # before a model is waited for
    except InputError as error:
        raise NoPhoto(str(error).replace(photo, name)) from None
    analyzer = state.load(model, space)
    result = analyzer.analyze(photo, texts, name=name, max_pixels=state.max_pixels)
    maps = maps_html(result, result.image)
    result = replace(result, image=Image.new("RGB", (1, 1)))
    pictures = drawn_pictures(state.results, result)
    said = analysis_html(result, analyzer.loaded.known, pictures)
    return PhotoSession(analyzer, result), *said, maps


def drawn_pictures(results: Path | None, result: Result) -> list[Picture]:
    """Karlo's pictures before and after null removal, if a study has some of this photo."""
    if results is None or "pictures" not in asked(results):
        return []
    setting = result.setting
    path = CATALOG["pictures"].at(results, model=setting.model, space=setting.space)
    if not path.is_file():
        return []
    drawn = read_parquet(path)
    drawn = drawn[(drawn["figure"] == "fig1") & (drawn["renderer"] == "unclip")]
    if drawn.empty:
        return []
    sha256 = read_manifest(CATALOG["manifest"].at(results))["sha256"]
    drawn = drawn[sha256[drawn["image_id"]].to_numpy() == result.sha256].drop_duplicates("change")
    by_change = dict(zip(drawn["change"], drawn["picture"], strict=True))
    if not DRAWN.keys() <= by_change.keys():
        return []
    return [(caption, open_image(by_change[change])) for change, caption in DRAWN.items()]


def steer_photo(session: PhotoSession, text: str, is_deg: float) -> str:
    """HTML that shows the photo steered toward a text to an IS of at most the slider's maximum."""
    analyzer, features = session.analyzer, session.result.features
    reach, most = session.reach(text)
    now = analyzer.steer(session.result, text, min(max(is_deg, 0.0), most))
    (embedding,), targets = analyzer.loaded.texts.embed([text]), np.linspace(0, most, POINTS)
    path = steering_path(features, analyzer.loaded, embedding, targets)
    before, after = analyzer.loaded.classifier.predict(np.stack([features[0], now.feature]))
    steered = {prediction.index: prediction for prediction in after}
    likeliest = [steered.get(prediction.index, prediction) for prediction in before]
    return steering_html(reach, path, now, before, likeliest)


def blocks(state: PageState, max_mb: int) -> "gr.Blocks":
    """The page; its queue analyzes one photo at a time."""
    import gradio as gr

    empty = "", "", None, gr.update(visible=False), gr.update(), gr.update(), ""

    def analyze(photo: str | None, model: str, space: str, words: str) -> tuple[Any, ...]:
        try:
            session, *said = analyze_upload(state, model, space, photo, words)
        except InputError as error:
            when = time.monotonic() if isinstance(error, NoPhoto) else gr.update()
            return refused(error), *empty, when
        texts = session.texts
        choices = gr.update(choices=texts, value=texts[0])
        shown = gr.update(visible=True), choices, *turn(session, texts[0])
        return *said, session, *shown, gr.update()

    def look_again(photo: str | None, *choices: str) -> tuple[Any, ...]:
        return analyze(photo, *choices) if photo else (gr.update(),) * (len(empty) + 2)

    def clear() -> tuple[Any, ...]:
        return EMPTY, *empty

    async def tell(model: str, space: str) -> AsyncIterator[str]:
        """What the test says about the model; until it is loaded, how long this takes."""
        if model not in state.models or space not in state.spaces:
            return
        loading = state.load.begin(model, space)
        while not loading.analyzer.done():
            yield f'<p class="sing loading" role="status">{html.escape(str(loading))}</p>'
            await asyncio.sleep(1)
        try:
            yield model_html(loading.analyzer.result().loaded.setting)
        except InputError as error:
            yield refused(error)

    def turn(session: PhotoSession | None, text: str) -> tuple[Any, str]:
        """The slider at 0 for a new text, and the HTML below it."""
        if session is None or text not in session.texts:
            return gr.update(), ""
        most = session.reach(text)[1]
        slider = gr.update(value=0, maximum=max(most, 0.1), interactive=most > 0)
        return slider, steer_photo(session, text, 0)

    def move(session: PhotoSession | None, text: str, is_deg: float) -> str:
        return steer_photo(session, text, is_deg) if session and text in session.texts else ""

    def dropdown(names: list[str], label: str) -> Any:
        where = {"elem_id": label.lower(), "min_width": 130}
        return gr.Dropdown(names, value=names[0], label=label, filterable=False, **where)

    packaged = pd.read_csv(at_hand(Path("config/vocab/packaged.csv")))[::3][:EXAMPLES]
    folder = data_root("packaged", "")
    life = (HOUR // 6, HOUR)
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=life
    ) as page:
        gr.HTML(HEADER)
        session = gr.State(time_to_live=HOUR)
        # When a photo was refused; an update of the photo itself would restore preprocess.
        no_photo = gr.State()
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                sources: Any = ["upload", "clipboard"]
                photo: Any = gr.Image(
                    label="Photo", sources=sources, height=230, buttons=[], elem_id="photo"
                )
                # Gradio must not decode the file: read() does so, with its own limits.
                photo.preprocess = lambda file: file and file.path
                gr.HTML(HINT.format(f"{FORMATS}, up to {max_mb} MB. Or take one of these:"))
                with gr.Row(elem_id="examples"):
                    examples = [
                        (gr.Button(label, icon=folder / path, size="sm", min_width=80), path)
                        for label, path in zip(packaged["label"], packaged["path"], strict=True)
                    ]
                label = "Words, one text a line"
                words = gr.Textbox(
                    placeholder=WORDS, label=label, lines=3, max_lines=6, elem_id="words"
                )
                with gr.Row():
                    model, space = dropdown(state.models, "Model"), dropdown(state.spaces, "Space")
                button = gr.Button("Say what it ignores", variant="primary", elem_id="look")
            with gr.Column(scale=5, min_width=320):
                about = gr.HTML(elem_id="about")
                scores = gr.HTML(EMPTY, elem_id="said")
                with gr.Column(visible=False, elem_id="steering") as steering:
                    gr.HTML(f'<div class="sing"><h2>{STEERING}</h2></div>')
                    toward = gr.Radio([], label="Toward", elem_id="toward")
                    label = "Turn its meaning by (degrees)"
                    slider = gr.Slider(0, 1, 0, step=0.1, label=label, elem_id="turn", buttons=[])
                    way = gr.HTML(elem_id="way")
                maps = gr.HTML(elem_id="maps")
                movements = gr.HTML(elem_id="moved")
        private: dict[str, Any] = {"api_visibility": "private"}
        queued = private | {"concurrency_id": "photos", "concurrency_limit": 1}
        hidden = {"show_progress": "hidden"}
        for example, path in examples:
            example.click(
                partial(str, folder / path), outputs=photo, queue=False, **private | hidden
            )
        for choice in (model, space, toward, slider):
            choice.preprocess = lambda value: value  # analyze, turn and move look at it
        inputs = [photo, model, space, words]
        outputs = [scores, movements, maps, session, steering, toward, slider, way]
        into: Any = [*outputs, no_photo]
        looking = queued | {"show_progress_on": scores, "js": SHOW}
        gr.on([button.click, words.submit], analyze, inputs, into, **looking)
        toward.input(turn, [session, toward], [slider, way], **queued | hidden)
        latest = queued | hidden | {"trigger_mode": "always_last"}
        slider.input(move, [session, toward, slider], [way], **latest)
        changed = [photo.change, model.change, space.change]
        gr.on(changed, look_again, inputs, into, **looking)
        no_photo.change(lambda: None, outputs=photo, queue=False, **private | hidden)
        photo.clear(clear, outputs=outputs, queue=False, **private | hidden)
        told = [page.load, model.change, space.change]
        alone = private | hidden | {"concurrency_limit": None}
        gr.on(told, tell, [model, space], [about], **alone)
    page.state_session_capacity = SESSIONS
    return page.queue(max_size=WAITING, api_open=False)


def refused(error: InputError) -> str:
    """The HTML that says why something cannot be done."""
    return f'<p class="sing refused" role="alert">{html.escape(str(error))}</p>'


def application(state: PageState, host: str, max_mb: int) -> "FastAPI":
    """The page as a web application.

    If `host` is an address of this machine alone, requests under other host names are refused.
    """
    import gradio as gr
    from fastapi import Depends, FastAPI
    from gradio.utils import get_upload_folder
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    around = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page, max_bytes = blocks(state, max_mb), max_mb * 2**20
    folder = Path(get_upload_folder()).resolve()
    around.add_middleware(Guard, folder=folder, max_bytes=max_bytes)
    allowed = ["localhost", in_url(host)] if is_loopback(host) else ["*"]
    around.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    theme = gr.themes.Default(primary_hue="blue", **fonts)
    fill = {
        "button_primary_background_fill": "*primary_700",
        "button_primary_background_fill_hover": "*primary_800",
    }
    theme.set(**fill, **{f"{name}_dark": colour for name, colour in fill.items()})
    off = dict.fromkeys(
        ("run_history", "ssr_mode", "show_error", "enable_monitoring", "pwa", "mcp_server"), False
    )
    return gr.mount_gradio_app(
        around,
        page,
        "/",
        app_kwargs={"dependencies": [Depends(checked_calls(folder, page))]},
        server_name=host,
        footer_links=[],
        max_file_size=max_bytes,
        theme=theme,
        css_paths=[Path(__file__).with_name("page.css")],
        js=SHOWN,
        **off,
    )


def in_url(host: str) -> str:
    """An address as written in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(state: PageState, host: str, port: int, max_mb: int) -> None:
    """Serve the page until Ctrl-C; port 0 takes a free port."""
    import uvicorn

    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}: name another") from None
    first = state.load.begin(state.models[0], state.spaces[0]).analyzer
    with listening, scratch("singflow-app-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        app = application(state, host, max_mb)
        if not is_loopback(host):
            log.warning("whoever reaches %s can use the page: it asks for no password", host)
        logging.getLogger("uvicorn.error").addFilter(_is_expected)
        log.info(
            "the page is at http://%s:%d/ until Ctrl-C", in_url(host), listening.getsockname()[1]
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=2,
            headers=HEADERS,
            limit_concurrency=CONNECTIONS,
        )
        server = uvicorn.Server(config)

        def stop_if_failed(done: Future[Analyzer]) -> None:
            server.should_exit |= done.exception() is not None

        first.add_done_callback(stop_if_failed)
        server.run([listening])
        if first.done():
            first.result()  # raises what stopped it


def _is_expected(record: logging.LogRecord) -> bool:
    """Whether to keep a record of the server's log: not of its shutdown, or of a tab that left."""
    from starlette.requests import ClientDisconnect

    expected = asyncio.CancelledError, ClientDisconnect
    ended = record.exc_info and record.exc_info[0] in expected
    return not ended and "graceful shutdown" not in str(record.msg)

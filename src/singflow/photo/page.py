"""The local web page that analyzes photos, and its server."""

import asyncio
import hashlib
import html
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from PIL import Image

from singflow.artifacts.tables import read_models, read_parquet
from singflow.cli import log, scratch
from singflow.config.reading import read_yaml
from singflow.data.images import Unusable, read
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.photo.analysis import Reach
from singflow.photo.analyzer import Analyzer, Result
from singflow.photo.shown import analysis_html, steering_html
from singflow.photo.study import existing
from singflow.photo.towers import open_image
from singflow.translators.reference import reference_folder, towers_in

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

MOST_TEXTS, MOST_LETTERS = 20, 200  # texts in one request, letters in one text
POINTS = 24  # of the curve that shows the way toward a text
WAITING = 100  # limit on the requests in the queue
KEPT = 4  # models that stay loaded
HOUR = 3600  # seconds after which photos and their results are deleted
EXAMPLES = 6
PACKAGED = Path("config/vocab/packaged.csv")
WORDS = "a beach\na dog"
# With this policy, the browser sends no request to any other host.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'"
)


@dataclass
class Desk:
    """The models and spaces that the page offers.

    load: returns the analyzer of a model and a space. results: folder of a study, or None.
    """

    models: list[str]
    spaces: list[str]
    load: Callable[[str, str], Analyzer]
    results: Path | None

    @classmethod
    def open(
        cls,
        reference: str,
        results: Path | None,
        names: Sequence[str],
        into: Sequence[str],
        **parts: Any,
    ) -> Self:
        """Offer the named models and spaces, or all that exist, and load the first of both.

        Raises InputError if there is nothing to offer. `parts` are options of Analyzer.load().
        """
        if results is None:
            folder, known = reference_folder(reference), read_yaml(Path(parts["models"]))
            of_models, of_spaces = towers_in(folder)
            offered = [name for name in of_models if name in known or "/" in name], of_spaces
        else:
            table = read_models(existing(results / "tables/models.csv"), [])
            folder, offered = (
                results,
                (list(table["model"].unique()), list(table["space"].unique())),
            )
        models, spaces = list(names) or offered[0], list(into) or offered[1]
        if not models or not spaces:
            raise InputError(
                f"{folder}: holds no model or space that could be offered: name the results folder "
                "of a finished study"
            )
        load = lru_cache(KEPT)(
            partial(Analyzer.load, reference=reference, results=results, **parts)
        )
        load(models[0], spaces[0])
        return cls(models, spaces, load, results)


@dataclass
class Seen:
    """A photo that one user looks at.

    ways: by text, pairs of IS and angle to the text on the way there; filled at the first request.
    """

    analyzer: Analyzer
    result: Result
    sha256: str
    ways: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def way(self, text: str) -> tuple[Reach, float]:
        """How far the photo can be steered toward a text, and the largest IS of the slider."""
        reach = next(reach for reach in self.result.reach if reach.text == text)
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


def look(
    desk: Desk, model: str, space: str, photo: str | None, words: str, max_pixels: int
) -> tuple[Seen, str, str]:
    """Analyze a user's photo; returns the two pieces of HTML of analysis_html(), too."""
    if photo is None:
        raise InputError("no photo so far: drop or choose one")
    if model not in desk.models or space not in desk.spaces:
        raise InputError(f"{model} in {space}: is not offered here")
    texts = texts_of(words)
    try:
        content = read(Path(photo), max_pixels)
    except (OSError, Unusable) as error:
        raise InputError(
            f"this photo: {error if isinstance(error, Unusable) else error.strerror}"
        ) from None
    analyzer = desk.load(model, space)
    result = analyzer.analyze(content, texts, name="this photo", max_pixels=max_pixels)
    seen = Seen(
        analyzer,
        replace(result, image=Image.new("RGB", (1, 1))),
        hashlib.sha256(content).hexdigest(),
    )
    pictures = _drawn(desk, seen, model, space) or _nearest(result, max_pixels)
    return seen, *analysis_html(result, result.setting, analyzer.artifacts.usual, pictures)


def _drawn(desk: Desk, seen: Seen, model: str, space: str) -> list[tuple[str, Image.Image | None]]:
    """Karlo's pictures before and after null removal, if the study has some of this photo."""
    photos = seen.result.photos
    path = desk.results / f"pictures/{space}/{model}.parquet" if desk.results else None
    if photos is None or path is None or not path.is_file():
        return []
    ids = np.flatnonzero(photos.manifest["sha256"] == seen.sha256)
    if not len(ids):
        return []
    drawn = read_parquet(path)
    drawn = drawn[
        (drawn["figure"] == "fig1") & (drawn["renderer"] == "unclip") & drawn["image_id"].isin(ids)
    ]
    sides = [drawn[drawn["change"] == change].head(1) for change in ("original", "null removed")]
    if any(side.empty for side in sides):
        return []
    captions = ("drawn by Karlo, before", "drawn by Karlo, after null removal")
    return [
        (caption, open_image(side["picture"].iloc[0]))
        for caption, side in zip(captions, sides, strict=True)
    ]


def _nearest(result: Result, max_pixels: int) -> list[tuple[str, Image.Image | None]]:
    """The photos of the study that are nearest before and after null removal."""
    if result.photos is None or result.photos.root is None:
        return []
    names = ("nearest photo before", "nearest photo after null removal")
    return [
        (f"{name}: {photo.path}, {photo.angle_deg:.1f}°", result.photos.picture(photo, max_pixels))
        for name, photo in zip(names, result.nearest, strict=False)
    ]


def steer(seen: Seen, text: str, is_deg: float, max_pixels: int) -> str:
    """HTML that shows the photo steered toward a text to an IS of at most the slider's maximum."""
    analyzer, (reach, most) = seen.analyzer, seen.way(text)
    now = analyzer.steer(seen.result, text, min(is_deg, most))
    if text not in seen.ways:
        steps = (
            analyzer.steer(seen.result, text, target) for target in np.linspace(0, most, POINTS)
        )
        seen.ways[text] = [(step.is_deg, step.angle_deg) for step in steps]
    classifier = analyzer.known.classifier
    before, after = classifier.predict(np.stack([seen.result.features[0], now.feature]))
    probabilities = {prediction.index: prediction for prediction in after}
    near = (
        _nearest(
            replace(seen.result, nearest=analyzer.nearest(now.embedding[None], seen.sha256)),
            max_pixels,
        )
        if seen.result.photos
        else []
    )
    shown = [
        (f"nearest photo now{caption.removeprefix('nearest photo before')}", picture)
        for caption, picture in near
        if picture
    ]
    return steering_html(
        reach,
        seen.ways[text],
        now,
        before,
        [probabilities.get(prediction.index, prediction) for prediction in before],
        shown[0] if shown else None,
    )


def example_photos() -> list[tuple[str, Path]]:
    """Labels and files of some photos of the foolbox package, for users without a photo."""
    listed = pd.read_csv(PACKAGED)
    folder = data_root("packaged", "")
    return [
        (str(label), folder / str(path))
        for label, path in zip(listed["label"], listed["path"], strict=True)
    ][::3][:EXAMPLES]


def blocks(desk: Desk, max_mb: int, max_pixels: int) -> "gr.Blocks":
    """The page; its queue analyzes one photo at a time."""
    import gradio as gr

    def analyze(photo: str | None, model: str, space: str, words: str) -> tuple[Any, ...]:
        try:
            seen, said, moved = look(desk, model, space, photo, words, max_pixels)
        except InputError as error:
            refused = f'<p class="sing refused" role="alert">{html.escape(str(error))}</p>'
            return refused, "", None, gr.update(visible=False), gr.update(), gr.update(), ""
        texts = [reach.text for reach in seen.result.reach]
        if not texts:
            return said, moved, seen, gr.update(visible=False), gr.update(), gr.update(), ""
        choices = gr.update(choices=texts, value=texts[0])
        return said, moved, seen, gr.update(visible=True), choices, *turned(seen, texts[0])

    def turned(seen: Seen | None, text: str) -> tuple[Any, str]:
        """The slider at 0 for a new text, and the HTML below it."""
        if seen is None or text not in [reach.text for reach in seen.result.reach]:
            return gr.update(), ""
        most = seen.way(text)[1]
        return gr.update(value=0, maximum=max(most, 0.1), interactive=most > 0), steer(
            seen, text, 0, max_pixels
        )

    def move(seen: Seen | None, text: str, is_deg: float) -> str:
        if seen is None or text not in [reach.text for reach in seen.result.reach]:
            return ""
        return steer(seen, text, is_deg, max_pixels)

    with gr.Blocks(
        title="SING: what a classifier does not see",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(HOUR // 6, HOUR),
    ) as page:
        gr.HTML(
            '<header class="sing"><h1>What does a classifier not see in your photo?</h1><p>'
            "A classifier ends in a matrix. What that maps to zero, its null space, changes no "
            "logit. Here that part of a photo is removed, and turned toward your words.</p>"
            "</header>"
        )
        seen = gr.State(time_to_live=HOUR)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo: Any = gr.Image(
                    label="Photo",
                    sources=["upload", "clipboard"],
                    height=300,
                    buttons=[],
                    elem_id="photo",
                )
                # Gradio must not decode the file: read() does so, with its own limits.
                photo.preprocess = lambda file: file and file.path
                gr.HTML(
                    '<p class="sing hint">JPEG, PNG, WebP, GIF (its first picture), BMP or TIFF, '
                    f"up to {max_mb} MB.</p>"
                )
                words = gr.Textbox(
                    WORDS, label="Words, one text a line", lines=3, max_lines=6, elem_id="words"
                )
                model = gr.Dropdown(
                    desk.models,
                    value=desk.models[0],
                    label="Model",
                    elem_id="model",
                    filterable=False,
                )
                space = gr.Dropdown(
                    desk.spaces,
                    value=desk.spaces[0],
                    label="Space",
                    elem_id="space",
                    filterable=False,
                )
                button = gr.Button("Say what it ignores", variant="primary", elem_id="look")
                gr.HTML('<p class="sing hint">Or take one of these:</p>')
                with gr.Row(elem_id="examples"):
                    examples = [
                        (gr.Button(label, icon=path, size="sm", min_width=80), path)
                        for label, path in example_photos()
                    ]
            with gr.Column(scale=5, min_width=320):
                said = gr.HTML(
                    '<p class="sing hint">Drop a photo, and what the classifier ignores in it is '
                    "said here.</p>",
                    elem_id="said",
                )
                with gr.Column(visible=False, elem_id="steering") as steering:
                    gr.HTML(
                        '<div class="sing"><h2>Steer it where the classifier does not look</h2>'
                        "</div>"
                    )
                    toward = gr.Radio([], label="Toward", elem_id="toward")
                    slider = gr.Slider(
                        0,
                        1,
                        0,
                        step=0.1,
                        label="Turn its meaning by (degrees)",
                        elem_id="turn",
                        buttons=[],
                    )
                    way = gr.HTML(elem_id="way")
                moved = gr.HTML(elem_id="moved")
        queued: dict[str, Any] = {
            "concurrency_id": "photos",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        for example, path in examples:
            example.click(
                partial(str, path),
                outputs=photo,
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
        looked = [photo.change, button.click, words.submit, model.input, space.input]
        found = [said, moved, seen, steering, toward, slider, way]
        gr.on(looked, analyze, [photo, model, space, words], found, show_progress_on=said, **queued)
        toward.input(turned, [seen, toward], [slider, way], show_progress="hidden", **queued)
        slider.input(
            move,
            [seen, toward, slider],
            [way],
            show_progress="hidden",
            trigger_mode="always_last",
            **queued,
        )
    return page.queue(max_size=WAITING, api_open=False)


def application(desk: Desk, host: str, max_mb: int, max_pixels: int) -> "FastAPI":
    """The page as a web application that lets the browser contact no other host.

    If `host` is an address of this machine alone, requests under other host names are refused.
    """
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    class Guarded:
        """Adds the content security policy to every response."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def answer(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [
                        *message["headers"],
                        (b"content-security-policy", POLICY.encode()),
                    ]
                await send(message)

            await self.app(scope, receive, answer)

    around = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    around.add_middleware(Guarded)
    around.add_middleware(
        TrustedHostMiddleware, allowed_hosts=["localhost", in_url(host)] if is_own(host) else ["*"]
    )
    font = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="blue", font=font, font_mono=["ui-monospace", "monospace"]
    )
    fill = {
        "button_primary_background_fill": "*primary_700",
        "button_primary_background_fill_hover": "*primary_800",
    }
    theme.set(**fill, **{f"{name}_dark": colour for name, colour in fill.items()})
    return gr.mount_gradio_app(
        around,
        blocks(desk, max_mb, max_pixels),
        "/",
        server_name=host,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        max_file_size=max_mb * 2**20,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css_paths=[Path(__file__).with_name("page.css")],
    )


def in_url(host: str) -> str:
    """An address as written in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def is_own(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(desk: Desk, host: str, port: int, *, max_mb: int, max_pixels: int) -> None:
    """Serve the page until Ctrl-C; port 0 takes a free port."""
    import uvicorn

    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}: name another") from None
    with listening, scratch("singflow-app-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        app = application(desk, host, max_mb, max_pixels)
        if not is_own(host):
            log.warning("whoever reaches %s can use the page: it asks for no password", host)
        logging.getLogger("uvicorn.error").addFilter(_meant)
        log.info(
            "the page is at http://%s:%d/ until Ctrl-C", in_url(host), listening.getsockname()[1]
        )
        uvicorn.Server(
            uvicorn.Config(app, log_config=None, log_level="warning", timeout_graceful_shutdown=2)
        ).run([listening])


def _meant(record: logging.LogRecord) -> bool:
    """Whether to keep a record of the server's log; records of its shutdown are dropped."""
    ended = record.exc_info and record.exc_info[0] is asyncio.CancelledError
    return not ended and "graceful shutdown" not in str(record.msg)

"""The analysis of one photo as HTML, with charts in the colours of the page."""

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from singflow.figures.style import COLOURS, STYLE
from singflow.photo.analysis import Analysis, Prediction, Reach, Setting, Steered, Usual
from singflow.photo.words import (
    movement_line,
    prediction_lines,
    score_lines,
    word_lines,
    zero_lines,
)

THUMBNAIL = 320  # pixels of the longest side
INK = "#123456"  # placeholder for the text colour of the page, light or dark
PHOTO, BEFORE = COLOURS[5], COLOURS[4]
CHART: dict[Any, Any] = STYLE | {
    "svg.fonttype": "none",
    "svg.hashsalt": "singflow",
    **dict.fromkeys(
        ["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK
    ),
}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def chart(draw: Callable[[Axes], None], said: str, width: float, height: float) -> str:
    """An SVG chart in the page's text colour; `said` describes it for screen readers."""
    buffer = io.StringIO()
    with matplotlib.rc_context(CHART):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    picture = buffer.getvalue()
    picture = picture[picture.index("<svg") :].replace(INK, "currentColor")
    label = html.escape(said)
    return re.sub(  # the replacement is a function because the label may hold backslashes
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        lambda svg: f'<svg {svg[1]} role="img" aria-label="{label}">',
        picture,
        count=1,
    )


def thumbnail(picture: Image.Image) -> str:
    """A small version of a picture, as a data URL."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def analysis_html(
    analysis: Analysis,
    setting: Setting,
    usual: Usual | None,
    pictures: Sequence[tuple[str, Image.Image | None]],
) -> tuple[str, str]:
    """The HTML of scores and verdict, and the HTML of the texts that null removal moves.

    `pictures` has captions and pictures before and after null removal, or None for a missing file.
    """
    charts = []
    if usual is not None and setting.null_dim:
        charts.append(
            _among(
                "how far null removal turns it (IS)",
                analysis.is_deg,
                analysis.is_percentile,
                usual.is_deg,
                setting,
                "°",
            )
        )
        energy = (
            100 * analysis.null_energy,
            analysis.null_energy_percentile,
            100 * usual.null_energy,
        )
        charts.append(_among("null energy", *energy, setting, " %"))
    sides = [("as_contrast_deg", "Classes", analysis.classes_gained, analysis.classes_lost)]
    sides += [("as_deg", "Concepts", analysis.gained, analysis.lost)]
    said = TEMPLATES.get_template("analysis.html").render(
        setting=setting,
        charts=charts,
        likeliest=prediction_lines(analysis),
        first=zero_lines(setting),
        lines=score_lines(analysis, setting),
        pictures=[(caption, picture and thumbnail(picture)) for caption, picture in pictures],
    )
    shown = [side for side in sides if side[2] or side[3]]
    texts, words = [analysis.predicted, *analysis.texts], [] if shown else word_lines(analysis)
    return said, TEMPLATES.get_template("movements.html").render(
        texts=texts, movement_line=movement_line, sides=shown, words=words
    )


def _among(
    name: str,
    score: float,
    percentile: float | None,
    usual: np.ndarray,
    setting: Setting,
    unit: str,
) -> tuple[str, str]:
    """The name of a score, and a chart of the score among the scores of known images."""

    def draw(axes: Axes) -> None:
        axes.hist(usual, bins=30, color="0.6", alpha=0.6)
        axes.axvline(score, color=PHOTO, lw=2.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel({"°": "degrees", " %": "percent"}[unit])

    place = f", more than in {percentile:.0f} % of the {setting.images}"
    return name, chart(draw, f"{name}: this photo has {score:.1f}{unit}{place}", 2.8, 1.6)


def steering_html(
    way: Reach,
    path: Sequence[tuple[float, float]],
    now: Steered,
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    near: tuple[str, Image.Image] | None,
) -> str:
    """The HTML of a photo steered toward a text.

    path: pairs of IS and angle to the text, in degrees. before, after: the same classes, before and
    after steering. near: caption and picture of the photo nearest to the steered feature.
    """

    def draw_way(axes: Axes) -> None:
        axes.plot(*zip(*path, strict=True), color=INK, lw=1.2, alpha=0.6)
        axes.scatter([now.is_deg], [now.angle_deg], s=70, color=PHOTO, zorder=3)
        axes.set_xlabel("meaning turned by (degrees)")
        axes.set_ylabel("to the text (degrees)")

    def draw_logits(axes: Axes) -> None:
        places = np.arange(len(before))
        axes.barh(
            places - 0.2,
            [100 * prediction.probability for prediction in before],
            0.36,
            color=BEFORE,
            label="the photo",
        )
        axes.barh(
            places + 0.2,
            [100 * prediction.probability for prediction in after],
            0.36,
            color=PHOTO,
            label="steered",
        )
        axes.set_yticks(
            places,
            [
                prediction.name if len(prediction.name) < 26 else f"{prediction.name[:24]}…"
                for prediction in before
            ],
        )
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("probability (percent)")
        axes.legend(fontsize=7, loc="lower right")

    said = (
        f"Angle to “{way.text}” by how far the meaning is turned: {now.angle_deg:.1f}° at "
        f"{now.is_deg:.1f}°, {way.angle_deg:.1f}° at 0°"
    )
    likeliest = ", ".join(
        f"{a.name} {100 * a.probability:.1f} % and {100 * b.probability:.1f} %"
        for a, b in zip(before, after, strict=True)
    )
    charts = [
        ("Where the photo goes", chart(draw_way, said, 3.4, 2.3)),
        (
            "What the classifier says",
            chart(draw_logits, f"Likeliest classes before and after: {likeliest}", 3.4, 2.3),
        ),
    ]
    picture = near and (near[0], thumbnail(near[1]))
    return TEMPLATES.get_template("steering.html").render(
        way=way, now=now, top=after[0], charts=charts, near=picture
    )

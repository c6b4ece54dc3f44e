"""The facts about one photo as HTML, with charts in the colours of the page."""

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from singflow.analyses.tables import with_interval
from singflow.figures.photo_maps import ramp
from singflow.figures.style import COLOURS, STYLE
from singflow.photo.analysis import Analysis, Reach, Setting, Steered
from singflow.photo.facts import (
    OF_PHOTO,
    TOWARD,
    basis_of,
    facts_of,
    map_notes,
    select,
    share_below,
    verdict_of,
)
from singflow.photo.map_figure import ends, map_panels
from singflow.towers.live import Prediction

Picture = tuple[str, Image.Image]  # caption and picture
THUMBNAIL = 320  # pixels of the longest side
INK = "#123456"  # placeholder for the text colour of the page, light or dark
PHOTO, BEFORE = COLOURS[5], COLOURS[4]
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
CHART: dict[Any, Any] = STYLE | dict.fromkeys(INKED, INK)
CHART |= {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "singflow"}
CHARTED = (  # title, score, its percentile, factor, its unit in words and on the axis
    ("how far null removal turns it (IS)", "is_deg", "is_percentile", 1, "°", "degrees"),
    ("null energy", "null_energy", "null_energy_percentile", 100, " %", "percent"),
)
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def chart(draw: Callable[[Axes], None], description: str, width: float, height: float) -> str:
    """An SVG chart in the page's text colour, with a description for screen readers."""
    buffer, none = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(CHART):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    picture = buffer.getvalue()
    picture = picture[picture.index("<svg") :].replace(INK, "currentColor")
    label = html.escape(description)
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


def model_html(setting: Setting) -> str:
    """The HTML of what the test says about a model, and of the texts that are hidden from it."""
    d, ends = setting.unique_r2, (setting.unique_r2_low, setting.unique_r2_high)
    interval = [end for end in ends if end is not None]
    return TEMPLATES.get_template("model.html").render(
        model=setting.model,
        said=verdict_of(setting),
        d="" if d is None else with_interval([d, *interval], 3),
        hidden=setting.hidden,
        texts=[(text, with_interval(of, 3)) for text, *of in setting.hidden_texts],
        basis=basis_of(setting),
    )


def analysis_html(
    analysis: Analysis, known: dict[str, np.ndarray], pictures: Sequence[Picture]
) -> tuple[str, str]:
    """The HTML of scores, and the HTML of the texts that null removal moves.

    `pictures` are those drawn before and after null removal.
    """
    facts, setting = facts_of(analysis), analysis.setting
    charts = []
    for title, name, percentile, factor, sign, unit in (
        CHARTED if known and setting.null_dim else ()
    ):
        value, place = factor * getattr(analysis, name), share_below(getattr(analysis, percentile))
        drawing = partial(_draw_histogram, factor * known[name], value, unit)
        description = (
            f"{title}: this photo has {value:.1f}{sign}, more than in {place} of the "
            f"{setting.images}"
        )
        charts.append((title, chart(drawing, description, 2.8, 1.6)))
    page = TEMPLATES.get_template("analysis.html").render(
        images=setting.images,
        charts=charts,
        likeliest=select(facts, "class", "other classes"),
        first=select(facts, "known zero"),
        lines=select(facts, *OF_PHOTO),
        pictures=[(caption, thumbnail(picture)) for caption, picture in pictures],
    )
    return page, TEMPLATES.get_template("movements.html").render(
        movements={fact.about: fact for fact in facts if fact.name == "movement"}.values(),
        sides=analysis.beyond_chance,
        words=[] if analysis.beyond_chance else select(facts, "words"),
    )


def maps_html(analysis: Analysis, photo: Image.Image) -> str:
    """The HTML of where in a photo null removal moves it toward texts, or away from them."""
    maps, template = analysis.maps, TEMPLATES.get_template("maps.html")
    if maps is None:
        return template.render(no_maps=analysis.no_maps)
    small = ImageOps.contain(photo, (THUMBNAIL, THUMBNAIL))
    panels = map_panels(small, maps, maps.strongest_deg)
    told = select(facts_of(analysis), "map")
    return template.render(
        no_maps="",
        panels=[
            (panel.title, thumbnail(panel.picture), sentence, panel.said)
            for panel, sentence in zip(panels, told, strict=True)
        ],
        photo=thumbnail(small),
        width=small.width,
        height=small.height,
        ramp=thumbnail(ramp()),
        ends=ends(maps.strongest_deg),
        toward=TOWARD,
        notes=map_notes(analysis, maps),
    )


def _draw_histogram(scores: np.ndarray, value: float, unit: str, axes: Axes) -> None:
    """A value among the scores of known images."""
    axes.hist(scores, bins=30, color="0.6", alpha=0.6)
    axes.axvline(value, color=PHOTO, lw=2.5)
    axes.set(yticks=[], xlabel=unit)
    axes.spines["left"].set_visible(False)


def steering_html(
    way: Reach,
    path: Sequence[tuple[float, float]],
    now: Steered,
    before: Sequence[Prediction],
    after: Sequence[Prediction],
) -> str:
    """The HTML of a photo steered toward a text.

    path: pairs of IS and angle to the text, in degrees. before, after: the same classes, before and
    after steering.
    """

    def draw_way(axes: Axes) -> None:
        axes.plot(*zip(*path, strict=True), color=INK, lw=1.2, alpha=0.6)
        axes.scatter([now.is_deg], [now.angle_deg], s=70, color=PHOTO, zorder=3)
        axes.set(xlabel="meaning turned by (degrees)", ylabel="to the text (degrees)")

    def draw_probabilities(axes: Axes) -> None:
        places = np.arange(len(before))
        for shift, predictions, colour, label in (
            (-0.2, before, BEFORE, "the photo"),
            (0.2, after, PHOTO, "steered"),
        ):
            values = [100 * prediction.probability for prediction in predictions]
            axes.barh(places + shift, values, 0.36, color=colour, label=label)
        names = [prediction.name for prediction in before]
        axes.set_yticks(places, [n if len(n) < 26 else f"{n[:24]}…" for n in names])
        axes.invert_yaxis()
        axes.set(xlim=(0, 100), xlabel="probability (percent)")
        axes.legend(fontsize=7, loc="lower right")

    angles = (
        f"Angle to “{way.text}” by how far the meaning is turned: {now.angle_deg:.1f}° at "
        f"{now.is_deg:.1f}°, {way.angle_deg:.1f}° at 0°"
    )
    classes = ", ".join(
        f"{a.name} {100 * a.probability:.1f} % and {100 * b.probability:.1f} %"
        for a, b in zip(before, after, strict=True)
    )
    classes = f"Likeliest classes before and after: {classes}"
    charts = [
        ("Where the photo goes", chart(draw_way, angles, 3.4, 2.3)),
        ("What the classifier says", chart(draw_probabilities, classes, 3.4, 2.3)),
    ]
    return TEMPLATES.get_template("steering.html").render(
        way=way, now=now, top=after[0], charts=charts
    )

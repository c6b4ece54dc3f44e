"""Draw D of heads that keep fewer and fewer classes of one head, and what one of them hides."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from singflow import cli
from singflow.analyses.findings import by_size
from singflow.analyses.maps import Maps, maps_of
from singflow.artifacts.tables import BASIS, read_models, read_parquet, read_table
from singflow.config.registry import DRAWN, ModelEntry, read_model
from singflow.figures import style
from singflow.figures.photo_maps import toward_text
from singflow.figures.picture_grid import opened, read_photos

FEWEST = 3  # heads of a curve
NEEDS = "a study of heads that keep fewer classes, such as config/studies/cut_heads.yaml"
MOST, LEAST = 6, 3  # texts of a head, from both ends
D = ["n_classes", "known_zero", "unique_r2", "unique_r2_low", "unique_r2_high", "margin"]
BLUE, ORANGE = style.COLOURS[:2]
Shown = dict[str, Maps]  # maps of one photo, by model


def families(models: pd.DataFrame, entries: Mapping[str, ModelEntry]) -> list[pd.DataFrame]:
    """Rows of tables/models.csv of the heads cut from one head, the most classes first.

    Heads with the same classes are left out but for the first. The column `random` says which
    classes are drawn at random, or all.
    """
    origin = {
        name: (entry.identity, entry.weights, entry.head_weights) for name, entry in entries.items()
    }
    kept = {name: entry.keep_classes or DRAWN for name, entry in entries.items()}
    rows = models.dropna(subset=["unique_r2"]).sort_values(
        "n_classes", ascending=False, kind="stable"
    )
    rows = rows.assign(kept=rows["model"].map(kept), origin=rows["model"].map(origin))
    rows = rows.drop_duplicates(["space", "origin", "kept"])
    rows["random"] = rows["kept"].str.endswith(DRAWN)
    grouped = rows.groupby(["space", "origin"], sort=False)
    return [heads for _, heads in grouped if len(heads) >= FEWEST]


@style.styled
def draw(
    heads: list[pd.DataFrame],
    models: pd.DataFrame,
    texts: pd.DataFrame,
    closeup: str,
    photo: Image.Image | None = None,
    shown: Mapping[str, Mapping[str, Maps | None]] | None = None,
) -> Figure:
    """D over the classes kept; texts that `closeup` hides and does not; its map of a photo.

    heads: as families() returns them, a row of panels for each. shown: maps by space and model.
    """
    figure, rows = style.subfigures(len(heads), style.PAGE, 3.5 * len(heads))
    for subfigure, mine in zip(rows, heads, strict=True):
        space = str(mine["space"].iloc[0])
        left, right = subfigure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.02])[0]
        axes = left.subplots()
        zeros = models[models["space"].eq(space) & models["known_zero"].astype(bool)]
        _curve(axes, mine, zeros)
        subfigure.suptitle(_title(mine))
        listed = texts[texts["space"].eq(space) & texts["model"].eq(closeup)]
        if closeup not in set(mine["model"]):
            listed = listed[:0]
        whole = str(mine["model"].iloc[0])
        maps = {name: (shown or {}).get(space, {}).get(name) for name in (whole, closeup)}
        _closeup(right, closeup, by_size(listed), photo, {k: v for k, v in maps.items() if v})
    return figure


def _title(heads: pd.DataFrame) -> str:
    drawn = heads.loc[heads["random"], "unique_r2"]
    if len(drawn) >= FEWEST and all(more <= fewer for more, fewer in pairwise(drawn)):
        return "The fewer classes are drawn, the more meaning a head ignores"
    return "Meaning that heads of one backbone ignore"


def _curve(axes: Axes, heads: pd.DataFrame, zeros: pd.DataFrame) -> None:
    shares = [f"unique_r2{end}" for end in ("", "_low", "_high")]
    for random, colour, marker, label in (
        (True, BLUE, "o", "classes drawn at random, or all"),
        (False, ORANGE, "s", "classes of one subject"),
    ):
        rows = heads[heads["random"] == random]
        middle, low, high = 100 * rows[shares].astype(float).to_numpy().T
        look: style.Look = {"ls": "-" if random else "", "marker": marker, "ms": 5, "lw": 1.2}
        bars = np.clip([middle - low, high - middle], 0, None)
        axes.errorbar(rows["n_classes"], middle, bars, color=colour, label=label, **look)
        for row in rows[~rows["random"]].to_dict("records"):
            at = row["n_classes"], 100 * row["unique_r2"]
            place: style.Look = {"xytext": (5, 3), "textcoords": "offset points"}
            axes.annotate(style.bare(row["model"]), at, **place)
    look = {"marker": "D", "ms": 8, "mfc": "none", "mec": "black", "ls": ""}
    if len(zeros):
        axes.plot(zeros["n_classes"], 100 * zeros["unique_r2"], label="known zero", **look)
    margin = 100 * heads["margin"].iloc[0]
    axes.axhline(margin, color="0.4", lw=0.8, ls="--", zorder=0, label="margin")
    axes.set_xscale("log")
    counts = [*heads["n_classes"], *zeros["n_classes"]]
    ticks = [tick for tick in (2, 10, 100, 1000, 10_000) if min(counts) <= tick <= max(counts)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set(xlabel="classes that the head keeps", ylabel="D, hidden share of the meaning (%)")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper right")
    axes.grid(axis="y")


def _closeup(figure: SubFigure, model: str, texts: pd.DataFrame, photo: Any, maps: Shown) -> None:
    with_photo = photo is not None and bool(maps)
    if with_photo:
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.15])[:, 0]
        _pictures(upper, photo, maps)
    else:
        lower = figure
    axes = lower.subplots()
    name = style.bare(model)
    if texts.empty:
        axes.set_axis_off()
        style.say(axes, f"No text of {name} is looked at.")
        return
    ends = [texts[:MOST], texts[max(MOST, len(texts) - LEAST) :]]
    heights = style.draw_texts(axes, ends, 0.7, ORANGE, width=1.2)
    axes.axvline(0, color="0.6", lw=0.8, zorder=0)
    axes.set_yticks(heights, [str(text)[:28] for text in pd.concat(ends)["text"]])
    axes.set_xlabel("D along the text (%); filled: hidden")
    found = f"{int(texts['hidden'].sum()):,} of {len(texts):,} texts"
    axes.set_title(f"{name} hides {found}")


def _pictures(figure: SubFigure, photo: Image.Image, maps: Shown) -> None:
    """The photo, and over it, on one scale, where the null space holds its label."""
    toward = {model: of.texts[0] for model, of in maps.items()}
    most = max(float(abs(text.contribution_deg).max()) for text in toward.values())
    said = [("photo", photo)]
    for model, text in toward.items():
        of = maps[model]
        over = toward_text(photo, text.contribution_deg, most, of.seen, text.beyond)
        said.append((f"{style.bare(model)}\nsays {of.predicted}", over))
    panels = figure.subplots(1, len(said), squeeze=False)[0]
    for axes, (words, picture) in zip(panels, said, strict=True):
        axes.imshow(picture)
        axes.set_axis_off()
        axes.set_title(words)
    label = next(iter(toward.values())).text
    figure.supxlabel(f"orange: null removal moves it away from “{label}”")


class Flags(cli.Selection):
    closeup: str


def main(flags: Flags) -> None:
    models = read_models(flags.path("tables/models.csv"), [*BASIS, *D])
    entries = {name: read_model(flags.path("model_entry", model=name)) for name in flags.models}
    heads = families(models, entries)
    if not heads:
        return style.write_needs(flags, "cut_heads", NEEDS)
    texts = read_table(flags.path("tables/hidden_texts.csv"))
    photos = read_photos(flags)
    maps: dict[str, dict[str, Maps | None]] = {}
    photo = None
    if len(photos):
        image, content = photos[["image_id", "picture"]].iloc[0]
        photo = opened(content)

        def of_photo(path: Path) -> Maps | None:
            frame = read_parquet(path, "maps")
            rows = frame[frame["image_id"] == image]
            return None if rows.empty else maps_of(rows)

        maps = flags.gather("maps", of_photo)
    figure = draw(heads, models, texts, flags.closeup, photo, maps)
    style.write_figure(flags, "cut_heads", figure)


if __name__ == "__main__":
    cli.run_step(main, Flags)

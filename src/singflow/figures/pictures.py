"""Figures 1, 6, 10, 11 and 13: grids of pictures with their angles."""

import io
import textwrap
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from singflow.data.images import FORMATS
from singflow.figures.style import COLOURS, STYLE, caption

# Inches: side of a picture, room for the words below it, room for the name of a row.
TILE, WORDS, NAMES = 1.45, 0.5, 1.35
ORIGINAL, REMOVED, STEERED = "original", "null removed", "steered"
CHANGED = COLOURS[5]
MEANING = {
    "unclip": "pictures drawn by an UnCLIP generator from the translated features",
    "retrieval": "each picture is the study's real photo nearest to the translated feature, with "
    "its angle to it; cut to a square",
}

Sets = dict[str, dict[str, pd.DataFrame]]  # space -> model -> table of pictures


@dataclass(frozen=True)
class Cell:
    """A cell of the grid: a row of the table of pictures, or None for an empty cell.

    note: text for a row without a picture.
    """

    row: pd.Series | None
    note: str = ""


def _cell(rows: pd.DataFrame, note: str = "") -> Cell:
    return Cell(rows.iloc[0] if len(rows) else None, note)


def fig1(sets: Sets, table: pd.DataFrame) -> Figure:
    """Images before and after null removal: one row per space and model, two columns per image."""
    photos = _of(next(iter(next(iter(sets.values())).values())), "photo")
    rows = [
        ("photo", [cell for _, photo in photos.iterrows() for cell in (Cell(photo), Cell(None))])
    ]
    for space, models in sets.items():
        for model, frame in models.items():
            mine = _of(frame, "fig1")
            cells = [
                _cell(mine[(mine["image_id"] == image) & (mine["change"] == change)])
                for image in photos["image_id"]
                for change in (ORIGINAL, REMOVED)
            ]
            rows.append((_name(model, space, table, len(sets) > 1), cells))
    columns = [name for label in photos["label"] for name in (label, "null component removed")]
    return _grid(
        "Same logits, other meaning? Images before and after their null component is removed",
        rows,
        columns,
        sets,
    )


def fig6(sets: Sets, table: pd.DataFrame) -> Figure:
    """Images steered inside the null space: one row per image, one column per prompt."""
    rows = []
    prompts = _prompts(sets, "fig6")
    for space, model, frame in _closeups(sets):
        mine, photos = _of(frame, "fig6"), _of(frame, "photo")
        for _, photo in photos.iterrows():
            own = mine[mine["image_id"] == photo["image_id"]]
            cells = [Cell(photo), _cell(own[own["change"] == ORIGINAL])]
            cells += [_cell(own[own["text"] == prompt], "out of reach") for prompt in prompts]
            rows.append((f"{photo['label']}\n{_name(model, space, table, len(sets) > 1)}", cells))
    target = max(
        (_of(frame, "fig6")["target_is_deg"].max() for _, _, frame in _closeups(sets)),
        default=np.nan,
    )
    title = (
        f"Steered inside the null space by {target:g} degrees: the logits stay"
        if prompts
        else "No prompt to steer toward"
    )
    return _grid(title, rows, ["photo", ORIGINAL, *prompts], sets)


def fig10(sets: Sets, table: pd.DataFrame) -> Figure:
    """One image steered by growing angles, to show what a degree means: one row per space."""
    rows, wanted = (
        [],
        sorted(
            {
                target
                for _, _, frame in _closeups(sets)
                for target in _of(frame, "fig10")["target_is_deg"].dropna()
            }
        ),
    )
    for space, model, frame in _closeups(sets):
        mine = _of(frame, "fig10")
        cells = [Cell(_of(frame, "photo").iloc[0]), _cell(mine[mine["change"] == ORIGINAL])]
        cells += [_cell(mine[mine["target_is_deg"] == target], "out of reach") for target in wanted]
        rows.append((_name(model, space, table, len(sets) > 1), cells))
    prompts = _prompts(sets, "fig10")
    title = (
        f"What a degree means: steered toward {prompts[0]!r}"
        if prompts
        else "No prompt to steer toward"
    )
    return _grid(
        title, rows, ["photo", "0 degrees", *(f"{target:g} degrees" for target in wanted)], sets
    )


def fig11(sets: Sets, table: pd.DataFrame) -> Figure:
    """One image before and after null removal: one column per translator."""
    rows, kinds = (
        [],
        list(
            dict.fromkeys(
                kind for _, _, frame in _closeups(sets) for kind in _of(frame, "fig11")["kind"]
            )
        ),
    )
    for space, model, frame in _closeups(sets):
        mine = _of(frame, "fig11")
        photo = Cell(_of(frame, "photo").iloc[0])
        for change in (ORIGINAL, REMOVED):
            cells = [
                _cell(mine[(mine["kind"] == kind) & (mine["change"] == change)]) for kind in kinds
            ]
            rows.append(
                (
                    f"{change}\n{_name(model, space, table, len(sets) > 1)}",
                    [photo if change == ORIGINAL else Cell(None), *cells],
                )
            )
    return _grid("One feature, translated by different translators", rows, ["photo", *kinds], sets)


def fig13(sets: Sets, table: pd.DataFrame) -> Figure:
    """One image under perturbations of equal norm, one row per perturbation.

    The pictures of a row are drawn with different seeds, or are the nearest neighbours by rank.
    """
    rows: list[tuple[str, list[Cell]]] = []
    for space, model, frame in _closeups(sets):
        mine = _of(frame, "fig13")
        numbers = sorted(mine["draw"].unique())
        for change in mine["change"].unique():
            own = mine[mine["change"] == change].set_index("draw", drop=False)
            photo = Cell(_of(frame, "photo").iloc[0]) if change == ORIGINAL else Cell(None)
            name = (
                change
                if change == ORIGINAL
                else f"{change}: logits move by {own['logit_change'].iloc[0]:.2g}"
            )
            cells = [photo, *(_cell(own[own["draw"] == number]) for number in numbers)]
            rows.append((f"{name}\n{_name(model, space, table, len(sets) > 1)}", cells))
    shown = pd.concat(_of(frame, "fig13") for _, _, frame in _closeups(sets))
    generated = set(shown["renderer"]) == {"unclip"}
    columns = [
        f"seed {draw}" if generated else f"neighbour {draw + 1}"
        for draw in sorted(set(shown["draw"]))
    ]
    return _grid(
        "Null, random and principal perturbations of equal norm", rows, ["photo", *columns], sets
    )


def ladder_table(sets: Sets, manifest: pd.DataFrame) -> pd.DataFrame:
    """The numbers of figure 10: one row per space and step; NaN for a step out of reach."""
    blocks = []
    for space, model, frame in _closeups(sets):
        steps = _of(frame, "fig10").assign(space=space, model=model)
        steps["path"] = manifest["path"].iloc[steps["image_id"]].to_numpy()
        steps["n"], steps["reachable"] = 1, steps["is_deg"].notna()
        blocks.append(steps)
    columns = [
        "space",
        "model",
        "n",
        "path",
        "label",
        "text",
        "target_is_deg",
        "is_deg",
        "as_text_deg",
        "as_label_deg",
        "logit_change",
        "reachable",
    ]
    return pd.concat(blocks)[columns]


def _of(frame: pd.DataFrame, figure: str) -> pd.DataFrame:
    return frame[frame["figure"] == figure]


def _closeups(sets: Sets) -> list[tuple[str, str, pd.DataFrame]]:
    return [
        (space, model, frame)
        for space, models in sets.items()
        for model, frame in models.items()
        if "fig13" in set(frame["figure"])
    ]


def _prompts(sets: Sets, figure: str) -> list[str]:
    texts = (
        text
        for _, _, frame in _closeups(sets)
        for text in _of(frame, figure).query(f"change == '{STEERED}'")["text"]
    )
    return list(dict.fromkeys(texts))


def _name(model: str, space: str, table: pd.DataFrame, spaces: bool) -> str:
    rows = table[table["space"] == space].set_index("model")
    none = "" if int(rows["null_dim"][model]) else "\n(no null space)"
    return caption(model, rows, "\n").replace(", ", ",\n") + none + (f"\n{space}" if spaces else "")


def _grid(title: str, rows: list[tuple[str, list[Cell]]], columns: list[str], sets: Sets) -> Figure:
    renderers = sorted(
        {
            renderer
            for models in sets.values()
            for frame in models.values()
            for renderer in frame["renderer"].unique()
        }
        & set(MEANING)
    )
    names = [textwrap.fill(column, 20) for column in columns]
    lines = 1 + max(name.count("\n") for name in names)
    width, head = NAMES + len(columns) * TILE, 0.75 + 0.15 * lines
    height = head + len(rows) * (TILE + WORDS)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(width, height))
        figure.text(0.1 / width, 1 - 0.12 / height, title, fontsize=11, fontweight="bold", va="top")
        words = "; ".join(MEANING[renderer] for renderer in renderers)
        figure.text(0.1 / width, 1 - 0.36 / height, words, fontsize=8, color="0.35", va="top")
        for down, (name, cells) in enumerate(rows):
            top = head + down * (TILE + WORDS)
            figure.text(
                0.1 / width,
                1 - (top + TILE / 2) / height,
                "\n".join(textwrap.fill(line, 24) for line in name.splitlines()),
                fontsize=8,
                va="center",
            )
            for across, cell in enumerate(cells):
                left = NAMES + across * TILE
                axes = figure.add_axes(
                    (left / width, 1 - (top + TILE) / height, 0.94 * TILE / width, TILE / height)
                )
                _draw(axes, cell)
                if down == 0:
                    axes.set_title(names[across], fontsize=8)
        return figure


def _draw(axes: plt.Axes, cell: Cell) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("S")
    axes.spines[:].set_visible(False)
    if cell.row is None:
        return
    if not cell.row["picture"]:
        axes.text(
            0.5,
            0.5,
            cell.note or "no other image",
            ha="center",
            va="center",
            fontsize=8,
            color="0.4",
            transform=axes.transAxes,
        )
        return
    picture = Image.open(io.BytesIO(cell.row["picture"]), formats=FORMATS)
    axes.imshow(np.asarray(ImageOps.fit(picture, (min(picture.size), min(picture.size)))))
    if cell.row["change"] not in (ORIGINAL, "photo"):
        axes.spines[:].set(visible=True, color=CHANGED, linewidth=1.5)
    axes.set_xlabel(_words(cell.row), fontsize=7, labelpad=3)


def _words(row: pd.Series) -> str:
    if row["change"] == "photo":
        return ""
    toward = row["as_text_deg"] if row["text"] else row["as_label_deg"]
    scores = "" if row["change"] == ORIGINAL else f"IS {row['is_deg']:.1f}°, AS {toward:+.1f}°"
    photo = f"photo at {row['neighbour_deg']:.1f}°" if row["renderer"] == "retrieval" else ""
    return "\n".join(filter(None, [scores, photo]))

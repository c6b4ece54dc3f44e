"""Draw the maps of the images shown, a column for each model, and write their table."""

from collections.abc import Sized
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from singflow import cli
from singflow.analyses.maps import LABEL, PROMPT, Maps, fewest_others, maps_of
from singflow.analyses.tables import SEEN, qualify
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import write_table
from singflow.figures.photo_maps import keys, map_panels, strongest
from singflow.figures.picture_grid import name_row, opened, read_photos
from singflow.figures.sheet import FONTS, MARGIN, Sheet, broken
from singflow.figures.style import (
    COLUMN,
    PAGE,
    TALLEST,
    Frames,
    of_space,
    pairs_of,
    read_tables,
    styled,
    write_figure,
    write_needs,
)
from singflow.pictures.parameters import Pictures
from singflow.towers.live import NO_POSITIONS

NOT_ASKED, NO_NULL_SPACE = "no maps: pictures.maps is false", "no maps: no null space"
IN_SAMPLE = "not compared: the translator was fitted on the image"
STRONGEST = {"row": "strongest_row", "column": "strongest_column", "value": "strongest_deg"}
COUNTS = ("positions", "positions_beyond", "strongest_row", "strongest_column", "others")
COLUMNS = (
    "space model n path label text as_deg first_order_deg rest_deg positions positions_beyond"
    " strongest_row strongest_column strongest_deg largest_deg threshold_deg others note"
)
TITLE = "Where the null component lies, and where its removal moves an image"
FOUND = (
    "Positions stand out in {} of {} maps toward a text; by chance, at most {:g} % of maps have any"
)
KEY = (
    "where null removal moves the image farther from a text (left) or nearer to it (right)",
    "used for the predicted class, or ignored (null energy): least (left), most (right)",
    "outline: stands out from the maps of other images; ± is the strongest colour of a model",
)
NEEDED = "pictures.maps: true, and a null space of features that are means over positions"
ROWS = "used", "ignored", "toward its label"  # and one for each prompt
ORDER = {ROWS[2]: 0, ROWS[0]: 1, ROWS[1]: 2}  # in which rows are given up last
# Inches: names of rows, gaps, least and most height of a picture, colours of the legend.
STRIP, GAP, LEAST, MOST, RAMP, BAR = 0.3, 0.06, 0.9, 1.6, 0.6, 0.09
MOST_MODELS = 5
DOTS = 200  # of a picture, per inch


def tabulate(
    sets: Frames, models: pd.DataFrame, manifest: pd.DataFrame, asked: bool, confidence: float
) -> pd.DataFrame:
    """One row per space, model, image and text; a model without maps has one row with a note."""
    parts = []
    few = f"not compared: {{}} comparable images, {fewest_others(confidence)} are needed"
    for space, model, frame in pairs_of(sets):
        facts, key = of_space(models, space).loc[model], ["image_id", "map", "text"]
        if frame.empty:
            note = NO_POSITIONS if facts["null_dim"] else NO_NULL_SPACE
            part = pd.DataFrame([{"n": 0, "note": note if asked else NOT_ASKED}])
        else:
            toward = frame[frame["map"].isin([LABEL, PROMPT])]
            sizes = toward.assign(
                size=toward["value"].abs(), largest_deg=toward["conditional_deg"].abs()
            )
            maps = sizes.groupby(key, sort=False)
            part = toward.loc[maps["size"].idxmax()].rename(columns=STRONGEST).set_index(key)
            part = part.assign(n=1, positions=maps.size(), positions_beyond=maps["beyond"].sum())
            part["largest_deg"] = maps["largest_deg"].max()
            part, known = part.reset_index(), part["threshold_deg"].notna().to_numpy()
            part["positions_beyond"] = part["positions_beyond"].where(known)
            for column in ("path", "label"):
                part[column] = manifest[column].iloc[part["image_id"]].to_numpy()
            seen = SEEN in facts["marks"]
            reasons = [IN_SAMPLE if seen and not n else few.format(n) for n in part["others"]]
            part["note"] = pd.Series(reasons).mask(known, "")
        parts.append(part.assign(space=space, model=model))
    table = pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS.split())
    return qualify(table.astype(dict.fromkeys(COUNTS, "Int64")), models)


class Panel(NamedTuple):
    """A picture, and the line below it."""

    picture: Image.Image
    line: str


def _show(sheet: Sheet, left: float, top: float, room: tuple[float, float], panel: Panel) -> float:
    """Add a picture that fits into width and height, and its line; returns where it ends."""
    scale = min(room[0] / panel.picture.width, room[1] / panel.picture.height)
    width, height = scale * panel.picture.width, scale * panel.picture.height
    sheet.show(left, top, width, height, panel.picture)
    line, *rest = broken(panel.line, room[0], "note") or [""]
    text = f"{line[:-1]}…" if rest else line
    return sheet.write_lines(left, top + height + 0.02, [text], "note")


def _panels(photo: Image.Image, maps: Maps) -> dict[str, Panel]:
    """The maps of a photo, by the names of their rows."""
    panels, most = map_panels(photo, maps), strongest([maps])
    lines = [maps.predicted, f"{' to '.join(panels[1].ends)} %"]
    lines += [f"AS {text.as_deg:+.1f}° (±{most:.2g}°)" for text in maps.texts]
    names = [*ROWS, *(toward(text.text) for text in maps.texts[1:])]
    rows = zip(names, panels, lines, strict=True)
    return {name: Panel(panel.picture, line) for name, panel, line in rows}


def toward(prompt: str) -> str:
    """The name of a row of maps toward a prompt."""
    return f"toward {prompt!r}"


def most_outlined(maps: pd.DataFrame, key: str, most: int) -> list[Any]:
    """At most so many values of a column: those with most outlined maps, in their order."""
    counts = maps.groupby(key, sort=False)["beyond"].sum()
    kept = set(counts.sort_values(ascending=False, kind="stable").index[:most])
    return [value for value in counts.index if value in kept]


@styled
def draw(sets: Frames, photos: pd.DataFrame, models: pd.DataFrame, confidence: float) -> Figure:
    """A page: a column for each model, and a row for each photo and map.

    If there are more models, photos or prompts, those with most outlined maps are shown.
    """
    pairs = {f"{space} {model}": (space, model, frame) for space, model, frame in pairs_of(sets)}
    every = pd.concat(frame.assign(pair=pair) for pair, (_, _, frame) in pairs.items())
    every = every[every["map"].isin([LABEL, PROMPT])]
    of_map = every.groupby(["pair", "image_id", "map", "text"], sort=False)
    maps = of_map[["beyond", "threshold_deg"]].max().reset_index()
    shown = [pairs[pair] for pair in most_outlined(maps, "pair", MOST_MODELS)]
    sheet = Sheet(COLUMN if len(shown) < 3 else PAGE)
    room, known = sheet.width - 2 * MARGIN, int(maps["threshold_deg"].notna().sum())
    found = FOUND.format(int(maps["beyond"].sum()), known, 100 * (1 - confidence))
    top = sheet.write_text(MARGIN, MARGIN, found if known else TITLE, room, "title") + GAP
    for picture, across, text in zip(keys(), (RAMP, RAMP, BAR), KEY, strict=True):
        sheet.show(MARGIN, top + 0.02, across, BAR, picture)
        top = sheet.write_text(MARGIN + RAMP + GAP, top, text, room - RAMP - GAP, "note")
    step = (room - STRIP) / (len(shown) + 1)
    side, line = step - GAP, FONTS["note"][1]
    places = [MARGIN + step + STRIP + number * step for number in range(len(shown))]
    heads = [name_row(model, space, models, sets) for space, model, _ in shown]
    top += GAP
    top = GAP / 2 + max(
        sheet.write_text(left, top, head, side) for left, head in zip(places, heads, strict=True)
    )
    end = TALLEST - MARGIN - 2 * line
    rows = int((end - top) / (LEAST + line + GAP))
    images = most_outlined(maps, "image_id", rows)
    prompts = maps.loc[maps["map"] == PROMPT, "text"].unique()
    names = [*ROWS, *map(toward, prompts)]
    kept = sorted(names, key=lambda name: ORDER.get(name, 3))[: rows // len(images)]
    tall = min(MOST, (end - top) / (len(kept) * len(images)) - line - 1.5 * GAP)
    for image in images:
        photo = photos.set_index("image_id").loc[image]
        whole = opened(photo["picture"]).convert("RGB")
        whole.thumbnail((round(DOTS * side), round(DOTS * tall)))
        panels = [_panels(whole, maps_of(of[of["image_id"] == image])) for *_, of in shown]
        _show(sheet, MARGIN, top, (side, tall), Panel(whole, photo["label"]))
        for name in filter(kept.__contains__, names):
            ends = [
                _show(sheet, left, top, (side, tall), of_model[name])
                for left, of_model in zip(places, panels, strict=True)
            ]
            middle = (top + max(ends) - line) / 2
            said = "\n".join(broken(name, max(ends) - top - line, "name")[:2])
            look = {"rotation": 90, "ha": "center", "va": "center", "ma": "center"}
            sheet.write(MARGIN + step + STRIP / 2 - GAP / 2, middle, said, **look)
            top = max(ends) + GAP
        top += GAP / 2
    counts: dict[str, tuple[Sized, Sized]] = {
        "photos": (images, photos),
        "models": (shown, pairs),
        "maps of a photo": (kept, names),
    }
    some = [f"{len(a)} of {len(b)} {what}" for what, (a, b) in counts.items() if len(a) < len(b)]
    if some:
        said = f"Shown: {', '.join(some)}; the study's folder maps has all."
        top = sheet.write_text(MARGIN, top, said, room, "note")
    return sheet.draw(top)


class Flags(Pictures, cli.Selection):
    confidence: float


def main(flags: Flags) -> None:
    sets, models = read_tables(flags, "maps")
    manifest = read_manifest(flags.path("manifest"))
    table = tabulate(sets, models, manifest, flags.maps, flags.confidence)
    write_table(flags.path("tables/maps.csv"), table)
    if all(frame.empty for *_, frame in pairs_of(sets)):
        return write_needs(flags, "maps", NEEDED)
    write_figure(flags, "maps", draw(sets, read_photos(flags), models, flags.confidence))


if __name__ == "__main__":
    cli.run_step(main, Flags)

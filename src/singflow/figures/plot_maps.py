"""Draw the maps of the images shown, one row for each image and model, and write their table."""

import io
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from singflow import cli
from singflow.analyses.maps import LABEL, NO_POSITIONS, PROMPT, Maps, fewest_others, maps_of
from singflow.analyses.tables import SEEN, qualify
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import read_parquet, write_table
from singflow.data.images import FORMATS
from singflow.figures.overlay import keys, overlay
from singflow.figures.picture_grid import MARGIN, TextSheet, name_row
from singflow.figures.style import Frames, of_space, pairs_of, read_tables, styled, write_figure
from singflow.pictures.parameters import Pictures

NOT_ASKED, NO_NULL_SPACE = "no maps: pictures.maps is false", "no maps: no null space"
IN_SAMPLE = "not compared: the translator was fitted on the image"
STRONGEST = {"row": "strongest_row", "column": "strongest_column", "value": "strongest_deg"}
COUNTS = ("positions", "positions_beyond", "strongest_row", "strongest_column", "others")
COLUMNS = (
    "space model n path label text as_deg first_order_deg rest_deg positions positions_beyond"
    " strongest_row strongest_column strongest_deg largest_deg threshold_deg others note"
)
SHOWN = ("figure", "image_id", "label", "picture")  # of the table of pictures
TITLE = "Where in an image? What the logits use, what they ignore, and toward which texts"
HEADS = [
    *("photo", "used: part of the predicted class's logit", "ignored: null energy"),
    "toward its label",
]
MOVED = (
    "removal of the null component at a position moves the image farther from a text (left) or "
    "nearer to it (right); the positions add up to AS; the texts of a row have one scale"
)
AMOUNTS = "used or ignored, from least (left) to most (right)"
OUTLINED = (
    "outline: stands out from the maps of other images; by chance, at most {:g} % of the maps have "
    "one anywhere"
)
# Inches: names of rows, a column, a picture in it, its most height, between rows, of the legend.
NAMES, COLUMN, PICTURE, TALLEST, GAP, RAMP, BAR = 1.4, 1.55, 1.47, 2.2, 0.15, 1.1, 0.12
ACROSS, HIGHEST = 9, 150.0  # columns side by side; inches of a figure, below which nothing is drawn


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
    """A picture, and the lines below it."""

    picture: Image.Image | None
    lines: list[str]


class Row(NamedTuple):
    """An image and a model: a panel for each column, or for the photo alone; note: why no maps."""

    name: str
    panels: list[Panel]
    note: str = ""


def rows_of(
    sets: Frames, photos: pd.DataFrame, models: pd.DataFrame, notes: pd.Series
) -> Iterator[Row]:
    """One row for each image and model. notes: by space and model."""
    for space, frames in sets.items():
        for _, photo in photos.iterrows():
            picture = Image.open(io.BytesIO(photo["picture"]), formats=FORMATS)
            first = Panel(picture, [photo["label"]])
            for model, frame in frames.items():
                name = name_row(model, space, models, sets)
                mine = frame[frame["image_id"] == photo["image_id"]]
                if mine.empty:
                    yield Row(name, [first], notes[space, model])
                else:
                    maps = maps_of(mine)
                    most = max(abs(text.contribution_deg).max() for text in maps.texts)
                    yield Row(f"{name}\nscale ±{most:.2g}°", [first, *_panels(picture, maps)])
                first = Panel(None, [])


def _panels(picture: Image.Image, maps: Maps) -> Iterator[Panel]:
    drawn = overlay(picture, maps)
    yield Panel(drawn.used, [maps.predicted, " to ".join(drawn.used_ends)])
    yield Panel(drawn.ignored, [f"{' to '.join(drawn.ignored_ends)} %"])
    for text, over in zip(maps.texts, drawn.texts, strict=True):
        found = f"{int(text.beyond.sum()) or 'none'} of {text.beyond.size} stand out"
        known = text.threshold_deg is not None
        yield Panel(over, [f"AS {text.as_deg:+.2f}°", found if known else "not compared"])


class MapSheet(TextSheet):
    """A sheet whose pictures share one pair of axes."""

    def __init__(self, width: float) -> None:
        super().__init__(width)
        self.pictures: list[tuple[float, float, float, float, Image.Image]] = []

    def show(self, left: float, top: float, panel: Panel) -> float:
        """Add a picture and the lines below it; returns where they end."""
        if panel.picture:
            sides = panel.picture.size
            scale = min(PICTURE / sides[0], TALLEST / sides[1])
            self.pictures.append((left, top, scale * sides[0], scale * sides[1], panel.picture))
            top += scale * sides[1] + 0.04
        for line in panel.lines:
            top = self.write_text(left, top, line, PICTURE, "note")
        return top

    def draw(self, height: float) -> Figure:
        figure = super().draw(height)
        axes = figure.add_axes((0, 0, 1, 1))
        for left, top, across, down, picture in self.pictures:
            axes.imshow(picture, extent=(left, left + across, top + down, top), aspect="auto")
        axes.set(xlim=(0, self.width), ylim=(height, 0))
        axes.set_axis_off()
        return figure


@styled
def draw(
    sets: Frames, photos: pd.DataFrame, models: pd.DataFrame, table: pd.DataFrame, confidence: float
) -> Figure:
    """Rows of maps; the columns of many prompts are continued below."""
    notes = table.drop_duplicates(["space", "model"]).set_index(["space", "model"])["note"]
    shown = pd.concat(frame for *_, frame in pairs_of(sets))
    prompts = shown.loc[shown["map"] == PROMPT, "text"].unique()
    heads = [*HEADS, *(f"toward {prompt!r}" for prompt in prompts)]
    sheet = MapSheet(NAMES + min(len(heads), ACROSS) * COLUMN)
    room = sheet.width - 2 * MARGIN
    top = sheet.write_text(MARGIN, MARGIN, TITLE, room, "title") + MARGIN
    if shown.empty:
        top = sheet.write_text(MARGIN, top, "\n".join(notes.unique()), room)
        return sheet.draw(top + MARGIN)
    said = (MOVED, AMOUNTS, OUTLINED.format(100 * (1 - confidence)))
    for picture, across, text in zip(keys(), (RAMP, RAMP, BAR), said, strict=True):
        sheet.pictures.append((MARGIN, top + 0.02, across, BAR, picture))
        top = sheet.write_text(MARGIN + RAMP + GAP, top, text, room - RAMP - GAP, "line") + 0.04
    count = len(photos) * len(pairs_of(sets))
    for start in range(0, len(heads), ACROSS):
        part = slice(start, start + ACROSS)
        places = [NAMES + number * COLUMN for number in range(len(heads[part]))]
        named = zip(places, heads[part], strict=True)
        top = max(sheet.write_text(left, top + GAP, head, PICTURE) for left, head in named)
        for number, row in enumerate(rows_of(sets, photos, models, notes)):
            if top > HIGHEST:
                left_out = f"{count - number} further rows are in the table"
                top = sheet.write_text(MARGIN, top + GAP, left_out, room)
                break
            top += GAP * (1.5 if row.panels[0].picture else 0.5)
            ends = [sheet.write_text(MARGIN, top, row.name, NAMES - 2 * MARGIN)]
            ends += [
                sheet.show(left, top, panel)
                for left, panel in zip(places, row.panels[part], strict=False)
            ]
            if row.note and not start:
                ends.append(sheet.write_text(places[1], top, row.note, room - places[1]))
            top = max(ends)
    return sheet.draw(top + MARGIN)


class Flags(Pictures, cli.Selection):
    confidence: float


def main(flags: Flags) -> None:
    sets, models = read_tables(flags, "maps")
    manifest = read_manifest(flags.path("manifest"))
    table = tabulate(sets, models, manifest, flags.maps, flags.confidence)
    write_table(flags.path("tables/maps.csv"), table)
    first = flags.path("pictures", space=flags.spaces[0], model=flags.models[0])
    photos = read_parquet(first, "pictures", SHOWN).query("figure == 'photo'")
    write_figure(flags, "maps", draw(sets, photos, models, table, flags.confidence))


if __name__ == "__main__":
    cli.run_step(main, Flags)

"""Maps of images as rows of a table, and back."""

from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.maps import Maps, TextMap

USED, IGNORED, LABEL, PROMPT = "used", "null energy", "toward label", "toward prompt"
EDGES = ("left", "top", "right", "bottom")
OF_TEXT = ("as_deg", "first_order_deg", "rest_deg", "threshold_deg")
TYPES = {
    "image_id": "int64",
    "map": "str",
    "text": "str",
    "row": "int64",
    "column": "int64",
    "value": "float64",
    "conditional_deg": "float64",
    "beyond": "bool",
    **dict.fromkeys(OF_TEXT, "float64"),
    "others": "int64",
    **dict.fromkeys(EDGES, "float64"),
}


def map_rows(image_id: int, maps: Maps) -> pd.DataFrame:
    """The maps of an image, one row a position; the first text is the label, others are prompts."""
    rows, columns = np.indices(maps.used.shape).reshape(2, -1) + 1
    shared: dict[str, Any] = dict.fromkeys(TYPES, np.nan) | dict(zip(EDGES, maps.seen, strict=True))
    shared |= {"image_id": image_id, "row": rows, "column": columns}
    shared |= {"beyond": False, "others": maps.others}
    parts: list[dict[str, Any]] = [
        {"map": USED, "text": maps.predicted, "value": maps.used.ravel()},
        {"map": IGNORED, "text": "", "value": maps.null_energy.ravel()},
    ]
    for number, text in enumerate(maps.texts):
        part: dict[str, Any] = {name: getattr(text, name) for name in ("text", *OF_TEXT)}
        part |= {"map": PROMPT if number else LABEL, "beyond": text.beyond.ravel()}
        part |= {"value": text.contribution_deg.ravel()}
        if text.conditional_deg is not None:
            part |= {"conditional_deg": text.conditional_deg.ravel()}
        parts.append(part)
    return map_table([pd.DataFrame(shared | part) for part in parts])


def map_table(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all parts, of which there may be none."""
    return pd.concat([pd.DataFrame(columns=[*TYPES]), *parts], ignore_index=True).astype(TYPES)


def maps_of(rows: pd.DataFrame) -> Maps:
    """The maps of an image from its rows."""
    shape = int(rows["row"].max()), int(rows["column"].max())
    used, ignored, *texts = (part for _, part in rows.groupby(["map", "text"], sort=False))

    def of_text(part: pd.DataFrame) -> TextMap:
        values, conditional, beyond = (
            part[column].to_numpy().reshape(shape)
            for column in ("value", "conditional_deg", "beyond")
        )
        numbers = {column: float(part[column].iloc[0]) for column in OF_TEXT}
        most = numbers.pop("threshold_deg")
        return TextMap(
            text=part["text"].iloc[0],
            **numbers,
            contribution_deg=values,
            conditional_deg=conditional,
            threshold_deg=None if np.isnan(most) else most,
            beyond=beyond,
        )

    return Maps(
        predicted=used["text"].iloc[0],
        null_energy=ignored["value"].to_numpy().reshape(shape),
        used=used["value"].to_numpy().reshape(shape),
        texts=list(map(of_text, texts)),
        others=int(rows["others"].iloc[0]),
        seen=tuple(rows[[*EDGES]].iloc[0]),
    )

"""Read tables, lists and folders of images that people make, and tell them what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from singflow.errors import InputError, printable, readable_as
from singflow.system import regular

if TYPE_CHECKING:
    import pandas as pd

SPLIT_FOLDERS = {"train": "train", "val": "validation", "validation": "validation"}
# What operating systems leave among images, besides names that begin with a dot.
OF_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"),
    *("$recycle.bin", "system volume information", "lost+found"),
}
UNPRINTABLE = "name is not UTF-8 or holds control characters: rename the file"
OUTSIDE = "outside the data root: paths are relative to it and without .."


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the operating system, by its name."""
    return name.startswith(".") or name.lower() in OF_SYSTEM


def subfolders(folder: Path) -> list[Path]:
    """Subfolders in order of names, without litter."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_litter(path.name))


def below_splits(folders: list[Path]) -> bool:
    """Whether the folders are train and val, so that class folders are one level lower."""
    return bool(folders) and all(folder.name.lower() in SPLIT_FOLDERS for folder in folders)


def class_folders(root: Path) -> list[Path]:
    """Folders of the classes: below train and val if the root has only these."""
    top = subfolders(root)
    return [inner for split in top for inner in subfolders(split)] if below_splits(top) else top


def read_table(
    path: Path, needed: Mapping[str, str], optional: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Columns of a CSV or Parquet table as texts, without blank rows; the index counts lines.

    `needed` gives the meaning of columns, for messages. Those in `optional` may be absent.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        frame = _read_parquet(path, needed, optional)
    else:
        frame = _read_csv(path)
        titles = _titles(path, list(frame.columns), needed, optional)
        frame = frame[list(titles.values())].set_axis(list(titles), axis="columns")
    frame.index += 2
    return frame[(frame.map(str.strip) != "").any(axis=1)]


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    with readable_as("CSV", path, "save it anew as comma-separated UTF-8"):
        with regular(path).open(encoding="utf-8-sig") as file:
            separator = max(",;\t", key=file.readline().count)
        frame = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            compression=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,  # so that rows can be counted
        )
    if not isinstance(frame.index, pd.RangeIndex):  # which pandas makes of cells too many
        raise InputError(
            f"{path}: rows have more cells than the first line, which names the columns: quote "
            "commas inside cells, remove those at line ends, and blank lines at the start"
        )
    return frame


def _read_parquet(path: Path, needed: Mapping[str, str], optional: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd
    from pyarrow import parquet  # type: ignore[import-untyped]

    with readable_as("Parquet", path, "write it anew, or as CSV"):
        file = parquet.ParquetFile(regular(path))
        titles = _titles(path, file.schema_arrow.names, needed, optional)
        table = file.read(columns=list(titles.values()))
        cells = {name: table[title].cast("string").fill_null("") for name, title in titles.items()}
        return pd.DataFrame({name: column.to_pandas() for name, column in cells.items()})


def _titles(
    path: Path, header: list[str], needed: Mapping[str, str], optional: tuple[str, ...]
) -> dict[str, str]:
    """The title of every needed column, and of the optional ones that are there, in any case."""
    folded = {title.strip().casefold(): title for title in reversed(header)}
    named = {title: title for title in header}
    found = {name: named.get(name) or folded.get(name.casefold()) for name in (*needed, *optional)}
    for name, meaning in needed.items():
        if found[name] is None:
            raise InputError(
                f"{path}: has no column {name!r}{meaning and f' ({meaning})'}; it has "
                f"{', '.join(map(printable, header)) or 'none'}"
            )
    return {name: title for name, title in found.items() if title is not None}


def group_cells(classes: Path, table: Path, column: str) -> tuple[str, dict[int | str, str]]:
    """Groups of images: the manifest's column that tells them, and the group by its value."""
    key, rows = "class_index", read_table(classes, {"name": ""}, (column,))
    if column not in rows:
        key = "path"
        rows = read_table(table, {key: "the image's path", column: "evidence.groups"})
    known = rows[key] if key == "path" else range(len(rows))
    cells = zip(known, rows[column].str.strip(), strict=True)
    return key, {of: cell for of, cell in cells if cell}

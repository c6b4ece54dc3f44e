"""Read tables, lists and folders of images that people make, and tell them what is wrong."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from singflow.errors import InputError, printable, readable_as
from singflow.system import regular

# The first separator that splits the header into the needed columns is taken.
SEPARATORS = (",", ";", "\t")
BLANK = "".join(SEPARATORS) + " \r\n"
SPLIT_FOLDERS = {"train": "train", "val": "validation", "validation": "validation"}
# ImageNet's devkit, and Kaggle's archive: the labels of validation images, and where images are.
DEVKIT, SOLUTION = "ILSVRC2012_devkit_t12", "LOC_val_solution.csv"
KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
OF_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".localized", "icon\r"),
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
}
UNPRINTABLE = "name is not UTF-8 or holds control characters: rename the file"
WORKBOOKS = {
    b"PK\x03\x04": "an Excel workbook (.xlsx) or another zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
}

Row = dict[str, str]


def of_system(name: str) -> bool:
    """Whether an operating system leaves files or folders of this name among images."""
    return name.startswith("._") or name.lower() in OF_SYSTEM


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the operating system, by its name."""
    return name.startswith(".") or of_system(name)


def subfolders(folder: Path) -> list[Path]:
    """Subfolders in order of names, without litter."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_litter(path.name))


def below_splits(folders: list[Path]) -> bool:
    """Whether the folders are train and val, so that class folders are one level lower."""
    return bool(folders) and all(folder.name.lower() in SPLIT_FOLDERS for folder in folders)


def images_below(root: Path) -> Path:
    """The folder that holds class folders, or train and val; in Kaggle's archive it is CLS-LOC."""
    return next((root / below for below in KAGGLE if (root / below).is_dir()), root)


def top_folders(base: Path) -> tuple[list[Path], list[Path]]:
    """Class folders, or train and val; and folders without labels: ImageNet's devkit and test."""
    top = subfolders(base)
    splits = below_splits([folder for folder in top if folder.name.lower() in SPLIT_FOLDERS])
    unlabelled = [
        folder
        for folder in top
        if folder.name.startswith(DEVKIT)
        or (splits and folder.name.lower() == "test" and not subfolders(folder))
    ]
    return [folder for folder in top if folder not in unlabelled], unlabelled


def class_folders(root: Path) -> list[Path]:
    """Folders of the classes: below train and val if the root has only these."""
    top, _ = top_folders(images_below(root))
    return [inner for split in top for inner in subfolders(split)] if below_splits(top) else top


def flat_folders(root: Path) -> list[Path]:
    """The root, or those of train and val, that hold no class folders."""
    base = images_below(root)
    top, _ = top_folders(base)
    folders = top if below_splits(top) else [base]
    return [folder for folder in folders if not top_folders(folder)[0]]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, perhaps with a byte order mark."""
    refuse_binary(path)
    with readable_as("UTF-8 text", path, "name or save it anew"):
        return path.read_text(encoding="utf-8-sig").splitlines()


def refuse_binary(path: Path) -> None:
    """Raise InputError unless the file can be read and is neither a workbook nor Parquet."""
    with (
        readable_as("UTF-8 text or CSV", path, "name or save it anew"),
        regular(path).open("rb") as file,
    ):
        start = file.read(4)
    if start in WORKBOOKS:
        raise InputError(
            f"{path}: is {WORKBOOKS[start]}: save it as text, a table as CSV UTF-8, and name that "
            "file"
        )
    if start == b"PAR1":
        raise InputError(f"{path}: is a Parquet file: let its name end in .parquet")


def iterate_rows(
    path: Path, needed: Mapping[str, str], optional: tuple[str, ...] = ()
) -> Iterator[tuple[int, Row]]:
    """Line number and cells, as texts, of every row of a CSV or Parquet table but for blank rows.

    `needed` gives the meaning of columns, for messages.
    """
    of_parquet = path.suffix.lower() in (".parquet", ".pq")
    rows = _parquet_rows(path, {*needed, *optional}) if of_parquet else _csv_rows(path, needed)
    _, header = next(rows, (1, []))
    places = _places(path, header, needed, optional)
    for number, cells in rows:
        if len(cells) > len(header):
            raise InputError(
                f"{path}: rows have more cells than the header (line {number}): quote commas "
                "inside cells, remove those at line ends"
            )
        cells += [""] * (len(header) - len(cells))
        yield number, {name: cells[place] for name, place in places.items()}


def group_cells(classes: Path, table: Path, column: str) -> tuple[str, dict[str, str]]:
    """The groups of images in a column of the class list, by label, or else of the table, by path.

    The first value is the column of the manifest that tells the groups: label or path.
    """
    listed = [row for _, row in iterate_rows(classes, {"name": ""}, (column,))]
    if listed and column in listed[0]:
        return "label", {row["name"]: cell for row in listed if (cell := row[column].strip())}
    needed = {"path": "the image's path", column: "evidence.groups"}
    rows = iterate_rows(table, needed)
    return "path", {row["path"]: cell for _, row in rows if (cell := row[column].strip())}


def _places(
    path: Path, header: list[str], needed: Mapping[str, str], optional: tuple[str, ...]
) -> dict[str, int]:
    """Position of every needed column, and of the optional columns that are there."""
    places = {}
    for name in (*needed, *optional):
        exact = [place for place, title in enumerate(header) if title == name]
        alike = [place for place, title in enumerate(header) if _plain(title) == _plain(name)]
        found = exact or alike
        if len(found) > 1:
            raise InputError(
                f"{path}: has {len(found)} columns {name!r}: name one of them otherwise"
            )
        if found:
            places[name] = found[0]
        elif name in needed:
            what = f" ({needed[name]})" if needed[name] else ""
            raise InputError(
                f"{path}: has no column {name!r}{what}; it has "
                f"{', '.join(map(printable, filter(str.strip, header))) or 'none'}"
            )
    return places


def _plain(title: str) -> str:
    return title.strip().casefold()


def _csv_rows(path: Path, needed: Mapping[str, str]) -> Iterator[tuple[int, list[str]]]:
    refuse_binary(path)
    with (
        readable_as("CSV", path, "save it anew as comma-separated UTF-8"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        header = next((line for line in file if line.strip(BLANK)), None)
        if header is None:
            raise InputError(f"{path}: not readable as CSV: it is empty: name or save it anew")
        wanted = {_plain(name) for name in needed}
        titles = ((one, next(csv.reader([header], delimiter=one))) for one in SEPARATORS)
        fits = (one for one, found in titles if wanted <= {*map(_plain, found)})
        separator = next(fits, ",")
        file.seek(0)
        reader = csv.reader(file, delimiter=separator, strict=True)
        for cells in reader:
            if any(map(str.strip, cells)):
                yield reader.line_num, cells


def _parquet_rows(path: Path, wanted: set[str]) -> Iterator[tuple[int, list[str]]]:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    with readable_as("Parquet", path, "write it anew, or as CSV"):
        file, plain = parquet.ParquetFile(regular(path)), {*map(_plain, wanted)}
        for field in file.schema_arrow:
            if pa.types.is_nested(field.type) and _plain(field.name) in plain:
                raise InputError(
                    f"{path}: its column {field.name!r} holds {field.type}: write one text or "
                    "number a row"
                )
        yield 1, (names := file.schema_arrow.names)
        number = 1
        for batch in file.iter_batches(columns=[name for name in names if _plain(name) in plain]):
            read = batch.to_pydict()
            unread = [None] * len(batch)  # of further columns, which may be large
            for values in zip(*(read.get(name, unread) for name in names), strict=True):
                number += 1
                cells = ["" if value is None or value != value else str(value) for value in values]
                if any(map(str.strip, cells)):
                    yield number, cells

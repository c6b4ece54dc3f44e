"""Translators that a study names in place of fitted ones."""

from pathlib import Path

from singflow.config import LOCAL
from singflow.errors import InputError
from singflow.store import sha256_of
from singflow.translator import Translator


def imported_path(space: str, model: str) -> Path:
    """Where an imported translator lies."""
    return Path(LOCAL) / "translators" / space / f"{model}.safetensors"


def read_imported(imported: list[str], space: str, model: str) -> Translator | None:
    """The translator that the study names for a model and space, None when it names none.

    imported: translator.imported of the study, <space>/<model>:<hash>. Raises InputError when the file is not there or is another.
    """
    pins = dict(each.rsplit(":", 1) for each in imported)
    pin = pins.get(f"{space}/{model}")
    if pin is None:
        return None
    path = imported_path(space, model)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file: make it with scripts/import_translator.py, or take {space}/{model} out of translator.imported"
        )
    if not sha256_of(path).startswith(pin):
        raise InputError(
            f"{path}: its SHA-256 is {sha256_of(path)}, but translator.imported says {pin}: import it again, or correct the hash"
        )
    return Translator.load(path)

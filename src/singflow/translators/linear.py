"""Linear translators in files: those a study has fitted, and released ones that it names in their place."""

from pathlib import Path
from typing import Self

from singflow.config import LOCAL
from singflow.errors import InputError
from singflow.ridge import Affine
from singflow.store import read_tensors, sha256_of


class Translator(Affine):
    """A linear translator: weight (m, d), bias (m,)."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The translator of a file translators/<space>/<model>/linear.safetensors: weight (m, d) and bias (m,), float32.

        Raises InputError for any other file, and for one that is damaged.
        """
        path = Path(path)
        _, made = read_tensors(path, [])
        if made.get("kind") != "linear":
            raise InputError(
                f"{path}: holds no linear translator: name a linear.safetensors of translators/; "
                "networks.load_network reads those of the other kinds"
            )
        loaded = cls(**read_tensors(path, ["weight", "bias"])[0])
        weight, bias = loaded.weight.shape, loaded.bias.shape
        if bias != weight[:1]:
            raise InputError(f"{path}: weight {weight} and bias {bias} make no affine map: remove it and run the workflow again")
        return loaded


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

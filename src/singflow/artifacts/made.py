"""What made features, embeddings, heads and translators, as the headers of their files state it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

MODEL = ("tower", "weights_sha256", "precision", "decode")  # keys of a header
SPACE = ("space_tower", "space_sha256", "space_precision", "space_decode")  # of a translator's
NAMES = ("tower", "weights", "extraction.precision", "decode")


@dataclass(frozen=True)
class Made:
    """What made an artifact; None: not stated.

    tower: architecture and transform, the `identity` of a registry's entry. weights: their SHA-256.
    precision, decode: of the extraction.
    """

    tower: str | None = None
    weights: str | None = None
    precision: str | None = None
    decode: str | None = None

    @classmethod
    def read(cls, header: Mapping[str, Any], keys: tuple[str, ...] = MODEL) -> Made:
        return cls(*map(header.get, keys))

    def header(self, keys: tuple[str, ...] = MODEL) -> dict[str, str]:
        """What is stated, by the keys of a header."""
        stated = zip(keys, astuple(self), strict=True)
        return {key: value for key, value in stated if value is not None}


def differences(one: Made, other: Made) -> str:
    """How one differs from another, in words; what is not stated on one side is no difference."""
    parts = zip(NAMES, astuple(one), astuple(other), strict=True)
    length = {"weights": 12}  # characters of a hash
    return ", ".join(
        f"{name} {mine[: length.get(name)]} instead of {theirs[: length.get(name)]}"
        for name, mine, theirs in parts
        if mine is not None and theirs is not None and mine != theirs
    )

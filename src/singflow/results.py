"""A finished study for notebooks: its tables as data frames, its tensors as arrays."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.files import read_json
from singflow.artifacts.tables import read_parquet
from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import read_yaml
from singflow.errors import InputError
from singflow.extras import explained

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study:
    """The results folder of a study. Every file of docs/artifacts.md is found by its path below the folder, without its ending."""

    folder: Path

    @property
    def params(self) -> dict[str, Any]:
        """params.yaml, the study in force."""
        return read_yaml(self.folder / "params.yaml")

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        return list(self.params["models"])

    @property
    def spaces(self) -> list[str]:
        """Names of the spaces."""
        return list(self.params["spaces"])

    def table(self, name: str) -> pd.DataFrame:
        """A table of the study.

        Parameters
        ----------
        name : str
            Its path, as in tables/models, data/manifest or scores/conse_minilm/efficientnet_lite0.

        Returns
        -------
        DataFrame
            All rows and columns.

        Raises
        ------
        InputError
            When the study has none of this name; the message has the nearest.
        """
        path = self._find(name, "csv", "parquet")
        with explained():
            import pandas as pd

            return pd.read_csv(path) if path.suffix == ".csv" else read_parquet(path)

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """Tensors of the study.

        Parameters
        ----------
        name : str
            Path of a file, as in projectors/efficientnet_lite0, or the folder of shards, as in features/efficientnet_lite0 or
            embeddings/conse_minilm, whose rows are joined.

        Returns
        -------
        dict of ndarray
            By name.

        Raises
        ------
        InputError
            When the study has none of this name; the message has the nearest.
        """
        from safetensors import safe_open

        shards = sorted((self.folder / name).glob("shard-*.safetensors"))
        parts = []
        for path in shards or [self._find(name, "safetensors")]:
            read_tensors(path, [])  # refuses what is no such file, in words
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
            parts.append(read_tensors(path, names)[0])
        return (
            {each: np.concatenate([part[each] for part in parts]) for each in parts[0]}
            if shards
            else parts[0]
        )

    def report(self, name: str) -> dict[str, Any]:
        """A file of facts of the study.

        Parameters
        ----------
        name : str
            Its path, as in metrics or projectors/efficientnet_lite0.

        Returns
        -------
        dict
            Its content.

        Raises
        ------
        InputError
            When the study has none of this name; the message has the nearest.
        """
        return dict(read_json(self._find(name, "json")))

    def _find(self, name: str, *endings: str) -> Path:
        """The file of a name. Names come from callers, and lead nowhere else."""
        files = [(path, end) for end in endings for path in self.folder.rglob(f"*.{end}")]
        known = {
            path.relative_to(self.folder).as_posix().removesuffix(f".{end}"): path
            for path, end in files
        }
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:3]
            raise InputError(
                f"{self.folder}: has no {' or '.join(endings)} file {name!r}; near: {', '.join(near) or 'none'}"
            )
        return known[name]


def load_study(folder: str | Path) -> Study:
    """A finished study.

    Parameters
    ----------
    folder : str or Path
        Its results, as in results/demo.

    Returns
    -------
    Study
        Whose files are read when they are asked for.

    Raises
    ------
    InputError
        When the folder holds no study.
    """
    if not (Path(folder) / "params.yaml").is_file():
        raise InputError(
            f"{folder}: holds no params.yaml of a study: name a folder under results/, or run the study with `singflow run`"
        )
    return Study(Path(folder))

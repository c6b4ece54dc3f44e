"""A finished study for notebooks: its tables as data frames, its tensors as arrays."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.analyses.inputs import Inputs
from singflow.artifacts.catalog import CATALOG, artifact_of
from singflow.artifacts.files import read_json
from singflow.artifacts.shards import towers_in
from singflow.artifacts.tables import read_parquet
from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import read_yaml
from singflow.errors import InputError
from singflow.extras import explained
from singflow.translators.reference import reference_folder

if TYPE_CHECKING:
    import pandas as pd

    from singflow.evidence import Evidence


@dataclass(frozen=True)
class Study:
    """The results folder of a study, or a reference; a file's name is its path without suffix.

    A name that the folder does not have raises InputError, which lists similar names.
    """

    folder: Path

    @property
    def params(self) -> dict[str, Any]:
        """The content of params.yaml."""
        return read_yaml(CATALOG["params"].at(self.folder))

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        return list(self.params["models"])

    @property
    def spaces(self) -> list[str]:
        """Names of the spaces."""
        return list(self.params["spaces"])

    def of(self, model: str, space: str = "") -> Inputs:
        """What the steps read of a model, and of the model in a space.

        Parameters
        ----------
        model : str
            Name of a model of the study.
        space : str
            Name of a space of the study; without one, only what is of the model alone can be read.

        Returns
        -------
        Inputs
            The artifacts, read when asked for: `manifest`, `head`, `null_basis`, `features()`,
            `label_texts`, `translators`, `null_removal`, `pairs` and more.
        """
        for kind, name, known in zip(
            ("model", "space"), (model, space), towers_in(self.folder), strict=True
        ):
            if name and name not in known:
                raise InputError(
                    f"{self.folder}: has no shards of the {kind} {name!r}; it has those of "
                    f"{', '.join(known) or 'none'}: name one of them"
                )
        of_study = CATALOG["params"].at(self.folder).is_file()  # a reference has no params.yaml
        shards = self.params["extraction"]["shards"] if of_study else 0
        return Inputs(self.folder, model, space, shards=shards)

    def evidence(self, model: str, space: str, *, threads: int = 1) -> Evidence:
        """What the test of meaning says about a model in a space.

        That of a study is read. By a reference, a model of the registry is judged anew, unless its
        evidence is kept in .cache/photo.

        Parameters
        ----------
        model : str
            Name of a model.
        space : str
            Name of a space.
        threads : int
            Number of parallel fits.

        Returns
        -------
        Evidence
            The evidence, with which `Analyzer` judges photos.
        """
        from singflow.sources import reference_evidence, study_evidence
        from singflow.towers.live import Classifier, Space

        if CATALOG["params"].at(self.folder).is_file():
            return study_evidence(self.folder, model, space, threads)
        classifier, into = Classifier.load(model), Space.load(space)
        return reference_evidence(self.folder, classifier, into, threads)[0]

    def table(self, name: str) -> pd.DataFrame:
        """A table of the study.

        Parameters
        ----------
        name : str
            Path in the folder without suffix, as in tables/models, data/manifest or
            scores/conse_minilm/efficientnet_lite0.

        Returns
        -------
        DataFrame
            All rows and columns.
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
            Path of a file without suffix, as in projectors/efficientnet_lite0, or of a folder of
            shards, as in features/efficientnet_lite0; the rows of all shards are joined.

        Returns
        -------
        dict of ndarray
            Tensors by name.
        """
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        shards = sorted((self.folder / name).glob("shard-*.safetensors")) if inside else []
        if not shards:
            return read_tensors(self._find(name, "safetensors"))[0]
        parts = [read_tensors(path)[0] for path in shards]
        return {tensor: np.concatenate([part[tensor] for part in parts]) for tensor in parts[0]}

    def rows(self, name: str) -> np.ndarray:
        """Features or embeddings of the study by image, as measure() takes them.

        Parameters
        ----------
        name : str
            Path of a folder of shards, as in features/efficientnet_lite0.

        Returns
        -------
        ndarray (n, width) or (n, views, width)
            Rows in the order of the manifest.
        """
        shards = self.tensors(name)
        if "view" not in shards:
            raise InputError(f"{self.folder / name}: holds no shards: name features or embeddings")
        order = np.lexsort((shards["view"], shards["image_id"]))
        array = shards["features" if "features" in shards else "embeddings"][order]
        views = int(shards["view"].max()) + 1
        return array.reshape(-1, views, array.shape[1]) if views > 1 else array

    def report(self, name: str) -> dict[str, Any]:
        """Content of a JSON file of the study.

        Parameters
        ----------
        name : str
            Path in the folder without suffix, as in metrics or projectors/efficientnet_lite0.

        Returns
        -------
        dict
            Content of the file.
        """
        return dict(read_json(self._find(name, "json")))

    def _find(self, name: str, *endings: str) -> Path:
        """The artifact of a name; whatever the name is, only files in the study's folder count."""
        known = {}
        for path in self.folder.rglob("*"):
            place = path.relative_to(self.folder).as_posix()
            if path.suffix[1:] in endings and artifact_of(place):
                known[place.removesuffix(path.suffix)] = path
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:3]
            raise InputError(
                f"{self.folder}: has no {' or '.join(endings)} file {name!r}; near: "
                f"{', '.join(near) or 'none'}"
            )
        return known[name]


def load_study(folder: str | Path) -> Study:
    """Open a finished study.

    Parameters
    ----------
    folder : str or Path
        Results folder of the study, as in results/demo.

    Returns
    -------
    Study
        The study; its files are read on demand.

    Raises
    ------
    InputError
        If the folder holds no params.yaml.
    """
    if not CATALOG["params"].at(Path(folder)).is_file():
        raise InputError(
            f"{folder}: holds no params.yaml of a study: name a folder under results/, or run the "
            "study with `singflow run`"
        )
    return Study(Path(folder))


def packaged_reference() -> Study:
    """Open the packaged reference.

    Returns
    -------
    Study
        Features, embeddings and texts of 507 images of ImageNet, one a class.
    """
    return Study(reference_folder("packaged"))

"""Features that a study does not compute.

They are in a folder that singflow.save_features wrote, or in the results of another study.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import read_header
from singflow.artifacts.shards import count_shards, read_manifest, shard_path, towers_in
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import whole_of
from singflow.data.manifest import GROUPED, Candidate, Inspected
from singflow.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from singflow.config.registry import ModelEntry, SpaceEntry

# Metadata that features and embeddings take along from a source.
CARRIED = ("tower", "weights_sha256", "classifier_sha256", "decode", "precision")


def read_source(root: Path) -> pd.DataFrame:
    """The manifest of a source."""
    path = CATALOG["manifest"].at(root)
    if not path.is_file():
        raise InputError(
            f"data.root {root}: holds no data/manifest.parquet: name a folder that "
            "singflow.save_features wrote, or the results of another study"
        )
    return read_manifest(path)


def listed_rows(root: Path) -> tuple[list[Candidate], dict[str, Inspected]]:
    """The images of a source as candidates of a manifest, and what is known of their contents."""
    rows = read_source(root)
    if ((rows["split"] == "validation") == (rows["fold"] == 0)).all():
        rows["split"] = ""  # another study drew it; it will be drawn again
    rows = rows.assign(archive="", offset=0, bytes=-1, **{GROUPED: rows.get(GROUPED, "")})
    hashes = zip(rows["path"], rows["sha256"], strict=True)
    return (
        [Candidate(*row) for row in rows[[*Candidate._fields]].itertuples(index=False)],
        {path: Inspected(0, 0, sha256, 0) for path, sha256 in hashes},
    )


def imported_shard(
    root: Path, paths: Iterable[str], artifact: str, **names: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features or embeddings (views of an image in turn) of the images with these ids; metadata."""
    import pandas as pd

    images = pd.Index(read_source(root)["path"]).get_indexer(pd.Index(paths))
    if (images < 0).any():
        raise InputError(f"{root}: lacks images of the manifest: run build_manifest again")
    folder = CATALOG[artifact].at(root, shard="00000", **names).parent
    views = views_of(root, artifact, **names)
    found, seen = np.empty((0, 0), np.float32), np.zeros(len(images) * views, int)
    errors = list[Any]()
    for shard in range(count_shards(folder)):
        places, made = read_tensors(path := shard_path(folder, shard), ["image_id", "view"])
        if artifact == "features":
            errors.append(made.parsed("head_max_error", float | None))
        rows = pd.Index(images).get_indexer(places["image_id"])
        here = rows >= 0
        if not here.any():
            continue
        tensor = read_tensors(path, [artifact])[0][artifact]
        if not len(found):
            found = np.empty((len(seen), tensor.shape[1]), np.float32)
        rows = (rows * views + places["view"])[here]
        found[rows] = tensor[here]
        np.add.at(seen, rows, 1)
    if not (seen == 1).all():
        raise InputError(
            f"{folder}: does not hold each of {views} views of each image once: make it again"
        )
    facts: dict[str, Any] = facts_of(root, artifact, **names)
    if artifact == "features":
        facts["head_max_error"] = None if None in errors else max(errors)
    return found, facts


def facts_of(root: Path, artifact: str, **names: str) -> dict[str, str]:
    """Metadata that features or embeddings of a study take along from a source."""
    made = read_tensors(CATALOG[artifact].at(root, shard="00000", **names), [])[1]
    return {"weights_sha256": "imported"} | {key: made[key] for key in CARRIED if key in made}


def views_of(root: Path, artifact: str, **names: str) -> int:
    """Views of an image, by the first shard."""
    path = CATALOG[artifact].at(root, shard="00000", **names)
    return int(read_tensors(path, ["view"])[0]["view"].max(initial=0)) + 1


def with_sizes(root: Path, models: dict[str, ModelEntry]) -> dict[str, ModelEntry]:
    """The entries with the width and the number of classes of the heads in a source."""
    found = dict(models)
    for name, entry in models.items():
        held = whole_of(models, name) or name
        head, _ = read_tensors(CATALOG["head"].at(root, model=held), ["weight"])
        classes, width = head["weight"].shape
        found[name] = entry.model_copy(update={"classes": classes, "feature_dim": width})
    return found


def own_class_names(root: Path, model: str) -> list[str] | None:
    """Class names of a whole head of a source, if they are not those of the source."""
    made = read_tensors(CATALOG["head"].at(root, model=model), [])[1]
    of_part = made.get("keep_classes", "null") != "null"  # the registry says which
    return None if of_part else made.parsed("class_names", list | None)


def check_source(
    root: Path, models: Iterable[str], spaces: Mapping[str, SpaceEntry], views: int
) -> None:
    """Refuse a folder that is no source, or lacks a model, a space or views of the study."""
    read_source(root)
    held_models, held_spaces = towers_in(root)
    for artifact, kind, wanted, held in (
        ("features", "model", models, held_models),
        ("embeddings", "space", spaces, held_spaces),
    ):
        for name in wanted:
            if name not in held:
                raise InputError(
                    f"data.root {root}: has nothing of {name}; its {kind}s are "
                    f"{', '.join(held) or 'none'}: add it with singflow.save_features"
                )
            place = CATALOG[artifact].at(root, shard="00000", **{kind: name})
            if (found := views_of(root, artifact, **{kind: name})) != views:
                raise InputError(
                    f"{place}: holds {found} views of an image: write extraction.views: {found}"
                )
            width = json.loads(read_header(place))[artifact]["shape"][1]
            if kind == "space" and width != (dim := spaces[name].dim):
                raise InputError(
                    f"{place}: has {width} dimensions, but {name} has {dim}: name their space"
                )


def source_fingerprint(root: Path) -> str | None:
    """SHA-256 of a source's table and of the headers of its tensors; None if it is not here."""
    manifest = CATALOG["manifest"].at(root)
    if not manifest.is_file():
        return None
    digest = hashlib.sha256(manifest.read_bytes())
    for artifact in ("head", "features", "embeddings"):
        for path, _ in CATALOG[artifact].among(root):
            facts = [str(path.relative_to(root)), path.stat().st_size, read_header(path).decode()]
            digest.update(json.dumps(facts).encode())
    return digest.hexdigest()

"""Fits to training images that the analysis of a photo needs, cached on disk."""

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from singflow import cli
from singflow.analyses.evidence import Words, turn_deg
from singflow.analyses.fitting import fit_translators
from singflow.analyses.floor import Head, Rows, answers, refit, whole_images
from singflow.analyses.geometry import coordinate_axes, null_energy
from singflow.analyses.metrics import Removal, angles_to_all_deg, share, unit
from singflow.analyses.readout import Blocks
from singflow.artifacts.files import code_digest
from singflow.artifacts.shards import iterate_whole
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.errors import InputError
from singflow.parallel import map_apart
from singflow.translators.crossfit import WHOLE, CrossFitted, GroupSums
from singflow.translators.reference import Paired, fingerprint
from singflow.translators.ridge import Affine

RANGE = (1.0, 99.0)  # percentiles of the training images; of a photo outside, nothing is said
# Finds the model's own words for images, and the results of the test (empty if a study has them).
Find = Callable[[Blocks], tuple[Words, dict[str, Any]]]


@dataclass(frozen=True)
class Settings:
    """How translators and floors are fitted, as in a study.

    lambdas: penalties to try. fitted: penalty of an existing translator, or None.
    """

    folds: int
    lambdas: tuple[float, ...]
    fitted: float | None
    draws: int
    seed: int


@dataclass(frozen=True)
class Floor:
    """Translators for which the null component carries no information: what chance gives.

    They are refitted to embeddings whose remainder beyond the own words has random signs. axes:
    (d, q) float32, principal directions first and, from `rank` on, null directions. weight
    (draws, q, m) and constant (draws, m) translate coordinates along the axes.
    """

    axes: np.ndarray
    rank: int
    weight: np.ndarray
    constant: np.ndarray

    def removal(self, features: np.ndarray) -> Removal:
        """Null removal of one feature (1, d), with one row per draw."""
        (x,) = features @ self.axes
        return Removal(
            x @ self.weight + self.constant, x[self.rank :] @ self.weight[:, self.rank :]
        )


def attribute_scores(removal: Removal, texts: np.ndarray) -> np.ndarray:
    """AS (n, p), in degrees, of every row toward every text (unit vectors)."""
    before, after = (
        angles_to_all_deg(unit(points).astype(np.float32), texts)
        for points in (removal.original, removal.equivalent)
    )
    return before - after


@dataclass(frozen=True)
class Trained:
    """Fits to training images, and scores of these images.

    basis: (d, k), of the null space. translator: fitted on all images. r2: cross-validated. is_deg,
    null_energy: (n,), of view 0; with folds, by translators that were not fitted on the image.
    middle: (d,), mean null component. facing: (n,), cosine of every null component to `middle`.
    facts: results of the test; empty if a study has them.
    """

    basis: np.ndarray
    translator: Affine
    r2: float
    is_deg: np.ndarray
    null_energy: np.ndarray
    middle: np.ndarray
    facing: np.ndarray
    floor: Floor
    facts: dict[str, Any]

    def unlike(self, features: np.ndarray) -> str:
        """Why the null component of a photo is unlike those of the images; empty if it is not."""
        (energy,), (faces,) = (
            null_energy(features, self.basis),
            facing(features, self.basis, self.middle),
        )
        low, high = np.percentile(self.null_energy, RANGE).tolist()
        if not low <= energy <= high:
            return (
                f"its null energy, {100 * energy:.1f} %, is outside their range, {100 * low:.1f} "
                f"to {100 * high:.1f} %"
            )
        least = float(np.percentile(self.facing, RANGE[0]))
        away = (
            f"its null component points away from theirs (cosine to their mean {faces:.2f}, theirs "
            f"from {least:.2f})"
        )
        return "" if faces >= least else away


def facing(features: np.ndarray, basis: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Cosine of the null components of features to `middle`, a null component; 0 if one is zero."""
    hidden = features.astype(np.float64) @ basis
    length = np.linalg.norm(hidden, axis=1) * np.linalg.norm(middle)
    return hidden @ (basis.T @ middle) / np.where(length > 0, length, 1.0)


def train(
    images: Paired,
    head: Callable[[], Head],
    find: Find,
    settings: Settings,
    scratch: Path,
    threads: int,
) -> Trained:
    """Fit translators and the floor to training images, and find the model's own words.

    `scratch` is a folder for arrays that do not fit into memory.
    """
    with ThreadPoolExecutor(1) as pool:
        fitting = pool.submit(fit_translators, images, settings.folds, list(settings.lambdas))
        split = head()
        words, facts = find(lambda: whole_images(images, split))
        crossed, _, chosen = fitting.result()
        crossed = crossed.each(lambda affine: affine.astype(np.float32))
        scoring = pool.submit(_scores, images, crossed, split.null)
        penalty = chosen["lambda"] if settings.fitted is None else settings.fitted
        floor = _floor(images, split, words, settings, penalty, scratch, threads)
        is_deg, energy, middle, faces = scoring.result()
    r2 = max(point["validation_r2"] for point in chosen["alpha_curve"])
    facts |= {"turn_deg": turn_deg(facts["unique_r2"], words, r2)} if facts else {}
    return Trained(split.null, crossed.whole, r2, is_deg, energy, middle, faces, floor, facts)


def _floor(
    images: Paired,
    head: Head,
    words: Words,
    settings: Settings,
    penalty: float,
    scratch: Path,
    threads: int,
) -> Floor:
    axes, rank = coordinate_axes(head.null, images.features_alone)
    sums = GroupSums(images.split(settings.folds))
    rows = Rows.read(images, head, axes, words, scratch, sums)
    n, groups = len(images.manifest), sums.split.groups
    fits = answers(sums, np.full(n, WHOLE, np.int32), rank, penalty, [penalty], threads)

    def one(draw: int) -> tuple[np.ndarray, np.ndarray]:
        signs = np.random.default_rng([settings.seed, 3, draw]).choice([-1.0, 1.0], n)
        made = refit(rows, groups, fits, signs)[WHOLE]
        return made.weight, made.constant - rows.origin.astype(np.float32) @ made.weight

    drawn = map_apart(one, range(settings.draws), threads)
    return Floor(
        axes, rank, *(np.stack(parts).astype(np.float32) for parts in zip(*drawn, strict=True))
    )


def _scores(images: Paired, crossed: CrossFitted, basis: np.ndarray) -> tuple[np.ndarray, ...]:
    """IS and null energy of view 0, the mean null component, and the cosines to this mean."""
    removed = crossed.each(lambda affine: share(affine, basis).astype(np.float32))
    is_deg, energy, faces = np.empty((3, len(images.manifest)))
    total = np.zeros(len(basis))

    def shards() -> Any:
        return iterate_whole(images.features, "features", images.shards, images.manifest)

    for image_id, features in shards():
        is_deg[image_id] = Removal(
            crossed(features, image_id), removed(features, image_id)
        ).image_score()
        energy[image_id] = null_energy(features, basis)
        total += features.sum(axis=0, dtype=np.float64)
    middle = basis @ (basis.T @ total) / len(is_deg)
    for image_id, features in shards():
        faces[image_id] = facing(features, basis, middle)
    return is_deg, energy, middle, faces


def trained(
    folder: Path,
    images: Paired,
    made_of: dict[str, Any],
    head: Callable[[], Head],
    find: Find,
    settings: Settings,
    cache: Path,
    threads: int,
) -> Trained:
    """The result of train(), cached in a file whose name is a hash of all inputs.

    `made_of` stands for `head` and `find` in this hash.
    """
    decides = {
        "images": [
            fingerprint(str(folder)),
            images.features.as_posix(),
            images.embeddings.as_posix(),
        ],
        "made_of": made_of,
        "settings": asdict(settings),
        "code": code_digest("analyses", "translators", "photo"),
        "software": provenance(["scipy"])["software"],
    }
    path = (
        cache
        / f"{hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()}.safetensors"
    )
    if path.is_file():
        try:
            return _read(path)
        except InputError as error:
            cli.log.warning("%s; it is made again", error)
    started = time.perf_counter()
    # The matrices are small: on shared cores, several BLAS threads are slower than one.
    with threadpool_limits(1):
        made = train(images, head, find, settings, cache, threads)
    _write(path, made)
    cli.log.info(
        "fitted to %d images in %.1f s, and kept in %s",
        len(made.is_deg),
        time.perf_counter() - started,
        cache,
    )
    return made


NUMBERS = ("is_deg", "null_energy", "middle", "facing")
PARTS = ("null_basis", "weight", "bias", "axes", "floor_weight", "floor_constant", *NUMBERS)


def _write(path: Path, made: Trained) -> None:
    floor = made.floor
    arrays = [
        made.basis,
        made.translator.weight,
        made.translator.bias,
        floor.axes,
        floor.weight,
        floor.constant,
    ]
    arrays += [getattr(made, name) for name in NUMBERS]
    write_tensors(
        path,
        dict(zip(PARTS, arrays, strict=True)),
        provenance(["scipy"], r2=made.r2, rank=floor.rank, facts=made.facts),
    )


def _read(path: Path) -> Trained:
    tensors, made = read_tensors(path, PARTS)
    floor = Floor(
        tensors["axes"],
        made.parsed("rank", int),
        tensors["floor_weight"],
        tensors["floor_constant"],
    )
    translator, numbers = (
        Affine(tensors["weight"], tensors["bias"]),
        {name: tensors[name] for name in NUMBERS},
    )
    return Trained(
        tensors["null_basis"],
        translator,
        made.parsed("r2", float),
        floor=floor,
        facts=made.parsed("facts", dict),
        **numbers,
    )

"""Fits to training images that the analysis of a photo needs, cached on disk."""

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from singflow import cli
from singflow.analyses.evidence import Words, turn_deg
from singflow.analyses.fitting import fit_translators
from singflow.analyses.floor import Refits, Refitted, Rows, SplitHead
from singflow.analyses.geometry import coordinate_axes, null_energy
from singflow.analyses.maps import conditional_translator
from singflow.analyses.metrics import NullRemoval, Removal
from singflow.artifacts.files import code_digest
from singflow.artifacts.shards import iterate_whole
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.errors import InputError
from singflow.translators.crossfit import WHOLE, CrossFitted, GroupSums
from singflow.translators.reference import Paired, fingerprint
from singflow.translators.ridge import Affine

RANGE = (1.0, 99.0)  # percentiles of the training images; of a photo outside, nothing is said
# A head, the model's own words, and the results of the test (empty if a study has them).
Parts = tuple[SplitHead, Words, dict[str, Any]]


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
class Fits:
    """Fits to training images, and scores of these images.

    null_basis: (d, k). weight (m, d), bias (m,): the translator fitted on all images. r2:
    cross-validated. is_deg, null_energy: (n,), of view 0; with folds, by translators that were not
    fitted on the image. mean_null: (d,), mean null component. alignment: (n,), cosine of every null
    component to `mean_null`. facts: results of the test; empty if a study has them.

    chance_weight (draws, q, m), chance_constant (draws, m): translators for which the null
    component carries no information. They translate coordinates along axes (d, q): `rank` principal
    directions, then null directions. predictor_weight, predictor_bias: B, from principal to null
    coordinates.
    """

    null_basis: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    is_deg: np.ndarray
    null_energy: np.ndarray
    mean_null: np.ndarray
    alignment: np.ndarray
    axes: np.ndarray
    chance_weight: np.ndarray
    chance_constant: np.ndarray
    predictor_weight: np.ndarray
    predictor_bias: np.ndarray
    rank: int
    r2: float
    facts: dict[str, Any]

    def conditional(self, translator: Affine) -> Affine:
        """What conditional removal takes away from a translation, as a map of features."""
        predictor = Affine(self.predictor_weight, self.predictor_bias)
        return conditional_translator(
            translator, self.null_basis, (self.axes, self.rank), predictor
        )

    def chance_removal(self, features: np.ndarray) -> Removal:
        """Null removal of one feature (1, d) by the translators of chance: one row per draw."""
        (x,) = features @ self.axes
        return Removal(
            x @ self.chance_weight + self.chance_constant,
            x[self.rank :] @ self.chance_weight[:, self.rank :],
        )

    def unlike(self, features: np.ndarray) -> str:
        """Why the null component of a photo is unlike those of the images; empty if it is not."""
        energy = float(null_energy(features, self.null_basis)[0])
        cosine = float(alignment(features, self.null_basis, self.mean_null)[0])
        low, high = np.percentile(self.null_energy, RANGE).tolist()
        least = float(np.percentile(self.alignment, RANGE[0]))
        if not low <= energy <= high:
            return (
                f"its null energy, {100 * energy:.1f} %, is outside their range, {100 * low:.1f} "
                f"to {100 * high:.1f} %"
            )
        if cosine < least:
            return (
                f"its null component points away from theirs (cosine to their mean {cosine:.2f}, "
                f"theirs from {least:.2f})"
            )
        return ""


ARRAYS = [field.name for field in fields(Fits) if field.type is np.ndarray]
NUMBERS = {"rank": int, "r2": float, "facts": dict}


def alignment(features: np.ndarray, basis: np.ndarray, mean_null: np.ndarray) -> np.ndarray:
    """Cosine of the null components of features to their mean; 0 if one is zero."""
    components = features.astype(np.float64) @ basis
    length = np.linalg.norm(components, axis=1) * np.linalg.norm(mean_null)
    return components @ (basis.T @ mean_null) / np.where(length > 0, length, 1.0)


def fit(
    images: Paired, parts: Callable[[], Parts], settings: Settings, scratch: Path, threads: int
) -> Fits:
    """Fit translators to training images, with and without information in the null component.

    `scratch` is a folder for arrays that do not fit into memory.
    """
    with ThreadPoolExecutor(1) as pool:
        fitting = pool.submit(fit_translators, images, settings.folds, list(settings.lambdas))
        head, words, facts = parts()
        crossed, _, chosen = fitting.result()
    crossed = crossed.map(lambda affine: affine.astype(np.float32))
    penalty = chosen["lambda"] if settings.fitted is None else settings.fitted
    axes = coordinate_axes(head.principal, head.null, images.features_alone)
    sums = GroupSums(images.split(settings.folds))
    rows = Rows.read(images, head, axes, words, scratch, sums)
    map_index = np.full(len(images.manifest), WHOLE, np.int32)
    refits = Refits.prepare(rows, sums, map_index, penalty, [penalty], threads)

    def of_coordinates(made: dict[int, Refitted]) -> tuple[np.ndarray, np.ndarray]:
        """The translator of coordinates, whose origin goes into the constant."""
        weight = made[WHOLE].weight
        return weight, made[WHOLE].constant - rows.origin.astype(np.float32) @ weight

    drawn = refits.over_signs(of_coordinates, settings.draws, settings.seed, threads)
    weight, constant = (np.stack(part).astype(np.float32) for part in zip(*drawn, strict=True))
    r2 = max(point["validation_r2"] for point in chosen["alpha_curve"])
    if facts:
        facts = facts | {"turn_deg": turn_deg(facts["unique_r2"], words, r2)}
    return Fits(
        null_basis=head.null,
        weight=crossed.whole.weight,
        bias=crossed.whole.bias,
        **_image_scores(images, crossed, head.null),
        axes=axes[0],
        predictor_weight=refits.fits[WHOLE].predictor.weight,
        predictor_bias=refits.fits[WHOLE].predictor.bias,
        chance_weight=weight,
        chance_constant=constant,
        rank=axes[1],
        r2=r2,
        facts=facts,
    )


def _image_scores(images: Paired, crossed: CrossFitted, basis: np.ndarray) -> dict[str, np.ndarray]:
    """IS and null energy of view 0, the mean null component, and the cosines to this mean."""
    removed = NullRemoval(crossed, basis)
    is_deg, energy, cosine = np.empty((3, len(images.manifest)))
    total = np.zeros(len(basis))
    shards = partial(iterate_whole, images.features, "features", images.shards, images.manifest)
    for image_id, features in shards():
        is_deg[image_id] = removed(features, image_id).image_score()
        energy[image_id] = null_energy(features, basis)
        total += features.sum(axis=0, dtype=np.float64)
    mean = basis @ (basis.T @ total) / len(is_deg)
    for image_id, features in shards():
        cosine[image_id] = alignment(features, basis, mean)
    return {"is_deg": is_deg, "null_energy": energy, "mean_null": mean, "alignment": cosine}


def cached_fit(
    folder: Path,
    images: Paired,
    made_of: dict[str, Any],
    parts: Callable[[], Parts],
    settings: Settings,
    cache: Path,
    threads: int,
) -> Fits:
    """The result of fit(), cached in a file whose name is a hash of all inputs.

    folder: the results of the images. `made_of` stands for `parts` in this hash.
    """
    inputs = {
        "images": [fingerprint(str(folder)), str(images.features), str(images.embeddings)],
        "made_of": made_of,
        "settings": asdict(settings),
        "code": code_digest("analyses", "translators", "photo"),
        "software": provenance(["scipy"])["software"],
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    path = cache / f"{digest}.safetensors"
    if path.is_file():
        try:
            tensors, made = read_tensors(path, ARRAYS)
            return Fits(**tensors | {name: made.parsed(name, NUMBERS[name]) for name in NUMBERS})
        except InputError as error:
            cli.log.warning("%s; it is made again", error)
    started = time.perf_counter()
    # The matrices are small: on shared cores, several BLAS threads are slower than one.
    with threadpool_limits(1):
        fits = fit(images, parts, settings, cache, threads)
    arrays, numbers = ({n: getattr(fits, n) for n in names} for names in (ARRAYS, NUMBERS))
    write_tensors(path, arrays, provenance(["scipy"], **numbers))
    seconds = time.perf_counter() - started
    cli.log.info("fitted to %d images in %.1f s, and kept in %s", len(fits.is_deg), seconds, cache)
    return fits

"""What training images say of single photos: their translator, their own scores, and null components without content; kept by content.

The floor of a photo is what its scores are with the null component of no photo: what its principal coordinates predict of it, and the
residual of a training image, scored by a translator that was fitted to other training images with residuals of each other. It has not
seen the residual, as that of the photo has not seen the photo's: in sample it would turn by a tenth more. So it is the floor of a
study with a reference (analyses/floor.py), but that the residuals which are scored come from the reference's images, there from the
study's, and that a translator is fitted to all folds but one.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from singflow import cli
from singflow.analyses.fitting import fit_translators, read_rows
from singflow.analyses.floor import Exchange, Fitted, Rows, choose_penalties, score
from singflow.analyses.geometry import coordinate_axes, null_energy
from singflow.analyses.metrics import Removal, share
from singflow.artifacts.files import code_digest
from singflow.artifacts.shards import iterate_whole
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.translators.crossfit import WHOLE, CrossFitted, GroupSums, split
from singflow.translators.partitioned import Halves
from singflow.translators.reference import Paired, fingerprint
from singflow.translators.ridge import Affine, RidgePath

RESIDUALS = 64  # of training images that a refitted translator has not seen, at most


@dataclass(frozen=True)
class Settings:
    """How translators and floors are fitted, as in a study. lambdas: penalties tried; fitted: that of a translator that is there."""

    folds: int
    lambdas: tuple[float, ...]
    fitted: float | None
    permutations: int
    seed: int


@dataclass(frozen=True)
class Floor:
    """Null components without content.

    axes: (d, r + k) float32, directions of principal, then of null coordinates; origin: (r,), from where principal ones are given;
    predictor: of null from principal coordinates; real: the translator of all training images; permuted: those refitted, none where every
    translator has seen all images; residuals: (permutations, s, k) float32, that each of them has not seen, and the photo gets.
    """

    axes: np.ndarray
    origin: np.ndarray
    predictor: Affine
    real: Halves
    permuted: list[Halves]
    residuals: np.ndarray

    def scores(self, features: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Conditional removal of the photo's own null component, and both removals of those without content.

        Parameters
        ----------
        features : ndarray of shape (1, d)
            The photo's feature.

        Returns
        -------
        conditional_is_deg : float
            Degrees.
        floor_is_deg, floor_conditional_is_deg : ndarray of shape (permutations, s)
            Degrees.
        """
        rank = len(self.origin)
        coordinates = features @ self.axes
        known, hidden = coordinates[:, :rank] - self.origin.astype(np.float32), coordinates[:, rank:]
        predicted = self.predictor(known + self.origin).astype(np.float32)

        def score(fit: Halves, residuals: np.ndarray) -> np.ndarray:
            removed = (predicted + residuals) @ fit.hidden.T
            original = fit.visible(known) + removed
            return np.stack([Removal(original, each).image_score() for each in (removed, removed - fit.predicted(known))])

        own = score(self.real, hidden - predicted)[1, 0]
        floors = [score(fit, each) for fit, each in zip(self.permuted, self.residuals, strict=True)]
        null, conditional = np.stack(floors, axis=1) if floors else np.empty((2, 0, 0))
        return float(own), null, conditional


@dataclass(frozen=True)
class Trained:
    """What training images say.

    basis: (d, k), of the null space; translator: of all images; r2: cross-validated; is_deg, conditional_is_deg, null_energy: (n,) of view
    0 of the images, each scored by a translator that did not see it, where there are folds.
    """

    basis: np.ndarray
    translator: Affine
    r2: float
    is_deg: np.ndarray
    conditional_is_deg: np.ndarray
    null_energy: np.ndarray
    floor: Floor


def train(images: Paired, split_head: Callable[[], np.ndarray], settings: Settings, scratch: Path, threads: int) -> Trained:
    """Fit translators and floors to training images, as fit_translator and measure_floor do.

    Parameters
    ----------
    images : Paired
        The training images.
    split_head : callable
        Gives the orthonormal basis of the null space, (d, k).
    settings : Settings
        How they are fitted.
    scratch : Path
        Folder for what is too large for memory.
    threads : int
        Fits at a time.

    Returns
    -------
    Trained
        In the types of a study's files.
    """
    tried = list(settings.lambdas)
    n, sums = len(images.manifest), GroupSums(split(images.manifest, settings.folds))
    with ThreadPoolExecutor(threads) as pool:
        fitting = pool.submit(fit_translators, images, settings.folds, tried)
        placing = pool.submit(_coordinates, images, split_head, sums, scratch)
    (crossed, _, facts), (basis, axes, rank, rows) = fitting.result(), placing.result()
    crossed = crossed.each(lambda each: each.astype(np.float32))
    with ThreadPoolExecutor(1) as pool:
        scoring = pool.submit(_usual, images, crossed, basis)
        fitted = facts["lambda"] if settings.fitted is None else settings.fitted
        lambdas, scale, paths = choose_penalties(sums, rank, tried, fitted, threads)
        both = lambdas["translator"], lambdas["predictor"]
        fits = Fitted(sums, rank, both, sums.split.place, scale, threads, paths)
    is_deg, energy = scoring.result()
    fits.leave_residuals(rows)
    toward = np.ones((1, len(crossed.whole.bias)), np.float32), np.zeros(n, np.int32)  # AS is not asked for
    conditional = score(fits.fit(), sums.split.place, rows, *toward).scores["conditional_is_deg"]
    r2 = max(facts["alpha_curve"], key=lambda each: each["validation_r2"])["validation_r2"]
    final = Fitted(sums, rank, both, np.array([WHOLE]), scale, threads)
    ((_, rotated),) = final.fit()
    real = straight(rotated, final.paths[WHOLE], rows.origin[0])
    drawn = list(_refits(fits.exchange(rows), rows, settings, threads)) if sums.split.crossed else []
    permuted = [fit for fit, _ in drawn]
    held = np.array([images for _, images in drawn], np.int64).reshape(len(drawn), len(drawn[0][1]) if drawn else 0)
    residuals = np.float32(scale) * rows.residuals[held * rows.views]
    floor = Floor(axes, rows.origin[0], final.predictors.whole, real, permuted, residuals)
    return Trained(basis, crossed.whole, r2, is_deg, conditional, energy, floor)


def _coordinates(
    images: Paired, split_head: Callable[[], np.ndarray], sums: GroupSums, scratch: Path
) -> tuple[np.ndarray, np.ndarray, int, Rows]:
    """Null space, axes and rank of principal and null coordinates, and the images' rows in them, which enter the sums."""
    basis = split_head()
    axes, rank = coordinate_axes(basis, images.features_alone)
    return basis, axes, rank, read_rows(images, scratch, axes, rank, sums, trains=True)


def _usual(images: Paired, crossed: CrossFitted, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IS and null energy of view 0 of the images."""
    removed = crossed.each(lambda each: share(each, basis).astype(np.float32))
    is_deg, energy = np.empty(len(images.manifest)), np.empty(len(images.manifest))
    for image_id, features in iterate_whole(images.features, "features", images.shards, images.manifest):
        is_deg[image_id] = Removal(crossed(features, image_id), removed(features, image_id)).image_score()
        energy[image_id] = null_energy(features, basis)
    return is_deg, energy


def straight(fit: Halves, path: RidgePath, origin: np.ndarray) -> Halves:
    """A translator that takes principal coordinates as they are, less their origin.

    Parameters
    ----------
    fit : Halves
        It, that takes them in the axes of its path.
    path : RidgePath
        Of the same fit.
    origin : ndarray of shape (r,)
        From where coordinates are given.

    Returns
    -------
    Halves
        The same translator.
    """
    axes, middle = path.eigenvectors.astype(np.float32), (path.feature_mean - origin).astype(np.float32)

    def turned(half: Affine) -> Affine:
        weight = half.weight @ axes.T
        return Affine(weight, half.bias - weight @ middle)

    return replace(fit, visible=turned(fit.visible), predicted=turned(fit.predicted))


def _refits(exchange: Exchange, rows: Rows, settings: Settings, threads: int) -> Iterator[tuple[Halves, np.ndarray]]:
    """For each permutation a translator, fitted with residuals of others without one fold in turn, and images of that fold."""
    places = sorted(exchange.emptied)
    least = min(int((rows.groups == place).sum()) for place in places)

    def refit(number: int) -> tuple[Halves, np.ndarray]:
        generator = np.random.default_rng([settings.seed, number + 1])
        order, place = rows.permute(generator), places[number % len(places)]
        ((_, fit),) = replace(exchange, emptied={place: exchange.emptied[place]}).fit(rows, order)
        fit = straight(fit, exchange.emptied[place].path, rows.origin[0])
        return fit, generator.choice(np.flatnonzero(rows.groups == place), min(least, RESIDUALS), replace=False)

    yield from map_ahead(refit, range(settings.permutations), threads, 1)


def trained(
    folder: Path, images: Paired, head: str, split_head: Callable[[], np.ndarray], settings: Settings, cache: Path, threads: int
) -> Trained:
    """What train() gives, kept in a file that is named by all that decides it.

    Parameters
    ----------
    folder : Path
        Results folder of the training images.
    images, split_head, settings, threads
        As for train().
    head : str
        Digest of what the null space is made from.
    cache : Path
        Folder of such files, which may be removed at any time.

    Returns
    -------
    Trained
        Of the file, where it is there and whole.
    """
    decides = {
        "images": [fingerprint(str(folder)), images.features.as_posix(), images.embeddings.as_posix()],
        "head": head,
        "settings": asdict(settings),
        "code": code_digest("analyses", "translators", "photo"),
        "software": provenance(["scipy"])["software"],
    }
    path = cache / f"{hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()}.safetensors"
    if path.is_file():
        try:
            return _read(path)
        except InputError as error:
            cli.log.warning("%s; it is made again", error)
    started = time.perf_counter()
    with threadpool_limits(1):  # matrices are small, and threads of BLAS that wait for each other take longer where cores are shared
        made = train(images, split_head, settings, cache, threads)
    _write(path, made)
    seconds = time.perf_counter() - started
    cli.log.info("translators and floors fitted to %d images in %.1f s, and kept in %s", len(made.is_deg), seconds, cache)
    return made


HALVES = ("visible_weight", "visible_bias", "hidden", "predicted_weight", "predicted_bias", "embedding_means")
NUMBERS = ("is_deg", "conditional_is_deg", "null_energy")
PARTS = ("null_basis", "weight", "bias", *NUMBERS, "axes", "origin", "predictor_weight", "predictor_bias", "residuals", *HALVES)


def _write(path: Path, made: Trained) -> None:
    floor = made.floor
    halves = [
        (each.visible.weight, each.visible.bias, each.hidden, each.predicted.weight, each.predicted.bias, each.embedding_mean)
        for each in (floor.real, *floor.permuted)
    ]
    arrays = [
        made.basis, made.translator.weight, made.translator.bias, *(getattr(made, name) for name in NUMBERS),
        floor.axes, floor.origin, floor.predictor.weight, floor.predictor.bias, floor.residuals,
        *map(np.stack, zip(*halves, strict=True)),
    ]  # fmt: skip
    write_tensors(path, dict(zip(PARTS, arrays, strict=True)), provenance(["scipy"], r2=made.r2))


def _read(path: Path) -> Trained:
    tensors, made = read_tensors(path, PARTS)
    real, *permuted = (
        Halves(Affine(seen, constant), hidden, Affine(reading, start), mean)
        for seen, constant, hidden, reading, start, mean in zip(*(tensors[name] for name in HALVES), strict=True)
    )
    predictor = Affine(tensors["predictor_weight"], tensors["predictor_bias"])
    floor = Floor(tensors["axes"], tensors["origin"], predictor, real, permuted, tensors["residuals"])
    translator = Affine(tensors["weight"], tensors["bias"])
    numbers = {name: tensors[name] for name in NUMBERS}
    return Trained(tensors["null_basis"], translator, made.parsed("r2", float), floor=floor, **numbers)

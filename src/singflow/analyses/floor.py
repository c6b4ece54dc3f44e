"""The floor of IS, by refitted translators.

The floor is the angle for null components that carry no information beyond own words. Its
embeddings are z* = w + s r: own words w, plus the remainder r = z - w with a random sign s = 1 or
-1 for every cluster of images. A sign keeps the size of every remainder and its distribution
about 0, and takes away what b tells about it. The coordinates (a, b) stay, and the translator is
refitted to z*. What IS it still has comes from the fit alone: from b that stands in for a, and from
chance.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from singflow.analyses.bands import Block
from singflow.analyses.evidence import OwnWords, nested_groups
from singflow.analyses.geometry import complement
from singflow.analyses.metrics import Removal
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import in_blocks
from singflow.artifacts.tensors import Tensors
from singflow.errors import InputError
from singflow.parallel import map_apart
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate, penalties
from singflow.translators.reference import Images, Pool, together
from singflow.translators.spans import row_span

BATCH = 1024  # rows in memory at once
Result = TypeVar("Result")


class Axes(NamedTuple):
    """Axes (d, q) float32 of coordinates: `rank` principal ones, then null ones."""

    directions: np.ndarray
    rank: int


def coordinate_axes(
    principal: np.ndarray, null: np.ndarray, read: Callable[[], Iterable[np.ndarray]]
) -> Axes:
    """Axes of principal and of null coordinates in which the features differ.

    principal (d, r) and null (d, k) are bases of the two parts. With fewer features than dimensions
    of a part, the features differ in fewer directions than the part has. Its axes span these alone,
    V row_span(f V), and a ridge regression on these fewer coordinates loses nothing. `read` returns
    the features in blocks of rows (n, d), anew at every call.
    """
    parts = [principal, null]
    spans = [row_span(block[: part.shape[1]] @ part for block in read()) for part in parts]
    parts = [part if span is None else part @ span for part, span in zip(parts, spans, strict=True)]
    return Axes(np.hstack(parts).astype(np.float32), parts[0].shape[1])


@dataclass(frozen=True)
class SplitHead:
    """A head and its null space."""

    weight: np.ndarray  # (C, d)
    bias: np.ndarray  # (C,)
    principal: np.ndarray  # (d, r), orthonormal columns
    null: np.ndarray  # (d, k), orthonormal columns

    @classmethod
    def split(cls, head: Tensors, basis: np.ndarray) -> "SplitHead":
        """A head (weight, bias), with the basis (d, k) of its null space."""
        return cls(head["weight"], head["bias"], complement(basis), basis)

    def coordinates(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Principal coordinates (n, r), null coordinates (n, k) and logits (n, C) of features.

        The logits are those of the principal component alone, whatever the rank rule: they are
        W f + c - W V_0 b, which is W f + c up to rounding where the null space is the kernel of W.
        """
        axes, unseen = self._maps
        a, b = np.split(features @ axes, [self.principal.shape[1]], axis=1)
        return a, b, features @ self.weight.T + self.bias - b @ unseen

    @cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        axes = np.hstack([self.principal, self.null]).astype(np.float32)
        return axes, (self.weight @ self.null).astype(np.float32).T


def whole_images(images: Images, head: SplitHead, threads: int | None = None) -> Iterator[Block]:
    """View 0 of grouped() images, in blocks and in the order of the shards."""
    of_image = images.manifest[["fold", "part", "cluster", "image"]].to_numpy().T

    def parts() -> Iterator[tuple[np.ndarray, ...]]:
        for shard, embeddings in images:
            for part in in_blocks(np.flatnonzero(shard["view"] == 0), BATCH):
                if len(part):
                    image_id = shard["image_id"][part]
                    yield shard["features"][part], embeddings[part], of_image[:, image_id]

    def block(part: tuple[np.ndarray, ...]) -> Block:
        features, embeddings, numbers = part
        return Block(*head.coordinates(features), embeddings, *numbers)

    yield from map_apart(block, parts(), threads)


def grouped(pool: Pool[Any]) -> Pool[Any]:
    """The images with more columns of their manifests: see Block, whose group is `part`.

    Images are a cluster if they are together(), and copies if their sha256 is equal. Clusters are
    dealt out to groups by their hashes.
    """
    parts = [images.manifest for images in pool]
    keys, fold, sha256 = (
        pd.concat([of(manifest) for manifest in parts])
        for of in (together, itemgetter("fold"), itemgetter("sha256"))
    )
    hashes = np.array([hashlib.sha256(key.encode()).hexdigest() for key in keys])
    part = nested_groups(fold.to_numpy(), pd.factorize(hashes, sort=True)[0])
    numbers = {"cluster": pd.factorize(keys)[0], "image": pd.factorize(sha256)[0], "part": part}
    start, made = 0, []
    for images, manifest in zip(pool, parts, strict=True):
        rows = slice(start, start + len(manifest))
        numbered = manifest.assign(**{name: number[rows] for name, number in numbers.items()})
        made.append(replace(images, manifest=numbered))
        start = rows.stop
    return Pool(made[-1], made[0] if pool.reference is not None else None)


@dataclass(frozen=True)
class Rows:
    """All views of images, or view 0 alone, in temporary files.

    coordinates: (n, q) minus their origin (q,), `rank` principal ones first, then null ones.
    spoken, remainder: (n, m), the prediction of the embeddings by own words, and the rest.
    image_id, view: (n,).
    """

    coordinates: Scratch
    rank: int
    origin: np.ndarray
    spoken: Scratch
    remainder: Scratch
    image_id: np.ndarray
    view: np.ndarray

    @classmethod
    def read(
        cls,
        images: Images,
        head: SplitHead,
        axes: Axes,
        own_words: OwnWords,
        folder: Path,
        sums: GroupSums | None,
    ) -> "Rows":
        """Read rows, and add coordinates and embeddings to sums; without sums, only view 0.

        Raises InputError when views are missing.
        """
        shards = [(shard["image_id"], shard["view"]) for shard, _ in images]
        image_id, view = (np.concatenate(column) for column in zip(*shards, strict=True))
        views = int(view.max()) + 1
        if len(view) != views * len(images.manifest):
            raise InputError(
                f"{images.features}: holds {len(view)} rows, not {views} of each of "
                f"{len(images.manifest)} images: remove it and run the workflow again"
            )
        wanted = (view == 0) | (sums is not None)
        directions, rank = axes
        m, start, origin = len(own_words.offset), 0, np.zeros(directions.shape[1])
        files = [Scratch(folder, int(wanted.sum()), width) for width in (len(origin), m, m)]
        for shard, embeddings in images:
            for part in in_blocks(np.flatnonzero((shard["view"] == 0) | (sums is not None)), BATCH):
                if not len(part):
                    continue
                features, z = shard["features"][part], embeddings[part]
                coordinates = features @ directions
                if sums is not None:
                    sums.update(coordinates, z, shard["image_id"][part], shard["view"][part])
                origin = coordinates[0].astype(np.float64) if not start else origin
                at = slice(start, start + len(part))
                spoken = own_words.spoken(head.coordinates(features)[2])
                files[0][at], files[1][at], files[2][at] = coordinates - origin, spoken, z - spoken
                start += len(part)
        return cls(files[0], rank, origin, files[1], files[2], image_id[wanted], view[wanted])


@dataclass(frozen=True)
class RefitBasis:
    """What a ridge fit needs for new embeddings, beside their products with the coordinates."""

    groups: list[int]  # of the images that are fitted
    inverse: np.ndarray  # (q, q) float32, of the penalized scatter of the coordinates
    mean: np.ndarray  # (q,) of the coordinates
    n: int  # rows


@dataclass(frozen=True)
class Refitted:
    """A translator (q, m) of coordinates minus their origin, and its constant (m,), in float32."""

    weight: np.ndarray
    constant: np.ndarray


@dataclass(frozen=True)
class Refits:
    """Translators that are refitted to other embeddings of the same training rows.

    groups: the group of each training image, or WHOLE for an image that no fit uses. cluster: (n,),
    as in Block. member_of: for each scored image the fit that scores it,
    WHOLE being that of all training rows. fits: by their member.
    """

    rows: Rows
    groups: np.ndarray
    cluster: np.ndarray
    member_of: np.ndarray
    fits: dict[int, RefitBasis]

    def translators(self, signs: np.ndarray) -> dict[int, Refitted]:
        """Translators, by member, refitted to remainders with other signs (n,) of training images.

        With the coordinates x about their mean, T = (S + alpha I)^-1 sum x z*^T. Only z* changes:
        a draw costs the cross-products of each group, and one product with the inverse.
        """
        rows, dim = self.rows, self.rows.spoken.shape[1]
        numbers = np.unique(self.groups[self.groups >= 0]).tolist()
        cross = {group: np.zeros((len(rows.origin), dim), np.float32) for group in numbers}
        totals = {group: np.zeros(dim) for group in numbers}
        for part in in_blocks(np.arange(len(rows.image_id)), BATCH):
            x, image_id = rows.coordinates[part], rows.image_id[part]
            sign = signs[image_id].astype(np.float32)[:, None]
            z = rows.spoken[part] + rows.remainder[part] * sign
            for group in np.unique(self.groups[image_id]).tolist():
                mine = self.groups[image_id] == group
                if group in cross:
                    cross[group] += x[mine].T @ z[mine]
                    totals[group] += z[mine].sum(axis=0, dtype=np.float64)
        made = {}
        for member, fit in self.fits.items():
            mean = np.sum([totals[group] for group in fit.groups], axis=0) / fit.n
            middle = (fit.mean - rows.origin).astype(np.float32)
            products = np.sum([cross[group] for group in fit.groups], axis=0)
            weight = fit.inverse @ (products - fit.n * np.outer(middle, mean.astype(np.float32)))
            made[member] = Refitted(weight, mean.astype(np.float32) - middle @ weight)
        return made

    def over_signs(
        self,
        use: Callable[[dict[int, Refitted]], Result],
        draws: int,
        seed: int,
        threads: int | None,
    ) -> Iterator[Result]:
        """What `use` makes of the translators of each draw of random signs."""

        def one(draw: int) -> Result:
            generator = np.random.default_rng([seed, 3, draw])
            signs = generator.choice([-1.0, 1.0], int(self.cluster.max()) + 1)
            return use(self.translators(signs[self.cluster]))

        yield from map_apart(one, range(draws), threads)

    def image_scores(self, scored: Rows, translators: dict[int, Refitted]) -> np.ndarray:
        """IS of view 0 of images, by image id: (n,) in degrees."""
        found = np.empty(len(self.member_of))
        rank, origin = scored.rank, self.rows.origin.astype(np.float32)
        for part in in_blocks(np.flatnonzero(scored.view == 0), BATCH):
            image_id = scored.image_id[part]
            x = scored.coordinates[part] + scored.origin.astype(np.float32)
            for member in np.unique(self.member_of[image_id]).tolist():
                mine = self.member_of[image_id] == member
                translator, ids, own = translators[member], image_id[mine], x[mine]
                removal = Removal(
                    (own - origin) @ translator.weight + translator.constant,
                    own[:, rank:] @ translator.weight[rank:],
                )
                found[ids] = removal.image_score()
        return found

    def floor(
        self, scored: Rows, *, draws: int, seed: int, threads: int | None
    ) -> tuple[np.ndarray, float]:
        """The mean IS of every image (n,) over draws, and the deviation over draws of its mean."""
        total, means = np.zeros(len(self.member_of)), []
        score = partial(self.image_scores, scored)
        for scores in self.over_signs(score, draws, seed, threads):
            total += scores / draws
            means.append(scores.mean())
        return total, float(np.std(means, ddof=1))


@dataclass(frozen=True)
class Refitting:
    """How translators are refitted.

    fitted: lambda and cross-validated R2 of the translator; None: the best of `lambdas`, by
    cross-validation. draws, seed: of random signs. threads: fits and blocks at once, which change
    no result. folder: of temporary files.
    """

    fitted: tuple[float, float] | None
    folds: int
    lambdas: list[float]
    draws: int
    seed: int
    threads: int
    folder: Path

    def refits(
        self,
        images: Images,
        head: SplitHead,
        axes: Axes,
        own_words: OwnWords,
        member_of: np.ndarray | None = None,
    ) -> tuple[Refits, float]:
        """The fits that score images, by default the training images, and R2 of the translator."""
        sums = GroupSums(images.split(self.folds))
        rows = Rows.read(images, head, axes, own_words, self.folder, sums)
        if self.fitted is None:
            validation = cross_validate(sums, self.lambdas, self.threads)
            penalty, r2 = self.lambdas[validation.best], float(validation.r2[validation.best])
        else:
            penalty, r2 = self.fitted
        *folds, whole = sums.split.fitted_on
        numbered = dict(enumerate(folds)) | {WHOLE: whole}
        member_of = sums.split.member_of if member_of is None else member_of
        needed = {number: numbered[number] for number in numbered if number in member_of}

        def fit(groups: list[int]) -> RefitBasis:
            own = sums.of(groups)
            inverse = own.inverse(*penalties(own, [penalty])).astype(np.float32)
            return RefitBasis(groups, inverse, own.feature_mean, own.n)

        made = dict(zip(needed, map_apart(fit, needed.values(), self.threads), strict=True))
        cluster = pd.factorize(together(images.manifest))[0]
        return Refits(rows, sums.split.groups, cluster, member_of, made), r2


def floor_of_images(
    pool: Pool[Any], head: SplitHead, own_words: OwnWords, how: Refitting
) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """Floor of IS of every image, and facts about the refitted translators.

    The table has the columns image_id and floor_is_deg; the facts are r2 (None without a null
    space, unless `how` has it) and floor_is_sd (degrees).
    """
    ids = np.arange(len(pool.scored.manifest))
    if not head.null.shape[1]:
        nothing = pd.DataFrame({"image_id": ids, "floor_is_deg": 0.0})
        return nothing, {"r2": how.fitted[1] if how.fitted else None, "floor_is_sd": 0.0}
    axes = coordinate_axes(
        head.principal,
        head.null,
        lambda: chain.from_iterable(images.features_alone() for images in pool),
    )
    shared = pool.reference is None
    member_of = None if shared else np.full(len(ids), WHOLE, np.int32)
    refits, r2 = how.refits(pool.training, head, axes, own_words, member_of)
    scored = refits.rows
    if not shared:
        scored = Rows.read(pool.scored, head, axes, own_words, how.folder, None)
    floors, spread = refits.floor(scored, draws=how.draws, seed=how.seed, threads=how.threads)
    found = pd.DataFrame({"image_id": ids, "floor_is_deg": floors})
    return found, {"r2": r2, "floor_is_sd": spread}

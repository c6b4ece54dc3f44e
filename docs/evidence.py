"""The planted experiments of docs/evidence.md, by the workflow's own code: prints the tables of the page and draws its figures.

Every truth is known because it is made: principal coordinates a, null coordinates b, and embeddings z that a, b or both determine.
Numbers are means over TRIALS seeds from 0; bars in figures, and what stands after a plus-minus, are two standard errors over them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field
from scipy.special import softmax

from singflow import cli
from singflow.analyses.controls import Case, Subspace, draw_subspace, matched
from singflow.analyses.floor import Fitted, Rows, measure, p_value, predictor_penalty, score
from singflow.analyses.geometry import null_space, random_basis
from singflow.analyses.metrics import Removal, contrast_deg, remove, share, unit
from singflow.analyses.unique_information import unique_information
from singflow.figures.style import STYLE, colour, marker, save
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate, penalties, r2_without, split
from singflow.translators.ridge import Affine

TRIALS, PERMUTATIONS, FOLDS, LEVEL = 8, 20, 5, 0.05
RANK, NULL_DIM, DIM, LABELS = 28, 20, 16, 10
WIDTH = RANK + NULL_DIM
LAMBDAS = [10.0**exponent for exponent in np.arange(-3, 2.1, 0.5)]
PER_DIMENSION, PAPER = (2, 4, 8, 16, 32), 10_000 / 2048  # images per feature dimension, of which translators see four fifths


class Flags(cli.Command):
    """The planted experiments of docs/evidence.md."""

    figures: Path = Field(Path("docs/evidence"), description="folder of the figures")
    output: Path = Field(Path("src/singflow/planning/power.csv"), description="file that --power writes")
    power: int = Field(0, ge=0, description="write planning/power.csv instead, out of so many trials (100: half an hour of one core)")
    paper: int = Field(0, ge=0, le=32, description="measure the paper's size instead, divided by this number (1: three minutes, 1.9 GB)")


@dataclass(frozen=True)
class Images:
    """Principal coordinates (n, r), null coordinates (n, k) and embeddings (n, m) of images; unit texts (L, m) and labels (n,)."""

    principal: np.ndarray
    hidden: np.ndarray
    embeddings: np.ndarray
    texts: np.ndarray
    codes: np.ndarray

    def sums(self, folds: int) -> GroupSums:
        """Ridge sums by fold; with 0 folds one translator sees all images but every fifth, as in the paper."""
        n = len(self.codes)
        fold = np.arange(n) % FOLDS
        sums = GroupSums(split(pd.DataFrame({"fold": fold, "split": np.where(fold, "train", "validation")}), folds))
        sums.update(np.hstack([self.principal, self.hidden]), self.embeddings, np.arange(n), np.zeros(n, dtype=int))
        return sums

    def part(self, rows: slice) -> "Images":
        """Some of them."""
        return Images(self.principal[rows], self.hidden[rows], self.embeddings[rows], self.texts, self.codes[rows])


def rms(rows: np.ndarray) -> float:
    """Root of the mean squared norm of rows."""
    return float(np.sqrt(np.mean(np.vecdot(rows, rows))))


def plant(
    seed: int, n: int, *, content: float = 0.0, part: str = "independent",
    rank: int = RANK, null_dim: int = NULL_DIM, dim: int = DIM, labels: int = LABELS,
) -> Images:  # fmt: skip
    """Images whose principal part holds meaning of size 1, and the null part of size `content`; apart from that it is as `part` says."""
    generator = np.random.default_rng(seed)
    normal = generator.standard_normal
    codes, texts = generator.permutation(np.arange(n) * labels // n), unit(normal((labels, dim)) + normal(dim))
    a = (0.5 * normal((labels, rank))[codes] + normal((n, rank))) * np.arange(1, rank + 1) ** -0.5
    own = normal((n, null_dim)) * np.arange(1, null_dim + 1) ** -0.5
    mixing, constant = normal((rank, null_dim)) / np.sqrt(rank), 2 * rms(own) * unit(normal(null_dim))
    b = 0.3 * own + {"independent": 0.4 * own, "predictable": a @ mixing, "constant": constant}[part]
    seen, hidden = a @ normal((rank, dim)), own @ normal((null_dim, dim))
    rest = texts[codes] + 1.2 * unit(normal(dim)) + 0.7 * normal((n, dim)) / np.sqrt(dim)
    return Images(a, b, seen / rms(seen) + content * hidden / rms(hidden) + rest, texts, codes)


def removals(images: Images, folds: int) -> tuple[np.ndarray, Removal]:
    """Positions of images, and their null removal; with 0 folds, of the images that the translator was fitted on."""
    sums, features = images.sums(folds), np.hstack([images.principal, images.hidden])
    best, basis = LAMBDAS[cross_validate(sums, LAMBDAS).best], np.eye(features.shape[1])[:, images.principal.shape[1] :]
    parts = []
    for groups, judged in sums.split.fits if folds else [([0], 0)]:
        made, rows = sums.of(groups), np.flatnonzero(sums.split.groups == judged)
        translator = made.solve(*penalties(made, [best]))
        removal = remove(features[rows], translator, share(translator, basis))
        parts.append((rows, removal.original, removal.removed))
    order, original, removed = (np.concatenate(each) for each in zip(*parts, strict=True))
    return order, Removal(original, removed)


Measures = dict[str, float]


def in_sample(images: Images) -> Measures:
    """Mean IS and AS as in the paper: of images that the translator was fitted on."""
    order, removal = removals(images, 0)
    attribute = removal.attribute_score(images.texts[images.codes[order]])
    return {"IS in sample": float(removal.image_score().mean()), "AS in sample": float(attribute.mean())}


def judge(images: Images, seed: int, photos: Images | None = None) -> Measures:
    """Cross-fitted mean scores with their floors, and Delta R2: what scripts/measure_floor.py does with files.

    photos: others that are scored, with the images as their reference.
    """
    sums, rank = images.sums(FOLDS), images.principal.shape[1]
    seen, between = (sums.regress(slice(0, rank), targets) for targets in (None, slice(rank, None)))
    lambdas, alone, predictor = (LAMBDAS[cross_validate(each, LAMBDAS).best] for each in (sums, seen, between))
    penalty, scale = predictor_penalty(between, predictor)
    place = np.full(len(photos.codes), WHOLE) if photos else sums.split.place
    fitted = Fitted(sums, rank, (lambdas, penalty), place, scale)
    start, target = sums.origin[0][:rank], sums.origin[1]

    def rows_of(given: Images, groups: np.ndarray) -> Rows:
        known = np.hstack([given.principal - start, given.embeddings - target]).astype(np.float32)
        hidden = given.hidden.astype(np.float32)
        rows = Rows(known, hidden, np.empty_like(hidden), known[:, :rank].copy(), (start, target), groups, 1)
        fitted.leave_residuals(rows)
        return rows

    rows = scored = rows_of(images, sums.split.groups)
    if photos:
        scored = rows_of(photos, place)
    texts, codes = images.texts, (photos or images).codes
    real, exchange = score(fitted.fit(), place, scored, texts, codes), fitted.exchange(rows)
    table = measure(real, exchange, rows, scored, place, texts, codes, permutations=PERMUTATIONS, seed=seed).table
    facts = unique_information(sums, rank, (lambdas, alone), 1 - LEVEL)
    measures = {"R2": facts["r2"], "Delta R2": facts["delta_r2"], "Delta R2 low": facts["delta_r2_low"]}
    for name, column in (("IS", "is_mean_deg"), ("conditional IS", "conditional_is_mean_deg"), ("AS", "as_mean_deg")):
        first, permuted = table[column][0], table[column][1:].to_numpy()
        measures |= {name: first, f"{name} floor": permuted.mean(), f"{name} p": p_value(first, permuted)}
    return measures


@cache
def everything(seed: int, per_dimension: int, content: float, part: str, distraction: float) -> Measures:
    """All measures of planted images; a distraction is content of the null part in which no text has a share."""
    images = plant(seed, per_dimension * WIDTH, content=content, part=part)
    if distraction:
        axes = np.linalg.qr(images.texts.T)[0]
        away = images.hidden @ np.random.default_rng([seed, 1]).standard_normal((NULL_DIM, DIM))
        away -= away @ axes @ axes.T
        images = replace(images, embeddings=images.embeddings + distraction * away / rms(away))
    return judge(images, seed) | in_sample(images)


def planted(per_dimension: int, *, content: float = 0.0, part: str = "independent", distraction: float = 0.0) -> Callable[[int], Measures]:
    """The measures of a case, as a function of the seed."""
    return partial(everything, per_dimension=per_dimension, content=content, part=part, distraction=distraction)


@dataclass(frozen=True)
class Table:
    """Measures over seeds: means and two standard errors, a row a case, a column a measure; and how many seeds had p below 0.05."""

    mean: pd.DataFrame
    error: pd.DataFrame
    above: pd.DataFrame

    @classmethod
    def of(cls, cases: dict[object, Callable[[int], Measures]]) -> "Table":
        """What a function of the seed finds in each case."""
        found = {case: pd.DataFrame([find(seed) for seed in range(TRIALS)]) for case, find in cases.items()}
        mean = {case: each.mean() for case, each in found.items()}
        error = {case: 2 * each.std() / np.sqrt(TRIALS) for case, each in found.items()}
        above = {case: (each < 0.05).sum() for case, each in found.items()}
        return cls(*(pd.DataFrame(part).T for part in (mean, error, above)))

    def said(self, case: object, column: str, digits: int = 2) -> str:
        """A mean with its error, as it stands in the page."""
        return f"{self.mean.at[case, column]:.{digits}f} ± {self.error.at[case, column]:.{digits}f}"

    def often(self, case: object, score: str) -> str:
        """In how many seeds a score is above its floor."""
        return f"above it in {self.above.at[case, f'{score} p']} of {TRIALS} seeds"


def lines(axes: Axes, table: Table, score: str, along: str) -> None:
    """A score in sample, out of sample, and its floor, against cases that are numbers."""
    series = {"in sample, as in the paper": f"{score} in sample", "out of sample": score, "its floor": f"{score} floor"}
    cases = table.mean.index.to_numpy(float)
    axes.axhline(0, color="0.6", lw=0.8, zorder=0)
    for number, (name, column) in enumerate(series.items()):
        look: dict[str, Any] = {"color": colour(number), "marker": marker(number), "ms": 5, "lw": 1.4, "capsize": 2}
        axes.errorbar(cases, table.mean[column], table.error[column], label=name, **look)
    axes.set_xticks(cases, map(str, table.mean.index))
    axes.set_xlabel(along)


def against_number(axes: Axes, table: Table, score: str) -> None:
    """The same against the number of images, with a mark where the paper is."""
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    lines(axes, table, score, "images per feature dimension, n / d")
    axes.axvline(PAPER, color="0.6", lw=1, ls=":", zorder=0)
    place: dict[str, Any] = {"xy": (PAPER, 0.07), "xycoords": ("data", "axes fraction"), "xytext": (3, 0), "textcoords": "offset points"}
    axes.annotate("the paper", **place, color="0.4", fontsize=8)


def dots(axes: Axes, table: Table, scores: dict[str, str], floors: bool = False) -> None:
    """Scores of cases, one case below the other; with their floors as open marks around them where they agree."""
    for number, (column, name) in enumerate(scores.items()):
        y = np.arange(len(table.mean)) + 0.26 * (number - (len(scores) - 1) / 2)
        look: dict[str, Any] = {"color": colour(number), "marker": marker(number), "ls": "none", "capsize": 2}
        axes.errorbar(table.mean[column], y, xerr=table.error[column], label=name, **look, ms=5, zorder=3)
        if floors:
            floor = f"{column} floor"
            axes.errorbar(table.mean[floor], y, xerr=table.error[floor], label=f"floor of {name}", **look, ms=9, mfc="white")
    axes.set_yticks(np.arange(len(table.mean)), table.mean.index)
    axes.set_ylim(len(table.mean) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def legend(figure: Figure, axes: Axes) -> None:
    """One legend below all panels."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))


def removed_and_added(table: Table, title: str) -> Figure:
    """Both removals with their floors, and what the null space adds."""
    height = 1.4 + 0.34 * len(table.mean)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, height), layout="constrained", width_ratios=[2, 1], sharey=True)
    dots(left, table, {"IS": "IS", "conditional IS": "conditional IS"}, floors=True)
    dots(right, table, {"Delta R2": "Delta R2"})
    left.set(xlabel="mean over images (degrees)", xlim=(0, None))
    left.set_title(title, loc="left")
    right.axvline(0, color="black", lw=1, ls="--")
    right.set_xlabel("Delta R2")
    legend(figure, left)
    return figure


Lines = list[list[str]]


def floor() -> tuple[Figure, Lines]:
    """Nothing in the null space, and then more and more."""
    without = Table.of({each: planted(each) for each in PER_DIMENSION})
    contents = Table.of({each: planted(4, content=each) for each in (0.0, 0.1, 0.2, 0.3)})
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.1), layout="constrained", sharey=True)
    against_number(left, without, "IS")
    lines(right, contents, "IS", "planted content of the null part (principal part: 1)")
    left.set_ylabel("mean IS (degrees)")
    left.set_title("Nothing is in the null space,\nyet IS is as high as its floor", loc="left")
    right.set_title("Something is in it: it shows in\nwhat lies above the floor (n / d = 4)", loc="left")
    legend(figure, left)
    plain, beside = f"IS {contents.said(0.0, 'IS')}", f"floor {contents.said(0.0, 'IS floor')}, {contents.often(0.0, 'IS')}"
    return figure, [["nothing in the null space", "0", plain, beside]]


def cross_fitting() -> tuple[Figure, Lines]:
    """A null part that knows no label, and one without which images are closer to theirs."""
    plain, distracted = (Table.of({each: planted(each, distraction=size) for each in PER_DIMENSION}) for size in (0.0, 0.25))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.1), layout="constrained", sharey=True)
    against_number(left, plain, "AS")
    against_number(right, distracted, "AS")
    left.set_ylabel("mean AS (degrees)")
    left.set_title("Nothing is in the null space:\nin sample it seems to hold the label", loc="left")
    right.set_title("It holds a distraction, so removal\nhelps: in sample the sign is wrong", loc="left")
    legend(figure, left)
    beside = f"out of sample {distracted.said(4, 'AS')}, floor {distracted.said(4, 'AS floor')}"
    return figure, [["a distraction in the null space", "above 0", f"AS in sample {distracted.said(4, 'AS in sample')}", beside]]


def in_space_of_logits(seed: int, *, own: bool, bent: bool = False, per_dimension: int = 8) -> Measures:
    """Measures of a classifier in a space that is a function of its own logits, or of another classifier's."""
    generator = np.random.default_rng(seed)
    normal, n, causes = generator.standard_normal, per_dimension * WIDTH, 40
    images, words = normal((n, causes)) * np.arange(1, causes + 1) ** -0.25, unit(normal((RANK, DIM)) + normal(DIM))
    towers = []
    for _ in range(2):
        features = images @ normal((causes, WIDTH)) / np.sqrt(causes) + 0.1 * normal((n, WIDTH))
        towers.append((np.maximum(features, 0.0) if bent else features, normal((RANK, WIDTH))))
    features, head = towers[0]
    seen, weight = towers[0 if own else 1]
    odds, space = softmax(seen @ weight.T, axis=1), null_space(head)
    return judge(Images(features @ space.principal, features @ space.basis, unit(odds @ words), words, odds.argmax(axis=1)), seed)


def known_zero() -> tuple[Figure, Lines]:
    """A space that is a function of a classifier's logits, so that nothing of it can be hidden from that classifier."""
    another, own, bent, more = "another classifier", "the space's own tower", "own tower, ReLU features", "own tower, ReLU, 8 x the images"
    table = Table.of(
        {
            another: partial(in_space_of_logits, own=False),
            own: partial(in_space_of_logits, own=True),
            bent: partial(in_space_of_logits, own=True, bent=True),
            more: partial(in_space_of_logits, own=True, bent=True, per_dimension=64),
        }
    )

    def beside(case: str) -> str:
        return f"floor {table.said(case, 'IS floor')}, {table.often(case, 'IS')}; Delta R2 {table.said(case, 'Delta R2', 3)}"

    return removed_and_added(
        table, "Nothing is hidden in the last three: that is seen with linear\nfeatures, but not with ReLU features and many images"
    ), [
        [
            "a space made of the model's own logits",
            "0",
            f"IS {table.said(own, 'IS')} ({table.said(another, 'IS')} of another)",
            beside(own),
        ],
        ["the same, ReLU features, 8 times the images", "0", f"IS {table.said(more, 'IS')}", beside(more)],
    ]


def density(seed: int, first: int) -> Measures:
    """IS over that of random subspaces: meaning is equally dense in all directions, but their variances differ."""
    generator = np.random.default_rng(seed)
    width, null_dim, dim, n = 240, 80, 400, 300
    spread = np.arange(1, width + 1) ** -0.7
    axes = random_basis(width, width, seed, 0)
    features = (generator.standard_normal((n, width)) * spread) @ axes.T
    mean = 2 * np.linalg.norm(spread) * unit(generator.standard_normal(dim))
    translator = Affine(generator.standard_normal((dim, width)) / np.sqrt(dim), mean)
    null, random, same = Subspace(axes[:, first : first + null_dim]), [], []
    for draw in range(5):
        drawn = draw_subspace(null.basis, Case("random", null_dim, False), seed, draw)
        removal = remove(features, translator, drawn.share(translator))
        random.append(removal.image_score())
        same.append(matched(removal, null.length(features), drawn.length(features)).image_score())
    found = remove(features, translator, null.share(translator)).image_score().mean()
    return {"random": found / np.mean(random), "matched": found / np.mean(same)}


def matched_control() -> tuple[Figure, Lines]:
    """Null spaces of low, middle and high variance."""
    places = {"where features vary least": 160, "in the middle": 80, "where features vary most": 0}
    table = Table.of({name: partial(density, first=first) for name, first in places.items()})
    figure, axes = plt.subplots(figsize=(6.5, 2.3), layout="constrained")
    axes.axvline(1, color="black", lw=1, ls="--", label="truth")
    dots(axes, table, {"random": "IS / random IS", "matched": "IS / matched IS"})
    axes.set(xlim=(0, None), xlabel="ratio (no unit)", ylabel="null space")
    axes.set_title("Meaning is equally dense everywhere:\nthe matched ratio says so, the plain one does not", loc="left")
    legend(figure, axes)
    plain, beside = (", ".join(f"{each:.2f}" for each in table.mean[column]) for column in ("random", "matched"))
    case = "equal meaning a variance; null space of low, middle, high variance"
    return figure, [[case, "1, 1, 1", f"IS / random IS {plain}", f"IS / matched IS {beside}"]]


def conditional_removal() -> tuple[Figure, Lines]:
    """Null parts that are predictable or constant, without content and with some."""
    cases = [(part, content) for content in (0.0, 0.3) for part in ("independent", "predictable", "constant")]
    table = Table.of(
        {f"{part}, {'content 0.3' if content else 'no content'}": planted(8, content=content, part=part) for part, content in cases}
    )
    lines_of = []
    for part, words in (("predictable", "a null part that the principal part predicts"), ("constant", "a null part that is constant")):
        case = f"{part}, no content"
        beside = f"conditional IS {table.said(case, 'conditional IS')}, floor {table.said(case, 'conditional IS floor')}"
        lines_of.append([words, "0", f"IS {table.said(case, 'IS')}", beside])
    return removed_and_added(table, "Conditional IS counts only what is new in the null part"), lines_of


def shift(seed: int, common: float, own: float) -> Measures:
    """AS toward the own label and toward all others: a null part that goes with a shift of all texts, and one that knows the label."""
    images, generator = plant(seed, 8 * WIDTH), np.random.default_rng([seed, 1])
    centre = images.texts.mean(axis=0)
    size, axis = 1 + 0.3 * generator.standard_normal((len(images.codes), 1)), unit(generator.standard_normal(NULL_DIM))
    marks = generator.standard_normal((LABELS, NULL_DIM))[images.codes]
    hidden = images.hidden + (size * axis if common else 0.0) + own * marks
    images = replace(images, hidden=hidden, embeddings=images.embeddings - common * size * centre)
    order, removal = removals(images, FOLDS)
    codes = images.codes[order]
    toward = float(removal.attribute_score(images.texts[codes]).mean())
    contrast = float(contrast_deg(removal, images.texts.astype(np.float32), codes).mean())
    return {"own": toward, "others": toward - contrast, "contrast": contrast}


def contrastive_score() -> tuple[Figure, Lines]:
    """A shift that is common to all texts, and one toward the own label."""
    cases = {"nothing": (0.0, 0.0), "a shift of all texts": (0.3, 0.0), "the own label": (0.0, 0.1), "both": (0.3, 0.1)}
    table = Table.of({name: partial(shift, common=common, own=own) for name, (common, own) in cases.items()})
    figure, axes = plt.subplots(figsize=(6.5, 2.7), layout="constrained")
    axes.axvline(0, color="black", lw=1, ls="--")
    dots(axes, table, {"own": "AS toward the own label", "others": "mean AS toward the others", "contrast": "contrastive AS"})
    axes.set(xlabel="mean over images (degrees)", ylabel="the null part holds")
    axes.set_title("A shift toward all texts alike is no news about the label:\ncontrastive AS leaves it out", loc="left")
    legend(figure, axes)
    case = "a shift of all texts"
    return figure, [
        ["a shift that all texts share", "0", f"AS {table.said(case, 'own')}", f"contrastive AS {table.said(case, 'contrast')}"]
    ]


FINDINGS = (floor, cross_fitting, known_zero, matched_control, conditional_removal, contrastive_score)


def without_content(part: str, divide: int) -> list[str]:
    """A column: the paper's size, 10,000 images of which every translator sees 8,000, and a null part that holds nothing."""
    sizes = {name: size // divide for name, size in (("rank", 1000), ("null_dim", 1048), ("dim", 768), ("labels", 1000))}
    images = plant(0, 10_000 // divide, part=part, **sizes)
    found = judge(images, 0) | in_sample(images)
    said = {name: f"{value:.3f}" if name == "Delta R2" else f"{value:.2f}" for name, value in found.items()}
    return [f"{part} null part", *(", ".join(said[name] for name in names) for names in AT_THE_PAPERS_SIZE.values())]


HOW_MANY, MANY, PHOTOS, OFTEN = (0.5, 1, 2, 4, 8, 16), 500, 20, 0.9
CONTENTS = (0.0, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)


COLUMNS = {
    "per_dimension": "images per feature dimension",
    "r2_share": "share of the best R2",
    "leak": "smallest leak",
    "leak_photos": f"smallest leak in {PHOTOS} photos beside them",
    "leak_both": "smallest leak, Delta R2 above 0 as well",
}


def power(per_dimension: float, trials: int) -> list[str]:
    """A row: what so many images show, the share of the R2 that many more would give, and the smallest leaks that are found.

    A leak is the share of the embeddings' variance that the null part alone tells. It is found where conditional IS is above its floor in
    OFTEN of the trials: that of the images, of PHOTOS others beside them as their reference; or where Delta R2 is above 0 as well.
    """
    n, found, share = int(per_dimension * WIDTH), {}, 0.0
    most = r2_without(plant(0, MANY * WIDTH).sums(FOLDS), LAMBDAS[0])[0]
    for content in CONTENTS:
        drawn = [plant(seed, n + PHOTOS, content=content) for seed in range(trials)]
        parts = [(images.part(slice(0, n)), images.part(slice(n, None))) for images in drawn]
        alone, beside = zip(*((judge(a, seed), judge(a, seed, b)) for seed, (a, b) in enumerate(parts)), strict=True)
        above, few = (np.array([each["conditional IS p"] < LEVEL for each in judged]) for judged in (alone, beside))
        added = np.array([each["Delta R2 low"] > 0 for each in alone])
        leak = content**2 / np.mean([np.var(images.embeddings, axis=0).sum() for images in drawn])
        found[leak] = np.mean([above, few, above & added], axis=1)
        if not content:
            share = np.mean([each["R2"] for each in alone]) / most
    least = [next((f"{leak:.3f}" for leak, often in found.items() if leak and often[column] >= OFTEN), "") for column in range(3)]
    return [f"{per_dimension:g}", f"{share:.2f}", *least]


AT_THE_PAPERS_SIZE = {
    "R2": ["R2"],
    "IS in sample": ["IS in sample"],
    "IS, floor, p": ["IS", "IS floor", "IS p"],
    "conditional IS, floor, p": ["conditional IS", "conditional IS floor", "conditional IS p"],
    "AS in sample": ["AS in sample"],
    "AS, floor": ["AS", "AS floor"],
    "Delta R2": ["Delta R2"],
}


def show(table: Lines) -> None:
    """A table as it stands in the page."""
    for line in [table[0], ["---"] * len(table[0]), *table[1:]]:
        print(f"| {' | '.join(line)} |")


def main(flags: Flags) -> None:
    if flags.power:
        rows = pd.DataFrame([power(each, flags.power) for each in HOW_MANY], columns=list(COLUMNS))
        rows.to_csv(flags.output, index=False)
        show([list(COLUMNS.values()), *rows.to_numpy().tolist()])
        return
    if flags.paper:
        columns = [["", *AT_THE_PAPERS_SIZE], *(without_content(part, flags.paper) for part in ("independent", "predictable"))]
        show([list(line) for line in zip(*columns, strict=True)])
        return
    table = [["planted", "truth", "the plain score", "what stands beside it"]]
    for finding in FINDINGS:
        with plt.rc_context(STYLE):
            figure, found = finding()
            save(figure, flags.figures / f"{finding.__name__}.png")
        table += found
    show(table)


if __name__ == "__main__":
    cli.run(main, Flags)

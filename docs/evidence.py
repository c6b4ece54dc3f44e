"""Level and power of the test in docs/evidence.md.

Embeddings are planted and then judged by the workflow's own code. A planted embedding is made of
principal coordinates a, null coordinates b, or both, so that the share of b is known. Without
flags, prints the tables of the page and draws its figures. They quote docs/evidence/level.csv,
docs/evidence/groups.csv, docs/evidence/stability.csv, docs/evidence/rivals.csv,
docs/evidence/heads.csv and src/singflow/analyses/power.csv, which --level, --groups, --stability,
--rivals, --heads and --power write.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field
from rivals import cross_fitted, gcm, kci, linear_gain, operators, rcit

from singflow import cli
from singflow.analyses.bands import (
    Bands,
    Block,
    Blocks,
    leading_directions,
    search_weights,
    softmax,
)
from singflow.analyses.evidence import (
    Distances,
    EvidenceSettings,
    JackknifeEstimate,
    Landmarks,
    nested_groups,
    spell,
    unique_meaning,
    unique_r2,
)
from singflow.analyses.findings import by_size
from singflow.analyses.geometry import null_space
from singflow.analyses.hidden import Question, by_group
from singflow.analyses.metrics import unit
from singflow.analyses.power import TABLE
from singflow.analyses.readout import Targets
from singflow.analyses.tables import four_digits
from singflow.artifacts.files import write_bytes
from singflow.artifacts.tables import BASIS, read_models, read_table
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.data.manifest import read_classes
from singflow.figures.style import STYLE, colour, marker, save
from singflow.translators.parameters import Translation
from singflow.translators.reference import PACKAGED

CLASSES = Path("config/vocab/imagenet_1k.csv")
FOLDS, CONFIDENCE, DIM = 5, 0.95, 32  # DIM: dimensions of planted embeddings
HEADS_SHOWN = ["n_classes", "null_dim", "r2_words", "known_zero", "turn_deg", "verdict"]
HEADS_SHOWN += ["unique_r2", "unique_r2_low", "unique_r2_high"]
LAMBDAS, MARGIN = Translation().lambdas, EvidenceSettings().margin


class Flags(cli.Command):
    """The planted experiments of docs/evidence.md."""

    level: int = Field(
        0, ge=0, description="write level.csv, of so many draws (100: 3 hours of one core)"
    )
    power: int = Field(
        0, ge=0, description="write power.csv, of so many draws (20: 3 minutes of one core)"
    )
    features: list[str] = Field(
        [], description="features of --level, --groups and --rivals, as in level.csv; default: all"
    )
    groups: int = Field(
        0, ge=0, description="write groups.csv, of so many draws (10: 10 minutes of one core)"
    )
    stability: int = Field(
        0, ge=0, description="write stability.csv, of so many divisions into folds"
    )
    rivals: int = Field(
        0, ge=0, description="write rivals.csv, of so many draws (4: 15 minutes of one core)"
    )
    tests: list[str] = Field([], description="tests of --rivals, as in rivals.csv; default: all")
    heads: Path | None = Field(
        None, description="write heads.csv, from the finished study in this folder"
    )
    folder: Path = Field(Path("docs/evidence"), description="folder of the CSV and the figures")
    table: Path = Field(TABLE, description="power.csv")


# ---------------------------------------------------------------- Level and power of the test


@dataclass(frozen=True)
class Images:
    """Images without embeddings, the unit embeddings (C, m) of the classes' texts, and causes.

    causes: (n, q), what the features are made of, where z may be made of them, too.
    """

    block: Block
    texts: np.ndarray
    causes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.block.fold)

    def blocks(self, embeddings: np.ndarray) -> Blocks:
        """The images with embeddings, as unique_meaning() takes them."""
        return lambda: iter([replace(self.block, embeddings=embeddings)])


def seen_by(
    weight: np.ndarray,
    bias: np.ndarray,
    features: np.ndarray,
    fold: np.ndarray,
    texts: np.ndarray,
    order: np.ndarray | None = None,
) -> Images:
    """Features (n, d) as a head sees them; order: (n,), that of their hashes."""
    space, logits = null_space(weight), features @ weight.T.astype(np.float64) + bias
    return Images(
        Block(
            features @ space.principal,
            features @ space.basis,
            logits,
            np.empty((len(fold), 0)),
            *placed(fold, order),
        ),
        texts,
    )


def placed(fold: np.ndarray, order: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """fold, group, cluster and image of a Block, whose images are all different."""
    image = np.arange(len(fold))
    return fold, nested_groups(fold, image if order is None else order), image, image


def packaged(model: str, tower: str) -> Images:
    """The 507 images of the packaged reference, by a packaged classifier."""
    from singflow.towers.classifiers import load_classifier

    entry = resolve_models("config/models.yaml", [model])[model]
    head = load_classifier(entry)
    tensors = {
        name: PACKAGED / place
        for name, place in (
            ("features", f"features/{tower}/shard-00000.safetensors"),
            ("concept_embeddings", "prompts/conse_minilm.safetensors"),
        )
    }
    features, texts = (
        read_tensors(path, [name])[0][name].astype(np.float64) for name, path in tensors.items()
    )
    manifest = pd.read_parquet(PACKAGED / "data/manifest.parquet")
    return seen_by(
        head.weight.numpy(),
        head.bias.numpy(),
        features,
        manifest["fold"].to_numpy(),
        texts[entry.kept] if entry.kept else texts,
        pd.factorize(manifest["sha256"], sort=True)[0],
    )


def made_up(per_dimension: float, width: int) -> Images:
    """Features after a ReLU, with fewer causes than features, so that b is partly a function of a.

    There are as many classes as null dimensions.
    """
    n, classes, causes = round(per_dimension * width), width // 2, width * 3 // 4
    normal = np.random.default_rng([n, width]).standard_normal
    cause = normal((n, causes)) * np.arange(1, causes + 1) ** -0.25
    features = np.maximum(
        cause @ normal((causes, width)) / np.sqrt(width) + 0.1 * normal((n, width)), 0.0
    )
    return headed(features, classes, normal)


def headed(features: np.ndarray, classes: int, normal: Callable[..., np.ndarray]) -> Images:
    """Features as a random head sees them."""
    weight = normal((classes, features.shape[1]))
    weight *= 3.0 / (features @ weight.T).std()
    return seen_by(
        weight,
        -(features @ weight.T).mean(axis=0),
        features,
        np.arange(len(features)) % FOLDS,
        unit(normal((classes, DIM)) + normal(DIM)),
    )


def few_causes(width: int = 128) -> Images:
    """Features of 12 causes after a ReLU: b is a function of causes that a has, too."""
    n, classes = 4 * width, width // 2
    normal = np.random.default_rng([n, width, 12]).standard_normal
    causes = normal((n, 12))
    features = np.maximum(causes @ normal((12, width)) / np.sqrt(12), 0.0)
    return replace(headed(features, classes, normal), causes=causes)


HEADS = (
    ("efficientnet_lite0", "efficientnet_lite0"),
    ("efficientnet_lite2", "efficientnet_lite2"),
    ("animals_lite0", "efficientnet_lite0"),
)
FEATURES: dict[str, Callable[[], Images]] = {
    **{name: partial(packaged, name, tower) for name, tower in HEADS},
    "made-up n/d 0.4": partial(made_up, 0.4, 1280),
    "made-up n/d 4": partial(made_up, 4, 128),
    "made-up n/d 16": partial(made_up, 16, 48),
    "12 causes": few_causes,
    "ResNet50 / 8": partial(made_up, 16, 256),  # more images than have exact kernels
    "ResNet50": partial(made_up, 5, 2048),  # half as many landmarks as dimensions
}
FEWER = {"ResNet50 / 8": 5, "ResNet50": 20}  # a fifth, and a twentieth of the draws
CAUSES = "common causes"  # the embedding is made of what both a and b are made of
UNSEEN = ("entropy", "second class", "phase", "network", "cells")  # not looked at for the bands
EVEN, FIRST, BESIDE, QUARTER = "even", "first direction", "beside |.|", "a quarter of the classes"
LEAKS = [(EVEN, 0.01), (EVEN, 0.03), (EVEN, 0.1), (FIRST, 0.01), (FIRST, 0.03), (BESIDE, 0.1)]
LEAKS += [(QUARTER, 0.1), (QUARTER, 0.3)]


def levelled(rows: np.ndarray) -> np.ndarray:
    """Rows about their mean, at mean squared length 1."""
    rows = rows - rows.mean(axis=0)
    return rows / np.sqrt(np.vecdot(rows, rows).mean())


def spoken(logits: np.ndarray, texts: np.ndarray, top: int = 5) -> np.ndarray:
    """What a model says of images, at a temperature and a number of classes that own words lack."""
    weights = softmax(logits, 1.5)
    np.put_along_axis(weights, np.argpartition(weights, -top, axis=1)[:, :-top], 0.0, axis=1)
    return unit(weights @ texts)


World = tuple[
    str, str, float
]  # function of a or place of the leak, noise, leak as a share of Var z


def functions_of_a(
    images: Images, texts: np.ndarray, normal: Callable[..., np.ndarray]
) -> dict[str, np.ndarray]:
    """Functions (n, q) of what the logits see, of any width."""
    a, logits = images.block.principal, images.block.logits
    others = unit(texts + 0.5 * normal(texts.shape) / np.sqrt(DIM))
    linear, centred = levelled(a @ normal((a.shape[1], DIM))), a - a.mean(axis=0)
    spread, axes = leading_directions(centred.T @ centred / len(a), 8)
    lead = centred @ axes / spread
    u, order = lead[:, :4], np.argsort(logits, axis=1)
    top, sharp = order[:, -1], softmax(logits, 1.0)
    centres = np.stack([centred[top == one].mean(axis=0) for one in np.unique(top)])
    gaps = (centred**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    nearest = (gaps - 2.0 * centred @ centres.T).argmin(axis=1)
    cells = centred[np.abs(normal(len(a))).argsort()[:16]]
    hidden = np.tanh(levelled(a @ normal((a.shape[1], 32))) * np.sqrt(32))
    angle = np.arctan2(u[:, 1], u[:, 0])[:, None]
    return {
        "own words": spoken(logits, texts),
        "other words": spoken(logits, others),
        "linear": linear,
        "tanh": np.tanh(2 * np.sqrt(DIM) * linear),
        "quadratic": linear**2,
        "top-1": others[top],
        "|a|^2": (centred**2).sum(axis=1)[:, None],
        "cos": np.cos(2 * u),
        "sin": np.sin(2 * u),
        "|.|": np.abs(u),
        "products": np.stack([u[:, i] * u[:, j] for i in range(4) for j in range(i)], axis=1),
        "xor": np.sign(u[:, :1] * u[:, 1:2]),
        "step": np.sign(lead[:, 4:8]),
        "largest of six": lead[:, :6].max(axis=1, keepdims=True),
        "nearest mean": others[np.unique(top)[nearest]],
        "ranks": u.argsort(axis=0).argsort(axis=0).astype(float),
        "margin": np.diff(np.take_along_axis(logits, order[:, -2:], axis=1)),
        "entropy": -(sharp * np.log(sharp + 1e-12)).sum(axis=1, keepdims=True),
        "second class": others[order[:, -2]],
        "phase": np.hstack([np.cos(angle), np.sin(3 * angle)]),
        "network": np.tanh(hidden @ normal((32, DIM))),
        "cells": np.eye(16)[(centred @ cells.T - 0.5 * (cells**2).sum(axis=1)).argmax(axis=1)],
    }


def worlds(images: Images, draw: int) -> tuple[np.ndarray, dict[World, np.ndarray]]:
    """Texts (C, DIM) and planted embeddings (n, DIM) of every world."""
    generator = np.random.default_rng([draw, 3])
    normal, n, logits = generator.standard_normal, len(images), images.block.logits
    texts = unit(images.texts @ normal((images.texts.shape[1], DIM)))
    functions = {
        name: levelled(rows @ normal((rows.shape[1], DIM)) if rows.shape[1] < DIM else rows)
        for name, rows in functions_of_a(images, texts, normal).items()
    }
    doubt = 0.3 + functions_of_a(images, texts, normal)["entropy"]
    noises = {
        "little": 0.05 * levelled(normal((n, DIM))),
        "equal": levelled(normal((n, DIM))),
        "unequal": levelled(normal((n, DIM)) * doubt),
        "heavy": levelled(normal((n, DIM)) / np.sqrt(generator.chisquare(2, (n, 1)))),
    }
    found = {
        (name, noise, 0.0): z + noises[noise]
        for name, z in functions.items()
        for noise in (
            ("little", "equal", "unequal", "heavy") if name == "own words" else ("little", "equal")
        )
    }
    if images.causes is not None:
        z = levelled(images.causes @ normal((images.causes.shape[1], DIM)))
        found[CAUSES, "equal", 0.0] = z + noises["equal"]
    null = images.block.null - images.block.null.mean(axis=0)
    every = levelled(null @ normal((null.shape[1], DIM)))
    top = logits.argmax(axis=1)
    few = np.isin(top, generator.permutation(np.unique(top))[: len(np.unique(top)) // 4])
    leaks = {
        EVEN: every,
        FIRST: levelled(null @ leading_directions(null.T @ null, 1)[1] @ normal((1, DIM))),
        BESIDE: every,
        QUARTER: levelled(every * few[:, None]),
    }
    base, beside = found["own words", "equal", 0.0], functions["|.|"]
    for kind, part in LEAKS:
        size = np.sqrt((3 if kind == BESIDE else 2) * part / (1 - part))
        z = base + beside if kind == BESIDE else base
        found[kind, "equal", part] = z + size * leaks[kind]
    return texts, found


def remainder(images: Images, texts: np.ndarray, embeddings: list[np.ndarray]) -> list[np.ndarray]:
    """Embeddings minus what own words explain, as in OwnWords, for many with the same words."""
    own = np.stack(spell(images.block.logits, texts))
    own -= own.mean(axis=1, keepdims=True)
    flat, centred = (
        own.reshape(len(own), -1),
        np.stack([(z - z.mean(axis=0)).ravel() for z in embeddings]),
    )
    weights = np.linalg.lstsq(flat @ flat.T, flat @ centred.T, rcond=1e-12)[0]
    return list((centred - weights.T @ flat).reshape(len(embeddings), *embeddings[0].shape))


Planted = list[tuple[np.ndarray, list[np.ndarray]]]  # texts (C, DIM), and their embeddings
Test = Callable[[Images, Planted], list[float]]  # p of every embedding


def remainders(images: Images, planted: Planted) -> list[np.ndarray]:
    """What own words leave of every embedding."""
    return [rest for texts, made in planted for rest in remainder(images, texts, made)]


def judge(images: Images, planted: Planted) -> list[JackknifeEstimate]:
    """D of planted embeddings, by their texts, with weights of their own for each of them.

    Embeddings that choose the same weights are targets of the same read-outs.
    """
    rests = remainders(images, planted)
    width = rests[0].shape[1]
    blocks, variance = (
        images.blocks(planted[0][1][0]),
        np.array([z.var(axis=0).sum() for _, made in planted for z in made]),
    )
    distances, found = Distances.of_all(blocks), [JackknifeEstimate(0.0, [])] * len(rests)
    marks = Landmarks.draw(blocks, distances, 0)
    bands = marks.bands()
    some, rows = marks.searched, marks.rows
    kernels = {name: kernel[np.ix_(some, some)] for name, kernel in bands.among()}
    chosen = search_weights(
        kernels, np.stack(rests, axis=1)[rows][some], marks.block.fold[some], variance
    )
    for weights in {tuple(one.values()): one for one in chosen}.values():
        mine = [place for place, one in enumerate(chosen) if one == weights]
        columns = np.hstack([rests[place] for place in mine])
        readouts = marks.read_outs(
            blocks, bands, weights, [lambda block, c=columns: c[block.image]]
        )
        targets = Targets.of(*[width] * len(mine), variance=variance[mine] / variance[0])
        for place, one in zip(
            mine, unique_r2(readouts, targets, distances, CONFIDENCE)[0], strict=True
        ):
            found[place] = one
    return found


def level(name: str, draws: int) -> Iterator[dict[str, Any]]:
    """Rates of `meaning` (p for D above the margin), and D, per world."""
    images, found, fewer = FEATURES[name](), {}, FEWER.get(name)
    draws, at_once = (-(-draws // fewer), 1) if fewer else (draws, 10)
    for start in range(0, draws, at_once):
        made = [worlds(images, draw) for draw in range(start, min(start + at_once, draws))]
        planted = [(texts, list(of_world.values())) for texts, of_world in made]
        judged = iter(judge(images, planted))
        for _, of_world in made:
            for world in of_world:
                found.setdefault(world, []).append(next(judged))
    for (function, noise, leak), estimates in found.items():
        yield {
            "features": name,
            "images": len(images),
            "width": images.block.principal.shape[1] + images.block.null.shape[1],
            "function": function,
            "noise": noise,
            "leak": leak,
            "draws": draws,
            "meaning": np.mean([estimate.p(MARGIN) <= 1 - CONFIDENCE for estimate in estimates]),
            "unique_r2": np.mean([estimate.unique_r2 for estimate in estimates]),
            "most": np.max([estimate.unique_r2 for estimate in estimates]),
        }


GROUPED = ["efficientnet_lite0", "made-up n/d 4", "made-up n/d 16"]
LOCAL, QUARTERS = (0.03, 0.1, 0.2, 0.3, 0.5), 4  # leaks in a quarter of the classes


def by_quarter(name: str, draws: int) -> Iterator[dict[str, Any]]:
    """How often D by group finds a leak in a quarter of the classes, and how often it errs."""
    images = FEATURES[name]()
    top, n = images.block.logits.argmax(axis=1), len(images)
    null, classes = images.block.null - images.block.null.mean(axis=0), np.unique(top)
    question = Question(MARGIN, CONFIDENCE, 0)
    for part in LOCAL:
        found = []
        for draw in range(draws):
            generator = np.random.default_rng([draw, 9])
            normal = generator.standard_normal
            texts = unit(images.texts @ normal((images.texts.shape[1], DIM)))
            quarter = generator.permutation(len(classes)) % QUARTERS
            group = quarter[np.searchsorted(classes, top)]
            z = levelled(spoken(images.block.logits, texts)) + levelled(normal((n, DIM)))
            leak = levelled(null @ normal((null.shape[1], DIM))) * (group == 0)[:, None]
            z += np.sqrt(2 * part / (1 - part)) * levelled(leak)
            facts, *_, residuals = unique_meaning(
                images.blocks(z), texts, None, EvidenceSettings(draws=2), CONFIDENCE, 0
            )
            groups = by_group(residuals, group, question)
            hidden = groups["p"] <= 1 - CONFIDENCE
            meaning = facts["p"] <= 1 - CONFIDENCE
            found.append([meaning, hidden[0], hidden[1:].any()])
            found[-1] += [facts["unique_r2"], groups["unique_r2"][0]]
        named = ["meaning", "quarter", "others", "unique_r2", "unique_r2_quarter"]
        means = dict(zip(named, np.mean(found, axis=0).round(4).tolist(), strict=True))
        yield {"features": name, "leak": part, "draws": draws} | means


def both_wordings(model: str) -> list[np.ndarray]:
    """Unit embeddings (C, m) of the texts of a head's classes, and in another wording."""
    from singflow.towers.spaces import class_spellings, load_text_tower

    space = "conse_minilm"
    entry = resolve_spaces("config/spaces.yaml", [space])[space]
    kept = resolve_models("config/models.yaml", [model])[model].kept
    embed = load_text_tower(entry).embed
    listed = read_classes(CLASSES)
    names = [listed.names[row] for row in kept] if kept else listed.names
    spelled = class_spellings(embed, names, listed, entry, ["an image of a {}"])
    return [texts.astype(np.float64) for texts in spelled]


def stability(name: str, tower: str, divisions: int) -> Iterator[dict[str, Any]]:
    """D of the reference's real embeddings, for divisions into folds and wordings of the texts."""
    images = packaged(name, tower)
    path = PACKAGED / "embeddings/conse_minilm/shard-00000.safetensors"
    z = read_tensors(path, ["embeddings"])[0]["embeddings"].astype(np.float64)
    for wording, texts in zip(("own", "other"), both_wordings(name), strict=True):
        for division in range(divisions):
            order = np.random.default_rng(division).permutation(len(z))
            fold, group, *_ = placed(order % FOLDS, order)
            block = replace(images.block, fold=fold, group=group)
            divided = Images(block, texts)
            (found,) = judge(divided, [(texts, [z])])
            yield {
                "features": name,
                "texts": wording,
                "division": division,
                "unique_r2": found.unique_r2,
                "low": found.low,
                "high": found.high,
            }


def gcm_of(images: Images, planted: Planted) -> list[float]:
    """The generalised covariance measure, with the plain read-outs of D for z and for b."""
    a, b, logits, _, fold, *_ = vars(images.block).values()
    bands = Bands(a, logits)
    kernels = dict(bands.among())

    def read_out(targets: list[np.ndarray]) -> list[np.ndarray]:
        variance = np.array([target.var(axis=0).sum() for target in targets])
        chosen, found = search_weights(kernels, np.stack(targets, axis=1), fold, variance), {}
        for weights in {tuple(one.values()): one for one in chosen}.values():
            made = operators(bands.mixed(weights), fold)
            for place in (place for place, one in enumerate(chosen) if one == weights):
                found[place] = cross_fitted(made, targets[place])
        return [found[place] for place in range(len(targets))]

    (of_b,), generator = read_out([b]), np.random.default_rng(0)
    return [gcm(of_z, of_b, generator) for of_z in read_out(remainders(images, planted))]


def linear_gain_of(images: Images, planted: Planted) -> list[float]:
    """Linear Delta R2."""
    a, b, _, _, fold, *_ = vars(images.block).values()
    plain, full = operators(a @ a.T, fold), operators(a @ a.T + b @ b.T, fold)
    generator = np.random.default_rng(0)
    rests = remainders(images, planted)
    return [linear_gain(rest, plain, full, generator) for rest in rests]


def each(test: Callable[..., float], *more: Any) -> Test:
    """A test of one remainder, b and a, for all planted embeddings."""

    def of(images: Images, planted: Planted) -> list[float]:
        a, b = images.block.principal, images.block.null
        return [test(rest, b, a, *more) for rest in remainders(images, planted)]

    return of


RIVALLED = ["efficientnet_lite0", "animals_lite0", "made-up n/d 4"]
TESTS: dict[str, Test] = {
    "GCM": gcm_of,
    "KCI": each(kci, "empirical"),
    "KCI, median width": each(kci, "median"),
    "RCIT": each(rcit),
    "linear Delta R2": linear_gain_of,
    "D": lambda *asked: [estimate.p(MARGIN) for estimate in judge(*asked)],
}


def compare(name: str, test: str, draws: int) -> Iterator[dict[str, Any]]:
    """How often a test at 5 % says that embeddings hide something, and its seconds."""
    images = FEATURES[name]()
    made = [worlds(images, draw) for draw in range(draws)]
    asked = [world for world in made[0][1] if not world[2] or world[0] in (EVEN, FIRST)]
    planted = [(texts, [of_world[world] for world in asked]) for texts, of_world in made]
    np.random.seed(0)
    start = time.process_time()
    p = np.array(TESTS[test](images, planted)).reshape(draws, -1)
    seconds = (time.process_time() - start) / p.size
    for (function, noise, leak), found in zip(asked, (p <= 1 - CONFIDENCE).mean(0), strict=True):
        world = {"function": function, "noise": noise, "leak": leak, "called": found}
        cost = {"draws": draws, "seconds": float(f"{seconds:.2g}")}
        yield {"features": name, "test": test} | world | cost


def rival_table(found: pd.DataFrame) -> list[list[str]]:
    """What the page says of rivals.csv: a row for each test, over all kinds of features."""
    leaks = [(EVEN, 0.03), (EVEN, 0.1), (FIRST, 0.03)]
    rows = [
        ["test", "all nulls", "the worst null", *(f"{kind} {part:.0%}" for kind, part in leaks)]
    ]
    for test, mine in found.groupby("test", sort=False):
        null = mine[mine["leak"] == 0]
        rates = null.groupby("features")["called"].mean()
        worst = null.loc[null["called"].idxmax()]
        called = mine[mine["leak"] > 0].groupby(["function", "leak"])["called"].mean()
        cells = [
            str(test),
            f"{100 * rates.min():.0f} to {rates.max():.0%}" if rates.any() else "0%",
        ]
        cells += [f"{worst['called']:.0%} {worst['function']}" if worst["called"] else "0%"]
        rows.append([*cells, *(f"{called[leak]:.0%}" for leak in leaks)])
    return rows


PER_DIMENSION, MOST, WIDEST = (0.25, 0.5, 1, 2, 4, 8, 16), 1536, 1024  # images; dimensions


def smallest_leak(per_dimension: float, draws: int) -> float:
    """The smallest evenly spread leak that a study of made-up features would call meaning.

    NaN if not even the largest planted leak is.
    """
    images = made_up(per_dimension, round(min(WIDEST, MOST / per_dimension)))
    own = levelled(spoken(images.block.logits, images.texts))
    blocks = images.blocks(own + levelled(np.random.default_rng(0).standard_normal(own.shape)))
    facts, *_ = unique_meaning(
        blocks, images.texts, None, EvidenceSettings(draws=draws), CONFIDENCE, 0
    )
    return facts["detectable"] or np.nan


def level_table(found: pd.DataFrame) -> list[list[str]]:
    """What the page says of level.csv: a row for each kind of features."""
    shown = [(EVEN, 0.03), (EVEN, 0.1), (FIRST, 0.03), (QUARTER, 0.3)]
    rows = [["features", "images / dimensions", "draws", "nulls"]]
    rows[0] += [f"{kind} {part:.0%}" for kind, part in shown]
    for name, mine in found.groupby("features", sort=False):
        of_leak = mine[mine["leak"] > 0].set_index(["function", "leak"]).loc[shown]
        common = mine["function"] == CAUSES
        limit, null = mine[common], mine[(mine["leak"] == 0) & ~common]
        size = f"{mine['images'].max()} / {mine['width'].max()}", f"{mine['draws'].max()}"
        cells = (f"{row.meaning:.0%} ({row.unique_r2:.3f})" for row in of_leak.itertuples())
        rows.append([name, *size, _worst(null), *cells])
        if len(limit):
            told = [f"{name}, which are *z*", *size, _worst(limit)]
            rows.append(told + [""] * len(shown))
    return rows


def _worst(null: pd.DataFrame) -> str:
    """The most *meaning* of any null, and the largest mean D, with the function."""
    most, largest = null.loc[null["meaning"].idxmax()], null.loc[null["unique_r2"].idxmax()]
    named = f" {most['function']}," if most["meaning"] else ","
    return f"{most['meaning']:.0%}{named} {largest['unique_r2']:z.4f} {largest['function']}"


def draw_level(found: pd.DataFrame) -> Figure:
    """Mean D of every null, by function, noise and features."""
    null = found[(found["leak"] == 0) & (found["function"] != CAUSES)]
    names, functions = null["features"].unique(), list(null["function"].unique())
    figure, axes = plt.subplots(
        1, len(names), figsize=(9.6, 4), layout="constrained", sharey=True, squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        mine = null[null["features"] == name]
        for number, (noise, part) in enumerate(mine.groupby("noise", sort=False)):
            look = {"marker": marker(number), "color": colour(number), "ls": "none", "ms": 4}
            y = part["function"].map(functions.index) + 0.2 * (number - 1)
            axis.plot(100 * part["unique_r2"], y, label=f"noise: {noise}", **look)
        axis.axvline(100 * MARGIN, color="0.6", lw=1, ls=":")
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set(xlim=(-0.1, 30), title=name.replace(" n/d", "\nn/d").replace(", ", ",\n"))
        axis.set_xticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
        axis.set_yticks(range(len(functions)), functions)
        axis.grid(axis="y", color="0.93")
        axis.title.set_fontsize(8)
    axes[0, 0].invert_yaxis()
    figure.supxlabel("mean D of embeddings that hide nothing (% of Var z); dotted: the margin")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def draw_power(found: pd.DataFrame, reached: pd.DataFrame) -> Figure:
    """How often an even leak is called meaning, by its size, and the smallest one, by n / d."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.1), layout="constrained")
    even = found[found["function"] == EVEN]
    for number, (name, mine) in enumerate(even.groupby("features", sort=False)):
        look: dict[str, Any] = {"color": colour(number), "marker": marker(number), "ms": 5}
        left.plot(100 * mine["leak"], mine["meaning"], label=name, lw=1.4, **look)
    left.set(xscale="log", ylim=(-0.03, 1.03), ylabel="share of draws called meaning")
    left.set_xlabel("planted even leak (% of Var z)")
    ticks = sorted(100 * even["leak"].unique())
    left.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    right.plot(
        reached["images_per_dim"], 100 * reached["leak"], color=colour(0), marker="o", ms=5, lw=1.4
    )
    right.set(xscale="log", yscale="log", xlabel="images per feature dimension, n / d")
    right.set_ylabel("smallest leak called meaning\nin 9 of 10 draws (% of Var z)")
    right.set_xticks(
        reached["images_per_dim"], [f"{ratio:g}" for ratio in reached["images_per_dim"]]
    )
    right.set_yticks(ticks := [2, 5, 10, 20], [f"{tick:g}" for tick in ticks])
    for axis in (left, right):
        axis.minorticks_off()
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    return figure


# ---------------------------------------------------------------- Heads that keep fewer classes


def of_heads(results: Path) -> pd.DataFrame:
    """What the study of heads in a folder found, the head with the most classes first."""
    models = read_models(results / "tables/models.csv", [*BASIS, *HEADS_SHOWN])
    texts = read_table(results / "tables/hidden_texts.csv")
    hidden = by_size(texts[texts["hidden"]]).groupby("model")["text"]
    counts = {"texts": texts.groupby("model").size(), "hidden": hidden.size()}
    for name, count in counts.items():
        models[name] = models["model"].map(count).astype("Int64")
    models["first"] = models["model"].map(hidden.apply(lambda found: ", ".join(found[:3])))
    models = models.sort_values("n_classes", ascending=False, kind="stable")
    return models[["model", *HEADS_SHOWN, *counts, "first"]]


def head_table(found: pd.DataFrame) -> list[list[str]]:
    head = ["head", "classes", "R2 (words)", "D [95 %]", "hidden texts"]
    rows = []
    for row in found.to_dict("records"):
        size = [row[f"unique_r2{end}"] for end in ("", "_low", "_high")]
        hidden = "-"
        if pd.notna(row["texts"]):
            hidden = f"{row['hidden']:.0f} of {row['texts']:.0f}: {row['first']}"
        name = f"{row['model']} (known zero)" if row["known_zero"] else row["model"]
        numbers = [f"{row['n_classes']}", f"{row['r2_words']:.2f}"]
        d = "{:z.4f} [{:z.4f}, {:z.4f}]".format(*size)
        rows.append([name, *numbers, d, hidden])
    return [head, *rows]


PIPE = r"\|"  # in a cell


def told(rows: list[list[str]]) -> None:
    """Print a table of Markdown."""
    for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]:
        print(f"| {' | '.join(cell.replace('|', PIPE) for cell in row)} |")


def write(path: Path, table: pd.DataFrame) -> None:
    """A CSV whole."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def main(flags: Flags) -> None:
    """Measure what the flags ask for, or show all."""
    kept = flags.folder / "level.csv"
    if flags.level:
        rows = []
        for name in flags.features or FEATURES:
            rows += level(name, flags.level)
            cli.log.info("%s: measured", name)
        write(
            kept,
            pd.DataFrame(rows).round({"meaning": 4, "unique_r2": 5, "most": 5}).replace(-0.0, 0.0),
        )
    if flags.power:
        rows = [
            {"images_per_dim": ratio, "leak": float(f"{smallest_leak(ratio, flags.power):.2g}")}
            for ratio in PER_DIMENSION
        ]
        write(flags.table, pd.DataFrame(rows))
    local = flags.folder / "groups.csv"
    if flags.groups:
        names = flags.features or GROUPED
        write(
            local, pd.DataFrame([row for name in names for row in by_quarter(name, flags.groups)])
        )
    stable = flags.folder / "stability.csv"
    if flags.stability:
        rows = [row for pair in HEADS for row in stability(*pair, flags.stability)]
        write(stable, pd.DataFrame(rows).round(5))
    rivals = flags.folder / "rivals.csv"
    if flags.rivals:
        kept = pd.read_csv(rivals).groupby(["features", "test"]) if rivals.exists() else ()
        of_test = dict(iter(kept))
        for name in flags.features or RIVALLED:
            for test in flags.tests or TESTS:
                of_test[name, test] = pd.DataFrame(compare(name, test, flags.rivals))
                write(rivals, pd.concat([of_test[key] for key in sorted(of_test)]))
                cli.log.info("%s, %s: compared", name, test)
    of_study = flags.folder / "heads.csv"
    if flags.heads:
        found = of_heads(flags.heads)
        numbers = found.select_dtypes("float").columns
        write(of_study, found.assign(**{name: found[name].map(four_digits) for name in numbers}))
    if flags.level or flags.power or flags.groups or flags.stability or flags.rivals or flags.heads:
        return
    found, reached = pd.read_csv(kept), pd.read_csv(flags.table)
    told(head_table(pd.read_csv(of_study)))
    for table in (level_table(found), rival_table(pd.read_csv(rivals))):
        print()
        told(table)
    with plt.style.context(["default", STYLE | {"figure.dpi": 110, "font.size": 9}]):
        save(draw_level(found), flags.folder / "level.png")
        save(draw_power(found, reached), flags.folder / "power.png")


if __name__ == "__main__":
    cli.run_step(main, Flags)

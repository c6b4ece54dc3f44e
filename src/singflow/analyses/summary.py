"""Tables that people read: one row per model and space, one per label, and the text that ends a run."""

import textwrap
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.statistics import Sample, holm, rank_correlations, reference_labels, through_fits, top1_shortfall
from singflow.analyses.tables import EDGE, LEAK, MARKS, SEEN, WEAK, ZERO, mark, marked
from singflow.config.registry import ModelEntry
from singflow.config.sections import (
    MOST_DRAWS,
    Section,
)


class Summary(Section):
    """The tables."""

    resample: Literal["images", "classes"] = Field(
        "images", description="what the images are a sample of: images of these labels, or labels, which are then drawn whole (10 or more)"
    )
    resamples: int = Field(2000, ge=100, le=MOST_DRAWS, description="bootstrap resamples behind every interval")
    permutations: int = Field(10000, ge=100, le=MOST_DRAWS, description="permutations behind the p-value of a rank correlation")
    confidence: float = Field(0.95, gt=0, lt=1, description="coverage of the intervals; its complement is the level of the tests")
    min_r2: float = Field(0.2, ge=-1, le=1, description="held-out R2 below which a translator is called weak")


MEANING, SOME, NONE, EMPTY = "meaning", "some sign of meaning", "no sign of meaning", "no null space"
UNJUDGED = "not judged in sample"
BEYOND = "of the others, only what lies beyond that counts"
NO_NULL_SPACE = "no null space: the logits see every direction, so IS = AS = 0"


def summarize_model(
    scores: pd.DataFrame,
    projector: dict[str, Any],
    translator: dict[str, Any],
    floor: dict[str, Any],
    zero: dict[str, Any] | None,
    entry: ModelEntry,
    refits: pd.DataFrame | None = None,
    *,
    resamples: int,
    confidence: float,
    min_r2: float,
    top1_margin: float,
    seed: int,
    resample: str = "images",
) -> dict[str, Any]:
    """One row of tables/models.csv.

    Parameters
    ----------
    scores : DataFrame
        The scores of every image.
    projector : dict
        The report of the projector, projectors/<model>.json.
    translator : dict
        The report of the translator, translators/<space>/<model>/<kind>.json.
    floor : dict
        The report of the floor, floors/<space>/<model>.json.
    zero : dict or None
        That of the space's known zero, if the study has it.
    entry : ModelEntry
        The model's entry of the registry.
    refits : DataFrame, optional
        What images add to mean scores through the fit, refits/<space>/<model>.parquet; without it intervals hold the images alone.
    resamples : int
        Bootstrap resamples of the images.
    confidence : float
        Coverage of the intervals, 0 to 1.
    min_r2 : float
        Held-out R2 below which a translator is called weak.
    top1_margin : float
        Percentage points by which top-1 may lie below the reported one, besides two standard errors.
    seed : int
        The study's seed, also of the bootstrap.
    resample : {"images", "classes"}, optional
        What is resampled: images within labels, or labels with all of their images.

    Returns
    -------
    dict
        The row's columns but space and model. Angles in degrees; intervals by bootstrap; None where
        undefined.
    """
    size = scores["as_deg"].abs()
    weak = translator["validation_r2"] < min_r2
    known = scores["class_index"] >= 0
    top1 = float((scores["predicted_index"] == scores["class_index"])[known].mean()) if known.any() else None
    expected = entry.expected_top1
    row: dict[str, Any] = {
        "n_images": len(scores),
        "null_dim": projector["null_dim"],
        "rank": projector["rank"],
        "rank_rule": projector["rule"],
        **{name: projector[name] for name in ("weight_dtype", "rank_stored", "rank_float64")},
        "seed": seed,
        "intervals": resample if refits is None else f"{resample}, refit",
        "weights": entry.weights.partition(":")[0],
        "weights_id": entry.id,
        "top1": top1,
        "reported_top1": entry.reported_top1,
        "top1_low": top1 is not None and expected is not None and top1_shortfall(top1, int(known.sum()), expected, top1_margin) > 0,
        "reference": translator["reference"],
        "folds": translator["folds"],
        "in_sample": translator["in_sample"],
        "lambda": translator["lambda"],
        "lambda_at_edge": translator["lambda_at_edge"],
        "alpha": translator["alpha"],
        "validation_cosine": translator["validation_cosine"],
        "baseline_cosine": translator["baseline_cosine"],
        "validation_r2": translator["validation_r2"],
        "n_train": translator["n_train"],
        "n_validation": translator["n_validation"],
        "translator": "weak" if weak else "good",
        "marks": mark(
            {
                WEAK: weak,
                ZERO: floor["known_zero"],
                LEAK: floor["known_leak"],
                EDGE: translator["lambda_at_edge"],
                SEEN: translator["in_sample"],
            }
        ),
        "verdict": verdict(projector["null_dim"], floor, zero, 1 - confidence),
        **{name: floor[name] for name in FLOOR},
        "max_logit_change": float(scores["logit_change"].max()),
        "null_energy_mean": float(scores["null_energy"].mean()),
    }
    columns = {
        "is": scores["is_deg"],
        "as": scores["as_deg"],
        "as_abs": size,
        "control_is": scores["control_is_deg"],
        "control_as": scores["control_as_deg"],
        "floor_is": scores["floor_is_deg"],
        "conditional_is": scores["conditional_is_deg"],
        "floor_conditional_is": scores["floor_conditional_is_deg"],
        "matched_is": scores["matched_is_deg"],
    }
    if scores["as_contrast_deg"].notna().all():
        columns["as_contrast"] = scores["as_contrast_deg"]
    sample = Sample.of(scores["label"], resample, reference_labels(refits))
    through = through_fits(refits, scores["image_id"], [REFITS.get(name) for name in columns], sample)
    drawn = sample.rows(np.column_stack(list(columns.values()))) + through
    samples = dict(zip(columns, sample.means(drawn, resamples, seed).T, strict=True))
    for name, values in columns.items():
        row[f"{name}_mean"] = float(values.mean())
        row[f"{name}_low"], row[f"{name}_high"] = map(float, sample.interval(values.mean(), samples[name], confidence))
    row |= {} if "as_contrast" in columns else dict.fromkeys(["as_contrast_mean", "as_contrast_low", "as_contrast_high"])
    for name, below in (("is_per_as", "as_abs"), ("is_per_control", "control_is"), ("is_per_matched", "matched_is")):
        row |= {name: None, f"{name}_low": None, f"{name}_high": None}
        if row[f"{below}_mean"] > 0:
            row[name] = row["is_mean"] / row[f"{below}_mean"]
            row[f"{name}_low"], row[f"{name}_high"] = map(float, sample.interval(row[name], samples["is"] / samples[below], confidence))
    row["note"] = NO_NULL_SPACE if projector["null_dim"] == 0 else ""
    return row


REFITS = {  # columns of refits/<space>/<model>.parquet
    "is": "is_deg", "as": "as_deg", "as_abs": "as_abs_deg", "as_contrast": "as_contrast_deg", "conditional_is": "conditional_is_deg",
    "control_is": "control_is_deg", "control_as": "control_as_deg", "matched_is": "matched_is_deg",
}  # fmt: skip
FLOOR = [
    "known_zero", "known_leak", "permutations", "p_is", "p_as_abs", "p_conditional_is", "r2_principal", "delta_r2", "delta_r2_low",
    "delta_r2_high",
]  # fmt: skip


def verdict(null_dim: int, floor: dict[str, Any], zero: dict[str, Any] | None, level: float) -> str:
    """What is to be said of a null space; never from IS alone.

    Floors and Delta R2 speak of information beyond a linear read-out. How much of it there is where nothing can be hidden, the known
    zero shows, and only what lies beyond that counts.

    Parameters
    ----------
    null_dim : int
        Its dimension.
    floor : dict
        The report of the floor.
    zero : dict or None
        That of the space's known zero, if the study has it.
    level : float
        Level of the tests, 0 to 1.

    Returns
    -------
    str
        `no null space`; `known zero`, of the model that the space is a function of; `not judged in sample`; `meaning` where conditional
        removal turns images more than null components without content do and the null space adds to what the principal space
        explains, both beyond chance and beyond the known zero; `some sign of meaning` where one of the two holds; `no sign of
        meaning`.
    """
    if not null_dim:
        return EMPTY
    if floor["known_zero"]:
        return ZERO
    if floor["p_conditional_is"] is None:
        return UNJUDGED
    least_gain = least_turn = 0.0
    if zero is not None:
        least_gain = max(least_gain, zero["delta_r2"])
        least_turn = zero["conditional_excess_deg"] if zero["p_conditional_is"] <= level else least_turn
    turned = floor["p_conditional_is"] <= level and floor["conditional_excess_deg"] > least_turn
    gained = floor["delta_r2_low"] is not None and floor["delta_r2_low"] > least_gain
    return [NONE, SOME, MEANING][turned + gained]


def controls_said(models: pd.DataFrame, space: str, level: float) -> list[str]:
    """Whether the controls in a space came out as they must.

    Parameters
    ----------
    models : DataFrame
        tables/models.csv.
    space : str
        The space.
    level : float
        Level of the tests, 0 to 1.

    Returns
    -------
    list of str
        A sentence for each control.
    """
    said = []
    for row in models[(models["space"] == space) & models["p_conditional_is"].notna() & (models["null_dim"] > 0)].to_dict("records"):
        name, gain = marked(row["model"], row["marks"]), f"Delta R2 {row['delta_r2']:+.3f}"
        turn = f"conditional IS {row['conditional_is_mean']:.2f}, floor {row['floor_conditional_is_mean']:.2f}"
        if row["known_zero"]:
            if row["p_conditional_is"] <= level:
                found = f"is above its floor, as it must not be ({turn}; {gain}): {BEYOND}."
            elif row["delta_r2_low"] > 0:
                found = f"is at its floor ({turn}), yet adds to a linear read-out ({gain}): {BEYOND}."
            else:
                found = f"is at its floor and adds nothing, as it must be ({turn}; {gain})."
            said.append(f"{name}, where nothing can be hidden, {found}")
        if row["known_leak"]:
            found = (
                f"is found to hold it, as it must be ({turn}; {gain})."
                if row["verdict"] == MEANING
                else f'is not found to hold it beyond doubt ({turn}; {gain}): this study misses what is there, so its "{NONE}" says little.'
            )
            said.append(f"{name}, whose null space holds what tells other classes apart, {found}")
    return said


def summarize_labels(scores: pd.DataFrame, floors: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Per label: number of images, and mean and standard deviation (divisor n) of IS, AS and |AS| in degrees.

    Parameters
    ----------
    scores : DataFrame
        The scores of every image, of one model and space.
    floors : DataFrame
        Labels beside their floors, floor_labels/<space>/<model>.parquet.
    confidence : float
        Its complement is the level of the tests.

    Returns
    -------
    DataFrame
        label, n, mean and std of is_deg, as_deg and as_abs_deg; floor_is_deg; leak_p: one-sided p-value that the IS of its images lies
        above their floor; leak_q: the same with the false discovery rate among the labels controlled; leaks: leak_q at most
        1 - confidence.

    References
    ----------
    Benjamini and Hochberg 1995 (leak_q).
    """
    frame = scores.assign(as_abs_deg=scores["as_deg"].abs())
    groups = frame.groupby("label", sort=True)
    table = pd.DataFrame({"n": groups.size()})
    for column in ("is_deg", "as_deg", "as_abs_deg"):
        table[f"{column}_mean"] = groups[column].mean()
        table[f"{column}_std"] = groups[column].std(ddof=0)
    own = floors.set_index("label").reindex(table.index)
    table["floor_is_deg_mean"], table["leak_p"] = own["floor_is_deg"], own["p_is_deg"]
    table["leak_q"] = scipy.stats.false_discovery_control(table["leak_p"]) if table["leak_p"].notna().all() else np.nan
    table["leaks"] = table["leak_q"] <= 1 - confidence
    return table.reset_index()


def correlate_labels(labels: pd.DataFrame, reliability: Mapping[tuple[str, str], float], permutations: int, seed: int) -> pd.DataFrame:
    """Do two models leak on the same labels? Spearman correlation of the labels' mean |AS| for every pair of models.

    Parameters
    ----------
    labels : DataFrame
        tables/labels.csv.
    reliability : Mapping of float
        Split-half reliability of the labels' mean |AS|, by space and model.
    permutations : int
        Permutations of labels behind every p-value.
    seed : int
        Seed of the permutations.

    Returns
    -------
    DataFrame
        A row per pair of models of a space: space, model_a, model_b, n_labels, spearman, ceiling, p, and p_holm, which is corrected by
        Holm for the number of pairs in a space. The ceiling is the root of the product of both reliabilities: what the correlation
        would be if the models leaked alike and only the images within labels made a difference.

    References
    ----------
    Spearman 1904 (ceiling).
    """
    columns = ["space", "model_a", "model_b", "n_labels", "spearman", "ceiling", "p"]
    blocks = []
    for space, group in labels.groupby("space", sort=False):
        wide = group.pivot(index="label", columns="model", values="as_abs_deg_mean")[list(group["model"].unique())]
        known = [reliability[str(space), str(model)] for model in wide]
        rows = [
            [space, wide.columns[i], wide.columns[j], len(wide), rho, np.sqrt(known[i] * known[j]), p]
            for i, j, rho, p in rank_correlations(wide.to_numpy(), permutations, seed)
        ]
        block = pd.DataFrame(rows, columns=columns)
        blocks.append(block.assign(p_holm=holm(block["p"].to_numpy(dtype=np.float64))))
    return pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=[*columns, "p_holm"])


def rank_differences(models: pd.DataFrame) -> str:
    """Where the rank of a head is another one at the precision of its stored weights than at float64, and by how many directions.

    Parameters
    ----------
    models : DataFrame
        tables/models.csv.

    Returns
    -------
    str
        A sentence; empty where there is no such head.
    """
    heads = models[models["rank_stored"] != models["rank_float64"]].drop_duplicates("model").to_dict("records")
    if not heads:
        return ""
    named = [
        f"{row['model']} {row['rank_stored']} ({row['weight_dtype']}) and {row['rank_float64']}, "
        f"{(fewer := row['rank_float64'] - row['rank_stored'])} direction{'s' * (fewer > 1)} fewer"
        for row in heads
    ]
    taken = {"exact": " Rule exact takes the first.", "exact64": " Rule exact64 takes the second."}.get(heads[0]["rank_rule"], "")
    return f"Rank at the precision of the stored weights and at float64: {'; '.join(named)}.{taken}"


def seen_by_translators(models: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """Which images translators have seen.

    Parameters
    ----------
    models : DataFrame
        tables/models.csv.
    manifest : DataFrame
        The manifest of the images.

    Returns
    -------
    str
        As in `4 images held out`.
    """
    reference, n_train = models[["reference", "n_train"]].iloc[0]
    if pd.isna(reference):
        return f"{(manifest['split'] == 'validation').sum()} images held out"
    return f"all out of sample: translators are fitted on {n_train} rows of the reference {reference}"


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join([cells[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in (header, *rows)
    ]


def render_text(study: str, models: pd.DataFrame, manifest: pd.DataFrame, confidence: float, min_r2: float) -> str:
    """The table that ends a run, with what its columns mean and a warning where a translator is weak.

    Parameters
    ----------
    study : str
        Name of the study.
    models : DataFrame
        tables/models.csv.
    manifest : DataFrame
        The manifest of the images.
    confidence : float
        Coverage of the intervals, 0 to 1.
    min_r2 : float
        Held-out R2 below which a translator is called weak.

    Returns
    -------
    str
        Text of tables/summary.txt.
    """
    percent = f"{100 * confidence:g} %"
    lines = [
        f"Study {study}: {len(manifest)} images, {manifest['label'].nunique()} labels, {seen_by_translators(models, manifest)}; "
        f"rank rule {models['rank_rule'].iloc[0]}, seed {models['seed'].iloc[0]}",
    ]
    for name in models["space"].unique():
        for each in controls_said(models, name, 1 - confidence):
            lines += textwrap.wrap(f"Control in {name}: {each}", 130, subsequent_indent="  ")
    lines.append("")
    for space, group in models.groupby("space", sort=False):
        rows = group.to_dict("records")
        way = ", in sample as in the paper" if group["in_sample"].any() else ""
        lines += [f"space {space}{way}: is it more than a null space without content would show?"]
        lines += _aligned(
            [
                "model",
                "null dim",
                "top-1",
                "R2",
                f"IS [{percent}]",
                "floor",
                "p",
                "cond. IS",
                "floor",
                "p",
                f"Delta R2 [{percent}]",
                "verdict",
            ],
            [
                [
                    marked(row["model"], row["marks"]),
                    str(row["null_dim"]),
                    "-" if pd.isna(row["top1"]) else f"{row['top1']:.3f}" + ("!" if row["top1_low"] else ""),
                    f"{row['validation_r2']:.2f}",
                    f"{row['is_mean']:.2f} [{row['is_low']:.2f}, {row['is_high']:.2f}]",
                    f"{row['floor_is_mean']:.2f}",
                    "-" if pd.isna(row["p_is"]) else f"{row['p_is']:.2g}",
                    f"{row['conditional_is_mean']:.2f}",
                    f"{row['floor_conditional_is_mean']:.2f}",
                    "-" if pd.isna(row["p_conditional_is"]) else f"{row['p_conditional_is']:.2g}",
                    f"{row['delta_r2']:+.3f}"
                    + ("" if pd.isna(row["delta_r2_low"]) else f" [{row['delta_r2_low']:+.3f}, {row['delta_r2_high']:+.3f}]"),
                    row["verdict"],
                ]
                for row in rows
            ],
        )
        lines += ["", f"space {space}: the paper's scores{way}, and the removal of random subspaces of the same size"]
        lines += _aligned(
            ["model", "AS", "|AS|", "IS/|AS|", "contrast AS", "random IS", "IS/random", "matched IS", "IS/matched"],
            [
                [
                    marked(row["model"], row["marks"]),
                    f"{row['as_mean']:+.2f}",
                    f"{row['as_abs_mean']:.2f}",
                    "-" if pd.isna(row["is_per_as"]) else f"{row['is_per_as']:.1f}",
                    "-" if pd.isna(row["as_contrast_mean"]) else f"{row['as_contrast_mean']:+.2f}",
                    f"{row['control_is_mean']:.2f}",
                    "-" if pd.isna(row["is_per_control"]) else f"{row['is_per_control']:.2f}",
                    f"{row['matched_is_mean']:.2f}",
                    "-" if pd.isna(row["is_per_matched"]) else f"{row['is_per_matched']:.2f}",
                ]
                for row in rows
            ],
        )
        lines.append("")
    lines += [
        "All scores in degrees. IS: how far meaning turns when the null component, which no logit sees, is removed.",
        "floor: the same of null components that carry nothing: residuals of other images, to which the translator is fitted anew.",
        "p: how often such components turn images as far or farther. cond. IS: what turns when the null component is replaced by its",
        "prediction from the principal one. Delta R2: what the null space adds to the share that the principal space explains.",
        f"verdict: {MEANING}: cond. IS is above its floor and Delta R2 above 0, beyond chance and the known zero; {SOME}: one is.",
        "AS: how much closer removal brings an image to its own label; |AS|: its size whatever its sign; contrast AS: less the mean over",
        "the other labels. matched: random subspaces, of which as much is removed as the null component is long; 1: meaning is as dense.",
        "R2: share of the variation that the translator explains in images it has not seen; 0: the mean embedding does as well.",
    ]
    if models["top1"].isna().any():
        lines.append("top-1 -: no image has a label that is a class of the model, so that nothing can be right or wrong.")
    zeros = models.loc[models["known_zero"], "model"].unique()
    if len(zeros):
        named = f"{MARKS[ZERO]} {', '.join(zeros)}"
        lines.append(f"{named}: {ZERO}: the space is a function of its logits, so nothing can be hidden; it is ranked nowhere.")
    leaks = models.loc[models["known_leak"], "model"].unique()
    if len(leaks):
        named = f"{MARKS[LEAK]} {', '.join(leaks)}"
        lines.append(f"{named}: {LEAK}: its head keeps some classes, and what tells the others apart is hidden; it is ranked nowhere.")
    if models["lambda_at_edge"].any():
        named = ", ".join(models.loc[models["lambda_at_edge"], "model"].unique())
        lines.append(f"{MARKS[EDGE]} {named}: the best penalty is at the edge of translator.lambdas: extend the list.")
    if models["in_sample"].any():
        named = ", ".join(models.loc[models["in_sample"], "model"].unique())
        lines.append(f"{MARKS[SEEN]} {named}: {SEEN}: the translator has seen the images that it translates, as in the paper.")
    if differences := rank_differences(models):
        lines.append(differences)
    if (models["null_dim"] == 0).any():
        names = ", ".join(models.loc[models["null_dim"] == 0, "model"].unique())
        lines.append(f"{names}: {NO_NULL_SPACE}.")
    if models["top1_low"].any():
        low = models[models["top1_low"]].drop_duplicates("model").to_dict("records")
        named = ", ".join(f"{row['model']} ({100 * row['top1']:.1f} %, reported {row['reported_top1']:g} %)" for row in low)
        lines += [
            "",
            f"! TOP-1 FAR BELOW WHAT IS REPORTED: {named}. Most often the evaluation transform or the order of the classes",
            "  is wrong; do not trust the scores of these models before that is explained.",
        ]
    if (models["weights"] == "random").any():
        lines += ["", "RANDOM WEIGHTS: these models are untrained. The numbers show that the workflow runs, and nothing else."]
    if (models["translator"] == "weak").any():
        lines += [
            "",
            f"{MARKS[WEAK]} WEAK TRANSLATOR: held-out R2 below {min_r2:g}. It hardly beats its baseline, so these scores show how the "
            "method works,",
            "  not what the model ignores. Give it more images (data.source, data.root) before you believe a ranking.",
        ]
    return "\n".join(lines) + "\n"

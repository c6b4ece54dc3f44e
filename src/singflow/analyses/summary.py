"""Tables that people read: one row per model and space, one per label, and the text that ends a run."""

from typing import Any

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.statistics import bootstrap_means, holm, interval, rank_correlations, rank_sum_p, strata_of, top1_shortfall
from singflow.config.registry import ModelEntry
from singflow.config.sections import (
    Section,
)


class Summary(Section):
    """The tables."""

    resamples: int = Field(2000, ge=100, description="bootstrap resamples of the images behind every interval")
    permutations: int = Field(10000, ge=100, description="permutations behind every p-value")
    confidence: float = Field(0.95, gt=0, lt=1, description="coverage of the intervals; its complement is the level of the tests")
    min_r2: float = Field(0.2, le=1, allow_inf_nan=False, description="held-out R2 below which a translator is called weak")


NO_NULL_SPACE = "no null space: the logits see every direction, so IS = AS = 0"


def summarize_model(
    scores: pd.DataFrame,
    projector: dict[str, Any],
    translator: dict[str, Any],
    entry: ModelEntry,
    *,
    resamples: int,
    confidence: float,
    min_r2: float,
    top1_margin: float,
    seed: int,
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
    entry : ModelEntry
        The model's entry of the registry.
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

    Returns
    -------
    dict
        The row's columns but space and model. Angles in degrees; intervals by bootstrap over images within labels; None where
        undefined.
    """
    size = scores["as_deg"].abs()
    known = scores["class_index"] >= 0
    top1 = float((scores["predicted_index"] == scores["class_index"])[known].mean()) if known.any() else None
    expected = entry.expected_top1
    row: dict[str, Any] = {
        "n_images": len(scores),
        "null_dim": projector["null_dim"],
        "rank": projector["rank"],
        "rank_rule": projector["rule"],
        "seed": seed,
        "weights": entry.weights.partition(":")[0],
        "top1": top1,
        "reported_top1": entry.reported_top1,
        "top1_low": top1 is not None and expected is not None and top1_shortfall(top1, int(known.sum()), expected, top1_margin) > 0,
        "alpha": translator["alpha"],
        "validation_cosine": translator["validation_cosine"],
        "baseline_cosine": translator["baseline_cosine"],
        "validation_r2": translator["validation_r2"],
        "n_train": translator["n_train"],
        "n_validation": translator["n_validation"],
        "translator": "weak" if translator["validation_r2"] < min_r2 else "good",
        "max_logit_change": float(scores["logit_change"].max()),
        "null_energy_mean": float(scores["null_energy"].mean()),
    }
    columns = {
        "is": scores["is_deg"],
        "as": scores["as_deg"],
        "as_abs": size,
        "control_is": scores["control_is_deg"],
        "control_as": scores["control_as_deg"],
    }
    samples = dict(
        zip(columns, bootstrap_means(np.column_stack(list(columns.values())), strata_of(scores["label"]), resamples, seed).T, strict=True)
    )
    for name, values in columns.items():
        row[f"{name}_mean"] = float(values.mean())
        row[f"{name}_low"], row[f"{name}_high"] = map(float, interval(samples[name], confidence))
    for name, below in (("is_per_as", "as_abs"), ("is_per_control", "control_is")):
        row |= {name: None, f"{name}_low": None, f"{name}_high": None}
        if row[f"{below}_mean"] > 0:
            row[name] = row["is_mean"] / row[f"{below}_mean"]
            row[f"{name}_low"], row[f"{name}_high"] = map(float, interval(samples["is"] / samples[below], confidence))
    row["note"] = NO_NULL_SPACE if projector["null_dim"] == 0 else ""
    return row


def summarize_labels(scores: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Per label: number of images, and mean and standard deviation (divisor n) of IS, AS and |AS| in degrees.

    Parameters
    ----------
    scores : DataFrame
        The scores of every image, of one model and space.
    confidence : float
        Its complement is the level of the tests.

    Returns
    -------
    DataFrame
        label, n, mean and std of is_deg, as_deg and as_abs_deg; leak_p: one-sided p-value that |AS| of its images lies above that
        of all others (Mann-Whitney); leak_q: the same with the false discovery rate among the labels controlled; leaks: leak_q at
        most 1 - confidence.

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
    table["leak_p"] = rank_sum_p(frame["as_abs_deg"].to_numpy(), groups.ngroup().to_numpy())
    table["leak_q"] = scipy.stats.false_discovery_control(table["leak_p"]) if table["leak_p"].notna().all() else np.nan
    table["leaks"] = table["leak_q"] <= 1 - confidence
    return table.reset_index()


def correlate_labels(labels: pd.DataFrame, permutations: int, seed: int) -> pd.DataFrame:
    """Do two models leak on the same labels? Spearman correlation of the labels' mean |AS| for every pair of models.

    Parameters
    ----------
    labels : DataFrame
        tables/labels.csv.
    permutations : int
        Permutations of labels behind every p-value.
    seed : int
        Seed of the permutations.

    Returns
    -------
    DataFrame
        A row per pair of models of a space: space, model_a, model_b, n_labels, spearman, p, and p_holm, which is corrected by Holm
        for the number of pairs in a space.
    """
    blocks = []
    for space, group in labels.groupby("space", sort=False):
        wide = group.pivot(index="label", columns="model", values="as_abs_deg_mean")[list(group["model"].unique())]
        rows = [
            {"space": space, "model_a": wide.columns[i], "model_b": wide.columns[j], "n_labels": len(wide), "spearman": rho, "p": p}
            for i, j, rho, p in rank_correlations(wide.to_numpy(), permutations, seed)
        ]
        block = pd.DataFrame(rows, columns=["space", "model_a", "model_b", "n_labels", "spearman", "p"])
        blocks.append(block.assign(p_holm=holm(block["p"].to_numpy(dtype=np.float64))))
    return pd.concat(blocks, ignore_index=True)


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
        f"Study {study}: {len(manifest)} images, {manifest['label'].nunique()} labels, "
        f"{(manifest['split'] == 'validation').sum()} images held out; "
        f"rank rule {models['rank_rule'].iloc[0]}, seed {models['seed'].iloc[0]}",
        "",
    ]
    header = ["model", "null dim", "top-1", "cosine (baseline)", "R2", f"IS [{percent}]", "AS", "|AS|", "IS/|AS|", "random IS", "IS/random"]
    for space, group in models.groupby("space", sort=False):
        rows = [header]
        for row in group.to_dict("records"):
            rows.append(
                [
                    row["model"] + (" *" if row["translator"] == "weak" else ""),
                    str(row["null_dim"]),
                    "-" if pd.isna(row["top1"]) else f"{row['top1']:.3f}" + ("!" if row["top1_low"] else ""),
                    f"{row['validation_cosine']:.3f} ({row['baseline_cosine']:.3f})",
                    f"{row['validation_r2']:.2f}",
                    f"{row['is_mean']:.2f} [{row['is_low']:.2f}, {row['is_high']:.2f}]",
                    f"{row['as_mean']:+.2f}",
                    f"{row['as_abs_mean']:.2f}",
                    "-" if pd.isna(row["is_per_as"]) else f"{row['is_per_as']:.1f}",
                    f"{row['control_is_mean']:.2f}",
                    "-" if pd.isna(row["is_per_control"]) else f"{row['is_per_control']:.2f}",
                ]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append(f"space {space}")
        lines += [
            "  ".join([cells[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True))])
            for cells in rows
        ]
        lines.append("")
    lines += [
        "All scores in degrees. IS: how far meaning turns when the null component, which no logit sees, is removed.",
        "AS: how much closer that brings an image to its own label (negative: farther away); |AS|: its size whatever its sign.",
        "random IS: the same after removing random subspaces of equal dimension. IS/random below 1: the null space holds less meaning",
        "than its size alone would. It depends far less than IS on the translator's ridge penalty: compare models by it.",
        "R2: share of the held-out images' variation that the translator explains; 0 is the baseline, which says the same of every image.",
    ]
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
            f"* WEAK TRANSLATOR: held-out R2 below {min_r2:g}. It hardly beats its baseline, so these scores show how the method works,",
            "  not what the model ignores. Give it more images (data.source, data.root) before you believe a ranking.",
        ]
    return "\n".join(lines) + "\n"

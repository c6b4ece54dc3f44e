"""Sentences on the tables of a study."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import scipy

from singflow.analyses.summary import ALIKE, NAMED, NO_NULL_SPACE, controls_last
from singflow.analyses.tables import EDGE, MARKS, SEEN, WEAK, joined, marked, percent, with_interval

MOST = 3  # limit on the pairs of models that a sentence names


def _in_spaces(models: pd.DataFrame) -> str:
    """Names of models with their spaces."""
    return "; ".join(
        f"{joined(mine['model'])} in {space}" for space, mine in models.groupby("space", sort=False)
    )


def rank_differences(models: pd.DataFrame) -> str:
    """Sentence on heads whose rank in the precision of the stored weights is not the float64 rank.

    It is empty if there is no such head.
    """
    differ = models[models["rank_stored"] != models["rank_float64"]]
    heads = differ.drop_duplicates("model").to_dict("records")
    if not heads:
        return ""
    named = [
        f"{row['model']} has rank {row['rank_stored']} at the precision of its stored weights "
        f"({row['weight_dtype']}), and {row['rank_float64']} at float64"
        for row in heads
    ]
    used = {"exact": "stored weights", "exact64": "float64"}.get(heads[0]["rank_rule"], "")
    taken = f" This study uses the rank at the precision of {used}." if used else ""
    return f"{'; '.join(named)}.{taken}"


def seen_by_translators(models: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """Which images the translators have not seen, as in `4 images held out`."""
    fitted, imported = models[models["n_train"] > 0], models[models["n_train"] == 0]
    known, said = "out of sample" if len(imported) else "all out of sample", []
    for most in fitted.sort_values("n_train").to_dict("records")[-1:]:
        if pd.notna(most["reference"]):
            rows = f"{most['n_train']} rows of the reference {most['reference']}"
            said.append(f"{known}: translators are fitted on {rows}")
        elif most["folds"]:
            said.append(f"{known}: translators are cross-fitted in {most['folds']} folds")
        else:
            said.append(f"{(manifest['split'] == 'validation').sum()} images held out")
    if len(imported):
        names = _in_spaces(imported)
        said.append(f"imported translators, whose images are not known here, for {names}")
    return "; ".join(said)


def paper_scores(models: pd.DataFrame) -> list[str]:
    """Line with the paper's scores of the models of one space; none without scores."""
    if "is_mean" not in models:
        return []
    listed = [
        f"{marked(row['model'], row['marks'])} {row['as_mean']:+z.2f}, "
        f"{row['as_abs_mean']:.2f}, {number(row['is_per_as'], 1)}"
        for row in controls_last(models).to_dict("records")
    ]
    return [f"The paper's scores AS, |AS|, IS/|AS| (no verdict uses them): {'; '.join(listed)}"]


def stand_in(sources: Mapping[str, str]) -> str:
    """What a study shows whose spaces all stand in for CLIP; empty for other studies.

    sources: the source of each space.
    """
    if set(sources.values()) != {"conse"}:
        return ""
    return (
        f"{' and '.join(sources)}, the space of this study, is a stand-in for CLIP that knows only "
        "the classes of a classifier: the study shows that the test works. docs/first-clip.md "
        "leads to a verdict in CLIP"
    )


def number(value: Any, digits: int) -> str:
    """A number with so many digits; a dash if it is missing."""
    return "-" if pd.isna(value) else f"{value:z.{digits}f}"


def power_said(models: pd.DataFrame) -> list[str]:
    """What D shows of a leak, and what the logits say of the null component; none without D."""
    tested = models.dropna(subset=["gain", "null_r2"])
    if tested.empty:
        return []
    gain, null_r2 = (_range(tested, column) for column in ("gain", "null_r2"))
    shown = f"shows {gain} of a leak of 10 % that is spread evenly"
    said = f"D {shown}. Above 100 % it is no lower bound: D can exceed the leak."
    if (tested["gain"] < 1).all():
        said = (
            f"D is a lower bound: it {shown}, because the null component is read from few images. "
            "So a D below the smallest detectable leak can be found."
        )
    return [f"{said} The logits predict {null_r2} of the null component."]


def _range(models: pd.DataFrame, column: str) -> str:
    rows = models.sort_values(column, kind="stable").iloc[[0, -1][: len(models)]]
    return " to ".join(
        f"{percent(max(row[column], 0.0))} ({row['model']})" for row in rows.to_dict("records")
    )


def pairs_said(pairs: pd.DataFrame) -> list[str]:
    """A sentence on the models of a space that differ by D; none without pairs."""
    if pairs.empty:
        return []
    rows = pairs.reindex(
        pairs["difference"].abs().sort_values(ascending=False, kind="stable").index
    )
    apart = rows[rows["differ"].astype(bool)]
    if apart.empty:
        names = list(dict.fromkeys([*pairs["model_a"], *pairs["model_b"]]))
        who = joined(names) if len(names) <= MOST else f"the {len(names)} models"
        return [
            f"By D, {who} cannot be told apart. The largest difference is "
            f"{_difference(rows.iloc[0].to_dict())}."
        ]
    named = "; ".join(
        f"{' above '.join([row['model_a'], row['model_b']][:: 1 if row['difference'] > 0 else -1])}"
        f" by {_difference(row)}"
        for row in apart.head(MOST).to_dict("records")
    )
    return [
        f"By D, {len(apart)} of {len(pairs)} pairs of models differ: {named}"
        f"{'; and others' if len(apart) > MOST else ''}."
    ]


def _difference(row: dict[Any, Any]) -> str:
    sign = 100 if row["difference"] >= 0 else -100
    low, high = sorted((sign * row["low"], sign * row["high"]))
    size = with_interval([sign * row["difference"], low, high], 2, " %")
    return f"{size}, p = {row['p_holm']:.2g}"


def blind_said(models: pd.DataFrame) -> list[str]:
    """A paragraph on the blind check of a space; none without a blind check."""
    found = models.dropna(subset=["blind_unique_r2"])
    if found.empty:
        return []
    most = found.sort_values("blind_unique_r2", kind="stable").iloc[-1]
    size = with_interval([100 * most["blind_unique_r2"]], 2, " %")
    return [
        "Blind check: the test is repeated with embeddings that follow from the logits alone, so D "
        f"should be 0. The largest D is {size} ({most['model']}); "
        f"the margin is {percent(most['margin'])}."
    ]


def steering_said(steering: pd.DataFrame, models: pd.DataFrame, confidence: float) -> str:
    """A note that steering does not tell the models of a study apart; empty if that is not so."""
    names, n = steering["model"].nunique(), steering["n_reachable"]
    if names < 2:
        return ""
    half = (
        scipy.special.stdtrit((n - 1).clip(lower=1), (1 + confidence) / 2)
        * steering["as_target_std_deg"]
        / n**0.5
    )
    ends = steering.assign(
        low=steering["as_target_mean_deg"] - half, high=steering["as_target_mean_deg"] + half
    )
    together = ends.groupby(["space", "prompt", "target_is_deg"]).agg({"low": "max", "high": "min"})
    if half.isna().any() or (n < steering["n"]).any() or (together["low"] > together["high"]).any():
        return ""
    text = (
        f"All {names} models reach every target, and the {100 * confidence:g} % intervals of their "
        "mean AS overlap. By this table, the models cannot be told apart."
    )
    zeros = models.loc[
        models["known_zero"].astype(bool) & models["model"].isin(steering["model"]), "model"
    ].unique()
    if len(zeros):
        text += (
            f" {joined(zeros)}, a known zero, is steered as far as the others. So steering is no "
            "evidence of hidden meaning."
        )
    return text


def probes_said(probes: pd.DataFrame, paper: dict[str, Any], same: pd.DataFrame) -> str:
    """A sentence on the correlation of probes' accuracies in the first space; empty if unknown.

    The paper is quoted if this space has the models of the paper's chart and no others, and all of
    them are comparable (`same`).
    """
    if probes.empty or pd.isna(probes["pearson"].iloc[0]):
        return ""
    first = probes.iloc[0]
    ours, theirs = (
        set(rows.loc[rows["space"] == first["space"], "model"]) for rows in (probes, same)
    )
    charted = {model for model, facts in paper["models"].items() if "ratio" in facts}
    ends = (first[f"pearson{end}"] for end in ("", "_low", "_high"))
    said = (
        f"Pearson's correlation of the two accuracies is {with_interval(ends, 3)} over "
        f"{first['pearson_n']:.0f} models here"
    )
    quoted = f"; the paper has {paper['pearson']}" if ours == theirs == charted else ""
    return f"{said}{quoted}."


def sample_said(shown: int, images: int) -> str:
    """A sentence on a page that shows a sample of the images; empty if it shows all."""
    if shown == images:
        return ""
    return (
        f"{shown:,} of the {images:,} images are shown here one by one, drawn by the study's seed; "
        "the scores of all are in the results folder, scores/."
    )


def warnings(models: pd.DataFrame, min_r2: float) -> list[str]:
    """Warnings for the reader of a study's numbers, in the summary and on the page."""

    def named(chosen: pd.Series) -> str:
        return _in_spaces(models[chosen])

    weak, edge, seen = (
        models["marks"].str.split(", ").map(lambda marks, mark=mark: mark in marks)
        for mark in (WEAK, EDGE, SEEN)
    )
    untrained = models["weights"] == "random"
    alike = models["near_copies"] > ALIKE * models["n_compared"]
    copied = "; ".join(
        f"{row['left_out']:.0f} for {row['model']} in {row['space']} ({row['left_out_images']}"
        f"{', and others' * (row['left_out'] > NAMED)})"
        for row in models[models["left_out"] > 0].to_dict("records")
    )
    shares = ", ".join(
        f"{row['near_copies']:.0f} of {row['n_compared']:.0f} for {row['model']} in {row['space']}"
        for row in models[alike].to_dict("records")
    )
    blind = models["blind_unique_r2"] > models["margin"]
    empty = models["null_dim"] == 0
    low = models[models["top1_low"].astype(bool)].drop_duplicates("model")
    far = [
        f"{row['model']} ({100 * row['top1']:.1f} %, "
        + ("like a guess)" if pd.isna(share := row["reported_top1"]) else f"reported {share:g} %)")
        for row in low.to_dict("records")
    ]
    found = {
        f"RANDOM WEIGHTS, untrained: {', '.join(models.loc[untrained, 'model'].unique())}. Their "
        "numbers show that the workflow runs, and nothing else.": untrained.any(),
        f"! TOP-1 FAR TOO LOW: {', '.join(far)}. Most often the order of the classes, the "
        "evaluation transform or the weights are wrong. Do not trust the scores of these models "
        "before that is explained.": len(far),
        f"{MARKS[WEAK]} WEAK TRANSLATOR: {named(weak)}. It explains less than {min_r2:g} of the "
        "held-out images (R²). These scores show how the method works, not what the models ignore. "
        "Give the study more images (data.source, data.root) before you believe a ranking.": (
            weak.any()
        ),
        f"{MARKS[EDGE]} The best penalty of {named(edge)} is at the edge of translator.lambdas. A "
        "better one may lie beyond: extend the list.": edge.any(),
        f"{MARKS[SEEN]} In sample, as in the paper: the translator of {named(seen)} has seen the "
        "images that it translates.": seen.any(),
        f"The blind check exceeds the margin: {named(blind)}. There, imperfect words alone look "
        "like hidden meaning. A verdict of “meaning” or “trace” proves nothing for these "
        "models.": blind.any(),
        "Images of the reference that are near copies of the study's images (re-encoded, cropped, "
        f"mirrored) are left out of every fit: {copied}. All are in translators/<space>/<model>/"
        "linear.json, left_out.": bool(copied),
        f"NEAR COPIES IN OTHER FOLDS: {shares} (frames of a film? copies?). A translator has seen "
        "such images, so R² and D are too good. Give data.table a column group: images of one "
        "group share a fold (in singflow.measure: groups=). Or keep one image of each.": bool(
            shares
        ),
        rank_differences(models): True,
        f"{', '.join(models.loc[empty, 'model'].unique())}: {NO_NULL_SPACE}.": empty.any(),
    }
    return [warning for warning, holds in found.items() if holds and warning]

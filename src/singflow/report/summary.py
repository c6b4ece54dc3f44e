"""The text of tables/summary.txt, which ends a run: decisions, numbers, warnings."""

import textwrap
from collections.abc import Iterable, Mapping

import pandas as pd

from singflow.analyses.findings import HIDES, all_findings, decisions
from singflow.analyses.summary import NOTHING, controls_last, detected, with_own_words
from singflow.analyses.tables import legend, marked, with_interval
from singflow.report.sentences import number, paper_scores, seen_by_translators, stand_in, warnings

WIDTH = 130  # of a line
QUESTION = "Does the null space of a head hold meaning that its logits do not tell?"
OF_SCORES = (
    "IS: the angle in degrees by which the translated feature turns when the null component is "
    "removed. floor: the same angle if the null component held no meaning. "
)
OF_D = (
    "D: what the null component adds to all that the logits tell, as a share of the meaning "
    "(variance). turn: D as an angle in degrees, which grows with the square root of D, so that "
    "0.005 is about 5 degrees. n per dim: images for each feature dimension. detectable: the "
    "smallest planted leak that is called meaning in 9 of 10 trials, spread evenly over the null "
    "space; in brackets, along the first direction of the null component. D shows only a part of a "
    "leak."
)
OF_R2 = (
    "R2: share of meaning that the translator explains in images it has not seen; in brackets what "
    "the model's own words explain."
)
OF_OWN_WORDS = (
    "own words: the blind check with the largest D. Its embedding is spelled by the logits of a "
    "model, so D should be 0."
)


def render_text(
    study: str,
    models: pd.DataFrame,
    sources: Mapping[str, str],
    texts: pd.DataFrame,
    groups: pd.DataFrame,
    manifest: pd.DataFrame,
    rejected: int,
    confidence: float,
    min_r2: float,
    *,
    controls: bool = True,
) -> str:
    """The text of a study.

    sources: the source of each space. texts, groups: those of models in which something was found.
    rejected: files that were left out. controls: whether own words are shown as a known zero.
    """
    shown = with_own_words(models) if controls else models
    found, known = decisions(shown, texts)
    lines = [f"Study {study}: features or logits? {QUESTION}"]
    lines += ["", *_items(found)] if found else []
    if (models["verdict"] == NOTHING).any():
        lines.append(HIDES)
    if known:
        lines += ["", "Controls:", *_items(known)]
    if said := stand_in(sources):
        lines += ["", *textwrap.wrap(f"{said}.", WIDTH)]
    for space, group in models.groupby("space", sort=False):
        rows = controls_last(shown[shown["space"] == space])
        lines += ["", f"Space {space}", *_table(rows, f"{100 * confidence:g} %")]
        lines += [line for said in paper_scores(group) for line in textwrap.wrap(said, WIDTH)]
        hidden = all_findings(group, texts, groups)
        lines += _items((model, words) for (_, model), words in hidden.items() if words)
    meanings = (OF_SCORES if "is_mean" in models else "") + OF_D
    lines += ["", *textwrap.wrap(meanings, WIDTH), *textwrap.wrap(OF_R2, WIDTH)]
    if len(shown) > len(models):
        lines += textwrap.wrap(OF_OWN_WORDS, WIDTH)
    if signs := legend(shown["marks"]):
        lines.append(f"Signs beside the names: {signs}.")
    lines += textwrap.wrap(
        f"{len(manifest)} images, {manifest['label'].nunique()} labels, "
        f"{seen_by_translators(models, manifest)}; rank rule {models['rank_rule'].iloc[0]}, seed "
        f"{models['seed'].iloc[0]}.",
        WIDTH,
    )
    if rejected:
        total = len(manifest) + rejected
        lines.append(f"{rejected} of {total} files were left out (data/rejected.csv).")
    for warning in warnings(models, min_r2):
        lines += ["", *textwrap.wrap(warning, WIDTH, subsequent_indent="  ")]
    return "\n".join(lines) + "\n"


def _items(said: Iterable[tuple[str, str]]) -> list[str]:
    return [
        line
        for name, words in said
        for line in textwrap.wrap(f"{name}: {words}", WIDTH, subsequent_indent="  ")
    ]


def per_dimension(images: float) -> str:
    """Images per feature dimension as text: two digits below 10, otherwise whole."""
    return f"{images:.2g}" if images < 10 else f"{images:.0f}"


def _table(models: pd.DataFrame, coverage: str) -> list[str]:
    """Aligned lines of the table of one space."""
    rows = []
    for row in models.to_dict("records"):
        even, first = detected(row, "detectable"), detected(row, "detectable_first")
        angles = {"IS": "is_mean", "floor": "floor_is_mean"}
        r2, words = (number(row[name], 2) for name in ("validation_r2", "r2_words"))
        rows.append(
            {
                "model": marked(row["model"], row["marks"]) + ("!" if row["top1_low"] else ""),
                "null dim": str(row["null_dim"]),
                "n per dim": per_dimension(row["n_per_dim"]),
                "R2 (words)": r2 if r2 == "-" else f"{r2} ({words})",
                **{name: number(row[of], 1) for name, of in angles.items() if of in row},
                f"D [{coverage}]": with_interval(
                    (row[f"unique_r2{end}"] for end in ("", "_low", "_high")), 3
                ),
                "turn": number(row["turn_deg"], 0),
                "detectable (first)": even if even == "-" else f"{even} ({first})",
                "verdict": row["verdict"],
            }
        )
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, values, widths[1:])])
        for name, *values in cells
    ]

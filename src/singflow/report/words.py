"""What the tables of a study say, in words."""

from collections.abc import Iterable
from itertools import chain, pairwise, zip_longest
from typing import Any

import pandas as pd

from singflow.analyses.ranking import CHART, PAPER, beside_chart
from singflow.analyses.summary import MEANING, NO_NULL_SPACE, NONE, SOME, UNJUDGED, controls_said, rank_differences
from singflow.analyses.tables import EDGE, LEAK, MARKS, SEEN, WEAK, ZERO, marked

MOST = 3  # models that a sentence says numbers of, or lists beside another


def _range(row: dict[Any, Any], name: str) -> str:
    return f"{row[f'{name}_mean']:.2f}° [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _joined(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def verdict(
    models: pd.DataFrame,
    own: pd.DataFrame,
    pairs: pd.DataFrame,
    orders: pd.DataFrame,
    agreement: pd.DataFrame,
    space: str,
    limits: dict[str, float] | None,
    level: float,
) -> list[str]:
    """What the tables say of the models in one space, in sentences.

    Parameters
    ----------
    models, pairs, orders, agreement : DataFrame
        tables/models.csv, tables/model_pairs.csv, tables/orders.csv and tables/order_agreement.csv.
    own : DataFrame
        Rows of tables/controls.csv at each null space's own dimension.
    space : str
        The space.
    limits : dict of float or None
        is_deg and as_abs_deg, in degrees, above which the paper's authors call leakage substantial; None in another space than theirs.
    level : float
        Level of the tests, 0 to 1.

    Returns
    -------
    list of str
        One or more sentences each; when no model has a null space, that alone.
    """
    here = models[models["space"] == space]
    blind = [_named(row) for row in here[here["null_dim"] == 0].to_dict("records")]
    said = [f"{_joined(blind)}: {NO_NULL_SPACE}."] if blind else []
    measured = here[here["null_dim"] > 0].sort_values("as_abs_mean", ascending=False, kind="stable").to_dict("records")
    if not measured:
        return said
    said += [each.replace("R2", "R²") for each in controls_said(here, space, level)]
    rows = [row for row in measured if not (row["known_zero"] or row["known_leak"])]
    said += [_evidence(rows)] if rows else []
    if not rows:
        return said or ["Images are scored in sample: no floor can be trusted."]
    ranked, weak = ([row for row in rows if row["translator"] == each] for each in ("good", "weak"))
    if weak and ranked:
        said.append(f"{_joined(map(_named, weak))}: a weak translator, so in no order.")
    elif weak:
        said.insert(0, "Every translator is weak: the numbers show how the method works, not what the models ignore, and rank nothing.")
    pairs, orders = pairs[pairs["space"] == space], orders[(orders["space"] == space) & ~orders["marks"].str.contains(WEAK)]
    own = own[(own["space"] == space) & own["model"].isin([row["model"] for row in rows])]
    if ranked and any(row["verdict"] in (MEANING, SOME) for row in ranked):
        said.append(_headline(ranked, pairs, own[own["model"].isin([row["model"] for row in ranked])]))
    if len(ranked) > 1:
        said += [
            _most_and_least(ranked, pairs, "as_abs", "How far an image moves toward or away from its own label (|AS|)"),
            _most_and_least(ranked, pairs, "is", "How far its whole meaning turns (IS)"),
        ]
    else:
        said += [
            f"In {_named(row)}, removing what no logit sees moves an image by {_range(row, 'as_abs')} toward or away from its "
            f"own label (|AS|), and turns its meaning by {_range(row, 'is')} (IS)."
            for row in ranked
        ]
    said.append(_against_chance(own))
    if len(ranked) > 1:
        said.append(
            "Order of the models, best first: much may turn, but little about the class (≈: neighbours that cannot be told apart). "
            "By IS/|AS|, the ratio of the paper's figure 3 as we read it: "
            f"{_order(orders, pairs, PAPER)}. By that ratio over the one of random subspaces: "
            f"{_order(orders, pairs, 'is_per_as_over_control')}."
        )
    chart = agreement[(agreement["space_a"] == space) & (agreement["space_b"] == CHART)]
    said += [f"{beside_chart(row)}." for row in chart.to_dict("records")]
    return said + ([_substantial(rows, limits)] if limits else [])


def _substantial(rows: list[dict[Any, Any]], limits: dict[str, float]) -> str:
    """The authors' word, beside the floor."""
    strong = [row for row in rows if row["is_mean"] > limits["is_deg"] or row["as_abs_mean"] > limits["as_abs_deg"]]
    quoted = f'what the paper\'s authors call "substantial" (IS above {limits["is_deg"]:g}° or |AS| above {limits["as_abs_deg"]:g}°)'
    floors = _joined(f"{row['floor_is_mean']:.2f}° in {_named(row)}" for row in strong or rows)
    who = f"{_joined(map(_named, strong))} exceed{'s' * (len(strong) == 1)}" if strong else "no model reaches"
    return f"On average {who} {quoted}; the floor of IS is {floors}."


def _evidence(rows: list[dict[Any, Any]]) -> str:
    """What is more than null spaces without content would show."""
    said = []
    for verdict_of, words in (
        (MEANING, "{} hold{} meaning beyond what the principal space tells"),
        (SOME, "in {} there {} some sign of meaning in the null space"),
        (NONE, "in {} there {} no sign of meaning in the null space"),
        (UNJUDGED, "images are scored in sample, so no floor can be trusted and nothing {1} said of {0}"),
    ):
        found = [row for row in rows if row["verdict"] == verdict_of]
        if found:
            names = _joined(f"{_named(row)} ({_scores(row)})" if len(rows) <= MOST else _named(row) for row in found)
            verb = {MEANING: "s" * (len(found) == 1)}.get(verdict_of, "is")
            said.append(words.format(names, verb))
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def _scores(row: dict[Any, Any]) -> str:
    return (
        f"conditional IS {row['conditional_is_mean']:.2f}°, floor {row['floor_conditional_is_mean']:.2f}°; Delta R² {row['delta_r2']:+.3f}"
    )


def _named(row: dict[Any, Any]) -> str:
    return marked(row["model"], row["marks"])


def _most_and_least(rows: list[dict[Any, Any]], pairs: pd.DataFrame, score: str, what: str) -> str:
    ordered = sorted(rows, key=lambda row: -row[f"{score}_mean"])
    most, least = ordered[0], ordered[-1]
    differ = _pair(pairs, score, most["model"], least["model"])
    if not differ["differ"]:
        values = f"{_range(most, score)} in {_named(most)}, {_range(least, score)} in {_named(least)}, p = {differ['p_holm']:.2g}"
        return f"{what} does not differ beyond chance between the models: {values}."
    ends = [f"{_named(row)}{_unsure(row, rows, pairs, score)}, {_range(row, score)}" for row in (most, least)]
    return f"{what}: most in {ends[0]}, least in {ends[1]} (p = {differ['p_holm']:.2g})."


def _pair(pairs: pd.DataFrame, criterion: str, first: str, second: str) -> dict[Any, Any]:
    both = [first, second]
    (row,) = pairs[(pairs["criterion"] == criterion) & pairs["model_a"].isin(both) & pairs["model_b"].isin(both)].to_dict("records")
    return row


def _unsure(one: dict[Any, Any], rows: list[dict[Any, Any]], pairs: pd.DataFrame, score: str) -> str:
    """The models that do not differ from one beyond chance, in parentheses."""
    alike = [_named(row) for row in rows if row is not one and not _pair(pairs, score, one["model"], row["model"])["differ"]]
    return f" (not told apart from {_joined(alike) if len(alike) <= MOST else f'{len(alike)} others'})" if alike else ""


def _beside_random(own: pd.DataFrame, score: str) -> tuple[list[str], list[str], list[str]]:
    """Models whose null space holds more than random subspaces of its size do, less, and neither beyond chance."""
    low, high = own[f"{score}_excess_random_low"], own[f"{score}_excess_random_high"]
    names = pd.Series([_named(row) for row in own.to_dict("records")], own.index, dtype=str)
    return list(names[low > 0]), list(names[high < 0]), list(names[(low <= 0) & (high >= 0)])


def _headline(rows: list[dict[Any, Any]], pairs: pd.DataFrame, own: pd.DataFrame) -> str:
    """What a reader takes home; rows: most about the class first."""
    more, less, _ = _beside_random(own, "as_abs_deg")
    if len(rows) == 1:
        control = "more than" if more else "less than" if less else "no more and no less, beyond chance, than"
        return f"The null space of {_named(rows[0])} holds {control} a random subspace of its size does about an image's class."
    most, least = (f"{_named(row)}{_unsure(row, rows, pairs, 'as_abs')}" for row in (rows[0], rows[-1]))
    text = f"The null space of {most} holds most about an image's class, that of {least} least"
    if not _pair(pairs, "as_abs", rows[0]["model"], rows[-1]["model"])["differ"]:
        text = "By what they hold about an image's class, the models' null spaces cannot be told apart"
    if more:
        return f"{text}; more than a random subspace of its size would hold: {_joined(more)}."
    return f"{text}; {'each holds less than' if len(less) == len(rows) else 'none holds more than'} a random subspace of its size."


def _against_chance(own: pd.DataFrame) -> str:
    """Null spaces beside random subspaces of their size, in degrees."""
    said = []
    for score, name in (("as_abs_deg", "|AS|"), ("is_deg", "IS")):
        random = own[f"{score}_random"]
        span = f"{random.min():.2f}°" if len(own) == 1 else f"{random.min():.2f}° to {random.max():.2f}°"
        held = zip(("more", "less", "no more and no less beyond chance"), _beside_random(own, score), strict=True)
        parts = [f"{amount} in {'every model' if len(own) == len(names) > 1 else _joined(names)}" for amount, names in held if names]
        said.append(f"{name} {span} (the null space gives {', '.join(parts)})")
    return f"Is that much? Removing random subspaces of the same size gives {' and '.join(said)}."


def _order(orders: pd.DataFrame, pairs: pd.DataFrame, criterion: str) -> str:
    placed = orders[orders["criterion"] == criterion].sort_values("place").to_dict("records")
    names = [row["model"] for row in placed]
    signs = [" > " if _pair(pairs, criterion, *both)["differ"] else " ≈ " for both in pairwise(names)]
    hidden = " > " not in signs and _pair(pairs, criterion, names[0], names[-1])["differ"]
    listed = chain.from_iterable(zip_longest(map(_named, placed), signs, fillvalue=""))
    return "".join(listed) + (" (yet first and last differ)" if hidden else "")


def warnings(models: pd.DataFrame, spaces: dict[str, str], min_r2: float) -> list[str]:
    """What must be known before a number is believed.

    Parameters
    ----------
    models : DataFrame
        tables/models.csv.
    spaces : dict of str
        Source of the registry entry, by name of the space.
    min_r2 : float
        R² of held-out images below which a translator is weak, for the message.

    Returns
    -------
    list of str
        Empty when nothing is to be said.
    """
    said = []
    if (models["weights"] == "random").any():
        said.append("These models are untrained (random weights): the numbers show that the workflow runs, and nothing else.")
    if differences := rank_differences(models):
        said.append(differences)
    marks = {each: models[models["marks"].str.split(", ").map(lambda mine, each=each: each in mine)] for each in MARKS}
    carried = {
        each: "; ".join(f"{_joined(mine['model'])} in {space}" for space, mine in rows.groupby("space", sort=False))
        for each, rows in marks.items()
        if len(rows)
    }
    if WEAK in carried:
        said.append(
            f"{MARKS[WEAK]} Weak translators: {carried[WEAK]} explain less than {min_r2:g} of the held-out images (R²). These scores show "
            "how the method works, not what the models ignore. Give the study more images before you believe a ranking."
        )
    if ZERO in carried:
        said.append(
            f"{MARKS[ZERO]} Known zeros: {carried[ZERO]}. The space is a function of the model's own logits, so its null space can hide "
            "nothing there. It is the negative control and stands in no order and no pair."
        )
    if LEAK in carried:
        said.append(
            f"{MARKS[LEAK]} Known leaks: {carried[LEAK]}. Such a head keeps some of its classes, so its null space holds what tells the "
            "others apart. It is the positive control and stands in no order and no pair."
        )
    if EDGE in carried:
        said.append(f"{MARKS[EDGE]} The best penalty of {carried[EDGE]} is at the edge of translator.lambdas: a better one may lie beyond.")
    if SEEN in carried:
        said.append(f"{MARKS[SEEN]} In sample, as in the paper: the translator of {carried[SEEN]} has seen the images that it translates.")
    stand_ins = [name for name, source in spaces.items() if source == "conse"]
    if stand_ins:
        said.append(
            f"{_joined(stand_ins)} is a stand-in for CLIP that needs no download: it knows an image by one classifier's guesses at its "
            "class. Trust differences between models, not single degrees."
        )
    low = models[models["top1_low"]].drop_duplicates("model")
    if len(low):
        said.append(
            f"Top-1 far below what is reported: {_joined(low['model'])}. "
            "Most often the evaluation transform or the order of the classes is wrong."
        )
    return said


def what_leaks(models: pd.DataFrame, labels: pd.DataFrame, concepts: pd.DataFrame, space: str) -> list[dict[str, Any]]:
    """One row a model, largest |AS| first: scores, floor, Delta R², labels above their own floor (of three images, if any) and concepts.

    Parameters
    ----------
    models, labels, concepts : DataFrame
        The tables of these names.
    space : str
        The space.

    Returns
    -------
    list of dict
        Texts for the page; no labels and concepts for a model without a null space.
    """
    found = []
    for row in models[models["space"] == space].sort_values("as_abs_mean", ascending=False, kind="stable").to_dict("records"):
        mine = labels[(labels["space"] == space) & (labels["model"] == row["model"])]
        several = mine[mine["n"] >= 3] if (mine["n"] >= 3).any() else mine
        above = several.assign(excess=several["is_deg_mean"] - several["floor_is_deg_mean"])
        top = above[above["leaks"].astype(bool)].sort_values(["excess", "label"], ascending=[False, True]).head(3)
        near = concepts[(concepts["space"] == space) & (concepts["model"] == row["model"]) & (concepts["kind"] == "strongest")]
        common = near.groupby("concept")["n"].sum().sort_index().sort_values(ascending=False, kind="stable").index[:3]
        blind = row["null_dim"] == 0
        found.append(
            {
                "model": row["model"],
                "marks": row["marks"],
                "is": f"{row['is_mean']:.2f}°",
                "is_interval": f"{row['is_low']:.2f} to {row['is_high']:.2f}",
                "ratio": "" if pd.isna(row["is_per_control"]) else f"{row['is_per_control']:.2f}",
                "as_abs": f"{row['as_abs_mean']:.2f}°",
                "as_abs_interval": f"{row['as_abs_low']:.2f} to {row['as_abs_high']:.2f}",
                "labels": [f"{each.label} ({each.is_deg_mean:.1f}°, floor {each.floor_is_deg_mean:.1f}°)" for each in top.itertuples()],
                "concepts": [] if blind else list(common),
                "floor": f"{row['floor_is_mean']:.2f}°",
                "conditional_is": f"{row['conditional_is_mean']:.2f}°",
                "conditional_floor": f"floor {row['floor_conditional_is_mean']:.2f}°",
                "delta_r2": f"{row['delta_r2']:+.3f}",
                "delta_r2_interval": "" if pd.isna(row["delta_r2_low"]) else f"{row['delta_r2_low']:+.3f} to {row['delta_r2_high']:+.3f}",
                "verdict": row["verdict"],
                "note": NO_NULL_SPACE if blind else "",
            }
        )
    return found

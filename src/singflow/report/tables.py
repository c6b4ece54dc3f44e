"""Tables of the page that holds a study: their columns and what these mean."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MOST_ROWS = 5_000  # rows of a table that a page holds

COLUMNS = {  # column of a table -> (header, explanation)
    "model": ("model", "classifier"),
    "space": ("space", "vision-language space that features are translated into"),
    "label": ("label", "class or group that the images are filed under"),
    "n": ("images", "images behind the numbers"),
    "n_images": ("images", "images behind the numbers"),
    "null_dim": ("null dimensions", "directions of the feature that no logit sees"),
    "paper_null_dim": ("paper null dimensions", "the paper's"),
    "top1": ("top-1", "share of labelled images that the classifier names rightly"),
    "reported_top1": ("reported top-1 (%)", "published accuracy on ImageNet's validation set"),
    "translator": ("translator", "weak: explains too little of the held-out images to be trusted"),
    "marks": (
        "marks",
        "weak translator: explains too little of the held-out images to be trusted; known zero: in this space nothing can be hidden; "
        "known leak: what tells some classes apart was hidden on purpose; "
        "penalty at the edge: a better one may lie beyond those tried; in sample: the translator has seen the images, as in the paper",
    ),
    "validation_r2": ("translator R²", "share of the held-out variation that the translator explains"),
    "zero_shot": ("zero-shot", "share of images whose translated feature is nearest to the text of their own label"),
    "zero_shot_equivalent": ("zero-shot without null", "the same without the null component"),
    "zero_shot_space": ("zero-shot of the space", "the same of the images' own embeddings, without any translator"),
    "null_energy_mean": ("null energy", "mean share of the feature's squared length that no logit sees"),
    "null_energy_auc": (
        "AUC of null energy",
        "as a detector of unusual images (no class of the head, or null_energy in params.yaml): share of pairs in which the unusual one "
        "has more; 0.5: it tells nothing",
    ),
    "is_mean": ("IS (°)", "image score: how far meaning turns when the null component is removed"),
    "is_low": ("IS low", "lower end of the interval"),
    "is_high": ("IS high", "upper end of the interval"),
    "verdict": ("verdict", "what floor and Delta R² together say"),
    "floor_is_mean": ("floor (°)", "IS of null components that carry nothing beyond the principal one"),
    "p_is": ("p", "how often such components turn images as far as the real ones, or farther"),
    "conditional_is_mean": ("conditional IS (°)", "IS when the null component is replaced by its prediction from the principal one"),
    "floor_conditional_is_mean": ("its floor (°)", "conditional IS of null components that carry nothing"),
    "p_conditional_is": ("its p", "how often such components turn images as far, or farther"),
    "delta_r2": ("Delta R²", "what the null space adds to the share that the principal space explains"),
    "delta_r2_low": ("Delta R² low", "lower end of the interval"),
    "delta_r2_high": ("Delta R² high", "upper end of the interval"),
    "directions_90": ("for 90 %", "fewest null directions that, made visible, give 90 % of Delta R²"),
    "as_contrast_mean": ("contrast AS (°)", "AS toward the own label less the mean AS toward all others"),
    "matched_is_mean": (
        "matched IS (°)",
        "IS when random subspaces lose as much of every feature as the null component is long",
    ),
    "is_per_matched": ("IS/matched", "below 1: less meaning than a part of the feature of that length holds elsewhere"),
    "as_mean": ("AS (°)", "attribute score: how much nearer that brings an image to its own label"),
    "as_abs_mean": ("|AS| (°)", "size of the attribute score, whatever its sign"),
    "is_per_as": ("IS/|AS|", "the ratio of the paper's figure 3, as we read it"),
    "control_is_mean": ("random IS (°)", "IS when random subspaces of the same size are removed"),
    "is_per_control": ("IS/random", "below 1: less meaning than the size of the null space alone would hold"),
    "note": ("note", "what else to know"),
    "is_deg_mean": ("IS (°)", "mean image score"),
    "as_deg_mean": ("AS (°)", "mean attribute score toward the label"),
    "as_abs_deg_mean": ("|AS| (°)", "mean size of the attribute score"),
    "floor_is_deg_mean": ("floor (°)", "mean IS of the label's images with null components that carry nothing"),
    "leak_q": ("q", "false discovery rate of: IS above the label's own floor"),
    "leaks": ("leaks", "IS is above the label's own floor, beyond chance"),
    "concept": ("concept", "phrase of the vocabulary"),
    "kind": ("kind", "strongest or weakest concept of the label; or the translator's architecture"),
    "place": ("place", "1 is first"),
    "angle_mean_deg": ("angle (°)", "mean angle between images and concept; smaller is nearer"),
    "as_mean_deg": ("AS (°)", "mean attribute score toward the concept"),
    "as_abs_mean_deg": ("|AS| (°)", "mean size of the attribute score toward the concept"),
    "contrast_deg": ("contrast (°)", "AS toward the concept less the mean AS toward all concepts of the vocabulary"),
    "contrast_deg_low": ("contrast low", "lower end of the interval, which holds for all concepts and labels together"),
    "contrast_deg_high": ("contrast high", "upper end of that interval"),
    "lift_deg": ("nearer by (°)", "how much nearer the label's images are to the concept than the average label's"),
    "criterion": ("criterion", "by which models are compared"),
    "model_a": ("model A", "first of the two"),
    "model_b": ("model B", "second of the two"),
    "difference": ("A − B", "difference by the criterion"),
    "low": ("low", "lower end of the interval"),
    "high": ("high", "upper end of the interval"),
    "p_holm": ("p (Holm)", "p-value corrected for the number of comparisons"),
    "differ": ("differ", "the difference is beyond chance"),
    "value": ("value", "the model's value by the criterion"),
    "stable_over_lambdas": ("stable", "share of the penalties that are as good as the best with which the order stays"),
    "n_labels": ("labels", "labels that are ranked"),
    "spearman": ("Spearman", "rank correlation of the labels' mean |AS|"),
    "ceiling": (
        "ceiling",
        "what the correlation would be if both models leaked alike, by the agreement of halves of each label's images; empty where a "
        "label has a single image",
    ),
    "prompt": ("prompt", "text that features are steered toward"),
    "target_is_deg": ("IS wanted (°)", "image score that the step is calibrated to"),
    "n_reachable": ("reached", "images that can be steered so far"),
    "as_target_mean_deg": ("AS to prompt (°)", "how much nearer the prompt; mean"),
    "as_target_std_deg": ("± (°)", "standard deviation over images"),
    "logit_change_max": ("largest logit change", "norm; should be about zero"),
    "paper_as": ("paper AS (°)", "the paper's Table 1"),
    "loss": ("loss", "training loss"),
    "validation_cosine": ("cosine", "held-out cosine similarity"),
    "validation_mse": ("MSE", "held-out mean squared error"),
    "paper_cosine": ("paper cosine", "the paper's Table 2"),
    "paper_mse": ("paper MSE", "the paper's Table 2"),
    "perturbation": ("perturbation", "of equal norm: in the null space, random, or against the predicted class"),
    "logit_change_mean": ("logit change", "mean norm of the logits' change"),
    "top1_changed_share": ("flips", "share of predictions that change"),
    "classifier": ("classifier", "linear classifier that reads the labels"),
    "accuracy_principal": ("before", "probe's accuracy on the features that the logits see"),
    "accuracy_translated": ("after", "the same after translation"),
    "chance": ("chance", "accuracy of always guessing the commonest label"),
    "text": ("toward", "text that the image is steered toward"),
    "is_deg": ("IS (°)", "image score"),
    "as_text_deg": ("AS to text (°)", "how much nearer the text"),
    "as_label_deg": ("AS to label (°)", "how much nearer its own label"),
    "logit_change": ("logit change", "norm of the logits' change"),
    "dimension": ("dimensions", "directions removed"),
    "is_deg_null": ("null IS (°)", "IS when that many null directions are removed"),
    "is_deg_random": ("random IS (°)", "IS when random subspaces of that size are removed"),
    "is_deg_excess_random": ("excess (°)", "null less random"),
    "is_deg_excess_random_low": ("low", "lower end of the interval"),
    "is_deg_excess_random_high": ("high", "upper end of the interval"),
    "path": ("file", "path below the data root"),
    "reason": ("reason", "why it was left out"),
    "files": ("files", "files left out for this reason"),
    "step": ("step", "rule of the workflow"),
    "jobs": ("jobs", "runs of the rule"),
    "seconds": ("seconds", "all jobs together"),
    "longest": ("longest (s)", "the longest job"),
    "peak_mb": ("peak memory (MB)", "largest resident set of a job"),
}


@dataclass(frozen=True)
class Table:
    """A table of the page: rows of plain values, of `total` in the file, under headers (title, explanation)."""

    name: str
    caption: str
    headers: list[tuple[str, str]]
    rows: list[list[Any]]
    total: int


def table(name: str, caption: str, frame: pd.DataFrame, columns: Iterable[str]) -> Table:
    """A table of the page; floats with four significant digits, missing values empty.

    Of more than MOST_ROWS rows the first are kept, as many of every model; where rows have a place, those of the first places.

    Parameters
    ----------
    name : str
        Name in the page.
    caption : str
        Title.
    frame : DataFrame
        Rows of the table.
    columns : iterable of str
        Columns shown, in this order, of those that the frame has.

    Returns
    -------
    Table
        Its total counts all rows of the frame.
    """
    kept = frame if len(frame) <= MOST_ROWS else _first_rows(frame.reset_index(drop=True))
    shown = [column for column in columns if column in frame]
    rows = [[_plain(value) for value in row] for row in kept[shown].itertuples(index=False, name=None)]
    return Table(name, caption, [COLUMNS.get(column, (column.replace("_", " "), "")) for column in shown], rows, len(frame))


def _first_rows(frame: pd.DataFrame) -> pd.DataFrame:
    first = frame.sort_values("place", kind="stable") if "place" in frame else frame
    series = [column for column in ("space", "model") if column in frame]
    if series:
        groups = first.groupby(series, sort=False)
        first = groups.head(max(1, MOST_ROWS // groups.ngroups))
    return first.head(MOST_ROWS).sort_index()


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}")
    return value.item() if isinstance(value, np.generic) else value

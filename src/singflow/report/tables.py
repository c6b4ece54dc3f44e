"""Tables on the page of a study, and the explanations of their columns."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MOST_ROWS = 5_000  # limit on the rows of a table
# Further digits of D are rounding errors.
DECIMALS = dict.fromkeys(
    ["unique_r2", "unique_r2_low", "unique_r2_high", "blind_unique_r2", "difference"], 5
)

COLUMNS = {  # column of a table -> (header, explanation)
    "model": ("model", "classifier"),
    "space": ("space", "vision-language space that features are translated into"),
    "label": ("label", "class or group that the images are filed under"),
    "marks": (
        "marks",
        "weak translator: explains too little of the held-out images to be trusted; known zero: "
        "the null space can hide nothing in this space; known leak: the null space hides "
        "what tells some classes apart; penalty at the edge: a better one may lie beyond those "
        "tried; in sample: the translator has seen the images, as in the paper",
    ),
    "verdict": ("verdict", "what the test of D says"),
    "n": ("images", "images behind the numbers"),
    "n_images": ("images", "images of the study"),
    "n_evidence": (
        "images of the test",
        "images of the study and of its reference, which the test of D uses",
    ),
    "n_per_dim": (
        "images per dimension",
        "images of the test for each dimension of the feature; below 1 only large leaks are found",
    ),
    "null_dim": ("null dimensions", "directions of the feature that no logit sees"),
    "paper_null_dim": ("paper null dimensions", "the paper's"),
    "top1": ("top-1", "share of labelled images whose class the classifier predicts"),
    "reported_top1": ("reported top-1 (%)", "published accuracy on ImageNet's validation set"),
    "validation_r2": ("R²", "share of the held-out variation that the translator explains"),
    "r2_words": (
        "R² of words",
        "share of the variation that the texts of the model's own predicted classes explain",
    ),
    "is_mean": ("IS (°)", "image score: how far meaning turns when the null component is removed"),
    "is_low": ("IS low", "lower end of the interval"),
    "is_high": ("IS high", "upper end of the interval"),
    "floor_is_mean": ("floor (°)", "IS of null components that tell nothing"),
    "unique_r2": (
        "D",
        "share of the variation of meaning that the null space tells and the logits do not",
    ),
    "unique_r2_low": ("D low", "lower end of the interval"),
    "unique_r2_high": ("D high", "upper end of the interval"),
    "margin": ("margin", "D up to here is not called meaning"),
    "p_holm": ("p (Holm)", "p-value corrected for the number of comparisons"),
    "turn_deg": ("turn (°)", "D as an angle, to compare with IS"),
    "detectable": (
        "detectable",
        "smallest planted leak that this study finds; empty: not even 10 %",
    ),
    "blind_unique_r2": (
        "blind check",
        "D where nothing can be found: the target is the model's own words in another spelling",
    ),
    "conditional_is_mean": (
        "conditional IS (°)",
        "IS when the null component is replaced by its prediction from the principal one",
    ),
    "as_mean": (
        "AS (°)",
        "attribute score: how much nearer null removal brings an image to its own label",
    ),
    "as_contrast_mean": (
        "contrast AS (°)",
        "AS toward the own label minus the mean AS toward all others",
    ),
    "as_abs_mean": ("|AS| (°)", "size of the attribute score, whatever its sign"),
    "is_per_as": ("IS/|AS|", "the ratio of the paper's figure 3, as we read it"),
    "control_is_mean": ("random IS (°)", "IS when random subspaces of the same size are removed"),
    "is_per_control": (
        "IS/random",
        "below 1: less than the size of the null space alone would give",
    ),
    "matched_is_mean": (
        "matched IS (°)",
        "IS when random subspaces lose as much of every feature as the null component is long",
    ),
    "is_per_matched": (
        "IS/matched",
        "below 1: less than a part of the feature of that length gives elsewhere",
    ),
    "zero_shot": (
        "zero-shot",
        "share of images whose translated feature is nearest to the text of their own label",
    ),
    "zero_shot_equivalent": ("zero-shot without null", "the same without the null component"),
    "zero_shot_space": (
        "zero-shot of the space",
        "the same for the images' own embeddings, without any translator",
    ),
    "null_energy_mean": (
        "null energy",
        "mean share of the feature's squared length that no logit sees",
    ),
    "null_energy_auc": (
        "AUC of null energy",
        "as a detector of unusual images (no class of the head, or null_energy in params.yaml): "
        "share of pairs in which the unusual one has more; 0.5: it tells nothing",
    ),
    "note": ("note", "what else to know"),
    "directions_90": (
        "for 90 %",
        "fewest null directions that give 90 % of D when they are made visible",
    ),
    "is_deg_mean": ("IS (°)", "mean image score"),
    "as_deg_mean": ("AS (°)", "mean attribute score toward the label"),
    "as_abs_deg_mean": ("|AS| (°)", "mean size of the attribute score"),
    "floor_is_deg_mean": (
        "floor (°)",
        "mean IS of the label's images with null components that tell nothing",
    ),
    "concept": ("concept", "phrase of the vocabulary"),
    "kind": ("kind", "strongest or weakest concept of the label; or the translator's architecture"),
    "place": ("place", "1 is first"),
    "angle_mean_deg": ("angle (°)", "mean angle between images and concept; smaller is nearer"),
    "as_mean_deg": ("AS (°)", "mean attribute score, toward the concept or the label"),
    "contrast_deg": (
        "contrast (°)",
        "AS toward the concept minus the mean AS toward all concepts of the vocabulary",
    ),
    "contrast_deg_low": (
        "contrast low",
        "lower end of the interval, which holds for all concepts and labels together",
    ),
    "contrast_deg_high": ("contrast high", "upper end of that interval"),
    "lift_deg": (
        "nearer by (°)",
        "how much nearer the label's images are to the concept than the average label's images",
    ),
    "model_a": ("model A", "first of the two"),
    "model_b": ("model B", "second of the two"),
    "difference": ("A − B", "difference of D"),
    "value": ("IS/|AS|", "the ratio of the paper's figure 3, as we read it"),
    "low": ("low", "lower end of the interval"),
    "high": ("high", "upper end of the interval"),
    "differ": ("differ", "the difference is beyond chance"),
    "n_labels": ("labels", "labels that are ranked"),
    "spearman": ("Spearman", "rank correlation of the labels' mean |AS|"),
    "ceiling": (
        "ceiling",
        "what the correlation would be if both models leaked alike, by the agreement of halves of "
        "each label's images; empty where a label has a single image",
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
    "perturbation": (
        "perturbation",
        "of equal norm: in the null space, random, or against the predicted class",
    ),
    "logit_change_mean": ("logit change", "mean norm of the logits' change"),
    "top1_changed_share": ("flips", "share of predictions that change"),
    "classifier": ("classifier", "linear classifier that reads the labels"),
    "accuracy_principal": ("before", "probe's accuracy on the features that the logits see"),
    "accuracy_translated": ("after", "the same after translation"),
    "chance": ("chance", "accuracy of always guessing the commonest label"),
    "text": ("toward", "text that the image is moved toward"),
    "as_deg": ("AS (°)", "attribute score, toward the text"),
    "is_deg": ("IS (°)", "image score"),
    "as_text_deg": ("AS to text (°)", "how much nearer the text"),
    "as_label_deg": ("AS to label (°)", "how much nearer its own label"),
    "logit_change": ("logit change", "norm of the logits' change"),
    "dimension": ("dimensions", "directions removed"),
    "is_deg_null": ("null IS (°)", "IS when that many null directions are removed"),
    "is_deg_random": ("random IS (°)", "IS when random subspaces of that size are removed"),
    "is_deg_excess_random": ("excess (°)", "null minus random"),
    "is_deg_excess_random_low": ("low", "lower end of the interval"),
    "is_deg_excess_random_high": ("high", "upper end of the interval"),
    "point": ("point", "a share of the head's directions, or a rank rule"),
    "kept": ("kept", "share of the leading directions that are kept"),
    "removed_dim": ("dimensions removed", "directions removed"),
    "top1_changed": ("flips", "share of predictions that change"),
    "is_mean_deg": ("IS (°)", "mean image score"),
    "as_abs_mean_deg": ("|AS| (°)", "mean size of the attribute score"),
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
    """A table of the page.

    own: title and explanation of columns that no other table has. total: number of rows in the
    file.
    """

    name: str
    caption: str
    columns: list[str]
    own: dict[str, tuple[str, str]]
    rows: list[list[Any]]
    total: int

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Title and explanation of every column."""
        known = COLUMNS | self.own
        return [known.get(column, (column.replace("_", " "), "")) for column in self.columns]


def table(
    name: str,
    caption: str,
    frame: pd.DataFrame,
    columns: Iterable[str],
    own: dict[str, tuple[str, str]] | None = None,
) -> Table:
    """A table of the page, without empty columns, and with at most MOST_ROWS rows.

    The first rows of every model and space are kept, by the column `place` if there is one.
    """
    kept = frame if len(frame) <= MOST_ROWS else _first_rows(frame.reset_index(drop=True))
    kept = kept.round(DECIMALS)
    shown = [
        column
        for column in columns
        if column in frame and (frame[column].notna() & (frame[column] != "")).any()
    ]
    rows = [
        [_plain(value) for value in row] for row in kept[shown].itertuples(index=False, name=None)
    ]
    return Table(name, caption, shown, own or {}, rows if shown else [], len(frame))


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

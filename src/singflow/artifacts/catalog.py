"""The one table of artifacts.

It says where each file of results/<study>/ lies, what it holds, and how it is compared, fetched and
made.

The digests of the steps' code leave this module out, so a new entry makes no finished step stale.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any, Literal

Tier = Literal["metrics", "translators", "features"]
TIERS: tuple[Tier, ...] = ("metrics", "translators", "features")  # each holds those before it
WILDCARDS = {"model": ".+", "space": "[^/]+", "kind": "[^/]+", "shard": r"\d+"}
KINDS = {"i": "integers", "f": "floats", "b": "truth values", "O": "texts"}  # NumPy's letters


@dataclass(frozen=True)
class Artifact:
    """A file, or one file for each model, space, kind of translator or shard that its path names.

    columns: kind (a key of KINDS) of the columns that readers rely on. tensors: kind and number of
    dimensions. within: tolerance of its numbers between machines, relative to the number itself
    ("itself"), to the norm of a row ("row") or to the root mean square of the tensor ("tensor");
    None: the general tolerances. tier: the smallest tier of `singflow fetch` that brings it. group:
    jobs of one group share a job on Slurm; "local": the step runs beside Snakemake; "": a job of
    its own.
    """

    path: str
    about: str
    columns: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, tuple[str, int]] = field(default_factory=dict)
    within: tuple[str, float] | None = None
    tier: Tier = "translators"
    group: str = "model"

    @property
    def wildcards(self) -> list[str]:
        """What the path names: model, space, kind, shard."""
        return [name for _, name, _, _ in Formatter().parse(self.path) if name]

    def at(self, results: Path, /, **names: Any) -> Path:
        """The file below a results folder."""
        return results / self.path.format(**names)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        wildcards = {name: f"(?P<{name}>{pattern})" for name, pattern in WILDCARDS.items()}
        return re.compile(self.path.replace(".", r"\.").format(**wildcards))

    def names_in(self, path: str) -> dict[str, str] | None:
        """Model, space and so on in a path below the results; None if it is not this artifact."""
        found = self._pattern.fullmatch(path)
        return found and found.groupdict()

    def among(self, results: Path) -> Iterator[tuple[Path, dict[str, str]]]:
        """The files of this artifact below a results folder, with the names in their paths."""
        for path in sorted(results.glob(f"{self.path.split('/')[0]}/**/*")):
            names = self.names_in(path.relative_to(results).as_posix())
            if names is not None:
                yield path, names


def _of(**kinds: str) -> dict[str, str]:
    """Kind of each column."""
    return {name: kind for kind, names in kinds.items() for name in names.split()}


ROWS = ("i", 1)
VECTOR, MATRIX = ("f", 1), ("f", 2)
EXACT = ("itself", 0.0)

CATALOG: dict[str, Artifact] = {  # in the order of the pipeline, in which trees are compared
    "params": Artifact(
        "params.yaml",
        "The complete study as it ran: `params.yaml` of the checkout with every value that was"
        " laid over it.",
        group="local",
    ),
    "model_entry": Artifact(
        "registry/models/{model}.json",
        "The registry entry with its defaults filled in, the class names and their number, and the"
        " hashes of local files.",
        within=EXACT,
        group="local",
    ),
    "space_entry": Artifact(
        "registry/spaces/{space}.json",
        "The registry entry with its defaults filled in, and the hashes of local files.",
        within=EXACT,
        group="local",
    ),
    "manifest": Artifact(
        "data/manifest.parquet",
        "One row an image: image_id int64 (0..n-1), path (relative to the data root), label,"
        " class_index int32 (-1: not a class of the heads), prompt, split (train, validation),"
        " fold int32 (0..K-1; fold 0 is validation where the data have no split), width and height"
        " int32 (upright), sha256. With `data.source: archive` also archive (path below the data"
        " root), offset int64 (first byte of the image in a tar; its row in a Parquet file) and"
        " bytes int64 (its size).",
        columns=_of(i="image_id class_index fold width height", O="path label prompt split sha256"),
        within=EXACT,
        group="data",
    ),
    "rejected": Artifact(
        "data/rejected.csv",
        "path and reason of every file that was left out, because it is unusable or was not drawn;"
        " accepted + rejected = found.",
        within=EXACT,
        group="data",
    ),
    "head": Artifact(
        "features/{model}/head.safetensors",
        "weight (C, d) and bias (C,) float32. Metadata: class_names (JSON; null: the classes of"
        " data.classes), weight_dtype (bfloat16, float16 or float32: the coarsest precision that"
        " holds every weight, so the one of the checkpoint).",
        tensors={"weight": MATRIX, "bias": VECTOR},
        within=("row", 1e-6),  # copied; random weights come from the kernels of the processor
    ),
    "features": Artifact(
        "features/{model}/shard-{shard}.safetensors",
        "features (n, d) float32, image_id (n,) int64, view (n,) int32. Metadata: decode,"
        " precision, head_max_error, top1, top1_images, features (JSON: norm_mean, norm_min,"
        " norm_max, zero_share, non_finite).",
        tensors={"features": MATRIX, "image_id": ROWS, "view": ROWS},
        within=("row", 1e-4),  # float32 sums of a network
        tier="features",
        group="",
    ),
    "embeddings": Artifact(
        "embeddings/{space}/shard-{shard}.safetensors",
        "embeddings (n, m) float32 (not normalized), image_id, view: the same rows as the"
        " features, in the same order. Metadata: decode, precision, embeddings (JSON, as for"
        " features).",
        tensors={"embeddings": MATRIX, "image_id": ROWS, "view": ROWS},
        within=("row", 1e-4),
        tier="features",
        group="",
    ),
    "texts": Artifact(
        "prompts/{space}.safetensors",
        "label_embeddings (L, m), concept_embeddings (P, m), and with targets target_embeddings"
        " (T, m): float32 of unit norm. Metadata: the templates.",
        tensors=dict.fromkeys(
            ["label_embeddings", "concept_embeddings", "target_embeddings"], MATRIX
        ),
        within=("row", 1e-4),
        group="data",
    ),
    "names": Artifact(
        "prompts/{space}.json", "The names of these rows: labels, concepts, targets.", group="data"
    ),
    "classes": Artifact(
        "classes/{space}/{model}.safetensors",
        "class_embeddings and other_embeddings (C, m) float32 of unit norm: the texts of the"
        " classes of the head, and the same classes in other words. No rows where the classes have"
        " no names.",
        tensors=dict.fromkeys(["class_embeddings", "other_embeddings"], MATRIX),
        within=("row", 1e-4),
    ),
    "projector": Artifact(
        "projectors/{model}.safetensors",
        "singular_values (min(C, d),) and null_basis (d, k), float64.",
        tensors={"singular_values": VECTOR, "null_basis": MATRIX},
    ),
    "projector_report": Artifact(
        "projectors/{model}.json",
        "rank, null_dim, rule, tolerance (a direction with at most this singular value is null by"
        " the rule), weight_dtype, rank_stored and rank_float64 (rank of W at the precision of the"
        " stored weights and at float64, whatever the rule), orthonormality_error,"
        " max_logit_change (largest norm of the change of the logits over the features).",
    ),
    "translator": Artifact(
        "translators/{space}/{model}/linear.safetensors",
        "weight (m, d) and bias (m,) float32, fitted on all training images; fold_weight (K, m, d)"
        " and fold_bias (K, m), fitted without the images of the fold (absent with"
        " `translator.folds: 0` and for an imported translator). Metadata: folds, in_sample.",
        tensors={"weight": MATRIX, "bias": VECTOR, "fold_weight": ("f", 3), "fold_bias": MATRIX},
        within=("tensor", 1e-2),  # a linear system of these features
    ),
    "translator_report": Artifact(
        "translators/{space}/{model}/linear.json",
        "lambda (the penalty without unit), lambda_at_edge, lambdas_within_one_error (of the"
        " smallest error), alpha (the penalty that lambda stands for), folds, in_sample;"
        " validation_cosine, validation_mse, validation_r2 (against the mean of the training"
        " images) and n_validation: of every image by the translator that did not see it;"
        " held_out_*: the same of the split validation alone, by which nonlinear translators are"
        " judged; baseline_cosine, n_train (views; 0 and alpha null for an imported translator),"
        " alpha_curve.",
    ),
    "network": Artifact(
        "translators/{space}/{model}/{kind}.safetensors",
        "A nonlinear translator (mlp3, mlp4, residual) as a state dict, float32: feature_mean,"
        " feature_scale, embedding_mean, embedding_scale, body.*, projection.*. Metadata: kind,"
        " loss, width, dropout.",
        tensors={"feature_mean": VECTOR, "embedding_mean": VECTOR},
        within=("tensor", 1e-1),  # training makes rounding larger
        group="",
    ),
    "network_report": Artifact(
        "translators/{space}/{model}/{kind}.json",
        "alpha (null), alpha_curve (empty), validation_cosine, validation_mse, validation_r2,"
        " baseline_cosine, n_train and n_validation (of the split validation), kind, loss (the one"
        " that was kept), parameters, losses (for each loss epochs, best_epoch, validation_cosine,"
        " validation_mse, validation_r2, history).",
        group="",
    ),
    "evidence": Artifact(
        "evidence/{space}/{model}.json",
        "The test of meaning: n (images, those of a reference included), principal_dim, null_dim;"
        " r2 (of the cross-fitted translator), r2_words (share of the variance of the embeddings"
        " that the model's own words explain; null where the classes have no names); unique_r2 (D)"
        " with its interval, unique_r2_without (D without each fold, which gives the interval and"
        " compares models), margin, p (one-sided: D is not above the margin); turn_deg,"
        " turn_low_deg, turn_high_deg: D and its interval in degrees; detectable (the smallest"
        " planted leak that was found, as a share of the variance; null: none), blind_unique_r2 (D"
        " of the model's own words, spelled by other texts); floor_is_deg (mean over images),"
        " floor_is_sd (standard deviation over draws of signs); lambdas (penalties of the"
        " read-outs without_null and with_null); known_zero, known_leak. Numbers of D are null"
        " without a null space and with fewer than two folds.",
    ),
    "planted_leaks": Artifact(
        "evidence/{space}/{model}.parquet",
        "One row for each planted leak: share (of the variance; 0: no leak), draw, unique_r2,"
        " unique_r2_low, p.",
        columns=_of(i="draw", f="share unique_r2 unique_r2_low p"),
    ),
    "own_words": Artifact(
        "evidence/{space}/{model}.safetensors",
        "The model's own words: class_embeddings (C, m) float32, word_weights (5,) and offset (m,)"
        " float64, fitted on all images.",
        tensors={"class_embeddings": MATRIX, "word_weights": VECTOR, "offset": VECTOR},
        within=("tensor", 1e-2),  # least squares on these embeddings
    ),
    "evidence_images": Artifact(
        "evidence_images/{space}/{model}.parquet",
        "One row an image: image_id, floor_is_deg (mean over draws of signs), conditional_is_deg,"
        " conditional_as_deg.",
        columns=_of(i="image_id", f="floor_is_deg conditional_is_deg conditional_as_deg"),
    ),
    "head_extensions": Artifact(
        "head_extensions/{space}/{model}.parquet",
        "One row for each number of null directions that the head receives as further rows:"
        " directions (0: none; the last: as many as the read-out can use, which is the whole null"
        " space), unique_r2 (D with these directions in place of all null coordinates),"
        " unique_r2_low and unique_r2_high (delete-a-fold jackknife, in which the directions are"
        " chosen again; missing with fewer than three folds).",
        columns=_of(i="directions", f="unique_r2 unique_r2_low unique_r2_high"),
    ),
    "controls": Artifact(
        "controls/{space}/{model}.parquet",
        "One row for each image and case: image_id, subspace (null: part of the null space,"
        " random: anywhere, row: part of the row space), dimension, is_deg, as_deg, as_abs_deg"
        " (means over draws), matched_is_deg, matched_as_deg (the removed part has the length of"
        " the null component; at the dimension of the null space alone). No rows without a null"
        " space.",
        columns=_of(
            i="image_id dimension",
            O="subspace",
            f="is_deg as_deg as_abs_deg matched_is_deg matched_as_deg",
        ),
    ),
    "controls_report": Artifact(
        "controls/{space}/{model}.json",
        "seed, tolerance_deg, and for each case: subspace, dimension, draws, is_error_deg"
        " (standard error of the mean IS over draws), is_deg_spread and as_abs_deg_spread"
        " (standard deviations over draws of the means over images), stable.",
    ),
    "scores": Artifact(
        "scores/{space}/{model}.parquet",
        "One row an image, view 0: image_id, label, class_index and predicted_index (rows of this"
        " head), fold (of the translator that scored the image; -1: a translator that was fitted"
        " on other images), is_deg, as_deg, as_contrast_deg (minus the mean AS toward all other"
        " labels; missing with one label), angle_original_deg, angle_equivalent_deg,"
        " conditional_is_deg, conditional_as_deg, null_energy, logit_change, control_* and"
        " matched_* (is_deg, as_deg), floor_is_deg.",
        columns=_of(
            i="image_id class_index predicted_index fold",
            O="label",
            f=(
                "is_deg as_deg as_contrast_deg angle_original_deg angle_equivalent_deg null_energy"
                " logit_change control_is_deg control_as_deg matched_is_deg matched_as_deg"
                " conditional_is_deg conditional_as_deg floor_is_deg"
            ),
        ),
    ),
    "zero_shot": Artifact(
        "zero_shot/{space}/{model}.parquet",
        "One row an image: image_id, label, and the label with the nearest text: translated (to"
        " the translated feature), equivalent (to the translated feature without its null"
        " component), embedding (to the embedding of the image).",
        columns=_of(i="image_id", O="label translated equivalent embedding"),
    ),
    "rank_curves": Artifact(
        "rank_curves/{space}/{model}.parquet",
        "One row a point: point (share, exact, energy, centered), kept, rank, null_dim (dimensions"
        " removed), energy, n, logit_change_mean, logit_change_max, logit_relative_mean,"
        " softmax_change_mean (total variation), top1_changed (share), is_mean_deg, is_std_deg,"
        " as_mean_deg, as_abs_mean_deg.",
        columns=_of(O="point", f="kept", i="rank null_dim"),
    ),
    "null_validation": Artifact(
        "null_validation/{model}.parquet",
        "One row for each image and perturbation (null, random, principal): image_id,"
        " perturbation, norm, logit_change, top1_changed, softmax_change (total variation).",
        columns=_of(
            i="image_id", O="perturbation", f="norm logit_change softmax_change", b="top1_changed"
        ),
    ),
    "concepts": Artifact(
        "concepts/{space}/{model}.parquet",
        "One row for each label and concept: n, angle_mean, angle_std, as_mean, as_std,"
        " as_abs_mean, contrast_std (of AS minus its mean over all concepts; degrees).",
    ),
    "steering": Artifact(
        "steering/{space}/{model}.parquet",
        "One row for each image, prompt and target: image_id, label, prompt, target_is_deg, step,"
        " is_deg, as_target_deg, as_label_deg, logit_change, reachable; an angle out of reach has"
        " no step and no scores.",
        columns=_of(
            i="image_id",
            O="label prompt",
            b="reachable",
            f="target_is_deg step is_deg as_target_deg as_label_deg logit_change",
        ),
    ),
    "probes": Artifact(
        "probes/{space}/{model}.json",
        "classifier, accuracy_principal and accuracy_translated (null and a note where nothing can"
        " be probed) with intervals, n_train, n_test (images), n_test_in_sample (test images that"
        " the translator was fitted on: none unless `translator.folds: 0`), n_labels,"
        " n_labels_left_out (with one image), chance, the penalties.",
    ),
    "neighbours": Artifact(
        "neighbours/{space}/{model}.parquet",
        "One row an image: image_id, original_id and original_deg (the real image of the study"
        " that is nearest to the translated feature, and the angle), equivalent_id and"
        " equivalent_deg (the same after null removal). Never the image itself or a copy of it; -1"
        " where there is no other.",
        columns=_of(i="image_id original_id equivalent_id", f="original_deg equivalent_deg"),
    ),
    "pictures": Artifact(
        "pictures/{space}/{model}.parquet",
        "One row a picture: figure (photo, fig1, and for `pictures.closeup` fig6, fig10, fig11,"
        " fig13), image_id, label, kind (of the translator), change (photo, original, null"
        " removed, steered, null, random, principal), text (steered toward), target_is_deg,"
        " is_deg, as_label_deg, as_text_deg, logit_change, renderer (photo, unclip, retrieval),"
        " draw (seed, or rank from 0), neighbour_id, neighbour_deg, picture (a PNG or JPEG file;"
        " empty where a step is out of reach).",
        columns=_of(O="figure picture"),
        group="pictures",
    ),
}
TABLES = {
    "models": (
        "A model in a space: verdict; D with its interval, `p`, `p_holm` (over the models of the"
        " space) and turn; the smallest planted leak that was found, the blind check; IS and its"
        " floor, conditional IS; AS, contrastive AS, |AS|, the ratio IS/|AS|, and random"
        " and matched subspaces of equal dimension, with intervals; [zero-shot accuracy, and null"
        " energy as a"
        " detector](report.md#how-good-is-the-translation-and-what-does-null-energy-tell); the"
        " same in `metrics.json`."
    ),
    "labels": (
        "A label of a model: mean and standard deviation of IS, AS and |AS|, and the mean"
        " floor of IS. No verdict rests on a label."
    ),
    "label_correlations": (
        "Two models: Spearman correlation of the mean |AS| of their labels, its `ceiling`"
        " (root of the product of both split-half reliabilities; empty where a label has a single"
        " image), p by permuting labels, `p_holm`."
    ),
    "model_pairs": (
        "Two models: difference of D on the same folds, with interval, `p` (Student's t,"
        " two-sided) and `p_holm`, corrected for the number of pairs; `differ`: `p_holm` says so"
        " and the interval is more than 0.0005 from 0."
    ),
    "controls": (
        "A model and a number of dimensions: null parts against random and row-space parts, and"
        " the excess. The interval of the excess holds the spread over images and over subspaces:"
        " for a null space like any other subspace it covers 0."
    ),
    "orders": "A model: its value and its place in the paper's order, by IS/|AS|.",
    "order_agreement": (
        "Two orders of the same models by IS/|AS|: in two spaces, and, where a study like the"
        " paper's has five or more of the paper's 13 models, the order here and the order of the"
        " authors' chart: Spearman (p by permutation), Kendall."
    ),
    "concepts": (
        "A concept among the strongest or weakest of a label, by the size of its contrast: AS"
        " minus its mean over all concepts. The intervals (Student's t over images) hold for all"
        " concepts and labels of a scan together, because rows were picked; with fewer than two"
        " images there is none."
    ),
    "spurious": (
        "A candidate for a spurious cue: a concept that is near to the images of a label, nearer"
        " than to the images of the average label, and whose contrast is small. A person has to"
        " look at it."
    ),
    "steering": (
        "Steering of a model toward a prompt at one IS: AS toward the target and toward the label"
        " of the image (mean and standard deviation over the images that reach it), largest logit"
        " change."
    ),
    "angle_ladder": (
        "A step of figure 10: one image steered toward the first prompt by a growing angle; the"
        " first row is the image itself."
    ),
    "translators": (
        "A translator, by kind and loss: held-out cosine, MSE, R2, gain over the linear one."
    ),
    "null_validation": (
        "A perturbation of a model: change of logits and softmax, share of changed top-1 classes"
        " (Wilson interval). The perturbation `null` is a word: read the table with"
        " `keep_default_na=False` in pandas."
    ),
    "rank_curves": "A point of the rank curve of a model; `removed_dim` dimensions are removed.",
    "head_extensions": (
        "A model: D, and directions_90, the fewest null directions that give 90 % of D once they"
        " are visible (empty where D is not above 0)."
    ),
    "probes": (
        "A model: accuracy of linear classifiers on principal features before and after"
        " translation; the Pearson correlation over models."
    ),
}  # name: what a row is
FIGURES = (
    *(f"fig{number}" for number in (1, *range(3, 14), 15)),
    *("controls", "rank_curves", "head_extensions"),
)  # their captions are in report/captions

CATALOG |= {
    f"tables/{name}.csv": Artifact(f"tables/{name}.csv", about, tier="metrics", group="local")
    for name, about in TABLES.items()
}
CATALOG |= {
    path: Artifact(path, about, tier="metrics", group="local")
    for path, about in {
        "tables/translators.json": (
            "`tables/translators.csv` as [metrics of DVC](versions.md#sweeps)."
        ),
        "tables/orders.txt": "The order of the models in words.",
        "tables/summary.txt": "The summary that ends a run.",
        "metrics.json": "`tables/models.csv` as metrics of DVC.",
        **{f"figures/{name}.{end}": "" for name in FIGURES for end in ("png", "pdf")},
        "report.html": "The page that holds the study, in one file.",
    }.items()
}
COLUMNS = {name: artifact.columns for name, artifact in CATALOG.items() if artifact.columns}
COLUMNS["archived"] = _of(i="offset bytes", O="archive")  # of a manifest with data.source: archive
TENSORS = {
    name: contract for artifact in CATALOG.values() for name, contract in artifact.tensors.items()
}


def artifact_of(path: str) -> str | None:
    """Name of the artifact at a path below the results; None if the catalog has none there."""
    return next(
        (name for name, artifact in CATALOG.items() if artifact.names_in(path) is not None), None
    )

"""The one table of artifacts.

It says where each file of results/<study>/ lies, what it holds, and how it is compared, fetched and
made.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any, Literal, NamedTuple

TIERS = {  # stages of dvc.yaml and targets of the Snakefile: what lies in a study's results
    "data": ("registry", "data"),
    "towers": ("heads", "features", "embeddings", "prompts", "classes"),
    "translators": ("projectors", "translators"),
    "analyses": (
        *("evidence", "evidence_texts", "evidence_groups", "evidence_images", "scores"),
        *("zero_shot", "null_validation", "concepts", "steering", "probes", "pictures"),
    ),
    "report": ("params.yaml", "tables", "figures", "metrics.json", "report.html"),
}
Fetched = Literal["report", "translators", "towers"]  # what `singflow fetch` brings, ever more
# What a study can ask for beyond the verdict: values of the key `analyses`.
Analysis = Literal[
    "scores",
    "steering",
    "concepts",
    "zero_shot",
    "null_validation",
    "probes",
    "networks",
    "pictures",
    "paper",
]
WILDCARDS = {"model": ".+", "space": "[^/]+", "kind": "[^/]+", "shard": r"\d+"}
KIND_NAMES = {"i": "integers", "f": "floats", "b": "truth values", "O": "texts"}  # NumPy's letters


class Tolerance(NamedTuple):
    """A number x may differ by relative * |x| + absolute; |x| is at least a tensor's own RMS."""

    relative: float
    absolute: float


COMPUTED = Tolerance(1e-3, 1e-3)  # degrees, shares, logits


@dataclass(frozen=True)
class Artifact:
    """A file, or one file for each model, space, kind of translator or shard that its path names.

    columns: kind (a key of KIND_NAMES) of the columns that readers rely on. tensors: kind and
    number of dimensions. within: tolerance of its numbers between machines. analysis: the one that
    it belongs to; "": every study has it, as its verdict needs it.
    """

    path: str
    about: str
    columns: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, tuple[str, int]] = field(default_factory=dict)
    within: Tolerance = COMPUTED
    analysis: Analysis | Literal[""] = ""

    @property
    def tier(self) -> str:
        """The stage of dvc.yaml that makes it."""
        folder = self.path.split("/")[0]
        return next(tier for tier, folders in TIERS.items() if folder in folders)

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


INT_VECTOR = ("i", 1)
VECTOR, MATRIX = ("f", 1), ("f", 2)
EXACT = Tolerance(0, 0)  # copied, not computed
TOWER = Tolerance(1e-3, 1e-6)  # float32 sums of a network
SOLVED = Tolerance(1e-2, 1e-6)  # a linear system of what the towers give

CATALOG: dict[str, Artifact] = {  # in the order of the pipeline, in which trees are compared
    "model_entry": Artifact(
        "registry/models/{model}.json",
        "The registry entry with its defaults, the class names and their number, and the hashes"
        " of local files.",
        within=EXACT,
    ),
    "space_entry": Artifact(
        "registry/spaces/{space}.json",
        "The registry entry with its defaults filled in, and the hashes of local files.",
        within=EXACT,
    ),
    "manifest": Artifact(
        "data/manifest.parquet",
        "One row per image: image_id int64 (0..n-1), path (below the data root), label,"
        " class_index int32 (-1: not a class of the heads), prompt, split (train, validation),"
        " fold int32 (fold 0 is validation if the data have no split), width and height int32"
        " (upright), sha256. With `data.source: archive` also archive (its path), offset int64"
        " (first byte in a tar, row in a Parquet file) and bytes int64. With a column group of"
        " data.table also group (else the sha256).",
        columns=_of(i="image_id class_index fold width height", O="path label prompt split sha256"),
        within=EXACT,
    ),
    "rejected": Artifact(
        "data/rejected.csv",
        "path and reason of every file that was left out: it is unusable, or was not drawn.",
        within=EXACT,
    ),
    "params": Artifact(
        "params.yaml",
        "The complete study as it ran, with the values of `--configfile` and `--config`.",
        within=EXACT,
    ),
    "head": Artifact(
        "heads/{model}.safetensors",
        "weight (C, d) and bias (C,) float32. Metadata: class_names (JSON; null: those of"
        " data.classes), weight_dtype (the coarsest precision that holds every weight), tower.",
        tensors={"weight": MATRIX, "bias": VECTOR},
        within=Tolerance(1e-5, 1e-6),  # copied; random weights come from a processor's kernels
    ),
    "features": Artifact(
        "features/{model}/shard-{shard}.safetensors",
        "features (n, d) float32, image_id (n,) int64, view (n,) int32. Metadata: device, tower,"
        " precision, decode, head_max_error, top1, top1_images, features (JSON: norms and"
        " shares).",
        tensors={"features": MATRIX, "image_id": INT_VECTOR, "view": INT_VECTOR},
        within=TOWER,
    ),
    "embeddings": Artifact(
        "embeddings/{space}/shard-{shard}.safetensors",
        "embeddings (n, m) float32 (not normalized), image_id and view: the rows of the"
        " features, in the same order. Metadata: device, tower, precision, decode,"
        " embeddings (JSON).",
        tensors={"embeddings": MATRIX, "image_id": INT_VECTOR, "view": INT_VECTOR},
        within=TOWER,
    ),
    "texts": Artifact(
        "prompts/{space}.safetensors",
        "label_embeddings (L, m), concept_embeddings (P, m), target_embeddings (T, m) and"
        " reference_embeddings (R, m), float32 of unit norm; class_embeddings and other_embeddings"
        " (C, m), as below, of the classes of data.classes. Metadata: device, the templates.",
        tensors={
            f"{kind}_embeddings": MATRIX for kind in ("label", "concept", "target", "reference")
        },
        within=TOWER,
    ),
    "names": Artifact(
        "prompts/{space}.json",
        "The names of the rows above: labels, concepts, targets, and reference (its labels that the"
        " study does not have).",
    ),
    "classes": Artifact(
        "classes/{space}/{model}.safetensors",
        "class_embeddings and other_embeddings (C, m), float32 of unit norm: the texts of the"
        " head's classes, and the same classes in other words. No rows if the classes have no"
        " names. Metadata: device.",
        tensors=dict.fromkeys(["class_embeddings", "other_embeddings"], MATRIX),
        within=TOWER,
    ),
    "projector": Artifact(
        "projectors/{model}.safetensors",
        "singular_values (min(C, d),) and null_basis (d, k), float64.",
        tensors={"singular_values": VECTOR, "null_basis": MATRIX},
        within=Tolerance(1e-6, 1e-6),  # float64
    ),
    "projector_report": Artifact(
        "projectors/{model}.json",
        "rank, null_dim, rule, tolerance (the largest singular value that counts as null),"
        " weight_dtype, rank_stored and rank_float64 (rank of W at the precision of the stored"
        " weights and at float64), orthonormality_error, max_logit_change (largest norm over the"
        " features), top1 and top1_images (of all shards).",
    ),
    "translator": Artifact(
        "translators/{space}/{model}/linear.safetensors",
        "weight (m, d) and bias (m,) float32, fitted on all training images; fold_weight (K, m,"
        " d) and fold_bias (K, m), fitted without the images of the fold. Metadata: folds,"
        " in_sample, the facts of its card, and how features and embeddings were made (tower,"
        " precision, decode; space_tower, space_precision, space_decode).",
        tensors={"weight": MATRIX, "bias": VECTOR, "fold_weight": ("f", 3), "fold_bias": MATRIX},
        within=SOLVED,
    ),
    "translator_report": Artifact(
        "translators/{space}/{model}/linear.json",
        "lambda (the relative penalty), lambda_at_edge, alpha (the absolute penalty),"
        " alpha_curve, folds, in_sample; validation_cosine, validation_mse,"
        " validation_r2 and n_validation (of every image, by the translator that did not see it);"
        " held_out_* (the same of the validation split alone); baseline_cosine, n_train (views),"
        " fold_n_train; permuted_r2 (the largest of four with permuted rows); left_out (paths of"
        " the reference's images that are near copies of the study's); near_copies (images with a"
        " near copy in another fold) of n_compared.",
        within=Tolerance(1e-3, 1e-5),  # mean squares are small
    ),
    "network": Artifact(
        "translators/{space}/{model}/{kind}.safetensors",
        "A nonlinear translator (mlp3, mlp4, residual) as a float32 state dict: feature_mean,"
        " feature_scale, embedding_mean, embedding_scale, body.*, projection.*.",
        tensors={"feature_mean": VECTOR, "embedding_mean": VECTOR},
        within=Tolerance(1e-1, 1e-6),  # training makes rounding larger
        analysis="networks",
    ),
    "network_report": Artifact(
        "translators/{space}/{model}/{kind}.json",
        "The validation split's validation_cosine, validation_mse, validation_r2,"
        " baseline_cosine and n_validation; n_train, kind, loss (the one that was kept),"
        " parameters, losses (of each loss), alpha, alpha_curve.",
        within=Tolerance(1e-2, 1e-3),
        analysis="networks",
    ),
    "evidence": Artifact(
        "evidence/{space}/{model}.json",
        "The test of meaning: n (images, with those of a reference), principal_dim, null_dim;"
        " r2 (of the translator), r2_words (of the own words); unique_r2 (D) with its interval,"
        " unique_r2_without (D without each group of images), margin, p (D is not above the"
        " margin); turn_deg, turn_low_deg, turn_high_deg; detectable, detectable_first (the"
        " smallest planted leak that is called meaning, even or along the first direction of b),"
        " gain (share of an even leak of 10 % that D shows), null_r2 (R² of b from the plain"
        " bands), blind_unique_r2 (D of the blind check); weights (of the bands and of b), lambdas"
        " (penalties of the read-outs without_null and with_null); floor_is_deg, floor_is_sd (over"
        " draws of signs); known_zero, known_leak.",
    ),
    "planted_leaks": Artifact(
        "evidence/{space}/{model}.parquet",
        "One row per planted leak: kind (even: over all of b; first: along its first direction),"
        " share (of the variance; 0: no leak), draw, unique_r2, unique_r2_low, p.",
        columns=_of(i="draw", f="share unique_r2 unique_r2_low p", O="kind"),
    ),
    "evidence_texts": Artifact(
        "evidence_texts/{space}/{model}.parquet",
        "One row per text: text, kind (label, concept, reference: a label of the reference alone),"
        " unique_r2 (D along the text) with its interval, p (corrected for all texts), hidden (it"
        " counts where the verdict is *meaning* or a known leak that was found).",
        columns=_of(f="unique_r2 unique_r2_low unique_r2_high p", O="text kind", b="hidden"),
    ),
    "evidence_groups": Artifact(
        "evidence_groups/{space}/{model}.parquet",
        "One row per group of images: group, by (label, predicted, column: of evidence.groups), n,"
        " unique_r2 (D within the group) with its interval, p (corrected for all groups of this"
        " kind), hidden (as of texts). Fewer than 10 images: no interval, p or hidden.",
        columns=_of(i="n", f="unique_r2 unique_r2_low unique_r2_high p", O="group by", b="hidden"),
    ),
    "own_words": Artifact(
        "evidence/{space}/{model}.safetensors",
        "The model's own words: class_embeddings (C, m) float32, word_weights (5,) and offset"
        " (m,) float64.",
        tensors={"class_embeddings": MATRIX, "word_weights": VECTOR, "offset": VECTOR},
        within=SOLVED,
    ),
    "evidence_images": Artifact(
        "evidence_images/{space}/{model}.parquet",
        "One row per image: image_id, floor_is_deg (mean over draws of signs).",
        columns=_of(i="image_id", f="floor_is_deg"),
    ),
    "scores": Artifact(
        "scores/{space}/{model}.parquet",
        "One row per image, view 0: image_id, label, class_index and predicted_index (rows of"
        " this head), fold (-1: the translator was fitted on other images), is_deg, as_deg,"
        " as_contrast_deg, angle_original_deg, angle_equivalent_deg, null_energy, logit_change,"
        " floor_is_deg.",
        columns=_of(
            i="image_id class_index predicted_index fold",
            O="label",
            f=(
                "is_deg as_deg as_contrast_deg angle_original_deg angle_equivalent_deg null_energy"
                " logit_change floor_is_deg"
            ),
        ),
        analysis="scores",
    ),
    "zero_shot": Artifact(
        "zero_shot/{space}/{model}.parquet",
        "One row per image: image_id, label, and the label with the text nearest to the"
        " translated feature (translated), to the same without its null component (equivalent),"
        " and to the embedding of the image (embedding).",
        columns=_of(i="image_id", O="label translated equivalent embedding"),
        analysis="zero_shot",
    ),
    "null_validation": Artifact(
        "null_validation/{model}.parquet",
        "One row per image and perturbation (null, random, principal): image_id, perturbation,"
        " norm, logit_change, top1_changed, softmax_change (total variation).",
        columns=_of(
            i="image_id", O="perturbation", f="norm logit_change softmax_change", b="top1_changed"
        ),
        analysis="null_validation",
    ),
    "concepts": Artifact(
        "concepts/{space}/{model}.safetensors",
        "angle_mean, angle_std, as_mean, as_std, as_abs_mean and contrast_std (L, P) float32, in"
        " degrees: means and standard deviations over the images of a label; n (L,) int64, their"
        " number. Labels and concepts are in the order of prompts/<space>.json.",
        tensors={"n": INT_VECTOR}
        | dict.fromkeys(["angle_mean", "angle_std", "as_mean", "as_std"], MATRIX)
        | dict.fromkeys(["as_abs_mean", "contrast_std"], MATRIX),
        analysis="concepts",
    ),
    "steering": Artifact(
        "steering/{space}/{model}.parquet",
        "One row per image, prompt and target: image_id, label, prompt, target_is_deg, step,"
        " is_deg, as_target_deg, as_label_deg, logit_change, reachable (if not, step and scores"
        " are missing).",
        columns=_of(
            i="image_id",
            O="label prompt",
            b="reachable",
            f="target_is_deg step is_deg as_target_deg as_label_deg logit_change",
        ),
        analysis="steering",
    ),
    "probes": Artifact(
        "probes/{space}/{model}.json",
        "classifier, accuracy_principal and accuracy_translated with intervals, n_train, n_test,"
        " n_test_in_sample (test images that the translator has seen), by (label; group: of"
        " evidence.groups), n_labels, n_labels_left_out (with one image), chance, the penalties,"
        " note.",
        analysis="probes",
    ),
    "pictures": Artifact(
        "pictures/{space}/{model}.parquet",
        "One row per picture: figure, image_id, label, kind (of the translator), change (photo,"
        " original, null removed, steered, null, random, principal), text (steered toward),"
        " target_is_deg, is_deg, as_label_deg, as_text_deg, logit_change, renderer (photo, unclip,"
        " words), draw (seed; -1: none), word_1 to word_3 (the nearest words), word_1_deg to"
        " word_3_deg, picture (a PNG or JPEG file, or empty).",
        columns=_of(O="figure word_1 word_2 word_3 picture", f="word_1_deg word_2_deg word_3_deg"),
        analysis="pictures",
    ),
}
TABLES: tuple[str, ...] = (
    *("models", "labels", "hidden_texts", "hidden_groups", "model_pairs", "orders", "concepts"),
    *("spurious", "steering", "angle_ladder", "translators", "null_validation", "probes"),
)
FIGURES: tuple[str, ...] = (
    *(f"fig{number}" for number in (1, *range(3, 14))),
    "hidden_texts",
)  # captions of tables and figures are in report/captions
SHOWS: dict[Analysis, str] = {  # tables and figures of an analysis; the others are of the verdict
    "scores": "labels orders fig3",
    "steering": "steering",
    "concepts": "concepts spurious fig5",
    "null_validation": "null_validation fig9",
    "probes": "probes fig12",
    "networks": "translators fig7 fig8",
    "pictures": "fig1",
    "paper": "angle_ladder fig4 fig6 fig10 fig11 fig13",
}
IN_GIT = ("metrics.json",)  # which `dvc metrics diff` reads; DVC's cache keeps all else
FORMATS = ("png", "pdf", "svg")  # of a figure
NEEDS = "Needs"  # key in the PNG of a figure that is not drawn: what it needs

PAGE = {
    **{f"tables/{name}.csv": "" for name in TABLES},
    "tables/translators.json": "`tables/translators.csv` as [metrics of DVC](versions.md#sweeps).",
    "tables/summary.txt": "The summary that ends a run.",
    "metrics.json": "`tables/models.csv` as metrics of DVC.",
    **{f"figures/{name}.{end}": "" for name in FIGURES for end in FORMATS},
    "report.html": "The page that holds the study, in one file.",
}
# an interval of few images is a small standard error times a large quantile
FEW_IMAGES = dict.fromkeys(["tables/concepts.csv", "tables/spurious.csv"], Tolerance(1e-2, 1e-2))
SHOWN_BY = {name: analysis for analysis, names in SHOWS.items() for name in names.split()}
CATALOG |= {
    path: Artifact(
        path,
        about,
        within=FEW_IMAGES.get(path, COMPUTED),
        analysis=SHOWN_BY.get(Path(path).stem, ""),
    )
    for path, about in PAGE.items()
}
TABLE_COLUMNS = {name: artifact.columns for name, artifact in CATALOG.items() if artifact.columns}
TABLE_COLUMNS["archived"] = _of(i="offset bytes", O="archive")  # a manifest of archives
TENSORS = {
    name: contract for artifact in CATALOG.values() for name, contract in artifact.tensors.items()
}


def asked(analyses: Collection[str]) -> dict[str, Artifact]:
    """The artifacts that every verdict needs, and those of these analyses, by name."""
    return {name: one for name, one in CATALOG.items() if one.analysis in {"", *analyses}}


def brought(tier: Fetched) -> set[str]:
    """Artifacts that a fetch brings: the page, all but the rows of towers, or all."""
    if tier == "report":
        return {name for name, one in CATALOG.items() if one.tier == tier}
    return CATALOG.keys() - ({"features", "embeddings"} if tier == "translators" else set())


def artifact_of(path: str) -> str | None:
    """Name of the artifact at a path below the results; None if the catalog has none there."""
    return next(
        (name for name, artifact in CATALOG.items() if artifact.names_in(path) is not None), None
    )

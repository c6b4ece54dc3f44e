"""The step that maps images, run with a packaged classifier on real photos."""

import numpy as np
import pytest

from singflow.analyses.geometry import null_space
from singflow.analyses.inputs import Inputs
from singflow.artifacts.files import write_json
from singflow.config.registry import resolve_models
from singflow.data.vocabulary import with_classes_and_hashes
from singflow.pictures.selection import choose_images
from singflow.towers.live import load_entry
from singflow.translators.ridge import Affine
from tests.data.manifests import CLASSES, CLASSES_FILE
from tests.project import ROOT
from tests.results import Results
from tests.towers.models import FIVE, entry_of

LITE, REGISTRY = "efficientnet_lite0", ROOT / "config/models.yaml"
VIT = entry_of("vit_tiny_patch16_224.augreg_in21k_ft_in1k", class_names=FIVE)
DIM, PROMPTS = 24, ["an image of a jellyfish", "an image of a jeep"]
FLAGS = {
    "closeup": "m", "maps": True, "count": 3, "prompts": PROMPTS, "folds": 2, "lambdas": [1.0],
    "reference": None, "confidence": 0.8, "classes": CLASSES_FILE, "source": "packaged",
    "root": ".", "max_pixels": 10**8, "device": "cpu", "seed": 0,
}  # fmt: skip


def write_study(folder, packaged, entry, in_sample=False):
    """Artifacts with a classifier's own features, and made-up embeddings and translators."""
    (root, manifest), results, random = packaged, Results(folder), np.random.default_rng(0)
    fold = np.arange(len(manifest), dtype=np.int32) % 2
    manifest = manifest.assign(fold=fold, split=np.where(fold > 0, "train", "validation"))
    manifest.loc[2, "path"] = f"./{manifest.loc[0, 'path']}"  # a copy
    manifest.loc[2, "sha256"] = manifest.loc[0, "sha256"]
    results.manifest(**manifest)
    write_json(results.path("model_entry"), entry.model_dump())
    classifier = load_entry(entry, "m", CLASSES.names, "cpu")
    features = classifier.features([root / path for path in manifest["path"]])
    n, width = features.shape

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    image_id, view = np.arange(n), np.zeros(n, dtype=np.int32)
    results.shard("features", 0, features, image_id, view)
    results.shard("embeddings", 0, normal(n, DIM), image_id, view)
    head = {"weight": classifier.weight, "bias": classifier.bias}
    results.tensors("head", {"class_names": "null"}, **head)
    results.tensors("projector", null_basis=null_space(classifier.weight).basis)
    folds = [] if in_sample else [Affine(normal(DIM, width), normal(DIM)) for _ in range(2)]
    whole = Affine(normal(DIM, width), normal(DIM))
    results.translator(whole, folds, in_sample=str(in_sample).lower())
    labels = sorted(manifest["label"].unique())
    results.texts(
        {"labels": labels, "targets": PROMPTS, "concepts": []},
        label_embeddings=normal(len(labels), DIM),
        target_embeddings=normal(len(PROMPTS), DIM),
    )
    return results


@pytest.fixture(scope="module")
def lite():
    found = resolve_models(REGISTRY, [LITE])[LITE]
    return with_classes_and_hashes(found, REGISTRY, LITE, CLASSES_FILE)


@pytest.fixture(scope="module")
def study(tmp_path_factory, packaged, lite):
    return write_study(tmp_path_factory.mktemp("study"), packaged, lite)


def mapped(results, **changes):
    results.run("map_images", **FLAGS | changes)
    return results.read("maps")


def test_positions_sum_to_the_scores_of_a_study(study):
    rows = mapped(study, images=[], count=2, device="cuda")
    assert rows.attrs["device"].startswith("CPU ("), "cuda is as auto"
    chosen = choose_images(study.read("manifest"), [], 2, 0)
    assert [*rows["image_id"].unique()] == [*chosen["image_id"]]
    inputs = Inputs(study.folder, "m", "s")
    texts = dict(zip(PROMPTS, inputs.texts("target_embeddings"), strict=True))
    texts |= dict(zip(inputs.names["labels"], inputs.label_texts, strict=True))
    ((image_id, removal),) = inputs.removals()
    ((_, features),) = inputs.features()
    logits = features @ inputs.head["weight"].T
    positions = [[row, column] for row in range(1, 8) for column in range(1, 8)]
    for (image, kind, text), part in rows.groupby(["image_id", "map", "text"], sort=False):
        assert part[["row", "column"]].to_numpy().tolist() == positions
        total = part["value"].sum()
        if kind == "used":
            best = (logits[image] + inputs.head["bias"]).argmax()
            assert text == CLASSES.names[best]
            assert total == pytest.approx(logits[image, best], abs=1e-2)
        elif kind != "null energy":
            toward = np.tile(texts[text], (len(image_id), 1))
            expected = removal.attribute_score(toward)[image]
            assert total + part["rest_deg"].iloc[0] == pytest.approx(expected, abs=1e-3)
            assert part["as_deg"].iloc[0] == pytest.approx(total, abs=1e-6)
            assert part["conditional_deg"].notna().all()


def test_the_number_of_threads_changes_no_byte(study):
    written = []
    for threads in (1, 2):
        mapped(study, threads=threads, count=2)
        written.append(study.path("maps").read_bytes())
    assert written[0] == written[1]


def test_an_image_is_compared_with_others_of_its_fold_alone_and_never_with_its_copy(study):
    paths = study.read("manifest")["path"]
    rows = mapped(study, images=list(paths[[0, 1]]))
    assert rows.groupby("image_id")["others"].unique().map(list).to_dict() == {0: [8], 1: [9]}
    toward = rows[rows["map"].str.startswith("toward")]
    assert toward["threshold_deg"].notna().all()
    assert (toward["beyond"] == (toward["conditional_deg"].abs() > toward["threshold_deg"])).all()
    strict = mapped(study, images=list(paths[[0, 1]]), confidence=0.95)
    assert strict["threshold_deg"].isna().all() and not strict["beyond"].any()


def test_an_image_that_its_translator_was_fitted_on_is_not_compared(tmp_path, packaged, lite):
    results = write_study(tmp_path, packaged, lite, in_sample=True)
    paths = results.read("manifest")["path"]
    rows = mapped(results, images=list(paths[[4, 5]]), folds=0)
    others = rows.groupby("image_id")["others"].unique().map(list).to_dict()
    assert others == {4: [8], 5: [0]}  # the copy counts once
    assert rows.loc[rows["image_id"] == 5, "threshold_deg"].isna().all()


def test_a_class_token_has_no_maps(tmp_path, packaged):
    results = write_study(tmp_path, packaged, VIT)
    assert mapped(results).empty and results.path("features").exists()


@pytest.mark.parametrize("changes", [{"maps": False}, {"null_basis": np.empty((1280, 0))}])
def test_without_maps_or_a_null_space_nothing_else_is_read(tmp_path, changes):
    results = Results(tmp_path)
    basis = changes.pop("null_basis", np.eye(1280)[:, :2])
    results.tensors("projector", null_basis=basis)
    assert mapped(results, **changes).empty

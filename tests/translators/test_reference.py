"""The images that translators are fitted on.

They are found by their provenance, refused where the provenance differs, and small enough to pass
on.
"""

import shutil

import numpy as np
import pandas as pd
import pytest

from singflow.artifacts.shards import iterate_shards
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.errors import InputError
from singflow.translators.crossfit import WHOLE
from singflow.translators.linear import read_crossfitted
from singflow.translators.reference import (
    Paired,
    check_reference,
    fingerprint,
    pack,
    reference_folder,
    training_images,
)
from tests.project import ROOT
from tests.results import Results

MODELS = resolve_models(
    ROOT / "config/models.yaml",
    ["efficientnet_lite0", "animals_lite0", "efficientnet_lite1", "resnet50"],
)
SPACES = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm", "clip_vit_l14"])


def results_in(
    folder, models=("efficientnet_lite0",), spaces=("conse_minilm",), images=6, shards=2, **facts
):
    """Results of a study that has got as far as features and embeddings."""
    generator, ids = np.random.default_rng(images), np.array_split(np.arange(images), shards)
    columns = dict.fromkeys(["class_index", "fold", "width", "height"], np.arange(images))
    texts = dict.fromkeys(["label", "prompt", "sha256"], "x") | {"split": "train"}
    paths = [f"{image}.jpg" for image in range(images)]
    Results(folder).manifest(path=paths, **columns, **texts)
    for kind, entries in (
        ("features", {name: MODELS[name] for name in models}),
        ("embeddings", {name: SPACES[name] for name in spaces}),
    ):
        for name, entry in entries.items():
            made = {
                "tower": entry.identity,
                "weights_sha256": entry.identity,
                "decode": "full",
                "precision": "float32",
            } | facts
            made["statistics"] = f"of {images} images"
            for shard, mine in enumerate(ids):
                tensors = {
                    kind: generator.standard_normal((len(mine), 5)).astype(np.float32),
                    "image_id": mine,
                    "view": 0 * mine,
                }
                write_tensors(
                    folder / kind / name / f"shard-{shard:05d}.safetensors", tensors, made
                )
    return folder


def paired(folder, model="efficientnet_lite0", images=6, shards=2):
    manifest = pd.DataFrame(
        {
            "path": [f"{image}.jpg" for image in range(images)],
            "sha256": [f"own {image}" for image in range(images)],
        }
    )
    return Paired(manifest, folder / "features" / model, folder / "embeddings/conse_minilm", shards)


def test_without_a_reference_a_study_is_fitted_on_its_own_images(tmp_path):
    own = paired(tmp_path)
    assert training_images(None, own) is own and fingerprint(None) is None


def fitted(folder, reference, folds):
    """The report of fit_translator for the study in folder/own, and its translators."""
    own = Results(folder / "own", "efficientnet_lite0", "conse_minilm")
    flags = {"kind": "linear", "folds": folds, "reference": reference, "imported": []}
    done = own.start("fit_translator", folder, lambdas=[0.1, 1.0, 10.0], **flags)
    assert done.returncode == 0, done.stderr
    translators = read_crossfitted(own.path("translator"), own.read("manifest"))
    return own.read("translator_report"), translators


def with_splits(folder, folds, images):
    """Give the images of a study unique contents and folds, of which fold 0 is held out."""
    path = folder / "data/manifest.parquet"
    fold = np.arange(images, dtype=np.int32) % folds
    contents = [f"{folder.name} {image}" for image in range(images)]
    splits = np.where(fold == 0, "validation", "train")
    write_parquet(path, pd.read_parquet(path).assign(fold=fold, split=splits, sha256=contents))


@pytest.mark.parametrize("own", [1, 6])
def test_with_a_reference_no_image_is_in_sample_and_all_of_the_reference_train_whatever_the_folds(
    tmp_path, own
):
    with_splits(results_in(tmp_path / "other", images=9), 3, 9)
    with_splits(results_in(tmp_path / "own", images=own, shards=1), 5, own)
    (none, first), (five, second) = (fitted(tmp_path, "other", folds) for folds in (0, 5))
    facts = {"in_sample": False, "folds": 0, "n_train": 9, "n_validation": own, "n_held_out": 3}
    assert none == five and facts.items() <= none.items()
    np.testing.assert_array_equal(first.whole.weight, second.whole.weight)
    assert (first.map_index == WHOLE).all() and (first.fold == WHOLE).all()
    alone, translators = fitted(tmp_path, None, 0) if own > 1 else (None, None)
    assert alone is None or (
        alone["in_sample"] and alone["n_train"] == 4 and (translators.fold >= 0).sum() == 4
    )


@pytest.mark.parametrize(("images", "folds"), [(2, 2), (3, 3), (2, 0)])
def test_translators_of_too_few_images_are_their_mean_embedding(tmp_path, images, folds):
    with_splits(results_in(tmp_path / "own", images=images, shards=1), folds or 2, images)
    report, translators = fitted(tmp_path, None, folds)
    assert report["folds"] == folds and report["n_validation"] == (images if folds else 1)
    embeddings = read_tensors(
        tmp_path / "own/embeddings/conse_minilm/shard-00000.safetensors", ["embeddings"]
    )[0]["embeddings"]
    if images == 2:
        assert (
            report["validation_r2"] == report["held_out_r2"] == 0 and not report["lambda_at_edge"]
        )
        for number, translator in enumerate(translators.maps[:-1] if folds else translators.maps):
            assert not translator.weight.any()
            np.testing.assert_allclose(translator.bias, embeddings[1 - number], rtol=1e-6)
    assert np.isfinite(report["validation_cosine"]) and np.isfinite(translators.whole.weight).all()


def test_the_images_of_a_reference_come_with_their_own_manifest_and_shards_whatever_the_models_name(
    tmp_path,
):
    results_in(tmp_path / "other", ("efficientnet_lite1", "efficientnet_lite0"), images=9, shards=3)
    own = paired(results_in(tmp_path / "own", ("animals_lite0",)), "animals_lite0")
    images = training_images(str(tmp_path / "other"), own)
    assert (len(images.manifest), images.shards) == (
        9,
        3,
    ) and images.features.name == "efficientnet_lite0"
    rows = [shard["features"] for shard, _ in images]
    expected = [
        read_tensors(images.features / f"shard-{shard:05d}.safetensors", ["features"])[0][
            "features"
        ]
        for shard in range(3)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), np.concatenate(expected))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"weights_sha256": "others"},
            "features/efficientnet_lite0 was made with other weights than",
        ),
        (
            {"decode": "reduced", "precision": "bfloat16"},
            "with other extraction.decode, extraction.precision than",
        ),
        ({"tower": "another"}, "features: has nothing of the tower that made"),
    ],
)
def test_images_that_were_made_in_another_way_are_refused(tmp_path, facts, words):
    results_in(tmp_path / "other", **facts)
    own = paired(results_in(tmp_path / "own"))
    with pytest.raises(InputError, match=words):
        training_images(str(tmp_path / "other"), own)


def test_an_image_of_the_study_is_never_in_its_reference(tmp_path):
    results_in(tmp_path / "other")
    own = paired(results_in(tmp_path / "own"))
    own.manifest.loc[[2, 4], "sha256"] = "x"
    words = (
        r"other: holds 2 of the study's images, its 0.jpg among them, "
        r"which would be scored in sample: write translator.reference: null"
    )
    with pytest.raises(InputError, match=words):
        training_images(str(tmp_path / "other"), own)


def test_what_a_reference_lacks_is_said_before_anything_runs(tmp_path):
    other = str(results_in(tmp_path / "other"))
    known = {
        "efficientnet_lite0": MODELS["efficientnet_lite0"],
        "animals_lite0": MODELS["animals_lite0"],
    }
    check_reference(other, known, {"conse_minilm": SPACES["conse_minilm"]})
    with pytest.raises(
        InputError,
        match=(
            r"no features of resnet50; it has those of efficientnet_lite0; "
            r"no embeddings of clip_vit_l14"
        ),
    ):
        check_reference(other, known | {"resnet50": MODELS["resnet50"]}, SPACES)
    with pytest.raises(
        InputError,
        match=(
            r"results/nowhere: results/nowhere holds no data/manifest.parquet: "
            r"name the results folder"
        ),
    ):
        check_reference("results/nowhere", known, {})


@pytest.mark.parametrize(
    "file", ["data/manifest.parquet", "features/efficientnet_lite0/shard-00001.safetensors"]
)
def test_the_fingerprint_is_of_content_and_not_of_dates(tmp_path, file):
    other, again = results_in(tmp_path / "other"), results_in(tmp_path / "again")
    assert fingerprint(str(other)) == fingerprint(str(again)) is not None
    (again / "features/efficientnet_lite0/shard-00000.safetensors").touch()
    (again / "report.html").touch()
    assert fingerprint(str(other)) == fingerprint(str(again))
    results_in(tmp_path / "third", images=7)
    shutil.copy(tmp_path / "third" / file, again / file)
    assert fingerprint(str(other)) != fingerprint(str(again))
    assert fingerprint("results/nowhere") is None


def test_a_packed_reference_is_half_as_large_and_takes_the_place_of_the_study(tmp_path):
    other = results_in(tmp_path / "other", ("efficientnet_lite0", "efficientnet_lite1"))
    (other / "report.html").write_text("page")
    write_tensors(
        other / "prompts/conse_minilm.safetensors",
        {"label_embeddings": np.ones((2, 3), np.float32)},
        {"space": "conse_minilm"},
    )
    (other / "prompts/conse_minilm.json").write_text("{}")
    assert pack(other, tmp_path / "packed") == sum(
        path.stat().st_size for path in (tmp_path / "packed").rglob("*") if path.is_file()
    )
    assert not (tmp_path / "packed/report.html").exists()
    for text in other.glob("prompts/*"):
        assert (tmp_path / "packed/prompts" / text.name).read_bytes() == text.read_bytes()
    own = paired(results_in(tmp_path / "own"))
    images, packed = (training_images(str(tmp_path / name), own) for name in ("other", "packed"))
    for (before, targets), (after, same) in zip(images, packed, strict=True):
        assert after["features"].dtype == np.float32
        np.testing.assert_array_equal(after["features"], before["features"].astype(np.float16))
        np.testing.assert_array_equal(same, targets)


def test_a_reference_that_cannot_be_packed_is_refused(tmp_path):
    other = results_in(tmp_path / "other")
    pack(other, tmp_path / "packed")
    with pytest.raises(InputError, match="packed: holds files: remove it, or name another folder"):
        pack(other, tmp_path / "packed")
    tensors = {
        "features": np.full((1, 2), 1e5, np.float32),
        "image_id": np.zeros(1, int),
        "view": np.zeros(1, int),
    }
    write_tensors(other / "features/large/shard-00000.safetensors", tensors, {})
    with pytest.raises(
        InputError,
        match=r"holds features beyond the range of float16: name .*other itself as the reference",
    ):
        pack(other, tmp_path / "again")
    shutil.rmtree(other / "features")
    with pytest.raises(InputError, match="holds no features and embeddings: run its study first"):
        pack(other, tmp_path / "third")


def test_the_packaged_reference_holds_the_packaged_classifiers_and_no_pictures():
    folder = ROOT / reference_folder("packaged")
    models = resolve_models(
        ROOT / "config/models.yaml",
        ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "animals_lite0"],
    )
    check_reference(str(folder), models, {"conse_minilm": SPACES["conse_minilm"]})
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".parquet", ".safetensors", ".json"} and sum(
        path.stat().st_size for path in files
    ) < 7.5e6
    manifest = pd.read_parquet(folder / "data/manifest.parquet")
    assert len(manifest) == 507 and manifest["fold"].nunique() == 5
    for shard in iterate_shards(folder / "features/efficientnet_lite0", "features", 1, manifest):
        assert shard["features"].shape == (507, 1280)

"""The images that translators are fitted on: found by provenance, refused where it differs."""

import contextlib
import runpy
import shutil

import numpy as np
import pandas as pd
import pytest

from singflow.artifacts.made import Made
from singflow.artifacts.shards import iterate_shards
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.results import Study
from singflow.translators import reference
from singflow.translators.crossfit import WHOLE
from singflow.translators.linear import read_crossfitted
from singflow.translators.reference import check_reference, fingerprint, training_images
from tests.project import ROOT
from tests.refusals import refused
from tests.results import Results

LITE0, MINILM = "efficientnet_lite0", "conse_minilm"
KNOWN = [LITE0, "animals_lite0", "efficientnet_lite1", "resnet50"]
MODELS = resolve_models(ROOT / "config/models.yaml", KNOWN)
SPACES = resolve_spaces(ROOT / "config/spaces.yaml", [MINILM, "clip_vit_l14"])
pack = runpy.run_path(str(ROOT / "reference/pack.py"))["pack"]


def results_in(folder, models=(LITE0,), images=6, shards=2, folds=None, **facts):
    """Results of a study that has got as far as features and embeddings.

    With folds, contents are unique, and fold 0 is held out.
    """
    draw, results = np.random.default_rng(images).standard_normal, Results(folder)
    numbers = np.arange(images)
    columns = dict.fromkeys(["class_index", "width", "height"], numbers)
    columns |= {"label": "x", "prompt": "x", "sha256": "x", "split": "train", "fold": numbers}
    if folds:
        columns["fold"] = numbers % folds
        columns["split"] = np.where(columns["fold"] == 0, "validation", "train")
        columns["sha256"] = [f"{folder.name} {image}" for image in numbers]
    results.manifest(path=[f"{image}.jpg" for image in numbers], **columns)
    for name in models:
        results.of(name).tensors("head", weight=np.eye(2, 5), bias=np.zeros(2))
    towers = [("features", name, MODELS[name]) for name in models]
    for kind, name, entry in [*towers, ("embeddings", MINILM, SPACES[MINILM])]:
        made = {"tower": entry.identity, "weights_sha256": entry.identity, "decode": "full"}
        made |= {"precision": "float32", "statistics": f"of {images} images"} | facts
        for shard, mine in enumerate(np.array_split(numbers, shards)):
            array = draw((len(mine), 5)).astype(np.float32)
            tensors = {kind: array, "image_id": mine, "view": 0 * mine}
            write_tensors(folder / kind / name / f"shard-{shard:05d}.safetensors", tensors, made)
    return folder


def paired(folder, model=LITE0):
    """The images of a study."""
    columns = {"path": "{}.jpg", "sha256": "own {}"}
    manifest = {name: [text.format(image) for image in range(6)] for name, text in columns.items()}
    folders = folder / "features" / model, folder / "embeddings" / MINILM
    return reference.Paired(pd.DataFrame(manifest), *folders, 2)


def fitted(folder, reference, folds):
    """The report of fit_translator for the study in folder/own, and its translators."""
    own = Results(folder / "own", LITE0, MINILM)
    flags = {"kind": "linear", "folds": folds, "reference": reference, "imported": []}
    with contextlib.chdir(folder):
        own.run("fit_translator", lambdas=[0.1, 1.0, 10.0], **flags)
    translators = read_crossfitted(own.path("translator"), own.read("manifest"))
    return own.read("translator_report"), translators


def test_with_a_reference_no_image_is_in_sample_and_the_reference_trains_alone(tmp_path):
    results_in(tmp_path / "other", images=9, folds=3)
    results_in(tmp_path / "own", images=1, shards=1, folds=5)
    (none, first), (five, second) = (fitted(tmp_path, "other", folds) for folds in (0, 5))
    facts = {"in_sample": False, "folds": 0, "n_train": 9, "n_validation": 1, "n_held_out": 3}
    facts |= {"fold_n_train": [6, 6, 6], "held_out_n_train": 6}
    assert none == five and facts.items() <= none.items()
    z = Study(tmp_path / "other").rows(f"embeddings/{MINILM}").astype(np.float64)
    apart = np.arange(9) % 3 == 0
    mean = z[~apart].mean(axis=0)
    cosine = z[apart] @ mean / np.linalg.norm(z[apart], axis=1) / np.linalg.norm(mean)
    assert none["held_out_baseline_cosine"] == pytest.approx(cosine.mean())
    np.testing.assert_array_equal(first.whole.weight, second.whole.weight)
    assert (first.member_of == WHOLE).all() and (first.fold == WHOLE).all()
    results_in(tmp_path / "own", images=6, shards=1, folds=5)
    alone, translators = fitted(tmp_path, None, 0)
    assert alone["in_sample"] and alone["n_train"] == 4
    assert (translators.fold >= 0).sum() == 4


@pytest.mark.parametrize("folds", [0, 2])
def test_translators_of_too_few_images_are_their_mean_embedding(tmp_path, folds):
    own = results_in(tmp_path / "own", images=2, shards=1, folds=2)
    report, translators = fitted(tmp_path, None, folds)
    assert report["folds"] == folds and report["n_validation"] == 1 + bool(folds)
    shard = own / "embeddings" / MINILM / "shard-00000.safetensors"
    embeddings = read_tensors(shard, ["embeddings"])[0]["embeddings"]
    assert report["validation_r2"] == report["held_out_r2"] == 0 and not report["lambda_at_edge"]
    for number, translator in enumerate(translators.members[: folds or 1]):
        assert not translator.weight.any()
        np.testing.assert_allclose(translator.bias, embeddings[1 - number], rtol=1e-6)
    assert np.isfinite(report["validation_cosine"]) and np.isfinite(translators.whole.weight).all()


def test_the_images_of_a_reference_have_their_own_manifest_and_shards_by_any_name(tmp_path):
    results_in(tmp_path / "other", ("efficientnet_lite1", LITE0), images=9, shards=3)
    own = paired(results_in(tmp_path / "own", ("animals_lite0",)), "animals_lite0")
    assert training_images(None, own) is own
    images = training_images(str(tmp_path / "other"), own)
    assert (len(images.manifest), images.shards, images.features.name) == (9, 3, LITE0)
    for number, (shard, _) in enumerate(images):
        path = images.features / f"shard-{number:05d}.safetensors"
        expected = read_tensors(path, ["features"])[0]["features"]
        np.testing.assert_array_equal(shard["features"], expected)


def test_images_that_were_made_in_another_way_are_refused(tmp_path):
    own = paired(results_in(tmp_path / "own"))
    for facts, words in (
        ({"weights_sha256": "others"}, f"features/{LITE0} was made with weights others instead of"),
        ({"decode": "reduced"}, "with decode reduced instead of full"),
        ({"tower": "another"}, "features has nothing of this tower"),
    ):
        refused(words, training_images, str(results_in(tmp_path / "other", **facts)), own)


LITE0_SHARD, MANIFEST = f"features/{LITE0}/shard-00000.safetensors", "data/manifest.parquet"


def with_features(change):
    def changed(path):
        tensors, made = read_tensors(path, ["features", "image_id", "view"])
        write_tensors(path, tensors | {"features": change(tensors["features"])}, dict(made))

    return changed


def unhashed(path):
    pd.read_parquet(path).assign(sha256=None).to_parquet(path)


def test_a_reference_that_was_tampered_with_is_refused(tmp_path):
    own = paired(results_in(tmp_path / "own"))
    for file, change, words in (
        (LITE0_SHARD, with_features(lambda rows: rows[:, :4]), "with width 4 instead of 5"),
        (LITE0_SHARD, with_features(lambda rows: rows * np.float64(1e200)), "beyond float32"),
        (MANIFEST, unhashed, "has rows without sha256"),
    ):
        change(results_in(tmp_path / "other", folds=2) / file)
        refused(words, lambda: [*training_images(str(tmp_path / "other"), own)])


def test_an_image_of_the_study_is_never_in_its_reference(tmp_path):
    other, own = results_in(tmp_path / "other"), paired(results_in(tmp_path / "own"))
    own.manifest.loc[[2, 4], "sha256"] = "x"
    said = "other: holds 2 of the study's images, its 0.jpg among them, which would be scored in "
    refused(f"{said}sample: write translator.reference: null", training_images, str(other), own)


def wanted(models, spaces, **how):
    """What is known of shards before they are made."""
    how = {"decode": "full", "precision": "float32"} | how
    towers = {"features": models, "embeddings": spaces}
    return {
        kind: {name: Made(entry.identity, **how) for name, entry in entries.items()}
        for kind, entries in towers.items()
    }


LITE = {LITE0: MODELS[LITE0]}, {MINILM: SPACES[MINILM]}


def test_what_a_reference_lacks_is_said_before_anything_runs(tmp_path):
    other = str(results_in(tmp_path / "other"))
    known = {name: MODELS[name] for name in (LITE0, "animals_lite0")}
    check_reference(other, wanted(known, {MINILM: SPACES[MINILM]}))
    lacks = f"resnet50: .*it has {LITE0}; clip_vit_l14: .*it has {MINILM}: write the same settings"
    more = known | {"resnet50": MODELS["resnet50"]}
    refused(lacks, check_reference, other, wanted(more, SPACES))
    absent = r"results/nowhere: results/nowhere holds no data/manifest.parquet: name the results"
    refused(absent, check_reference, "results/nowhere", wanted(known, {}))
    said = f"{LITE0}: .* was made with extraction.precision float32 instead of tf32; {MINILM}: "
    refused(said, check_reference, other, wanted(*LITE, precision="tf32"))
    check_reference(other, wanted(*LITE, precision=None))  # as of imported features


def test_a_reference_that_is_unfinished_is_refused_at_once(tmp_path):
    other = results_in(tmp_path / "other")
    check_reference(str(other), wanted(*LITE))
    (other / LITE0_SHARD).with_name("shard-00001.safetensors").unlink()
    part = f"features/{LITE0} has 3 rows, a part of its 6 images: .* run it to its end"
    refused(part, check_reference, str(other), wanted(*LITE))
    results_in(other, images=1, shards=1)
    few = "other has fewer than two images"
    refused(few, check_reference, str(other), wanted(*LITE))


@pytest.mark.parametrize("file", [MANIFEST, f"features/{LITE0}/shard-00001.safetensors"])
def test_the_fingerprint_is_of_content_and_not_of_dates(tmp_path, file):
    other, again = results_in(tmp_path / "other"), results_in(tmp_path / "again")
    assert fingerprint(str(other)) == fingerprint(str(again)) is not None
    (again / LITE0_SHARD).touch()
    (again / "report.html").touch()
    assert fingerprint(str(other)) == fingerprint(str(again))
    results_in(tmp_path / "third", images=7)
    shutil.copy(tmp_path / "third" / file, again / file)
    assert fingerprint(str(other)) != fingerprint(str(again))
    assert fingerprint("results/nowhere") is fingerprint(None) is None


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_packed_reference_is_half_as_large_and_takes_the_place_of_the_study(tmp_path):
    other = results_in(tmp_path / "other", (LITE0, "efficientnet_lite1"))
    packed = tmp_path / "packed"
    (other / "report.html").write_text("page")
    texts, names = (other / f"prompts/{MINILM}.{end}" for end in ("safetensors", "json"))
    write_tensors(texts, {"label_embeddings": np.ones((2, 3), np.float32)}, {"space": MINILM})
    names.write_text("{}")
    assert pack(other, packed) == size(packed)
    assert not (packed / "report.html").exists()
    for text in (texts, names):
        assert (packed / "prompts" / text.name).read_bytes() == text.read_bytes()
    own = paired(results_in(tmp_path / "own"))
    images = (training_images(str(folder), own) for folder in (other, packed))
    for (before, targets), (after, same) in zip(*images, strict=True):
        assert after["features"].dtype == np.float32
        np.testing.assert_array_equal(after["features"], before["features"].astype(np.float16))
        np.testing.assert_array_equal(same, targets)


def test_a_reference_that_cannot_be_packed_is_refused(tmp_path):
    other = results_in(tmp_path / "other")
    pack(other, tmp_path / "packed")
    full = "packed: holds files: remove it, or name another folder"
    refused(full, pack, other, tmp_path / "packed")
    one = np.zeros(1, int)
    tensors = {"features": np.full((1, 2), 1e5, np.float32), "image_id": one, "view": one}
    write_tensors(other / "features/large/shard-00000.safetensors", tensors, {})
    range_of = "beyond the range of float16: name .*other itself as the reference"
    refused(f"holds features {range_of}", pack, other, tmp_path / "again")
    shutil.rmtree(other / "features")
    nothing = "holds no features and embeddings: run its study first"
    refused(nothing, pack, other, tmp_path / "third")


def test_the_packaged_reference_holds_the_packaged_classifiers_and_no_pictures():
    folder = ROOT / reference.reference_folder("packaged")
    names = [LITE0, "efficientnet_lite1", "efficientnet_lite2", "animals_lite0"]
    models = resolve_models(ROOT / "config/models.yaml", names)
    check_reference(str(folder), wanted(models, {MINILM: SPACES[MINILM]}))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".parquet", ".safetensors", ".json"}
    assert size(folder) < 7.5e6
    manifest = pd.read_parquet(folder / "data/manifest.parquet")
    assert len(manifest) == 507 and manifest["fold"].nunique() == 5
    for shard in iterate_shards(folder / f"features/{LITE0}", "features", 1, manifest):
        assert shard["features"].shape == (507, 1280)

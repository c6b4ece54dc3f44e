"""Near copies of images, by real features: found where they are, and nowhere else."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

import singflow
from singflow.analyses.geometry import null_space
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tensors import write_tensors
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.translators.arrays import ArrayImages
from singflow.translators.copies import copies_across_folds, near_copies, without
from singflow.translators.parameters import Training
from tests.results import Results

LITE0 = "efficientnet_lite0"


def changed(path):
    """A photo, mirrored, cropped by 5 % and saved anew."""
    photo = ImageOps.mirror(Image.open(path).convert("RGB"))
    width, height = photo.size
    x, y, file = round(0.025 * width), round(0.025 * height), io.BytesIO()
    photo.crop((x, y, width - x, height - y)).save(file, "JPEG", quality=88)
    return file.getvalue()


def images(features, fold=0):
    """Images in memory, whose embeddings do not matter."""
    made = ArrayImages.read(features, np.arange(len(features), dtype=np.float32)[:, None])
    return made.placed(np.broadcast_to(fold, len(features)), np.arange(len(features)))


@pytest.fixture(scope="module")
def photos():
    """The head, and features: of the packaged reference, of photos, and of these changed."""
    classifier = singflow.Classifier.load(LITE0)
    paths = sorted(data_root("packaged", ".").glob("imagenet_*.jpg"))
    reference = singflow.packaged_reference().rows(f"features/{LITE0}").astype(np.float32)
    head = classifier.weight, classifier.bias
    own, copies = classifier.features(paths), classifier.features([*map(changed, paths)])
    assert len(own) == 20
    return head, reference, own, copies


def test_a_changed_photo_of_the_reference_is_a_near_copy_and_another_photo_is_none(photos):
    _, reference, own, copies = photos
    assert not near_copies(images(reference), images(own)).any()
    found = near_copies(images(np.concatenate([reference, own])), images(copies))
    assert found[507:].sum() >= 19 and not found[:507].any()
    halves = images(reference[::2]), images(reference[1::2])
    assert not near_copies(*halves).any()
    few = images(own[:19]), images(copies)  # too few for a limit: only the very same features
    assert not near_copies(*few).any() and near_copies(few[0], images(own)).all()


def test_copies_in_other_folds_are_counted_where_every_image_has_one_and_different_images_are_not(
    photos,
):
    head, reference, own, copies = photos
    fold = np.arange(507) % 5
    assert copies_across_folds(images(reference, fold), *head) == (0, 507)
    both = images(np.concatenate([own, copies]), np.repeat([0, 1], 20))
    assert copies_across_folds(both, *head)[0] >= 34
    assert copies_across_folds(
        images(np.concatenate([own, copies]), np.arange(40) % 20), *head
    ) == (0, 40)
    noise = np.random.default_rng(0).standard_normal(reference.shape) * reference.std() / 4
    twice = np.concatenate([reference, reference + noise.astype(np.float32)])
    every = images(twice, np.concatenate([fold, (fold + 1) % 5]))
    assert copies_across_folds(every, *head)[0] > 900
    some = images(twice[:607], np.concatenate([fold, (fold + 1) % 5])[:607])
    assert 180 < copies_across_folds(some, *head)[0] <= 200


@pytest.mark.parametrize("size", [2, 10])
def test_images_of_few_tight_classes_and_features_of_few_dimensions_are_no_copies(size):
    draw = np.random.default_rng(size).standard_normal
    means = draw((size, 64))
    tight = (4 * means[np.arange(900) % size] + draw((900, 64))).astype(np.float32)
    assert copies_across_folds(images(tight, np.arange(900) // size % 5), means, 0)[0] == 0
    assert not near_copies(images(tight[::2]), images(tight[1::2])).any()
    low = draw((900, 8)).astype(np.float32)
    assert copies_across_folds(images(low, np.arange(900) % 5), draw((size, 8)), 0)[0] < 9


def test_of_a_reference_that_holds_nothing_else_no_image_is_left():
    draw = np.random.default_rng(0).standard_normal
    whole = images(draw((30, 40)).astype(np.float32))
    with pytest.raises(InputError, match="reference: 30 of its 30 images are near copies"):
        without(whole, near_copies(whole, whole))


N, OWN, WIDTH, DIM = 80, 12, 24, 6


MADE = ["evidence", "planted_leaks", "evidence_groups", "evidence_images", "evidence_texts"]
MADE += ["own_words", "network_report"]


def write(folder, name, features, embeddings, fold, order):
    """A study or a reference, with its images in two shards and in this order."""
    results = Results(folder / name, shards=2)
    hashes = [hashlib.sha256(row.tobytes()).hexdigest() for row in features]
    paths = [f"{row[0]:.6f}.jpg" for row in features]
    split = np.where(fold, "train", "validation")
    results.manifest(label="x", split=split, fold=fold, sha256=hashes, path=paths)
    made = {"weights_sha256": "x", "decode": "full", "precision": "float32"}
    made["tower"] = json.dumps({"source": "open_clip", "id": "x"})
    for shard, rows in enumerate(np.array_split(order, 2)):
        for kind, array in (("features", features), ("embeddings", embeddings)):
            places = {"image_id": rows, "view": np.zeros(len(rows), np.int32)}
            path = shard_path(results.path(kind).parent, shard)
            write_tensors(path, {kind: array[rows], **places}, made)
    return results


def test_a_reference_without_near_copies_gives_all_that_the_steps_make_with_them(tmp_path):
    draw = np.random.default_rng(3).standard_normal
    x, z, weight = draw((N, WIDTH)), draw((N, DIM)), draw((5, WIDTH)).astype(np.float32)
    x, z = x.astype(np.float32), (z + x[:, :DIM]).astype(np.float32)
    copied, fold, order = np.array([3, 4, 31, 77]), np.arange(N) % 5, np.random.default_rng(5)
    own = x[:OWN] + 9 * np.roll(x[:OWN], 5, axis=1)
    own[:4] = x[copied] + 0.05 * draw((4, WIDTH))
    order, rest = order.permutation(N), np.setdiff1d(np.arange(N), copied)
    number = np.empty(N, int)
    number[rest] = np.arange(N - 4)
    write(tmp_path, "with", x, z, fold, order)
    write(tmp_path, "without", x[rest], z[rest], fold[rest], number[order[np.isin(order, rest)]])
    study = write(tmp_path, "own", own.astype(np.float32), z[:OWN], fold[:OWN], np.arange(OWN))
    study.tensors("head", weight=weight, bias=np.zeros(5, np.float32))
    study.tensors("projector", null_basis=null_space(weight).basis)
    unnamed, some = np.zeros((0, DIM), np.float32), draw((2, DIM)).astype(np.float32)
    both = {"class_embeddings": unnamed, "other_embeddings": unnamed}
    study.tensors("classes", {"class_names": "[]"}, **both)
    names = {"labels": ["x"], "concepts": ["y"]}
    study.texts(names, label_embeddings=some[:1], concept_embeddings=some[1:])
    fits = {"lambdas": [0.1, 1.0], "folds": 5}
    told = {"margin": 0.005, "draws": 2, "confidence": 0.9, "groups": None, "seed": 0}
    told |= {"table": tmp_path, "class_list": tmp_path} | fits
    made = {}
    for name in ("with", "without"):
        reference = str(tmp_path / name)
        study.run("fit_translator", kind="linear", imported=[], reference=reference, **fits)
        report = dict(study.read("translator_report"))
        left_out, reported = report.pop("left_out"), report.pop("reference")
        assert reported == reference
        assert left_out == ([f"{x[row][0]:.6f}.jpg" for row in copied] if name == "with" else [])
        study.run("measure_evidence", reference=reference, **told)
        settings = Training(losses=["mse"], epochs=2, width=8).model_dump()
        study.run("train_translator", kind="mlp3", reference=reference, device="cpu", seed=0,
                  **settings)  # fmt: skip
        paths = [study.path(name, kind="mlp3") for name in MADE]
        made[name] = [report, *(path.read_bytes() for path in paths)]
    assert made["with"] == made["without"] and report["n_train"] == N - 4
    assert report["near_copies"] is None and report["permuted_r2"] < 0.05 < 0.1
    assert study.read("evidence")["n"] == N - 4 + OWN

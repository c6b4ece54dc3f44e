import numpy as np
import pandas as pd
import pytest

from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import angle_deg
from singflow.analyses.null_validation import PERTURBATIONS
from singflow.errors import InputError
from singflow.pictures.selection import (
    ORIGINAL,
    REMOVED,
    STEERED,
    SteeredHead,
    Subject,
    choose_images,
    perturbation_pictures,
    removal_pictures,
    steering_pictures,
)
from singflow.translators.ridge import Affine

RANDOM = np.random.default_rng(0)
WEIGHT, BIAS = RANDOM.standard_normal((6, 10)), RANDOM.standard_normal(6)
HEAD = SteeredHead(WEIGHT, BIAS, null_space(WEIGHT).basis)
FULL = SteeredHead(RANDOM.standard_normal((12, 10)), RANDOM.standard_normal(12), np.empty((10, 0)))
TRANSLATOR = Affine(RANDOM.standard_normal((5, 10)), RANDOM.standard_normal(5))
TEXTS = {
    "an image of a jellyfish": RANDOM.standard_normal(5),
    "an image of a dog": RANDOM.standard_normal(5),
}
SUBJECT = Subject(
    3, "pelican", RANDOM.standard_normal(10).astype(np.float32), RANDOM.standard_normal(5)
)


def norms(pictures):
    return [
        np.linalg.norm(picture.embedding) for picture in pictures if picture.embedding is not None
    ]


def test_the_equivalent_image_has_the_originals_logits_and_norm_and_the_image_score_of_null_removal():  # noqa: E501
    original, removed = removal_pictures("fig1", SUBJECT, HEAD, TRANSLATOR, "linear")
    wide = SUBJECT.feature.astype(np.float64)
    equivalent = wide - HEAD.basis @ (HEAD.basis.T @ wide)
    before, after = (
        TRANSLATOR.weight.astype(np.float64) @ f + TRANSLATOR.bias for f in (wide, equivalent)
    )
    assert (original.change, removed.change, original.is_deg, original.logit_change) == (
        ORIGINAL,
        REMOVED,
        0.0,
        0.0,
    )
    assert original.embedding == pytest.approx(before, rel=1e-9)
    assert removed.is_deg == pytest.approx(
        np.degrees(np.arccos(before @ after / np.linalg.norm(before) / np.linalg.norm(after))),
        abs=1e-3,
    )
    assert removed.embedding / np.linalg.norm(removed.embedding) == pytest.approx(
        after / np.linalg.norm(after), abs=1e-5
    )
    assert norms([original, removed]) == pytest.approx([np.linalg.norm(before)] * 2, rel=1e-9)
    text = SUBJECT.label_text
    assert removed.as_label_deg == pytest.approx(
        float(angle_deg(before, text) - angle_deg(after, text)), abs=1e-3
    )
    assert 0 < removed.logit_change < 1e-5


def test_perturbations_are_the_null_the_random_and_the_principal_one():
    pictures = perturbation_pictures("fig13", SUBJECT, HEAD, TRANSLATOR, "linear", 7)
    assert [picture.change for picture in pictures] == [ORIGINAL, *PERTURBATIONS]
    assert pictures[1].is_deg == pytest.approx(
        removal_pictures("fig1", SUBJECT, HEAD, TRANSLATOR, "linear")[1].is_deg, abs=1e-4
    )
    assert (
        pictures[1].logit_change < 1e-5 < 0.1 < pictures[2].logit_change < pictures[3].logit_change
    )
    assert norms(pictures) == pytest.approx([norms(pictures)[0]] * 4)


def test_steering_reaches_each_wanted_angle_and_says_what_it_cannot_reach():
    pictures = steering_pictures(
        "fig10", SUBJECT, HEAD, TRANSLATOR, "linear", TEXTS, [3.0, 12.0, 179.0]
    )
    assert [(picture.text, picture.target_is_deg) for picture in pictures[1:]] == [
        (text, target) for text in TEXTS for target in (3.0, 12.0, 179.0)
    ]
    for picture in pictures[1:]:
        assert picture.change == STEERED
        if picture.target_is_deg == 179.0:
            assert (
                picture.embedding is None
                and np.isnan(picture.is_deg)
                and np.isnan(picture.logit_change)
            )
        else:
            assert (
                picture.is_deg == pytest.approx(picture.target_is_deg, abs=1e-3)
                and picture.logit_change < 1e-4
            )
            nearer = angle_deg(pictures[0].embedding, TEXTS[picture.text]) - angle_deg(
                picture.embedding, TEXTS[picture.text]
            )
            assert (
                picture.as_text_deg == pytest.approx(float(nearer), abs=1e-6)
                and picture.as_text_deg > 0
            )
    assert norms(pictures) == pytest.approx([norms(pictures)[0]] * 5)


def test_without_a_null_space_nothing_moves_and_no_angle_is_reached():
    original, removed = removal_pictures("fig1", SUBJECT, FULL, TRANSLATOR, "linear")
    assert removed.is_deg == removed.as_label_deg == 0 and np.array_equal(
        original.embedding, removed.embedding
    )
    assert all(
        picture.embedding is None
        for picture in steering_pictures("fig6", SUBJECT, FULL, TRANSLATOR, "linear", TEXTS, [5.0])[
            1:
        ]
    )
    still = perturbation_pictures("fig13", SUBJECT, FULL, TRANSLATOR, "linear", 0)
    assert [picture.is_deg for picture in still] == pytest.approx([0.0] * 4, abs=1e-6)


def test_without_prompts_only_the_original_is_shown():
    assert [
        picture.change
        for picture in steering_pictures("fig6", SUBJECT, HEAD, TRANSLATOR, "linear", {}, [5.0])
    ] == [ORIGINAL]


def manifest(n=12):
    labels = ["a", "b", "c", "a"] * (n // 4)
    columns = {
        "image_id": range(n),
        "path": [f"{i}.jpg" for i in range(n)],
        "label": labels,
        "sha256": [f"{i:064x}" for i in range(n)],
    }
    return pd.DataFrame(columns)


def test_images_are_drawn_by_seed_and_content_over_as_many_labels_as_can_be():
    frame = manifest()
    assert set(choose_images(frame, [], 3, 0)["label"]) == {"a", "b", "c"}
    drawn = [tuple(choose_images(frame, [], 3, seed)["image_id"]) for seed in range(5)]
    assert len(set(drawn)) > 1 and drawn[0] == tuple(choose_images(frame, [], 3, 0)["image_id"])
    shuffled = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    assert list(choose_images(shuffled, [], 5, 0)["sha256"]) == list(
        choose_images(frame, [], 5, 0)["sha256"]
    )
    assert sorted(choose_images(frame, [], 99, 0)["image_id"]) == list(range(12))


def test_named_images_come_in_their_order_and_unknown_ones_are_refused():
    assert list(choose_images(manifest(), ["7.jpg", "2.jpg"], 1, 0)["image_id"]) == [7, 2]
    with pytest.raises(InputError, match=r"pictures.images: x.jpg: not in the manifest"):
        choose_images(manifest(), ["7.jpg", "x.jpg"], 1, 0)

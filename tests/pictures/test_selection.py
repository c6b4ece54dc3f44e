from functools import partial

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import angle_deg
from singflow.analyses.null_validation import PERTURBATIONS
from singflow.pictures import selection
from singflow.pictures.selection import ORIGINAL, REMOVED, STEERED, SteeredHead, choose_images
from singflow.translators.ridge import Affine
from tests.refusals import refused

RANDOM = np.random.default_rng(0)
WEIGHT, BIAS = RANDOM.standard_normal((6, 10)), RANDOM.standard_normal(6)
HEAD = SteeredHead(WEIGHT, BIAS, null_space(WEIGHT).basis)
FULL = SteeredHead(RANDOM.standard_normal((12, 10)), RANDOM.standard_normal(12), np.empty((10, 0)))
TRANSLATOR = Affine(RANDOM.standard_normal((5, 10)), RANDOM.standard_normal(5))
JELLYFISH, DOG, TEXT = RANDOM.standard_normal((3, 5))
TEXTS = {"an image of a jellyfish": JELLYFISH, "an image of a dog": DOG}
SUBJECT = selection.Subject(3, "pelican", RANDOM.standard_normal(10).astype(np.float32), TEXT)
SHOWN = {"translate": TRANSLATOR}
removal = partial(selection.removal_pictures, "fig1", SUBJECT, **SHOWN)
perturbation = partial(selection.perturbation_pictures, "fig13", SUBJECT, **SHOWN, seed=7)
steering = partial(selection.steering_pictures, "fig6", SUBJECT, translator=TRANSLATOR)


def norms(pictures):
    return [np.linalg.norm(shown.embedding) for shown in pictures if shown.embedding is not None]


def test_the_equivalent_image_has_the_originals_logits_and_norm_and_the_score_of_null_removal():
    original, removed = removal(head=HEAD)
    wide = SUBJECT.feature.astype(np.float64)
    equivalent = wide - HEAD.basis @ (HEAD.basis.T @ wide)
    before, after = (TRANSLATOR.weight @ f + TRANSLATOR.bias for f in (wide, equivalent))
    length, shorter = np.linalg.norm(before), np.linalg.norm(after)
    assert (original.change, original.is_deg, original.logit_change) == (ORIGINAL, 0.0, 0.0)
    assert original.embedding == pytest.approx(before, rel=1e-9) and removed.change == REMOVED
    turned = np.degrees(np.arccos(before @ after / length / shorter))
    assert removed.is_deg == pytest.approx(turned, abs=1e-3)
    assert removed.embedding == pytest.approx(after * length / shorter, abs=1e-4)
    assert norms([original, removed]) == pytest.approx([length] * 2, rel=1e-9)
    nearer = float(angle_deg(before, TEXT) - angle_deg(after, TEXT))
    assert removed.as_label_deg == pytest.approx(nearer, abs=1e-3)
    assert 0 < removed.logit_change < 1e-5


def test_perturbations_are_the_null_the_random_and_the_principal_one():
    pictures = perturbation(head=HEAD)
    assert [picture.change for picture in pictures] == [ORIGINAL, *PERTURBATIONS]
    assert pictures[1].is_deg == pytest.approx(removal(head=HEAD)[1].is_deg, abs=1e-4)
    null, random, principal = (picture.logit_change for picture in pictures[1:])
    assert null < 1e-5 < 0.1 < random < principal
    assert norms(pictures) == pytest.approx([norms(pictures)[0]] * 4)


def test_steering_reaches_each_wanted_angle_and_says_what_it_cannot_reach():
    targets = [3.0, 12.0, 179.0]
    original, *pictures = steering(head=HEAD, texts=TEXTS, targets_deg=targets)
    found = [(picture.change, picture.text, picture.target_is_deg) for picture in pictures]
    assert found == [(STEERED, text, target) for text in TEXTS for target in targets]
    for picture in pictures:
        if picture.target_is_deg == 179.0:
            assert picture.embedding is None
            assert np.isnan([picture.is_deg, picture.as_text_deg, picture.logit_change]).all()
            continue
        assert picture.is_deg == pytest.approx(picture.target_is_deg, abs=1e-3)
        text = TEXTS[picture.text]
        nearer = float(angle_deg(original.embedding, text) - angle_deg(picture.embedding, text))
        assert picture.as_text_deg == pytest.approx(nearer, abs=1e-6) and nearer > 0
        assert picture.logit_change < 1e-4
    assert norms(pictures) == pytest.approx(norms([original]) * 4)
    assert len(steering(head=HEAD, texts={}, targets_deg=[5.0])) == 1


def test_without_a_null_space_nothing_moves_and_no_angle_is_reached():
    original, removed = removal(head=FULL)
    assert removed.is_deg == removed.as_label_deg == 0
    assert np.array_equal(original.embedding, removed.embedding)
    _, *steered = steering(head=FULL, texts=TEXTS, targets_deg=[5.0])
    assert [picture.embedding for picture in steered] == [None, None]
    still = [picture.is_deg for picture in perturbation(head=FULL)]
    assert still == pytest.approx([0.0] * 4, abs=1e-6)


FRAME = pd.DataFrame({"image_id": range(12), "label": ["a", "b", "c", "a"] * 3})
FRAME = FRAME.assign(path=[f"{i}.jpg" for i in range(12)], sha256=[f"{i:064x}" for i in range(12)])


def test_images_are_drawn_by_seed_and_content_over_as_many_labels_as_can_be():
    assert set(choose_images(FRAME, [], 3, 0)["label"]) == {"a", "b", "c"}
    drawn = [tuple(choose_images(FRAME, [], 3, seed)["image_id"]) for seed in (0, 0, 1, 2, 3)]
    assert len(set(drawn)) > 1 and drawn[0] == drawn[1]
    shuffled = FRAME.sample(frac=1, random_state=0).reset_index(drop=True)
    ours, theirs = (choose_images(frame, [], 5, 0)["sha256"] for frame in (FRAME, shuffled))
    assert list(ours) == list(theirs)
    assert sorted(choose_images(FRAME, [], 99, 0)["image_id"]) == list(range(12))


def test_named_images_come_in_their_order_and_unknown_ones_are_refused():
    assert list(choose_images(FRAME, ["7.jpg", "2.jpg"], 1, 0)["image_id"]) == [7, 2]
    message = r"pictures.images: x.jpg: not in the manifest"
    refused(message, choose_images, FRAME, ["7.jpg", "x.jpg"], 1, 0)

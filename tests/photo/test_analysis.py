"""A handmade study of a few random parts; what the command says is recomputed from its files."""

import itertools
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
import torch
import yaml
from PIL import Image
from timm.data import create_transform, resolve_data_config

from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors
from singflow.errors import InputError
from singflow.photo.analysis import Movement, _chance_range, beyond, chance_most
from singflow.photo.facts import conclude
from singflow.towers.classifiers import load_classifier, weights_sha256
from singflow.towers.spaces import load_text_tower
from singflow.towers.texts import stored_texts
from tests.photo.handmade import (
    ENTRY,
    FIVE,
    MODEL,
    SETTING,
    SPACE,
    TARGET,
    N,
    analysis_of,
    judge,
    unit_rows,
    write_texts,
)


def recompute(study, image):
    """Feature by timm's parts, and its translations before and after an explicit projector."""
    model = load_classifier(ENTRY).model
    transform = create_transform(**resolve_data_config({}, model=model), is_training=False)
    view = transform(Image.open(study.folder.parents[1] / image).convert("RGB"))
    with torch.inference_mode():
        feature = model.forward_head(model.forward_features(view[None]), pre_logits=True)
    feature = feature.flatten().double().numpy()
    parts = (study.path(part) for part in ("head", "translator"))
    head, translator = (read_tensors(path, ["weight", "bias"])[0] for path in parts)
    basis = scipy.linalg.null_space(head["weight"].astype(np.float64))
    equivalent = feature - basis @ (basis.T @ feature)
    wide = translator["weight"].astype(np.float64)
    before, after = (wide @ vector + translator["bias"] for vector in (feature, equivalent))
    return feature, equivalent, head["weight"] @ feature + head["bias"], before, after


def degrees(a, b):
    return float(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))


def assert_moved(ours, text, before, after, embedding):
    a, b = degrees(before, embedding), degrees(after, embedding)
    assert ours["text"] == text
    found = [ours[name] for name in ("angle_original_deg", "angle_equivalent_deg", "as_deg")]
    assert found == pytest.approx([a, b, a - b], abs=2e-4)


def test_every_number_is_that_of_a_direct_computation(study):
    texts = {
        "concept 3": ("concept_embeddings", 3), "an image of a bee": ("label_embeddings", 1),
        "a moose": ("label_embeddings", 4), TARGET: ("target_embeddings", 0),
    }  # fmt: skip
    (record,) = study.analyze("two.jpg", text=[*texts, "a moose"])
    feature, equivalent, logits, before, after = recompute(study, "two.jpg")
    order = np.argsort(-logits)
    said = pd.DataFrame(record["predictions"])
    assert list(said["index"]) == list(order) and list(said["name"]) == [FIVE[i] for i in order]
    shares = scipy.special.softmax(logits)[order]
    assert said["probability"].tolist() == pytest.approx(shares, abs=1e-5)
    energy = 1 - (equivalent @ equivalent) / (feature @ feature)
    assert record["null_energy"] == pytest.approx(energy, abs=1e-5) and energy > 0.1
    assert record["is_deg"] == pytest.approx(degrees(before, after), abs=2e-4)
    assert record["is_deg"] > 5 and 0 <= record["logit_change"] < 1e-4
    assert record["chance_is_deg"] is None and not record["judged"] and record["unlike"] == ""
    tensors = read_tensors(study.path("texts"), sorted({kind for kind, _ in texts.values()}))[0]
    best = order[0]
    own = "a moose" if FIVE[best] == "elk" else f"an image of a {FIVE[best]}"
    assert_moved(record["predicted"], own, before, after, tensors["label_embeddings"][best])
    for ours, (text, (kind, row)) in zip(record["texts"], texts.items(), strict=True):
        assert_moved(ours, text, before, after, tensors[kind][row])
    scores = study.read("scores")
    for name in ("is_deg", "null_energy"):
        place = scipy.stats.percentileofscore(scores[name], record[name], "mean")
        assert record[name.replace("_deg", "") + "_percentile"] == pytest.approx(place)
    assert record["setting"] == {
        "source": "study tiny", "model": MODEL, "space": "conse_minilm", "rank_rule": "exact",
        "null_dim": len(feature) - 5, "validation_r2": 0.125, "translator": "weak",
        "images": f"{N} images", "n_images": N, "n_evidence": 17, "verdict": "nothing found",
        "said": f"{MODEL}: no reason to keep the features: 17 images show nothing in its null "
        "space (a leak of 3 %, spread evenly, would show)", "classes": "",
    }  # fmt: skip


def test_a_study_that_asked_for_no_scores_has_no_percentiles_and_all_else(study):
    (record,) = study.analyze("two.jpg")
    params = yaml.safe_load(study.path("params").read_text())
    study.path("params").write_text(yaml.safe_dump(params | {"analyses": []}))
    study.path("scores").write_bytes(b"of an earlier study")
    none = dict.fromkeys(["is_percentile", "null_energy_percentile"])
    none["setting"] = record["setting"] | {"images": "0 images", "n_images": 0}
    assert study.analyze("two.jpg") == [record | none]


@pytest.mark.parametrize("verdict", ["meaning", "known leak: found", "trace"])
def test_what_the_study_found_hidden_is_named_only_where_it_found_meaning(study, capsys, verdict):
    judge(study, verdict)
    size = {"unique_r2": [0.3, -0.01], "unique_r2_low": 0.1, "unique_r2_high": 0.4, "p": [0.01, 1]}
    found = pd.DataFrame(size | {"hidden": [True, False]}).astype({"p": float})
    write_parquet(study.path("evidence_texts"), found.assign(text=["<b>", "fur"], kind="label"))
    write_parquet(study.path("evidence_groups"), found[:0].assign(group="", by="", n=1))
    (record,) = study.analyze("one.png")
    said, looked_at = record["setting"]["said"], verdict != "trace"
    assert ("<b> first (1 of 2 texts are hidden)" in said) == looked_at
    assert f"\n  of the model, not of this photo: {said}\n" in capsys.readouterr().out


def movements_of(scores):
    numbered = enumerate(scores)
    return [Movement(f"text {row}", 60.0 + each, 60.0, each, each) for row, each in numbered]


def test_texts_are_gained_or_lost_where_no_draw_is_as_far_from_the_others_toward_any_text():
    generator = np.random.default_rng(2)
    chance = generator.normal(0, 0.2, (20, 30)) + np.linspace(-1, 1, 30)
    middle, draws = chance.mean(axis=0), range(20)
    others = [np.delete(chance, draw, 0).mean(axis=0) for draw in draws]
    least = max(abs(chance[draw] - others[draw]).max() for draw in draws)
    scores = middle.copy()
    scores[[3, 5, 20, 25]] += np.array([-1.01, 1.01, 1.01, 0.99]) * least
    scores[28] = middle[28] - 1.2 * least  # less than chance, but still nearer
    gained, lost = beyond(movements_of(scores), scores, chance, 5)
    assert [moved.text for moved in lost] == ["text 3"] and middle[28] > 1.3 * least
    wanted = [row for row in sorted((5, 20), key=lambda row: -scores[row]) if scores[row] > 0]
    assert [moved.text for moved in gained] == [f"text {row}" for row in wanted]
    assert len(beyond(movements_of(scores), scores, chance, 1)[0]) == 1
    assert beyond(movements_of(scores), scores, chance[:0], 5) == ([], [])


def test_of_draws_and_a_photo_that_are_alike_one_in_all_lists_a_text():
    generator = np.random.default_rng(3)
    listed = 0
    for _ in range(300):
        scores, *chance = generator.normal(0, 1, (21, 40))
        listed += any(beyond(movements_of(scores), scores, np.array(chance), 5))
    assert 3 < listed <= 26  # 300 / 21 or fewer, as a list needs the sign as well


@pytest.mark.parametrize("draws", [2, 20])
def test_of_draws_and_a_score_that_are_alike_1_score_in_20_is_beyond_chance(draws):
    scores, *chance = np.random.default_rng(4).normal(3, 2, (1 + draws, 10_000))
    low, high = _chance_range(np.array(chance))
    lowest, highest = scipy.stats.binom.ppf([0.001, 0.999], len(scores), 0.05)
    assert lowest <= np.sum((scores < low) | (scores > high)) <= highest


@pytest.mark.parametrize("draws", [2, 20])
def test_of_draws_and_a_photo_that_are_alike_1_photo_in_20_moves(draws):
    turned, *chance = np.random.default_rng(5).lognormal(2, 0.2, (1 + draws, 4000))
    moves = sum(turned > np.apply_along_axis(chance_most, 0, chance))
    lowest, highest = scipy.stats.binom.ppf([0.001, 0.999], len(turned), 0.05)
    assert lowest <= moves <= highest


def test_several_images_at_once_are_each_alone_and_a_second_run_gives_the_same_bytes(study, capsys):
    Path("two.jpg").rename("ONE.jpg")
    together = study.analyze("ONE.jpg", "one.png")
    assert [Path(entry["image"]).name for entry in together] == ["ONE.jpg", "one.png"]
    said = capsys.readouterr()
    (alone,) = study.analyze("one.png", output="alone")
    assert alone == together[1] and alone["predicted"] != together[0]["predicted"]
    assert said.out.endswith(capsys.readouterr().out) and "2/2" in said.err
    written = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    ends = "json", "png"
    assert sorted(written) == [f"{name}.{end}" for name in ("ONE", "one-2") for end in ends]
    assert Path("alone/one.png").read_bytes() == written["one-2.png"]
    assert min(Image.open("alone/one.png").size) > 400 and not plt.get_fignums()


def test_classes_are_those_of_the_study_or_of_the_list_that_is_named(study):
    head, facts = read_tensors(study.path("head"), ["weight", "bias"])
    study.tensors("head", facts | {"class_names": "null"}, **head)
    params = yaml.safe_load(study.path("params").read_text())
    params["data"]["classes"] = "mine.csv"
    study.path("params").write_text(yaml.safe_dump(params))
    header, rows = "class_index,synset,name\n", [f"{i},,{name}\n" for i, name in enumerate(FIVE)]
    Path("mine.csv").write_text(header + "".join(rows))
    Path("four.csv").write_text(header + rows[0])
    record = study.analyze("one.png", output="by_params")
    assert record == study.analyze("one.png", classes=Path("mine.csv"))
    words = (
        r"four.csv: holds 1 classes, but .*tiny.net.safetensors has 5: name the study's with --cl"
    )
    with pytest.raises(InputError, match=words):
        study.analyze("one.png", classes=Path("four.csv"))


def test_texts_that_the_study_lacks_are_embedded_by_its_text_tower(study):
    tower = load_text_tower(SPACE)
    templates = ["an image of a {}", "a photo of one {}"]
    write_texts(study, ["house"], templates, weights_sha256(tower.module))
    (record,) = study.analyze("one.png", text=["a rug", "concept 1"])
    *_, before, after = recompute(study, "one.png")
    assert_moved(record["texts"][0], "a rug", before, after, tower.embed(["a rug"])[0])
    name = record["predictions"][0]["name"]
    pair = tower.embed([template.replace("{}", name) for template in templates]).mean(axis=0)
    assert_moved(record["predicted"], f"{name} (2 templates)", before, after, pair)
    write_texts(study, ["house"], templates, "other weights")
    words = r"conse_minilm.safetensors: was made with weights other weight of the text tower"
    with pytest.raises(InputError, match=words):
        study.analyze("one.png")


def test_a_text_is_found_word_for_word_and_an_average_is_the_embedding_of_no_text():
    names = {"labels": ["owl", "elk"], "concepts": ["ear"], "targets": ["ear"]}
    tensors = {
        f"{kind[:-1]}_embeddings": unit_rows(2, 4, len(kind))[: len(names[kind])] for kind in names
    }
    prompts = {"owl": "an image of a owl", "elk": "a moose"}
    texts, of_labels = stored_texts(names, tensors, ["see a(n) {}"], ["some {}"], prompts)
    assert list(texts) == ["ear", "some ear", "see an owl", "a moose"]
    assert of_labels == ["see an owl", "a moose"]
    assert np.array_equal(texts["some ear"], tensors["concept_embeddings"][0])
    assert np.array_equal(texts["a moose"], tensors["label_embeddings"][1])
    texts, of_labels = stored_texts(names, tensors, ["a {}", "the {}"], ["some {}", "{}"], prompts)
    assert list(texts) == ["ear", "a moose"] and of_labels == ["owl (2 templates)", "a moose"]


def test_a_head_without_null_space_scores_zero_and_it_is_said(study, capsys):
    width = len(read_tensors(study.path("projector"), ["null_basis"])[0]["null_basis"])
    none = dict.fromkeys(("unique_r2", "turn_deg", "blind_unique_r2"))
    judge(study, "no null space", **none)
    study.tensors("projector", null_basis=np.zeros((width, 0)))
    record, _ = study.analyze("one.png", "two.jpg", text=["concept 1"])
    (text,), (way,), said = record["texts"], record["reach"], record["setting"]["said"]
    zeros = [record[name] for name in ("is_deg", "null_energy", "logit_change")]
    assert zeros == [way["limit_deg"], record["predicted"]["as_deg"], text["as_deg"]] == [0.0] * 3
    assert record["is_percentile"] is record["null_energy_percentile"] is None
    assert record["gained"] == record["lost"] == [] and "the head has no null space" in said
    told = capsys.readouterr().out
    assert "steered toward 'concept 1': the null space offers no way there" in told and said in told
    none = "no maps: the head has no null space, so it ignores nothing"
    assert record["maps"] is None and record["no_maps"] == none and f"\n  {none}\n" in told


def inside(axis, place):
    low, high = sorted(axis.get_view_interval())
    return low <= place <= high


def assert_nothing_overlaps(figure):
    """No text is on another text or on a picture, or leaves the page."""
    figure.canvas.draw()
    axes = [(panel.axison, axis) for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    ticks = [(shown, axis, tick) for shown, axis in axes for tick in axis.get_major_ticks()]
    unseen = {
        id(tick.label1)
        for shown, axis, tick in ticks
        if not (shown and inside(axis, tick.get_loc()))
    }
    texts = [text for text in figure.findobj(plt.Text) if text.get_visible() and text.get_text()]
    boxes = [
        (text.get_text(), text.get_window_extent()) for text in texts if id(text) not in unseen
    ]
    page = figure.bbox
    pictures = [image.get_window_extent() for panel in figure.axes for image in panel.images]
    for name, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1, name
        assert page.y0 <= box.y0 and box.y1 <= page.y1, name
        assert not any(box.overlaps(picture) for picture in pictures), name
    for (name, first), (other_name, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (name, other_name)


def test_the_first_sentence_concludes_from_the_facts_that_follow():
    near = analysis_of("cat", 0, 0).nearest[0]
    not_judged = {"judged": False, "chance_most_deg": None}
    zero = replace(SETTING, verdict="known zero", said="tiny: known zero")
    for changes, words in (
        (
            {"nearest": (near, near)},
            "turned farther than by chance, though 'a jeep' stays nearest.",
        ),
        ({"setting": replace(SETTING, null_dim=0)}, "ignores nothing: it has no null space."),
        (not_judged | {"unlike": "it is odd"}, "unlike the images of the translator: it is odd."),
        (not_judged | {"setting": zero}, "This photo is not judged. tiny: known zero."),
        (not_judged, "This photo is not judged, because the images that the translator was"),
    ):
        assert words in conclude(analysis_of("cat", 0, 0, **changes)), changes

"""Real weights, the packaged reference, and a study on that reference which contains the photos."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import singflow
from singflow import sources
from singflow.analyses.metrics import angle_deg
from singflow.artifacts.files import sha256_of
from singflow.cli import limit_threads
from singflow.commands.analyze import analyze as command
from singflow.errors import InputError
from singflow.photo.analysis import chance_most
from singflow.photo.analyzer import IN_SAMPLE, UNTOLD, Analyzer
from singflow.sources import file_evidence
from tests.photo.conftest import LEAK, MODEL, SCORES, SPACE, ZERO

TEXTS = ["a rug", "an image of a jellyfish"]
TRANSLATOR = Path(f"results/demo/translators/{SPACE}/{MODEL}/linear.safetensors")


@pytest.fixture(scope="module")
def analyzer(home):
    limit_threads(1)
    return Analyzer.load(MODEL)


@pytest.fixture(scope="module")
def animals(home):
    """With the head for animals, which hides something of every photo."""
    return Analyzer.load(LEAK)


@pytest.fixture(scope="module")
def photos(packaged):
    root, manifest = packaged
    return [root / path for path in manifest["path"]]


@pytest.fixture(scope="module")
def labels(home):
    return json.loads(Path(f"results/demo/prompts/{SPACE}.json").read_text())["labels"]


@pytest.fixture(scope="module")
def results(analyzer, photos, labels):
    texts = [f"an image of a {label}" for label in labels]
    return [analyzer.analyze(photo, texts) for photo in photos]


def test_the_numbers_are_those_of_a_study_in_which_the_photo_is_an_image(results, labels):
    scores = pd.read_parquet(SCORES)
    for result, row in zip(results, scores.to_dict("records"), strict=True):
        toward = np.array([score.as_deg for score in result.texts])
        own = labels.index(row["label"])
        contrast = toward[own] - np.delete(toward, own).mean()
        ours = [result.is_deg, result.null_energy, toward[own], contrast]
        names = ["is_deg", "null_energy", "as_deg", "as_contrast_deg"]
        assert ours == pytest.approx([row[name] for name in names], abs=1e-5)
        assert result.predictions[0].index == row["predicted_index"]
        # The study's own images enter own words, beside the reference's.
        assert result.chance_is_deg == pytest.approx(row["floor_is_deg"], abs=0.3)


def test_no_model_of_the_reference_tells_more_than_it_knows(analyzer, results):
    setting = analyzer.setting
    assert setting.verdict == "nothing found"
    assert setting.said.startswith("efficientnet_lite0: no reason to keep the features")
    listed = [bool(result.classes_gained or result.classes_lost) for result in results]
    moves = [result.moves for result in results]
    assert all(result.judged for result in results) and sum(moves) <= 4  # 1 in 20 by chance
    assert not any(words > turned for words, turned in zip(listed, moves, strict=True))
    for result in results:
        assert result.predicted.chance_low_deg < result.predicted.chance_high_deg


def test_a_jeep_loses_its_meaning_in_the_head_for_animals_and_the_facts_say_why(animals, photos):
    (jeep,) = [photo for photo in photos if photo.name == "imagenet_07_609.jpg"]
    result = animals.analyze(jeep)
    first, *facts = repr(result).splitlines()
    words = r"For this photo the head of animals_lite0 loses meaning: .* to '(.*)' than to '(.*)'\."
    after, before = re.fullmatch(words, first).groups()
    known = animals.classifier.class_names
    assert after in known and before not in known and result.to_dict()["conclusion"] == first
    assert f"nearest text: {before!r} before removal" in "\n".join(facts)
    is_deg, *_, most = map(float, re.findall(r"\d+\.\d\d", next(x for x in facts if "IS" in x)))
    assert is_deg > most
    assert "  the head knows 398 of 1,000 classes alone, such as tench, bittern and mi" in repr(
        result
    )


def share_that_moves(analyzer, features):
    """The share of photos with these features that move beyond chance, whatever the verdict."""
    fits, moves = analyzer.evidence.fits, 0
    for row in features[:, None]:
        is_deg = singflow.remove(row, analyzer.evidence.fitted, analyzer.removed).image_score()[0]
        alike = not fits.unlike(row, analyzer.basis)
        moves += alike and is_deg > chance_most(fits.chance_removal(row).image_score())
    return moves / len(features)


def test_of_200_photos_a_known_zero_moves_1_in_20_and_the_head_for_animals_most_of_things(animals):
    reference = singflow.packaged_reference()
    rows = np.random.default_rng(0).permutation(507)[:200]
    lite0, lite2 = (reference.rows(f"features/{name}")[rows] for name in (MODEL, ZERO))
    animal = (reference.table("data/manifest")["class_index"] < 398).to_numpy()[rows]
    assert share_that_moves(Analyzer.load(ZERO), lite2.astype(np.float32)) <= 0.05
    of_animals, of_things = (lite0[mine].astype(np.float32) for mine in (animal, ~animal))
    assert share_that_moves(animals, of_animals) < 0.1 < 0.6 < share_that_moves(animals, of_things)


def test_a_text_has_a_map_where_its_score_is_beyond_chance_and_the_positions_sum_to_it(
    animals, photos
):
    texts, drawn = [*TEXTS, "a dog", "a chair", "a building", "food"], 0
    for photo in photos:
        result = animals.analyze(photo, texts)
        beyond = [text for text in result.texts if result.moves and text.beyond_chance]
        maps = result.maps.texts if result.maps else []
        assert [text.text for text in maps] == [text.text for text in beyond]
        assert bool(result.no_maps) == (not maps)
        for own, score in zip(maps, beyond, strict=True):
            total = own.contribution_deg.sum() + own.rest_deg
            assert total == pytest.approx(score.as_deg, abs=1e-3)
        drawn += len(maps)
    assert 0 < drawn < len(photos) * len(texts)


@pytest.mark.parametrize("loaded", ["analyzer", "animals"])
def test_of_uniform_noise_nothing_is_claimed(request, loaded):
    for seed, size in enumerate((100, 375, 800)):
        noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        result = request.getfixturevalue(loaded).analyze(Image.fromarray(noise), TEXTS)
        assert result.unlike and not result.judged
        assert result.chance_is_deg is result.texts[0].chance_low_deg is None
        assert not (result.classes_gained or result.classes_lost or result.maps)
        assert "because it is unlike the 507 images" in result.no_maps
        said = repr(result)
        assert said.startswith("Nothing can be said about this photo, which is unlike the images")
        assert "beyond chance" not in said


def test_a_finished_study_on_the_same_reference_gives_the_same(analyzer, photos):
    study = Analyzer.load(MODEL, results="results/demo")
    ours, theirs = (source.analyze(photos[4], TEXTS) for source in (analyzer, study))
    for name in ("is_deg", "null_energy"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-5)
    assert theirs.chance_is_deg == pytest.approx(ours.chance_is_deg, abs=0.3) and theirs.judged
    setting = theirs.setting
    assert setting.source == "study demo" and setting.images == "20 images"
    assert setting.n_evidence == 527
    row = singflow.load_study("results/demo").table("tables/models").set_index("model").loc[MODEL]
    assert setting.verdict == row["verdict"] and setting.said.startswith(f"{MODEL}: ")


def test_steering_keeps_the_logits_and_comes_no_nearer_than_it_says(analyzer, photos):
    photo = analyzer.analyze(photos[3], TEXTS)
    embedding = analyzer.space.embed_texts(["a rug"])[0]
    way, other = photo.reach
    angles = np.linspace(0.5, way.limit_deg - 0.5, 30)
    steered = [analyzer.steer(photo, "a rug", angle) for angle in angles]
    for result in steered:
        assert result.reachable and result.is_deg == pytest.approx(result.target_is_deg, abs=1e-3)
        assert result.logit_change < 1e-4 and not result.top1_changed
    nearest = min(result.angle_deg for result in steered)
    assert nearest == pytest.approx(way.nearest_deg, abs=0.2) and other.text == TEXTS[1]
    there = analyzer.steer(photo, "a rug", way.is_deg)
    assert there.angle_deg == pytest.approx(way.nearest_deg, abs=1e-4)
    assert there.step == pytest.approx(way.step, rel=1e-6)
    assert angle_deg(there.embedding, embedding) == pytest.approx(there.angle_deg)
    assert there.angle_original_deg == way.angle_deg
    weight = analyzer.classifier.weight.astype(np.float64)
    change = weight @ (there.feature.astype(np.float64) - photo.features[0])
    assert np.abs(change).max() == pytest.approx(there.logit_change)
    beyond = analyzer.steer(photo, "a rug", way.limit_deg + 1)
    assert not beyond.reachable and beyond.is_deg == beyond.logit_change == beyond.step == 0.0
    json.dumps(there.to_dict(), allow_nan=False)


def test_a_photo_that_the_translator_was_fitted_on_is_named(analyzer, photos):
    evidence = replace(analyzer.evidence, seen=frozenset({sha256_of(photos[0])}))
    seen = Analyzer(analyzer.classifier, analyzer.space, evidence)
    given = [photos[0], Image.open(photos[0]), photos[0].read_bytes(), photos[1]]
    assert [IN_SAMPLE in repr(seen.analyze(photo)) for photo in given] == [True] * 3 + [False]
    assert UNTOLD in repr(seen.analyze(Image.open(photos[0]).convert("RGB")))


def test_class_texts_come_with_the_reference_and_the_tower_is_loaded_for_other_texts_alone(
    analyzer,
):
    texts, names = replace(analyzer.space.texts), analyzer.classifier.class_names
    chosen, found = texts.of_classes(names)
    assert chosen[0] == "an image of a tench"
    assert np.array_equal(found, analyzer.of_classes[1])
    assert np.array_equal(texts.embed(chosen[:1])[0], found[0]) and "_tower" not in vars(texts)
    own = singflow.Space.load().texts.of_classes(names[::50])[1]
    np.testing.assert_allclose(found[::50], own, rtol=0, atol=2e-7)


def test_a_photo_is_a_path_its_content_or_an_image(analyzer, photos, results):
    image, content = Image.open(photos[0]), photos[0].read_bytes()
    for photo in (str(photos[0]), content, image, image.convert("RGBA")):
        assert analyzer.analyze(photo).is_deg == results[0].is_deg
    with pytest.raises(InputError, match="this image: truncated or corrupt"):
        analyzer.analyze(content[:5000])
    with pytest.raises(InputError, match="this image: absurdly large"):
        analyzer.analyze(image, max_pixels=100)


def test_the_space_s_own_classifier_is_a_known_zero_and_a_head_of_some_classes_has_their_names(
    animals, photos
):
    zero = Analyzer.load(ZERO).analyze(photos[0], TEXTS)
    words = "This photo is not judged. efficientnet_lite2: known zero, nothing found, as it should"
    assert repr(zero).startswith(words) and not zero.judged
    assert zero._repr_markdown_().startswith(f"**{words.replace('_', chr(92) + '_')}")
    assert zero.chance_is_deg == pytest.approx(zero.is_deg, abs=0.01)
    assert zero.maps is None and "because the model is a known zero" in zero.no_maps
    assert animals.setting.verdict == "known leak: found"
    assert len(animals.classifier.class_names) == 398
    found = animals.analyze(photos[0])
    assert found.predictions[0].name == "bull mastiff"
    assert re.search(r"of the meaning, [\w ]+, .* first \(\d+ of 1,\d+ texts are", repr(found))


def test_a_translator_s_file_is_taken_for_its_own_model_whatever_that_is_called(analyzer):
    classifier, space = analyzer.classifier, singflow.Space.load()
    renamed = replace(classifier, name="mine")
    Analyzer(renamed, space, file_evidence(TRANSLATOR, renamed, space))
    other = replace(renamed, weights_sha256="0" * 64)
    with pytest.raises(InputError, match=r"fitted for a model with weights .* instead"):
        file_evidence(TRANSLATOR, other, space)


def test_with_a_translator_s_file_alone_nothing_is_compared(analyzer, photos):
    taken = Analyzer.load(MODEL, translator=TRANSLATOR).analyze(photos[0], TEXTS)
    assert taken.is_deg == pytest.approx(analyzer.analyze(photos[0]).is_deg, abs=1e-5)
    assert not taken.judged and taken.is_percentile is taken.chance_is_deg is None
    said = repr(taken)
    assert len(taken.reach) == 2 and "beyond chance" not in said
    assert "no verdict, because the images that the translator was fitted on are not" in said


@pytest.mark.nightly
def test_what_was_fitted_is_kept_and_made_again_where_the_file_is_damaged_though_none_can_be_kept(
    home, analyzer, photos, tmp_path, monkeypatch, caplog
):
    def again():
        return Analyzer.load(MODEL, cache=tmp_path / "photo").analyze(photos[0]).to_dict()

    first = analyzer.analyze(photos[0]).to_dict()
    shutil.copytree(".cache/photo", tmp_path / "photo")
    with monkeypatch.context() as patch:
        patch.setattr(sources, "evidence_of", lambda *_, **__: pytest.fail("fitted again"))
        assert again() == first
    for file in (tmp_path / "photo").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:5000])
    evidence_of = sources.evidence_of

    fits = []
    monkeypatch.setattr(
        sources, "evidence_of", lambda *a, **b: fits.append(a) or evidence_of(*a, **b)
    )
    assert again() == first and len(fits) == 1 and "it is made again" in caplog.text
    shutil.rmtree(tmp_path / "photo")
    (tmp_path / "photo").write_text("in the way")
    assert again() == first and len(fits) == 2 and "not kept for other photos" in caplog.text


def test_the_command_prints_json_and_loads_the_model_once(
    home, photos, capsys, tmp_path, monkeypatch
):
    loads, load = [], Analyzer.load
    monkeypatch.setattr(Analyzer, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    given = {"images": photos[:2], "model": MODEL, "text": TEXTS, "threads": 1}
    command(**given, as_json=True, output=tmp_path)
    records = json.loads(capsys.readouterr().out)
    assert len(loads) == 1 and [record["image"] for record in records] == list(map(str, photos[:2]))
    assert json.loads((tmp_path / f"{photos[0].stem}.json").read_text()) == records[0]

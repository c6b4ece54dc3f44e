"""Real weights, the packaged reference, and a study on that reference which contains the photos."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import singflow
from singflow.analyses.metrics import angle_deg
from singflow.artifacts.files import sha256_of
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.cli import limit_threads
from singflow.commands.analyze import analyze as command
from singflow.config.registry import ModelEntry
from singflow.errors import InputError
from singflow.photo import fits
from singflow.photo.analyzer import IN_SAMPLE, Analyzer
from singflow.photo.sources import check_pair
from singflow.translators.linear import Translator
from tests.photo.conftest import MODEL, SCORES, SPACE

TEXTS = ["a rug", "an image of a jellyfish"]


@pytest.fixture(scope="module")
def analyzer(home):
    limit_threads(1)
    return Analyzer.load(MODEL)


@pytest.fixture(scope="module")
def photos(packaged):
    root, manifest = packaged
    return [root / path for path in manifest["path"]]


@pytest.fixture(scope="module")
def results(analyzer, photos):
    labels = json.loads(Path(f"results/demo/prompts/{SPACE}.json").read_text())["labels"]
    return [
        analyzer.analyze(photo, [f"an image of a {label}" for label in labels]) for photo in photos
    ]


def test_the_numbers_are_those_of_a_study_in_which_the_photo_is_an_image(results):
    scores = pd.read_parquet(SCORES)
    ours = pd.DataFrame({"is_deg": r.is_deg, "null_energy": r.null_energy} for r in results)
    for name in ours:
        assert np.abs(ours[name] - scores[name]).max() < 1e-5, name
    assert [result.predictions[0].index for result in results] == list(scores["predicted_index"])


def test_attribute_scores_are_those_of_the_study(results):
    scores, labels = (
        pd.read_parquet(SCORES),
        json.loads(Path(f"results/demo/prompts/{SPACE}.json").read_text())["labels"],
    )
    for row, (result, label) in enumerate(zip(results, scores["label"], strict=True)):
        own = labels.index(label)
        toward = np.array([score.as_deg for score in result.texts])
        assert abs(toward[own] - scores["as_deg"][row]) < 1e-5
        assert (
            abs(toward[own] - np.delete(toward, own).mean() - scores["as_contrast_deg"][row]) < 1e-5
        )


def test_the_floor_of_is_is_that_of_the_study_and_no_model_of_the_reference_tells_more_than_it_knows(  # noqa: E501
    analyzer, results
):
    floors = pd.read_parquet(SCORES)[
        "floor_is_deg"
    ]  # of a study whose own images enter own words, beside the reference's
    assert np.abs([result.chance_is_deg for result in results] - floors).max() < 0.3
    setting = analyzer.loaded.setting
    assert setting.verdict == "nothing found"
    assert re.fullmatch(
        (
            r"efficientnet_lite0: nothing found\. A leak of (1|3|10) % of the meaning would have "
            r"been seen\."
        ),
        setting.said,
    )
    listed = [bool(result.classes_gained or result.classes_lost) for result in results]
    assert all(result.judged for result in results) and sum(listed) <= 4  # 1 in 21 by chance
    for result in results:
        assert result.predicted.chance_low_deg < result.predicted.chance_high_deg


def noise(seed, size):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize(
    "model", [MODEL, "efficientnet_lite1", "efficientnet_lite2", "animals_lite0"]
)
def test_of_uniform_noise_nothing_is_claimed(home, model):
    loaded = Analyzer.load(model)
    for seed, size in enumerate((100, 224, 375, 500, 800)):
        result = loaded.analyze(noise(seed, size), TEXTS)
        assert result.unlike and not result.judged and result.chance_is_deg is None
        assert (
            not (result.classes_gained or result.classes_lost)
            and result.texts[0].chance_low_deg is None
        )
        assert "NOTHING CAN BE SAID about this photo" in repr(
            result
        ) and "beyond chance" not in repr(result)


def test_a_finished_study_on_the_same_reference_gives_the_same(analyzer, photos, home):
    theirs = Analyzer.load(MODEL, results="results/demo")
    ours, theirs = (source.analyze(photos[4], TEXTS) for source in (analyzer, theirs))
    for name in ("is_deg", "null_energy"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-5)
    assert theirs.chance_is_deg == pytest.approx(ours.chance_is_deg, abs=0.3) and theirs.judged
    assert theirs.setting.source == "study demo" and theirs.setting.images == "study's 20 images"
    row = singflow.load_study("results/demo").table("tables/models").set_index("model").loc[MODEL]
    assert theirs.setting.verdict == row["verdict"] and theirs.setting.said.startswith(f"{MODEL}: ")


def test_steering_keeps_the_logits_and_comes_no_nearer_than_it_says(analyzer, results, photos):
    photo = analyzer.analyze(photos[3], TEXTS)
    embedding = analyzer.loaded.texts.embed(["a rug"])[0]
    (way, other) = photo.reach
    steered = [
        analyzer.steer(photo, "a rug", angle) for angle in np.linspace(0.5, way.limit_deg - 0.5, 60)
    ]
    assert max(result.logit_change for result in steered) < 1e-4 and not any(
        result.top1_changed for result in steered
    )
    assert all(
        result.reachable and abs(result.is_deg - result.target_is_deg) < 1e-3 for result in steered
    )
    assert (
        min(result.angle_deg for result in steered) == pytest.approx(way.nearest_deg, abs=0.05)
        and other.text == TEXTS[1]
    )
    there = analyzer.steer(photo, "a rug", way.is_deg)
    assert there.angle_deg == pytest.approx(
        way.nearest_deg, abs=1e-4
    ) and there.step == pytest.approx(way.step, rel=1e-6)
    assert (
        angle_deg(there.embedding, embedding) == pytest.approx(there.angle_deg)
        and there.angle_original_deg == way.angle_deg
    )
    weight = analyzer.loaded.classifier.weight.astype(np.float64)
    assert np.abs(
        weight @ (there.feature.astype(np.float64) - photo.features[0])
    ).max() == pytest.approx(there.logit_change)
    beyond = analyzer.steer(photo, "a rug", way.limit_deg + 1)
    assert not beyond.reachable and beyond.is_deg == beyond.logit_change == beyond.step == 0.0
    json.dumps(there.to_dict(), allow_nan=False)


def test_a_photo_that_the_translator_was_fitted_on_is_named(analyzer, photos):
    seen = Analyzer(replace(analyzer.loaded, training=frozenset({sha256_of(photos[0])})))
    assert IN_SAMPLE in repr(seen.analyze(photos[0])) and IN_SAMPLE not in repr(
        seen.analyze(photos[1])
    )


def test_class_texts_come_with_the_reference_and_the_tower_is_loaded_for_other_texts_alone(
    analyzer, home
):
    texts, names = replace(analyzer.loaded.texts), analyzer.loaded.classifier.class_names
    chosen, found = texts.of_classes(names)
    assert chosen[0] == "an image of a tench" and np.array_equal(
        found, analyzer.loaded.class_embeddings
    )
    assert np.array_equal(
        texts.embed(["an image of a tench"])[0], found[0]
    ) and "_loaded" not in vars(texts)
    own = singflow.Space.load().texts.of_classes(names[::50])[1]
    np.testing.assert_allclose(found[::50], own, rtol=0, atol=2e-7)
    others = replace(texts, made=(texts.made[0], "0" * 64))
    assert np.array_equal(others.embed(["an image of a tench"])[0], found[0])
    with pytest.raises(
        InputError,
        match=(
            r"conse_minilm\.safetensors: was made with weights 000000000000 of the text "
            r"tower, but those here"
        ),
    ):
        others.embed(["a text that no study has"])


def test_on_an_apple_gpu_images_go_through_towers_and_texts_stay_on_the_cpu(home, monkeypatch):
    for load in (Analyzer.load, singflow.Space.load, singflow.Classifier.load):
        with pytest.raises(
            InputError, match="device is mps, but PyTorch sees no Apple GPU: write auto or cpu"
        ):
            load(*[MODEL][: load != singflow.Space.load], device="mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    space = singflow.Space.load(device="mps")
    assert (space.device.type, space.texts.device.type) == ("mps", "cpu")


def test_a_photo_is_a_path_its_content_or_an_image(analyzer, photos, results):
    image = Image.open(photos[0])
    for photo in (str(photos[0]), photos[0].read_bytes(), image, image.convert("RGBA")):
        assert analyzer.analyze(photo).is_deg == results[0].is_deg
    with pytest.raises(InputError, match="this image: truncated or corrupt"):
        analyzer.analyze(photos[0].read_bytes()[:5000])
    with pytest.raises(InputError, match="this image: absurdly large"):
        analyzer.analyze(Image.new("RGB", (200, 200)), max_pixels=100)


def test_the_space_s_own_classifier_is_a_known_zero_and_a_head_of_some_classes_has_their_names(
    home, photos
):
    zero = Analyzer.load("efficientnet_lite2").analyze(photos[0])
    assert repr(zero).startswith(
        "efficientnet_lite2: known zero. The space is a function of this model's logits"
    )
    assert zero._repr_html_().startswith("<b>efficientnet_lite2: known zero.") and not zero.judged
    assert zero.chance_is_deg == pytest.approx(zero.is_deg, abs=0.01)
    animals = Analyzer.load("animals_lite0")
    assert (
        animals.loaded.setting.verdict == "known leak: found"
        and len(animals.loaded.classifier.class_names) == 398
    )
    assert animals.analyze(photos[0]).predictions[0].name == "bull mastiff"


def test_what_is_asked_for_and_cannot_be_is_refused_before_anything_is_loaded(home, monkeypatch):
    monkeypatch.setattr(singflow.Classifier, "load", lambda *_, **__: pytest.fail("loaded"))
    for options, words in (
        (
            {"reference": "nowhere"},
            "--reference nowhere: holds no data/manifest.parquet: name the results folder",
        ),
        (
            {"translator": "none.safetensors"},
            "--translator none.safetensors: no such file: name an imported",
        ),
        (
            {"texts": ["a rug", " "]},
            r"a text that photos are compared with \(--text\) is blank: write words",
        ),
        (
            {"model": "timm/resnet18.a1_in1k"},
            "no translator of timm/resnet18.a1_in1k into conse_minilm is at hand",
        ),
        (
            {"models": "elsewhere.yaml"},
            (
                "elsewhere.yaml: no such file: run this in the folder of the repository, "
                "or name another"
            ),
        ),
    ):
        with pytest.raises(InputError, match=words):
            Analyzer.load(**{"model": MODEL} | options)


def test_a_model_without_a_translator_is_told_how_to_get_one(home):
    with pytest.raises(InputError) as refused:
        Analyzer.load("tiny")
    for words in (
        "no translator of tiny into conse_minilm",
        "`singflow study`",
        "--results",
        "import_translator`",
        "--translator",
    ):
        assert words in str(refused.value)


def write_translator(path, **made):
    tensors = read_tensors(
        Path(f"results/demo/translators/{SPACE}/{MODEL}/linear.safetensors"), ["weight", "bias"]
    )[0]
    write_tensors(path, tensors, {"kind": "linear", **made})
    return path


def test_a_translator_s_file_is_taken_for_its_own_model_whatever_that_is_called(
    analyzer, photos, home, tmp_path
):
    classifier, space = analyzer.loaded.classifier, singflow.Space.load()
    study = Path(f"results/demo/translators/{SPACE}/{MODEL}/linear.safetensors")
    renamed = replace(classifier, name="mine")
    identity = f"timm/{classifier.entry.id}"
    exported = {
        "weights_sha256": classifier.weights_sha256,
        "space_id": space.entry.identity,
        "model_id": "timm/other.name",
    }
    fits = [
        {},
        {"model": MODEL, "space": SPACE},
        {"released_for": identity},
        {"model_id": identity},
        exported,
    ]
    for number, made in enumerate(fits):
        path = write_translator(tmp_path / f"{number}.safetensors", **made)
        check_pair(path, Translator.load(path), classifier if made.get("model") else renamed, space)
    check_pair(study, Translator.load(study), renamed, space)
    deit = replace(
        classifier,
        name="deit3",
        entry=ModelEntry(source="timm", id="deit3_large_patch16_224.fb_in1k"),
    )
    path = write_translator(tmp_path / "deit.safetensors", released_for="deit", space=SPACE)
    check_pair(path, Translator.load(path), deit, space)
    wrong = [
        (
            replace(
                deit, entry=ModelEntry(source="timm", id="deit3_large_patch16_224.fb_in22k_ft_in1k")
            ),
            path,
            "was made for timm/deit3_large_patch16_224.fb_in1k",
        ),
        (replace(renamed, weights_sha256="0" * 64), study, "was fitted for other weights"),
        (
            classifier,
            write_translator(tmp_path / "a.safetensors", released_for="efficientnet"),
            "was made for timm/tf_efficientnet_b0",
        ),
        (
            classifier,
            write_translator(tmp_path / "b.safetensors", **exported | {"weights_sha256": "0" * 64}),
            "was fitted for other weights",
        ),
        (
            classifier,
            write_translator(tmp_path / "c.safetensors", space="clip_vit_l14"),
            "translates into clip_vit_l14, not conse_minilm",
        ),
        (
            replace(classifier, weight=np.zeros((2, 7))),
            study,
            r"has shape \(384, 1280\), but efficientnet_lite0 -> conse_minilm needs \(384, 7\)",
        ),
    ]
    for model, file, words in wrong:
        with pytest.raises(InputError, match=words):
            check_pair(file, Translator.load(file), model, space)
    taken = Analyzer.load(MODEL, translator=study).analyze(photos[0], TEXTS)
    assert (
        taken.is_deg == pytest.approx(analyzer.analyze(photos[0]).is_deg, abs=1e-5)
        and not taken.judged
    )
    assert (
        taken.is_percentile is taken.chance_is_deg is None
        and len(taken.reach) == 2
        and "beyond chance" not in repr(taken)
    )
    assert (
        "no verdict on the model: the images that the translator was fitted on are not here"
        in repr(taken)
    )
    with pytest.raises(InputError, match="name one of them"):
        Analyzer.load(MODEL, translator=study, results="results/demo")


def test_what_was_fitted_is_kept_and_made_again_where_the_file_is_damaged(
    home, analyzer, photos, tmp_path, monkeypatch, caplog
):
    first = Analyzer.load(MODEL, cache=tmp_path).analyze(photos[0]).to_dict()
    assert first == analyzer.analyze(photos[0]).to_dict()
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(fits, "fit", lambda *_: pytest.fail("fitted again"))
        assert Analyzer.load(MODEL, cache=tmp_path).analyze(photos[0]).to_dict() == first
    file.write_bytes(file.read_bytes()[:5000])
    assert Analyzer.load(MODEL, cache=tmp_path).analyze(photos[0]).to_dict() == first
    assert "not readable as safetensors" in caplog.text and "it is made again" in caplog.text


def test_the_command_says_it_in_words_or_as_json_and_loads_the_model_once(
    home, photos, capsys, tmp_path, monkeypatch
):
    shutil.copy(photos[0], tmp_path / "photo.jpg")
    loads = []
    monkeypatch.setattr(
        Analyzer,
        "load",
        classmethod(
            lambda cls, *a, load=Analyzer.load.__func__, **k: loads.append(a) or load(cls, *a, **k)
        ),
    )
    given = [tmp_path / "photo.jpg", photos[1]]
    command(images=given, model=MODEL, text=TEXTS, as_json=True, output=tmp_path / "out", threads=1)
    records = json.loads(capsys.readouterr().out)
    assert len(loads) == 1 and [record["image"] for record in records] == [
        str(path) for path in given
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}.{end}" for name in ("photo", photos[1].stem) for end in ("json", "png")
    )
    assert json.loads((tmp_path / "out/photo.json").read_text()) == records[0]
    command(images=given, model=MODEL, text=TEXTS, threads=1)
    said = capsys.readouterr()
    parts = [
        "bull mastiff (",
        "by the reference's 507 images: efficientnet_lite0: nothing found.",
        "null removal turns its translation by IS",
        "null energy",
        "no word is gained or lost beyond chance",
        "toward 'a rug'",
        "steered toward 'a rug'",
    ]
    places = [said.out.index(part) for part in parts]
    assert (
        places == sorted(places)
        and "2/2" in said.err
        and "image" not in said.out.splitlines()[0].replace("imagenet", "")
    )


def test_names_are_escaped_in_notebooks(analyzer, photos):
    result = analyzer.analyze(photos[0], ["<script>"], name="<b>photo</b>")
    page = result._repr_html_()
    assert (
        "<script>" not in page and "&lt;script&gt;" in page and page.startswith("<b>&lt;b&gt;photo")
    )
    assert repr(result).startswith("<b>photo</b>: bull mastiff")

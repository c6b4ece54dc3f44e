"""What the local page says of a photo, of a study whose photos and pictures are here."""

import base64
import html
import io
import json
import re
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient

from singflow.artifacts.files import write_bytes
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.errors import InputError
from singflow.photo.analysis import Movement, steering_path
from singflow.photo.app import (
    DRAWN,
    PageState,
    analyze_upload,
    application,
    is_loopback,
    steer_photo,
)
from singflow.photo.loading import FIRST, Loader
from singflow.photo.page import analysis_html, model_html
from singflow.pictures.rendering import encode
from tests.photo.handmade import MODEL
from tests.project import ROOT

REGISTRIES = {kind: ROOT / f"config/{kind}.yaml" for kind in ("models", "spaces")}
BEE = "an image of a bee"


def opened(results, reference="packaged"):
    parts = REGISTRIES | {"device": "cpu", "threads": 1}
    return PageState.open(reference, results, [], [], 10**6, **parts)


@pytest.fixture
def state(study):
    return opened(study.folder)


def upload(state, words="", photo="one.png", model=MODEL, space="conse_minilm"):
    return analyze_upload(state, model, space, photo, words)


def pictures(said):
    """Colours in the middle of the pictures on the page, by caption."""
    found = {}
    shown = re.findall(r'<img src="data:image/webp;base64,([^"]*)" alt="([^"]*)"', said)
    for data, caption in shown:
        image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        found[caption] = np.array(image.getpixel((image.width // 2, image.height // 2)), dtype=int)
    return found


def test_texts_are_looked_at_once_and_karlo_s_pictures_are_shown_of_a_photo_of_the_study(
    state, study
):
    assert state.models == [MODEL] and state.spaces == ["conse_minilm"]
    colours = {"original": (200, 0, 0), "null removed": (0, 0, 200)}
    drawn = [encode(Image.new("RGB", (64, 64), colour), "PNG") for colour in colours.values()]
    table = pd.DataFrame({"change": [*colours], "picture": drawn})
    table = table.assign(figure="fig1", renderer="unclip", image_id=2)
    write_parquet(study.path("pictures"), table)
    session, said, moved, _ = upload(state, f"{BEE}\n\n {BEE} \nconcept 3", "photos/2.png")
    assert [reach.text for reach in session.result.reach] == [BEE, "concept 3"]
    assert moved.count("<li>") == 3 and "concept 3" in moved
    for (caption, colour), words in zip(pictures(said).items(), DRAWN.items(), strict=True):
        change, wanted = words
        assert caption == wanted and np.abs(colour - colours[change]).max() <= 12
    for photo, renderer in (("one.png", "unclip"), ("photos/2.png", "words")):
        write_parquet(study.path("pictures"), table.assign(renderer=renderer))
        assert not pictures(upload(state, photo=photo)[1])


def test_steering_shows_where_the_photo_is_and_goes_no_farther_than_the_slider(state):
    session, *_ = upload(state, BEE)
    reach, most = session.reach(BEE)
    assert 0 < most <= reach.is_deg
    for turned, shown in ((0.0, 0.0), (most / 2, most / 2), (90.0, most)):
        said = steer_photo(session, BEE, turned)
        assert f"Turned by {shown:.1f}°" in said
        assert float(re.search(r'class="logits">([^<]*)<', said)[1]) < 1e-4
    loaded, targets = session.analyzer.loaded, np.linspace(0, most, 9)
    embedding = loaded.texts.embed([BEE])[0]
    path = steering_path(session.result.features, loaded, embedding, targets)
    turned, angles = zip(*path, strict=True)
    assert turned == pytest.approx(targets, abs=1e-6) and list(angles) == sorted(angles)[::-1]
    last = session.analyzer.steer(session.result, BEE, most).angle_deg
    assert angles[:: len(angles) - 1] == pytest.approx((reach.angle_deg, last), abs=1e-4)


def test_own_addresses():
    assert all(map(is_loopback, ("127.0.0.2", "localhost")))
    assert not any(map(is_loopback, ("::", "192.0.2.1", "elsewhere.example.org")))


def test_text_of_the_data_stays_text(study):
    hostile = "<script>alert(1)</script> \\d \\1 \u200b"
    names = study.path("names")
    names.write_text(names.read_text().replace('"concept 3"', json.dumps(hostile)))
    session, *said = upload(opened(study.folder), hostile)
    told = "".join(said) + steer_photo(session, hostile, 3.0)
    assert "<script" not in told and told.count(html.escape(hostile)) > 2


@pytest.mark.parametrize(
    ("host", "own", "elsewhere"),
    [
        ("127.0.0.1", "127.0.0.1:7860", 400),
        ("::1", "[::1]:7860", 400),
        ("0.0.0.0", "0.0.0.0:7860", 200),  # noqa: S104
    ],
)
def test_a_page_for_this_machine_alone_is_answered_under_its_own_names_alone(
    state, host, own, elsewhere, monkeypatch
):
    monkeypatch.chdir(ROOT)
    with TestClient(application(state, host, 1)) as client:
        assert client.get("/", headers={"host": own}).status_code == 200
        answer = client.get("/", headers={"host": "elsewhere.example.org"})
        assert answer.status_code == elsewhere


def test_models_are_offered_that_a_reference_has_and_the_registry_knows(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    first = "timm/test_resnet.r160_in1k"
    for tower in (f"features/{first}", "features/not_in_the_registry", "embeddings/conse_minilm"):
        tensors = {tower.partition("/")[0]: np.zeros((1, 2), np.float32)}
        write_tensors(tmp_path / tower / "shard-00000.safetensors", tensors, {"tower": tower})
    write_bytes(tmp_path / "data/manifest.parquet", b"")
    state = opened(None, reference=str(tmp_path))
    with pytest.raises(InputError, match=f"no translator of {first} into conse_minilm is at hand"):
        state.load(state.models[0], "conse_minilm")  # the first that is offered


def test_the_verdict_is_told_with_d_and_the_hidden_texts_before_any_photo(state, study):
    setting = state.load(MODEL, "conse_minilm").loaded.setting
    said = model_html(setting)
    assert "by the study&#39;s 5 images: timm/tiny.net: nothing found." in said
    (row,) = pd.read_csv(study.path("tables/models.csv")).to_dict("records")
    d, low, high = (row[f"unique_r2{end}"] for end in ("", "_low", "_high"))
    assert (d, low, high) == (setting.unique_r2, setting.unique_r2_low, setting.unique_r2_high)
    assert f'<strong class="d">{d:z.3f} [{low:z.3f}, {high:z.3f}]</strong>' in said
    assert "<table>" not in said
    leak = replace(setting, hidden="Hidden: <a> rug.", hidden_texts=[("<a> rug", 0.3, 0.21, 0.4)])
    assert "&lt;a&gt; rug</th><td>0.300 [0.210, 0.400]</td>" in model_html(leak)
    assert "D = " not in model_html(replace(setting, said="", unique_r2=None))


def test_a_model_is_loaded_once_and_again_after_an_error_and_what_it_takes_is_remembered(tmp_path):
    goes_on, asked = threading.Event(), []

    def load(model, space):
        asked.append(model)
        goes_on.wait()
        if model == "broken" and asked.count("broken") == 1:
            raise InputError("no weights")
        return f"{model} of {space}"

    loader = Loader(load, tmp_path / "seconds.json", 2)
    first = loader.begin("a", "s")
    assert str(first) == (
        f"Loading a and its space s: about {FIRST} s, as this is its first time here; 0 s so far."
    )
    assert loader.begin("a", "s") is first and not first.analyzer.done()
    goes_on.set()
    assert loader("a", "s") == "a of s"
    with pytest.raises(InputError, match="no weights"):
        loader("broken", "s")
    assert [loader("broken", "s"), loader("b", "s")] == ["broken of s", "b of s"]
    assert asked == ["a", "broken", "broken", "b"]
    (tmp_path / "seconds.json").write_text('{"s a": 7.2, "s b": 9}')
    begun = [loader.begin(model, "s") for model in "ac"]  # neither is kept
    expected = ["about 7 s, as the last time", "about 9 s, as this is its first time here"]
    assert [loading.expected for loading in begun] == expected
    assert [loading.analyzer.result() for loading in begun] == ["a of s", "c of s"]
    (tmp_path / "seconds.json").write_text("[")
    assert loader.begin("d", "s").expected.startswith(f"about {FIRST} s")


def test_the_page_says_what_can_be_said_of_a_photo_and_lists_words_beyond_chance_alone(state):
    session, said, moved, _ = upload(state)
    classes = state.load(MODEL, "conse_minilm").loaded.class_texts
    likeliest = [classes[each.index] for each in session.result.predictions[:3]]
    assert session.texts == likeliest and moved.count("<li>") == 3  # in place of words
    assert said.count("<figure>") == 2 and "beyond chance" not in moved

    def page(**changes):
        return analysis_html(replace(session.result, **changes), {}, [])

    word = [Movement("a kite", 60.0, 58.0, 2.0, 1.5)]
    for changes, words in (
        ({}, ["no word is gained or lost beyond chance"]),
        ({"classes_lost": word}, ["Classes lost beyond chance", "a kite", "+1.50°"]),
        ({"gained": word}, ["Concepts gained beyond chance", "a kite", "+2.00°"]),
    ):
        said, moved = page(judged=True, **changes)
        assert said.count("1 photo in 20") == 1 and "1 photo in 20" not in moved
        assert [phrase for phrase in words if phrase not in moved] == []
    said = page(unlike="its null energy is high")[0]
    assert '<p class="said">NOTHING CAN BE SAID about this photo' in said
    zero = replace(session.result.setting, verdict="known zero", said="tiny: known zero.")
    said = page(setting=zero)[0]
    assert said.index("tiny: known zero.") < said.index("It sees:")
    assert said.count("known zero") == 1

"""What the local page says of a photo, of a study whose photos and pictures are here."""

import base64
import html
import io
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient

from singflow.artifacts.files import write_bytes
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.commands.app import app as command
from singflow.errors import InputError
from singflow.photo.analysis import Movement, steering_path
from singflow.photo.app import (
    PageState,
    analyze_upload,
    application,
    is_loopback,
    steer_photo,
    texts_of,
)
from singflow.photo.page import analysis_html
from tests.photo.test_analysis import MODEL, made, study  # noqa: F401 (fixtures)
from tests.project import ROOT

PARTS = {
    "models": ROOT / "config/models.yaml",
    "spaces": ROOT / "config/spaces.yaml",
    "device": "cpu",
    "threads": 1,
}
BEE = "an image of a bee"


@pytest.fixture
def state(study):  # noqa: F811
    return PageState.open("packaged", study.results, [], [], 10**6, **PARTS)


def upload(state, words="", photo="one.png"):
    path = str(state.results.parents[1] / photo)
    return analyze_upload(state, MODEL, "conse_minilm", path, words)


def pictures(said):
    """Colours in the middle of the pictures on the page, by caption."""
    found = {}
    for data, caption in re.findall(
        r'<img src="data:image/webp;base64,([^"]*)" alt="([^"]*)"', said
    ):
        image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        found[caption] = image.getpixel((image.width // 2, image.height // 2))
    return found


def test_the_study_s_photos_that_are_nearest_are_shown(study, state):  # noqa: F811
    assert state.models == [MODEL] and state.spaces == ["conse_minilm", "other"]
    session, said, moved = upload(state, f"{BEE}\n\n {BEE} \nconcept 3")
    shown = pictures(said)
    assert len(shown) == 2
    for (caption, colour), near, side in zip(
        shown.items(), session.result.nearest, ("before", "after null removal"), strict=True
    ):
        assert caption == f"nearest photo {side}: {near.path}, {near.angle_deg:.1f}°"
        assert np.abs(np.subtract(colour, (40 * near.image_id, 90, 200))).max() <= 12
    assert [reach.text for reach in session.result.reach] == [BEE, "concept 3"]
    assert moved.count("<li>") == 3 and "concept 3" in moved
    (caption,) = pictures(steer_photo(session, BEE, 5.0))
    assert caption.startswith("nearest photo now: ")


def test_karlo_s_pictures_are_shown_of_a_photo_that_the_study_drew(study, state):  # noqa: F811
    colours = {"original": (250, 10, 10), "null removed": (10, 250, 10)}
    rows = []
    for change, colour in colours.items():
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
        rows += [
            {
                "figure": "fig1",
                "image_id": 2,
                "change": change,
                "renderer": "unclip",
                "picture": buffer.getvalue(),
            }
        ]
    write_parquet(study.results / f"pictures/conse_minilm/{MODEL}.parquet", pd.DataFrame(rows))
    shown = pictures(upload(state, photo="photos/2.png")[1])
    assert list(shown) == ["drawn by Karlo, before", "drawn by Karlo, after null removal"]
    assert all(
        np.abs(np.subtract(*pair)).max() <= 12
        for pair in zip(shown.values(), colours.values(), strict=True)
    )
    shown = pictures(upload(state, photo="photos/3.png")[1])
    assert len(shown) == 2 and all(caption.startswith("nearest photo") for caption in shown)


def test_steering_shows_where_the_photo_is_and_goes_no_farther_than_the_slider(study, state):  # noqa: F811
    session, *_ = upload(state, BEE)
    reach, most = session.reach(BEE)
    assert 0 < most <= reach.is_deg
    for turned, shown in ((0.0, 0.0), (most / 2, most / 2), (90.0, most)):
        said = steer_photo(session, BEE, turned)
        assert f"Turned by {shown:.1f}°" in said
        assert float(re.search(r'class="logits">([^<]*)<', said)[1]) < 1e-4
    loaded = state.load(MODEL, "conse_minilm").loaded
    embedding, targets = loaded.texts.embed([BEE])[0], np.linspace(0, most, 9)
    turned, angles = zip(
        *steering_path(session.result.features, loaded, embedding, targets), strict=True
    )
    assert turned == pytest.approx(targets, abs=1e-6)
    now = session.analyzer.steer(session.result, BEE, most)
    assert angles[-1] == pytest.approx(now.angle_deg, abs=1e-4)
    assert list(angles) == sorted(angles, reverse=True) and angles[0] == pytest.approx(
        reach.angle_deg, abs=1e-4
    )


def test_what_is_not_offered_and_words_that_are_too_many_are_refused(study, state):  # noqa: F811
    for model, space in (("efficientnet_lite0", "conse_minilm"), (MODEL, "clip")):
        with pytest.raises(InputError, match="is not offered here"):
            analyze_upload(state, model, space, str(study.folder / "one.png"), "")
    with pytest.raises(InputError, match="absurdly large: 200 x 160 pixels"):
        upload(replace(state, max_pixels=1000))
    assert texts_of("a\n\n b \na") == ["a", "b"]
    with pytest.raises(InputError, match="21 texts are more than the 20"):
        texts_of("\n".join(map(str, range(21))))


def test_a_study_without_models_is_refused(study, tmp_path):  # noqa: F811
    (study.results / "tables/models.csv").write_text("space,model\n")
    with pytest.raises(InputError, match="holds no model or space that could be offered"):
        PageState.open("packaged", study.results, [], [], 10**6, **PARTS)


def test_results_that_are_not_there_are_refused(tmp_path):
    for options, words in (
        ({"results": tmp_path}, r"models\.csv: no such file: make it"),
        ({"reference": str(tmp_path)}, "name the results"),
    ):
        with pytest.raises(InputError, match=words):
            command(**{"threads": 1, "models": PARTS["models"]} | options)


def test_an_address_that_is_taken_or_is_none_is_refused(study):  # noqa: F811
    for host, words in (("192.0.2.1", "name another"), ("no such name", "name another")):
        with pytest.raises(InputError, match=words):
            command(results=study.results, host=host, port=0, threads=1)


def test_without_gradio_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"gradio is not installed: .*\[app\]"):
        command()


def test_own_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.2", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "elsewhere.example.org")))  # noqa: S104


def test_text_of_the_data_stays_text(study):  # noqa: F811
    hostile = "<script>alert(1)</script> \\d \\1 \u200b"
    names = study.results / "prompts/conse_minilm.json"
    names.write_text(names.read_text().replace('"concept 3"', json.dumps(hostile)))
    state = PageState.open("packaged", study.results, [], [], 10**6, **PARTS)
    session, said, moved = upload(state, hostile)
    told = said + moved + steer_photo(session, hostile, 3.0)
    assert "<script" not in told and told.count(html.escape(hostile)) > 2


@pytest.mark.parametrize(
    ("host", "name", "status"),
    [
        ("127.0.0.1", "127.0.0.1:7860", 200),
        ("127.0.0.1", "elsewhere.example.org", 400),
        ("::1", "[::1]:7860", 200),
        ("::1", "elsewhere.example.org", 400),
        ("0.0.0.0", "elsewhere.example.org", 200),  # noqa: S104
    ],
)
def test_a_page_for_this_machine_alone_is_answered_under_its_own_names_alone(
    state, host, name, status, monkeypatch
):
    monkeypatch.chdir(ROOT)
    with TestClient(application(state, host, 1)) as client:
        assert client.get("/", headers={"host": name}).status_code == status


def test_models_are_offered_that_a_reference_has_and_the_registry_knows(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "reference"
    for name in (
        "features/timm/test_resnet.r160_in1k",
        "features/not_in_the_registry",
        "embeddings/conse_minilm",
    ):
        write_tensors(folder / name / "shard-00000.safetensors", {}, {"tower": name})
    write_bytes(folder / "data/manifest.parquet", b"")
    with pytest.raises(
        InputError,
        match=r"no translator of timm/test_resnet.r160_in1k into conse_minilm is at hand",
    ):
        PageState.open(str(folder), None, [], [], 10**6, **PARTS)  # the first that is offered


def test_the_page_says_what_can_be_said_before_the_verdict_and_lists_words_beyond_chance_alone(
    study,  # noqa: F811
    state,
):
    session, said, moved = upload(state)
    assert (
        '<p class="said">by the study&#39;s 40 images: timm/tiny.net: nothing found.' in said
        and said.count("<figure>") == 4
    )
    assert "beyond chance" not in moved
    word = Movement("a kite", 60.0, 58.0, 2.0, 1.5)
    for changes, words in (
        ({"judged": True}, ["no word is gained or lost beyond chance"]),
        (
            {"judged": True, "classes_lost": [word]},
            ["Classes lost beyond chance", "a kite", "+1.50°"],
        ),
        ({"judged": True, "gained": [word]}, ["Concepts gained beyond chance", "a kite", "+2.00°"]),
    ):
        moved = analysis_html(replace(session.result, **changes), None, [])[1]
        assert all(phrase in moved for phrase in words)
    beyond = replace(session.result, unlike="its null energy is high")
    assert (
        '<p class="said">NOTHING CAN BE SAID about this photo' in analysis_html(beyond, None, [])[0]
    )
    zero = replace(session.result.setting, verdict="known zero", said="tiny: known zero.")
    page = analysis_html(replace(session.result, setting=zero), None, [])[0]
    assert (
        page.index("tiny: known zero.") < page.index("It sees:") and page.count("known zero") == 1
    )

"""What the local page offers, says of a photo, and loads."""

from functools import partial

import pytest

from singflow.artifacts.files import write_bytes
from singflow.errors import InputError
from singflow.photo import app
from singflow.photo.app import is_loopback, loader, look, offered
from tests.photo.handmade import MODEL
from tests.project import ROOT

REGISTRIES = {kind: ROOT / f"config/{kind}.yaml" for kind in ("models", "spaces")}
OPTIONS = REGISTRIES | {"device": "cpu", "threads": 1}


def looked_at(study, photo="one.png", words="", max_pixels=10**6):
    load = loader(results=study.folder, **OPTIONS)
    return look(load, max_pixels, photo, MODEL, "conse_minilm", words)


def test_a_photo_is_a_text_and_a_figure_and_is_steered_no_farther_than_the_slider(study):
    looked, said, figure = looked_at(study, words="concept 1\nconcept 3\n\nconcept 3")
    assert [way.text for way in looked.result.reach] == ["concept 1", "concept 3"]
    assert said.startswith("**This photo is not judged, because the images ")
    assert "\n- this photo: " in said and "\n- toward 'concept 3': AS " in said
    assert figure.axes and looked.result.image.size == (1, 1)
    way, most = looked.result.reach[1], looked.most("concept 3")
    assert 0 < most <= way.is_deg and looked.most("a text that nobody asked for") == 0
    assert looked.analyzer.steer(looked.result, "concept 3", most).reachable
    likeliest, *_ = looked_at(study)
    assert len(likeliest.result.reach) == 3


def test_only_this_machine_has_these_addresses():
    loopback = {"127.0.0.1": True, "localhost": True, "::1": True, "127.8.8.8": True}
    for host, own in (loopback | {"0.0.0.0": False, "example.org": False, "::": False}).items():  # noqa: S104
        assert is_loopback(host) == own


def test_models_are_offered_that_a_reference_has_and_the_registry_knows(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("efficientnet_lite0", "unknown", "timm/resnet18.a1_in1k"):
        write_bytes(tmp_path / f"features/{name}/shard-00000.safetensors", b"")
    write_bytes(tmp_path / "embeddings/s/shard-00000.safetensors", b"")
    offer = partial(offered, str(tmp_path), None, registry=REGISTRIES["models"])
    assert offer([], []) == (["efficientnet_lite0", "timm/resnet18.a1_in1k"], ["s"])
    assert offer(["a"], ["b"]) == (["a"], ["b"])


def test_a_study_offers_its_models(study):
    offer = partial(offered, "packaged", study.folder, [], [], REGISTRIES["models"])
    assert offer() == ([MODEL], ["conse_minilm"])
    write_bytes(study.path("tables/models.csv"), b"space,model\n")
    with pytest.raises(InputError, match="holds no model or space that could be offered"):
        offer()


def test_a_model_is_loaded_once_and_again_after_an_error(monkeypatch):
    asked, fails = [], [True]

    class Slow:
        @classmethod
        def load(cls, model, space, **options):
            asked.append((model, space, options))
            if fails:
                raise InputError(fails.pop() and "no weights")
            return object()

    monkeypatch.setattr(app, "Analyzer", Slow)
    load = loader(threads=1)
    with pytest.raises(InputError):
        load("m", "s")
    assert load("m", "s") is load("m", "s")
    assert asked == [("m", "s", {"threads": 1})] * 2


def test_what_a_page_cannot_look_at_is_refused(study):
    for words, given in (
        ("no photo so far: drop or choose one", {"photo": None}),
        ("the photo is no longer here: drop it again", {"photo": "gone.png"}),
        ("this photo: absurdly large: 200 x 160 pixels", {"max_pixels": 1000}),
        ("21 texts are more than the 20", {"words": "\n".join(map(str, range(21)))}),
        ("aaa…: has 201 letters, more than 200", {"words": "a" * 201}),
    ):
        with pytest.raises(InputError, match=words):
            looked_at(study, **given)

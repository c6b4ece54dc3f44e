"""Bad input ends in one message, which names the file or the option, its value, and the fix."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import singflow
from singflow.artifacts.tensors import read_tensors
from singflow.commands.app import app as page
from singflow.photo.analyzer import Analyzer
from tests.photo.conftest import MODEL as REAL
from tests.photo.handmade import MODEL, assert_refused, judge
from tests.photo.test_page import REGISTRIES
from tests.project import ROOT


def of_other_weights(study):
    head, facts = read_tensors(study.path("head"), ["weight", "bias"])
    study.tensors("head", facts | {"weights_sha256": "0" * 64}, **head)


def cut(study):
    """A photo that is cut off, in a study without the head, which is read later."""
    Path("bad.png").write_bytes(Path("one.png").read_bytes()[:5000])
    study.path("head").unlink()


def judged(**changes):
    return lambda study: judge(study, **changes)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (judged(verdict="of old"), {}, f"models.csv: what it says of {MODEL} is damaged"),
        (judged(model="tiny"), {}, f"models.csv: has no row for conse_minilm and {MODEL}"),
        (of_other_weights, {}, "tiny.net.safetensors: was made with weights * instead of"),
        (lambda study: study.tensors("projector", null_basis=np.eye(7)), {}, "in 7 dimensions"),
        (lambda study: study.manifest(label=["ant"], prompt=["an image of a ant"]), {},
         "conse_minilm.safetensors: holds other texts than its names and the manifest"),
        (None, {"model": "timm/tiny.nets"}, "--model 'timm/tiny.nets': * mean 'timm/tiny.net'?"),
        (None, {"space": "conse_minlm"}, "*has conse_minilm; did you mean 'conse_minilm'?"),
        (None, {"results": Path("nowhere")}, "nowhere/registry/models: holds no model: run the"),
        (cut, {"images": ["one.png", "bad.png"]}, "bad.png: truncated or corrupt"),
        (cut, {"images": ["none.png"]}, "none.png: No such file"),
        (cut, {"max_pixels": 100}, "one.png: absurdly large: 200 x 160 pixels"),
        (None, {"output": "one.png"}, "--output *one.png: File exists: name another folder"),
        (lambda study: study.path("own_words").unlink(), {},
         "results/tiny/*: no such file: make it with `snakemake --cores all *results/tiny/"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_used_is_refused(study, change, options, words):
    if change:
        change(study)
    assert_refused(words, study.analyze, *options.pop("images", ["one.png"]), **options)
    assert change is not cut or not Path("out").exists()  # photos are looked at first


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "nowhere"}, "--reference nowhere: holds no data/manifest.parquet: name the"),
        ({"translator": "no.safetensors"}, "--translator no.safetensors: no such file: name an"),
        ({"model": "timm/resnet18.a1_in1k"}, "no translator of timm/resnet18.a1_in1k into conse"),
        ({"models": "no.yaml"}, "no.yaml: no such file: run this in the folder of the repository"),
        ({"translator": "x", "results": "results/demo"}, "name one of them"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(monkeypatch, options, words):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(singflow.Classifier, "load", lambda *_, **__: pytest.fail("loaded"))
    assert_refused(words, Analyzer.load, **{"model": REAL} | options)


def test_a_photo_or_a_text_that_cannot_be_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(Analyzer, "load", lambda *_, **__: pytest.fail("loaded"))
    photo = Image.new("RGB", (8, 8))
    for words, given in (
        ("nope.jpg: No such file", {"image": "nope.jpg"}),
        ("a text *compared with is blank: write words", {"image": photo, "texts": ["a", " "]}),
        (r"the text 'a \udcff' is not valid Unicode", {"image": photo, "texts": ["a \udcff"]}),
    ):
        assert_refused(words, singflow.analyze, **given)


def test_what_the_page_cannot_serve_is_refused(study, monkeypatch, closed_port):
    serve = partial(page, threads=1, models=REGISTRIES["models"], spaces=REGISTRIES["spaces"])
    for words, options in (
        ("models.csv: no such file: make it", {"results": Path("nowhere")}),
        ("name the results", {"reference": "nowhere"}),
        (f"--port {closed_port}: *: name another", {"results": study.folder, "port": closed_port}),
    ):
        assert_refused(words, serve, **options)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert_refused("gradio is not installed: *[app]", page)

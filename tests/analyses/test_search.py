"""Search by a text: ranks and angles before and after removal, any blocks, limited memory."""

import json
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics.pairwise import cosine_similarity

import singflow
from singflow.analyses.metrics import Removal
from singflow.analyses.search import nearest_either_way, rank_by_text
from singflow.artifacts.files import write_bytes, write_json
from singflow.commands.search import search
from singflow.config.registry import resolve_spaces
from singflow.study import render_params, with_derived_keys
from singflow.towers.classifiers import weights_sha256
from singflow.towers.ready_texts import ready_path, write_ready
from singflow.towers.spaces import load_text_tower
from singflow.translators.ridge import Affine
from tests.project import ROOT
from tests.refusals import refused
from tests.results import Results


def blocks(original, removed, size):
    order = np.random.default_rng(1).permutation(len(original))
    return [
        (rows, Removal(original[rows], removed[rows]))
        for rows in np.array_split(order, -(-len(order) // size))
    ]


def test_ranks_are_those_of_the_cosine_before_and_after_whatever_the_blocks():
    generator = np.random.default_rng(0)
    original, removed = generator.standard_normal((2, 90, 6))
    text = generator.standard_normal(6)
    found = rank_by_text(blocks(original, removed, 7), text, 90)
    pd.testing.assert_frame_equal(found, rank_by_text(blocks(original, removed, 90), text, 90))
    assert list(found["rank"]) == list(range(1, 91))
    mine, after = found.sort_values("image_id"), ("equivalent_deg", "equivalent_rank")
    for (column, rank), rows in ((("angle_deg", "rank"), original), (after, original - removed)):
        cosine = cosine_similarity(rows, text[None])[:, 0]
        np.testing.assert_allclose(mine[column], np.degrees(np.arccos(cosine)), atol=1e-6)
        np.testing.assert_array_equal(mine[rank], np.argsort(np.argsort(-cosine)) + 1)


def test_what_is_near_after_alone_is_listed_too_and_equal_angles_are_ranked_by_id():
    original = np.array([[1.0, 0.0], [1.0, 0.5], [1.0, 1.0], [1.0, 2.0]])
    removed = np.array([[0.0, -9.0], [0.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    ranked = rank_by_text(blocks(original, removed, 4), np.array([1.0, 0.0]), 4)
    near = nearest_either_way(ranked, 1)[["image_id", "rank", "equivalent_rank", "risen"]]
    assert near.to_numpy().tolist() == [[0, 1, 4, -3], [3, 4, 1, 3]]
    rows = np.tile([[1.0, 1.0]], (6, 1))
    equal = rank_by_text(blocks(rows, 0 * rows, 2), np.array([1.0, 0.0]), 6)
    assert list(equal["image_id"]) == list(range(6))


def test_memory_holds_two_angles_an_image_and_no_features():
    images, width, size = 100_000, 64, 1000

    def streamed():
        for start in range(0, images, size):
            rows = np.random.default_rng(start).standard_normal((size, width)).astype(np.float32)
            yield np.arange(start, start + size), Removal(rows, 0.1 * rows[:, ::-1])

    text = np.ones(width, np.float32)
    tracemalloc.start()
    rank_by_text(streamed(), text, images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * images  # bytes; the features alone would be 256 an image


@pytest.fixture(scope="module")
def space():
    """An entry of the registry, and its text tower."""
    (entry,) = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"]).values()
    return entry, load_text_tower(entry)


@pytest.fixture
def study(tmp_path, space, monkeypatch):
    """A finished study of eight images. The name of its first model has a folder."""
    monkeypatch.chdir(tmp_path)
    entry, tower = space
    generator = np.random.default_rng(0)
    results = Results(tmp_path / "results/s", space="conse_minilm", shards=2)
    chosen = {"study": "s", "models": ["timm/a.b", "c"], "spaces": ["conse_minilm"]}
    params = with_derived_keys(chosen | {"extraction": {"shards": 2}})
    for path in (results.path("params"), tmp_path / "params.yaml"):
        write_bytes(path, render_params(params).encode())
    labels = [f"label {i % 2}" for i in range(8)]
    results.manifest(path=[f"x/{i}.jpg" for i in range(8)], label=labels, fold=np.arange(8) % 2)
    write_json(results.path("space_entry"), entry.model_dump())
    names = {"labels": ["label 0", "label 1"], "concepts": ["a sea", "a dog"], "targets": []}
    write_json(results.path("names"), names)
    templates = {"label_templates": '["an image of a {}"]', "concept_templates": '["{}"]'}
    templates |= {"weights_sha256": weights_sha256(tower.module)}
    texts = {f"{kind}_embeddings": tower.embed(names[f"{kind}s"]) for kind in ("label", "concept")}
    results.tensors("texts", templates, **texts)
    basis = np.linalg.qr(generator.standard_normal((5, 2)))[0]
    translator = Affine(generator.standard_normal((384, 5)), generator.standard_normal(384))
    translator = translator.astype(np.float32)
    features = generator.standard_normal((8, 5)).astype(np.float32)
    for model in ("timm/a.b", "c"):
        own = results.of(model)
        write_json(own.path("model_entry"), {})
        own.tensors("projector", null_basis=basis)
        own.translator(translator)
        own.rows("features", features)
    return features, translator, basis


def test_the_command_ranks_a_studys_images_by_stored_ready_and_new_texts(
    study, space, capsys, caplog
):
    (features, translator, basis), (entry, tower) = study, space
    caplog.set_level("INFO")
    own = np.eye(1, 384, dtype=np.float32)[0]
    ready = {"my own text": own, "a sea": own}
    write_ready(ready_path("conse_minilm", "mine"), ready, entry.identity)
    wanted = {text: tower.embed([text])[0] for text in ("a sea", "a violin")} | {"my own text": own}
    before, after = translator(features), translator(features - features @ basis @ basis.T)
    for text, embedding in wanted.items():
        caplog.clear()
        search(text, as_json=True, count=8, threads=1)
        assert ("text tower loaded" in caplog.text) == (text == "a violin")  # a new text needs it
        told = json.loads(capsys.readouterr().out)
        assert (told["model"], told["space"]) == ("timm/a.b", "conse_minilm")
        images = pd.DataFrame(told["images"])
        assert len(images) == 8
        for key, rows in (("angle_deg", before), ("equivalent_deg", after)):
            expected = np.degrees(np.arccos(cosine_similarity(rows, embedding[None])[:, 0]))
            np.testing.assert_allclose(images[key], expected[images["image_id"]], atol=1e-4)
        assert (images["path"] == [f"x/{image}.jpg" for image in images["image_id"]]).all()
    search("a sea", count=2, model="c", threads=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("'a sea' in conse_minilm, by c: 8 images")
    assert 4 <= len(lines) <= 6 and "label" in lines[2]


def test_what_a_study_lacks_is_said(study):
    Path("results/s/features/timm/a.b/shard-00000.safetensors").unlink()
    for flags, message in (
        ({"model": "d"}, "--model 'd': the study in results/s has c, timm/a.b"),
        ({"space": "clip"}, "--space 'clip': the study in results/s has conse_minilm"),
        ({"results": Path("results/t")}, "results/t/params.yaml: no such file"),
        ({}, "features/timm/a.b/shard-00000.safetensors: no such file"),
    ):
        refused(re.escape(message), search, "a sea", threads=1, **flags)


def test_shards_of_an_earlier_division_are_not_read(study, capsys):
    search("a sea", as_json=True, count=8, threads=1)
    before = capsys.readouterr().out
    shards = Path("results/s/features/timm/a.b")
    shutil.copy(shards / "shard-00001.safetensors", shards / "shard-00002.safetensors")
    search("a sea", as_json=True, count=8, threads=1)
    assert capsys.readouterr().out == before
    read = singflow.load_study("results/s").of("timm/a.b").features()
    assert np.array_equal(np.concatenate([rows for _, rows in read]), study[0])

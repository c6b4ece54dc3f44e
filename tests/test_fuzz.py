"""Damaged and hostile input of every kind.

The input is read, or refused by name in printable words: no other error, no hang, no partial file.
The examples are the same in every run; `FUZZ=20000` draws that many for each test.
"""

import argparse
import io
import os
import signal

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from singflow.analyses.concepts import MOMENTS, read_scan
from singflow.artifacts import files, tables
from singflow.artifacts import shards as sharding
from singflow.artifacts import tensors as tensor_files
from singflow.artifacts.tables import BASIS, read_models
from singflow.config.reading import read_section, read_yaml
from singflow.config.registry import (
    ModelEntry,
    read_model,
    read_space,
    resolve_models,
    resolve_spaces,
)
from singflow.config.sections import PACKAGE_DATA
from singflow.data import listing
from singflow.data import manifest as data
from singflow.data.images import FORMATS, Unusable, decode
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError, printable
from singflow.study import Params, check
from singflow.translators.hub import Translator
from singflow.translators.linear import read_crossfitted
from singflow.translators.networks import Network, load_network
from tests import PATIENCE
from tests.data.manifests import CLASSES, whole
from tests.data.test_images import encoded
from tests.project import ROOT

MANY = int(os.environ.get("FUZZ", 40))
bounded = settings(max_examples=MANY, suppress_health_check=[HealthCheck.function_scoped_fixture])
MAGIC = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\x7fWEBP", b"PAR1"]
BYTES = [b"\0", b"\xff", b"\x1b[31m", b"\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", *MAGIC]
HARD = [b"\xe2\x80\xa8", b"9" * 5000, b"NaN", b"1e999", b"-" * 99]
TEXT = [b"\0", b"\xff", b"\x1b", b"\n", b"\r", b'"', b"'", b",", b"../", b"/etc/passwd", *HARD]
TAGGED = [b"!!%s x" % tag for tag in b"bool timestamp python/name:os.system".split()]
TAGS = [b"!!int ''", b"!!float ''", b"!!binary aaa", b"!!set {a}", *TAGGED]
KEYS = [b"<<: ", b"? [a]\n: b\n", b"~: 1\n", b"1: 2\n"]
VALUES = b"2020-13-45 .nan .inf null [] {}".split()
YAML = [*TEXT, *TAGS, *KEYS, *VALUES, b"[" * 900, b"{", b"&a [*a]", b"*a", b"- "]
JSON = [*TEXT, b"[" * 2000, b"{", b"}", b"null", b"[]", b"{}", b"-1", b"true", b'"x"', b"0.5"]


def damaged(content: bytes, pieces: list[bytes]):
    """Contents with parts cut, repeated, replaced or flipped at up to three places."""

    def apply(strokes):
        damage = bytearray(content)
        for kind, place, length, piece in strokes:
            start = int(place * len(damage))
            if kind == "truncate":
                del damage[start:]
            elif kind == "cut":
                del damage[start : start + length]
            elif kind == "flip" and start < len(damage):
                damage[start] ^= 1 << length % 8
            elif kind == "splice":
                damage[start:start] = damage[length : 2 * length]
            elif kind == "value":  # of a line of YAML or JSON
                start = damage.rfind(b": ", 0, start) + 2
                end = damage.find(b"\n", start)
                damage[start : end if end >= 0 else len(damage)] = piece
            else:
                damage[start : start + length % 9] = piece
        return bytes(damage)

    kinds = st.sampled_from(["truncate", "cut", "flip", "splice", "value", "piece"])
    stroke = st.tuples(kinds, st.floats(0, 1), st.integers(1, 60), st.sampled_from(pieces))
    return st.lists(stroke, min_size=1, max_size=3).map(apply)


@pytest.fixture(autouse=True)
def no_hang():
    """A test that hangs fails."""

    def fail(*_):
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE + MANY)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def judge(path, read, *fixes):
    """A list of what is read; an empty one if it is refused, printably, by name and with a fix."""
    try:
        return [read(path)]
    except InputError as error:
        message = str(error)
        assert str(path) in message and message == str(InputError(message)), message
        assert not fixes or any(fix in message for fix in fixes), message
        assert len(message) < 20_000
    return []


# Images


PHOTO = data.data_root("packaged", ".") / "imagenet_06_609.jpg"
SMALL = Image.open(PHOTO).resize((60, 40))
PHOTOS = [encoded(SMALL, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")]
PHOTOS.append(PHOTO.read_bytes())


@pytest.mark.filterwarnings("ignore::UserWarning")
@bounded
@given(
    st.sampled_from(PHOTOS).flatmap(lambda photo: damaged(photo, BYTES)),
    st.sampled_from([10**8, 1000]),
)
def test_a_damaged_photo_is_decoded_or_unusable_for_a_printable_reason(content, max_pixels):
    try:
        image = decode(content, max_pixels)
    except Unusable as reason:
        assert str(reason) and str(reason) == printable(str(reason))
    else:
        assert image.mode == "RGB" and image.width * image.height <= max_pixels


def test_no_other_format_is_opened_whatever_pillow_can_read():
    words = f"not an image, or none of {', '.join(FORMATS)}: convert it"
    with pytest.raises(Unusable, match=words):
        decode(encoded(SMALL.convert("RGB"), "EPS"), 10**8)


def of(folder, name, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


# Checkpoints


WEIGHTS = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (2, 4)}
OWN = ModelEntry(source="timm", id="a.b", weights="file:mine.pth", classes=2)


def load_own(path):
    from torch import nn

    from singflow.towers.checkpoints import load_checkpoint

    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    load_checkpoint(model, path, OWN, ["1"])
    return model


@settings(bounded, max_examples=4 * MANY)
@given(st.sampled_from(["zip", "legacy", "safetensors"]), st.data())
def test_a_damaged_checkpoint_is_loaded_or_refused_and_never_run(tmp_path, kind, data):
    import torch
    from safetensors.torch import save

    state, file = {name: torch.ones(shape) for name, shape in WEIGHTS.items()}, io.BytesIO()
    if kind == "safetensors":
        content = save(state)
    else:
        wrapped = {"state_dict": state, "args": argparse.Namespace(lr=0.1)}
        torch.save(wrapped, file, _use_new_zipfile_serialization=kind == "zip")
        content = file.getvalue()
    pieces = [*BYTES, b"c__builtin__\nexec\n", b"<html>"]
    judge(of(tmp_path, "mine.pth", data.draw(damaged(content, pieces))), load_own)


NAMES = ["resnet50", "efficientnet_lite0", "dinov2_large", "dinovit_linear"]
SPACES = ["conse_minilm", "clip_vit_l14"]
REGISTRY = (PACKAGE_DATA / "spaces.yaml").read_bytes()
MODELS = read_yaml(PACKAGE_DATA / "models.yaml")
MODELS = yaml.safe_dump({name: MODELS[name] for name in NAMES}).encode()


def read_table(path):
    return listing.list_table(path, "label", CLASSES)


TABLE = b"path,label,class_index,prompt,split\na.jpg,cat,3,,train\nb/c.jpg,dog,,a dog,val\n"
OWN_CLASSES = b"class_index,synset,name\n0,n01,a\n1,n02,b\n2,,c d\n"
BASES = f"{','.join(['space', 'model', *BASIS])}\ns,m,exact,1,0.5,good,0,\n".encode()
OF_MODEL = b'{\n"source": "timm",\n"id": "a.b",\n"sha256": {}\n}'
OF_SPACE = b'{\n"source": "open_clip",\n"id": "a/b",\n"dim": 3\n}'
OF_TEXTS = b'{\n"labels": ["a"],\n"concepts": ["b"],\n"targets": []\n}'


SECTION = yaml.safe_dump({"extraction": read_yaml(ROOT / "params.yaml")["extraction"]}).encode()
PARAMS = (ROOT / "params.yaml").read_bytes()
Extraction = Params.model_fields["extraction"].annotation
FILES = {
    "params.yaml": (PARAMS, YAML, lambda path: check(read_yaml(path), str(path))),
    "extraction.yaml": (SECTION, YAML, lambda path: read_section(path, "extraction", Extraction)),
    "models.yaml": (MODELS, YAML, lambda path: resolve_models(path, NAMES)),
    "spaces.yaml": (REGISTRY, YAML, lambda path: resolve_spaces(path, SPACES)),
    "model.json": (OF_MODEL, JSON, read_model),
    "space.json": (OF_SPACE, JSON, read_space),
    "models.csv": (BASES, JSON, read_models),
    "names.json": (OF_TEXTS, JSON, files.read_names),
    "concepts.txt": ((ROOT / "config/vocab/concepts.txt").read_bytes(), TEXT, read_vocabulary),
    "classes.csv": (OWN_CLASSES, TEXT, data.read_classes),
    "table.csv": (TABLE, TEXT, read_table),
}


@pytest.mark.parametrize("name", FILES)
@bounded
@given(st.data())
def test_a_damaged_study_registry_list_or_sidecar_is_read_or_refused(tmp_path, name, data):
    content, pieces, read = FILES[name]
    read(of(tmp_path, name, content))
    judge(of(tmp_path, name, data.draw(damaged(content, pieces))), read)


def test_aliases_that_stand_for_thousands_of_millions_of_values_are_refused_at_once(tmp_path):
    laughs = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    mine = "mine: {source: timm, id: x.y, transform: {a: *a11}}"
    path = of(tmp_path, "bomb.yaml", f"a0: &a0 [lol]\n{laughs}\n{mine}\n".encode())
    with pytest.raises(InputError, match=r"bomb\.yaml: .*aliases .* write them out"):
        resolve_models(path, ["mine"])
    bomb = yaml.safe_load(path.read_bytes())
    with pytest.raises(InputError) as refused:  # as Snakemake reads it
        check(read_yaml(ROOT / "params.yaml") | {"models": bomb["a11"]}, "params.yaml")
    assert "models" in str(refused.value) and len(str(refused.value)) < 100_000


# Artifacts


NETWORK = Network("mlp3", 3, 4, 5, 0.1)
LINEAR = {"weight": np.ones((4, 3), np.float32), "bias": np.ones(4, np.float32)}
SHARD = {"image_id": np.arange(2), "view": np.zeros(2, np.int32)}
SHARD |= {"features": np.ones((2, 3), np.float32)}
SPLIT = {"label": ["a", "b"], "split": ["validation", "train"], "fold": [0, 1]}
MANIFEST = whole(pd.DataFrame({"image_id": [0, 1]} | SPLIT))
FOLDS = {"fold_weight": np.ones((2, 4, 3), np.float32), "fold_bias": np.ones((2, 4), np.float32)}
CROSSED = (LINEAR | FOLDS, {"kind": "linear", "folds": "2", "in_sample": "false"})
SCAN = dict.fromkeys(MOMENTS, np.ones((2, 1), np.float32)) | {"n": np.ones(2, np.int64)}


def read_scan_of_two(path):
    files.write_json(path.with_suffix(".json"), NAMES_OF_TEXTS)
    return read_scan(path, path.with_suffix(".json"), MOMENTS)


TENSORS = {
    "linear.safetensors": (LINEAR, {"kind": "linear"}, Translator.load),
    "crossed.safetensors": (
        *CROSSED,
        lambda path: read_crossfitted(path, MANIFEST)(SHARD["features"], SHARD["image_id"]),
    ),
    "mlp3.safetensors": (
        {name: tensor.numpy() for name, tensor in NETWORK.state_dict().items()},
        {"kind": "mlp3", "width": "5", "dropout": "0.1"},
        load_network,
    ),
    "scan.safetensors": (SCAN, {}, read_scan_of_two),
    "basis.safetensors": ({"null_basis": np.ones((3, 1))}, {}, tensor_files.read_null_basis),
    "shard-00000.safetensors": (
        SHARD,
        {},
        lambda path: list(sharding.iterate_shards(path.parent, "features", 1, MANIFEST)),
    ),
}


FIXES = ("run the workflow again", "networks.load_network", "name a file of translators/")
FIXES += ("write or download it again",)


@pytest.mark.parametrize("name", TENSORS)
@bounded
@given(st.data())
def test_damaged_tensors_are_read_or_refused_with_the_fix(tmp_path, name, data):
    tensor_files.write_tensors(tmp_path / name, *TENSORS[name][:2])
    content = data.draw(damaged((tmp_path / name).read_bytes(), [*BYTES, *JSON]))
    path = of(tmp_path, name, content)
    named = path.parent if name.startswith("shard") else path  # a refusal names its folder
    judge(named, lambda _: TENSORS[name][2](path), *FIXES)


@pytest.mark.parametrize("place", ["/etc/x.jpg", "a/../../x.jpg", ".."])
def test_a_manifest_that_leads_out_of_the_data_root_is_refused(tmp_path, place):
    tables.write_parquet(tmp_path / "m.parquet", MANIFEST.assign(path=["a..b/..c.jpg", place]))
    with pytest.raises(InputError, match=r"m\.parquet: .* leads out of the data root: "):
        sharding.read_manifest(tmp_path / "m.parquet")


NAMES_OF_TEXTS = {"labels": ["a", "b"], "concepts": ["c"], "targets": []}

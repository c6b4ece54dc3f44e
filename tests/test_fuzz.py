"""Damaged and hostile input of every kind.

The input is read, or refused by name in printable words: no other error, no hang, no partial file.
The examples are the same in every run. To look further, `FUZZ=20000 pytest tests/test_fuzz.py`
draws that many examples for each test.
"""

import argparse
import csv
import io
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from singflow.analyses.concepts import MOMENTS, read_scan
from singflow.artifacts import files, tables
from singflow.artifacts import shards as sharding
from singflow.artifacts import tensors as tensor_files
from singflow.artifacts.catalog import CATALOG, TABLE_COLUMNS
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
from singflow.planning.sizes import disk_bytes, sizes_of
from singflow.sources import study_evidence, study_space
from singflow.study import Params, check
from singflow.translators.hub import Translator
from singflow.translators.linear import read_crossfitted
from singflow.translators.networks import Network, load_network
from singflow.translators.released import read_release
from tests import PATIENCE
from tests.data import archives as made
from tests.data.manifests import CLASSES, build, whole
from tests.data.test_images import encoded
from tests.project import ROOT
from tests.results import TRANSLATOR, Results

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


@pytest.mark.parametrize("kind", ["EPS", "PDF", "JPEG2000", "TGA"])
def test_no_other_format_is_opened_whatever_pillow_can_read(kind):
    words = f"not an image, or none of {', '.join(FORMATS)}: convert it"
    with pytest.raises(Unusable, match=words):
        decode(encoded(SMALL.convert("RGB"), kind), 10**8)


# What users write


def of(folder, name, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


HUGE = [10**12, 10**30, 1e12, 1e300, float("inf"), float("nan")]
SMALLER = [0, -1, 1, 2, 10**3, 10**5, 1e-300, 1e-12, 1e-6, 0.5, True, None]
NUMBERS = st.one_of(st.sampled_from([*HUGE, *SMALLER]), st.integers(), st.floats())


@settings(bounded, max_examples=4 * MANY)
@given(st.data())
def test_a_study_of_any_numbers_is_refused_or_its_sizes_are_reckoned(monkeypatch, data):
    monkeypatch.chdir(ROOT)
    study = read_yaml("params.yaml")
    sections = [name for name, values in study.items() if isinstance(values, dict)]
    for _ in range(data.draw(st.integers(1, 3))):
        section = study[data.draw(st.sampled_from(sections))]
        key, number = data.draw(st.sampled_from(sorted(section))), data.draw(NUMBERS)
        section[key] = [number] if isinstance(section[key], list) else number
    if judge("params.yaml", lambda origin: check(study, origin)):
        models = resolve_models("config/models.yaml", study["models"])
        spaces = resolve_spaces("config/spaces.yaml", study["spaces"])
        sizes = sizes_of(study, Path("results/absent"), models, spaces)
        assert all(0 < size < 1e12 for size in vars(sizes).values())
        assert 0 < disk_bytes(study, 10**6, models, spaces) < 1e16


# Checkpoints


SHAPES_OF = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (2, 4)}
WEIGHTS = {name: np.ones(shape, np.float32) for name, shape in SHAPES_OF.items()}
OWN = ModelEntry(source="timm", id="a.b", weights="file:mine.pth", classes=2)
WRAPPED = [
    lambda state: state,
    lambda state: {"model": state, "epoch": 3},
    lambda state: {"state_dict": prefixed("module", state), "args": argparse.Namespace(lr=0.1)},
    lambda state: {"teacher": state, "student": prefixed("backbone", state)},
]


def prefixed(prefix, state):
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def load_own(path):
    from torch import nn

    from singflow.towers.checkpoints import load_checkpoint

    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    load_checkpoint(model, path, OWN, ["1"])
    return model


@settings(bounded, max_examples=4 * MANY)
@given(st.sampled_from(WRAPPED), st.sampled_from(["zip", "legacy", "safetensors"]), st.data())
def test_a_damaged_checkpoint_is_loaded_or_refused_and_never_run(tmp_path, wrapped, kind, data):
    import torch
    from safetensors.torch import save

    state, file = {name: torch.from_numpy(array) for name, array in WEIGHTS.items()}, io.BytesIO()
    if kind == "safetensors":
        content = save(state)
    else:
        torch.save(wrapped(state), file, _use_new_zipfile_serialization=kind == "zip")
        content = file.getvalue()

    def load(path):
        try:
            load_own(path)
        except InputError as error:
            assert "weights_only" not in str(error)
            raise

    pieces = [*BYTES, b"c__builtin__\nexec\n", b"<html>"]
    judge(of(tmp_path, "mine.pth", data.draw(damaged(content, pieces))), load)


OTHER_NAMES = ["model", "ema", "0", "", ".", "a" * 300, "\x1b[31m", 7, None]
NAMED = st.sampled_from([*WEIGHTS, *prefixed("module", WEIGHTS), *OTHER_NAMES])
SHAPED = st.sampled_from([(), (0,), (4,), (4, 3), (2, 4), (3, 4), (7, 4)])


@settings(bounded, max_examples=2 * MANY)
@given(st.data())
def test_a_checkpoint_of_any_names_shapes_and_nesting_is_loaded_or_refused(tmp_path, data):
    import torch

    leaf = st.one_of(SHAPED.map(torch.ones), NUMBERS, st.just("text"))

    def nested(inner):
        return st.dictionaries(NAMED, inner, max_size=6) | st.lists(inner, max_size=2)

    torch.save(data.draw(st.recursive(leaf, nested)), tmp_path / "mine.pth")
    if judge(tmp_path / "mine.pth", load_own):
        tensors = load_own(tmp_path / "mine.pth").state_dict().values()
        assert all(tensor.isfinite().all() for tensor in tensors)


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


def own(path):
    """The content of a file of the repository."""
    return (ROOT / path).read_bytes()


SECTION = yaml.safe_dump({"extraction": read_yaml(ROOT / "params.yaml")["extraction"]}).encode()
Extraction = Params.model_fields["extraction"].annotation
FILES = {
    "params.yaml": (own("params.yaml"), YAML, lambda path: check(read_yaml(path), str(path))),
    "extraction.yaml": (SECTION, YAML, lambda path: read_section(path, "extraction", Extraction)),
    "models.yaml": (MODELS, YAML, lambda path: resolve_models(path, NAMES)),
    "spaces.yaml": (REGISTRY, YAML, lambda path: resolve_spaces(path, SPACES)),
    "model.json": (OF_MODEL, JSON, read_model),
    "space.json": (OF_SPACE, JSON, read_space),
    "models.csv": (BASES, JSON, read_models),
    "names.json": (OF_TEXTS, JSON, files.read_names),
    "concepts.txt": (own("config/vocab/concepts.txt"), TEXT, read_vocabulary),
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


TYPED = [["a.jpg", "b.jpg"], [1, 2], [1.5, None], [b"a", b"\xff"], [["a"], ["b"]], [True, None]]
TITLES = st.sampled_from(["path", "label", "class_index", "prompt", "split", "more"])


@bounded
@given(st.dictionaries(TITLES, st.sampled_from([*TYPED, [None, None], ["\0", "../x"]])))
@example({"more": ["a.jpg", "b.jpg"], "path": [1.5, None], "label": [1.5, None]})
def test_a_table_of_any_types_is_listed_or_refused(tmp_path, columns):
    path = tmp_path / "table.parquet"
    pd.DataFrame(columns).to_parquet(path)
    read = [values for title, values in columns.items() if title != "more"]  # which is not read
    rows = list(zip(*read, strict=True))
    for found, rejected in judge(path, read_table):
        filled = [row for row in rows if any(value is not None for value in row)]
        assert len(found) + len(rejected) == len(filled)
        for candidate in found:
            assert not candidate.path.startswith("/") and ".." not in candidate.path.split("/")


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


def judge_tensors(name, path):
    """Read an artifact of TENSORS; a refusal names it, or the folder of its shard."""
    named = path.parent if name.startswith("shard") else path
    judge(named, lambda _: TENSORS[name][2](path), *FIXES)


@pytest.mark.parametrize("name", TENSORS)
@bounded
@given(st.data())
def test_damaged_tensors_are_read_or_refused_with_the_fix(tmp_path, name, data):
    tensor_files.write_tensors(tmp_path / name, *TENSORS[name][:2])
    content = data.draw(damaged((tmp_path / name).read_bytes(), [*BYTES, *JSON]))
    judge_tensors(name, of(tmp_path, name, content))


FACTS = st.sampled_from(["", "null", "[]", "-1", "0", "1e9", "true", "{", "9" * 30])
SHAPES = st.sampled_from([(), (0,), (3,), (4,), (2, 2), (4, 3), (5, 3), (1, 2, 3), (2, 5, 3)])
DTYPES = st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint8", "bool"])


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", TENSORS)
@bounded
@given(st.data())
def test_tensors_of_other_types_shapes_or_names_and_other_facts_are_refused_with_the_fix(
    tmp_path, name, data
):
    tensors, metadata, _ = TENSORS[name]
    changed, facts = dict(tensors), dict(metadata)
    victim = data.draw(st.sampled_from(sorted(tensors)))
    if data.draw(st.booleans()):
        changed["other"] = changed.pop(victim)
    else:
        changed[victim] = np.ones(data.draw(SHAPES), data.draw(DTYPES))
    if facts and data.draw(st.booleans()):
        facts[data.draw(st.sampled_from(sorted(facts)))] = data.draw(FACTS)
    tensor_files.write_tensors(tmp_path / name, changed, facts)
    judge_tensors(name, tmp_path / name)


@bounded
@given(st.data())
def test_damaged_tables_of_rows_are_read_or_refused_with_the_fix(tmp_path, data):
    tables.write_parquet(tmp_path / "m.parquet", MANIFEST)
    content = data.draw(damaged((tmp_path / "m.parquet").read_bytes(), BYTES))
    path = of(tmp_path, "m.parquet", content)
    judge(path, sharding.read_manifest, files.FIX)
    judge(path, sharding.read_index, files.FIX)


@bounded
@given(st.sampled_from(sorted(TABLE_COLUMNS)), st.data())
def test_a_column_that_is_missing_or_of_another_type_is_named_with_the_fix(tmp_path, kind, data):
    values = {"i": [0, 1], "f": [0.5, 1.5], "b": [True, False], "O": ["a", "b"]}
    frame = pd.DataFrame({name: values[letter] for name, letter in TABLE_COLUMNS[kind].items()})
    path = tmp_path / "t.parquet"
    tables.write_parquet(path, frame)
    tables.read_parquet(path, kind)
    victim = data.draw(st.sampled_from(sorted(TABLE_COLUMNS[kind])))
    others = [values[letter] for letter in values if letter != TABLE_COLUMNS[kind][victim]]
    changes = [frame.assign(**{victim: other}) for other in others]
    tables.write_parquet(path, data.draw(st.sampled_from([frame.drop(columns=victim), *changes])))
    fix = rf"t\.parquet: has no column '{victim}' of \w+.*: {files.FIX}"
    with pytest.raises(InputError, match=fix):
        tables.read_parquet(path, kind)


def test_an_index_holds_what_is_asked_for_of_the_manifest_and_is_checked_alike(tmp_path):
    path, columns = tmp_path / "m.parquet", [*sharding.INDEX, "sha256"]
    tables.write_parquet(path, MANIFEST)
    index = sharding.read_index(path, "sha256")
    assert {*sharding.read_index(path)} == {*sharding.INDEX} and {*index} == {*columns}
    pd.testing.assert_frame_equal(index[columns], MANIFEST[columns], check_dtype=False)
    tables.write_parquet(path, MANIFEST.assign(image_id=MANIFEST["image_id"] + 1))
    with pytest.raises(InputError, match=r"m\.parquet: image_id does not count 0, 1, 2"):
        sharding.read_index(path)


@pytest.mark.parametrize("place", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "a/..", ".."])
def test_a_manifest_that_leads_out_of_the_data_root_is_refused(tmp_path, place):
    tables.write_parquet(tmp_path / "m.parquet", MANIFEST.assign(path=["a..b/..c.jpg", place]))
    with pytest.raises(InputError, match=r"m\.parquet: .* leads out of the data root: "):
        sharding.read_manifest(tmp_path / "m.parquet")


HEAD = {"weight": np.eye(2, 3, dtype=np.float32), "bias": np.ones(2)}
NAMES_OF_TEXTS = {"labels": ["a", "b"], "concepts": ["c"], "targets": []}
COUNTS = {"label_embeddings": 2, "concept_embeddings": 1}
EMBEDDED = {name: np.eye(count, 4, dtype=np.float32) for name, count in COUNTS.items()}
TEMPLATES = {f"{kind}_templates": '["{}"]' for kind in ("label", "concept")}
WHOSE = {"study": "tiny", "class_names": '["a", "b"]', "weights_sha256": "x"}
ARTIFACTS = {
    "manifest": (tables.write_parquet, MANIFEST),
    "projector": (tensor_files.write_tensors, {"null_basis": np.eye(3)[:, 2:]}, {}),
    "translator": (tensor_files.write_tensors, *CROSSED),
    "texts": (tensor_files.write_tensors, EMBEDDED, TEMPLATES | {"weights_sha256": "x"}),
    "names": (files.write_json, NAMES_OF_TEXTS),
    "head": (tensor_files.write_tensors, HEAD, WHOSE),
}
JUDGED = {"turn_deg": 9.5, "unique_r2": 0.06, "blind_unique_r2": 0.001, "margin": 0.005}
JUDGED |= {"detectable": 0.03, "n": 2}
PLANTED = {"kind": ["even"], "share": [0.1], "draw": [0], "unique_r2": [0.1], "p": [0.01]}
WORDS = {"word_weights": np.zeros(5), "offset": np.zeros(4)}
WORDS |= {"class_embeddings": np.eye(2, 4, dtype=np.float32)}
SCORED = {"is_deg": [0.5], "null_energy": [0.1], "as_deg": [1.5], "floor_is_deg": [0.4]}
MODEL = ModelEntry(source="timm", id="test_resnet.r160_in1k", weights="random")
SPACE = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"])["conse_minilm"]
D = pd.DataFrame(0.01, [0], ["unique_r2", "unique_r2_low", "unique_r2_high", "p"])
D["hidden"] = True
REPORTED = {
    "params": (files.write_bytes, b"analyses: [scores]\nseed: 0\nsummary: {}\ntranslator: {}\n"),
    "projector_report": (files.write_json, {"rule": "exact"}),
    "translator_report": (files.write_json, TRANSLATOR),
    "tables/models.csv": (
        files.write_bytes,
        b"space,model,translator,verdict\ns,m,not weak,meaning\n",
    ),
    "evidence": (files.write_json, JUDGED),
    "planted_leaks": (tables.write_parquet, pd.DataFrame(PLANTED).assign(unique_r2_low=0.1)),
    "own_words": (tensor_files.write_tensors, WORDS, {}),
    "model_entry": (files.write_bytes, MODEL.model_dump_json().encode()),
    "scores": (tables.write_parquet, pd.DataFrame(SCORED)),
    "evidence_texts": (tables.write_parquet, D.assign(text="a", kind="label")),
    "evidence_groups": (tables.write_parquet, D.assign(group="a", by="label", n=12)),
    "space_entry": (files.write_bytes, SPACE.model_dump_json().encode()),
}


def write_all(folder, artifacts):
    """Write artifacts of three features, four dimensions and two classes; their places."""
    own = {"model": "m", "space": "s", "shard": "00000"}
    paths = {name: CATALOG[name].at(folder, **own) for name in artifacts}
    for name, (write, *content) in artifacts.items():
        write(paths[name], *content)
    return paths


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study, and its reader."""
    folder = tmp_path_factory.mktemp("finished")
    write_all(folder, ARTIFACTS | REPORTED)

    def read(_=None):
        study_space(folder, "s", "cpu")
        study_evidence(folder, "m", "s")

    read()
    return folder, read


@settings(bounded, max_examples=2 * MANY)
@given(st.data())
def test_a_finished_study_with_a_damaged_artifact_is_read_or_refused(finished, data):
    folder, read = finished
    path = data.draw(st.sampled_from(sorted(file for file in folder.rglob("*") if file.is_file())))
    content = path.read_bytes()
    try:
        path.write_bytes(data.draw(damaged(content, [*BYTES, *JSON])))
        judge(folder, read)
    finally:
        path.write_bytes(content)


# A release of translators from elsewhere


RELEASE = b"""
model_name: m
translator_name: t
architecture: linear
embedding_backend: kakao_karlo_v1_alpha_image_variations
in_dim: 3
out_dim: 4
hidden_dim: 0
checkpoint_file: t.pt
"""


@settings(bounded, max_examples=max(1, MANY // 2))
@given(st.data())
def test_a_damaged_release_is_read_or_refused(tmp_path, data):
    import torch

    torch.save({name: torch.from_numpy(array) for name, array in LINEAR.items()}, tmp_path / "t.pt")
    for name, content, pieces in (
        ("t.pt", (tmp_path / "t.pt").read_bytes(), BYTES),
        ("metadata.yaml", RELEASE, YAML),
    ):
        if data.draw(st.booleans()):
            of(tmp_path, name, data.draw(damaged(content, pieces)))
        elif name == "metadata.yaml":
            of(tmp_path, name, RELEASE)
    judge(tmp_path, read_release)


# The scripts


SPELLED = dict.fromkeys(["class_embeddings", "other_embeddings"], np.eye(2, 4, dtype=np.float32))
TESTED = dict.fromkeys(TABLE_COLUMNS["evidence_images"], 0.5) | {"image_id": [0, 1]}
MEASURED = {
    "features": (tensor_files.write_tensors, SHARD, {}),
    "evidence_images": (tables.write_parquet, pd.DataFrame(TESTED)),
    "classes": (tensor_files.write_tensors, SPELLED, {}),
}
ONE_FOLD = {name: array[:1] for name, array in FOLDS.items()}
NOT_FINITE = {"other_embeddings": np.full((2, 4), np.nan, np.float32)}
SPOILT = [
    ("fit_translator", "manifest", MANIFEST.drop(columns="fold")),
    ("scan_concepts", "names", NAMES_OF_TEXTS | {"labels": None}),
    ("scan_concepts", "translator", LINEAR | ONE_FOLD, {"kind": "linear", "folds": "1"}),
    ("measure_zero_shot", "names", NAMES_OF_TEXTS | {"labels": ["a"]}),
    ("measure_zero_shot", "translator", LINEAR, CROSSED[1]),
    ("measure_scores", "head", HEAD, {}),
    ("measure_scores", "evidence_images", pd.DataFrame(TESTED | {"image_id": [0, 2]})),
    ("measure_scores", "evidence_images", pd.DataFrame(TESTED).drop(columns="floor_is_deg")),
    ("measure_evidence", "classes", {"class_embeddings": SPELLED["class_embeddings"]}, {}),
    ("measure_evidence", "classes", SPELLED | NOT_FINITE, {}),
    ("measure_evidence", "projector", {"null_basis": np.eye(3)[0]}, {}),
]
FIT = {"folds": 2, "lambdas": [1.0], "reference": None}
FLAGS = {"fit_translator": {**FIT, "kind": "linear", "imported": []}}
FLAGS["measure_evidence"] = FIT | {"margin": 0.005, "draws": 2, "groups": None, "seed": 0}
FLAGS["measure_evidence"] |= {"confidence": 0.95, "table": "", "class_list": ""}


@pytest.mark.parametrize(
    "step, victim, content", [(step, victim, content) for step, victim, *content in SPOILT]
)
def test_a_step_ends_with_one_message_and_writes_nothing(tmp_path, step, victim, content):
    artifacts = ARTIFACTS | MEASURED
    paths = write_all(tmp_path, artifacts | {victim: (artifacts[victim][0], *content)})
    with pytest.raises(InputError) as refused:
        Results(tmp_path).run(step, **FLAGS.get(step, {}))
    said = str(refused.value)
    assert said.startswith(f"{paths[victim]}: ") and files.FIX in said and "\n" not in said
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(paths.values())


# Folders and tables as people and their machines leave them


LITTER = ["Thumbs.db", "desktop.ini", ".DS_Store", "._1.png", "__MACOSX", ".thumbnails"]
LITTER += ["@eaDir", ".ipynb_checkpoints", "tHUMBS.dB"]
PARTS = st.sampled_from(["cat", "Dog_house", "train", "Val", "a b", "é", *LITTER])


@bounded
@given(st.sets(st.lists(PARTS, min_size=1, max_size=3).map("/".join), max_size=6), st.booleans())
def test_whatever_lies_about_is_a_class_a_reject_or_skipped_as_litter(
    tmp_path_factory, folders, loose
):
    root = tmp_path_factory.mktemp("tree")
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for place in [root / folder for folder in folders]:
        for name in ["1.png", *LITTER]:
            if not (place / name).exists():  # a folder may have the name already
                (place / name).write_bytes(b"x")
    if loose:
        (root / "loose.png").write_bytes(b"x")
    litter = {name.lower() for name in LITTER}
    images = [*root.rglob("1.png"), *root.glob("loose.png")]
    wanted = {str(path.relative_to(root)) for path in images}
    for found, rejected in judge(root, lambda root: listing.list_folder(root, CLASSES)):
        paths = [candidate.path for candidate in found] + [path for path, _ in rejected]
        taken = [path for path in wanted if not litter & {*path.lower().split("/")}]
        assert sorted(paths) == sorted(taken)


CELLS = ["", " ", "cat", "my_cat", "a, b", "a;b", "a\tb", 'say "x"', "Val", "TRAIN", "test"]
CELL = st.sampled_from([*CELLS, "1", "-1", ".DS_Store", "b.jpg"])


@bounded
@given(
    st.permutations(["Path", " LABEL", "Split ", "class_index", "more"]),
    st.lists(st.lists(CELL, max_size=6), max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["", "\ufeff", "\n\n", ",,\n", "sep=;\n", "PK\x03\x04", "PAR1"]),
    st.sampled_from(["utf-8", "utf-16", "cp1252"]),
)
def test_a_table_of_a_spreadsheet_is_listed_or_refused_by_name(
    tmp_path, header, rows, separator, start, encoding
):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([header, *rows])
    path = of(tmp_path, "table.csv", (start + text.getvalue()).encode(encoding, "replace"))
    for found, rejected in judge(path, read_table):
        assert 0 < len(found) + len(rejected) <= sum(any(map(str.strip, row)) for row in rows)
        for candidate in found:
            assert "_" not in candidate.label and candidate.split in ("", "train", "validation")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Five pictures, of each of which there may be any number of copies."""
    root = tmp_path_factory.mktemp("copies")
    for number in range(5):
        Image.new("RGB", (3, 3), (number, 0, 0)).save(root / f"{number}", "PNG")
        for copy in range(5):
            (root / f"{copy} of {number}").symlink_to(root / f"{number}")
    return root


@bounded
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 4), st.integers(0, 4)),
        st.tuples(st.sampled_from(["", "train", "validation"]), st.sampled_from(["cat", "dog"])),
    ),
    st.none() | st.integers(1, 3),
    st.integers(2, 4),
    st.integers(0, 9),
)
def test_no_content_is_on_both_sides_of_a_split_or_in_two_folds(few, files, per_class, folds, seed):
    found = [
        data.Candidate(f"{copy} of {number}", label, -1, "", split)
        for (number, copy), (split, label) in files.items()
    ]
    try:
        manifest, rejected = build(few, found, per_class=per_class, folds=folds, seed=seed)
    except InputError:
        return
    assert (manifest.groupby("sha256")[["split", "fold"]].nunique() == 1).all(axis=None)
    accounted = [*manifest["path"], *(path for path, _ in rejected)]
    assert sorted(accounted) == sorted(candidate.path for candidate in found)
    given = {candidate.path: candidate.split for candidate in found}
    assert all(given[row.path] in ("", row.split) for row in manifest.itertuples())
    manifest["held out"] = manifest["path"].map(given) == "validation"
    held_out = manifest.groupby("sha256")["held out"].transform("any")
    dealt = manifest[~held_out].drop_duplicates("sha256")["fold"]
    assert np.ptp(np.bincount(dealt, minlength=folds)) <= 1, "folds are even in contents"


# Archives of images


def packed(path):
    """A tar of two class folders and WebDataset's files, or a Parquet file, as the name says."""
    contents = [made.picture(number, ("PNG", "JPEG")[number % 2]) for number in range(6)]
    if path.suffix == ".parquet":
        made.write_rows(path, contents, [0, 1, 2, 0, 1, 2], ["cat", "dog", "goldfish"])
    else:
        members = {
            f"{('cat', 'dog')[n % 2]}/{n}.png": content for n, content in enumerate(contents)
        }
        for n in range(6) if path.stem == "stated" else ():
            members[f"{('cat', 'dog')[n % 2]}/{n}.cls"] = b"%d" % n
        made.pack(path, members)
    return path.read_bytes()


# sizes, as they are written
TAR_NUMBERS = [b"9" * 11, b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + bytes(10) + b"\x7f"]
TAR_KINDS = [b"%c" % kind for kind in b"LKxgSXV21345670"]
HEADERS = [b"\0" * 512, b"ustar\x0000", *TAR_NUMBERS, *TAR_KINDS, b"../../etc/passwd", *BYTES]


def resealed(content):
    """A tar with correct checksums for its present headers, so that the headers are believed."""
    sealed = bytearray(content)
    for start in range(0, len(sealed) - 511, 512):
        if sealed[start + 257 : start + 262] == b"ustar":
            sealed[start + 148 : start + 156] = b" " * 8
            sealed[start + 148 : start + 156] = b"%06o\0 " % sum(sealed[start : start + 512])
    return bytes(sealed)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["tree.tar", "stated.tar", "rows.parquet"])
@bounded
@given(st.data())
def test_a_damaged_archive_is_refused_by_name_or_its_damaged_images_are_rejected(
    tmp_path, name, data_
):
    path = tmp_path / name
    content = data_.draw(damaged(packed(path), HEADERS))
    path.write_bytes(resealed(content) if data_.draw(st.booleans()) else content)

    def read(name):
        return listing.list_archives(tmp_path, [name], "label", CLASSES)

    for found, rejected, _ in judge(name, read):
        assert found or rejected
        for image in found:
            assert image.archive == name and image.path.startswith(f"{name}/")
            assert ".." not in image.path.split("/")
            seen = data.inspect(tmp_path, image, 10**6)
            assert isinstance(seen, data.Inspected) or (seen and seen == printable(seen))
        for where, reason in rejected:
            assert reason == printable(reason) and where == printable(where)

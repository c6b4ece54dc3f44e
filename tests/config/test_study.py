import copy
import json
import os
import re
import subprocess

import pandas as pd
import pytest
import yaml

from singflow.commands.study import study as write_study
from singflow.config.public import PATHS
from singflow.config.reading import read_yaml
from singflow.config.registry import MODELS, resolve_models
from singflow.config.sections import PACKAGE_DATA
from singflow.errors import InputError
from singflow.planning.prospects import leaks
from singflow.study import (
    Params,
    check,
    check_chosen,
    expand_home,
    json_schema,
    layered,
    parse_texts,
    read_layers,
    render_params,
    settle,
    with_derived_keys,
)
from tests.config.studies import PARAMS, changed
from tests.project import AUTHOR, ROOT

SECTIONS = [(), *((name,) for name, value in PARAMS.items() if isinstance(value, dict))]
PLACES = [
    (*section, key) for section in SECTIONS for key in (PARAMS[section[0]] if section else PARAMS)
]
FILES = sorted((ROOT / "config/studies").glob("*.yaml"))


def checked(**changes):
    return check(changed(changes), "params.yaml")


def refusal(study):
    with pytest.raises(InputError) as refused:
        check(study, "params.yaml")
    return str(refused.value)


def refused(**changes):
    """What is said about params.yaml with values replaced."""
    return refusal(changed(changes))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_study_of_the_repository_is_valid_holds_differences_alone_and_is_read_as_rendered(
    tmp_path, monkeypatch, path
):
    monkeypatch.chdir(ROOT)
    differences = read_yaml(path)
    study = with_derived_keys(differences)
    assert isinstance(check(study, str(path)), Params) and with_derived_keys(study) == study
    packaged = path.stem in ("demo", "paper_demo", "cut_heads")
    assert check(read_layers(path), "").translator.reference == ("packaged" if packaged else None)
    (tmp_path / "params.yaml").write_text(render_params(study))
    assert read_yaml(tmp_path / "params.yaml") == study
    defaults = with_derived_keys({key: differences.pop(key) for key in ("study", "models")})
    for name, value in differences.items():
        for key, inner in value.items() if isinstance(value, dict) else [(None, value)]:
            if (name, key) not in DERIVED:
                assert inner != (defaults[name] if key is None else defaults[name][key])


DERIVED = ("comparison", "models"), ("pictures", "closeup"), ("translator", "reference")


def test_what_follows_from_another_key_follows_it_unless_it_is_given():
    def derived(**sections):
        study = with_derived_keys({"study": "mine", "models": ["b", "a"], "new": 1} | sections)
        assert list(study) == [*Params.model_fields, "new"]
        keys = ("extraction", "shard_ids"), ("comparison", "models"), ("pictures", "closeup")
        return [study[section][key] for section, key in keys]

    assert derived(extraction={"shards": 3}) == [["00000", "00001", "00002"], ["b"], "b"]
    given = {"comparison": {"models": []}, "pictures": {"closeup": "a"}}
    assert derived(extraction={"shard_ids": ["1"]}, **given) == [["1"], [], "a"]


TIMM = "timm/resnet18.a1_in1k"
LITE0, LITE1, LITE2 = (f"efficientnet_lite{number}" for number in range(3))
ANIMALS = "animals_lite0"
CLIP = {"spaces": ["clip_vit_l14"]}


@pytest.mark.parametrize(
    ("models", "sections", "reference", "joined"),
    [
        ([LITE0, LITE1], {"translator": None, "extraction": None}, "packaged", [LITE2, ANIMALS]),
        ([ANIMALS, LITE2], {}, "packaged", []),
        ([LITE2], {"translator": {"folds": 0}}, "packaged", [f"{LITE2}@cut"]),
        ([LITE0], {"controls": {"known": "none"}}, "packaged", []),
        ([TIMM], {"translator": {"folds": 0}}, None, []),
        ([TIMM, LITE0], CLIP, None, [f"{TIMM}@cut"]),
        ([LITE0], {"weights": "random"}, None, []),
        ([7], {}, None, []),
    ],
    ids=str,
)
def test_a_study_gets_the_known_controls_and_one_of_packaged_models_the_packaged_reference(
    monkeypatch, models, sections, reference, joined
):
    monkeypatch.chdir(ROOT)
    study = with_derived_keys({"study": "mine", "models": models} | sections)
    assert study["translator"]["reference"] == reference
    assert study["models"] == [*models, *joined] and study["pictures"]["closeup"] == models[0]


def test_known_controls_are_found_by_what_they_are_and_not_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = {"study": "mine", "models": [LITE0]}
    assert with_derived_keys(study)["models"] == [LITE0, LITE2, ANIMALS]
    packaged = read_yaml(PACKAGE_DATA / "models.yaml")
    own = {"words": packaged[LITE2], "beasts": packaged[ANIMALS]}
    cut = [name for name, entry in packaged.items() if "keep_classes" in entry]
    own |= dict.fromkeys((LITE2, *cut), packaged[LITE0])
    path = tmp_path / "config/models.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(own))
    assert with_derived_keys(study)["models"] == [LITE0, "words", "beasts"]
    del own["beasts"]["keep_classes"]
    path.write_text(yaml.safe_dump(own))
    assert with_derived_keys(study)["models"] == [LITE0, "words", f"{LITE0}@cut"]


@pytest.fixture
def written(tmp_path, monkeypatch, caplog):
    """`singflow study` of a text: params.yaml, or the refusal, and the log."""
    monkeypatch.chdir(ROOT)
    caplog.set_level("INFO")

    def write(text, check=False):
        (tmp_path / "mine.yaml").write_text(text)
        caplog.clear()
        try:
            write_study(str(tmp_path / "mine.yaml"), tmp_path / "params.yaml", check=check)
        except InputError as error:
            return str(error), caplog.messages
        return read_yaml(tmp_path / "params.yaml"), caplog.messages

    return write


def test_a_study_without_a_reference_is_told_how_many_images_it_needs_and_who_has_them(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(ROOT)
    caplog.set_level("INFO")
    write_study("paper", tmp_path / "params.yaml")
    leak = "an evenly spread leak of about 3.3 % would be called meaning"
    assert f"8,192 images, 4.0 per feature dimension: {leak}; Places365's val" in caplog.text


def test_a_study_says_what_its_images_can_show_and_refuses_a_folder_that_is_not_there(
    written, tmp_path
):
    """Of 60 photos, then 60 beside the packaged reference."""
    photos = tmp_path / "photos"
    study = f"study: mine\nmodels: [{LITE0}]\ndata: {{source: folder, root: {photos}}}\n"
    assert "photos: no such folder" in written(study)[0]
    (photos / "dog").mkdir(parents=True)
    for number in range(60):
        (photos / "dog" / f"{number}.jpg").touch()
    beside = written(study)[1]
    assert "567 images, 0.4 per feature dimension: an evenly spread leak of about" in beside[-1]
    alone = written(f"{study}translator: {{reference: null}}")[1]
    assert "60 images" in alone[-2] and "will probably be *cannot tell*" in alone[-1]
    wide = resolve_models(MODELS, ["resnet50", LITE0])
    assert [*leaks(527, checked(), wide).values()] == [["resnet50"], [LITE0]]


HUB = "timm/tf_efficientnet_lite0.in1k"  # the hub's weights may differ from the packaged ones
LOST = [
    ([LITE0, HUB], "", f"no features of {HUB} with"),
    ([LITE0], "spaces: [clip_vit_l14]", "has no embeddings in clip_vit_l14 with"),
    ([LITE0], "extraction: {precision: tf32}",
     f"of {LITE0} and no embeddings in conse_minilm with extraction.precision tf32: "),
]  # fmt: skip


@pytest.mark.parametrize(("models", "text", "words"), LOST)
def test_a_study_without_packaged_features_is_told_what_it_lacks_and_the_ways_back(
    written, models, text, words
):
    study, (_, message, *_) = written(f"study: mine\nmodels: [{', '.join(models)}]\n{text}\n")
    assert study["translator"]["reference"] is None
    assert (
        words in message
        and f"first a study of some hundred other images with models: [{models[0]}" in message
    )


def test_a_params_yaml_that_was_changed_by_hand_is_kept_and_no_other(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    file = tmp_path / "params.yaml"

    def write(**differences):
        """The copies, and what was said, after a study is written."""
        given = {"study": "mine", "models": [TIMM], "weights": "random"} | differences
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given))
        caplog.clear()
        write_study("mine.yaml", file)
        return sorted(path.name for path in tmp_path.glob("params.*.yaml")), caplog.messages

    assert write() == write(seed=1) == write(study="other") == ([], [])
    by_hand = file.read_text().replace("seed: 0", "seed: 7  # mine")
    file.write_text(by_hand)
    (copy,), (said,) = write(seed=1)
    kept = tmp_path / copy
    assert kept.read_text() == by_hand and f"is kept in {kept}" in said
    file.write_text(by_hand)
    assert write()[0] == [copy], "the same content is kept once"
    file.write_text("no: [yaml")
    assert len(write()[0]) == 2
    write_study("mine.yaml", file)
    for words in ("init -q", "add params.yaml", "commit -q -m t"):
        file.write_text("of: a commit\n")
        subprocess.run(["git", *words.split()], check=True, env=os.environ | AUTHOR)
    assert len(write(seed=1)[0]) == 2
    before = file.read_bytes()
    with pytest.raises(InputError):
        write_study("mine.yaml", file.with_name("absent.yaml"), check=True)
    assert file.read_bytes() == before and not (tmp_path / "absent.yaml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study: mine\nmodels: []\n", "models: missing: write the classifiers to look into, as in"),
        ("models: [resnet50]\n", "study: missing: write a name for its folder below results/, as"),
        ("study: mine\nmodels: [efficientnet_lite9]\n", "did you mean 'efficientnet_lite"),
    ],
)
def test_a_study_without_models_or_of_unknown_ones_is_refused_when_it_is_written(
    written, tmp_path, text, words
):
    assert words in written(text)[0] and not (tmp_path / "params.yaml").exists()


def test_a_study_of_an_older_version_is_refused_with_the_command_that_writes_it_anew(written):
    old = copy.deepcopy(PARAMS)
    del old["evidence"], old["controls"]["known"]
    missing = "missing; every key must be written out: `singflow study params.yaml` does it"
    assert sorted(refusal(old).splitlines()) == [
        f"params.yaml: controls.known: {missing}",
        f"params.yaml: evidence: {missing}",
    ]
    anew = PARAMS | {"evidence": PARAMS["evidence"] | {"groups": None}}
    assert written(yaml.safe_dump(old))[0] == anew


@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        ("projector.rank", "7", 7),
        ("projector.rank", "null", None),
        ("steering.labels", "[a, b]", ["a", "b"]),
        ("translator.lambdas", ["0.1", "10.0"], [0.1, 10.0]),
        ("summary.confidence", "{", "{"),
    ],
)
def test_texts_of_the_command_line_become_what_their_key_wants(place, text, found):
    section, key = place.split(".")
    study = changed({place: text})
    parse_texts(study, {section: {key: text}})
    assert study[section][key] == found


def test_the_committed_schema_is_the_one_of_the_code():
    assert (ROOT / "config/schemas/params.schema.json").read_text(encoding="utf-8") == json_schema()
    assert set(json.loads(json_schema())["required"]) == set(PARAMS)


def test_every_key_of_params_yaml_is_explained():
    above = ""
    for line in render_params(PARAMS).splitlines():
        if re.match(r" *\w+:", line):
            assert above.startswith("# ") or re.search(r"\s# \S", line), line
        above = line


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_no_key_may_be_missing_or_of_another_type(place):
    study = copy.deepcopy(PARAMS)
    del (study[place[0]] if len(place) == 2 else study)[place[-1]]
    assert refusal(study) == (
        f"params.yaml: {'.'.join(place)}: missing; every key must be written out: "
        "`singflow study params.yaml` does it"
    )
    place = ".".join(place)
    assert f"params.yaml: {place}" in refused(**{place: {"no": "mapping"}})


OTHER = f"{LITE0}, which models does not list: write"
IMPORTED = f"conse_minilm/resnet50:{'0' * 16}"
HOMES = [".".join(place) for place in PATHS]
LONG = "bytes: a path may have 4000, and a name in it 255"
NAMES = ["a b", "a/b", "a\n", "../x", "..", "$(x)", "-x", ".x", "", "é", "None"]
BAD_PATHS = ['a"b', "a$b", "a`b", "a\\b", "a\nb", "a\x00", ""]
WORDY = "x" * 101
REFUSED = [  # values, and what is said after `params.yaml: <place of the first>`
    *((({place: value}), "") for place, value in (
        ("seed", True), ("threads", "2"), ("models", []), ("data.source", "Folder"),
        ("data.label_column", ""), ("translator.lambdas", []), ("translator.folds", 1),
        *(("pictures.generator", name) for name in ("x", "checkpoints/../x", "a/$(x)")),
        *(("models", [name]) for name in ("hub/x.y", "timm/../x", "timm/a b", "timm/timm/x")),
        ("steering.prompts", ["a", "a"]), ("extraction.crop_area", [0.3]))),
    ({"translator.lambdas": [1.0, True]}, ".1: True "),
    *(({"study": name}, f": {name!r} ") for name in NAMES),
    *(({place: [name]}, f".0: {name!r} ") for place in ("models", "spaces") for name in NAMES),
    *(({place: value}, f" has {len(WORDY)} characters: may have 100, because it becomes a file")
      for place, value in (("study", WORDY), ("models", [WORDY]))),
    *(({"data.root": path}, f": {path!r} ") for path in BAD_PATHS),
    *(({"data.root": path}, LONG) for path in ("x" * 100_000, "x/" * 50_000 + "x", "é" * 128)),
    ({"data.root": "C:\\photos"}, "write / for \\ (under WSL, C:\\ is /mnt/c/)"),
    *(({place: ["b", "a", "b"]}, ": ['b', 'a', 'b'] lists b more than once")
      for place in ("models", "spaces")),
    ({"translator.imported": [IMPORTED[:-1]]}, "must be <space>/<model>:<first 16 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_value_is_refused_at_its_place_in_one_short_line(changes, words):
    ((place, _),) = changes.items()
    message = refused(**changes)
    assert message.startswith(str(InputError(f"params.yaml: {place}")))
    assert str(InputError(words)) in message and len(message) < 2500


@pytest.mark.parametrize(("written", "fix"), [("1e-5", "1.0e-5"), ("1.5E5", "1.5e+5")])
def test_a_number_that_yaml_reads_as_text_is_refused_with_a_fix_that_works(written, fix):
    message = refused(**{"translator.lambdas": [yaml.safe_load(written)]})
    assert f"translator.lambdas.0: {written!r}" in message
    assert message.endswith(f"YAML reads {written} as text: write {fix}")
    assert yaml.safe_load(fix) == float(written)


def test_every_path_of_a_study_may_lie_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/users/ada")
    study = changed({"data.source": "table"} | dict.fromkeys(HOMES, "~/mine"))
    whole = check(study, "params.yaml").model_dump()
    expand_home(study)
    for section, key in PATHS:
        assert study[section][key] == whole[section][key] == "/users/ada/mine"
    fields = {
        f"{name}.{key}": f"{inner.annotation} {inner.metadata}"
        for name, field in Params.model_fields.items()
        for key, inner in getattr(field.annotation, "model_fields", {}).items()
    }
    assert {place for place, words in fields.items() if "_shell_safe" in words} == set(HOMES)
    odd = {"data": None, "prompts": {}, "concepts": {"vocabulary": 7}}
    expand_home(odd)
    assert odd == {"data": None, "prompts": {}, "concepts": {"vocabulary": 7}}


AREA = "crop_area is [smallest, largest] with 0 < smallest <= largest <= 1, not "


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sed": 1}, "sed: unknown key; did you mean 'seed'?"),
        ({"data.zzz": 1}, "data.zzz: unknown key; valid keys are archives, classes, label_column,"),
        ({"extraction.shards": 2, "extraction.shard_ids": ["00001", "00000"]},
         'shard_ids must name the 2 shards: write ["00000", "00001"]'),
        *(({"extraction.crop_area": area}, f"{AREA}{area}") for area in ([0.5, 0.3], [0.0, 1.0])),
        ({"data.source": "archive"}, "data.source archive needs data.archives: tar or Parquet"),
        ({"data.root": "photos"}, "data.root is photos, but data.source packaged studies the pack"),
        ({"projector.rule": "fixed"}, "rule fixed needs a rank: write rank: <number>"),
        ({"models": [TIMM]}, f"comparison.models names {OTHER} comparison.models: [{TIMM}]"),
        ({"translator.reference": "results/demo"}, "results/demo, the study itself: write"),
        ({"translator.imported": [IMPORTED]}, "names conse_minilm/resnet50, but the study has no"),
    ],
)  # fmt: skip
def test_a_key_that_is_unknown_or_does_not_fit_another_is_refused_with_what_to_write(
    changes, words
):
    assert words in refused(**changes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *((text, "not valid YAML") for text in (b"a: [1", b"\xff\xfe")),
        (b"a: !!python/object/apply:os.system [touch executed]", "not valid YAML"),
        (b"a: " + b":".join([b"59"] * 3000), "not valid YAML: .*4300 digits"),
        (b"a: [" + b"1," * 2**21 + b"]", "not valid YAML: it has 4194309 bytes, and may"),
        *((text, "must be a mapping of keys to values") for text in (b"- a", b"")),
        (b"seed: 1\nthreads: 1\nseed: 1", "not valid YAML: seed: written twice"),
        (b"a: &a {x: 1}\nb: {<<: *a, x: 2, x: 3}", "not valid YAML: x: written twice"),
        (b'a: "C:\\photos"', r"not valid YAML(.|\n)*: write / for \\ in paths"),
        (
            b"seed: 1\n<<<<<<< HEAD\nthreads: 1\n=======\nthreads: 2\n>>>>>>> other\n",
            "holds conflict markers of a merge, first in line 2: keep one side",
        ),
        (None, "no such file: run this in the folder of the repository"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_no_yaml_mapping_is_refused_by_name_and_never_run(
    tmp_path, monkeypatch, content, words
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "broken.yaml").write_bytes(content)
    with pytest.raises(InputError, match=rf"broken\.yaml: {words}"):
        read_yaml(tmp_path / "broken.yaml")
    assert not (tmp_path / "executed").exists()
    with pytest.raises(InputError, match=f"{tmp_path}: not readable"):
        read_yaml(tmp_path)


REFERRED = [
    ({"spaces": ["minilm"]}, "minilm: has no network for images: write data.source: features"),
    ({"pictures.renderer": "unclip"}, "vectors of another space, here conse, would give"),
    ({"translator.reference": "results/absent"}, "results/absent holds no data/manifest"),
    ({"extraction.precision": "tf32"}, "precision float32 instead of tf32; conse_minilm: "),
    ({"evidence.groups": "camera"}, "has no column 'camera' (evidence.groups); it has path, la"),
]


@pytest.mark.parametrize(("changes", "words"), REFERRED, ids=str)
def test_what_a_study_refers_to_must_be_there_and_fit(monkeypatch, changes, words):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=re.escape(words)):
        settle(changed(changes), "params.yaml")


def test_a_study_that_changes_under_a_run_is_refused_by_its_jobs(tmp_path, monkeypatch):
    """Two studies may run at once; jobs know them from a variable of their run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SINGFLOW_STUDY", raising=False)
    first, second, third = (changed({"seed": seed}) for seed in range(3))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(first))
    assert layered(first, "params.yaml", main=True) == "params.yaml"
    written = layered(second, "params.yaml", main=True)
    assert read_yaml(written) == second and written.startswith(".snakemake/studies/demo-")
    for study in (first, second):
        layered(study, "params.yaml", main=False)
    with pytest.raises(InputError, match="it has changed since this run began: put"):
        layered(third, "params.yaml", main=False)


def test_a_label_or_image_that_the_study_chooses_and_the_manifest_lacks_is_named():
    manifest = pd.DataFrame({"image_id": [0, 1], "path": ["a.jpg", "b.jpg"]})
    manifest = manifest.assign(label=["beaker", "buckeye"], sha256="0")
    right = {"plot_labels.labels": ["beaker"], "pictures.images": ["a.jpg"]}
    for images in (["a.jpg"], []):
        check_chosen(checked(**right | {"pictures.images": images}), manifest)
    near = r"no image has the label 'bekaer' \(did you mean 'beaker'\?\)"
    for key, value, said in (
        ("steering.labels", ["beaker", "bekaer"], near),
        ("plot_labels.labels", ["bekaer"], near),
        ("plot_concepts.labels", ["bekaer"], near),
        ("plot_labels.labels", ["zebra"], r".*'zebra' \(labels are 'beaker', 'buckeye', \.\.\.\)"),
        ("pictures.images", ["a.jpg", "c.jpg"], "c.jpg: not in the manifest"),
    ):
        with pytest.raises(InputError, match=f"{key}: {said}"):
            check_chosen(checked(**right | {key: value}), manifest)

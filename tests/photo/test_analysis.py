"""A handmade study of a few random parts; the script's output is recomputed from its files."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
import torch
import yaml
from PIL import Image
from timm.data import create_transform, resolve_data_config

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import sha256_of, write_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.commands.analyze import analyze as command
from singflow.commands.analyze import stems
from singflow.config.reading import read_yaml
from singflow.config.registry import ModelEntry, resolve_spaces
from singflow.errors import InputError
from singflow.photo.analysis import Analysis, Movement, Reach, Setting, _beyond
from singflow.photo.facts import describe
from singflow.photo.figure import draw_image
from singflow.photo.photos import Neighbour
from singflow.photo.texts import stored_texts
from singflow.photo.towers import Prediction
from singflow.towers.classifiers import load_classifier, weights_sha256
from singflow.towers.spaces import load_text_tower
from tests.data.manifests import whole
from tests.project import ROOT

FIVE = ["ant", "bee", "cat", "dog", "elk"]
CONCEPTS = [f"concept {number}" for number in range(12)]
TARGET = "an image of a jellyfish"
ENTRY = ModelEntry(source="timm", id="test_resnet.r160_in1k", weights="random", class_names=FIVE)
SPACE = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"])["conse_minilm"]
MODEL, N = "timm/tiny.net", 40
MODELS = f"""space,model,translator,marks,verdict,turn_deg,unique_r2,blind_unique_r2,margin,detectable
conse_minilm,{MODEL},weak,weak translator,nothing found,0.0,-0.001,0.0001,0.005,0.03
other,{MODEL},good,,known zero,0.0,0.0,,0.005,
"""  # noqa: E501
PARTS = {
    name: CATALOG[name].at(Path(), model=MODEL, space="conse_minilm")
    for name in (
        *("head", "projector", "projector_report", "translator", "translator_report", "texts"),
        *("names", "scores", "tables/models.csv", "manifest", "params"),
    )
}


def unit_rows(count, width, seed):
    rows = np.random.default_rng(seed).standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_prompts(folder, labels=FIVE, templates=("an image of a {}",), tower="not loaded"):
    """Embeddings of labels, concepts and a target, and a manifest; `elk` has its own prompt."""
    counts = {"label": len(labels), "concept": len(CONCEPTS), "target": 1}
    tensors = {
        f"{kind}_embeddings": unit_rows(count, SPACE.dim, number)
        for number, (kind, count) in enumerate(counts.items())
    }
    made = {
        "weights_sha256": tower,
        "label_templates": json.dumps(templates),
        "concept_templates": '["{}"]',
    }
    write_tensors(folder / "prompts/conse_minilm.safetensors", tensors, made)
    write_json(
        folder / "prompts/conse_minilm.json",
        {"labels": list(labels), "concepts": CONCEPTS, "targets": [TARGET]},
    )
    prompts = ["a moose" if label == "elk" else f"an image of a {label}" for label in labels]
    write_photos(folder, list(labels), prompts)


def write_photos(folder, labels, prompts):
    """A manifest, the photos that it lists, and embeddings of two views in two shards."""
    photos = folder.parents[1] / "photos"
    photos.mkdir(exist_ok=True)
    names = [f"{number}.png" for number in range(len(labels))]
    for number, name in enumerate(names):
        Image.new("RGB", (20 + number, 30), (40 * number, 90, 200)).save(photos / name)
    columns = {"path": names, "label": labels, "prompt": prompts, "split": "train"}
    columns["sha256"] = [sha256_of(photos / name) for name in names]
    write_parquet(folder / PARTS["manifest"], whole(pd.DataFrame(columns)))
    data = {"source": "folder", "root": "photos"}
    (folder / "params.yaml").write_text(yaml.safe_dump({"data": data, "extraction": {"shards": 2}}))
    embeddings = unit_rows(2 * len(labels), SPACE.dim, 6).reshape(len(labels), 2, -1)
    for shard, images in enumerate(np.array_split(np.arange(len(labels)), 2)):
        tensors = {
            "embeddings": embeddings[images].reshape(-1, SPACE.dim),
            "image_id": np.repeat(images, 2),
            "view": np.tile([0, 1], len(images)).astype(np.int32),
        }
        write_tensors(
            folder / f"embeddings/conse_minilm/shard-0000{shard}.safetensors", tensors, {}
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of the study, with two photos beside it."""
    folder = tmp_path_factory.mktemp("made")
    results = folder / "results/tiny"
    write_json(results / f"registry/models/{MODEL}.json", ENTRY.model_dump())
    write_json(results / "registry/models/other.json", ENTRY.model_dump())
    write_json(results / "registry/spaces/conse_minilm.json", SPACE.model_dump())
    classifier = load_classifier(ENTRY)
    facts = {
        "study": "tiny",
        "class_names": json.dumps(FIVE),
        "weights_sha256": weights_sha256(classifier.model),
    }
    weight = classifier.weight.numpy()
    write_tensors(
        results / PARTS["head"], {"weight": weight, "bias": classifier.bias.numpy()}, facts
    )
    basis = scipy.linalg.null_space(weight.astype(np.float64))
    write_tensors(results / PARTS["projector"], {"null_basis": basis}, {})
    write_json(results / PARTS["projector_report"], {"rule": "exact", "null_dim": basis.shape[1]})
    translator = {
        "weight": unit_rows(SPACE.dim, weight.shape[1], 3),
        "bias": 0.01 * unit_rows(1, SPACE.dim, 4)[0],
    }
    write_tensors(results / PARTS["translator"], translator, {"kind": "linear"})
    write_json(results / PARTS["translator_report"], {"validation_r2": 0.125})
    write_prompts(results)
    generator = np.random.default_rng(5)
    write_parquet(
        results / PARTS["scores"],
        pd.DataFrame(
            {"is_deg": generator.uniform(0, 90, N), "null_energy": generator.uniform(0, 1, N)}
        ),
    )
    (results / "tables").mkdir()
    (results / PARTS["tables/models.csv"]).write_text(MODELS, encoding="utf-8")
    for name, size in (("one.png", (200, 160)), ("two.jpg", (90, 240))):
        Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
            folder / name
        )
    return folder


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    """A copy that a test may change; `analyze` runs the script on it and gives its records."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def analyze(*images, output="out", **flags):
        given = {
            "model": MODEL,
            "space": "conse_minilm",
            "results": tmp_path / "results/tiny",
            "output": tmp_path / output,
            "threads": 1,
        }
        given |= flags
        paths = [tmp_path / image for image in images]
        command(images=paths, **given)
        files = [given["output"] / f"{name}.json" for name in stems(paths)]
        return [
            json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)
            for file in files
        ]

    analyze.folder = tmp_path
    analyze.results = tmp_path / "results/tiny"
    return analyze


def recompute(folder, image):
    """Feature by timm's parts, and its translations before and after an explicit projector."""
    model = load_classifier(ENTRY).model
    view = create_transform(**resolve_data_config({}, model=model), is_training=False)(
        Image.open(folder / image).convert("RGB")
    )
    with torch.inference_mode():
        feature = (
            model.forward_head(model.forward_features(view[None]), pre_logits=True)
            .flatten()
            .double()
            .numpy()
        )
    head = read_tensors(folder / "results/tiny" / PARTS["head"], ["weight", "bias"])[0]
    translator = read_tensors(folder / "results/tiny" / PARTS["translator"], ["weight", "bias"])[0]
    basis = scipy.linalg.null_space(head["weight"].astype(np.float64))
    equivalent = feature - basis @ (basis.T @ feature)
    before, after = (
        translator["weight"].astype(np.float64) @ vector + translator["bias"]
        for vector in (feature, equivalent)
    )
    return feature, equivalent, head["weight"] @ feature + head["bias"], before, after


def degrees(a, b):
    return float(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))


def movement(text, before, after, embedding):
    a, b = degrees(before, embedding), degrees(after, embedding)
    return {"text": text, "angle_original_deg": a, "angle_equivalent_deg": b, "as_deg": a - b}


def refused(study, words, *images, **flags):
    with pytest.raises(InputError, match=words):
        study(*images or ["one.png"], **flags)


def assert_movement(ours, theirs):
    assert ours["text"] == theirs["text"]
    keys = sorted(theirs.keys() - {"text"})
    assert [ours[key] for key in keys] == pytest.approx([theirs[key] for key in keys], abs=2e-4)


def test_every_number_is_that_of_a_direct_computation(study):
    (record,) = study("two.jpg", text=["concept 3", "an image of a bee", "a moose", TARGET])
    feature, equivalent, logits, before, after = recompute(study.folder, "two.jpg")
    prompts = read_tensors(
        study.results / PARTS["texts"],
        ["label_embeddings", "concept_embeddings", "target_embeddings"],
    )[0]
    order = np.argsort(-logits)
    assert [prediction["index"] for prediction in record["predictions"]] == list(order)
    assert [prediction["name"] for prediction in record["predictions"]] == [FIVE[i] for i in order]
    assert [prediction["probability"] for prediction in record["predictions"]] == pytest.approx(
        scipy.special.softmax(logits)[order], abs=1e-5
    )
    assert record["null_energy"] == pytest.approx(
        1 - (equivalent @ equivalent) / (feature @ feature), abs=1e-5
    )
    assert 0.1 < record["null_energy"] < 1 and 0 <= record["logit_change"] < 1e-4
    assert (
        record["is_deg"] == pytest.approx(degrees(before, after), abs=2e-4) and record["is_deg"] > 5
    )
    assert record["chance_is_deg"] is None and not record["judged"] and record["unlike"] == ""
    best = order[0]
    text = "a moose" if FIVE[best] == "elk" else f"an image of a {FIVE[best]}"
    assert_movement(
        record["predicted"], movement(text, before, after, prompts["label_embeddings"][best])
    )
    embeddings = {
        "concept 3": prompts["concept_embeddings"][3],
        "an image of a bee": prompts["label_embeddings"][1],
        "a moose": prompts["label_embeddings"][4],
        TARGET: prompts["target_embeddings"][0],
    }
    for ours, (text, embedding) in zip(record["texts"], embeddings.items(), strict=True):
        assert_movement(ours, movement(text, before, after, embedding))
    scores = pd.read_parquet(study.results / PARTS["scores"])
    assert record["is_percentile"] == pytest.approx(
        scipy.stats.percentileofscore(scores["is_deg"], record["is_deg"], "mean")
    )
    assert record["null_energy_percentile"] == scipy.stats.percentileofscore(
        scores["null_energy"], record["null_energy"], "mean"
    )
    assert record["setting"] == {
        "source": "study tiny",
        "model": MODEL,
        "space": "conse_minilm",
        "rank_rule": "exact",
        "null_dim": len(feature) - 5,
        "validation_r2": 0.125,
        "translator": "weak",
        "images": f"study's {N} images",
        "n_images": N,
        "verdict": "nothing found",
        "said": f"{MODEL}: nothing found. A leak of 3 % of the meaning would have been seen.",
    }


def test_the_nearest_photos_are_those_of_a_direct_search_and_never_the_photo_itself(study, capsys):
    own = study.folder / "photos/2.png"
    for image, among in (("one.png", range(5)), ("photos/2.png", (0, 1, 3, 4))):
        (record,) = study(image)
        *_, before, after = recompute(study.folder, image)
        embeddings = unit_rows(10, SPACE.dim, 6)[::2]
        for found, point in zip(record["nearest"], (before, after), strict=True):
            angles = {number: degrees(point, embeddings[number]) for number in among}
            best = min(angles, key=angles.get)
            assert (found["image_id"], found["path"]) == (best, f"{best}.png")
            assert found["angle_deg"] == pytest.approx(angles[best], abs=2e-4)
        assert (
            f"nearest photo of the study's 40 images: {record['nearest'][0]['path']} ("
            in capsys.readouterr().out
        )
    assert own.is_file()


def test_photos_and_embeddings_that_are_not_here_are_left_out_and_that_is_said(study, caplog):
    whole = study("one.png")[0]
    shutil.rmtree(study.folder / "photos")
    (record,) = study("one.png", output="without")
    assert record["nearest"] == whole["nearest"]
    assert (study.folder / "out/one.png").read_bytes() != (
        study.folder / "without/one.png"
    ).read_bytes()
    shutil.rmtree(study.results / "embeddings")
    (record,) = study("one.png", output="none")
    assert (
        record["nearest"] == []
        and "embeddings/conse_minilm: not here, so the nearest photos are left out" in caplog.text
    )


def movements_of(scores):
    return [
        Movement(f"text {row}", 60.0 + score, 60.0, score, score)
        for row, score in enumerate(scores)
    ]


def test_texts_are_gained_or_lost_where_no_draw_is_as_far_from_the_others_toward_any_text():
    generator = np.random.default_rng(2)
    chance = generator.normal(0, 0.2, (20, 30)) + np.linspace(-1, 1, 30)
    middle = chance.mean(axis=0)
    least = max(
        abs(chance[draw] - np.delete(chance, draw, 0).mean(axis=0)).max() for draw in range(20)
    )
    scores = middle.copy()
    scores[[3, 5, 20, 25]] = middle[[3, 5, 20, 25]] + np.array([-1.01, 1.01, 1.01, 0.99]) * least
    scores[28] = middle[28] - 1.2 * least  # less than chance, but still nearer
    gained, lost = _beyond(movements_of(scores), scores, chance, 5)
    assert [moved.text for moved in lost] == ["text 3"] and middle[28] > 1.3 * least
    assert [moved.text for moved in gained] == [
        f"text {row}" for row in sorted((5, 20), key=lambda row: -scores[row]) if scores[row] > 0
    ]
    assert len(_beyond(movements_of(scores), scores, chance, 1)[0]) == 1
    assert _beyond(movements_of(scores), scores, chance[:0], 5) == ([], [])


def test_of_draws_and_a_photo_that_are_alike_one_in_all_lists_a_text():
    generator = np.random.default_rng(3)
    listed = 0
    for _ in range(300):
        scores, *chance = generator.normal(0, 1, (21, 40))
        listed += any(_beyond(movements_of(scores), scores, np.array(chance), 5))
    assert 3 < listed <= 26  # 300 / 21 or fewer, as a list needs the sign as well


def test_several_images_at_once_are_each_alone_and_a_second_run_gives_the_same_bytes(study, capsys):
    (study.folder / "two.jpg").rename(study.folder / "ONE.jpg")
    together = study("ONE.jpg", "one.png")
    assert [entry["image"] for entry in together] == [
        str(study.folder / name) for name in ("ONE.jpg", "one.png")
    ]
    said = capsys.readouterr().out
    (alone,) = study("one.png", output="alone")
    assert alone == together[1] and alone["predicted"] != together[0]["predicted"]
    assert said.endswith(capsys.readouterr().out)
    assert (study.folder / "alone/one.png").read_bytes() == (
        study.folder / "out/one-2.png"
    ).read_bytes()
    study("ONE.jpg", "one.png", output="again")
    assert sorted(path.name for path in (study.folder / "out").iterdir()) == [
        "ONE.json",
        "ONE.png",
        "one-2.json",
        "one-2.png",
    ]
    for path in (study.folder / "out").iterdir():
        assert path.read_bytes() == (study.folder / "again" / path.name).read_bytes(), path.name


def test_classes_are_those_of_the_study_or_of_the_list_that_is_named(study):
    head, facts = read_tensors(study.results / PARTS["head"], ["weight", "bias"])
    write_tensors(study.results / PARTS["head"], head, facts | {"class_names": "null"})
    params = read_yaml(study.results / "params.yaml")
    params["data"]["classes"] = "mine.csv"
    (study.results / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    Path("mine.csv").write_text(
        "class_index,synset,name\n" + "".join(f"{i},,{name}\n" for i, name in enumerate(FIVE)),
        encoding="utf-8",
    )
    (record,) = study("one.png", output="by_params")
    assert record == study("one.png", classes=Path("mine.csv"))[0]
    Path("four.csv").write_text("class_index,synset,name\n0,,ant\n", encoding="utf-8")
    refused(
        study,
        (
            r"four.csv: holds 1 classes, but .*head.safetensors has 5: "
            r"name the study's with --classes"
        ),
        classes=Path("four.csv"),
    )


def test_texts_that_the_study_lacks_are_embedded_by_its_text_tower(study):
    tower = load_text_tower(SPACE)
    templates = ["an image of a {}", "a photo of one {}"]
    labels = ["house"]
    write_prompts(study.results, labels, templates, weights_sha256(tower.module))
    (record,) = study("one.png", text=["a rug", "concept 1"])
    *_, before, after = recompute(study.folder, "one.png")
    assert_movement(record["texts"][0], movement("a rug", before, after, tower.embed(["a rug"])[0]))
    name = record["predictions"][0]["name"]
    pair = tower.embed([template.replace("{}", name) for template in templates])
    assert_movement(
        record["predicted"], movement(f"{name} (2 templates)", before, after, pair.mean(axis=0))
    )
    write_prompts(study.results, labels, templates, "other weights")
    refused(
        study,
        (
            r"prompts/conse_minilm.safetensors: was made with weights other weight of the "
            r"text tower"
        ),
    )


def test_a_text_is_found_word_for_word_and_an_average_is_the_embedding_of_no_text():
    names = {"labels": ["owl", "elk"], "concepts": ["ear"], "targets": ["ear"]}
    tensors = {
        f"{kind[:-1]}_embeddings": unit_rows(2, 4, len(kind))[: len(names[kind])] for kind in names
    }
    prompts = {"owl": "an image of a owl", "elk": "a moose"}
    texts = stored_texts(names, tensors, ["see a(n) {}"], ["some {}"], prompts)
    assert list(texts) == ["ear", "some ear", "see an owl", "a moose"]
    assert np.array_equal(texts["some ear"], tensors["concept_embeddings"][0])
    assert np.array_equal(texts["a moose"], tensors["label_embeddings"][1])
    averages = stored_texts(names, tensors, ["this {}", "that {}"], ["some {}", "{}"], prompts)
    assert list(averages) == ["ear", "a moose"]


def test_a_head_without_null_space_scores_zero_and_it_is_said(study, capsys):
    width = len(read_tensors(study.results / PARTS["projector"], ["null_basis"])[0]["null_basis"])
    (study.results / PARTS["tables/models.csv"]).write_text(
        MODELS.replace("nothing found", "no null space"), encoding="utf-8"
    )
    write_tensors(study.results / PARTS["projector"], {"null_basis": np.zeros((width, 0))}, {})
    (record,) = study("one.png", text=["concept 1"])
    assert [record["is_deg"], record["null_energy"], record["logit_change"]] == [0.0] * 3
    assert (
        record["is_percentile"] is record["null_energy_percentile"] is None
        and record["gained"] == record["lost"] == []
    )
    assert record["reach"][0]["limit_deg"] == 0.0
    assert record["predicted"]["as_deg"] == record["texts"][0]["as_deg"] == 0.0
    said = capsys.readouterr().out
    assert "steered toward 'concept 1': the null space offers no way there" in said
    assert (
        record["setting"]["said"] in said
        and "the head has no null space" in record["setting"]["said"]
    )


def test_a_known_zero_says_that_it_is_one_before_all_else(study, capsys):
    (study.results / PARTS["tables/models.csv"]).write_text(
        MODELS.replace("nothing found", "known zero"), encoding="utf-8"
    )
    (record,) = study("one.png")
    first, second, *others = capsys.readouterr().out.splitlines()
    assert (
        first
        == record["setting"]["said"]
        == (
            f"{MODEL}: known zero. The space is a function of this model's logits, "
            "so its null space can hide nothing."
        )
    )
    assert second.startswith(str(study.folder / "one.png")) and not any(
        "known zero" in line for line in others
    )


@pytest.mark.parametrize(
    ("old", "new"), [("nothing found", "a verdict of old"), ("-0.001", "x"), ("0.005", "y")]
)
def test_a_verdict_that_cannot_be_read_is_refused(study, old, new):
    (study.results / PARTS["tables/models.csv"]).write_text(
        MODELS.replace(old, new).replace("0.0,-0.001", f"5.0,{new}" if old == "x" else "0.0,-0.001")
    )
    refused(study, r"models.csv: its row of conse_minilm and timm/tiny.net is damaged")


@pytest.mark.parametrize("part", PARTS.values(), ids=str)
def test_a_missing_artifact_is_named_with_the_command_that_makes_it(study, part):
    (study.results / part).unlink()
    with pytest.raises(InputError) as refused:
        study("one.png")
    assert str(refused.value).startswith(
        f"{study.results / part}: no such file: make it with `snakemake --cores all "
        f"{study.results / part}`"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"model": "timm/tiny.nets"},
            (
                r"--model 'timm/tiny.nets': the study in .* has other, timm/tiny.net; "
                r"did you mean 'timm/tiny.net'\?"
            ),
        ),
        (
            {"space": "conse_minlm"},
            (
                r"--space 'conse_minlm': the study in .* has conse_minilm; "
                r"did you mean 'conse_minilm'\?"
            ),
        ),
        (
            {"results": Path("nowhere")},
            (
                r"nowhere/registry/models: holds no model: run the study with `singflow run`, "
                r"or name its"
            ),
        ),
    ],
)
def test_what_the_study_does_not_have_is_refused_with_what_it_has(study, flags, message):
    refused(study, message, **flags)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"text", "not an image"),
        (None, "No such file"),
        ("cut", "truncated or corrupt"),
    ],
)
def test_an_unreadable_image_is_refused_before_anything_else_is_read(study, content, reason):
    (study.results / PARTS["head"]).unlink()
    if content is not None:
        (study.folder / "bad.png").write_bytes(
            (study.folder / "one.png").read_bytes()[:5000] if content == "cut" else content
        )
    refused(study, f"bad.png: {reason}", "bad.png")
    assert not (study.folder / "out").exists()


def test_an_image_above_the_limit_and_a_folder_that_is_a_file_are_refused(study):
    refused(study, r"one.png: absurdly large: 200 x 160 pixels", max_pixels=100)
    refused(study, r"--output .*one.png: File exists: name another folder", output="one.png")


def test_other_weights_than_the_heads_are_refused(study):
    head, facts = read_tensors(study.results / PARTS["head"], ["weight", "bias"])
    write_tensors(study.results / PARTS["head"], head, facts | {"weights_sha256": "0" * 64})
    refused(study, r"head.safetensors: was made with other weights than the model has now")


def test_artifacts_that_do_not_fit_together_are_refused(study):
    shutil.copy(study.results / PARTS["tables/models.csv"], study.folder / "models.csv")
    (study.results / PARTS["tables/models.csv"]).write_text(
        MODELS.replace(f"conse_minilm,{MODEL}", "conse_minilm,tiny"), encoding="utf-8"
    )
    refused(study, r"models.csv: has no row for conse_minilm and timm/tiny.net")
    shutil.copy(study.folder / "models.csv", study.results / PARTS["tables/models.csv"])
    write_tensors(study.results / PARTS["projector"], {"null_basis": np.eye(7)}, {})
    refused(study, "differ in width: run the study again")
    write_photos(study.results, ["ant"], ["an image of a ant"])
    refused(
        study,
        (
            r"prompts/conse_minilm.safetensors: holds other texts than its names and the "
            r"manifest"
        ),
    )


SETTING = Setting(
    MODEL,
    "conse_minilm",
    "study a_study",
    "exact",
    280,
    0.01,
    "weak",
    "study's 1 image",
    1,
    "trace",
    "tiny: a trace.",
)


def analysis_of(text, gained, lost, setting=SETTING):
    def toward(text, score):
        return Movement(text, 60.0 + score, 60.0, score, score + 0.5)

    predictions = [Prediction(index, text, 0.2) for index in range(5)]
    near, far = (
        [toward(text, 8.0 - row) for row in range(gained)],
        [toward(text, row - 8.0) for row in range(lost)],
    )
    return Analysis(
        predictions=predictions, is_deg=8.0, is_percentile=50.0, chance_is_deg=6.0, null_energy=0.1,
        null_energy_percentile=30.0, logit_change=1e-6, unlike="",
        predicted=replace(toward(text, 3.0), chance_low_deg=-1.0, chance_high_deg=2.0),
        texts=[toward(text, -2.0), toward("a rug", 0.0)],
        reach=[Reach(text, 60.0, 50.0, 20.0, 90.0, 1.5)], judged=True, classes_gained=near,
        classes_lost=far, gained=far, lost=near,
        nearest=[Neighbour(3, f"{text}/{text}.jpg", 40.0), Neighbour(4, "4.jpg", 41.5)], note="",
        setting=setting,
    )  # fmt: skip


def inside(axis, place):
    low, high = sorted(axis.get_view_interval())
    return low <= place <= high


@pytest.mark.parametrize(
    "text", ["cat", "a long phrase of many words with <b>, $x$ and more " * 3, "W" * 90]
)
@pytest.mark.parametrize("size", [(40, 160), (160, 30)])
def test_no_text_of_the_picture_overlaps_another_or_leaves_the_page(text, size):
    near = [Image.new("RGB", size, "navy"), None]
    figure = draw_image(Image.new("RGB", size, "tan"), f"{text}.png", analysis_of(text, 8, 3), near)
    figure.canvas.draw()
    assert {"nearest before (40.0°)", "nearest after (41.5°)"} <= {
        panel.get_title() for panel in figure.axes
    }
    axes = [axis for panel in figure.axes[1:] for axis in (panel.xaxis, panel.yaxis)]
    unseen = {
        id(tick.label1)
        for axis in axes
        for tick in axis.get_major_ticks()
        if not inside(axis, tick.get_loc())
    }
    shown = [
        artist
        for artist in figure.findobj(plt.Text)
        if artist.get_visible() and artist.get_text() and id(artist) not in unseen
    ]
    boxes = [(artist.get_text(), artist.get_window_extent()) for artist in shown]
    page = figure.bbox
    photo = figure.axes[0].images[0].get_window_extent()
    for name, box in boxes:
        assert (
            page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        ), name
        assert not box.overlaps(photo), name
    for (name, first), (other_name, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (name, other_name)
    plt.close(figure)


def test_the_picture_has_white_edges_and_nothing_stays_open(study):
    study("one.png", text=["concept 1"])
    pixels = np.asarray(Image.open(study.folder / "out/one.png").convert("L"))
    assert (np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 255).all()
    assert min(pixels.shape) > 600 and not plt.get_fignums()


def test_the_words_name_a_weak_translator_and_list_three_concepts_either_way():
    weak = describe("photo.jpg", analysis_of("cat", 5, 0))
    assert weak.startswith("photo.jpg: cat (20.0 %)\n")
    assert "WEAK TRANSLATOR, held-out R2 0.01" in weak
    lines = [
        "by the study's 1 image: tiny: a trace.",
        "null removal turns its translation by IS 8.00 degrees, "
        "more than in 50 % of the study's 1 image; "
        "a null component that tells nothing turns it by 6.00",
        "null energy 10.0 %, more than in 30 % of the study's 1 image; logits change by 1.0e-06",
        "classes gained beyond chance: cat +8.50, cat +7.50, cat +6.50",
        "concepts lost beyond chance: cat +8.00, cat +7.00, cat +6.00",
        "toward 'cat': AS +3.00 degrees (63.0 to 60.0); chance gives -1.00 to +2.00",
        "toward 'a rug': AS +0.00 degrees (60.0 to 60.0)",
        (
            "steered toward 'cat': from 60.0 to 50.0 degrees with the same logits, "
            "turned by 20.0, by 1.5 times its null component"
        ),
    ]
    said = iter(weak.splitlines())
    assert [line for line in lines if f"  {line}" not in said] == []  # all of them, in this order
    assert weak.endswith(
        "  nearest photo of the study's 1 image: cat/cat.jpg (40.0 degrees); "
        "after null removal: 4.jpg (41.5 degrees)"
    )
    good = analysis_of("cat", 0, 0, replace(SETTING, translator="good"))
    assert "WEAK" not in describe("photo.jpg", good)
    none = analysis_of("cat", 0, 0)
    assert "no word is gained or lost beyond chance" in describe("photo.jpg", none)
    beyond = describe("photo.jpg", replace(none, judged=False, unlike="its null energy is high"))
    assert (
        "NOTHING CAN BE SAID about this photo by the study's 1 image: its null energy is high"
        in beyond
        and "gained" not in beyond
    )
    assert "no verdict on the model: the images" in describe(
        "photo.jpg", replace(none, setting=replace(SETTING, verdict="", said=""))
    )

"""A handmade study of a few random parts, and the analysis of a photo that nobody computed."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import yaml
from PIL import Image

from singflow.artifacts.files import sha256_of, write_json
from singflow.artifacts.tables import write_parquet
from singflow.commands.analyze import analyze as command
from singflow.commands.analyze import stems
from singflow.config.registry import ModelEntry, resolve_spaces
from singflow.errors import InputError
from singflow.photo.analysis import Analysis, Movement, Reach, Setting
from singflow.towers.classifiers import load_classifier, weights_sha256
from singflow.towers.live import NO_POSITIONS, Prediction
from singflow.translators.ridge import Affine
from tests.project import ROOT
from tests.results import TRANSLATOR, Results

FIVE = ["ant", "bee", "cat", "dog", "elk"]
CONCEPTS = [f"concept {number}" for number in range(12)]
TARGET = "an image of a jellyfish"
ENTRY = ModelEntry(source="timm", id="test_resnet.r160_in1k", weights="random", class_names=FIVE)
SPACE = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"])["conse_minilm"]
MODEL, N = "timm/tiny.net", len(FIVE)
JUDGED = {
    "n": 17, "turn_deg": 0.0, "unique_r2": -0.001, "unique_r2_low": -0.003,
    "unique_r2_high": 0.002, "blind_unique_r2": 1e-4, "margin": 0.005, "detectable": 0.03,
    "gain": 0.2,
}  # fmt: skip


def assert_refused(words, call, /, *given, **options):
    """The message holds the words, in which `*` stands for any others."""
    with pytest.raises(InputError) as refused:
        call(*given, **options)
    assert re.search(".*".join(map(re.escape, words.split("*"))), str(refused.value))


def unit_rows(count, width, seed):
    rows = np.random.default_rng(seed).standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_texts(results, labels=FIVE, templates=("an image of a {}",), tower="not loaded"):
    """Texts and images of labels, of which `elk` has its own prompt."""
    names = {"labels": list(labels), "concepts": CONCEPTS, "targets": [TARGET]}
    write_json(results.path("names"), names | {"reference": ["emu"]})
    kinds = {f"{kind[:-1]}_embeddings": len(texts) for kind, texts in names.items()}
    tensors = {kind: unit_rows(n, SPACE.dim, seed) for seed, (kind, n) in enumerate(kinds.items())}
    tensors["reference_embeddings"] = unit_rows(1, SPACE.dim, len(kinds))
    of = {"label_templates": json.dumps(templates), "concept_templates": '["{}"]'}
    results.tensors("texts", of | {"weights_sha256": tower}, **tensors)
    photos = results.folder.parents[1] / "photos"
    photos.mkdir(exist_ok=True)
    paths = [f"{number}.png" for number in range(len(labels))]
    for number, path in enumerate(paths):
        Image.new("RGB", (20 + number, 30), (40 * number, 90, 200)).save(photos / path)
    prompts = ["a moose" if label == "elk" else f"an image of a {label}" for label in labels]
    hashes = [sha256_of(photos / path) for path in paths]
    results.manifest(path=paths, label=labels, prompt=prompts, split="train", sha256=hashes)
    results.rows("embeddings", unit_rows(len(labels), SPACE.dim, 6))


def judge(results, verdict="nothing found", model=MODEL, **facts):
    """Evidence, and the row of the model in tables/models.csv."""
    write_json(results.path("evidence"), JUDGED | facts)
    results.models({model: 1}, verdict=verdict)


def write_study(folder):
    """The study, and two photos beside it."""
    results = Results(folder / "results/tiny", MODEL, "conse_minilm", shards=2)
    write_json(results.path("model_entry"), ENTRY.model_dump())
    write_json(results.path("model_entry", model="other"), ENTRY.model_dump())
    write_json(results.path("space_entry"), SPACE.model_dump())
    classifier = load_classifier(ENTRY)
    weight, sha256 = classifier.weight.numpy(), weights_sha256(classifier.model)
    facts = {"study": "tiny", "class_names": json.dumps(FIVE), "weights_sha256": sha256}
    results.tensors("head", facts, weight=weight, bias=classifier.bias.numpy())
    basis = scipy.linalg.null_space(weight.astype(np.float64))
    results.tensors("projector", null_basis=basis)
    write_json(results.path("projector_report"), {"rule": "exact"})
    width = weight.shape[1]
    results.translator(Affine(unit_rows(SPACE.dim, width, 3), 0.01 * unit_rows(1, SPACE.dim, 4)[0]))
    write_json(results.path("translator_report"), TRANSLATOR | {"validation_r2": 0.125})
    write_texts(results)
    data = {"source": "folder", "root": "photos"}
    shards = {"shards": 2, "shard_ids": ["00000", "00001"]}
    results.path("params").write_text(
        yaml.safe_dump(
            {"seed": 0, "summary": {}, "translator": {}, "data": data, "extraction": shards}
        )
    )
    generator = np.random.default_rng(5)
    scores = {"is_deg": generator.uniform(0, 90, N), "null_energy": generator.uniform(0, 1, N)}
    scores |= {"as_deg": np.zeros(N), "floor_is_deg": np.ones(N)}
    write_parquet(results.path("scores"), pd.DataFrame(scores))
    judge(results)
    planted = {"kind": ["even"], "share": [0.1], "draw": [0], "unique_r2": [0.1], "p": [0.01]}
    write_parquet(results.path("planted_leaks"), pd.DataFrame(planted | {"unique_r2_low": [0.05]}))
    empty = np.zeros((0, SPACE.dim), np.float32)
    words = {"word_weights": np.zeros(5), "offset": np.zeros(SPACE.dim)}
    results.tensors("own_words", class_embeddings=empty, **words)
    for name, size in (("one.png", (200, 160)), ("two.jpg", (90, 240))):
        pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


class Study(Results):
    """The study, in a folder that a test may change."""

    def analyze(self, *images, output="out", **flags):
        """Run the command, and read its records."""
        folder = self.folder.parents[1]
        paths, output = [folder / image for image in images], folder / output
        given = {"model": MODEL, "results": self.folder, "output": output, "threads": 1} | flags
        command(images=paths, **given)
        files = [output / f"{name}.json" for name in stems(paths)]
        return [json.loads(file.read_text(), parse_constant=pytest.fail) for file in files]


SETTING = Setting(
    MODEL, "conse_minilm", "study a_study", "exact", 280, 0.01, "weak", "1 image", 1,
    17, "trace", "tiny: a trace", "",
)  # fmt: skip


def analysis_of(text, gained, lost, **changes):
    def toward(text, score):
        return Movement(text, 60.0 + score, 60.0, score, score + 0.5)

    near = [toward(text, 8.0 - row) for row in range(gained)]
    far = [toward(text, row - 8.0) for row in range(lost)]
    analysis = Analysis(
        predictions=[Prediction(index, text, 0.2) for index in range(5)], is_deg=8.0,
        is_percentile=50.0, chance_is_deg=6.0, chance_most_deg=7.0, null_energy=0.1,
        null_energy_percentile=30.0, logit_change=1e-6, unlike="",
        nearest=(toward("a jeep", 1.0), toward("a bird", 2.0)),
        predicted=replace(
            toward(text, 3.0), chance_low_deg=-1.0, chance_high_deg=2.0
        ), texts=[toward(text, -2.0), toward("a rug", 0.0)],
        reach=[Reach(text, 60.0, 50.0, 20.0, 90.0, 1.5)], judged=True, classes_gained=near,
        classes_lost=far, gained=far, lost=near, note="", setting=SETTING, maps=None,
        no_maps=NO_POSITIONS,
    )  # fmt: skip
    return replace(analysis, **changes)

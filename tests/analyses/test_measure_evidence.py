"""The step measure_evidence, on a head with a null space that leaks and on one without."""

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.geometry import null_space
from singflow.artifacts.files import write_json
from singflow.translators.ridge import Affine
from tests.data.manifests import CLASSES_FILE
from tests.results import Results


def test_the_step_finds_a_leak_and_its_groups_and_nothing_without_a_null_space(tmp_path):
    generator, n, views, dim = np.random.default_rng(0), 24, 2, 4
    draw, fold, results = generator.standard_normal, np.arange(n) % 4, Results(tmp_path, shards=2)
    heads = {"timm/wide": draw((5, 12)), "tall": draw((20, 12))}
    image, view = np.repeat(np.arange(n), views), np.tile(np.arange(views, dtype=np.int32), n)
    features = {model: draw((n * views, 12)).astype(np.float32) for model in heads}
    embeddings = (features["timm/wide"] @ draw((12, dim))).astype(np.float32)
    hashes = [str(number) for number in range(n)]
    results.manifest(label="x", split="train", fold=fold, sha256=hashes)
    paths, table = results.read("manifest")["path"], tmp_path / "photos.csv"
    cameras = np.where(np.arange(n) < 14, "old", "")
    cameras[20] = "new"
    pd.DataFrame({"path": paths, "camera": cameras}).to_csv(table, index=False)
    texts, names = draw((3, dim)).astype(np.float32), {"labels": ["x"], "concepts": ["y", "z"]}
    results.texts(names, label_embeddings=texts[:1], concept_embeddings=texts[1:])
    for shard, part in enumerate(np.array_split(np.arange(n * views), 2)):
        results.shard("embeddings", shard, embeddings[part], image[part], view[part])
        for model, rows in features.items():
            results.of(model).shard("features", shard, rows[part], image[part], view[part])
    unnamed = np.zeros((0, dim), np.float32)
    report = {"lambda": 0.1, "alpha_curve": [{"lambda": 0.1, "validation_r2": 0.2}]}
    told = {"margin": 0.005, "draws": 2, "lambdas": [0.1, 0.3], "folds": 4, "confidence": 0.9}
    told |= {"table": table, "class_list": CLASSES_FILE, "groups": "camera"}
    for model, weight in heads.items():
        own, basis, bias = results.of(model), null_space(weight).basis, np.zeros(len(weight))
        both = {"class_embeddings": unnamed, "other_embeddings": unnamed}
        own.tensors("classes", {"class_names": "[]"}, **both)
        own.tensors("projector", null_basis=basis)
        own.tensors("head", weight=weight, bias=bias)
        write_json(own.path("translator_report"), report)
        own.translator(Affine(np.zeros((dim, 12), np.float32), np.zeros(dim, np.float32)))
        own.run("measure_evidence", **told, reference=None, seed=0)
        evidence, floors = own.read("evidence"), own.read("evidence_images")
        assert list(floors) == ["image_id", "floor_is_deg"]
        assert floors["image_id"].tolist() == list(range(n))
        assert floors["floor_is_deg"].mean() == pytest.approx(evidence["floor_is_deg"])
        if not basis.size:
            assert evidence["unique_r2"] is evidence["lambdas"] is None
            assert not floors["floor_is_deg"].any()
            assert own.read("evidence_groups").empty and own.read("evidence_texts").empty
            continue
        assert evidence["weights"]["null"] and evidence["unique_r2"] > 0.05, "the leak is found"
        groups = own.read("evidence_groups").set_index(["by", "group"])
        assert groups["n"].to_dict()["label", "x"] == groups.loc["predicted", "n"].sum() == n
        assert groups.loc["column", "n"].to_dict() == {"new": 1, "old": 14}
        d = groups["unique_r2"]
        assert d["label", "x"] == pytest.approx(evidence["unique_r2"], rel=0.1)
        assert d["column", "old"] > 0.05 and groups["p"].isna()["column", "new"]

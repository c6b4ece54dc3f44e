"""The step measure_evidence and the library's call on arrays: the same numbers.

Their intervals differ, since images are dealt out to groups by the hashes of files in a study, and
by their order in arrays.
"""

import json

import numpy as np
import pandas as pd
import pytest

import singflow
from tests.project import SMALL, Project

SPACE, MODELS = "conse_minilm", ["animals_lite0", "efficientnet_lite0"]
WANTED = {
    "images": "evidence_images",
    "planted": "evidence",
    "texts": "evidence_texts",
    "groups": "evidence_groups",
}
OF_GROUPS = {"unique_r2_low", "unique_r2_high", "unique_r2_without", "p", "turn_low_deg"}
OF_GROUPS |= {"turn_high_deg", "detectable", "detectable_first"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's translators and evidence of two models."""
    project = Project(tmp_path_factory.mktemp("library") / "project")
    project.study(extraction={"views": 2}, models=MODELS)
    tables = (*WANTED.values(), "scores")
    project.snakemake(
        *(f"results/demo/{name}/{SPACE}/{model}.parquet" for name in tables for model in MODELS)
    )
    return project.folder


@pytest.mark.parametrize("model", MODELS)
def test_the_demo_by_one_call_has_the_numbers_of_the_step(demo, model):
    study, packaged = (
        singflow.Study(demo / folder) for folder in ("results/demo", "reference/imagenet507")
    )
    head = study.tensors(f"heads/{model}")
    spelled = study.tensors(f"classes/{SPACE}/{model}")
    named, texts = study.report(f"prompts/{SPACE}"), study.tensors(f"prompts/{SPACE}")
    others = packaged.report(f"prompts/{SPACE}"), packaged.tensors(f"prompts/{SPACE}")
    manifests = [part.table("data/manifest") for part in (packaged, study)]
    found = singflow.measure(
        study.rows(f"features/{model}"),
        (head["weight"], head["bias"]),
        study.rows(f"embeddings/{SPACE}"),
        (spelled["class_embeddings"], spelled["other_embeddings"]),
        labels=manifests[1]["label"],
        texts=dict(zip(named["labels"], texts["label_embeddings"], strict=True)),
        reference=(
            packaged.rows("features/efficientnet_lite0"),
            packaged.rows(f"embeddings/{SPACE}"),
        ),
        folds=pd.concat(manifests)["fold"].to_numpy(),
        draws=SMALL["evidence"]["draws"],
    )
    written = {name: study.table(f"{kind}/{SPACE}/{model}") for name, kind in WANTED.items()}
    report = study.report(f"evidence/{SPACE}/{model}")
    assert report.keys() - found.facts.keys() == {"known_zero", "known_leak"}
    ours = json.loads(json.dumps(found.facts))
    for name in (report.keys() & ours.keys()) - OF_GROUPS:
        assert ours[name] == pytest.approx(report[name], rel=1e-9), name
    for name in ("unique_r2", "kind", "share", "draw"):
        planted = written["planted"][name], found.planted[name]
        pd.testing.assert_series_equal(*planted, rtol=1e-9, check_dtype=False)
    np.testing.assert_array_equal(written["images"]["floor_is_deg"], found.images["floor_is_deg"])
    scores = study.table(f"scores/{SPACE}/{model}")
    for column in ("is_deg", "as_deg", "null_energy"):
        np.testing.assert_allclose(scores[column], found.images[column], rtol=1e-12)
    new = [place for place, label in enumerate(others[0]["labels"]) if label not in named["labels"]]
    embeddings = np.concatenate(
        [texts["label_embeddings"], others[1]["label_embeddings"][new], texts["concept_embeddings"]]
    )
    kinds = ["label"] * (len(named["labels"]) + len(new)) + ["concept"] * len(named["concepts"])
    theirs = written["texts"].drop(columns="kind")
    ours = found.texts(embeddings, theirs["text"], kinds)
    order = theirs.sort_values("unique_r2", ascending=False, kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(ours, order, check_exact=True, check_dtype=False)
    by_label = written["groups"].query("by == 'label'").drop(columns="by").set_index("group")
    mine = found.groups(pd.concat(manifests)["label"]).set_index("group")
    exactly = {"check_exact": True, "check_dtype": False, "check_index_type": False}
    pd.testing.assert_frame_equal(mine.loc[by_label.index], by_label, **exactly)

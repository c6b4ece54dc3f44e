"""Studies of imported features: those of another study, and those of a classifier of texts."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import read_json
from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import few, positions
from singflow.data.features import save_features
from tests.data.manifests import CLASSES
from tests.project import ROOT, Project, block, blocks, quoted

PAGE = (ROOT / "docs/features.md").read_text(encoding="utf-8")
LITE0, SPACE = "efficientnet_lite0", "conse_minilm"
SCIPY = {"model": "features/scipy", "space": "minilm"}
ANALYSES = ("scores", "evidence")


def test_the_results_of_a_study_are_a_source_that_gives_its_scores_to_the_bit(
    snakemake_project, tmp_path
):
    project = snakemake_project.copy(tmp_path / "checkout")
    demo, names = project.folder / "results/demo", {"model": LITE0, "space": SPACE}
    params = read_yaml(project.folder / "params.yaml")
    data = params["data"] | {"source": "features", "root": "results/demo"}
    study = {"study": "again", "data": data, "models": [LITE0], "spaces": [SPACE]}
    study |= {"pictures": params["pictures"] | {"renderer": "words"}}
    study |= {"comparison": {"models": []}}
    (project.folder / "again.yaml").write_text(yaml.safe_dump(params | study))
    again = project.folder / "results/again"
    wanted = {name: CATALOG[name].at(again, **names) for name in ANALYSES}
    targets = [str(path.relative_to(project.folder)) for path in wanted.values()]
    project.snakemake("--configfile", "again.yaml", "--", *targets)
    for name, path in wanted.items():
        assert path.read_bytes() == CATALOG[name].at(demo, **names).read_bytes(), name
    itself = yaml.safe_dump(params | study | {"study": "demo"})
    (project.folder / "again.yaml").write_text(itself)
    said = project.refused("snakemake", "--configfile", "again.yaml", "--dry-run")
    assert "data.root results/demo: is where this study writes" in said


NOTEBOOK = """
import numpy as np, torch, singflow
from torchvision.transforms import Compose, Resize, ToTensor

torch.manual_seed(0)
body = [torch.nn.Conv2d(3, 12, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
model = torch.nn.Sequential(*body, torch.nn.Flatten(), torch.nn.Linear(12, 3))
loader = [(torch.rand(60, 3, 16, 16), torch.arange(60) % 3) for _ in range(2)]
data = singflow.collect(model, loader)
rng = np.random.default_rng(0)
embeddings = data.features @ rng.standard_normal((12, 384)) + rng.standard_normal((120, 384)) / 9
names = {"class_names": ["crow", "owl", "tit"], "space": "conse_minilm"}
data.save("checkpoints/features/birds", **names, embeddings=embeddings)
np.savez("notebook.npz", features=data.features, embeddings=embeddings, **data.head._asdict())
"""
BACK = """
space = singflow.Space.load("conse_minilm")
transform = Compose([Resize((16, 16)), ToTensor()])
live = singflow.Classifier.of(model, transform, names["class_names"])
translator = "results/birds/translators/conse_minilm/features/birds/linear.safetensors"
found = singflow.Analyzer.load(live, space, translator=translator).analyze("photo.jpg", ["a rug"])
assert found.is_deg > 0 and not found.judged, found
print(found.setting.source)
"""


def test_a_notebook_s_model_is_studied_to_the_bit_and_its_translator_fits_the_live_model(tmp_path):
    project = Project(tmp_path / "checkout")
    (project.folder / "notebook.py").write_text(NOTEBOOK)
    project.run("python", "notebook.py", warm_start=False)
    root, results = "checkpoints/features/birds", project.folder / "results/birds"
    study = {"data": {"source": "features", "root": root, "classes": f"{root}/classes.csv"}}
    study |= {"extraction": {"views": 1, "shards": 1}, "comparison": {"models": []}}
    study |= {"pictures": {"renderer": "words"}}
    project.study("birds", models=["features/birds"], spaces=["conse_minilm"], **study)
    names = {"model": "features/birds", "space": "conse_minilm", "shard": "00000"}
    wanted = ("head", "features", "embeddings", "translator", "evidence")
    paths = {name: CATALOG[name].at(results, **names) for name in wanted}
    project.snakemake(*(str(path.relative_to(project.folder)) for path in paths.values()))
    given = dict(np.load(project.folder / "notebook.npz"))
    manifest = pd.read_parquet(results / "data/manifest.parquet")
    rows = manifest["path"].astype(int)
    assert manifest["label"].tolist() == [["crow", "owl", "tit"][row % 3] for row in rows]
    head = read_tensors(paths["head"], ["weight", "bias"])[0]
    for name in ("weight", "bias"):
        np.testing.assert_array_equal(head[name], given[name])
    for name in ("features", "embeddings"):
        found = read_tensors(paths[name], [name])[0][name]
        np.testing.assert_array_equal(found, given[name][rows].astype(np.float32))
    assert read_json(paths["evidence"])["n"] == 120
    photo = next((ROOT / "docs").glob("*.jpg"))
    (project.folder / "photo.jpg").write_bytes(photo.read_bytes())
    (project.folder / "notebook.py").write_text(NOTEBOOK + BACK)
    said = project.run("python", "notebook.py", warm_start=False).stdout
    assert "results/birds/translators" in said


def test_a_planted_head_of_forty_classes_has_both_controls_unless_its_study_wants_none(tmp_path):
    project, names = Project(tmp_path / "checkout"), CLASSES.names[:40]
    rng, root, model = np.random.default_rng(0), "checkpoints/features/planted", "features/planted"
    weight = rng.standard_normal((40, 48)).astype(np.float32)
    x = rng.standard_normal((240, 48)).astype(np.float32)
    z = x @ weight.T @ rng.standard_normal((40, 384)) + 40 * rng.standard_normal((240, 384))
    head, labels = (
        (weight, np.zeros(40, np.float32)),
        [names[row] for row in (x @ weight.T).argmax(1)],
    )
    given = [f"{row}" for row in range(240)], labels, x, head, names, z.astype(np.float32), SPACE
    save_features(project.folder / root, *given)
    data = {"source": "features", "root": root, "classes": f"{root}/classes.csv"}
    study = {"study": "planted", "models": [model], "data": data, "extraction": {"views": 1}}
    study |= {"analyses": [], "evidence": {"draws": 4}}
    said = {}
    for known in ("auto", "none"):
        (project.folder / "mine.yaml").write_text(
            yaml.safe_dump(study | {"controls": {"known": known}})
        )
        project.shell("singflow study mine.yaml")
        project.snakemake("results/planted/tables/summary.txt")
        said[known] = (project.folder / "results/planted/tables/summary.txt").read_text()
    assert re.search(r"^features/planted@cut\+ .* known leak: found$", said["auto"], re.MULTILINE)
    assert re.search(r"^own words~ .* below 0.0005 .* known zero$", said["auto"], re.MULTILINE)
    assert re.search(r"^features/planted\S* .* nothing found$", said["auto"], re.MULTILINE)
    assert "cut" not in said["none"] and "own words~" not in said["none"]
    results = project.folder / "results/planted"
    for artifact, tensor in (("features", "features"), ("head", "weight")):
        whole, cut = (
            read_tensors(CATALOG[artifact].at(results, model=name, shard="00000"), [tensor])[0][
                tensor
            ]
            for name in (model, f"{model}@cut")
        )
        rows = slice(None) if artifact == "features" else positions(few(40), 40)
        np.testing.assert_array_equal(cut, whole[rows])


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The study of the page's classifier of texts, with fewer epochs."""
    project = Project(tmp_path_factory.mktemp("features") / "checkout")
    project.shell(block(PAGE, "scipy_functions.py"))
    commands, running = block(PAGE, "scipy.yaml").strip().rsplit("\n", 1)
    project.shell(commands)
    project.edit("params.yaml", r"(?<=\n  epochs: )\d+", "3")
    assert running == "singflow run"
    project.command("run", "--cores", "2")
    return project


@pytest.mark.nightly
def test_the_null_space_of_the_classifier_of_texts_holds_meaning_as_the_page_says(texts):
    results = texts.folder / "results/scipy"
    evidence = read_json(CATALOG["evidence"].at(results, **SCIPY))
    said = (results / "tables/summary.txt").read_text()
    assert evidence["unique_r2_low"] > 0.1 and evidence["p"] < 0.001
    assert "features/scipy: keep the features" in said
    (shown,) = blocks(PAGE, "text")
    for told, found in quoted(shown, said):
        assert told == pytest.approx(found, rel=1e-3, abs=0.1)
    told = map(float, re.search(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", shown).groups())
    found = [evidence[f"unique_r2{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx([*told], abs=0.005), "to two digits, on any processor"

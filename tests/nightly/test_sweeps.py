"""Settings of the nonlinear translators, compared by DVC's experiments.

The commands of docs/versions.md are run as a reader would.
"""

import csv
import io
import json

import pytest
from PIL import Image

from singflow.config.sections import PACKAGE_DATA
from singflow.data.manifest import data_root
from singflow.study import images_state
from singflow.translators.reference import PACKAGED, reference_folder
from tests.nightly.test_sharing import SECTIONS
from tests.project import Project, blocks

SWEEPS = blocks(SECTIONS["Sweeps"])
TABLE = "results/demo/tables/translators.json"
ERROR = "conse_minilm.efficientnet_lite0.mlp3.kept.validation_mse"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A study of one model with committed translators, and a queue of two settings."""
    project = Project(tmp_path_factory.mktemp("sweep") / "project")
    study = {"models": ["efficientnet_lite0"], "extraction": {"views": 1}}
    study |= {"comparison": {"kinds": ["mlp3"]}, "translator": {"reference": None}}
    project.study(controls={"known": "none"}, **study)
    project.commit()
    project.shell(SWEEPS[0])
    project.baseline = error(project)
    assert "training.width=16,64 " in SWEEPS[2]
    project.shell(SWEEPS[2].replace("16,64", "64"))  # half of the grid
    return project


def error(project):
    """Held-out error of the network that is kept, by its report."""
    report = "results/demo/translators/conse_minilm/efficientnet_lite0/mlp3.json"
    return json.loads((project.folder / report).read_text())["validation_mse"]


def test_a_queue_of_settings_is_computed_and_the_best_by_held_out_error_comes_first(sweep):
    shown = list(csv.DictReader(io.StringIO(sweep.shell(f"{SWEEPS[3].strip()} --csv"))))
    ran = [row for row in shown if row["Experiment"]]
    settings = {(row["training.width"], row["training.learning_rate"]) for row in ran}
    assert len(ran) == 2 and settings == {("64", "0.001"), ("64", "0.01")}
    assert sweep.baseline == error(sweep) == float(shown[0][ERROR])
    errors = [float(row[ERROR]) for row in ran]
    assert errors == sorted(errors) and len(set(errors)) == 2
    for name in ("width", "learning_rate"):
        kept = f"  {name}: {ran[0][f'training.{name}']}"
        sweep.edit("params.yaml", rf"(?<=\n)  {name}: [\d.]+", kept)
    said = sweep.dvc("repro", "compare_translators@study")
    assert error(sweep) == errors[0] and sweep.ran_by_dvc(said) == []


def test_what_only_translators_need_is_all_that_a_setting_computes_again(sweep):
    assert sweep.ran_by_dvc(sweep.shell(SWEEPS[1])) == [
        "train_translator@conse_minilm-efficientnet_lite0-mlp3",
        "compare_translators@study",
    ]
    shown = json.loads(sweep.dvc("metrics", "show", "--json", TABLE))[""]["data"][TABLE]["data"]
    kept = shown["conse_minilm"]["efficientnet_lite0"]["mlp3"]["kept"]
    assert kept["validation_mse"] == error(sweep)


def test_relative_images_are_found_from_a_temporary_checkout(tmp_path):
    project, root = Project(tmp_path / "project"), "../photos"
    for number, folder in enumerate(("cat", "dog", "dog")):
        image = project.folder / root / folder / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(image)
    project.study(data={"source": "folder", "root": root})
    project.run("git", "commit", "-qam", "t")  # without images
    assert "3 images" in project.dvc("exp", "run", "--temp", "build_manifest")


def test_what_lies_outside_is_looked_for_where_the_experiment_was_started(tmp_path, monkeypatch):
    checkout = tmp_path / ".dvc/tmp/exps/standalone/tmp1"
    for folder in (checkout, tmp_path / "photos", tmp_path / "results/other"):
        folder.mkdir(parents=True)
    (tmp_path / "photos/a.tar").write_bytes(b"tar")
    study = {"data": {"source": "archive", "root": "photos", "archives": ["a.tar"]}}
    monkeypatch.chdir(tmp_path)
    here = images_state(study, tmp_path)
    monkeypatch.chdir(checkout)
    assert images_state(study, tmp_path) == here is not None
    assert data_root("folder", "photos") == tmp_path / "photos"
    assert data_root("folder", str(tmp_path)) == tmp_path
    assert reference_folder("results/other") == tmp_path / "results/other"
    assert reference_folder("packaged") == PACKAGE_DATA / PACKAGED

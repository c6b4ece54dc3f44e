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

SWEEP, SHOW = blocks(SECTIONS["Sweeps"])
ERROR = "conse_minilm.efficientnet_lite0.mlp3.kept.validation_mse"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A recorded study of one model."""
    project = Project(tmp_path_factory.mktemp("sweep") / "project")
    study = {"models": ["efficientnet_lite0"], "extraction": {"views": 1}}
    study |= {"comparison": {"kinds": ["mlp3"]}, "translator": {"reference": None}}
    project.study(controls={"known": "none"}, analyses=["networks"], **study)
    project.commit()
    project.dvc("repro")
    project.commit()
    return project


def error(project):
    """Held-out error of the network that is kept, by its report."""
    report = "results/demo/translators/conse_minilm/efficientnet_lite0/mlp3.json"
    return json.loads((project.folder / report).read_text())["validation_mse"]


def test_settings_are_computed_in_the_workspace_and_the_best_by_held_out_error_comes_first(project):
    baseline, errors = error(project), {}
    for line in SWEEP.splitlines():
        ran = project.ran_by_dvc(project.shell(line))
        assert ran[0] == "translators" and "towers" not in ran
        errors[line.rpartition("=")[2]] = error(project)
    shown = list(csv.DictReader(io.StringIO(project.shell(f"{SHOW.strip()} --csv"))))
    found = {row["training.width"]: float(row[ERROR]) for row in shown if row["Experiment"]}
    assert len({*errors.values(), baseline}) == 3 and found == errors
    assert [*found.values()] == sorted(found.values())
    assert baseline in [float(row[ERROR]) for row in shown if not row["Experiment"]]


def test_relative_images_are_found_from_a_temporary_checkout(tmp_path):
    project, root = Project(tmp_path / "project"), "../photos"
    for number, folder in enumerate(("cat", "dog", "dog")):
        image = project.folder / root / folder / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(image)
    project.study(data={"source": "folder", "root": root})
    project.run("git", "commit", "-qam", "t")  # without images
    assert "Ran experiment" in project.dvc("exp", "run", "--temp", "data")


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

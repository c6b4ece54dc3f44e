import datetime
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rocrate.rocrate import ROCrate

from singflow.artifacts.files import sha256_of
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.public import archived, public_params
from singflow.errors import InputError
from singflow.sharing.crate import FINAL, WORKFLOW, collect, crate_metadata, software, write_crate
from tests import warm
from tests.project import CHECKOUT, ROOT
from tests.sharing.rocrate_profile import issues

DAY = datetime.date(2026, 1, 2)
COPIED = [pattern for pattern in WORKFLOW if "*" not in pattern] + ["params.yaml"]
FOLDERS = [*(pattern.split("/")[0] for pattern in WORKFLOW if "*" in pattern)]
HOSTILE = "scores/conse_minilm/a 'model' & <b>;#ü%20.parquet"


def put(path, content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a study whose results are placeholders; two hold tensors."""
    folder = tmp_path / "checkout"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    for name in COPIED:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    results = Path("results/demo")
    for name in FINAL:
        put(results / name, b"x")
    shutil.copy("params.yaml", results)
    for name in (
        HOSTILE,
        "data/manifest.parquet",
        "logs/summarize.log",
        "benchmarks/summarize.tsv",
        "data/.left-behind.csv",
    ):
        put(results / name, b"y")
    put(results / "data/rejected.csv", b"")
    put(results / "pictures/fox.JPG", b"a studied image")
    put("src/singflow/__pycache__/cli.pyc", b"z")
    metadata = provenance(["pillow"], study="demo")
    for name in ("features/efficientnet_lite0/shard-00000", "projectors/efficientnet_lite0"):
        write_tensors(results / f"{name}.safetensors", {"x": np.zeros(3)}, metadata)
    return folder


def export(output, *, license=None, with_tensors=False):
    study, files, _, made = collect(Path("params.yaml"), with_tensors=with_tensors)
    write_crate(
        crate_metadata(study, files, made, license, DAY, "Something was left out. "), files, output
    )
    return zipfile.ZipFile(output).namelist()


def set_param(old, new):
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    for folder in (".", "results/demo"):
        Path(folder, "params.yaml").write_text(text.replace(old, new))


def script(*flags):
    return warm.singflow(ROOT, "crate", *flags)


def test_the_archive_satisfies_the_profile_whatever_the_files_are_called(
    checkout, tmp_path, monkeypatch
):
    export(tmp_path / "study.zip")
    assert issues(tmp_path / "study.zip", monkeypatch, tmp_path / "cache") == []
    study, files, _, made = collect(Path("params.yaml"))
    crate = crate_metadata(study, files, made, None, DAY, "")
    del crate.root_dataset["license"]
    write_crate(crate, files, tmp_path / "worse.zip")
    assert any(
        "license" in issue
        for issue in issues(tmp_path / "worse.zip", monkeypatch, tmp_path / "cache")
    )


def test_every_described_file_is_there_and_the_run_connects_them(checkout, tmp_path):
    export(tmp_path / "study.zip", license="CC-BY-4.0")
    crate = ROCrate(tmp_path / "study.zip")
    for entity in crate.data_entities:
        assert Path(entity.source).exists()
        if entity.type == "File":
            assert entity["contentSize"] == str(Path(entity.source).stat().st_size)
    run = crate.get("#run")
    assert run["instrument"] is crate.mainEntity and crate.root_dataset["mentions"] is run
    inputs = {
        "params.yaml",
        "config/models.yaml",
        "config/spaces.yaml",
        "config/vocab/packaged.csv",
        "config/vocab/imagenet_1k.csv",
        "config/vocab/concepts.txt",
    }
    assert {item.id for item in run["object"]} == inputs
    assert {"results/demo/metrics.json", "results/demo/tables/", "results/demo/scores/"} <= {
        item.id for item in run["result"]
    }
    assert {item["name"] for item in crate.mainEntity["input"]} == {
        "params",
        "models",
        "spaces",
        "table",
        "classes",
        "vocabulary",
    }
    assert {item["workExample"].id for item in crate.mainEntity["output"]} == {
        "results/demo/metrics.json",
        "results/demo/tables/",
        "results/demo/figures/",
    }
    assert crate.license["name"] == "CC-BY-4.0" and crate.mainEntity["license"]["name"] == "MIT"
    assert (
        crate.root_dataset["datePublished"].startswith("2026-01-02")
        and "images" in crate.description
    )
    assert crate.get("results/demo/tables/spurious.csv")["description"].startswith(
        "One row is a candidate for a spurious cue"
    )
    assert crate.get("results/demo/figures/rank_curves.png")["description"].startswith(
        "Change of the logits"
    )


def test_the_software_is_that_of_the_artifacts(checkout, tmp_path):
    path = Path("results/demo/projectors/efficientnet_lite0.safetensors")
    write_tensors(
        path, {"x": np.zeros(3)}, {"software": json.dumps({"numpy": "1.0", "oldest": "0.1"})}
    )
    versions = software(list(Path("results").rglob("*.safetensors")))
    assert ("oldest", "0.1") in versions and {name for name, _ in versions} == {
        "numpy",
        "oldest",
        "pillow",
        "singflow",
    }
    assert len([version for name, version in versions if name == "numpy"]) == 2
    export(tmp_path / "study.zip")
    required = ROCrate(tmp_path / "study.zip").mainEntity["softwareRequirements"]
    assert [(item["name"], item["softwareVersion"]) for item in required[1:]] == versions


def test_tensors_on_demand_logs_and_images_never(checkout, tmp_path):
    names = export(tmp_path / "study.zip")
    assert f"results/demo/{HOSTILE}" in names and "results/demo/benchmarks/summarize.tsv" in names
    assert not [name for name in names if re.search(r"safetensors|logs|JPG|left-behind|pyc", name)]
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        listed = pd.read_csv(archive.open("files.csv")).set_index("path")
    assert list(listed.index[~listed["included"]]) == [
        "results/demo/features/efficientnet_lite0/shard-00000.safetensors",
        "results/demo/pictures/fox.JPG",
        "results/demo/projectors/efficientnet_lite0.safetensors",
    ]
    assert listed.loc[f"results/demo/{HOSTILE}", "sha256"] == sha256_of(
        Path("results/demo") / HOSTILE
    )
    more = export(tmp_path / "large.zip", with_tensors=True)
    assert {name for name in set(more) - set(names) if not name.endswith("/")} == {
        name for name in listed.index[~listed["included"]] if name.endswith("safetensors")
    }


def test_the_same_study_gives_the_same_bytes(checkout, tmp_path):
    export(tmp_path / "first.zip")
    for path in Path().rglob("*"):
        os.utime(path, (0, 0))
    export(tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("config/vocab/x.txt", "config/vocab/x.txt"),
        ("./x.csv", "x.csv"),
        ("/data/x.csv", "x.csv"),
        ("../up/x.csv", "x.csv"),
        ("~/x.csv", "x.csv"),
    ],
)
def test_files_outside_the_checkout_come_to_the_top(path, expected):
    assert archived(path) == expected


def test_no_folder_of_this_machine_is_in_the_archive(checkout, tmp_path):
    shutil.move("config/vocab/packaged.csv", tmp_path / "photos.csv")
    (tmp_path / "secret").mkdir()
    set_param("  source: packaged  ", "  source: table  ")
    set_param("  root: .  ", f"  root: {tmp_path}/secret  ")
    set_param("table: config/vocab/packaged.csv", f"table: {tmp_path}/photos.csv")
    assert public_params(Path("params.yaml"))[1] == ["data.root", "data.table"]
    assert "photos.csv" in export(tmp_path / "study.zip")
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        text = archive.read("params.yaml").decode()
        assert not [
            name for name in archive.namelist() if str(tmp_path).encode() in archive.read(name)
        ]
    assert re.search(r"root: secret +# folder", text) and re.search(
        r"table: photos\.csv +# one row per image", text
    )
    assert len(text.splitlines()) == len(Path("params.yaml").read_text().splitlines())


def test_an_unfinished_study_is_refused(checkout, tmp_path):
    Path("results/demo/tables/orders.csv").unlink()
    with pytest.raises(
        InputError,
        match=r"results/demo: the study is not finished, there is no tables/orders\.csv: run",
    ):
        export(tmp_path / "study.zip")
    shutil.rmtree("results")
    with pytest.raises(
        InputError, match=r"there is no params\.yaml, .* and \d+ more: run `singflow run"
    ):
        export(tmp_path / "study.zip")


def test_a_missing_input_is_named(checkout, tmp_path):
    Path("config/vocab/concepts.txt").unlink()
    with pytest.raises(
        InputError, match=r"params\.yaml: config/vocab/concepts\.txt: no such file: restore it"
    ):
        export(tmp_path / "study.zip")
    Path("constraints.txt").unlink()
    with pytest.raises(
        InputError, match=r"constraints\.txt: no such file: run this in a checkout of the workflow"
    ):
        export(tmp_path / "study.zip")


def test_the_command_never_overwrites_and_knows_names_of_licences(checkout):
    Path("demo.crate.zip").touch()
    again = script()
    assert (
        again.returncode == 1
        and again.stderr
        == "error: demo.crate.zip: is there already: remove it, or give another --output\n"
    )
    assert (
        "--license 'all rights': an SPDX name is wanted" in script("--license", "all rights").stderr
    )


def test_an_archive_that_cannot_be_written_leaves_nothing(checkout):
    program = "from tests.sharing.test_crate import Path, export; export(Path('out/study.zip'))"
    command = ["bash", "-c", f'ulimit -f 8; {sys.executable} -B -c "{program}"']
    full = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)}
    )
    assert (
        full.returncode == 1
        and "InputError: out/study.zip: cannot be written, File too large" in full.stderr
    )
    assert list(Path("out").iterdir()) == []
    with pytest.raises(InputError, match=r"params\.yaml/study\.zip: cannot be written"):
        export(Path("params.yaml/study.zip"))


def test_a_result_that_cannot_be_read_is_named(checkout, monkeypatch):
    def broken(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("singflow.sharing.crate.sha256_of", broken)
    with pytest.raises(
        InputError,
        match=(
            r"results/demo/benchmarks/summarize\.tsv: not readable \(Input/output error\): "
            r"fix the file"
        ),
    ):
        collect(Path("params.yaml"))

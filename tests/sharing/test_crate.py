import errno
import json
import os
import re
import resource
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rocrate.rocrate import ROCrate

from singflow.artifacts.files import sha256_of
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.commands.crate import crate
from singflow.config.public import archived, public_params
from singflow.errors import InputError
from singflow.sharing.crate import (
    WORKFLOW,
    check_whole,
    collect,
    crate_metadata,
    final,
    software,
    write_crate,
)
from singflow.study import check, read_layers
from tests.project import ROOT
from tests.results import ANALYSES
from tests.sharing.rocrate_profile import issues

PARAMS, RESULTS = Path("params.yaml"), Path("results/demo")
HOSTILE = "scores/conse_minilm/a 'model' & <b>;#ü%20.parquet"
PLACEHOLDERS = [
    *final(ANALYSES),
    *(HOSTILE, "data/manifest.parquet", "pictures/fox.JPG", "data/.left-behind.csv"),
    *("logs/summarize.log", "benchmarks/summarize.tsv"),
]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a study whose results are placeholders; two hold tensors."""
    folder = tmp_path / "checkout"
    for pattern in WORKFLOW:
        name = pattern.removesuffix("/**/*")
        if name == pattern:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        else:
            shutil.copytree(ROOT / name, folder / name, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    shutil.copy(ROOT / PARAMS, PARAMS)
    for path in (*(RESULTS / name for name in PLACEHOLDERS), Path("src/__pycache__/cli.pyc")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    shutil.copy(PARAMS, RESULTS)
    (RESULTS / "data/rejected.csv").write_bytes(b"")
    metadata = provenance(["pillow"], study="demo")
    for name in ("features/efficientnet_lite0/shard-00000", "projectors/efficientnet_lite0"):
        write_tensors(RESULTS / f"{name}.safetensors", {"x": np.zeros(3)}, metadata)
    return folder


def export(output, *, license=None, with_tensors=False, without=None, left_out=()):
    """Write the archive, without a property of the whole and some folders; the names in it."""
    study = check(read_layers(PARAMS), "params.yaml")
    files, _, made = collect(study, PARAMS, with_tensors=with_tensors)
    files = {path: content for path, content in files.items() if not path.startswith(left_out)}
    crate = crate_metadata(study, files, made, license, "2026-01-02", "Something was left out. ")
    if without:
        del crate.root_dataset[without]
    write_crate(crate, files, output)
    return zipfile.ZipFile(output).namelist()


def set_param(old, new):
    text = PARAMS.read_text()
    assert text.count(old) == 1
    for path in (PARAMS, RESULTS / PARAMS):
        path.write_text(text.replace(old, new))


@pytest.mark.nightly
def test_the_archive_satisfies_the_profile_whatever_the_files_are_called(
    checkout, tmp_path, monkeypatch
):
    modules = (str(path) for path in Path("src").glob("*/*") if path.name != "packaged")
    code = ("docs/", "report/", "scripts/", *modules)  # the validator takes long for many files
    for without, missing in ((None, False), ("license", True)):
        export(tmp_path / "study.zip", without=without, left_out=code)
        found = issues(tmp_path / "study.zip", monkeypatch, tmp_path / "cache")
        assert bool(found) == any("license" in issue for issue in found) == missing


def test_every_described_file_is_there_and_the_run_connects_them(checkout, tmp_path):
    tensors = RESULTS / "projectors/efficientnet_lite0.safetensors"
    older = {"software": json.dumps({"numpy": "1.0", "oldest": "0.1"})}
    write_tensors(tensors, {"x": np.zeros(3)}, older)
    export(tmp_path / "study.zip", license="CC-BY-4.0")
    crate = ROCrate(tmp_path / "study.zip")
    for entity in crate.data_entities:
        assert Path(entity.source).exists()
        if entity.type == "File":
            assert entity["contentSize"] == str(Path(entity.source).stat().st_size)
    workflow, run, root = crate.mainEntity, crate.get("#run"), crate.root_dataset
    assert run["instrument"] is workflow and root["mentions"] is run
    inputs = {
        "params": "params.yaml",
        "models": "src/singflow/packaged/models.yaml",
        "spaces": "src/singflow/packaged/spaces.yaml",
        "own_models": "config/models.yaml",
        "own_spaces": "config/spaces.yaml",
        "table": "config/vocab/packaged.csv",
        "classes": "config/vocab/imagenet_1k.csv",
        "vocabulary": "config/vocab/concepts.txt",
    }
    assert {item.id for item in run["object"]} == {*inputs.values()}
    assert {item["name"]: item["workExample"].id for item in workflow["input"]} == inputs
    outputs = {f"results/demo/{name}" for name in ("metrics.json", "tables/", "figures/")}
    assert {item["workExample"].id for item in workflow["output"]} == outputs
    assert outputs | {"results/demo/scores/"} <= {item.id for item in run["result"]}
    assert crate.license["name"] == "CC-BY-4.0" and workflow["license"]["name"] == "MIT"
    assert root["datePublished"].startswith("2026-01-02") and "images" in crate.description
    for name, caption in {
        "tables/spurious.csv": "One row is a candidate for a spurious cue",
        "figures/hidden_texts.png": "Which texts the hidden meaning is about",
    }.items():
        assert crate.get(f"results/demo/{name}")["description"].startswith(caption)
    versions = software(RESULTS.rglob("*.safetensors"))
    named = [name for name, _ in versions]
    assert named == ["numpy", "numpy", "oldest", "pillow", "singflow"]
    assert ("oldest", "0.1") in versions
    required = workflow["softwareRequirements"][1:]
    assert [(item["name"], item["softwareVersion"]) for item in required] == versions


def test_tensors_on_demand_logs_and_images_never_and_the_same_bytes_again(checkout, tmp_path):
    names = export(tmp_path / "study.zip")
    assert {f"{RESULTS}/{HOSTILE}", f"{RESULTS}/benchmarks/summarize.tsv"} <= {*names}
    assert not [name for name in names if re.search(r"safetensors|logs|JPG|left-behind|pyc", name)]
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        listed = pd.read_csv(archive.open("files.csv")).set_index("path")
    left_out = listed.index[~listed["included"]].tolist()
    assert left_out == [
        "results/demo/features/efficientnet_lite0/shard-00000.safetensors",
        "results/demo/pictures/fox.JPG",
        "results/demo/projectors/efficientnet_lite0.safetensors",
    ]
    assert listed.loc[f"{RESULTS}/{HOSTILE}", "sha256"] == sha256_of(RESULTS / HOSTILE)
    more = {*export(tmp_path / "large.zip", with_tensors=True)} - {*names}
    assert {name for name in more if not name.endswith("/")} == {left_out[0], left_out[2]}
    for path in Path().rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    export(tmp_path / "again.zip")
    assert (tmp_path / "study.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_files_outside_the_checkout_come_to_the_top():
    for path in ("./x.csv", "/data/x.csv", "../up/x.csv", "~/x.csv"):
        assert archived(path) == "x.csv"
    assert archived("config/vocab/x.txt") == "config/vocab/x.txt"


def test_no_folder_of_this_machine_is_in_the_archive(checkout, tmp_path):
    shutil.move("config/vocab/packaged.csv", tmp_path / "photos.csv")
    (tmp_path / "secret").mkdir()
    set_param("  source: packaged  ", "  source: table  ")
    set_param("  root: .  ", f"  root: {tmp_path}/secret  ")
    set_param("table: config/vocab/packaged.csv", f"table: {tmp_path}/photos.csv")
    set_param("reference: packaged  ", f"reference: {tmp_path}/secret  ")
    assert public_params(PARAMS)[1] == ["data.root", "data.table", "translator.reference"]
    assert "photos.csv" in export(tmp_path / "study.zip")
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert [name for name, data in content.items() if str(tmp_path).encode() in data] == []
    text = content["params.yaml"].decode()
    assert re.search(r"root: secret +# folder", text)
    assert re.search(r"table: photos\.csv +# one row per image", text)
    assert re.search(r"reference: secret +# results folder", text)
    assert len(text.splitlines()) == len(PARAMS.read_text().splitlines())


def test_what_is_missing_or_cannot_be_read_is_named(checkout, monkeypatch, tmp_path):
    def refused(message, **options):
        with pytest.raises(InputError, match=message):
            export(tmp_path / "study.zip", **options)

    def broken(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("singflow.sharing.crate.sha256_of", broken)
        refused(r"benchmarks/summarize\.tsv: not readable \(Input/output error\): fix the file")
    for path, message in (
        ("constraints.txt", r"constraints\.txt: no such file: run this in a checkout of the work"),
        ("config/vocab/concepts.txt", r"params\.yaml: \S+/concepts\.txt: no such file: restore it"),
    ):
        kept = Path(path).rename(tmp_path / "kept")
        refused(message)
        kept.rename(path)
    unfinished = "results/demo: the study is not finished, there is no"
    (RESULTS / "tables/orders.csv").unlink()
    refused(rf"{unfinished} tables/orders\.csv: run `singflow run")
    check_whole(RESULTS, [name for name in ANALYSES if name != "scores"])
    shutil.rmtree(RESULTS)
    refused(rf"{unfinished} data/.* and \d+ more: run `singflow run")


def test_the_command_never_overwrites_and_knows_names_of_licences(checkout):
    Path("demo.crate.zip").touch()
    with pytest.raises(InputError, match=r"demo\.crate\.zip: is there already: remove it, or give"):
        crate()
    with pytest.raises(InputError, match="--license 'all rights': an SPDX name is wanted"):
        crate(license="all rights")


def test_an_archive_that_cannot_be_written_leaves_nothing(checkout):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(InputError, match=r"out/study\.zip: cannot be written, File too large"):
            export(Path("out/study.zip"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(Path("out").iterdir()) == []
    with pytest.raises(InputError, match=r"params\.yaml/study\.zip: cannot be written"):
        export(PARAMS / "study.zip")

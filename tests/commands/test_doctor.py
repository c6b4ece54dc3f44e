"""The doctor on a machine without Slurm: tests/parts/cluster has the rest."""

import contextlib
import re
import shutil
import socket
from types import SimpleNamespace

import pytest
import torch
import yaml
from dvc.config import Config
from dvc.repo import Repo

from singflow.commands import doctor as module
from singflow.config.reading import read_yaml
from singflow.config.sections import PACKAGE_DATA
from singflow.study import PARAMS as FILE
from singflow.system import ask
from tests import warm
from tests.project import ROOT
from tests.refusals import refused

PARAMS = read_yaml(ROOT / "params.yaml")
LOST = {"source": "timm", "id": "resnet18.a1_in1k", "weights": "package:no-such-distribution"}
CLIP = {"source": "open_clip", "id": "ViT-L-14-quickgelu/openai", "dim": 768}
CLIP["weights"] = "file:checkpoints/clip.safetensors"
CONSE = read_yaml(PACKAGE_DATA / "spaces.yaml")["conse_minilm"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working directory with the demo's parameters and registries."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    module.settled.cache_clear()
    return tmp_path


def doctor(folder, status, **environment):
    """The lines of the command, without Slurm, by the names of the checks."""
    done = warm.singflow(ROOT, "doctor", cwd=folder, PATH="", **environment)
    assert (done.returncode, done.stderr) == (status, "")
    return {line[8:17].strip(): line for line in done.stdout.splitlines()}


def edit(folder, **changes):
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS | changes))
    module.settled.cache_clear()


def repository(folder, **remote):
    """A DVC repository with a default remote of these options."""
    Repo.init(str(folder), no_scm=True, force=True).close()
    with Config(str(folder / ".dvc")).edit("repo") as written:
        if remote:
            written |= {"core": {"remote": "there"}, "remote": {"there": remote}}


def test_a_study_that_works_here_ends_with_status_0_and_one_line_a_check(tree):
    repository(tree, url="../../store")
    (tree / "results/demo/data").mkdir(parents=True)
    (tree / "results/demo/data/manifest.parquet").write_bytes(b"damaged")  # that stops no check
    lines = doctor(tree, 0)
    assert [*lines] == ["remote", "study", "weights", "disk", "device", "slurm"]
    assert lines["weights"] == "ok      weights  all are here"
    assert re.fullmatch(r"ok +remote +there \(.*store\) answers", lines["remote"])
    assert re.fullmatch(r"ok +disk .* free; the results of 20 images take \S+ MB", lines["disk"])
    assert lines["slurm"].startswith("absent  slurm    none here: `snakemake --cores all`")
    assert not (tree / "store").exists()


def test_a_gpu_is_missed_where_the_study_wants_one(tree, monkeypatch):
    for device, status, code in (("cpu", "ok", 0), ("auto", "warn", 0), ("cuda", "fail", 1)):
        edit(tree, extraction=PARAMS["extraction"] | {"device": device})
        assert doctor(tree, code, CUDA_VISIBLE_DEVICES="")["device"].startswith(status)
    # torch is asked in this process, which acts as one with a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert module.check_device(FILE, FILE) == ("ok", "A100")


def weights(tree, space, models=None, **pictures):
    """The check of these models and a space of this entry."""
    (tree / "config/models.yaml").write_text(yaml.safe_dump(models or {}))
    (tree / "config/spaces.yaml").write_text(yaml.safe_dump({"one": space}))
    drawn = {"pictures": PARAMS["pictures"] | pictures, "analyses": ["pictures"]}
    names = [*(models or ["efficientnet_lite0"])]
    drawn["translator"] = PARAMS["translator"] | {"reference": None}
    edit(tree, models=names, spaces=["one"], comparison={"models": [], "kinds": []}, **drawn)
    return module.check_weights(FILE, FILE)


def test_every_weight_file_that_is_missing_is_named_with_the_command(tree, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tree))
    vgg = {"source": "torchvision", "id": "vgg16.IMAGENET1K_V1"}
    lost = CONSE | {"text": "package:no-such-encoder"}
    status, found = weights(tree, lost, {"lost": LOST, "vgg16": vgg}, closeup="lost")
    assert status == "fail" and "-> run `singflow prefetch` where" in found
    for words in (
        "lost: package:no-such-distribution is not installed",
        "vgg16: vgg16-",
        "one: package:no-such-encoder is not installed",
    ):
        assert words in found


def test_data_must_be_there_and_the_disk_must_hold_the_results(tree, monkeypatch):
    assert module.check_disk(FILE, FILE)[0] == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    status, found = module.check_disk(FILE, FILE)
    assert status == "fail" and found.startswith("1 MB free; the results of 20 images take ")
    edit(tree, data=PARAMS["data"] | {"source": "folder", "root": "absent"})
    refused("data.root absent: no such folder", module.check_disk, FILE, FILE)


def test_a_remote_works_or_its_lack_is_named(tree, closed_port, monkeypatch):
    assert module.check_remote()[0] == "absent"
    (tree / "file").write_text("x")
    refusing = f"http://127.0.0.1:{closed_port}/data"
    for url, said in (
        ("", "no default remote is set -> correct it: `dvc remote modify` or `dvc remote add"),
        ("file/store", "/file is not a folder that can be written to"),
        ("oss://bucket/data", "dvc-oss"),
        (refusing, f"there ({refusing})\n aiohttp.client_exceptions.Client"),
    ):
        repository(tree, **({"url": url} if url else {}))
        status, found = module.check_remote()
        assert status == "fail" and said in found and "Traceback" not in found
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        repository(tree, url=f"http://127.0.0.1:{silent.getsockname()[1]}/data")
        for seconds in (5, 20, 200):  # until it was really asked
            monkeypatch.setattr(module, "PATIENCE", seconds)
            assert f"gave no answer within {seconds} s" in module.check_remote()[1]
            with contextlib.suppress(BlockingIOError):
                silent.accept()[0].close()
                return
    pytest.fail("the remote was not asked")


def test_a_command_that_hangs_fails_or_is_absent_is_said_to_be_that():
    assert ask("sleep", "60", seconds=0.3) == (False, "", "sleep gave no answer within 0.3 s")
    assert ask("no-such-command").message == "no-such-command: No such file or directory"
    failed = ask("sh", "-c", "echo one >&2; echo two >&2; echo one >&2; exit 3")
    assert failed == (False, "", "one; two")
    assert ask("echo", "$HOME; x").out == "$HOME; x\n"

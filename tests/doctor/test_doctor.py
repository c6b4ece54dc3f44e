import contextlib
import http.server
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from dvc.config import Config
from dvc.repo import Repo

from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.data.parameters import Data
from singflow.doctor.checks import (
    check_data,
    check_disk,
    check_gpu,
    check_versions,
    check_weights,
    count_findings,
    expected_bytes,
    visible_gpus,
)
from singflow.doctor.dvc import (
    check_cache,
    check_dvc,
    check_lock,
    check_remote,
    check_shared_cache,
    check_state,
    file_system,
    mounts,
)
from singflow.doctor.findings import Finding
from singflow.doctor.slurm import (
    JobKind,
    check_account,
    check_accounting,
    check_cores,
    check_partition,
    check_qos,
    check_reservation,
    check_status_command,
    choose_partitions,
    jobs_of,
    read_partitions,
    slurm_settings,
)
from singflow.errors import InputError
from singflow.study import check
from singflow.system import ask, existing, in_bytes
from tests import warm
from tests.data.archives import pack, write_rows
from tests.project import ROOT

PARAMS = read_yaml(ROOT / "params.yaml")
LOST = {"source": "timm", "id": "resnet18.a1_in1k", "weights": "package:no-such-distribution"}
CLIP = {
    "source": "open_clip",
    "id": "ViT-L-14-quickgelu/openai",
    "weights": "file:checkpoints/clip.safetensors",
    "dim": 768,
}


@contextlib.contextmanager
def unprivileged():
    """Without the rights of root, where the tests have them."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def closed(tmp_path):
    """A folder that this user, once unprivileged, may neither read nor write."""
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(0o755)
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "image.jpg").write_bytes(b"x")
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def doctor(folder, path="", **environment):
    """Run the script in a folder, without Slurm unless PATH has one."""
    return warm.singflow(
        ROOT,
        "doctor",
        "--profile",
        ROOT / "slurm/config.yaml",
        cwd=folder,
        PATH=path,
        **environment,
    )


@pytest.fixture
def tree(here):
    """A working directory with what the demo's doctor reads, in its own DVC repository."""
    shutil.copy(ROOT / "params.yaml", here)
    shutil.copytree(ROOT / "config", here / "config")
    repository(
        here,
        "remote.local.url=../store",
        "remote.local.verify=true",
        "core.remote=local",
        "cache.type=symlink,copy",
        f"core.site_cache_dir={here / 'state'}",
    )
    return here


def repository(folder, *settings):
    """A DVC repository with these settings, <section>.<key>=<value>, as `dvc config` takes them."""
    Repo.init(str(folder), no_scm=True, force=True).close()
    written = {"core": {"no_scm": "true", "analytics": "false"}}
    for setting in settings:
        name, _, value = setting.partition("=")
        section, *inner, key = name.split(".")
        written.setdefault(f"'{section} \"{inner[0]}\"'" if inner else section, {})[key] = value
    lines = [
        line
        for name, values in written.items()
        for line in (f"[{name}]", *(f"{key} = {value}" for key, value in values.items()))
    ]
    (folder / ".dvc/config").write_text("\n".join(lines), encoding="utf-8")
    return Config(str(folder / ".dvc"))


def changed(**sections):
    """The demo's params.yaml with some values of its sections changed."""
    return PARAMS | {
        name: PARAMS[name] | value if isinstance(value, dict) else value
        for name, value in sections.items()
    }


# The script


def test_a_study_that_works_here_ends_with_status_0_and_one_line_a_check(tree):
    done = doctor(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    names = [
        "versions",
        "study",
        "GPU",
        "weights",
        "data root",
        "disk",
        "DVC remote",
        "DVC cache",
        "shared cache",
        "DVC state",
        "DVC lock",
        "Slurm",
    ]
    assert [line[8:24].strip() for line in lines[:-1]] == names
    assert {line[:8].strip() for line in lines[:-1]} <= {"ok", "warn", "absent"}
    assert (
        "absent  Slurm           none here: without Slurm `snakemake --cores all` runs "
        "everything on this machine"
    ) in lines
    assert re.fullmatch(r"\d+ checks passed, [01] with a warning, 0 failed", lines[-1])
    assert not (tree / "state").exists() and not (tree / "store").exists()


def test_a_study_with_mistakes_ends_with_status_1_and_the_rest_is_checked(tree):
    mistakes = PARAMS | {"weights": "some", "seed": -1, "wieghts": 1}
    (tree / "params.yaml").write_text(yaml.safe_dump(mistakes), encoding="utf-8")
    done = doctor(tree)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (found,) = re.findall(r"^fail    study           ((?:.*\n)(?: +.*\n)*)", done.stdout, re.M)
    assert (
        "params.yaml: weights: 'some'" in found
        and "params.yaml: seed: -1" in found
        and "did you mean 'weights'?" in found
    )
    assert "ok      DVC remote" in done.stdout and "weights         " not in done.stdout
    assert done.stdout.endswith("1 failed\n")


@pytest.mark.parametrize("name", ["params.yaml", "config/models.yaml", "config/spaces.yaml"])
def test_a_file_that_is_missing_or_damaged_is_a_failed_check(tree, name):
    for content in (None, "a: [", "[]"):
        if content is None:
            (tree / name).unlink()
        else:
            (tree / name).write_text(content, encoding="utf-8")
        done = doctor(tree)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert re.search(rf"^fail    study           .*{name}: ", done.stdout, re.M), done.stdout


def test_everything_that_fails_is_said_with_its_fix(tree):
    study = changed(
        data={"source": "folder", "root": "photos"},
        models=["lost"],
        comparison={"models": []},
        pictures={"closeup": "lost"},
    )
    (tree / "params.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    (tree / "config/models.yaml").write_text(yaml.safe_dump({"lost": LOST}), encoding="utf-8")
    (tree / ".dvc/config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    done = doctor(tree)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "lost: weights package:no-such-distribution is not installed: "
        "pip install no-such-distribution"
    ) in done.stdout
    assert (
        "fail    data root       data.root photos: no such folder: "
        "correct data.root in params.yaml\n"
    ) in done.stdout
    assert (
        "fail    DVC remote      none is set (core.remote)\n"
        + " " * 24
        + "-> `dvc remote add --default"
        in done.stdout
    )
    assert re.search(
        r"^fail    weights .*\n +lost: .*\n +-> run `make prefetch`", done.stdout, re.M
    )
    assert done.stdout.endswith("3 failed\n")


def test_a_damaged_manifest_does_not_stop_the_doctor(tree):
    (tree / "results/demo/data").mkdir(parents=True)
    (tree / "results/demo/data/manifest.parquet").write_bytes(b"damaged")
    done = doctor(tree)
    assert done.returncode == 0 and re.search(r"^ok      disk .* MB$", done.stdout, re.M), (
        done.stdout + done.stderr
    )


def test_a_verdict_fails_only_when_a_check_does():
    findings = [
        Finding("a", "ok", ""),
        Finding("b", "warn", ""),
        Finding("c", "absent", ""),
        Finding("d", "ok", ""),
    ]
    assert count_findings(findings) == (True, "2 checks passed, 1 with a warning, 0 failed")
    assert count_findings([*findings, Finding("e", "fail", "")]) == (
        False,
        "2 checks passed, 1 with a warning, 1 failed",
    )


# Versions


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Make a distribution `tried` with these requirements known to Python."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(*requirements, python=">=3.11"):
        folder = tmp_path / "tried-1.0.dist-info"
        folder.mkdir(exist_ok=True)
        lines = [
            "Metadata-Version: 2.1",
            "Name: tried",
            "Version: 1.0",
            f"Requires-Python: {python}",
        ]
        (folder / "METADATA").write_text(
            "\n".join(
                [*lines, *(f"Requires-Dist: {requirement}" for requirement in requirements), ""]
            )
        )
        return check_versions("tried")

    return make


def test_versions_of_this_environment_are_what_pyproject_requires():
    found = check_versions()
    assert found.status == "ok", found
    for name in ("snakemake", "dvc", "torch"):
        assert f"{name} {importlib.metadata.version(name)}" in found.found


def test_a_version_outside_its_range_or_a_missing_distribution_is_named(distribution):
    dvc = importlib.metadata.version("dvc")
    assert (
        distribution("dvc>=3", "pytest; extra == 'test'", "absent; python_version < '3'").status
        == "ok"
    )
    found = distribution("dvc>=99", "numpy<1", "no-such-distribution", "absent>=1; extra == 'test'")
    assert found.status == "fail" and "make .venv/demo" in found.fix
    numpy = importlib.metadata.version("numpy")
    assert found.found == (
        f"dvc is {dvc}, >=99 is needed; numpy is {numpy}, <1 is needed; "
        "no-such-distribution is not installed"
    )
    assert distribution(python=">=9").found.startswith("python is 3.")


def test_what_an_extra_names_must_be_there_where_a_run_needs_it_and_fit_where_it_does_not(
    distribution,
):
    numpy = importlib.metadata.version("numpy")
    assert distribution("absent; extra == 'demo'").found == "absent is not installed"
    assert (
        distribution("absent; extra == 'app'", "numpy<1; extra == 'app'").found
        == f"numpy is {numpy}, <1 is needed"
    )
    assert distribution("absent; extra == 'cluster'").status == "ok"
    found = check_versions("tried", ("demo", "cluster"))
    assert found.found == "absent is not installed" and found.fix.startswith("`make workflow`")


def test_a_package_that_is_not_installed_fails():
    assert (
        check_versions("no-such-distribution").found
        == "no-such-distribution is not installed in this environment"
    )


# GPU


@pytest.mark.parametrize(
    ("device", "gpus", "slurm", "status"),
    [
        ("cpu", [], False, "absent"),
        ("auto", ["A100"], False, "ok"),
        ("cuda", ["A100", "A100"], True, "ok"),
        ("auto", [], False, "warn"),
        ("cuda", [], False, "fail"),
        ("auto", [], True, "warn"),
        ("cuda", [], True, "warn"),
        ("mps", ["Apple GPU"], False, "ok"),
        ("mps", [], False, "fail"),
    ],
)
def test_a_gpu_is_missed_where_the_study_wants_one_and_slurm_has_none_to_give(
    device, gpus, slurm, status
):
    found = check_gpu(device, 2, gpus, slurm)
    assert found.status == status and bool(found.fix) == (status in ("warn", "fail"))
    if device == "auto" and status == "warn" and not slurm:
        assert re.search(r"about \d\d times as long", found.found)


def test_the_gpus_named_are_those_of_pytorch():
    import torch

    assert len(visible_gpus("auto")) == (
        torch.cuda.device_count() if torch.cuda.is_available() else 0
    )
    assert len(visible_gpus("mps")) == int(torch.backends.mps.is_available())


# Weights


def weights(models, spaces, **pictures):
    """The check for these entries (None: one that needs no registry)."""
    Path("config").mkdir(exist_ok=True)
    Path("config/models.yaml").write_text(
        yaml.safe_dump({name: entry for name, entry in models.items() if entry}), encoding="utf-8"
    )
    Path("config/spaces.yaml").write_text(yaml.safe_dump(spaces), encoding="utf-8")
    study = check(changed(pictures=pictures), "params.yaml")
    return check_weights(
        resolve_models("config/models.yaml", list(models)),
        resolve_spaces("config/spaces.yaml", list(spaces)),
        study.pictures,
    )


def test_weights_in_packages_and_files_are_found(here):
    own = Path("checkpoints/own.pth")
    own.parent.mkdir()
    own.write_bytes(b"x")
    spaces = {"conse": read_yaml(ROOT / "config/spaces.yaml")["conse_minilm"]}
    models = {
        "lite": read_yaml(ROOT / "config/models.yaml")["efficientnet_lite0"],
        "own": LOST | {"weights": "file:checkpoints/own.pth"},
    }
    assert weights(models, spaces) == Finding("weights", "ok", "all are here; no hub was asked")


def test_every_weight_file_that_is_missing_is_named_with_the_command_that_fetches_it(
    here, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(here))
    conse = read_yaml(ROOT / "config/spaces.yaml")["conse_minilm"]
    models = {
        "lost": LOST,
        "timm/resnet18.nobodys_in1k": None,
        "vgg16": {"source": "torchvision", "id": "vgg16.IMAGENET1K_V1"},
    }
    found = weights(models, {"conse": conse | {"text": "package:no-such-encoder"}})
    assert found.status == "fail" and "make prefetch" in found.fix
    first, *rest = found.found.split("\n")
    assert first == "4 missing:"
    assert rest[0] == (
        "lost: weights package:no-such-distribution is not installed: "
        "pip install no-such-distribution"
    )
    assert rest[1].startswith("timm/resnet18.nobodys_in1k: timm has no weights") and rest[
        2
    ].startswith("vgg16: vgg16-")
    assert rest[3].startswith("conse: weights package:no-such-encoder is not installed")


def test_a_generator_that_is_missing_fails_where_it_is_asked_for_and_is_remarked_on_where_photos_take_its_place(  # noqa: E501
    here,
):
    Path("checkpoints").mkdir()
    Path("checkpoints/clip.safetensors").write_bytes(b"x")
    models = {"lite": read_yaml(ROOT / "config/models.yaml")["efficientnet_lite0"]}
    for generator in ("nobody/no-such-generator", "checkpoints/karlo"):
        for renderer, status in (("unclip", "fail"), ("auto", "warn"), ("retrieval", "ok")):
            found = weights(models, {"clip": CLIP}, renderer=renderer, generator=generator)
            assert found.status == status, found
            assert (generator in found.found) == (status != "ok")
    conse = read_yaml(ROOT / "config/spaces.yaml")["conse_minilm"]
    assert (
        weights(
            models, {"conse": conse}, renderer="auto", generator="nobody/no-such-generator"
        ).status
        == "ok"
    )
    Path("checkpoints/karlo").mkdir()
    Path("checkpoints/karlo/model_index.json").write_text("{}")
    assert (
        weights(models, {"clip": CLIP}, renderer="unclip", generator="checkpoints/karlo").status
        == "ok"
    )


# Data


def looked_into(**keys):
    return check_data(Data.model_validate(PARAMS["data"] | keys))


@pytest.fixture
def photos(here):
    """photos/a_cat/1.jpg, and tables that list it."""
    Path("photos/a_cat").mkdir(parents=True)
    Path("photos/a_cat/1.jpg").write_bytes(b"x")
    frame = pd.DataFrame({"path": ["a_cat/1.jpg", "a_cat/absent.jpg"], "label": ["a cat", "a cat"]})
    frame.to_csv("photos.csv", index=False)
    frame.to_parquet("photos.parquet", index=False)
    frame[::-1].to_csv("absent.csv", index=False)
    frame[:0].to_csv("empty.csv", index=False)
    frame[:0].to_parquet("empty.parquet", index=False)
    Path("blank.csv").write_text("")
    Path("damaged.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    Path("damaged.parquet").write_bytes(b"x")


def test_data_that_can_be_read_passes(photos, monkeypatch):
    for table in ("photos.csv", "photos.parquet"):
        found = looked_into(source="table", root="photos", table=table)
        assert (found.status, found.found) == (
            "ok",
            f"photos: 1.jpg, the first image of {table}, can be read",
        )
    assert looked_into(source="folder", root="photos").found == "photos: a_cat is its first class"
    Path("splits").mkdir()
    Path("photos").rename("splits/train")
    assert (
        looked_into(source="folder", root="splits").found
        == "splits: train/a_cat is its first class"
    )
    monkeypatch.chdir(ROOT)
    assert looked_into().status == "ok"


def test_archives_that_can_be_read_pass_with_their_number_and_size(here):
    pack(Path("data/b.tar"), {"cat/1.jpg": b"x" * 3000})
    write_rows(Path("data/a.parquet"), [b"x" * 500], [0])
    size = sum(path.stat().st_size for path in Path("data").iterdir()) / 1000
    found = looked_into(source="archive", root="data", archives=["*"])
    assert (found.status, found.found) == (
        "ok",
        f"data: 2 archives, {size:.3g} kB; a.parquet, the first of them, can be read",
    )
    Path("data/a.parquet").write_bytes(b"PAR1")
    for pattern, message in {
        "*": "data/a.parquet: not readable as Parquet",
        "*.zip": "data.archives: *.zip: no file below data",
    }.items():
        found = looked_into(source="archive", root="data", archives=[pattern])
        assert found.status == "fail" and found.found.startswith(message)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"root": "absent"}, "data.root absent: no such folder"),
        (
            {"root": "photos/a_cat", "source": "folder"},
            "data.root photos/a_cat: holds no class folders",
        ),
        ({"table": "no.csv"}, "no.csv: no such file"),
        ({"table": "no.parquet"}, "no.parquet: no such file"),
        (
            {"table": "absent.csv"},
            "photos/a_cat/absent.jpg: not readable: No such file or directory",
        ),
        ({"table": "empty.csv"}, "empty.csv: holds no rows"),
        ({"table": "empty.parquet"}, "empty.parquet: holds no rows"),
        ({"table": "blank.csv"}, "blank.csv: not readable as CSV: it is empty"),
        (
            {"table": "photos.csv", "label_column": "animal"},
            "photos.csv: has no column 'animal' (data.label_column); it has path, label",
        ),
        ({"table": "damaged.csv"}, "damaged.csv: not readable as CSV"),
        ({"table": "damaged.parquet"}, "damaged.parquet: not readable as Parquet"),
    ],
    ids=lambda case: "-".join(case.values()) if isinstance(case, dict) else "",
)
def test_data_that_cannot_be_read_is_named(photos, keys, message):
    found = looked_into(**{"source": "table", "root": "photos", "table": "photos.csv"} | keys)
    assert found.status == "fail" and found.found.startswith(message), found


def test_data_without_permission_is_named(closed):
    with unprivileged():
        found = looked_into(source="folder", root=str(closed))
        assert (
            found.status == "fail" and f"{closed}: not readable: Permission denied" in found.found
        )
        table = closed.parent / "table.csv"
        found = looked_into(source="table", root=str(closed / "inner"), table=str(table))
        assert found.status == "fail" and "Permission denied" in found.found


# Disk


def test_disk_is_enough_scarce_or_too_small(here):
    free = shutil.disk_usage(here).free
    for part, status in ((0.1, "ok"), (0.7, "warn"), (2.0, "fail")):
        found = check_disk(here / "results/demo", int(part * free))
        assert (
            found.status == status
            and "free for" in found.found
            and bool(found.fix) == (status != "ok")
        )


def test_the_estimate_grows_with_models_and_images(here, monkeypatch):
    monkeypatch.chdir(ROOT)

    def bytes_of(models, **data):
        study = check(changed(models=models, data=data), "params.yaml")
        return expected_bytes(
            study,
            resolve_models("config/models.yaml", models),
            resolve_spaces("config/spaces.yaml", study.spaces),
        )

    single, three = bytes_of(["efficientnet_lite0"]), bytes_of(PARAMS["models"])
    assert 1e6 < single < three < 1e9
    table = here / "many.csv"
    table.write_text("path,label\n" + "x.jpg,a cat\n" * 200_000)
    assert bytes_of(PARAMS["models"], source="table", table=str(table)) > 100 * three


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 kB"), (81_349_000, "81.3 MB"), (1e9, "1 GB"), (2.5e13, "25 TB"), (3e15, "3e+03 TB")],
)
def test_bytes_are_said_in_their_unit(count, text):
    assert in_bytes(count) == text


def test_the_nearest_folder_that_exists_is_found(here):
    assert existing(here / "a/b/c") == here and existing(here) == here
    assert existing(Path("a/b")) == here


# DVC


def remote(folder, *settings, seconds=1200.0):
    return check_remote(folder, repository(folder, *settings), seconds)


def at(url, *more):
    return (
        "core.remote=there",
        f"remote.there.url={url}",
        *(f"remote.there.{option}" for option in more),
    )


@pytest.fixture
def server(tmp_path):
    """Address of a web server without any files."""
    handler = type(
        "Quiet",
        (http.server.SimpleHTTPRequestHandler,),
        {"log_message": lambda *_: None, "directory": tmp_path},
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_folder_is_a_remote_that_works_and_is_not_made_by_the_check(here):
    found = remote(here, *at("../store", "verify=true"))
    assert (
        found.status == "ok"
        and found.found == f"there: {here / 'store'} can be written to; the first push makes it"
    )
    assert not (here / "store").exists()
    (here / "store").mkdir()
    assert (
        remote(here, *at("../store", "verify=true")).found
        == f"there: {here / 'store'} can be written to"
    )
    for settings in (at("../store"), at("../store", "verify=false")):
        found = remote(here, *settings)
        assert found.status == "warn" and found.fix == "`dvc remote modify there verify true`"


def test_a_remote_that_is_not_named_not_known_or_no_folder_fails(here):
    assert remote(here).found == "none is set (core.remote)"
    found = remote(here, "core.remote=absent")
    assert found.status == "fail" and "absent" in found.found and "dvc remote add" in found.fix
    (here / "file").write_text("x")
    found = remote(here, *at(here / "file/store"))
    assert (
        found.status == "fail"
        and found.found == f"there: {here / 'file'} is not a folder that can be written to"
    )


def test_a_remote_folder_without_permission_fails(here, closed):
    config = repository(here, *at(closed / "store", "verify=true"))
    assert check_remote(here, config).status == ("ok" if os.geteuid() == 0 else "fail")
    closed.chmod(0o555)
    with unprivileged():
        found = check_remote(here, config)
    assert (
        found.status == "fail" and f"{closed} is not a folder that can be written to" in found.found
    )


def test_a_remote_that_answers_passes_and_is_to_verify_what_it_sends(here, server):
    found = remote(here, *at(f"{server}/data"))
    assert found.status == "warn" and found.fix == "`dvc remote modify there verify true`"
    assert remote(here, *at(f"{server}/data", "verify=true")) == Finding(
        "DVC remote", "ok", f"there ({server}/data) answers"
    )


def test_a_remote_that_cannot_be_reached_fails_with_the_reason(here):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/data"
        found = remote(here, *at(url, "verify=true"))
    assert (
        found.status == "fail"
        and f"there ({url}) cannot be reached: " in found.found
        and "Connect" in found.found
    )
    assert "Traceback" not in found.found and "credentials" in found.fix


def test_a_remote_that_never_answers_does_not_hang_the_doctor(here):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        for seconds in (2, 20, 200, 2000):  # until it was really asked
            found = remote(
                here, *at(f"http://127.0.0.1:{silent.getsockname()[1]}/data"), seconds=seconds
            )
            assert found.status == "fail" and f"gave no answer within {seconds} s" in found.found
            with contextlib.suppress(BlockingIOError):
                silent.accept()[0].close()
                return
    pytest.fail("the remote was not asked")


def test_a_remote_whose_client_is_not_installed_fails_with_its_name(here):
    found = remote(here, *at("oss://bucket/data"))
    assert found.status == "fail" and found.fix == "pip install dvc-oss"


def test_without_dvc_results_are_kept_by_snakemake_alone(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "dvc", None)
    (found,) = check_dvc(here, 0)
    assert (
        found.status == "absent"
        and "dvc is not installed: in the checkout, pip install -c constraints.txt -e '.[workflow]'"
        in found.found
    )


def test_dvc_is_checked_where_there_is_a_repository_that_can_be_read(here):
    assert [finding.status for finding in check_dvc(here, 0)] == ["absent"]
    repository(here, *at("../store"), "cache.type=copy")
    assert [finding.name for finding in check_dvc(here, 0)] == [
        "DVC remote",
        "DVC cache",
        "shared cache",
        "DVC state",
        "DVC lock",
    ]
    for content in ("[core\n", "[unknown]\n    key = 1\n", "[cache]\n    type = copies\n"):
        (here / ".dvc/config").write_text(content)
        (found,) = check_dvc(here, 0)
        assert found.status == "fail" and str(here / ".dvc/config") in found.fix


def test_a_cache_that_links_passes_and_one_that_copies_is_remarked_on(here):
    linked = check_cache(here, repository(here, "cache.type=symlink,copy")["cache"], 10**9)
    assert linked.status == "ok" and "symlinks from" in linked.found
    assert (
        check_cache(here, repository(here, "cache.type=hardlink,symlink")["cache"], 10**9).status
        == "ok"
    )
    copied = check_cache(here, repository(here, "cache.type=copy")["cache"], 10**9)
    assert (
        copied.status == "warn"
        and "about 1 GB once more" in copied.found
        and "symlink,copy" in copied.fix
    )
    assert sorted(path.name for path in here.iterdir()) == [".dvc", ".dvcignore"]


def test_a_cache_on_another_file_system_cannot_be_hardlinked(here):
    elsewhere = Path("/dev/shm")  # noqa: S108
    assert elsewhere.stat().st_dev != here.stat().st_dev
    found = check_cache(
        here, repository(here, "cache.type=hardlink", f"cache.dir={elsewhere}")["cache"], 0
    )
    assert (
        found.status == "fail"
        and "on another file system" in found.found
        and "only symlink reach" in found.found
    )
    assert (
        check_cache(
            here, repository(here, "cache.type=symlink,copy", f"cache.dir={elsewhere}")["cache"], 0
        ).status
        == "ok"
    )


def test_a_cache_without_permission_fails(here, closed):
    config = repository(here, f"cache.dir={closed}")
    with unprivileged():
        found = check_cache(here, config["cache"], 0)
    assert (
        found.status == "fail"
        and "Permission denied" in found.found
        and "dvc cache dir" in found.fix
    )


def test_a_cache_of_ones_own_is_not_shared_and_one_elsewhere_is_to_be(here, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert check_shared_cache(here, repository(here)["cache"]).status == "absent"
    assert (
        check_shared_cache(here, repository(here, f"cache.dir={here / 'cache'}")["cache"]).status
        == "absent"
    )
    found = check_shared_cache(here, repository(here, f"cache.dir={elsewhere}")["cache"])
    assert found.status == "warn" and "`dvc config cache.shared group && mkdir -p" in found.fix
    found = check_shared_cache(here, repository(here, "cache.shared=group")["cache"])
    assert (
        found.status == "fail"
        and f"{here / '.dvc/cache'} is not a folder that its group can write to" in found.found
    )


def test_each_mistake_in_a_shared_cache_is_named_and_its_fix_works(here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    right = ("cache.shared=group", "cache.type=symlink,copy", f"cache.dir={folder}")
    mistakes = {
        "cache.shared is not group": ((*right[1:],), 0o2775),
        "cache.type has hardlink": ((right[0], "cache.type=hardlink,copy", right[2]), 0o2775),
        "hands its group on": (right, 0o775),
        "its group can write to": (right, 0o2755),
    }
    for said, (settings, mode) in mistakes.items():
        (folder / "files/md5/00").mkdir(parents=True, exist_ok=True)
        folder.chmod(0o2775)
        (folder / "files/md5/00").chmod(mode)
        found = check_shared_cache(here, repository(here, *settings)["cache"])
        assert (
            found.status == ("fail" if "cache.shared=group" in settings else "warn")
            and said in found.found
            and ";" not in found.found
        )
        fix = found.fix.strip("`").replace("<group>", folder.group())
        subprocess.run(
            ["sh", "-euc", fix], cwd=here, check=True, env=os.environ | warm.environment()
        )
        found = check_shared_cache(here, Config(str(here / ".dvc"))["cache"])
        assert found == Finding("shared cache", "ok", f"{folder} is shared with its group")


def test_databases_on_a_network_drive_fail_and_on_a_disk_of_this_machine_pass(here, monkeypatch):
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    core = repository(here, f"core.site_cache_dir={here / 'state'}")["core"]
    found = check_state(core, mounts())
    assert found.status == "ok" and f"{here / 'state'} (" in found.found
    shared = [(Path("/"), "ext4"), (here.resolve(), "nfs4")]
    found = check_state(core, shared)
    assert (
        found.status == "fail"
        and "network drive (nfs4)" in found.found
        and "core.site_cache_dir" in found.fix
    )
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", "/somewhere")
    assert check_state(core, shared).found == "/somewhere (ext4)"


def test_databases_without_permission_fail(here, closed):
    core = repository(here, f"core.site_cache_dir={closed / 'state'}")["core"]
    closed.chmod(0o555)
    with unprivileged():
        found = check_state(core, mounts())
    assert (
        found.status == "fail" and f"{closed} is not a folder that can be written to" in found.found
    )


def test_the_file_system_is_that_of_the_nearest_mount(here):
    mounted = [(Path("/"), "ext4"), (here, "lustre"), (here / "a", "tmpfs"), (here / "a", "xfs")]
    for path, kind in ((here / "b/c", "lustre"), (here / "a/b", "xfs"), (Path("/nowhere"), "ext4")):
        assert file_system(path, mounted) == kind
    (here / "link").symlink_to("/")
    assert file_system(here / "link/x", mounted) == "ext4"
    assert file_system(here, []) == "unknown"
    real = {
        Path(partition.mountpoint): partition.fstype
        for partition in psutil.disk_partitions(all=True)
    }
    assert file_system(Path("/proc/1"), mounts()) == real[Path("/proc")] == "proc"


def test_a_lock_is_held_as_long_as_its_holder_lives(here):
    repository(here)
    path = here / ".dvc/tmp/lock"
    path.unlink(missing_ok=True)
    assert check_lock(path).status == "ok"
    program = (
        "import sys; from dvc.lock import Lock; l = Lock(sys.argv[1]); l.lock(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        found = check_lock(path)
        holder.kill()
    assert found.status == "warn" and f"held by process {holder.pid}" in found.found
    assert check_lock(path).status == "ok"


# Slurm, as far as it can be seen without one: tests/cluster has the rest

SETTINGS = """Configuration data as of 2026-11-25T09:08:25
AccountingStorageType   = accounting_storage/slurmdbd
GresTypes               = gpu
MinJobAge               = 300 sec
SelectType              = select/linear
SLURM_VERSION           = 24.11.5

Slurmctld(primary) at node is UP
"""
UNREACHABLE = """ClusterName=gone
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
MessageTimeout=3
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
"""
LISTED = """gpu*|1:00:00|4|gpu:a100:4(S:0,1)|up
gpu*|1:00:00|64+|gpu:h100:2,nic:1|up
cpu|infinite|128|(null)|up
old|1-00:00:00|4|(null)|down
"""


def jobs(default=None, **rules):
    return jobs_of({"default-resources": default, "set-resources": rules}, Path("config.yaml"))


def test_settings_and_partitions_are_read_as_slurm_prints_them():
    settings = slurm_settings(SETTINGS)
    assert (settings["MinJobAge"], settings["SelectType"], settings["SLURM_VERSION"]) == (
        "300 sec",
        "select/linear",
        "24.11.5",
    )
    partitions = read_partitions(LISTED)
    assert [
        (name, partition.up, partition.default, partition.limit, partition.gpus)
        for name, partition in partitions.items()
    ] == [
        ("gpu", True, True, "1:00:00", ("gpu:a100:4(S:0,1)", "gpu:h100:2")),
        ("cpu", True, False, "infinite", ()),
        ("old", False, False, "1-00:00:00", ()),
    ]
    assert read_partitions("") == {}


@pytest.mark.parametrize(
    ("profile", "age", "accounting", "status", "said"),
    [
        ({"slurm-status-command": "squeue"}, 300, True, "ok", "squeue"),
        ({"slurm-status-command": "squeue"}, 120, True, "ok", "squeue"),
        ({"slurm-status-command": "squeue"}, 300, False, "warn", "make resume"),
        (
            {"slurm-status-command": "squeue"},
            119,
            True,
            "warn",
            "slurm-init-seconds-before-status-checks: 39",
        ),
        (
            {"slurm-status-command": "squeue"},
            60,
            False,
            "fail",
            "slurm-init-seconds-before-status-checks: 20",
        ),
        (
            {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 20},
            60,
            True,
            "ok",
            "squeue",
        ),
        ({"slurm-status-command": "sacct"}, 300, True, "warn", "slurm-status-command: squeue"),
        ({}, 300, True, "warn", "slurm-status-command: squeue"),
        ({"slurm-status-command": "sacct"}, 300, False, "fail", "slurm-status-command: squeue"),
    ],
)
def test_the_status_command_is_judged_by_what_slurm_remembers(
    profile, age, accounting, status, said
):
    found = check_status_command(profile, {"MinJobAge": f"{age} sec"}, accounting)
    assert found.status == status and said in (found.fix or found.found)


def test_seconds_that_are_no_number_are_refused():
    with pytest.raises(
        InputError, match="slurm-init-seconds-before-status-checks: 'soon' is not a whole number"
    ):
        check_status_command({"slurm-init-seconds-before-status-checks": "soon"}, {}, True)


def test_accounting_that_is_off_or_does_not_answer_is_remarked_on(here, monkeypatch):
    (here / "slurm.conf").write_text(UNREACHABLE.format(port=1), encoding="utf-8")
    monkeypatch.setenv("SLURM_CONF", str(here / "slurm.conf"))
    assert check_accounting({"AccountingStorageType": "(null)"}).found.startswith("off")
    found = check_accounting(slurm_settings(SETTINGS))
    assert found.status == "warn" and "sacct" in found.found and "slurmdbd" in found.fix


def test_a_profile_makes_the_requests_that_the_executor_writes():
    common = {
        "slurm_account": "'lab'",
        "slurm_partition": "gpu",
        "runtime": 10,
        "mem_mb": "4000 * attempt",
    }
    plain, gpu = jobs(common, extract_features={"gpu": 1}, embed_images={"gpu": 1})
    assert plain.rules == () and gpu.rules == (
        "extract_features",
        "embed_images",
        "train_translator",
        "render_pictures",
    )
    assert gpu.request == ["--gpus=1"] and plain.request == []
    assert gpu.options() == ["--partition=gpu", "--account=lab", "--time=10"]
    _, first, rest = jobs(
        common,
        extract_features={"gpu": 0, "gres": "gpu:1", "slurm_partition": "big", "constraint": "a&b"},
    )
    assert (first.rules, first.request) == (("extract_features",), ["--gres=gpu:1"]) and len(
        rest.rules
    ) == 3
    assert first.options()[:3] == ["--partition=big", "--account=lab", "--constraint=a&b"]
    assert jobs(None, train_translator={"gpu_model": "a100", "gpu": 2})[-1].request in (
        ["--gpus=a100:2"],
        ["--gpus=1"],
    )
    assert JobKind(("a",), {"gpu_model": "a100", "gpu": 2}).request == ["--gpus=a100:2"]
    assert JobKind(("a",), {"gpu": 0}).request == []


def test_the_profile_of_the_repository_is_understood():
    profile = read_yaml(ROOT / "slurm/config.yaml")
    _, gpu = jobs_of(profile, ROOT / "slurm/config.yaml")
    assert gpu.request == ["--gpus=1"] and len(gpu.rules) == 4


@pytest.mark.parametrize(
    "profile",
    [
        {"default-resources": ["gpu=1"]},
        {"set-resources": ["a:gpu=1"]},
        {"set-resources": {"embed_images": 1}},
    ],
)
def test_a_profile_of_another_layout_is_refused(profile):
    with pytest.raises(InputError, match=r"config\.yaml: .* must be a mapping"):
        jobs_of(profile, Path("config.yaml"))


@pytest.mark.parametrize(
    ("named", "status", "said"),
    [
        (None, "ok", "gpu, the default (at most 1:00:00)"),
        ("cpu", "ok", "cpu (at most infinite)"),
        ("cpu,gpu", "ok", "cpu (at most infinite); gpu (at most 1:00:00)"),
        ("old", "fail", "old is down"),
        ("new", "fail", "the cluster has no new"),
    ],
)
def test_partitions_must_exist_and_be_up(named, status, said):
    found = check_partition(
        jobs({"slurm_partition": named} if named else None), read_partitions(LISTED)
    )
    assert (found.status, found.found) == (status, said)
    assert bool(found.fix) == (status == "fail") and (
        not found.fix or "gpu (at most 1:00:00), cpu (at most infinite)" in found.fix
    )


@pytest.mark.parametrize(
    ("cores", "named", "status", "said"),
    [
        (64, None, "ok", "at most 64"),
        (65, None, "fail", "65 in the profile, but the nodes of gpu have 64 CPUs at most"),
        (65, "cpu", "ok", "at most 65"),
        (None, None, "warn", "the profile sets none"),
    ],
)
def test_a_job_of_several_steps_must_fit_on_a_node(cores, named, status, said):
    found = check_cores(
        {"cores": cores},
        jobs({"slurm_partition": named} if named else None),
        read_partitions(LISTED),
    )
    assert found.status == status and found.found.startswith(said)
    assert status != "fail" or found.fix == "write cores: 64 in the profile"


def test_a_cluster_without_a_default_needs_a_partition_named():
    found = check_partition(jobs(), read_partitions(LISTED.replace("*", "")))
    assert found.status == "fail" and "no default" in found.found


def test_jobs_are_sent_by_a_partition_file_as_the_executor_sends_them(tmp_path):
    path = tmp_path / "partitions.yaml"
    path.write_text(
        "partitions: {gpu: {max_runtime: 60, max_gpu: 4, available_gpu_models: [a100]}, cpu: {}}"
    )
    sent, found = choose_partitions(
        jobs({"runtime": 10}, train_translator={"gpu": 0, "slurm_partition": "old"}), path
    )
    assert found.status == "ok" and found.found.startswith(
        "jobs without a GPU: cpu; extract_features, embed_images, render_pictures: gpu, "
    )
    assert [job.resources["slurm_partition"] for job in sent] == ["cpu", "gpu", "old"]
    sent, found = choose_partitions(jobs({"gpu_model": "'v100'"}), path)
    assert (
        found.status == "fail"
        and "takes extract_features, " in found.found
        and "available_gpu_models" in found.fix
    )
    for wrong in (
        "partitions: {gpu: {max_gpus: 1}}",
        "gpu: {max_gpu: 1}",
        "partitions: {gpu: 1}",
        "partitions: [gpu]",
        "{",
    ):
        path.write_text(wrong)
        kept, found = choose_partitions(jobs(), path)
        assert (found.status, kept) == ("fail", jobs()) and str(path) in found.found
    assert choose_partitions(jobs(), tmp_path / "absent.yaml")[1].status == "fail"


def test_a_partition_file_is_never_overwritten_and_needs_a_slurm(tree):
    done = warm.singflow(ROOT, "doctor", "--write-partitions", "partitions.yaml", cwd=tree, PATH="")
    assert (
        done.returncode == 1
        and "sinfo: No such file or directory: run this on a machine of a Slurm cluster"
        in done.stderr
    )
    assert not (tree / "partitions.yaml").exists()
    (tree / "partitions.yaml").write_text("mine")
    done = warm.singflow(ROOT, "doctor", "--write-partitions", "partitions.yaml", cwd=tree, PATH="")
    assert done.returncode == 1 and "partitions.yaml: is there already" in done.stderr
    assert (tree / "partitions.yaml").read_text() == "mine"


MINE = {"lab": "lab", "paid": "paid (in gpus)"}


@pytest.mark.parametrize(
    ("named", "known", "status", "said"),
    [
        ("Lab", MINE, "ok", "Lab"),
        ("Lab,paid", MINE, "ok", "Lab, paid"),
        (None, MINE, "warn", "the profile names none: it is guessed for every job"),
        ("mine", MINE, "fail", "mine: not an account of "),
        ("lab", {}, "warn", "lab; Slurm lists none for "),
        ("lab", None, "ok", "lab; accounting is off, so none is asked for"),
    ],
)
def test_accounts_must_be_the_users_own(named, known, status, said):
    found = check_account(jobs({"slurm_account": named} if named else None), known, [])
    assert found.status == status and found.found.startswith(said)
    assert ("lab, paid (in gpus)" in found.fix) == (known == MINE and status != "ok")


def test_a_qos_for_all_jobs_wins_and_needs_accounting():
    made = jobs_of({"default-resources": {"qos": "slow"}, "slurm-qos": "fast"}, Path("c.yaml"))
    assert all(job.options("qos") == ["--qos=fast"] for job in made)
    assert check_qos(made, False).status == "fail"


def test_a_reservation_must_be_there_and_may_be_to_come():
    listed = "ReservationName=now StartTime=a EndTime=2026-11-27T15:21:04 Users=root State=ACTIVE\n"
    listed += (
        "ReservationName=soon StartTime=2026-11-28T08:00:00 EndTime=b State=INACTIVE "
        "BurstBuffer=(null)\n"
    )
    assert [check_reservation(name, listed).status for name in ("now", "soon", "never")] == [
        "ok",
        "warn",
        "fail",
    ]
    assert check_reservation("soon", listed).found.endswith("begins 2026-11-28T08:00:00")
    assert check_reservation("never", listed).fix.endswith("one of these: now, soon")
    assert check_reservation("now", "No reservations in the system\n").fix.endswith(
        "one of these: none"
    )


def test_a_slurm_that_does_not_answer_is_a_failed_check(tree):
    if not shutil.which("scontrol"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Slurm: install slurm-client")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        conf = tree / "slurm.conf"
        conf.write_text(UNREACHABLE.format(port=taken.getsockname()[1]), encoding="utf-8")
        done = doctor(tree, path=os.environ["PATH"], SLURM_CONF=str(conf))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(
        (
            r"^fail    Slurm           does not answer: .*\n +-> ask who runs the cluster; "
            r"without Slurm"
        ),
        done.stdout,
        re.M,
    )
    assert "partition" not in done.stdout and done.stdout.endswith("1 failed\n")


def test_a_command_that_hangs_fails_or_is_absent_is_said_to_be_that():
    assert ask("sleep", "60", seconds=0.3) == (False, "", "sleep gave no answer within 0.3 s")
    assert ask("no-such-command").words == "no-such-command: No such file or directory"
    assert ask("sh", "-c", "echo one >&2; echo two >&2; echo one >&2; exit 3") == (
        False,
        "",
        "one; two",
    )
    assert ask("echo", "$HOME; x").out == "$HOME; x\n"

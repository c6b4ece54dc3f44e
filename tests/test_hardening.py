"""Disks, clocks, concurrent processes and hostile words.

A file is written whole or not at all, and no input becomes code, a command or another path.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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


# The clock


@pytest.mark.parametrize("then", [0, 4_000_000_000], ids=["1970", "2096"])
def test_whatever_the_clock_says_content_alone_decides(tmp_path, then):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    seen = inspect(tmp_path, Candidate("a.png", "", -1, ""), 100)
    litter, of_editor = tmp_path / ".artifact.kill3d__", tmp_path / ".artifact.swp"
    litter.touch()
    of_editor.touch()
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (then, then))
    row = SimpleNamespace(path="a.png", sha256=seen.sha256)
    assert read_unchanged(tmp_path, row, 100).size == (4, 4)
    files.write_bytes(tmp_path / "artifact", b"whole")
    assert (tmp_path / "artifact").read_bytes() == b"whole" and not litter.exists()
    assert of_editor.exists()


# Many files


# Images


def test_a_file_larger_than_any_image_of_max_pixels_is_not_read(tmp_path):
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**42)
    reason = f"absurdly large: {2**42} bytes, data.max_pixels is {10**8}"
    assert inspect(tmp_path, Candidate("sparse.png", "", -1, ""), 10**8) == reason
    with pytest.raises(InputError, match=rf"sparse\.png: {reason}: run build_manifest again"):
        read_unchanged(tmp_path, SimpleNamespace(path="sparse.png", sha256="0"), 10**8)


def test_a_table_reaches_out_of_the_root_by_nothing_but_links_that_lie_in_it(tmp_path):
    (tmp_path / "root").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "outside.png")
    (tmp_path / "root/linked.png").symlink_to(tmp_path / "outside.png")
    names = ["linked.png", "../outside.png", str(tmp_path / "outside.png"), "x/../../outside.png"]
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    found, rejected = list_table(tmp_path / "t.csv", "label", CLASSES)
    assert [candidate.path for candidate in found] == names[:1]
    assert [path for path, _ in rejected] == names[1:]


# No input becomes code


FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "os.system", "os.popen"),
    *("pd.read_pickle", "yaml.unsafe_load", "yaml.full_load"),
}
STARTING = {"subprocess.run", "subprocess.Popen", "subprocess.check_output"}
SAFE_WORDS = dict.fromkeys(("shell", "allow_pickle", "trust_remote_code"), "False")
SAFE_WORDS["weights_only"] = "True"  # keywords that have one safe value


def faults(tree):
    """Places in a program that could run what a file says, each as (line, what)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            refused = (name for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS)
            yield from ((node.lineno, name) for name in refused)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            arguments = [ast.unparse(argument) for argument in node.args]
            round_trip = name == "yaml.load" and arguments[:1] in (["path"], ["file"])  # ruamel's
            loads = name in ("yaml.load", "yaml.load_all") and not round_trip
            if (
                name in FORBIDDEN_CALLS
                or (name == "torch.load" and "weights_only" not in words)
                or (loads and arguments[1:] != ["_Loader"])
                or any(words.get(word, safe) != safe for word, safe in SAFE_WORDS.items())
                # a command is a list of words
                or (name in STARTING and isinstance(node.args[0], ast.Constant | ast.JoinedStr))
            ):
                yield node.lineno, name


PROGRAMS = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
}


def test_no_program_reads_pickles_evaluates_text_or_starts_a_shell():
    found = {path.name: list(faults(tree)) for path, tree in PROGRAMS.items()}
    assert not {name: lines for name, lines in found.items() if lines}
    assert "class _Loader(yaml.SafeLoader)" in (ROOT / "src/singflow/config/reading.py").read_text()
    text = (ROOT / "src/singflow/config/public.py").read_text()
    assert re.search(r"yaml = YAML\(\)", text)


LOADERS = "torch.load(p)|torch.load(p, weights_only=False)|f(p, allow_pickle=True)"
RUNNERS = "yaml.load(t, yaml.Loader)|eval(t)|subprocess.run(t, shell=True)|os.system(t)"
OTHERS = "import pickle|from joblib import load|f(n, trust_remote_code=True)|subprocess.run('x y')"


@pytest.mark.parametrize("text", f"{LOADERS}|{RUNNERS}|{OTHERS}".split("|"))
def test_such_programs_would_be_found(text):
    assert list(faults(ast.parse(text)))


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

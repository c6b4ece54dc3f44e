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
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from singflow.artifacts import files
from singflow.config.reading import read_yaml
from singflow.data.images import FORMATS, read_unchanged
from singflow.data.manifest import (
    Candidate,
    build_manifest,
    inspect,
    list_folder,
    list_table,
    read_classes,
)
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from singflow.photo.towers import open_image
from singflow.study import Params, check, settle
from singflow.towers.checkpoints import read_checkpoint
from singflow.towers.text_cache import TextCache
from tests.project import ROOT

CLASSES = read_classes(ROOT / "config/vocab/imagenet_1k.csv")


# The disk


def run(program, *arguments, **options):
    """A program in a process whose coverage is not measured, so that it writes no other file."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    return subprocess.run(command, capture_output=True, text=True, env=variables, **options)


SCRIPT = """
import sys
from types import SimpleNamespace
from pathlib import Path
from singflow import cli
from singflow.artifacts.files import write_bytes, write_json

class Flags(cli.Command):
    \"\"\"Writes a file.\"\"\"
    output: Path

def main(flags):
    BEFORE
    cli.log.info("at work")
    write_bytes(flags.output, b"x" * 100_000)

cli.run_step(main, Flags)
"""
FULL = (
    "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
)
OTHER_USER = "import os; os.getuid() or os.setuid(65534)"


def refused(done, path):
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert (
        f"error: {path}: cannot be written, " in done.stderr
        and "then run the same again" in done.stderr
    )


def test_a_file_that_the_disk_has_no_room_for_is_named_and_the_old_one_stays(tmp_path):
    output = tmp_path / "out/file"
    files.write_bytes(output, b"old")
    refused(run(SCRIPT.replace("BEFORE", FULL), "--output", output), output)
    assert [path.read_bytes() for path in output.parent.iterdir()] == [b"old"]


def test_a_log_that_the_disk_has_no_room_for_stops_nothing(tmp_path):
    done = run(SCRIPT.replace("BEFORE", ""), "--output", tmp_path / "file", "--log", "/dev/full")
    assert (
        done.returncode == 0
        and done.stderr == "at work\n"
        and (tmp_path / "file").stat().st_size == 100_000
    )


def test_a_results_folder_that_may_not_be_written_to_is_named(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir(mode=0o555)
    done = run(SCRIPT.replace("BEFORE", OTHER_USER), "--output", "file", cwd=folder)
    refused(done, "file")
    assert "Permission denied" in done.stderr and not list(folder.iterdir())


@pytest.mark.parametrize("flag", ["output", "log"])
def test_a_results_folder_that_is_a_file_is_named(tmp_path, flag):
    (tmp_path / "file").write_bytes(b"in the way")
    flags = {"output": tmp_path / "out", "log": tmp_path / "run.log"} | {
        flag: tmp_path / "file/below"
    }
    done = run(
        SCRIPT.replace("BEFORE", ""),
        *(word for name, value in flags.items() for word in (f"--{name}", value)),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        f"error: {flags[flag]}: cannot be written" in done.stderr
        and not (tmp_path / "out").exists()
    )


# Rivals


WRITER = """
import sys
from types import SimpleNamespace
from pathlib import Path
from singflow.artifacts.files import write_bytes
for _ in range(60):
    write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 300_000)
"""


def test_of_two_that_write_one_artifact_at_once_a_whole_one_is_there_at_every_moment(tmp_path):
    path = tmp_path / "artifact"
    files.write_bytes(path, b"a" * 300_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, letter]) for letter in "ab"]
    seen, at_work = set(), True
    while at_work:
        at_work = any(writer.poll() is None for writer in writers)
        content = path.read_bytes()
        seen.add((len(content), len(set(content))))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {(300_000, 1)} and list(tmp_path.iterdir()) == [path]


# The clock


@pytest.mark.parametrize("then", [0, 4_000_000_000], ids=["1970", "2096"])
def test_whatever_the_clock_says_content_alone_decides(tmp_path, then):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    seen = inspect(tmp_path, Candidate("a.png", "", -1, ""), 100)
    embedded = []

    def embed(texts):
        embedded.extend(texts)
        return np.ones((len(texts), 2), np.float32)

    cache = TextCache({}, embed, 1, tmp_path / "cache")
    cache(["a", "b"])
    litter = tmp_path / ".artifact.killed"
    litter.touch()
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (then, then))
    assert read_unchanged(
        tmp_path, SimpleNamespace(path="a.png", sha256=seen.sha256), 100
    ).size == (4, 4)
    cache(["a", "b"])
    assert embedded == ["a", "b"]
    files.write_bytes(tmp_path / "artifact", b"whole")
    assert (tmp_path / "artifact").read_bytes() == b"whole" and not litter.exists()


# Many files


def calls(work):
    """Calls of functions, Python's and others, that a piece of work makes."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def work_of_listing(tmp_path, *sizes):
    """Calls that listing folders of so many files and drawing 100 of them makes, by size."""
    work = {}
    for n in sizes:
        folder = tmp_path / str(n) / "label"
        folder.mkdir(parents=True)
        for number in range(n):
            if number % 10_000 < 10:
                Image.new("RGB", (1, 1), (number % 10_000, 0, 0)).save(folder / f"{number:06d}.png")
            else:
                os.link(
                    folder / f"{number - number % 10_000 + number % 10:06d}.png",
                    folder / f"{number:06d}.png",
                )
        options = {"per_class": 100, "folds": 5, "max_pixels": 100, "max_rejected_fraction": 0.0}
        progress = {"progress": lambda items, _: items}
        found = {}

        def build(root=folder.parent, options=options | progress, found=found):
            listed, rejected = list_folder(root, CLASSES)
            found["manifest"], found["rejected"] = build_manifest(
                root, listed, rejected, **options, seed=0, threads=1
            )

        work[n] = calls(build)
        assert (
            len(found["manifest"]) == 100 and len(found["manifest"]) + len(found["rejected"]) == n
        )
    return work


def test_the_work_of_listing_and_drawing_grows_no_faster_than_the_files(tmp_path):
    work = work_of_listing(tmp_path, 1000, 10_000)
    assert work[10_000] < 12 * work[1000]


# Images


def test_a_file_larger_than_any_image_of_max_pixels_is_not_read(tmp_path):
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**42)
    assert (
        inspect(tmp_path, Candidate("sparse.png", "", -1, ""), 10**8)
        == f"absurdly large: {2**42} bytes, data.max_pixels is {10**8}"
    )
    with pytest.raises(
        InputError, match=r"sparse\.png: absurdly large: .* run build_manifest again"
    ):
        read_unchanged(tmp_path, SimpleNamespace(path="sparse.png", sha256="0"), 10**8)


def test_a_table_reaches_out_of_the_root_by_nothing_but_links_that_lie_in_it(tmp_path):
    (tmp_path / "root").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "outside.png")
    (tmp_path / "root/linked.png").symlink_to(tmp_path / "outside.png")
    names = ["linked.png", "../outside.png", str(tmp_path / "outside.png"), "x/../../outside.png"]
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    found, rejected = list_table(tmp_path / "t.csv", "label", CLASSES)
    assert [candidate.path for candidate in found] == ["linked.png"] and [
        path for path, _ in rejected
    ] == names[1:]


# No input becomes code


FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "pd.read_pickle",
    "yaml.unsafe_load",
    "yaml.full_load",
}


def faults(tree):
    """Places in a program that could run what a file says, each as (line, what)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            yield from (
                (node.lineno, name) for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS
            )
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            safe = [
                name not in FORBIDDEN_CALLS,
                words.get("shell", "False") == "False",
                words.get("allow_pickle", "False") == "False",
                name != "torch.load" or words.get("weights_only") == "True",
                name not in ("yaml.load", "yaml.load_all")
                or [ast.unparse(argument) for argument in node.args[1:]] == ["_Loader"],
                words.get("weights_only", "True") == "True",
                words.get("trust_remote_code", "False") == "False",
            ]
            if not all(safe) and not (
                name == "yaml.load" and ast.unparse(node.args[0]) in ("path", "file")
            ):  # ruamel's, round-trip
                yield node.lineno, name


def test_no_program_reads_pickles_evaluates_text_or_starts_a_shell():
    programs = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {
        path.name: list(faults(ast.parse(path.read_text(encoding="utf-8")))) for path in programs
    }
    assert not {name: lines for name, lines in found.items() if lines}
    assert "class _Loader(yaml.SafeLoader)" in (ROOT / "src/singflow/config/reading.py").read_text()
    for module in ("config/public", "engines/stages"):
        assert re.search(r"yaml = YAML\(\)", (ROOT / f"src/singflow/{module}.py").read_text()), (
            module
        )


LOADERS = [
    "import pickle",
    "from joblib import load",
    "torch.load(p)",
    "torch.load(p, weights_only=False)",
    "f(p, allow_pickle=True)",
]
RUNNERS = [
    "yaml.load(t, yaml.Loader)",
    "eval(t)",
    "subprocess.run(t, shell=True)",
    "os.system(t)",
    "f(n, trust_remote_code=True)",
]


@pytest.mark.parametrize("text", LOADERS + RUNNERS)
def test_such_programs_would_be_found(text):
    assert list(faults(ast.parse(text)))


# No input becomes a command


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def kind_of(place):
    """The type of a key of params.yaml."""
    model = Params
    for part in place.split("."):
        model = model.model_fields[part].annotation
        model = get_args(model)[0] if get_origin(model) is Annotated else model
    return model


def test_what_stands_in_a_command_unquoted_is_a_name_a_number_or_a_choice():
    commands = [stage.get("do", stage)["cmd"] for stage in STAGES.values()]
    seen = set()
    for command in commands:
        for quote, place in re.findall(r'("?)\$\{([^}]+)\}', command):
            place = re.sub(r"\[\d+\]", "", place)
            seen.add(place)
            if place.startswith(("item", "key")) or place in ("study", "weights"):
                continue
            if place not in Params.model_fields and "." not in place:
                raise AssertionError(place)
            kind = kind_of(place)
            plain = (
                kind in (int, float)
                or get_origin(kind) is Literal
                or (isinstance(kind, type) and hasattr(kind, "model_fields"))
            )
            lists = get_origin(kind) is list or place in (
                "models",
                "spaces",
            )  # flags, which DVC quotes, or names
            assert plain or lists or quote, f"{place} in {command}"
    assert "data.classes" in seen and "study" in seen


PARAMS = read_yaml(ROOT / "params.yaml")
WORDS = [
    "$(touch x)",
    "`touch x`",
    "; rm -rf ~",
    "a && b",
    '"; touch x; "',
    "--help",
    "${HOME}",
    "{input}",
    "a\nb",
    "timm/../x",
]
HOSTILE = st.text(alphabet="ab/.-_ ;&|<>$`\"'\\*?~!#%(){}[]\n\t\0é", max_size=12) | st.sampled_from(
    WORDS
)


def accepted(**changes):
    study = PARAMS | {key: value for key, value in changes.items() if "." not in key}
    for key, value in changes.items():
        if "." in key:
            section, name = key.split(".")
            study = study | {section: study[section] | {name: value}}
    try:
        check(study, "params.yaml")
    except InputError:
        return False
    return True


@settings(max_examples=300)
@given(HOSTILE)
def test_names_that_are_accepted_are_single_plain_words_and_paths_survive_double_quotes(word):
    names = {"study": word, "spaces": [word]}
    for key, value in names.items():
        if accepted(**{key: value}):
            assert (
                shlex.quote(word) == word
                and "/" not in word
                and word not in (".", "..")
                and not word.startswith("-")
            )
    model = {"models": [word], "comparison.models": [], "pictures.closeup": word}
    if accepted(**model):
        assert (
            shlex.quote(word) == word and not word.startswith("-") and ".." not in word.split("/")
        )
    for key in ("data.root", "data.table", "data.classes", "concepts.vocabulary", "prompts.cache"):
        if accepted(**{key: word}):
            assert shlex.split(f'x "{word}"') == ["x", word] and not set(word) & set("$`\n\0")


def test_every_command_of_the_package_is_a_list_of_words():
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "subprocess.run",
                "subprocess.Popen",
                "subprocess.check_output",
            ):
                assert not isinstance(node.args[0], ast.Constant | ast.JoinedStr), (
                    f"{path.name}:{node.lineno}"
                )


# Words of messages


@pytest.mark.parametrize("hostile", ["\x1b[31mred", "a\rb", "\udcff", "\u2028", "\x00", "\x9b31m"])
def test_no_message_carries_control_characters_or_broken_text_to_the_terminal(hostile):
    message = str(InputError(f"{hostile}: refused\nsecond line: {hostile}"))
    assert message.count("\n") == 1 and hostile not in message and message.encode("utf-8")
    assert all(line.isprintable() for line in message.split("\n"))
    assert str(InputError("größe/図 👩\u200d👧.png")) == "größe/図 👩\u200d👧.png"


def test_the_readme_names_the_formats_that_are_read():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").upper()
    assert all(name in readme for name in FORMATS)


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
@pytest.mark.parametrize("device", [None, "/dev/zero", "/dev/urandom", "/dev/stdin"])
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


@pytest.mark.parametrize("place", ["data.table", "data.classes", "concepts.vocabulary"])
def test_a_pipe_that_a_study_names_is_refused_before_its_first_step(tmp_path, monkeypatch, place):
    monkeypatch.chdir(ROOT)
    os.mkfifo(tmp_path / "pipe")
    section, key = place.split(".")
    study = read_yaml("params.yaml")
    study[section][key] = str(tmp_path / "pipe")
    with pytest.raises(
        InputError, match="pipe: not a regular file, but a pipe or a device: name a file"
    ):
        settle(study, "params.yaml")

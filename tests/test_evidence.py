"""docs/evidence.md against the script that makes its numbers and figures."""

import importlib
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from singflow.figures.style import STYLE, save
from singflow.planning.power import TABLE
from tests.project import ROOT

PAGE = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
TABLES = re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]
FIGURES = re.findall(r"!\[.+\]\((evidence/\w+\.png)\)", PAGE)
NUMBER = r"-?\d+\.?\d*"


def run(command, folder, *more):
    program, script, *flags = command.split()
    assert (program, script) == ("python", "docs/evidence.py")
    words = [sys.executable, ROOT / script, *flags, *more]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An empty folder in which the page's first command ran, and what it said."""
    folder = tmp_path_factory.mktemp("evidence")
    return folder, run(COMMANDS[0], folder)


def test_the_page_quotes_what_its_command_prints(made):
    _, printed = made
    assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", TABLES[0])
    for found, quoted in zip(re.findall(NUMBER, printed), re.findall(NUMBER, TABLES[0]), strict=True):
        last = 10.0 ** -len(quoted.partition(".")[2])
        assert float(found) == pytest.approx(float(quoted), abs=1.01 * last), (found, quoted)  # another processor rounds otherwise


def test_every_figure_is_shown_once_small_and_the_same_bytes_when_made_again(made, monkeypatch):
    folder, _ = made
    names = sorted(path.relative_to(folder / "docs").as_posix() for path in (folder / "docs/evidence").iterdir())
    assert sorted(FIGURES) == names == sorted(f"evidence/{path.name}" for path in (ROOT / "docs/evidence").iterdir())
    assert all(path.stat().st_size < 100_000 for path in (ROOT / "docs/evidence").iterdir())
    monkeypatch.syspath_prepend(ROOT / "docs")
    evidence = importlib.import_module("evidence")
    assert sorted(f"evidence/{finding.__name__}.png" for finding in evidence.FINDINGS) == names
    with plt.rc_context(STYLE):
        save(evidence.matched_control()[0], folder / "again.png")
    assert (folder / "again.png").read_bytes() == (folder / "docs/evidence/matched_control.png").read_bytes()


def test_the_papers_size_is_measured_by_the_command_of_the_page_here_a_small_part_of_it(tmp_path):
    whole, part = COMMANDS[1].rsplit(" ", 1)
    assert part == "1"
    printed = run(f"{whole} 32", tmp_path)
    assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", TABLES[1]) and len(COMMANDS) == len(TABLES) == 2


def test_what_so_many_images_show_is_measured_by_the_command_of_the_planning_page_here_in_few_trials(tmp_path):
    page = (ROOT / "docs/planning.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"python docs/evidence.py --power \d+", page)
    printed = run(command.rsplit(" ", 1)[0] + " 2", tmp_path, "--output", tmp_path / "power.csv")
    said = [[word.strip() for word in line.strip("|").split("|")] for line in printed.splitlines()]
    quoted = [line for line in page.splitlines() if line.startswith("| images per feature dimension")]
    assert printed.splitlines()[0] == quoted[0]
    written = pd.read_csv(tmp_path / "power.csv", dtype=str, keep_default_na=False)
    assert written.to_numpy().tolist() == said[2:]
    kept = pd.read_csv(TABLE)
    assert written["per_dimension"].tolist() == [f"{each:g}" for each in kept["per_dimension"]]
    np.testing.assert_allclose(written["r2_share"].astype(float), kept["r2_share"], atol=0.1)

"""docs/evidence.md against the program that makes its numbers and figures."""

import importlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.evidence import SHARES, Words
from tests import warm
from tests.project import ROOT, blocks

PAGE = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
KEPT = pd.read_csv(ROOT / "docs/evidence/level.csv")
TABLES = re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE)
NUMBER = r"-?\d+\.?\d*"
COMMANDS = [line for block in blocks(PAGE) for line in block.splitlines()]
WORLD = ["features", "images", "width", "function", "noise", "leak"]


def run(command, *more):
    program, script, *flags = command.split()
    assert (program, script) == ("python", "docs/evidence.py")
    done = warm.run(ROOT / script, *flags, *more, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("evidence")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which the page's first command ran, and what it said."""
    folder = tmp_path_factory.mktemp("evidence")
    shutil.copy(ROOT / "docs/evidence/level.csv", folder)
    return folder, run(COMMANDS[0], "--folder", folder)


def test_the_page_quotes_what_its_command_prints(made):
    form = [re.sub(NUMBER, "#", part).strip() for part in made[1].split("\n\n")]
    assert form == [re.sub(NUMBER, "#", table).strip() for table in TABLES]
    printed, quoted = (re.findall(NUMBER, text) for text in (made[1], "".join(TABLES)))
    for found, number in zip(printed, quoted, strict=True):
        last = 10.0 ** -len(number.partition(".")[2])  # another processor rounds otherwise
        assert float(found) == pytest.approx(float(number), abs=1.01 * last), (found, number)


def test_every_figure_is_made_small_and_shown_once(made):
    names = sorted(path.name for path in made[0].glob("*.png"))
    assert names == sorted(path.name for path in (ROOT / "docs/evidence").glob("*.png"))
    assert sorted(re.findall(r"!\[.+\]\(evidence/(\w+\.png)\)", PAGE)) == names
    assert all(path.stat().st_size < 100_000 for path in (ROOT / "docs/evidence").iterdir())


def test_level_and_power_are_measured_by_the_command_of_the_page_here_in_few_draws(tmp_path):
    (command, draws), name = COMMANDS[1].rsplit(" ", 1), "made-up n/d 4"
    assert command.endswith("--level") and (KEPT["draws"] == int(draws)).all()
    run(command, "3", "--features", name, "--folder", tmp_path)
    found = pd.read_csv(tmp_path / "level.csv")
    kept = KEPT[KEPT["features"] == name].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[WORLD], kept[WORLD])
    null = found["leak"] == 0
    assert (found["meaning"][null] == 0).all()
    assert (found["trace"][null & (found["function"] != "quadratic")] == 0).all()
    assert found["trace"].iloc[-1] == 1
    np.testing.assert_allclose(found["unique_r2"], kept["unique_r2"], atol=0.01)


def test_the_kept_table_has_every_world_and_holds_its_level(program):
    assert list(KEPT["features"].unique()) == list(program.FEATURES)
    null, leaks = KEPT[KEPT["leak"] == 0], KEPT[KEPT["leak"] > 0]
    assert set(leaks["leak"]) == set(SHARES[1:]) and (KEPT["draws"] >= 100).all()
    worlds = len(program.FEATURES) * null["function"].nunique() * null["noise"].nunique()
    assert len(null.drop_duplicates(WORLD)) == len(null) == worlds
    assert (null["meaning"] <= 0.05).all()
    # As the page says.
    excepted = {"animals_lite0", "made-up n/d 4", "made-up n/d 16 large"}
    traced = null[null["trace"] > 0.1]
    assert set(traced["features"]) == excepted and set(traced["function"]) == {"quadratic"}
    assert (traced["unique_r2"] < 0.005).all()


def test_the_remainder_is_that_of_the_workflow(program):
    images = program.made_up(2, 32)
    texts, of_world = program.worlds(images, 0)
    embeddings = list(of_world.values())
    for z, rest in zip(embeddings, program.remainder(images, texts, embeddings), strict=True):
        blocks = images.blocks(z)
        np.testing.assert_allclose(rest, Words.fit(blocks, texts).remainder(*blocks()), atol=1e-10)

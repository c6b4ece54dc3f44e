"""docs/evidence.md against the program that makes its numbers and figures."""

import importlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.evidence import FittedOwnWords
from singflow.artifacts.files import read_json
from tests import warm
from tests.project import ROOT, Project

PAGE = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
KEPT = pd.read_csv(ROOT / "docs/evidence/level.csv")
HEADS = pd.read_csv(ROOT / "docs/evidence/heads.csv")
RIVALS = pd.read_csv(ROOT / "docs/evidence/rivals.csv")
TABLES = re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE)
OF_D = ["unique_r2", "unique_r2_low", "unique_r2_high"]
NUMBER = r"-?\d+\.?\d*"
WORLD = ["features", "images", "width", "function", "noise", "leak"]


def run(*flags):
    done = warm.run(ROOT / "docs/evidence.py", *flags, cwd=ROOT)
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
    for name in ("level", "groups", "stability", "rivals", "heads"):
        shutil.copy(ROOT / f"docs/evidence/{name}.csv", folder)
    return folder, run("--folder", folder)


def test_the_page_quotes_what_its_command_prints(made):
    printed, quoted = (re.findall(NUMBER, text) for text in (made[1], "".join(TABLES)))
    for found, number in zip(printed, quoted, strict=True):
        last = 10.0 ** -len(number.partition(".")[2])  # another processor rounds otherwise
        assert float(found) == pytest.approx(float(number), abs=1.01 * last), (found, number)


def test_every_figure_is_made_small_and_shown_once(made):
    names = sorted(path.name for path in made[0].glob("*.png"))
    assert names == sorted(path.name for path in (ROOT / "docs/evidence").glob("*.png"))
    assert sorted(re.findall(r"!\[.+\]\(evidence/(\w+\.png)\)", PAGE)) == names
    assert all(path.stat().st_size < 100_000 for path in (ROOT / "docs/evidence").iterdir())


def test_a_head_of_the_study_of_heads_has_the_numbers_of_the_page(tmp_path):
    project, model = Project(tmp_path), "dogs_lite0"
    project.command("study", "cut_heads")
    place = f"results/cut_heads/evidence/conse_minilm/{model}.json"
    project.snakemake(place)
    found, kept = read_json(tmp_path / place), HEADS.set_index("model").loc[model]
    for name in (*OF_D, "r2_words"):
        assert found[name] == pytest.approx(kept[name], abs=0.002), name
    # More rows of the head are seen: less is hidden, and nothing where all of them are.
    drawn = HEADS[HEADS["model"].str.match("efficientnet_lite0|random")]
    assert drawn["n_classes"].is_monotonic_decreasing and len(drawn) == 5
    assert drawn["unique_r2"].is_monotonic_increasing and drawn["unique_r2"].iloc[0] < 0.0005
    (zero,) = HEADS.loc[HEADS["known_zero"], "unique_r2"]
    assert abs(zero) < 0.0005


def test_the_level_of_the_page_is_measured_again_in_one_draw(tmp_path):
    name = "made-up n/d 4"
    run("--level", 1, "--features", name, "--folder", tmp_path)
    found = pd.read_csv(tmp_path / "level.csv")
    kept = KEPT[KEPT["features"] == name].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[WORLD], kept[WORLD])
    null = found["leak"] == 0
    assert (found["meaning"][null] == 0).all() and (found["unique_r2"][null] < 0.005).all()
    large = (found["function"] == "even") & (found["leak"] == 0.1)
    assert (found["meaning"][large] == 1).all() and large.sum() == 1
    np.testing.assert_allclose(found["unique_r2"], kept["unique_r2"], atol=0.015)


def test_the_rivals_of_the_page_are_measured_again_in_one_draw(tmp_path):
    name, tests = "made-up n/d 4", ["GCM", "linear Delta R2", "D"]
    world = ["features", "test", "function", "noise", "leak"]
    run("--rivals", 1, "--features", name, "--tests", *tests, "--folder", tmp_path)
    found = pd.read_csv(tmp_path / "rivals.csv")
    kept = RIVALS[(RIVALS["features"] == name) & RIVALS["test"].isin(tests)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[world], kept[world])
    sure = kept["called"].isin([0, 1])  # in all draws, and the first is the same
    assert (found["called"][sure] == kept["called"][sure]).all() and sure.mean() > 0.5


def test_the_remainder_is_that_of_the_workflow(program):
    images = program.made_up(2, 32)
    texts, of_world = program.worlds(images, 0)
    embeddings = list(of_world.values())
    for z, rest in zip(embeddings, program.remainder(images, texts, embeddings), strict=True):
        blocks = images.blocks(z)
        expected = FittedOwnWords.fit(blocks, texts).remainder(*blocks())
        np.testing.assert_allclose(rest, expected, atol=1e-10)

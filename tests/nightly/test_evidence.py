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
from tests.project import ROOT, Project, block

PAGE = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
KEPT = pd.read_csv(ROOT / "docs/evidence/level.csv")
GROUPED = pd.read_csv(ROOT / "docs/evidence/groups.csv")
HEADS = pd.read_csv(ROOT / "docs/evidence/heads.csv")
STABLE = pd.read_csv(ROOT / "docs/evidence/stability.csv")
RIVALS = pd.read_csv(ROOT / "docs/evidence/rivals.csv")
TABLES = re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE)
OF_D = ["unique_r2", "unique_r2_low", "unique_r2_high"]
NUMBER = r"-?\d+\.?\d*"
STUDY = block(PAGE, "singflow study").splitlines()  # test_smoke_study.py runs it
OF_FLAG = {words.split()[2]: words for words in re.findall(r"^python docs/ev.* --.*", PAGE, re.M)}
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
    for name in ("level", "groups", "stability", "rivals", "heads"):
        shutil.copy(ROOT / f"docs/evidence/{name}.csv", folder)
    return folder, run("python docs/evidence.py", "--folder", folder)


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


def test_a_head_of_the_study_of_heads_has_the_numbers_of_the_page(tmp_path):
    project, model = Project(tmp_path), "dogs_lite0"
    project.shell(STUDY[0])
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


def test_the_readme_and_the_page_say_how_much_heads_hide():
    share = {row.model: f"{100 * row.unique_r2:.2g} %" for row in HEADS.itertuples()}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    drawn = f"{share['random200_lite0']} with 200 classes, {share['random10_lite0']}"
    assert f"{drawn} with 10 classes. A head for animals alone ignores " in readme
    assert f"ignores {share['animals_lite0']}, vehicles" in readme
    said = " ".join(PAGE.split())
    assert f"200 classes ignores {share['random200_lite0']} of the meaning" in said
    assert f"10 classes {share['random10_lite0']}" in said
    assert f"118 dogs ignores {share['dogs_lite0']}" in said


def test_the_level_is_measured_by_the_command_of_the_page_here_in_one_draw(tmp_path):
    command, name = OF_FLAG["--level"].rsplit(" ", 1)[0], "made-up n/d 4"
    run(command, "1", "--features", name, "--folder", tmp_path)
    found = pd.read_csv(tmp_path / "level.csv")
    kept = KEPT[KEPT["features"] == name].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[WORLD], kept[WORLD])
    null = found["leak"] == 0
    assert (found["meaning"][null] == 0).all() and (found["unique_r2"][null] < 0.005).all()
    large = (found["function"] == "even") & (found["leak"] == 0.1)
    assert (found["meaning"][large] == 1).all() and large.sum() == 1
    np.testing.assert_allclose(found["unique_r2"], kept["unique_r2"], atol=0.015)


def test_groups_are_measured_by_the_command_of_the_page_here_in_one_draw(tmp_path):
    command, name = OF_FLAG["--groups"].rsplit(" ", 1)[0], "made-up n/d 4"
    run(command, "1", "--features", name, "--folder", tmp_path)
    found = pd.read_csv(tmp_path / "groups.csv")
    kept = GROUPED[GROUPED["features"] == name].reset_index(drop=True)
    np.testing.assert_allclose(found["unique_r2_quarter"], kept["unique_r2_quarter"], atol=0.08)
    assert found["quarter"].iloc[-1] == 1 and not found["others"].any()


def test_a_leak_in_a_quarter_of_the_classes_is_found_there_wherever_the_verdict_is_meaning():
    opened = GROUPED[GROUPED["meaning"] > 0]
    assert (opened["quarter"] >= opened["meaning"]).all() and len(opened) > 3
    assert (GROUPED["others"] <= 0.05).all()


def test_the_stability_is_measured_by_the_command_of_the_page_here_in_one_division(tmp_path):
    command, divisions = OF_FLAG["--stability"].rsplit(" ", 1)
    assert STABLE["division"].max() + 1 == int(divisions)
    run(command, "1", "--folder", tmp_path)
    found = pd.read_csv(tmp_path / "stability.csv")
    kept = STABLE[STABLE["division"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, kept, atol=1e-3)


def test_the_rivals_are_measured_by_the_command_of_the_page_here_in_one_draw(tmp_path):
    command, name = OF_FLAG["--rivals"].rsplit(" ", 1)[0], "made-up n/d 4"
    tests, world = (
        ["GCM", "linear Delta R2", "D"],
        ["features", "test", "function", "noise", "leak"],
    )
    run(command, "1", "--features", name, "--tests", *tests, "--folder", tmp_path)
    found = pd.read_csv(tmp_path / "rivals.csv")
    kept = RIVALS[(RIVALS["features"] == name) & RIVALS["test"].isin(tests)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[world], kept[world])
    sure = kept["called"].isin([0, 1])  # in all draws, and the first is the same
    assert (found["called"][sure] == kept["called"][sure]).all() and sure.mean() > 0.5


def test_d_alone_holds_its_level_beside_the_rivals_and_the_page_says_how_often_they_err():
    null, said = RIVALS[RIVALS["leak"] == 0], " ".join(PAGE.split())
    assert not null.loc[null["test"] == "D", "called"].any()
    told = {"linear Delta R2": "Linear Delta R2 calls {} of the nulls", "RCIT": "RCIT {}."}
    for test, form in {**told, "GCM": "close to its level ({})"}.items():
        rates = 100 * null[null["test"] == test].groupby("features")["called"].mean()
        assert form.format(f"{rates.min():.0f} to {rates.max():.0f} %") in said


def test_the_kept_table_has_every_world_and_misses_the_level_only_where_the_page_says(program):
    assert list(KEPT["features"].unique()) == list(program.FEATURES)
    null, leaks = KEPT[KEPT["leak"] == 0], KEPT[KEPT["leak"] > 0]
    planted = list(zip(leaks["function"], leaks["leak"], strict=True))
    assert set(planted) == set(program.LEAKS) and set(program.UNSEEN) < set(null["function"])
    limit = null[null["function"] == program.CAUSES]
    assert (limit["meaning"] > 0.5).all() and len(limit) == 1, "which no read-out can exclude"
    null = null.drop(limit.index)
    worlds = null.groupby("features").size()
    assert (worlds == worlds.iloc[0]).all() and worlds.iloc[0] == 2 * null["function"].nunique() + 2
    missed = null[(null["meaning"] > 0.05) | (null["unique_r2"] >= 0.002)]
    told = " ".join(PAGE[PAGE.index("## Level and power") : PAGE.index("## Stability")].split())
    for row in missed.itertuples():
        assert f"*{row.function}*" in told, row


def test_the_division_into_folds_moves_d_by_less_than_a_quarter_of_its_interval():
    for _, mine in STABLE.groupby(["features", "texts"]):
        width = (mine["high"] - mine["low"]).mean()
        assert mine["unique_r2"].std() <= width / 4


def test_the_remainder_is_that_of_the_workflow(program):
    images = program.made_up(2, 32)
    texts, of_world = program.worlds(images, 0)
    embeddings = list(of_world.values())
    for z, rest in zip(embeddings, program.remainder(images, texts, embeddings), strict=True):
        blocks = images.blocks(z)
        expected = FittedOwnWords.fit(blocks, texts).remainder(*blocks())
        np.testing.assert_allclose(rest, expected, atol=1e-10)

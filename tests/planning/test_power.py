import importlib
import re

import pandas as pd
import pytest

from singflow.planning.power import ADVISED, TABLE, smallest_leak
from tests.project import ROOT


@pytest.fixture(scope="module")
def leaks():
    return pd.read_csv(TABLE, index_col="images_per_dim")["leak"]


def test_more_images_show_smaller_leaks(leaks):
    assert leaks.index.is_monotonic_increasing and leaks.fillna(1).is_monotonic_decreasing
    assert leaks[ADVISED] < leaks.fillna(1).iloc[0]


def test_the_table_is_made_by_the_program_that_it_names(leaks, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    program = importlib.import_module("evidence")
    assert leaks.index.tolist() == list(program.PER_DIMENSION)
    assert program.smallest_leak(0.5, 10) == pytest.approx(leaks[0.5], rel=1.1)


def test_the_page_shows_the_table_that_plan_reads(leaks):
    page = (ROOT / "docs/planning.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) % \|$", page, flags=re.MULTILINE)
    assert rows == [(f"{ratio:g}", f"{100 * leak:g}") for ratio, leak in leaks.items()]


@pytest.mark.parametrize(
    ("images", "row"), [(507, 0.25), (1_280, 1), (5_119, 2), (5_120, 4), (1_281_167, 16)]
)
def test_what_images_can_show_is_told_by_the_row_that_they_reach(images, row, leaks):
    said = smallest_leak(images, 1280)
    shown = f"a leak of {100 * leaks[row]:g} % of the meaning"
    assert said.startswith(f"{images:,} images") and shown in said.partition(";")[0]
    assert ("; 5,120 images: a leak of" in said) == (images < 5_120)
    nothing = "0.0 per feature dimension: not even a large leak would be found"
    assert nothing in smallest_leak(20, 1280)

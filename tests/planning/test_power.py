import re

import pandas as pd
import pytest

from singflow.planning.power import TABLE, told
from tests.project import ROOT


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(TABLE, index_col="per_dimension", dtype=str, keep_default_na=False)


def test_the_page_shows_the_table_that_plan_reads(table):
    page = (ROOT / "docs/planning.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"\| images per feature dimension .*\n\| ---.*\n((?:\|.*\n)+)", page)
    assert [[word.strip() for word in row.strip("|").split("|")] for row in rows.splitlines()] == table.reset_index().to_numpy().tolist()


def test_more_images_show_more(table):
    numbers = table.apply(pd.to_numeric)
    assert numbers["r2_share"].is_monotonic_increasing and numbers["r2_share"].between(0, 1).all()
    assert (numbers["leak"].iloc[::2].is_monotonic_decreasing) and (numbers["leak_both"].dropna().is_monotonic_decreasing)
    assert (numbers["leak_both"].fillna(1) >= numbers["leak"]).all()


@pytest.mark.parametrize(
    ("images", "photos", "words"),
    [
        (507, True, ["507 images, 0.4 per feature dimension: R2 below", "no leak below 35% of", "5,120 images", "leaks from 2%"]),
        (1_280, False, ["1,280 images, 1.0 per feature dimension: R2 about 55% of the best", "leaks from 10% of", "5,120 images"]),
        (1_281_167, False, ["1,001 per feature dimension: R2 about 96%"]),
    ],
)
def test_what_images_can_show_is_told_by_the_row_that_they_reach(images, photos, words):
    said = told(images, 1280, photos=photos)
    assert all(word in said for word in words), said
    assert ("5,120" in said) == (images < 5_120)

"""The page in a real browser: what is seen, pressed, sorted, filtered and asked for."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singflow.artifacts.tables import read_table
from tests.report.report_study import HOSTILE


def table(page, name):
    """Choose a table and wait until it is shown."""
    page.locator("#choice").select_option(name)
    title = page.locator(f"#choice option[value={name}]").inner_text()
    page.wait_for_selector(f"#table table[aria-label={title!r}]")
    return page.locator("#table tbody tr")


def shows(page, place, texts):
    """Wait until a column of the table holds these texts (DataTables redraws after the event)."""
    from playwright.sync_api import expect

    expect(page.locator(f"#table tbody tr td:nth-child({place})")).to_have_text(texts)


def test_a_link_leads_to_every_photo_from_the_largest_is_on(load):
    page = load()
    page.get_by_role("link", name="every photo").click()
    page.wait_for_selector("#table table[aria-label='Every photo']")
    turned = [float(text) for text in page.locator("#table td:nth-child(3)").all_inner_texts()]
    assert len(turned) == 10 and turned == sorted(turned, reverse=True)
    page.get_by_role("searchbox").fill("photos/00005.png")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length === 2")
    assert sorted(page.locator("#table td:nth-child(2)").all_inner_texts()) == ["m1", "m2"]


def test_one_table_at_a_time_is_chosen_sorted_searched_and_explained(load):
    page = load()
    table(page, "models")
    header = page.locator("#table thead th", has_text="IS (°)").first
    header.click()
    shows(page, 1, ["m1", "m2"])
    header.click()
    shows(page, 1, ["m2", "m1"])
    table(page, "labels")
    page.get_by_role("searchbox").fill("teapot")
    shows(page, 2, ["teapot", "teapot"])
    page.get_by_text("What the columns mean").click()
    meant = page.locator("#columns").inner_text()
    assert "class or group that the images are filed under" in meant and "verdict" not in meant
    assert page.locator("main table.dataTable").count() == 1


def test_a_term_opens_the_glossary_at_its_place_and_escape_closes_it(load):
    page, glossary = load(390), "#glossary"
    assert page.locator(glossary).is_hidden()
    page.get_by_role("button", name="floor", exact=True).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{glossary} #g-floor.here")
    page.wait_for_function(
        "document.getElementById('g-floor').getBoundingClientRect().bottom < innerHeight"
    )
    page.keyboard.press("Escape")
    assert page.locator(glossary).is_hidden()
    wanted = page.locator("[data-term]").evaluate_all("all => all.map(one => one.dataset.term)")
    assert all(page.locator(f"dt#{term}").count() == 1 for term in wanted)


def check_width_and_access(page, width):
    """The page is no wider than its screen, and axe finds nothing serious."""
    from axe_playwright_python.sync_playwright import Axe

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": rules}).response["violations"]
    grave = [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["any"]) for v in grave] == []


@pytest.mark.parametrize("width", [375, 1440])
def test_the_page_is_dark_where_the_readers_system_is_and_so_are_its_figures(load, width):
    """In light and in dark, it is no wider than the screen, and axe finds nothing serious."""
    page, style = load(width), "getComputedStyle(document.body)"

    def colours():
        shot = Image.open(io.BytesIO(page.locator("#fig1 img").screenshot())).convert("L")
        colours = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
        return colours, int(np.median(np.asarray(shot)))

    table(page, "images")
    check_width_and_access(page, width)
    assert colours() == (["rgb(27, 31, 36)", "rgb(255, 255, 255)"], 255)
    page.emulate_media(color_scheme="dark")
    try:
        page.wait_for_selector("html.dark")
        (ink, paper), figure = colours()
        assert (ink, paper) == ("rgb(227, 231, 236)", "rgb(20, 23, 27)") and figure < 40  # of 255
        check_width_and_access(page, width)
        page.get_by_role("button", name="Glossary").click()
        check_width_and_access(page, width)
    finally:
        page.emulate_media(color_scheme="light")


def saved(page, name):
    """Rows of the CSV of a table, by column."""
    table(page, name)
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == f"{name}.csv"
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_are_saved_as_csv_with_the_numbers_of_the_study(load, address):
    page, tables = load(), Path(address.removeprefix("file://")).parent / "tables"
    models = read_table(tables / "models.csv").set_index("model")
    scores = ["unique_r2", "unique_r2_low", "unique_r2_high", "margin", "detectable", "turn_deg"]
    for row in saved(page, "models"):
        for name in (*scores, "is_mean", "floor_is_mean"):
            assert float(row[name]) == pytest.approx(models.loc[row["model"], name], rel=1e-3), name
    labels = {row["label"] for row in saved(page, "labels")}
    assert labels == set(read_table(tables / "labels.csv")["label"]) and HOSTILE in labels
    images = [row["path"] for row in saved(page, "images")]
    assert len(images) == 48 and set(images) == {f"photos/{row:05d}.png" for row in range(24)}


def test_text_of_the_data_stays_text(load):
    page = load()
    for name in ("hidden_texts", "hidden_groups", "concepts", "rejected", "images", "labels"):
        table(page, name)
        assert HOSTILE in page.locator("#table").inner_text()
    assert page.locator("#table tbody b").count() == 0
    assert HOSTILE in page.locator("#labels .verdict").inner_text()

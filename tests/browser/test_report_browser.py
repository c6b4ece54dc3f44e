"""The page in a real browser: what is seen, pressed, sorted, filtered and asked for."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singflow.artifacts.tables import read_table
from tests.report.report_study import HOSTILE, flat


def shown_colour(tile):
    """The colour in the middle of a thumbnail on the screen."""
    image = Image.open(io.BytesIO(tile.screenshot())).convert("RGB")
    return image.getpixel((image.width // 2, image.height // 2))


def near(colour, number):
    """WebP keeps colours roughly."""
    return all(abs(a - b) <= 12 for a, b in zip(colour, flat(number).getpixel((0, 0)), strict=True))


def shows(page, table, place, texts):
    """Wait until a column of a table holds these texts (DataTables redraws after the event)."""
    from playwright.sync_api import expect

    expect(page.locator(f"#{table} tbody tr td:nth-child({place})")).to_have_text(texts)


def hover(page, trace, point):
    """Move the mouse over a point of the scatter chart."""
    x, y = page.evaluate(
        """([trace, point]) => {
            const chart = document.getElementById("scatter-1"), box = chart.getBoundingClientRect(), layout = chart._fullLayout;
            const data = chart._fullData[trace];
            return [box.x + layout.xaxis._offset + layout.xaxis.d2p(data.x[point]),
                    box.y + layout.yaxis._offset + layout.yaxis.d2p(data.y[point])];
        }""",  # noqa: E501
        [trace, point],
    )
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)


def test_hover_on_a_point_shows_its_photo_with_those_before_and_after(load):
    page = load()
    page.locator("#scatter-1").scroll_into_view_if_needed()
    for trace, point in ((0, 5), (1, 17)):
        hover(page, trace, point)
        page.wait_for_selector(f"#card .tile[data-position='{point}']")
        tiles = page.locator("#card .tile").all()
        wanted = [point, point + 1, point + 2]
        assert [int(tile.get_attribute("data-position")) for tile in tiles] == wanted
        assert all(
            near(shown_colour(tile), place) for tile, place in zip(tiles, wanted, strict=True)
        )
        text = page.locator("#card").inner_text()
        for said in (
            f"m{trace + 1}",
            f"photos/{point:05d}.png",
            "nearest photo before null removal, 30° away",
            "nearest photo after null removal, 41.5° away",
        ):
            assert said in text


@pytest.mark.parametrize("webgl", [True, False])
def test_hover_works_on_thousands_of_points_with_and_without_webgl(load, crowded, webgl):
    page = load(at=crowded, webgl=webgl)
    page.locator("#scatter-1").scroll_into_view_if_needed()
    chart = "document.getElementById('scatter-1')"
    drawn = page.evaluate("Boolean(document.createElement('canvas').getContext('webgl'))")
    assert page.evaluate(f"{chart}.data[0].type") == ("scattergl" if drawn else "scatter")
    lonely = page.evaluate(f"(x => x.indexOf(Math.max(...x)))({chart}._fullData[1].x)")
    hover(page, 1, lonely)
    page.wait_for_selector(f"#card .tile[data-position='{lonely}']")
    assert near(shown_colour(page.locator("#card .tile").first), lonely)


def test_no_button_sends_a_chart_away(load):
    buttons = load().locator(".modebar-btn")
    titles = buttons.evaluate_all("buttons => buttons.map(button => button.dataset.title)")
    assert titles and not any("share" in title.lower() for title in titles)


def test_the_card_opens_from_the_keyboard_and_says_where_there_is_no_other_photo(load):
    page = load()
    page.locator("#t-images_wrapper input[type=search]").first.fill("photos/00000.png")
    button = page.locator("#t-images tbody button").first
    for _ in range(30):
        page.keyboard.press("Tab")
        if button.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.press("Enter")
    assert near(shown_colour(page.locator("#card .tile").first), 0)
    assert "no other photo" in page.locator("#card").inner_text()


def test_tables_sort_and_filter(load):
    page = load()
    header = page.locator("#t-models thead th", has_text="IS (°)").first
    header.click()
    shows(page, "t-models", 1, ["m1", "m2"])
    header.click()
    shows(page, "t-models", 1, ["m2", "m1"])
    page.get_by_label("filter label", exact=True).first.fill("teapot")
    shows(page, "t-labels", 2, ["teapot", "teapot"])
    assert page.locator("#t-images tbody tr").count() == 10


def test_the_contents_lead_to_every_section_and_the_last_one_to_the_page_of_the_run_and_back(load):
    width = 375
    page, title = load(width), "Hardware, times and memory of this run"
    report, links = page.url, page.locator("nav a")
    assert links.last.inner_text() == "Provenance"
    for link in links.all():
        link.click()
        assert page.locator("section:target h2").is_visible()
    page.get_by_role("link", name=title).click()
    assert page.url.endswith("/logs/run.html") and page.locator("h1").inner_text() == title
    row = page.locator("tbody tr").inner_text()
    assert row.split() == ["summarize", "1", "1.25", "1.25", "300.5"]
    assert page.locator("main").bounding_box()["width"] > 0.5 * min(width, 1152)
    check_width_and_access(page, width)
    page.get_by_role("link", name="The page that holds the study").click()
    assert page.url == report.partition("#")[0]


def check_width_and_access(page, width):
    """The page is no wider than its screen, and axe finds nothing serious."""
    from axe_playwright_python.sync_playwright import Axe

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": rules}).response["violations"]
    grave = [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["any"]) for v in grave] == []


def test_the_verdicts_are_read_at_390_pixels_and_their_picture_stays_within(load):
    page = load(390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sentences = page.locator(".verdict li")
    assert [text.split(":")[0] for text in sentences.all_inner_texts()] == ["m1", "m2"]
    for part in [*sentences.all(), *page.locator(".picture p, .picture span, .below p").all()]:
        box = part.bounding_box()
        assert part.is_visible() and box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert float(part.evaluate("node => parseFloat(getComputedStyle(node).fontSize)")) >= 12


@pytest.mark.parametrize("width", [375, 1440])
def test_the_page_is_dark_where_the_readers_system_is_and_charts_follow_a_change(load, width):
    """In light and in dark, it is no wider than the screen, and axe finds nothing serious."""
    page = load(width)
    page.locator("#t-images tbody button").first.click()
    check_width_and_access(page, width)
    body = "getComputedStyle(document.body)"
    ink, paper = f"{body}.color", f"{body}.backgroundColor"
    drawn = "document.getElementById('scatter-1')._fullLayout.font.color"
    assert (page.evaluate(paper), page.evaluate(drawn)) == ("rgb(255, 255, 255)", "#1b1f24")
    page.emulate_media(color_scheme="dark")
    try:
        page.wait_for_function(f"{drawn} === '#e3e7ec'")
        assert page.evaluate(paper) == "rgb(20, 23, 27)"
        assert page.evaluate(ink) == "rgb(227, 231, 236)"
        shot = Image.open(io.BytesIO(page.locator("#scatter-1").screenshot())).convert("L")
        assert np.median(np.asarray(shot)) < 40  # of 255
        check_width_and_access(page, width)
    finally:
        page.emulate_media(color_scheme="light")


def saved(page, name):
    """Rows of the CSV that a button saves, by column."""
    with page.expect_download() as download:
        page.locator(f"button[data-csv='d-{name}']").click()
    assert download.value.suggested_filename == f"{name}.csv"
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_table_and_the_picture_are_saved_as_csv_with_the_numbers_of_the_study(load, address):
    page, tables = load(), Path(address.removeprefix("file://")).parent / "tables"
    models = read_table(tables / "models.csv").set_index("model")
    scores = ["unique_r2", "unique_r2_low", "unique_r2_high", "margin", "detectable", "turn_deg"]
    for row in saved(page, "verdicts-s"):
        for name in (*scores, "is_mean", "floor_is_mean"):
            assert float(row[name]) == pytest.approx(models.loc[row["model"], name], rel=1e-3), name
    labels = {row["label"] for row in saved(page, "labels")}
    assert labels == set(read_table(tables / "labels.csv")["label"]) and HOSTILE in labels
    images = [row["file"] for row in saved(page, "images")]
    assert len(images) == 48 and set(images) == {f"photos/{row:05d}.png" for row in range(24)}
    shown = {table.get_attribute("id")[2:] for table in page.locator("table[id]").all()}
    buttons = page.locator("button[data-csv]").all()
    assert shown | {"verdicts-s"} == {button.get_attribute("data-csv")[2:] for button in buttons}


def test_text_of_the_data_stays_text(load):
    page = load()
    for name in ("labels", "hidden_texts", "hidden_groups", "concepts", "rejected", "images"):
        assert HOSTILE in page.locator(f"#t-{name}").inner_text()
    assert page.locator("#t-labels tbody b").count() == 0
    page.get_by_label("filter label", exact=True).first.fill("01")
    shows(page, "t-labels", 2, ["01", "01"])


def test_a_figure_opens_in_full_size_and_closes_again(load):
    page = load(375)
    fitted = page.locator("#fig5 img").bounding_box()["width"]
    page.locator("#fig5 a.full").click()
    assert page.locator("#fig5 img").bounding_box()["width"] > fitted
    page.locator("#fig5 a.fit").click()
    assert page.locator("#fig5 img").bounding_box()["width"] == fitted

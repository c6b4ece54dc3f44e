"""README and docs: links, the gallery, and the places of the tests."""

import re
import runpy

from singflow.artifacts.catalog import FIGURES
from tests.project import ROOT

MOST = 60_000  # bytes of a picture


def test_the_gallery_shows_every_figure_in_a_small_picture():
    made = runpy.run_path(str(ROOT / "docs/gallery.py"))["page"]()
    told = "run `python docs/gallery.py results/<study>`"
    assert (ROOT / "docs/gallery.md").read_text(encoding="utf-8") == made, told
    pictures = list((ROOT / "docs/gallery").glob("*/*.webp"))
    undrawn = {"fig4"}  # it needs a label of three images
    assert {picture.stem for picture in pictures} | undrawn == set(FIGURES), told
    assert max(picture.stat().st_size for picture in pictures) <= MOST


def test_the_readme_links_to_every_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(docs/([\w-]+\.md)\)", readme))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == linked


def anchors(page):
    """Anchors of a page's headings, as they are made on GitHub."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            if not name.startswith("https://"):
                target = page.parent / name if name else page
                assert target.is_file(), (page.name, link)
                assert not anchor or anchor in anchors(target), (page.name, link)


def test_the_tests_that_the_pages_name_are_there():
    pages = [(ROOT / page).read_text("utf-8") for page in ("docs/testing.md", "CONTRIBUTING.md")]
    named = re.findall(r"`(?:.* )?(tests/[\w/.]+\w)`", "".join(pages))
    assert len(named) > 5 and [path for path in named if not (ROOT / path).exists()] == []


def test_the_pages_are_short():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    assert sum(len(page.read_text(encoding="utf-8").split()) for page in pages) <= 18_000

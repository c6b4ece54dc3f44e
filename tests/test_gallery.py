"""docs/gallery.md against the captions and the figures of a study."""

import runpy

from singflow.artifacts.catalog import FIGURES
from tests.project import ROOT

MOST = 60_000  # bytes of a picture


def test_the_gallery_shows_every_figure_in_a_small_picture():
    made = runpy.run_path(str(ROOT / "docs/gallery.py"))["page"]()
    told = "run `python docs/gallery.py results/<study>`"
    assert (ROOT / "docs/gallery.md").read_text(encoding="utf-8") == made, told
    pictures = list((ROOT / "docs/gallery").glob("*/*.webp"))
    assert sorted(picture.stem for picture in pictures) == sorted(FIGURES), told
    assert max(picture.stat().st_size for picture in pictures) <= MOST

"""Make docs/gallery.md from the captions of figures, and its pictures from finished studies.

python docs/gallery.py results/paper_demo
"""

import io
import re
import sys
from pathlib import Path

from PIL import Image

from singflow.artifacts.catalog import FIGURES, NEEDS
from singflow.artifacts.files import write_bytes
from singflow.config.reading import read_yaml

DOCS = Path(__file__).parent
REPORT = DOCS.parent / "report"
SHOWN = read_yaml(REPORT / "page.yaml")
PICTURES, PER_INCH = DOCS / "gallery", 100
HEAD = """# Gallery

The figures of the study `paper_demo`: `singflow study paper_demo && singflow run` makes them all.
`singflow run results/paper_demo/figures/fig3.png` makes one. Figures 1 and 3 and the hidden texts
are in the demo, too. Every figure says in bold what it finds. A study writes each figure as PNG,
PDF and SVG, 3.4 inches (a column) or 7 inches (a page) wide. A figure that has nothing to show is
not drawn: the page of the study says what it needs.
"""


def page() -> str:
    """The page: a section for each figure that has a picture."""
    return HEAD + "".join(
        section(picture) for name in FIGURES for picture in PICTURES.glob(f"*/{name}.webp")
    )


def section(picture: Path) -> str:
    """Title, first sentence and reading of a figure's caption, and its picture."""
    name = picture.stem
    text = (REPORT / f"captions/{name}.rst").read_text(encoding="utf-8")
    about, how = " ".join(text.split()).split(" How to read it: ")
    title = next(of[name] for of in SHOWN["figures"].values() if name in of)
    first = re.split(r"(?<=[.])\s", about)[0]
    return f"""
## {title}

{first} How to read it: {how}

![{name}]({picture.relative_to(DOCS)})
"""


def shrink(results: Path) -> None:
    """Write pictures of the figures that a study has drawn and no other study has."""
    for drawn in results.glob("figures/*.png"):
        path = PICTURES / results.name / f"{drawn.stem}.webp"
        with Image.open(drawn) as figure:
            if NEEDS in figure.text or set(PICTURES.glob(f"*/{drawn.stem}.webp")) - {path}:
                continue
            scale = PER_INCH / (figure.info["dpi"][0])
            sides = round(scale * figure.width), round(scale * figure.height)
            small, buffer = (
                figure.convert("RGB").resize(sides, Image.Resampling.LANCZOS),
                io.BytesIO(),
            )
            small.save(buffer, "WEBP", quality=60, method=6)
        write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        shrink(Path(folder))
    write_bytes(DOCS / "gallery.md", page().encode())

"""Write the list of docs/artifacts.md from the catalog of artifacts.

python docs/artifacts.py [--check]
"""

import re
import sys
import textwrap
from pathlib import Path

from singflow.artifacts.catalog import CATALOG

PAGE = Path(__file__).with_name("artifacts.md")


def line(name: str, about: str) -> str:
    """An artifact in the list."""
    wrapped = textwrap.wrap(
        f"- `{name}`: {about}", 150, subsequent_indent="  ", break_on_hyphens=False
    )
    return "".join(f"{line}\n" for line in wrapped)


def with_list(text: str) -> str:
    """The text of the page with all artifacts."""
    listed = [
        line(artifact.path.replace("{", "<").replace("}", ">"), artifact.about)
        for artifact in CATALOG.values()
        if artifact.about
    ]
    return re.sub(r"(?<=by `make derived` -->\n\n)([- ] .*\n)*", lambda _: "".join(listed), text)


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = with_list(before)
    if "--check" not in sys.argv:
        PAGE.write_text(after, encoding="utf-8")
    elif after != before:
        sys.exit(f"{PAGE}: is not what the catalog says: `python docs/artifacts.py` writes it")

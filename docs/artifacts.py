"""Write the lists of docs/artifacts.md from the catalog of artifacts.

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


def with_lists(text: str) -> str:
    """The text of the page with all artifacts."""
    tables, others = [], []
    for artifact in CATALOG.values():
        path = Path(artifact.path)
        if path.match("tables/*.csv"):
            tables.append(line(path.name, artifact.about))
        elif artifact.about:
            place = artifact.path.replace("{", "<").replace("}", ">")
            others.append(line(place, artifact.about))
    for name, rows in (("files", others), ("tables", tables)):
        start = f"<!-- {name}, by `make derived` -->\n\n"
        text = re.sub(rf"{re.escape(start)}([- ] .*\n)*", lambda _: start + "".join(rows), text)  # noqa: B023
    return text


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = with_lists(before)
    if "--check" not in sys.argv:
        PAGE.write_text(after, encoding="utf-8")
    elif after != before:
        sys.exit(f"{PAGE}: is not what the catalog says: `python docs/artifacts.py` writes it")

"""Write the tables of docs/artifacts.md from the catalog of artifacts.

python docs/artifacts.py [--check]
"""

import re
import sys
from pathlib import Path

from singflow.artifacts.catalog import CATALOG, COMPUTED
from singflow.sharing.verification import ENDS

PAGE = Path(__file__).with_name("artifacts.md")


def with_tables(text: str) -> str:
    """The text of the page with rows for all artifacts."""
    tables, others = [], []
    for artifact in CATALOG.values():
        path, about = Path(artifact.path), artifact.about.replace("|", r"\|")
        within = "{:g}, {:g}".format(*artifact.within) if any(artifact.within) else "0"
        if artifact.within == COMPUTED:
            within = "bytes" if path.suffix in ENDS else ""
        if path.match("tables/*.csv"):
            tables.append(f"| `{path.name}` | {about} | {within} |\n")
        elif about:
            place = artifact.path.replace("{", "<").replace("}", ">")
            others.append(f"| `{place}` | {about} | {within} |\n")
    for header, rows in (("path | content", others), ("table | one row is", tables)):
        start = f"| {header} | tolerance |\n| --- | --- | --- |\n"
        text = re.sub(rf"{re.escape(start)}(\|.*\n)*", lambda _: start + "".join(rows), text)  # noqa: B023
    return text


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = with_tables(before)
    if "--check" not in sys.argv:
        PAGE.write_text(after, encoding="utf-8")
    elif after != before:
        sys.exit(f"{PAGE}: is not what the catalog says: `python docs/artifacts.py` writes it")

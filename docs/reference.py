"""Write docs/reference.md, the public names with their docstrings; --check only compares."""

import re
import sys
from pathlib import Path

import griffe
from griffe2md import render_object_docs

import singflow

PAGE = Path(__file__).with_suffix(".md")
LOOK = {
    "docstring_style": "numpy",
    "show_submodules": False,
    "show_root_full_path": False,
    "show_root_members_full_path": False,
    "show_object_full_path": False,
    "show_if_no_docstring": False,
    "show_bases": False,
    "inherited_members": False,
    "members_order": "source",
    "line_length": 100,
    "heading_level": 2,
}
HEAD = """# Reference

The public names of `import singflow`, from their docstrings, by `python docs/reference.py`.
[api.md](api.md) shows how to use them.
"""


def page() -> str:
    package = griffe.load("singflow", docstring_parser="numpy")
    parts = [HEAD]
    for module, names in singflow._PUBLIC.items():
        parts += [str(render_object_docs(package[f"{module}.{name}"], LOOK)) for name in names]
    text = "\n".join(parts)
    text = re.sub(r"\[(\*{0,2}\w+\*{0,2})\]\(#[\w.]*\)", r"\1", text)  # links into this page
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE}: is not that of the docstrings: run python {__file__}")

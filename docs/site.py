"""Hooks of MkDocs: what pages link to outside of docs/ is part of the site."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
LINK = re.compile(r"(?<=\]\()\.\./([\w./-]+)")


@event_priority(100)  # before the plugin that shows notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
    for name in sorted(set(LINK.findall(text))):
        folders = str(DOCS.parent), config.site_dir
        files.append(File(name, *folders, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    return LINK.sub(r"\1", markdown)

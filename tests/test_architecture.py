"""docs/architecture.md against the code: the rooms that it lists, and the files and steps that it names."""

import re
from graphlib import TopologicalSorter

import grimp
import yaml

from tests.project import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_every_room_is_on_the_page():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    listed = [room for row in rows for room in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(path.parent.name for path in (ROOT / "src/singflow").glob("*/__init__.py"))


def test_imports_have_no_circle(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "src")
    graph = grimp.build_graph("singflow", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(TopologicalSorter(imports).static_order())) == len(imports) > 60


def test_every_file_that_the_page_names_is_there():
    names = re.findall(r"`((?:\w+/)*[\w.-]*\.(?:py|smk|yaml|rst|md|html|toml))`|`(Snakefile|src/\w+/)`|\]\((\w+\.md)\)", PAGE)
    files = [file or place or f"docs/{link}" for file, place, link in names]
    assert len(files) > 15
    near = (ROOT, ROOT / "src/singflow")
    assert [file for file in files if not any((folder / file).exists() for folder in near)] == []


def test_every_step_in_the_picture_is_a_stage():
    steps = {step for arrow in re.findall(r"-->\|([^|]*)\|", PAGE) for step in re.findall(r"\w+", arrow)}
    assert len(steps) > 10
    assert steps <= set(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def test_the_readme_links_to_the_page():
    assert "(docs/architecture.md)" in (ROOT / "README.md").read_text(encoding="utf-8")

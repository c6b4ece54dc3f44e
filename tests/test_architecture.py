"""The pages for developers against the code: packages, files, steps, and what imports load."""

import re
import subprocess
import sys
from graphlib import TopologicalSorter

import grimp

from tests.project import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_every_room_is_on_the_page():
    rows = [line.split(":")[0] for line in PAGE.splitlines() if line.startswith("- `")]
    listed = [room for row in rows for room in re.findall(r"`(\w+)`", row)]
    rooms = (ROOT / "src/singflow").glob("*/__init__.py")
    assert sorted(listed) == sorted(path.parent.name for path in rooms)


def test_imports_have_no_circle(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "src")
    graph = grimp.build_graph("singflow", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(TopologicalSorter(imports).static_order())) == len(imports) > 60


HEAVY = {
    *("torch", "timm", "open_clip", "transformers", "diffusers", "sklearn", "matplotlib"),
    *("snakemake", "dvc"),
}
STEPS = f"""
import runpy, sys
from pathlib import Path
for step in sorted(Path("scripts").glob("*.py")):
    runpy.run_path(str(step), run_name="imported")
    print(step.stem, *{HEAVY} & set(sys.modules))
"""


def test_no_step_loads_a_heavy_library_before_it_uses_it():
    options = {"cwd": ROOT, "env": {"PYTHONPATH": str(ROOT / "src")}, "check": True}
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    steps = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
    drawn = {"write_report": "write_report matplotlib"}  # the page has a figure of D
    assert done.stdout.splitlines() == [drawn.get(step, step) for step in steps]

"""docs/architecture.md against the code: the layers that it lists, and the files and steps that it names."""

import re

import pytest
import yaml

from singflow.dependencies import imported
from tests.project import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")][1:]
LAYERS = {layer: re.findall(r"`(\w+)`", modules) for layer, modules, _ in ROWS[1:]}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}
ZOO = {"torch", "torchvision", "timm", "open_clip", "transformers", "diffusers", "sentence_transformers", "huggingface_hub"}
PURE = {
    "__future__",
    "numpy",
    "pandas",
    "scipy",
    "faiss",
    "collections",
    "dataclasses",
    "difflib",
    "functools",
    "hashlib",
    "itertools",
    "math",
    "typing",
}


def imports(module):
    """Modules of the package, and first names of other packages, that a module imports anywhere in it."""
    names = imported(ROOT / f"src/singflow/{module}.py")
    return {name.split(".")[1] for name in names if name.startswith("singflow.")} & set(LAYER_OF), {name.split(".")[0] for name in names}


def test_every_module_is_in_one_layer_of_the_page():
    listed = [module for modules in LAYERS.values() for module in modules]
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "src/singflow").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", LAYER_OF)
def test_a_module_imports_only_its_layer_and_those_above(module):
    own, others = imports(module)
    layer = LAYER_OF[module]
    above = list(LAYERS)[: list(LAYERS).index(layer) + 1]
    allowed = {"errors", *LAYERS["core"]} if layer == "core" else {each for each in LAYER_OF if LAYER_OF[each] in above}
    assert own <= allowed
    assert "scripts" not in others
    if layer == "core":
        assert others <= {*PURE, "singflow"}
    if layer in ("study", "files"):
        assert not others & ZOO


def test_no_import_is_relative():
    """They are not followed by code_files()."""
    files = [*(ROOT / "src/singflow").glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    assert [file for file in files if re.search(r"^\s*from\s+\.", file.read_text(encoding="utf-8"), re.MULTILINE)] == []


def test_every_file_that_the_page_names_is_there():
    names = re.findall(r"`((?:\w+/)*[\w.-]*\.(?:py|smk|yaml|rst|md|html|json))`|`(Snakefile|\w+/)`|\]\((\w+\.md)\)", PAGE)
    files = [file or place or f"docs/{link}" for file, place, link in names]
    assert len(files) > 20
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_step_in_the_picture_is_a_stage():
    steps = {step for arrow in re.findall(r"-->\|([^|]*)\|", PAGE) for step in re.findall(r"\w+", arrow)}
    assert len(steps) > 10
    assert steps <= set(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def test_the_readme_links_to_the_page():
    assert "(docs/architecture.md)" in (ROOT / "README.md").read_text(encoding="utf-8")

"""Numpydoc sections stand where readers need them: in what users import and in mathematics."""

import ast
import inspect
import re

import pytest

import singflow
from tests.project import ROOT

PACKAGE = ROOT / "src/singflow"
MATHEMATICS = ("analyses", "translators")  # the only folders in which functions may have sections
PUBLIC = {
    (inspect.getsourcefile(item).rpartition("/")[2], item.__name__)
    for item in (getattr(singflow, name) for name in singflow.__all__)
    if inspect.isclass(item) or inspect.isfunction(item)
}


def sections(docstring):
    """Text of every section of a docstring, by title."""
    parts = re.split(r"^([A-Z][a-z ]+)\n-{3,}$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def arguments(node):
    """Names of a function's parameters."""
    named = [argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
    return [name for name in named if name not in ("self", "cls")]


def gaps(node, said):
    """What the sections of a function's docstring leave out."""
    listed = re.findall(r"^(\*{0,2}\w[\w, *]*?)(?: : .*)?$", said.get("Parameters", ""), flags=re.M)
    documented = {name.strip().lstrip("*") for line in listed for name in line.split(",")}
    missing = [f"no parameter {name}" for name in arguments(node) if name not in documented]
    returns = node.returns is not None and ast.unparse(node.returns) not in ("None", "NoReturn")
    is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    if returns and not is_property and not said.keys() & {"Returns", "Yields"}:
        missing.append("no Returns")
    raised = re.findall(r"raise (InputError|ValueError)\(", ast.unparse(node))
    return missing + [
        f"no Raises of {name}" for name in raised if name not in said.get("Raises", "")
    ]


def complaints(path):
    """Misplaced sections, public functions without sections, and incomplete sections."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    functions = [
        (getattr(owner, "name", node.name), node)
        for owner in owners
        for node in owner.body
        if isinstance(node, ast.FunctionDef)
    ]
    found = []
    for owner, node in functions:
        said = sections(ast.get_docstring(node) or "")
        public = (path.name, owner) in PUBLIC and not node.name.startswith("_")
        where = f"{path.name}:{node.lineno} {node.name}"
        if said and not public and path.parent.name not in MATHEMATICS:
            found.append(f"{where}: sections outside of the public interface and of mathematics")
        elif public and not said and arguments(node):
            found.append(f"{where}: public, and without sections")
        elif said:
            found += [f"{where}: {gap}" for gap in gaps(node, said)]
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_sections_stand_where_readers_need_them_and_are_complete(path):
    assert complaints(path) == []

"""What users import says what it takes, gives and raises, in numpydoc sections. So does what has one section. The rest has a sentence."""

import ast
import inspect
import re

import pytest

import singflow
from tests.project import ROOT

PACKAGE = ROOT / "src/singflow"


IMPORTED = {
    (inspect.getsourcefile(each).rpartition("/")[2], each.__name__)
    for each in (getattr(singflow, name) for name in singflow.__all__)
    if inspect.isclass(each) or inspect.isfunction(each)
}


def sections(docstring):
    """Text of every section of a docstring, by title."""
    parts = re.split(r"^([A-Z][a-z ]+)\n-{3,}$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def lacking(path):
    """What the docstrings of a module's public functions, and of the public methods of its public classes, do not say."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    functions = [("", node) for node in tree.body] + [
        (f"{each.name}.", node) for each in classes for node in each.body
    ]
    for owner, node in functions:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        words = ast.get_docstring(node) or ""
        said = sections(words)
        if not words or (
            not said and (path.name, (owner or node.name).rstrip(".")) not in IMPORTED
        ):
            found += (
                [] if words else [f"{path.name}:{node.lineno} {owner}{node.name}: no docstring"]
            )
            continue
        arguments = (
            node.args.posonlyargs
            + node.args.args
            + node.args.kwonlyargs
            + [each for each in (node.args.vararg, node.args.kwarg) if each]
        )
        names = [each.arg for each in arguments if each.arg not in ("self", "cls")]
        documented = {
            name.strip().lstrip("*")
            for line in re.findall(
                r"^(\*{0,2}\w[\w, *]*?)(?: : .*)?$", said.get("Parameters", ""), flags=re.MULTILINE
            )
            for name in line.split(",")
        }
        wrong = [f"no parameter {name}" for name in names if name not in documented]
        gives = node.returns is not None and ast.unparse(node.returns) not in ("None", "NoReturn")
        is_property = any("property" in ast.unparse(each) for each in node.decorator_list)
        if gives and not is_property and not said.keys() & {"Returns", "Yields"}:
            wrong.append("no Returns")
        raised = {
            ast.unparse(each.exc.func)
            for each in ast.walk(node)
            if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call)
        }
        wrong += [
            f"no Raises of {name}"
            for name in raised & {"InputError", "ValueError"}
            if name not in said.get("Raises", "")
        ]
        found += [f"{path.name}:{node.lineno} {owner}{node.name}: {each}" for each in wrong]
    return found


COMMANDS = PACKAGE / "commands"  # whose docstrings and options are what `singflow --help` says


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != COMMANDS],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_public_functions_have_the_sections_of_numpydoc(path):
    assert lacking(path) == []

"""Digests of the code of steps: a step runs again if its own code changes."""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# Reads, writes and checks for all steps, and computes nothing: a change of it re-runs none.
SHARED = (
    *("artifacts", "cli", "config", "errors", "evidence", "extras", "parallel"),
    *("results", "study", "system"),
)
COUNTED = ("artifacts.tensors",)  # of these: numbers depend on it
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def step_files(root: Path = Path()) -> dict[str, Path]:
    """The program of every step: a script of this checkout, or a module of figures."""
    files = [*(root / "scripts").glob("*.py"), *(PACKAGE / "figures").glob("plot_*.py")]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def modules_of(program: Path) -> list[str]:
    """Sorted names of the modules that a program imports, transitively, without those of SHARED."""
    tree, found = ast.parse(program.read_text(encoding="utf-8")), set[str]()
    waiting = {name for node in ast.walk(tree) for name in _imported(node)} & _graph().modules
    while waiting := {name for name in waiting - found if _counts(name)}:
        found |= waiting
        waiting = set().union(*map(_graph().find_modules_directly_imported_by, waiting))
    return sorted(found)


@cache
def digest_of(program: Path) -> str:
    """SHA-256 (hexadecimal) of a program and of its modules, the same for every Python.

    Comments, docstrings, descriptions of parameters and formatting do not count.
    """
    places = [PACKAGE.joinpath(*name.split(".")[1:]) for name in modules_of(program)]
    files = [place / "__init__.py" if place.is_dir() else f"{place}.py" for place in places]
    return hashlib.sha256("\n".join(map(_content, [program, *files])).encode()).hexdigest()


@cache
def _graph() -> Any:
    import grimp

    return grimp.build_graph("singflow", cache_dir=None, exclude_type_checking_imports=True)


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module, names):
            return [f"{module}", *(f"{module}.{alias.name}" for alias in names)]
    return []


def _counts(module: str) -> bool:
    inner = module.partition(".")[2]
    return inner in COUNTED or inner.partition(".")[0] not in {"", *SHARED}


@cache
def _content(file: Path | str) -> str:
    return _text(ast.parse(Path(file).read_text(encoding="utf-8")))


def _text(node: object) -> str:
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
        node.body = node.body[1:]
    if isinstance(node, ast.keyword) and node.arg == "description":
        return ""
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return type(node).__name__ + "".join(f"({name}={_text(value)})" for name, value in fields)

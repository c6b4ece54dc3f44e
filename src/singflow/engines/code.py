"""Digests of the code that can change what a step writes; both engines track them."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import read_json, sha256_of, write_json
from singflow.config.reading import explain, read_yaml
from singflow.config.sections import Section, outside
from singflow.data import archives
from singflow.data.imported import source_fingerprint
from singflow.errors import InputError
from singflow.study import own_files, settle
from singflow.translators.reference import fingerprint

FILE = Path("results/code.json")
ACCEPTED = Path("config/accepted.yaml")
# Cached digests: computing them takes as long as everything else at a start.
KEPT = Path(".cache/code.json")
DIGEST = "^[0-9a-f]{64}$"
PACKAGE = "singflow"
# modules that can stop a step, and not change what it writes
CHECKS = {f"{PACKAGE}.study", f"{PACKAGE}.artifacts.catalog"}


class Acceptance(Section):
    """Says that artifacts made with one digest of a step's code are valid under another."""

    made_with: Annotated[str, Field(pattern=DIGEST)]
    accepted_for: Annotated[str, Field(pattern=DIGEST)]
    reason: str


def accepted_file(checkout: Path) -> Path:
    """The declarations that hold here: those of this folder, or else of the checkout."""
    return ACCEPTED if ACCEPTED.exists() else checkout / ACCEPTED


def read_accepted(file: Path) -> dict[str, Acceptance]:
    """The declarations in config/accepted.yaml, by step; empty if there is no such file."""
    accepted = {}
    for step, value in (read_yaml(file) if file.is_file() else {}).items():
        try:
            accepted[step] = Acceptance.model_validate(value)
        except ValidationError as error:
            raise InputError(explain(error, Acceptance, f"{file}: {step}")) from None
    return accepted


def step_files(root: Path = Path()) -> dict[str, Path]:
    """The program of every step of a checkout: a script, or the module of a figure."""
    figures = (root / "src" / PACKAGE / "figures").glob("plot_*.py")
    files = [*(root / "scripts").glob("*.py"), *figures]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


class Code:
    """The code of a checkout: its package in src/, and the programs of its steps."""

    def __init__(self, root: Path = Path(), accepted: Path | None = None) -> None:
        self._root, self._accepted = root, accepted or root / ACCEPTED
        self._modules: dict[str, _Module | None] = {}
        self._loaded: dict[str, list[_Part]] = {}

    @cached_property
    def accepted(self) -> dict[str, Acceptance]:
        """Declarations that `singflow accept` wrote, by step; InputError if the file is damaged."""
        accepted = read_accepted(self._accepted)
        for step in accepted.keys() - step_files(self._root).keys():
            raise InputError(
                f"{self._accepted}: {step}: no such step: correct its name, or remove it"
            )
        return accepted

    def computed(self) -> dict[str, str]:
        """The digest of the present code of every step."""
        return self._kept or {step: self._computed(step) for step in step_files(self._root)}

    def digests(self) -> dict[str, str]:
        """The result of digest() for every step."""
        return {step: self._made_with(step, digest) for step, digest in self.computed().items()}

    def digest(self, step: str) -> str:
        """The digest of a step's present code, or of older code whose artifacts were accepted."""
        return self._made_with(step, self._kept.get(step) or self._computed(step))

    @cached_property
    def _kept(self) -> dict[str, str]:
        """The result of computed(), kept in a file; empty if a source file cannot be parsed."""
        folders = self._root / "scripts", self._root / "src" / PACKAGE
        files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
        code = [f"{path.relative_to(self._root)} {sha256_of(path)}\n" for path in files]
        of = hashlib.sha256("".join([*code, sha256_of(Path(__file__))]).encode()).hexdigest()
        file = self._root / outside(str(KEPT))
        with suppress(InputError, KeyError):
            known = read_json(file)
            if known["of"] == of:
                return dict(known["digests"])
        with suppress(SyntaxError):
            digests = {step: self._computed(step) for step in step_files(self._root)}
            with suppress(OSError):
                write_json(file, {"of": of, "digests": digests})
            return digests
        return {}

    def _made_with(self, step: str, digest: str) -> str:
        known = self.accepted.get(step)
        return known.made_with if known and known.accepted_for == digest else digest

    def _computed(self, step: str) -> str:
        """SHA-256 (hexadecimal) of the code that a step reaches, the same for every Python version.

        A step reaches its program, the functions, classes and constants of the package that the
        program names, those that they name in turn, and the statements that run when one of their
        modules is loaded. These do not count: comments, docstrings, formatting, annotations outside
        classes, defaults and descriptions of fields, the position of a definition, and the modules
        in CHECKS.
        """
        waiting = list(_Module.read(step_files(self._root)[step]).parts)
        seen: set[int] = set()
        lines: set[str] = set()
        while waiting:
            part = waiting.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            lines.add(part.content)
            part.uses = list(self._uses(part)) if part.uses is None else part.uses
            for name, meaning in part.uses:
                if isinstance(meaning, str):
                    lines.add(f"{part.content} {name} {meaning}")
                else:
                    lines |= {f"{part.content} {name} {target.content}" for target in meaning}
                    waiting += meaning
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    def _uses(self, part: _Part) -> Iterator[tuple[str, list[_Part] | str]]:
        """The imported or defined names in a statement, and what _resolved() returns for them."""
        imports = part.module.imports | part.imports
        waiting: list[ast.AST] = [part.statement]
        while waiting:
            node = waiting.pop()
            match _dotted_name(node):
                case [name, *rest] if name in imports:
                    module, there = imports[name]
                    yield (
                        ".".join([name, *rest]),
                        self._resolved(module, [there, *rest] if there else rest),
                    )
                case [name] if name in part.module.named:
                    yield name, part.module.named[name]
                case _:
                    waiting += ast.iter_child_nodes(node)

    def _resolved(self, module: str, names: list[str]) -> list[_Part] | str:
        """The statements of this package that a dotted name means; its full name if of another."""
        if module.partition(".")[0] != PACKAGE:
            return ".".join([module, *names])
        while names and self._module(f"{module}.{names[0]}"):
            module, names = f"{module}.{names[0]}", names[1:]
        found = self._module(module)
        if module in CHECKS or not found:
            return []
        if names and names[0] in found.imports and names[0] not in found.named:
            source, there = found.imports[names[0]]
            return self._resolved(source, [there, *names[1:]] if there else names[1:])
        return self._loading(module) + found.named.get(names[0] if names else "", found.parts)

    def _loading(self, module: str) -> list[_Part]:
        """The statements that run when a module is loaded, with those of modules that it loads."""
        if module not in self._loaded:
            self._loaded[module] = []  # ends the recursion where modules import each other
            *above, last = map(self._module, accumulate(module.split("."), "{}.{}".format))
            parts = [part for loaded in (*above, last) if loaded for part in loaded.parts]
            targets = last.imports.values() if last else ()
            imported = [".".join(filter(None, target)) for target in targets]
            names = {
                name if self._module(name) else name.rpartition(".")[0]
                for name in imported
                if name.partition(".")[0] == PACKAGE
            }
            own = [part for part in parts if not _defined_names(part.statement)]
            imported_parts = [
                part for name in sorted(names - CHECKS) for part in self._loading(name)
            ]
            self._loaded[module] = own + imported_parts
        return self._loaded[module]

    def _module(self, name: str) -> _Module | None:
        """A module of the package; None if no file has this name."""
        if name not in self._modules:
            place = self._root.joinpath("src", *name.split("."))
            files = filter(Path.is_file, (place.with_suffix(".py"), place / "__init__.py"))
            self._modules[name] = next(map(_Module.read, files), None)
        return self._modules[name]


def write_digests(path: Path = FILE, params: Path = Path("params.yaml")) -> None:
    """Write the digests on which DVC's stages depend, besides files.

    There is one for the code of every step, the reference, the archives and the user's own files;
    null where the study has no such files, or cannot run here.
    """
    content = read_yaml(params) if params.is_file() else {}
    own = state = None
    with suppress(InputError):  # the study cannot run here
        files = own_files(*settle(content, str(params)))
        own = "".join(f"{file} {sha256_of(Path(file))}\n" for file in files)
        state = archives_of(content, Path("results", content["study"]))
    reference = fingerprint(content.get("translator", {}).get("reference"))
    others = {"reference": reference, "archives": state, "own_files": own}
    write_json(path, Code().digests() | others)


def archives_of(study: Mapping[str, Any], results: Path) -> str | None:
    """State of a study's archives (archives.state()) or of its imported features; else None."""
    data = study["data"]
    if data["source"] == "features":
        return source_fingerprint(outside(data["root"]))
    if data["source"] != "archive":
        return None
    return archives.state(outside(data["root"]), data["archives"], CATALOG["manifest"].at(results))


@dataclass
class _Module:
    """A source file.

    imports: name -> (module, name there). parts: all other statements. named: statements by the
    names that they define or change.
    """

    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    parts: list[_Part] = field(default_factory=list)
    named: dict[str, list[_Part]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _Module:
        module = cls()
        for statement in _Stripped().visit(ast.parse(path.read_text(encoding="utf-8"))).body:
            if imports := _imports(statement):
                module.imports |= imports
                continue
            part = _Part(module, statement)
            module.parts.append(part)
            for name in _defined_names(statement):
                module.named.setdefault(name, []).append(part)
        return module


@dataclass
class _Part:
    """A top-level statement of a module."""

    module: _Module
    statement: ast.stmt
    uses: list[tuple[str, list[_Part] | str]] | None = None  # known once a step reaches it

    @cached_property
    def content(self) -> str:
        return hashlib.sha256(_text(self.statement).encode()).hexdigest()

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None]]:
        """Imports inside the statement."""
        inner = map(_imports, ast.walk(self.statement))
        return {name: meaning for imports in inner for name, meaning in imports.items()}


class _Stripped(ast.NodeTransformer):
    """Removes from a syntax tree what cannot change a result."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        match node.test:
            case ast.Name("TYPE_CHECKING"):
                return None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = _without_docstring(node.body)
        for statement in node.body:
            match statement:
                # Steps get every value as a flag, so defaults do not count.
                case ast.AnnAssign(value=ast.Call(ast.Name("Field")) as call):
                    call.args = []
                    call.keywords = [word for word in call.keywords if word.arg != "description"]
                case ast.AnnAssign():
                    pass  # its annotation counts
                case _:
                    self.visit(statement)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.body, node.returns = _without_docstring(node.body), None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return self.visit(ast.Assign([node.target], node.value)) if node.value else None


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(ast.Constant(str())), *rest]:
            return rest
    return body


def _imports(node: ast.AST) -> dict[str, tuple[str, str | None]]:
    """The names that an import statement makes; empty for any other statement."""
    match node:
        case ast.ImportFrom(module, names):
            return {alias.asname or alias.name: (module or "", alias.name) for alias in names}
        case ast.Import(names):
            whole = [
                alias.name if alias.asname else alias.name.partition(".")[0] for alias in names
            ]
            return {
                alias.asname or name: (name, None) for alias, name in zip(names, whole, strict=True)
            }
    return {}


def _defined_names(statement: ast.stmt) -> set[str]:
    """Names that a statement defines or changes."""
    match statement:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            return {name}
        case ast.Assign(targets):
            pass
        case ast.AugAssign(target):
            targets = [target]
        case _:
            return set()
    nodes = [node for target in targets for node in ast.walk(target)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _dotted_name(node: ast.AST) -> list[str]:
    """The names of `a.b.c`; empty for any other expression."""
    match node:
        case ast.Name(name):
            return [name]
        case ast.Attribute(value, name) if above := _dotted_name(value):
            return [*above, name]
    return []


def _text(node: object) -> str:
    """A syntax tree as text, the same for every version of Python, without imports."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.expr_context():
            return ""
        case ast.Constant(value):
            return repr(value)
        case ast.AST():
            names = [name for name in node._fields if name != "type_comment"]
            fields = [(name, getattr(node, name, None)) for name in names]
            known = [f"{name}={_text(value)}" for name, value in fields if value not in (None, [])]
            return f"{type(node).__name__}({','.join(known)})"
        case list():
            return f"[{','.join(map(_text, node))}]"
    return repr(node)

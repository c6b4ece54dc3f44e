"""The code that can change what a step writes, as a digest, on which both engines let the step depend."""

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

from singflow.artifacts.files import read_json, sha256_of, write_json
from singflow.config.reading import explain, read_yaml
from singflow.config.sections import Section, outside
from singflow.config.study import own_files, settle
from singflow.data import archives
from singflow.errors import InputError
from singflow.translators.reference import fingerprint

FILE = Path("results/code.json")
ACCEPTED = Path("config/accepted.yaml")
KEPT = Path(
    ".cache/code.json"
)  # digests of the code that was here last, since to compute them takes as long as all else at a start
DIGEST = "^[0-9a-f]{64}$"
PACKAGE = "singflow"
CHECKS = {
    f"{PACKAGE}.config.study",
    f"{PACKAGE}.artifacts.contracts",
}  # modules that can stop a step, and not change what it writes


class Acceptance(Section):
    """Artifacts of a step that are declared valid under code which did not make them. made_with, accepted_for: digests of both."""

    made_with: Annotated[str, Field(pattern=DIGEST)]
    accepted_for: Annotated[str, Field(pattern=DIGEST)]
    reason: str


def read_accepted(file: Path) -> dict[str, Acceptance]:
    """What `singflow accept` declared."""
    try:
        return (
            {step: Acceptance.model_validate(each) for step, each in read_yaml(file).items()}
            if file.is_file()
            else {}
        )
    except ValidationError as error:
        raise InputError(explain(error, Acceptance, str(file))) from None


class Code:
    """The code of a checkout."""

    def __init__(self, root: Path = Path()) -> None:
        self._root = root
        self._modules: dict[str, _Module | None] = {}
        self._loaded: dict[str, list[_Part]] = {}

    @cached_property
    def accepted(self) -> dict[str, Acceptance]:
        """What `singflow accept` declared, by step. Raises InputError as read_accepted() does."""
        return read_accepted(self._root / ACCEPTED)

    def computed(self) -> dict[str, str]:
        """The digest of every step's code as it is."""
        return self._kept or {path.stem: self._computed(path.stem) for path in self._scripts()}

    def digests(self) -> dict[str, str]:
        """What computed() gives, with the digest of the code that made the artifacts where other code was accepted."""
        return {step: self._made_with(step, digest) for step, digest in self.computed().items()}

    def digest(self, step: str) -> str:
        """The digest on which a step depends: of its code, or where that was accepted of the code which made its artifacts."""
        return self._made_with(step, self._kept.get(step) or self._computed(step))

    def _scripts(self) -> list[Path]:
        return sorted((self._root / "scripts").glob("*.py"))

    @cached_property
    def _kept(self) -> dict[str, str]:
        """What computed() gives, out of a file as long as no code is another; nothing when a file of code cannot be parsed."""
        files = [*self._scripts(), *sorted((self._root / "src" / PACKAGE).rglob("*.py"))]
        code = [f"{path.relative_to(self._root)} {sha256_of(path)}\n" for path in files]
        of = hashlib.sha256("".join([*code, sha256_of(Path(__file__))]).encode()).hexdigest()
        file = self._root / outside(str(KEPT))
        with suppress(InputError, KeyError):
            known = read_json(file)
            if known["of"] == of:
                return dict(known["digests"])
        with suppress(SyntaxError):
            digests = {path.stem: self._computed(path.stem) for path in self._scripts()}
            with suppress(OSError):
                write_json(file, {"of": of, "digests": digests})
            return digests
        return {}

    def _made_with(self, step: str, digest: str) -> str:
        known = self.accepted.get(step)
        return known.made_with if known and known.accepted_for == digest else digest

    def _computed(self, step: str) -> str:
        """SHA-256, as hexadecimal digits, of the code that a step reaches. It is the same for every version of Python.

        What is reached: the script, the functions, classes and constants of the package that it names, those that they name, and
        so on, and statements that run when one of their modules is loaded. What does not count: comments, docstrings, formatting,
        annotations outside of classes, defaults and descriptions of fields, where a definition stands, and the modules of CHECKS.
        """
        waiting = list(_Module.read(self._root / f"scripts/{step}.py").parts)
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
        """Names in a statement that something else stands behind: the statements, or in another package the name there."""
        imports = part.module.imports | part.imports
        waiting: list[ast.AST] = [part.statement]
        while waiting:
            node = waiting.pop()
            match _chain(node):
                case [name, *rest] if name in imports:
                    module, there = imports[name]
                    yield (
                        ".".join([name, *rest]),
                        self._meant(module, [there, *rest] if there else rest),
                    )
                case [name] if name in part.module.named:
                    yield name, part.module.named[name]
                case _:
                    waiting += ast.iter_child_nodes(node)

    def _meant(self, module: str, names: list[str]) -> list[_Part] | str:
        """What names, each within the one before, mean in a module; with what runs when the module is loaded."""
        if module.partition(".")[0] != PACKAGE:
            return ".".join([module, *names])
        while names and self._module(f"{module}.{names[0]}"):
            module, names = f"{module}.{names[0]}", names[1:]
        found = self._module(module)
        if module in CHECKS or not found:
            return []
        if names and names[0] in found.imports and names[0] not in found.named:
            other, there = found.imports[names[0]]
            return self._meant(other, [there, *names[1:]] if there else names[1:])
        return self._loading(module) + (
            found.named.get(names[0], found.parts) if names else found.parts
        )

    def _loading(self, module: str) -> list[_Part]:
        """Statements that run when a module is loaded: its own, those of the folders above it, and of modules that these import."""
        if module not in self._loaded:
            self._loaded[module] = []  # modules that import each other end here
            own = [
                part
                for name in accumulate(module.split("."), "{}.{}".format)
                if (each := self._module(name))
                for part in each.on_loading
            ]
            found = self._module(module)
            imported = (
                [".".join(filter(None, each)) for each in found.imports.values()] if found else []
            )
            names = {
                name if self._module(name) else name.rpartition(".")[0]
                for name in imported
                if name.partition(".")[0] == PACKAGE
            }
            self._loaded[module] = own + [
                part for name in sorted(names - CHECKS) for part in self._loading(name)
            ]
        return self._loaded[module]

    def _module(self, name: str) -> _Module | None:
        """A module of the package; none where no file is one of that name."""
        if name not in self._modules:
            place = self._root.joinpath("src", *name.split("."))
            path = next(
                filter(Path.is_file, (place.with_suffix(".py"), place / "__init__.py")), None
            )
            self._modules[name] = _Module.read(path) if path else None
        return self._modules[name]


def write_digests(path: Path = FILE, params: Path = Path("params.yaml")) -> None:
    """Write what DVC's stages depend on besides files: digests of every step of this folder's checkout, reference, archives, own files."""
    content = read_yaml(params) if params.is_file() else {}
    own = state = None
    with suppress(InputError):  # of a study that cannot run here
        own = "".join(
            f"{file} {sha256_of(Path(file))}\n" for file in own_files(*settle(content, str(params)))
        )
        state = archives_of(content)
    others = {
        "reference": fingerprint(content.get("translator", {}).get("reference")),
        "archives": state,
        "own_files": own,
    }
    write_json(path, Code().digests() | others)


def archives_of(study: Mapping[str, Any]) -> str | None:
    """The state of a study's archives."""
    data = study["data"]
    if data["source"] != "archive":
        return None
    return archives.state(
        outside(data["root"]),
        data["archives"],
        Path("results", study["study"], "data/manifest.parquet"),
    )


@dataclass
class _Module:
    """A file: what it imports, as name -> (module, name there), and its other statements, in `named` by the names that they make."""

    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    parts: list[_Part] = field(default_factory=list)
    named: dict[str, list[_Part]] = field(default_factory=dict)
    on_loading: list[_Part] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> _Module:
        module = cls()
        for statement in _Plain().visit(ast.parse(path.read_text(encoding="utf-8"))).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                module.imports |= _imports(statement)
                continue
            part = _Part(module, statement)
            module.parts.append(part)
            for name in (names := _made(statement)):
                module.named.setdefault(name, []).append(part)
            if not names:
                module.on_loading.append(part)
        return module


@dataclass
class _Part:
    """A statement of a module."""

    module: _Module
    statement: ast.stmt
    uses: list[tuple[str, list[_Part] | str]] | None = (
        None  # what its names mean, once a step has reached it
    )

    @cached_property
    def content(self) -> str:
        return hashlib.sha256(_text(self.statement).encode()).hexdigest()

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None]]:
        """What is imported within the statement."""
        inner = (
            node
            for node in ast.walk(self.statement)
            if isinstance(node, ast.Import | ast.ImportFrom)
        )
        return {name: meaning for node in inner for name, meaning in _imports(node).items()}


class _Plain(ast.NodeTransformer):
    """Takes out of a syntax tree what changes no result."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [each for each in _without_docstring(node.body) if not _is_for_others(each)]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [
            self.visit(each) if not isinstance(each, ast.AnnAssign) else each
            for each in _without_docstring(node.body)
        ]
        for each in (inner for inner in node.body if isinstance(inner, ast.AnnAssign)):
            match each.value:
                case ast.Call(
                    ast.Name("Field")
                ) as call:  # steps are told every value, so that no default counts
                    call.args, call.keywords = (
                        [],
                        [keyword for keyword in call.keywords if keyword.arg != "description"],
                    )
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


def _is_for_others(statement: ast.stmt) -> bool:
    """Whether a statement is for type checkers."""
    match statement:
        case ast.If(ast.Name("TYPE_CHECKING")):
            return True
    return False


def _imports(node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str | None]]:
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name: (node.module or "", alias.name) for alias in node.names}
    return {
        alias.asname or alias.name.partition(".")[0]: (
            alias.name if alias.asname else alias.name.partition(".")[0],
            None,
        )
        for alias in node.names
    }


def _made(statement: ast.stmt) -> set[str]:
    """Names that a statement defines, or whose object it changes."""
    match statement:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            return {name}
        case ast.Assign(targets):
            return {
                node.id
                for target in targets
                for node in ast.walk(target)
                if isinstance(node, ast.Name)
            }
        case ast.AugAssign(target):
            return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
    return set()


def _chain(node: ast.AST) -> list[str]:
    """The names of `a.b.c`; empty for anything else."""
    match node:
        case ast.Name(name):
            return [name]
        case ast.Attribute(value, name) if above := _chain(value):
            return [*above, name]
    return []


def _text(node: object) -> str:
    """A syntax tree as text, without what versions of Python write differently, and without imports."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.expr_context():
            return ""
        case ast.Constant(value):
            return repr(value)
        case ast.AST():
            fields = (
                (name, getattr(node, name, None)) for name in node._fields if name != "type_comment"
            )
            return f"{type(node).__name__}({','.join(f'{name}={_text(value)}' for name, value in fields if value not in (None, []))})"
        case list():
            return f"[{','.join(map(_text, node))}]"
    return repr(node)

"""The code a script depends on, found from its imports, for both engines.

`python -m singflow.dependencies` writes the lists into dvc.yaml; Snakemake asks code_files() itself.
"""

import ast
from functools import cache
from pathlib import Path

PACKAGE = "src/singflow"


@cache
def imported(path: Path) -> frozenset[str]:
    """Every dotted name that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def _modules(path: Path, package: Path) -> set[Path]:
    """Modules of the package that a file imports."""
    found = set()
    for name in imported(path):
        head, *rest = name.split(".")
        if head == package.name:
            found.add(package.joinpath(*rest).with_suffix(".py") if rest else package / "__init__.py")
    return {file for file in found if file.is_file()}


def code_files(script: str, root: Path = Path()) -> list[str]:
    """The script and every module of the package that it reaches, as sorted paths relative to the repository."""
    package = root / PACKAGE
    reached: set[Path] = set()
    waiting = {root / "scripts" / f"{script}.py", package / "__init__.py"}
    while waiting:
        file = waiting.pop()
        reached.add(file)
        waiting |= _modules(file, package) - reached
    return sorted(str(file.relative_to(root)) for file in reached)


def needs_torch(script: str, root: Path = Path()) -> bool:
    """Whether the script or a module that it reaches imports torch, if only in a function."""
    return any("torch" in imported(root / file) for file in code_files(script, root))


def write_code_dependencies(dvc_file: Path) -> None:
    """Replace the code among each stage's deps in dvc.yaml by what its script imports today."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(dvc_file)
    for name, stage in pipeline["stages"].items():
        deps = stage.get("do", stage)["deps"]
        for old in [dep for dep in deps if str(dep).startswith((f"{PACKAGE}/", "scripts/"))]:
            deps.remove(old)
        deps.extend(code_files(name, dvc_file.parent))
    with dvc_file.open("w", encoding="utf-8") as file:
        yaml.dump(pipeline, file)


if __name__ == "__main__":
    write_code_dependencies(Path("dvc.yaml"))

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from singflow.commands.options import PARAMS
from singflow.errors import InputError

STUDIES = Path("config/studies")
WRITTEN = Path(".cache/studies")  # empty files with the SHA-256 of what this command wrote
NEEDED = {
    "study": "a name for its folder below results/, as in `study: mine`",
    "models": "the classifiers to look into, as in `models: [efficientnet_lite0]` (names of "
    "config/models.yaml, or timm/<name>.<tag>)",
}


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="A study of config/studies, or a file with keys of params.yaml; "
            "the rest are defaults."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The file that is written.")] = PARAMS,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit status 1 if the file differs.")
    ] = False,
) -> None:
    """Write a complete study into params.yaml, with an explanation of every key."""
    from singflow.artifacts.files import write_bytes
    from singflow.cli import log
    from singflow.config.reading import read_yaml
    from singflow.config.registry import MODELS, SPACES, resolve_models, resolve_spaces
    from singflow.planning.prospects import check_root, say_prospects
    from singflow.study import check as check_study
    from singflow.study import (
        check_beside_reference,
        choices_made,
        expand_home,
        losses,
        render_params,
        with_derived_keys,
    )
    from singflow.towers.weights import check_ids

    path = Path(name) if Path(name).suffix else STUDIES / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(path.stem for path in STUDIES.glob("*.yaml")))
        raise InputError(f"{path}: no such file: {STUDIES} has {there}")
    given = read_yaml(path)
    if absent := [key for key in NEEDED if not given.get(key)]:
        raise InputError(
            "\n".join(f"{path}: {key}: missing: write {NEEDED[key]}" for key in absent)
        )
    content = with_derived_keys(given)
    expand_home(content)
    checked = check_study(content, str(path))
    models = resolve_models(MODELS, checked.models, checked.weights, files=False)
    spaces = resolve_spaces(SPACES, checked.spaces, checked.weights, files=False)
    check_ids(models)
    ready = True
    try:
        check_beside_reference(checked, models, spaces)
    except InputError as error:  # the reference may be made later
        log.warning("a run of this study would be refused: %s", error)
        ready = False
    if path.parent != STUDIES:  # whose images may come later
        check_root(checked)
    text = render_params(content).encode()
    if not check:
        _keep(output, text)
        write_bytes(WRITTEN / hashlib.sha256(text).hexdigest(), b"")
        write_bytes(output, text)
        said = choices_made(given, content, models), losses(given, content, models, spaces)
        for words in filter(None, said):
            log.info("%s: %s", path, words)
        if ready:
            say_prospects(content, checked, models, str(path))
    elif not output.is_file() or output.read_bytes() != text:
        raise InputError(f"{output}: is not the study {name}: `singflow study {name}` writes it")


def _keep(file: Path, text: bytes) -> None:
    """Copy a file that is to be replaced by other values, if nothing else has what it holds.

    This command can write again what it has written, and git has the last commit.
    """
    from singflow.artifacts.files import write_bytes
    from singflow.cli import log
    from singflow.system import ask

    if not file.is_file() or (before := file.read_bytes()) == text:
        return
    digest = hashlib.sha256(before).hexdigest()
    committed = ask("git", "-C", str(file.parent), "show", f"HEAD:./{file.name}")
    if (WRITTEN / digest).exists() or committed.out.encode() == before:
        return
    copy = file.with_name(f"{file.stem}.{digest[:8]}{file.suffix}")
    write_bytes(copy, before)
    log.info("%s: the study that was there is kept in %s", file, copy)

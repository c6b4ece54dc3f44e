from pathlib import Path
from typing import Annotated

import typer

from singflow.commands.options import PARAMS
from singflow.errors import InputError

STUDIES = Path("config/studies")
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
    from singflow.study import check as check_study
    from singflow.study import (
        check_beside_reference,
        choices_made,
        expand_home,
        render_params,
        with_derived_keys,
    )

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
    entries = resolve_models(MODELS, checked.models, checked.weights, files=False)
    targets = resolve_spaces(SPACES, checked.spaces, checked.weights, files=False)
    try:
        check_beside_reference(checked, entries, targets)
    except InputError as error:  # the reference may be made later
        log.warning("a run of this study would be refused: %s", error)
    text = render_params(content).encode()
    if not check:
        write_bytes(output, text)
        if line := choices_made(given, content):
            log.info("%s: %s", path, line)
    elif not output.is_file() or output.read_bytes() != text:
        raise InputError(f"{output}: is not the study {name}: `singflow study {name}` writes it")

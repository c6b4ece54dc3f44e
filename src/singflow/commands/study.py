"""params.yaml, out of a study's differences from the defaults."""

from pathlib import Path
from typing import Annotated

import typer

from singflow.commands.options import PARAMS
from singflow.errors import InputError

STUDIES = Path("config/studies")


def study(
    name: Annotated[str, typer.Argument(help="A study of config/studies, or a file with keys of params.yaml; the rest are defaults.")],
    output: Annotated[Path, typer.Option(help="The file that is written.")] = PARAMS,
    check: Annotated[bool, typer.Option("--check", help="Write nothing: exit status 1 when the file is another.")] = False,
) -> None:
    """Write a study into params.yaml, complete, with what every key means."""
    from singflow.artifacts.files import write_bytes
    from singflow.config.reading import read_yaml
    from singflow.config.study import check as check_study
    from singflow.config.study import complete, expand_home, render

    path = Path(name) if Path(name).suffix else STUDIES / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"{path}: no such file: {STUDIES} has {', '.join(sorted(each.stem for each in STUDIES.glob('*.yaml')))}")
    content = complete(read_yaml(path))
    expand_home(content)
    check_study(content, str(path))
    text = render(content).encode()
    if not check:
        write_bytes(output, text)
    elif not output.is_file() or output.read_bytes() != text:
        raise InputError(f"{output}: is not the study {name}: `singflow study {name}` writes it")

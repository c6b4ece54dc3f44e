"""Declares finished artifacts valid under changed code, for both engines."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from singflow.artifacts.files import write_bytes
from singflow.config.reading import read_yaml
from singflow.engines.code import FILE, Acceptance, Code
from singflow.errors import InputError

HEAD = (
    "# Steps whose finished artifacts count as made by the code that is here now, as `singflow "
    "accept` writes them.\n"
)


def made_with(repo: Any, step: str) -> set[str]:
    """Digests (SHA-256) of the code that made a step's artifacts, as the engines recorded them."""
    from snakemake.io import IOFile
    from snakemake.persistence.file import FilePersistence

    persistence = FilePersistence(nolock=True, path=Path(".snakemake"))
    lock = read_yaml("dvc.lock").get("stages", {}) if Path("dvc.lock").is_file() else {}
    found: set[str] = set()
    for stage in repo.index.stages:
        if not stage.name or stage.name.partition("@")[0] != step:
            continue
        records = [persistence.metadata(IOFile(str(out))) for out in stage.outs]
        params = [text for record in records if record for text in record.params]
        found |= {text.strip("'") for text in params if re.fullmatch("'[0-9a-f]{64}'", text)}
        recorded = lock.get(stage.name, {}).get("params", {}).get(str(FILE), {}).get(step)
        if not params and recorded:
            found.add(recorded)
    return found


def accept(repo: Any, steps: Iterable[str], reason: str, file: Path) -> dict[str, Acceptance]:
    """Declare artifacts of steps valid under the code in this folder; earlier declarations stay.

    Returns the new declarations. A step whose artifacts already count as made by this code gets
    none.
    """
    code = Code()
    now = code.computed()
    known = code.accepted
    declared = {}
    for step in steps:
        if step not in now:
            raise InputError(f"{step}: no such step: dvc.yaml lists them")
        before = made_with(repo, step)
        if not before:
            raise InputError(f"{step}: nothing of it is finished")
        if len(before) > 1:
            raise InputError(
                f"{step}: artifacts of it were made by several versions of its code: run the older "
                "ones again"
            )
        (digest,) = before
        if digest != code.digest(step):
            declared[step] = Acceptance(made_with=digest, accepted_for=now[step], reason=reason)
    write_bytes(file, render_accepted(known | declared).encode())
    return declared


def render_accepted(accepted: dict[str, Acceptance]) -> str:
    """The text of config/accepted.yaml."""
    import yaml

    content = {step: acceptance.model_dump() for step, acceptance in sorted(accepted.items())}
    return HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

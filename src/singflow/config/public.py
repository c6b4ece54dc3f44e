"""A study as others may see it, without the paths of a machine."""

import io
from pathlib import Path

from singflow.config.reading import read_yaml

PATHS = (
    ("data", "root"),
    ("data", "table"),
    ("data", "classes"),
    ("concepts", "vocabulary"),
    ("prompts", "cache"),
)


def public_params(path: Path) -> tuple[bytes, list[str]]:
    """The text of params.yaml without the folders of one machine."""
    from ruamel.yaml import YAML

    params, cut = read_yaml(path), []
    for section, key in PATHS:
        value = params[section][key]
        if value is not None and archived(value) != Path(value).as_posix():
            cut.append(f"{section}.{key}")
    if not cut:
        return path.read_bytes(), cut
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    content, text = yaml.load(path), io.BytesIO()
    for name in cut:
        section, key = name.split(".")
        content[section][key] = archived(content[section][key])
    yaml.dump(content, text)
    return text.getvalue(), cut


def archived(path: str) -> str:
    """Where a file that params.yaml names lies in the archive: at its place, or at the top when that is outside the checkout."""
    parts = Path(path).expanduser()
    return parts.name if parts.is_absolute() or ".." in parts.parts else parts.as_posix()

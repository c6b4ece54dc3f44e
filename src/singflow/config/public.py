"""The params.yaml that others may see, without the paths of this machine."""

import io
from pathlib import Path

PATHS = (
    ("data", "root"),
    ("data", "table"),
    ("data", "classes"),
    ("concepts", "vocabulary"),
    ("prompts", "cache"),
    ("translator", "reference"),
)


def public_params(path: Path) -> tuple[bytes, list[str]]:
    """The content of params.yaml with shortened paths (archived()), and the keys of these paths."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    content, text, cut = yaml.load(path), io.BytesIO(), []
    for section, key in PATHS:
        value = content[section][key]
        if value is not None and archived(value) != Path(value).as_posix():
            content[section][key] = archived(value)
            cut.append(f"{section}.{key}")
    if not cut:
        return path.read_bytes(), cut
    yaml.dump(content, text)
    return text.getvalue(), cut


def archived(path: str) -> str:
    """Path of a file in the archive: a path that leads out of the checkout is cut to its name."""
    parts = Path(path).expanduser()
    return parts.name if parts.is_absolute() or ".." in parts.parts else parts.as_posix()

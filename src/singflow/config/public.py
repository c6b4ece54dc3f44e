"""The params.yaml that others may see, without the paths of this machine."""

import io
from pathlib import Path

PATHS = (
    ("data", "root"),
    ("data", "table"),
    ("data", "classes"),
    ("concepts", "vocabulary"),
    ("translator", "reference"),
)


def public_params(path: Path) -> str:
    """The content of params.yaml, in which paths that lead out of the checkout are shortened."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    content, text, cut = yaml.load(path), io.StringIO(), False
    for section, key in PATHS:
        value = content[section][key]
        if value is not None and shortened(value) != Path(value).as_posix():
            content[section][key], cut = shortened(value), True
    if not cut:
        return path.read_text(encoding="utf-8")
    yaml.dump(content, text)
    return text.getvalue()


def shortened(path: str) -> str:
    """A path that others may see: one that leads out of the checkout is cut to its name."""
    parts = Path(path).expanduser()
    return parts.name if parts.is_absolute() or ".." in parts.parts else parts.as_posix()

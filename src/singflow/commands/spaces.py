from pathlib import Path

from singflow.commands.options import AsJson, Spaces, print_entries


def spaces(spaces: Spaces = Path("config/spaces.yaml"), as_json: AsJson = False) -> None:
    """List the packaged spaces and your own, and whether their weights are on this machine."""
    from singflow.sharing.registries import listed_spaces

    print_entries(listed_spaces(spaces), as_json)

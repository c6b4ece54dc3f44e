from pathlib import Path

from singflow.commands.options import AsJson, Models, print_entries


def models(models: Models = Path("config/models.yaml"), as_json: AsJson = False) -> None:
    """List the packaged models and your own, and whether their weights are on this machine."""
    from singflow.sharing.registries import listed_models

    print_entries(listed_models(models), as_json)

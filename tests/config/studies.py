"""The project's params.yaml, and changes to it."""

import copy

from singflow.config.reading import read_yaml
from tests.project import ROOT

PARAMS = read_yaml(ROOT / "params.yaml")


def changed(changes):
    """params.yaml with values replaced, as {dotted place: value}."""
    study = copy.deepcopy(PARAMS)
    for place, value in changes.items():
        *section, key = place.split(".")
        (study[section[0]] if section else study)[key] = value
    return study

import pytest

from singflow.config.reading import read_yaml
from tests.project import ROOT


@pytest.fixture
def study(monkeypatch):
    """The demo, resolved relative to the project."""
    monkeypatch.chdir(ROOT)
    return read_yaml("params.yaml")

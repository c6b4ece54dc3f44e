from pathlib import Path

import pytest
import torch

from tests import refusals


@pytest.fixture(scope="module", autouse=True)
def threads():
    """As many as before, also if a step takes fewer."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    for name, value in (("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    return tmp_path / "hub"


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """PyTorch's cache in an empty folder: the folder of its files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """A call in an empty folder is refused in one line, and nothing in its input is run."""
    monkeypatch.chdir(tmp_path)

    def refused(said, call, *given):
        shown = refusals.refused(said, call, *given)
        assert len(shown) < 2000 and not set(shown) & {"\n", "\x1b"} and "weights_only" not in shown
        assert not Path("executed").exists()

    return refused

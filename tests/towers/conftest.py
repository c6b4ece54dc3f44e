import pytest
import torch


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

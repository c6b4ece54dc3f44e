import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def closed():
    """Figures that are looked at and not saved stay open otherwise."""
    yield
    plt.close("all")

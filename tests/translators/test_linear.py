import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from singflow.artifacts.tensors import write_tensors
from singflow.errors import InputError
from singflow.translators.linear import Translator


def test_a_written_translator_is_loaded_and_translates_as_the_tensors_that_another_library_reads(
    tmp_path,
):
    path = tmp_path / "linear.safetensors"
    generator = np.random.default_rng(0)
    tensors = {
        "weight": generator.standard_normal((4, 9)).astype(np.float32),
        "bias": generator.standard_normal(4).astype(np.float32),
    }
    write_tensors(path, tensors, {"kind": "linear"})
    features = generator.standard_normal((7, 9)).astype(np.float32)
    linear = torch.nn.Linear(9, 4)
    linear.load_state_dict(load_file(path))
    with torch.inference_mode():
        expected = linear(torch.from_numpy(features)).numpy()
        wide = linear.double()(torch.from_numpy(features).double()).numpy()
    assert Translator.load(path).weight.dtype == Translator.load(path).bias.dtype == np.float32
    np.testing.assert_allclose(Translator.load(str(path))(features), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        Translator.load(path).astype(np.float64)(features), wide, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("metadata", [{}, {"kind": "mlp3"}])
def test_only_a_linear_translator_is_loaded(tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    write_tensors(path, {"weight": np.ones((2, 3)), "bias": np.ones(2)}, metadata)
    with pytest.raises(
        InputError,
        match=r"other.safetensors: holds no linear translator: .*networks.load_network reads",
    ):
        Translator.load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": np.ones((2, 3))}, "holds no tensor bias"),
        (
            {"weight": np.ones((2, 3)), "bias": np.ones(3)},
            r"weight \(2, 3\) and bias \(3,\) make no affine map",
        ),
        (
            {"weight": np.ones(2), "bias": np.ones(2)},
            r"weight is float64 \(2,\), not floats of 2 dimensions",
        ),
        ({"weight": np.full((2, 3), np.nan), "bias": np.ones(2)}, "weight holds NaN"),
    ],
)
def test_a_damaged_translator_is_refused(tmp_path, tensors, message):
    path = tmp_path / "linear.safetensors"
    write_tensors(path, tensors, {"kind": "linear"})
    with pytest.raises(
        InputError, match=rf"linear.safetensors: {message}.*: remove it and run the workflow again"
    ):
        Translator.load(path)


def test_a_translator_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.safetensors: not readable"):
        Translator.load(tmp_path / "nowhere.safetensors")

import numpy as np
import torch
from safetensors.torch import load_file

from singflow.artifacts.tensors import write_tensors
from singflow.translators.hub import Translator
from tests.refusals import refused


def test_a_written_translator_translates_as_the_tensors_that_another_library_reads(tmp_path):
    path, generator = tmp_path / "linear.safetensors", np.random.default_rng(0)
    shapes = {"weight": (4, 9), "bias": 4, "features": (7, 9)}
    made = {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    features = made.pop("features")
    write_tensors(path, made, {"kind": "linear"})
    linear = torch.nn.Linear(9, 4)
    linear.load_state_dict(load_file(path))
    found = Translator.load(str(path))
    assert found.weight.dtype == found.bias.dtype == np.float32
    with torch.inference_mode():
        expected = linear(torch.from_numpy(features)).numpy()
        wide = linear.double()(torch.from_numpy(features).double()).numpy()
    np.testing.assert_allclose(found(features), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.astype(np.float64)(features), wide, rtol=0, atol=1e-13)


MAP = {"weight": np.ones((2, 3)), "bias": np.ones(2)}


def test_what_is_no_linear_translator_is_refused_by_name(tmp_path):
    path = tmp_path / "linear.safetensors"
    for tensors, made, message in (
        (MAP, {}, r"holds no linear translator: .*networks.load_network reads"),
        (MAP | {"bias": np.ones(3)}, None, r"weight \(2, 3\) and bias \(3,\) make no affine map"),
        (MAP | {"weight": np.ones(2)}, None, r"float64 \(2,\), not floats of 2 dimensions"),
    ):
        write_tensors(path, tensors, {"kind": "linear"} if made is None else made)
        fix = "no such file: name a linear.safetensors that .* wrote"
        refused(rf"linear.safetensors: .*{message}.*: write or download", Translator.load, path)
    path.unlink()
    for missing, load in (
        (path, Translator.load),
        (tmp_path, Translator.load),
        (path, lambda path: Translator.from_pretrained(path.parent)),
    ):
        refused(f"^{missing}: {fix}", load, missing)

"""Features by positions: what they sum to, for the paper's architectures and others."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from singflow.analyses.geometry import null_space
from singflow.analyses.maps import contributions
from singflow.towers.classifiers import load_classifier
from singflow.towers.positions import split_by_position
from singflow.translators.ridge import Affine
from tests.towers.models import entry_of, pictures
from tests.towers.test_classifiers import REGISTRY

# The paper's models, with the smallest sibling of each large one.
SIBLINGS = {
    "swin_large": "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k",
    "eva02_large": "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
    "convnext_base": "convnext_tiny.fb_in22k_ft_in1k",
    "deit3_large": "deit3_small_patch16_224.fb_in22k_ft_in1k",
    "dinovit": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "dinovit_torchvision": "vit_b_32.IMAGENET1K_V1",
    "dinovit_linear": "vit_small_patch16_224.dino",
    "vgg19": "vgg11.IMAGENET1K_V1",
}
NO_MEAN = ["vgg19", "deit3_large", "dinovit", "dinovit_torchvision"]
# As another, but for depth, width or weights.
ALIKE = {"vgg16", "efficientnet_b4", "resnext101", "deit3_large_in1k"}
PAPER = [name for name in REGISTRY if "lite" not in name and name not in ALIKE]


def of_paper(name):
    """A classifier of the registry, or its sibling, with random weights."""
    changes = {"weights": "random"}
    if name in SIBLINGS:
        changes |= {"id": SIBLINGS[name], "feature_dim": None}
    if name == "dinov2_large":
        small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        changes |= {"config": REGISTRY[name].config | small, "feature_dim": None}
    classifier = load_classifier(REGISTRY[name].model_copy(update=changes))
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            if parameter.ndim == 1 and parameter.unique().tolist() == [1.0]:
                parameter.uniform_(0.5, 2)  # scales of fresh norms are 1
    return classifier


@pytest.mark.parametrize("name", PAPER)
def test_positions_sum_to_the_translated_null_component(name):
    classifier = of_paper(name)
    found = split_by_position(classifier, pictures(2, classifier.preprocess.size[0]))
    if name in NO_MEAN:
        assert found.parts is None
        return
    rng, features = np.random.default_rng(0), found.features.numpy().astype(np.float64)
    weight = classifier.weight.numpy()[: features.shape[1] // 2]
    basis = null_space(weight).basis
    removed = Affine(rng.standard_normal((64, len(basis))) @ basis @ basis.T, np.zeros(64))
    parts = contributions(found.parts.numpy(), removed, np.eye(64))
    summed = parts.sum(axis=(2, 3)).T + found.rest.numpy() @ removed.weight.T
    whole = features @ removed.weight.T
    error = np.linalg.norm(summed - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert error.max() < 1e-6
    assert found.parts.flatten(1, 2).std(dim=1).max() > 0


def test_parts_are_what_the_library_pools():
    classifier = of_paper("efficientnet_b0")
    images = pictures(2, 224)
    with torch.no_grad():
        theirs = classifier.model.forward_features(images).permute(0, 2, 3, 1)
    torch.testing.assert_close(split_by_position(classifier, images).parts.float(), theirs)


def test_a_layer_norm_after_the_mean_is_affine_at_the_image_s_own_mean_and_variance():
    classifier = of_paper("convnext_base")
    images = pictures(2, 224)
    with torch.no_grad():
        before = classifier.model.forward_features(images).permute(0, 2, 3, 1).double()
    norm, pooled = classifier.model.head.norm, before.mean(dim=(1, 2), keepdim=True)
    scale = (pooled.var(dim=3, correction=0, keepdim=True) + norm.eps) ** -0.5
    theirs = (before - pooled.mean(dim=3, keepdim=True)) * scale * norm.weight + norm.bias
    ours = split_by_position(classifier, images).parts
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_patches_are_in_rows_of_the_image_and_the_class_token_has_no_position():
    classifier = of_paper("dinov2_large")
    images = torch.cat([pictures(1, 112), pictures(1, 112)], dim=3)[:, :, :84]
    found = split_by_position(classifier, images)
    with torch.no_grad():
        tokens = classifier.model.dinov2(images).last_hidden_state
    width = tokens.shape[2]
    assert found.parts.shape == (1, 6, 16, 2 * width)
    patches = tokens[:, 1:].unflatten(1, (6, 16))
    torch.testing.assert_close(found.parts[..., width:].float(), patches)
    torch.testing.assert_close(found.rest[:, :width].float(), tokens[:, 0])
    assert not found.parts[..., :width].any() and not found.rest[:, width:].any()


def test_tokens_that_are_no_grid_have_no_positions():
    classifier = load_classifier(entry_of("test_vit.r160_in1k"))
    classifier.model.global_pool, classifier.model.pool_include_prefix = "avg", True
    # the class token and 100 patches
    assert split_by_position(classifier, pictures(1)).parts is None


@pytest.mark.parametrize("name", ["efficientnet_b0", "densenet121", "dinov2_large"])
def test_a_dot_lies_where_the_seen_part_says(name):
    preprocess = of_paper(name).preprocess
    for size in ((640, 400), (300, 900)):
        left, top, right, bottom = preprocess.seen(*size)
        picture = Image.new("RGB", size, "black")
        x, y = round(0.6 * size[0]), round(0.45 * size[1])
        ImageDraw.Draw(picture).rectangle((x - 6, y - 6, x + 6, y + 6), fill="white")
        seen = preprocess.whole(picture)[0].double()
        rows, columns = torch.nonzero(seen > seen.mean(), as_tuple=True)
        across, down = (columns.double().mean() + 0.5, rows.double().mean() + 0.5)
        width, height = seen.shape[1], seen.shape[0]
        assert left + across / width * (right - left) == pytest.approx(0.6, abs=0.005)
        assert top + down / height * (bottom - top) == pytest.approx(0.45, abs=0.005)

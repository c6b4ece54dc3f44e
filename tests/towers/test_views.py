"""Every source's evaluation transform is kept; crops of the final size use its last steps."""

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import pil_to_tensor

from singflow.data.images import view_box
from singflow.towers.views import (
    Preprocess,
    Views,
    from_open_clip,
    from_processor,
    from_timm,
    from_torchvision,
)
from tests.towers.models import RESNET, noise

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
MODEL = timm.create_model(RESNET)


def normalized(image):
    """Pixels from 0 to 1 less the mean, over the standard deviation."""
    pixels = (np.asarray(image, dtype=np.float64) / 255 - MEAN) / STD
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))


def timm_of(**changes):
    return from_timm(MODEL, {"mean": MEAN, "std": STD} | changes)


def torchvision_of(side, resized, resample):
    sizes = {"crop_size": side, "resize_size": resized, "mean": MEAN, "std": STD}
    return from_torchvision(
        ImageClassification(**sizes, interpolation=InterpolationMode[resample.name])
    )


def processor_of(**changes):
    sizes = {"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}}
    settings = {**sizes, "image_mean": MEAN, "image_std": STD}
    return transformers.BitImageProcessor(**settings | changes)


@pytest.fixture
def wide(packaged):
    image = Image.open(packaged[0] / "imagenet_10_541.jpg").convert("RGB")
    assert image.size == (1024, 683)
    return image


def test_view_0_is_the_whole_image_and_the_others_are_their_boxes_at_the_towers_size():
    preprocess = Preprocess(
        whole=lambda image: torch.full((3, 20, 30), float(image.width)),
        to_tensor=lambda image: pil_to_tensor(image).float(),
        size=(30, 20),
        resample=Image.Resampling.LANCZOS,
    )
    image = noise(64, 48)
    views = Views(preprocess, 4, 7, (0.3, 0.9))(image, 11)
    assert views.shape == (4, 3, 20, 30)
    assert (views[0] == 64).all()
    for view in (1, 2, 3):
        crop = view_box(7, 11, view, 0.3, 0.9).crop(image, 30, 20, Image.Resampling.LANCZOS)
        assert torch.equal(views[view], pil_to_tensor(crop).float())
    assert torch.equal(Views(preprocess, 1, 7, (0.3, 0.9))(image, 11), views[:1])
    assert torch.equal(Views(preprocess, 2, 7, (0.3, 0.9))(image, 11), views[:2])
    for seed, image_id in ((8, 11), (7, 12)):
        changed = Views(preprocess, 2, seed, (0.3, 0.9))(image, image_id)
        assert not torch.equal(changed[1], views[1])


def by_timm(changes):
    published = timm.get_pretrained_cfg(RESNET).to_dict()
    config = timm.data.resolve_data_config(changes or {}, pretrained_cfg=published)
    return from_timm(MODEL, changes), timm.data.create_transform(**config)


def by_torchvision(name):
    preset = torchvision.models.get_weight(name).transforms()
    return from_torchvision(preset), preset


def by_processor(processor):
    def own(image):
        return processor(image, return_tensors="pt")["pixel_values"][0]

    return from_processor(processor), own


def by_open_clip(changes):
    own = image_transform_v2(PreprocessCfg(**changes), is_train=False)
    return from_open_clip(changes), own


CUT = {"size": {"shortest_edge": 120}, "crop_size": {"height": 84, "width": 98}}
SQUASHED = {"size": {"height": 40, "width": 60}, "image_mean": MEAN, "image_std": STD}
OWN = [  # transform, the library's own, width and height, resampling
    (*by_timm(None), (160, 160), "BILINEAR"),
    (*by_timm({"input_size": [3, 192, 128], "crop_pct": 0.5}), (128, 192), "BILINEAR"),
    (*by_timm({"input_size": [3, 96, 160], "crop_mode": "squash"}), (160, 96), "BILINEAR"),
    *(
        (*by_timm({"interpolation": name.lower()}), (160, 160), name)
        for name in ("NEAREST", "BICUBIC", "LANCZOS")
    ),
    (*by_timm({"mean": list(MEAN), "std": list(STD)}), (160, 160), "BILINEAR"),
    (*by_torchvision("ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"), (384, 384), "BICUBIC"),
    (*by_torchvision("ResNet50_Weights.IMAGENET1K_V1"), (224, 224), "BILINEAR"),
    (*by_processor(processor_of(**CUT, resample=2)), (98, 84), "BILINEAR"),
    (*by_processor(processor_of(**CUT, resample=3)), (98, 84), "BICUBIC"),
    (*by_processor(transformers.ViTImageProcessor(**SQUASHED)), (60, 40), "BILINEAR"),
    (*by_open_clip({}), (224, 224), "BICUBIC"),
    (*by_open_clip({"size": 96, "interpolation": "bilinear"}), (96, 96), "BILINEAR"),
    (*by_open_clip({"size": (84, 98), "resize_mode": "squash"}), (98, 84), "BICUBIC"),
    (*by_open_clip({"size": (84, 98), "resize_mode": "longest"}), (98, 84), "BICUBIC"),
]


@pytest.mark.parametrize(("preprocess", "own", "size", "resample"), OWN)
def test_a_transform_is_the_librarys_own_with_its_size_and_resampling(
    wide, preprocess, own, size, resample
):
    whole = preprocess.whole(wide)
    assert torch.equal(whole, own(wide))
    assert whole.shape == (3, size[1], size[0]) and preprocess.size == size
    assert preprocess.resample == Image.Resampling[resample]


LARGER = {
    "timm": timm_of(input_size=[3, 96, 96], crop_pct=0.75),
    "torchvision": torchvision_of(96, 128, Image.Resampling.BICUBIC),
    "transformers": from_processor(processor_of(size={"shortest_edge": 128})),
    "open_clip": from_open_clip({"size": 96, "mean": MEAN, "std": STD}),
}


@pytest.mark.parametrize("source", LARGER)
def test_a_crop_of_the_towers_size_is_only_normalized(source):
    crop = LARGER[source].to_tensor(noise(96, 96))
    torch.testing.assert_close(crop, normalized(noise(96, 96)), rtol=0, atol=1e-5)

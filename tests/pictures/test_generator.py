import hashlib
import itertools
import os
import shutil
from pathlib import Path

import diffusers
import diffusers.pipelines.deprecated.unclip
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from singflow.config.reading import read_yaml
from singflow.config.registry import OpenCLIPEntry, TransformersEntry, resolve_spaces
from singflow.pictures import generator as module
from singflow.pictures.generator import PIPELINE, UnCLIP, choose_renderer, load_pipeline
from singflow.study import check
from tests.pictures.tiny_unclip import build_generator
from tests.project import ROOT
from tests.refusals import refused

CPU = torch.device("cpu")
HUB = "kakaobrain/karlo-v1-alpha-image-variations"
CLIP = OpenCLIPEntry(source="open_clip", id="ViT-L-14-quickgelu/openai", dim=768)
RANDOM = CLIP.model_copy(update={"weights": "random"})
PICTURES = check(read_yaml(ROOT / "params.yaml"), "params.yaml").pictures.model_copy(
    update={"generator": "checkpoints/tiny", "decoder_steps": 3, "super_res_steps": 2}
)
FIRST, SECOND, THIRD = np.random.default_rng(0).normal(size=(3, 768))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On their number the last bits depend; and several wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny generator with random weights."""
    return build_generator(tmp_path_factory.mktemp("unclip") / "checkpoints/tiny")


@pytest.fixture(scope="module")
def generator(tiny):
    """It, loaded."""
    return UnCLIP(load_pipeline(tiny, CPU, torch.float32), PICTURES)


@pytest.fixture
def own(tiny, tmp_path, monkeypatch):
    """A copy of the folder, as checkpoints/tiny of the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(tiny, "checkpoints/tiny"))


def loaded(**changes):
    return module.load_generator(PICTURES.model_copy(update=changes), CPU)


def in_hub(tiny, cache):
    """The generator as the hub's cache keeps it: links to blobs."""
    repository, commit = cache / f"models--{HUB.replace('/', '--')}", "0" * 40
    for path in filter(Path.is_file, tiny.rglob("*")):
        link = repository / "snapshots" / commit / path.relative_to(tiny)
        blob = repository / "blobs" / hashlib.sha256(str(path).encode()).hexdigest()
        for file in (link, blob):
            file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    return repository / "snapshots" / commit


def entered(generator, embedding, seed):
    """What first enters the decoder and the super-resolution when a picture is drawn."""
    samples = {}

    def keep(module, arguments, given):
        samples.setdefault(module, given["sample"][:1, :3].clone())

    models = generator.pipeline.decoder, generator.pipeline.super_res_first
    hooks = [model.register_forward_pre_hook(keep, with_kwargs=True) for model in models]
    generator.render(embedding, seed)
    for hook in hooks:
        hook.remove()
    return [samples[model] for model in models]


def test_a_picture_depends_on_its_embedding_and_seed_alone(generator):
    alone = generator.render(FIRST, 7)
    assert alone.shape == (32, 32, 3) and alone.dtype == np.uint8 and alone.std() > 10
    given = [(SECOND, 7), (FIRST, 7), (FIRST, 8), (THIRD, 0)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    among = [generator.render(*pair) for pair in given]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    reverse = [generator.render(*pair) for pair in reversed(given)]
    assert np.array_equal(alone, among[1]) and np.array_equal(among, reverse[::-1])
    for one, other in itertools.combinations(among, 2):
        assert np.abs(one.astype(int) - other).mean() > 1
    assert not np.array_equal(alone, generator.render(2 * FIRST, 7))


def test_one_noise_tensor_enters_every_stage_scaled_once_by_its_own_scheduler(
    generator, monkeypatch
):
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    for embedding in (FIRST, SECOND):
        small, large = entered(generator, embedding, 5)
        assert torch.equal(small, noise[..., :16, :16]) and torch.equal(large, noise)
    assert not torch.equal(entered(generator, FIRST, 6)[0], small)
    monkeypatch.setattr(generator.pipeline.decoder_scheduler, "init_noise_sigma", 2.0)
    monkeypatch.setattr(generator.pipeline.super_res_scheduler, "init_noise_sigma", 4.0)
    scaled = entered(generator, FIRST, 5)
    assert torch.equal(scaled[0], 2 * small) and torch.equal(scaled[1], 4 * large)


def test_the_parts_are_those_that_diffusers_loads(generator, tiny, monkeypatch):
    published = diffusers.pipelines.deprecated.unclip
    monkeypatch.setattr(diffusers.pipelines, "unclip", published, raising=False)
    without = {"image_encoder": None, "feature_extractor": None, "local_files_only": True}
    theirs = diffusers.DiffusionPipeline.from_pretrained(tiny, **without)
    assert type(theirs) is type(generator.pipeline) and type(theirs).__name__ == PIPELINE
    for name in ("decoder", "text_encoder", "text_proj", "super_res_first", "super_res_last"):
        own = getattr(generator.pipeline, name)
        expected, found = getattr(theirs, name).state_dict(), own.state_dict()
        assert expected.keys() == found.keys() and not own.training
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    for name in ("decoder_scheduler", "super_res_scheduler"):
        assert getattr(theirs, name).config == getattr(generator.pipeline, name).config
    assert theirs.tokenizer("").input_ids == generator.pipeline.tokenizer("").input_ids == [2, 3]


def test_bin_files_are_read_and_safetensors_are_preferred(generator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = build_generator(Path("checkpoints/tiny"), safetensors=False)
    found = loaded(dtype="float16")  # on a CPU, float32 all the same
    assert found.pipeline.decoder.dtype == torch.float32
    picture = found.render(FIRST, 0)
    assert np.array_equal(picture, generator.render(FIRST, 0))
    other = build_generator(Path("checkpoints/other"), seed=1)
    weights = "decoder/diffusion_pytorch_model.safetensors"
    shutil.copyfile(other / weights, folder / weights)
    assert not np.array_equal(picture, loaded().render(FIRST, 0))


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


# The decoder is read by diffusers, the text encoder by transformers.
PARTS = ("decoder/diffusion_pytorch_model", "text_encoder/pytorch_model")


@pytest.mark.parametrize("name", PARTS)
def test_a_bin_file_that_holds_code_is_refused_and_does_not_run(own, name):
    path = own / f"{name}.bin"
    (weights,) = path.parent.glob("*.safetensors")
    weights.unlink()
    torch.save({"weight": Payload()}, path)
    refused(rf"{path.parent}: not readable as ", loaded)
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", PARTS)
def test_incomplete_parts_are_refused_by_name(own, name):
    (path,) = (own / name).parent.glob("*.safetensors")
    whole = load_file(path)
    first = sorted(whole)[0]
    rest = {key: value for key, value in whole.items() if key != first}
    save_file(rest, path, {"format": "pt"})
    refused(rf"{path.parent}: its weights lack {first}: fetch or copy the generator again", loaded)
    twice = whole[first].repeat(*[2] * whole[first].ndim)
    save_file(rest | {first: twice}, path, {"format": "pt"})
    refused(rf"{path.parent}: (not readable as|its weights lack)", loaded)


def test_what_the_hubs_cache_lacks_is_refused_with_the_command(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    fix = "run `singflow prefetch`"
    absent = rf"the generator {HUB} is not in the hub cache {tmp_path} .*: {fix}"
    refused(absent, loaded, generator=HUB)
    snapshot = in_hub(tiny, tmp_path)
    assert module.find_generator(PICTURES.model_copy(update={"generator": HUB})) == snapshot


def test_embeddings_that_the_generator_cannot_draw_are_refused(generator):
    assert generator.dim == 768
    for wrong in (FIRST[:-1], FIRST[None], np.array(1.0)):
        refused(r"an embedding is \(.*\), not \(768,\)", generator.render, wrong, 0)
    for value in (np.nan, np.inf, 1e300):
        message = "an embedding holds NaN or infinite values"
        refused(message, generator.render, np.full(768, value), 0)


def test_a_picture_that_is_not_finite_is_refused(own):
    path = own / "super_res_last/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_out.bias"][0] = torch.nan
    save_file(weights, path, {"format": "pt"})
    words = r"the generator gives NaN in torch\.float32: write pictures\.dtype: float32"
    refused(words, loaded().render, FIRST, 0)


def test_only_openais_clip_is_drawn(own):
    names = ["clip_vit_l14", "eva02_l14", "conse_minilm"]
    spaces = resolve_spaces(ROOT / "config/spaces.yaml", names)
    required = PICTURES.model_copy(update={"renderer": "unclip"})
    names = {"source": "transformers", "id": "openai/clip-vit-large-patch14"}
    same = TransformersEntry(**names, weights="hub", dim=768)
    for entry in (spaces["clip_vit_l14"], same):  # OpenAI's, by two libraries
        assert choose_renderer("clip", entry, required) == "unclip"
    why = ".*trained on .*OpenAI's CLIP.*another space, here {}, .*words, or auto"
    for name, entry, reason in (
        ("eva02_l14", spaces["eva02_l14"], why.format("EVA02-L-14/merged2b_s4b_b131k")),
        ("siglip", same.model_copy(update={"id": "some/siglip"}), why.format("some/siglip")),
        ("conse_minilm", spaces["conse_minilm"], why.format("conse")),
        ("mine", RANDOM, r".*untrained towers \(weights: random\)"),
    ):
        message = f"space {name} cannot be rendered: {reason}"
        refused(message, choose_renderer, name, entry, required)


CONSE = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm"])["conse_minilm"]


GENERATED = [
    (True, CLIP, "tiny", ""),
    (False, CLIP, "tiny", "PyTorch sees no GPU"),
    (True, CLIP, "absent", "checkpoints/absent/model_index.json: not readable"),
    (True, CONSE, "tiny", "vectors of another space, here conse"),
    (True, RANDOM, "tiny", "untrained towers"),
]


def test_auto_generates_where_it_can_and_says_why_where_it_cannot(own, monkeypatch, caplog):
    caplog.set_level("INFO", "singflow")
    for gpu, entry, generator, reason in GENERATED:
        pictures = PICTURES.model_copy(update={"generator": f"checkpoints/{generator}"})
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        caplog.clear()
        assert choose_renderer("some", entry, pictures) == ("words" if reason else "unclip")
        start = "space some: words are shown, no pictures are generated: "
        said = [text.startswith(start) and reason in text for text in caplog.messages]
        assert said == [True] * bool(reason)
        wanted = pictures.model_copy(update={"renderer": "words"})
        assert choose_renderer("some", entry, wanted) == "words"

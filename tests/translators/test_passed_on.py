"""A study's translator is passed on with its card, and taken back byte for byte for its model."""

import shutil

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from singflow import Translator
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.commands.import_translator import import_translator
from singflow.config.reading import read_yaml
from singflow.config.sections import PACKAGE_DATA
from singflow.errors import InputError
from singflow.translators.parameters import Translation
from singflow.translators.reference import PACKAGED
from singflow.translators.released import read_offered
from tests.project import ROOT
from tests.results import Results

LITE0, SPACE = "efficientnet_lite0", "conse_minilm"


def fit(folder, imported=(), reference=None, views_of="own"):
    """The step, on the images of the packaged reference as if they were a study."""
    flags = {"kind": "linear", "folds": 5, "lambdas": list(Translation().lambdas)}
    own = Results(folder / views_of, LITE0, SPACE)
    own.path("translator").unlink(missing_ok=True)
    own.run("fit_translator", imported=list(imported), reference=reference, **flags)
    return own


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with registries and a study of the reference's images, whose translator is saved."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("config", "reference"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "own").mkdir()
    for name in ("data", "features", "embeddings"):
        (folder / "own" / name).symlink_to(ROOT / PACKAGED / name)
    Results(folder / "own", LITE0).tensors("head", weight=np.eye(2, 1280), bias=np.zeros(2))
    Translator.load(fit(folder).path("translator")).save_pretrained(folder / "mine")
    return folder


@pytest.fixture
def checkout(made, tmp_path, monkeypatch):
    """A copy of what was made, as the working folder."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(path):
    return {key: load_file(path)[key].tobytes() for key in ("weight", "bias")}


def take(release, model=LITE0, space=SPACE, **registries):
    """Import a translator; where it lies then."""
    import_translator(release, model, space, **registries)
    return release.parent / f"checkpoints/translators/{space}/{model}.safetensors"


def test_the_saved_translator_of_a_study_has_its_numbers_and_its_card_says_everything(checkout):
    own = Results(checkout / "own", LITE0, SPACE)
    assert load_file(checkout / "mine/linear.safetensors").keys() == {"weight", "bias"}
    assert numbers(checkout / "mine/linear.safetensors") == numbers(own.path("translator"))
    card, report = (checkout / "mine/README.md").read_text(), own.read("translator_report")
    assert "not stated" not in card and "Known zero" not in card
    weights = read_tensors(own.path("features"), [])[1]["weights_sha256"]
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "timm/tf_efficientnet_lite0.in1k"
    said = ["| the images of study own |", "embeddings | 507 |", "not seen | 507 |", weights]
    said += [f"| R² | {report['validation_r2']:.4g} ", f"relative: {report['lambda']:.4g} |"]
    assert [words for words in (*said, "(384, 1280)") if words not in card] == []
    _, facts = read_offered(checkout / "mine", "any")
    assert facts["weights_sha256"] == weights
    assert "classifier_sha256" in Translator.load(checkout / "mine/linear.safetensors").facts


def test_the_card_says_whose_images_a_translator_was_fitted_on(checkout):
    other = checkout / "other"
    other.mkdir()
    (other / "embeddings").symlink_to(ROOT / PACKAGED / "embeddings")
    (other / "heads").symlink_to(checkout / "own/heads")
    tensors, facts = read_tensors(Results(checkout / "own", LITE0).path("features"))
    tensors["features"] = np.roll(tensors["features"], 1, axis=1)  # of other images
    Results(other, LITE0).tensors("features", facts, **tensors)
    manifest = Results(ROOT / PACKAGED).read("manifest")
    Results(other).manifest(**manifest.assign(sha256=manifest["sha256"].str[::-1]))
    for reference, words in (
        ("packaged", "| fitted on | 507 ImageNet images, one a class "),
        (str(checkout / "own"), "| fitted on | the images of study own |"),
    ):
        path = fit(checkout, reference=reference, views_of="other").path("translator")
        Translator.load(path).save_pretrained(checkout / "card")
        card = (checkout / "card/README.md").read_text()
        assert words in card and str(checkout) not in card


def test_it_is_imported_again_byte_for_byte_for_all_heads_on_the_same_weights(checkout, caplog):
    own = Results(checkout / "own", LITE0, SPACE).path("translator").parent
    for release, model in (("mine", LITE0), (own, "animals_lite0")):
        import_translator(checkout / release, model, SPACE)
        taken = checkout / f"checkpoints/translators/{SPACE}/{model}.safetensors"
        assert numbers(taken) == numbers(checkout / "mine/linear.safetensors")
    assert "not compared" not in caplog.text


def test_another_model_other_weights_and_another_space_are_refused(checkout):
    registry = read_yaml(PACKAGE_DATA / "spaces.yaml")
    registry["warmer"] = registry[SPACE] | {"temperature": 3.0}
    (checkout / "spaces.yaml").write_text(yaml.safe_dump(registry))
    path = checkout / "mine/linear.safetensors"
    tensors, made = read_tensors(path, ["weight", "bias"])
    other, none = "timm/resnet18.a1_in1k", "0" * 64
    named = "timm/tf_efficientnet_lite0.in1k, not for"
    for given, header, message in (
        ({"model": other}, {}, f"{named} {other}"),
        ({"space": "clip_vit_l14"}, {}, "not for ViT-L-14-quickgelu/openai"),
        ({"space": "warmer", "spaces": "spaces.yaml"}, {}, '"temperature":2.0.*, not for .*3.0'),
        ({}, {"weights_sha256": none}, "a model with weights 0{12} instead of"),
        ({}, {"space_sha256": none}, "a space with weights 0{12} instead of"),
    ):
        write_tensors(path, tensors, made | header)
        with pytest.raises(InputError, match=message):
            take(checkout / "mine", **given)
        assert not (checkout / "checkpoints").exists()
    Translator(**tensors, facts={"model": LITE0}).save_pretrained(checkout / "mine")
    with pytest.raises(
        InputError, match=r"does not say what it was fitted for: name one of a stud"
    ):
        take(checkout / "mine")

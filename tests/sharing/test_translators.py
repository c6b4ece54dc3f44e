"""Translators at hand: listed, passed on, and taken back byte for byte, for their model only."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits

from singflow.artifacts.files import sha256_of, write_json
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.commands.import_translator import import_translator
from singflow.commands.translators import translators
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.config.sections import PACKAGE_DATA
from singflow.errors import InputError
from singflow.sharing.translators import available_translators, export, fit_packaged, of_study
from singflow.translators.parameters import Translation
from singflow.translators.reference import PACKAGED
from singflow.translators.released import read_exported
from tests.kills import killed
from tests.project import ROOT
from tests.results import Results

fitted = cache(fit_packaged)
LITE0, SPACE = "efficientnet_lite0", "conse_minilm"
FEATURES = ROOT / PACKAGED / f"features/{LITE0}/shard-00000.safetensors"
HASH = read_tensors(FEATURES, [])[1]["weights_sha256"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the registries and the packaged reference, without results.

    Each translator of the packaged reference is fitted once for all tests.
    """
    monkeypatch.setattr("singflow.sharing.translators.fit_packaged", fitted)
    for name in ("config", "reference"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "own").mkdir()
    for name in ("data", "features", "embeddings"):
        (tmp_path / "own" / name).symlink_to(ROOT / PACKAGED / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(folder, n_train=40, reference=None, model=LITE0):
    """Results of a study with a translator of lite0, which record the weights of its features."""
    generator = np.random.default_rng(0)
    arrays = {
        "weight": generator.standard_normal((384, 1280)).astype(np.float32),
        "bias": generator.standard_normal(384).astype(np.float32),
    }
    results = Results(folder, model, SPACE)
    results.tensors("translator", {"study": folder.name, "kind": "linear"}, **arrays)
    figures = {"validation_r2": 0.25, "validation_cosine": 0.7, "baseline_cosine": 0.5}
    figures |= {"n_train": n_train, "n_validation": 10, "lambda": 3.0, "reference": reference}
    write_json(results.path("translator_report"), figures)
    model_entry = resolve_models("config/models.yaml", [model])[model]
    write_json(results.path("model_entry"), model_entry.model_dump())
    space_entry = resolve_spaces("config/spaces.yaml", [SPACE])[SPACE]
    write_json(results.path("space_entry"), space_entry.model_dump())
    for kind in ("features", "embeddings"):
        made = read_tensors(Results(ROOT / PACKAGED, LITE0, SPACE).path(kind), [])[1]
        results.tensors(kind, dict(made))
    return arrays


def fit(checkout, *imported):
    """The step on the packaged reference as if it were a study, in this process."""
    flags = {"kind": "linear", "folds": 5, "lambdas": list(Translation().lambdas)}
    own = Results(checkout / "own", LITE0, SPACE)
    own.path("translator").unlink(missing_ok=True)
    own.run("fit_translator", imported=list(imported), reference=None, **flags)
    return own


@pytest.fixture
def mine(checkout):
    """A translator of the packaged reference, exported into the folder mine."""
    return export(fitted(SPACE, LITE0), checkout / "mine")


def card(exported):
    return export(exported, Path("card")).with_name("README.md").read_text()


def take(model=LITE0, space=SPACE, **registries):
    """Import the translator of the folder mine; where it lies then."""
    import_translator(Path("mine"), model, space, **registries)
    return Path(f"checkpoints/translators/{space}/{model}.safetensors")


def test_the_packaged_reference_is_fitted_as_the_step_fits_it(checkout):
    own = fit(checkout)
    found, report = fitted(SPACE, LITE0), own.read("translator_report")
    tensors = load_file(own.path("translator"))
    np.testing.assert_allclose(found.translator.weight, tensors["weight"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.translator.bias, tensors["bias"], rtol=0, atol=1e-7)
    for key, figure in found.figures.items():
        assert figure == pytest.approx(report[key], rel=1e-9), key
    assert found.made_for["weights_sha256"] == HASH and not found.zero
    known_zero = fitted(SPACE, "efficientnet_lite2")
    assert known_zero.zero and "**Known zero.**" in card(known_zero)


def test_what_is_exported_is_imported_again_byte_for_byte_for_all_heads_on_the_same_weights(
    mine, caplog
):
    for model in (LITE0, "animals_lite0"):
        taken = take(model)
        ours, theirs = ({k: t.tobytes() for k, t in load_file(f).items()} for f in (mine, taken))
        assert ours == theirs
    assert "not checked" not in caplog.text
    listed = {
        (translator.origin, translator.model): translator for translator in available_translators()
    }
    found, packaged = listed["imported", LITE0], listed["packaged", LITE0]
    assert (found.rows, found.weights_sha256) == (507, HASH)
    assert found.sha256 == sha256_of(taken.with_name(f"{LITE0}.safetensors"))
    assert found.r2 == pytest.approx(packaged.r2, abs=1e-12) and 0.2 < found.r2 < 0.3


def test_another_model_other_weights_and_another_space_are_refused(checkout, mine):
    registry = read_yaml(PACKAGE_DATA / "spaces.yaml")
    registry["warmer"] = registry[SPACE] | {"temperature": 3.0}
    (checkout / "spaces.yaml").write_text(yaml.safe_dump(registry))
    tensors, made = read_tensors(mine, ["weight", "bias"])
    lite1 = f"{HASH[:12]}, but efficientnet_lite1 is .* weights 0437a714"
    other, none = "timm/resnet18.a1_in1k", "0" * 64
    for given, header, message in (
        ({"model": "efficientnet_lite1"}, {}, lite1),
        ({"model": other}, {}, f"_lite0.in1k, but {other} is"),
        ({"space": "clip_vit_l14"}, {}, r"\(384 dimensions\), which clip_vit_l14"),
        ({"space": "warmer", "spaces": "spaces.yaml"}, {}, "warmer of spaces.yaml is not"),
        ({}, {"weights_sha256": none}, "efficientnet_lite0 is timm/tf_efficientnet_lite0"),
        ({}, {"space_sha256": none}, "its space has weights 0000"),
    ):
        write_tensors(mine, tensors, made | header)
        with pytest.raises(InputError, match=message):
            take(**given)
        assert not (checkout / "checkpoints").exists()


def test_a_study_takes_an_imported_translator_for_the_weights_that_it_was_fitted_for_alone(
    checkout, mine
):
    path = take()
    tensors, made = read_tensors(path, ["weight", "bias"])
    hashes = {"weights_sha256": f"features/{LITE0}", "space_sha256": f"embeddings/{SPACE}"}
    assert hashes.keys() <= made.keys()
    older = {key: value for key, value in made.items() if key not in hashes}
    for header in (made, older):  # without hashes: as of the authors' release
        write_tensors(path, tensors, header)
        own = fit(checkout, f"{SPACE}/{LITE0}:{sha256_of(path)[:16]}")
        taken = load_file(own.path("translator"))
        assert all(np.array_equal(taken[name], tensors[name]) for name in tensors)
    for key, place in hashes.items():
        write_tensors(path, tensors, made | {key: "0" * 64})
        said = rf"{LITE0}.safetensors: was fitted for weights 0{{12}} of {place.split('/')[1]}"
        with pytest.raises(InputError, match=rf"(?s){said}.*{place} was made with"):
            fit(checkout, f"{SPACE}/{LITE0}:{sha256_of(path)[:16]}")
        assert not own.path("translator").exists()


def test_a_translator_of_a_study_is_exported_with_its_figures_and_its_card_says_them(checkout):
    arrays = study(checkout / "results/s")
    exported = of_study(checkout / "results/s", SPACE, LITE0)
    path = export(exported, checkout / "out")
    first = path.read_bytes()
    assert export(exported, checkout / "out").read_bytes() == first
    read = read_exported(path)
    np.testing.assert_array_equal(read.translator.weight, arrays["weight"])
    assert (read.model_id, read.weights_sha256) == ("timm/tf_efficientnet_lite0.in1k", HASH)
    text = (checkout / "out/README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "timm/tf_efficientnet_lite0.in1k"
    said = ["| the images of study s |", "embeddings | 40 |", "not seen | 10 |", "| R² | 0.2500 "]
    said += ["relative: 3 |", 'from_pretrained("<this repository or folder>")']
    assert [words for words in (*said, HASH, "(384, 1280)") if words not in text] == []
    assert "Known zero" not in text
    (checkout / "other").mkdir()
    (checkout / "other/README.md").write_text("# Mine")
    refused = r"other/README.md: is no card of a translator, .* by one: name another folder"
    with pytest.raises(InputError, match=refused):
        export(exported, checkout / "other")
    assert not (checkout / "other/linear.safetensors").exists()


@pytest.mark.nightly
def test_a_killed_export_leaves_no_card_of_another_translator(checkout):
    study(checkout / "results/s")
    whole = export(of_study(checkout / "results/s", SPACE, LITE0), checkout / "whole").read_bytes()
    card_of = (checkout / "whole/README.md").read_text()
    out = checkout / "out"
    for again in (False, True):
        if again:  # over another translator and its card
            (out / "linear.safetensors").write_bytes(b"another")
            (out / "README.md").write_text(card_of.replace("0.2500", "0.1000"))
        lines = "from singflow.sharing.translators import export, of_study\n"
        lines += f"export(of_study(Path('results/s'), {SPACE!r}, {LITE0!r}), Path('out'))"
        seen = {}
        for moves in killed(lines, checkout):
            path, readme = out / "linear.safetensors", out / "README.md"
            content = path.read_bytes() if path.exists() else None
            said = readme.read_text() if readme.exists() else None
            seen[moves] = content, said
            assert said is None or (said == card_of) == (content == whole)
        assert len(seen) > 4 and seen[moves] == (whole, card_of)
        assert {file.name for file in out.iterdir()} == {"linear.safetensors", "README.md"}
        assert not list(checkout.glob(".out.*"))


def test_the_card_says_whose_images_a_studys_translator_was_fitted_on(checkout):
    for facts, words in (
        ({"reference": "packaged"}, "507 ImageNet images"),
        ({"reference": "/elsewhere/results/o"}, "| fitted on | the images of study o |"),
        ({"n_train": 0, "reference": "packaged"}, "it was imported"),
    ):
        study(checkout / "results/s", **facts)
        assert words in card(of_study(checkout / "results/s", SPACE, LITE0))


def test_what_a_study_lacks_is_said(checkout):
    study(checkout / "results/s")
    (checkout / f"results/s/embeddings/{SPACE}/shard-00000.safetensors").unlink()
    path = checkout / f"results/s/translators/{SPACE}/{LITE0}/linear.safetensors"
    for read, message in {
        lambda: of_study(checkout / "results/s", SPACE, "resnet50"): (
            f"results/s has no such translator: it has {SPACE}/{LITE0}: name one"
        ),
        lambda: of_study(checkout / "nowhere", SPACE, LITE0): (
            "nowhere has no such translator: name a finished study's with --results"
        ),
        lambda: of_study(checkout / "results/s", SPACE, LITE0): (
            r"embeddings/conse_minilm/shard-00000.safetensors: not here.*make fetch"
        ),
        lambda: fit_packaged(SPACE, "resnet50"): (
            f"the packaged reference has no resnet50 for {SPACE}; it has {LITE0} for {SPACE}"
        ),
        lambda: read_exported(path): r"does not say what it was fitted for.*export_translator",
    }.items():
        with pytest.raises(InputError, match=message):
            read()


def test_all_that_are_at_hand_are_listed(checkout, capsys):
    other = "timm/tf_efficientnet_lite0.in1k"
    study(checkout / "results/s")
    study(checkout / "results/t", model=other)
    (checkout / f"results/t/translators/{SPACE}/gone").mkdir()
    write_json(checkout / f"results/t/translators/{SPACE}/gone/linear.json", {})  # a tier of it
    with threadpool_limits(1):  # which the command sets, and this block takes back
        translators()
        head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        translators(as_json=True)
    assert head == ["from", "space", "model", "R2", "rows", "weights", "file"]
    packaged = [["packaged", SPACE, f"efficientnet_lite{number}"] for number in range(3)]
    studies = [["results/s", SPACE, LITE0], ["results/t", SPACE, other]]
    assert [row[:3] for row in rows] == packaged + studies
    assert rows[3][3:6] == ["0.250", "40", HASH[:12]]
    assert rows[0][3:6] == ["0.238", "507", HASH[:12]]
    everything = json.loads(capsys.readouterr().out)
    assert everything[3]["weights_sha256"] == HASH and len(everything) == 5

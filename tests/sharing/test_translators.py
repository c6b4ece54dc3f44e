"""Translators at hand: listed, passed on, and taken back byte for byte, for their model only."""

import json
import re

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from singflow.artifacts.files import sha256_of, write_json
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.errors import InputError
from singflow.sharing.translators import at_hand, card, export, fit_packaged, of_study
from singflow.translators.parameters import Translation
from singflow.translators.reference import PACKAGED
from singflow.translators.released import read_exported
from tests import warm
from tests.project import ROOT
from tests.results import Results

LITE0, SPACE = "efficientnet_lite0", "conse_minilm"
HASH = read_tensors(ROOT / PACKAGED / f"features/{LITE0}/shard-00000.safetensors", [])[1][
    "weights_sha256"
]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the registries and the packaged reference, without results."""
    for name in ("config", "reference"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "own").mkdir()
    for name in ("data", "features", "embeddings"):
        (tmp_path / "own" / name).symlink_to(ROOT / PACKAGED / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own_results(checkout):
    """The packaged reference as the results of a study."""
    return Results(checkout / "own", LITE0, SPACE)


def study(folder, n_train=40, reference=None, model=LITE0):
    """Results of a study with a translator of lite0, which record the weights of its features."""
    generator = np.random.default_rng(0)
    named = {"study": folder.name, "model": model, "space": SPACE, "kind": "linear"}
    arrays = {
        "weight": generator.standard_normal((384, 1280)).astype(np.float32),
        "bias": generator.standard_normal(384).astype(np.float32),
    }
    write_tensors(folder / f"translators/{SPACE}/{model}/linear.safetensors", arrays, named)
    figures = {
        "validation_r2": 0.25,
        "validation_cosine": 0.7,
        "baseline_cosine": 0.5,
        "n_train": n_train,
        "n_validation": 10,
    }
    write_json(
        folder / f"translators/{SPACE}/{model}/linear.json",
        figures | {"lambda": 3.0, "reference": reference},
    )
    entries = {
        "models": resolve_models("config/models.yaml", [model]),
        "spaces": resolve_spaces("config/spaces.yaml", [SPACE]),
    }
    for kind, mine in entries.items():
        for name, entry in mine.items():
            write_json(folder / f"registry/{kind}/{name}.json", entry.model_dump())
    for kind, name in (("features", model), ("embeddings", SPACE)):
        made = read_tensors(
            ROOT
            / PACKAGED
            / kind
            / (LITE0 if kind == "features" else SPACE)
            / "shard-00000.safetensors",
            [],
        )[1]
        write_tensors(folder / kind / name / "shard-00000.safetensors", {}, dict(made))
    return arrays


def fit(checkout, *imported):
    """The step on the packaged reference as if it were a study."""
    flags = {
        "kind": "linear",
        "folds": 5,
        "lambdas": list(Translation().lambdas),
        "reference": None,
    }
    own = own_results(checkout)
    return own.start("fit_translator", checkout, imported=list(imported), **flags)


def test_the_packaged_reference_is_fitted_as_the_step_fits_it(checkout):
    done = fit(checkout)
    assert done.returncode == 0, done.stderr
    own, fitted = own_results(checkout), fit_packaged(SPACE, LITE0)
    report, tensors = own.read("translator_report"), load_file(own.path("translator"))
    np.testing.assert_allclose(fitted.translator.weight, tensors["weight"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(fitted.translator.bias, tensors["bias"], rtol=0, atol=1e-7)
    assert (fitted.rows, fitted.images, fitted.penalty) == (
        report["n_train"],
        report["n_validation"],
        report["lambda"],
    )
    found = fitted.r2, fitted.cosine, fitted.baseline
    np.testing.assert_allclose(
        found,
        [report[f"{name}"] for name in ("validation_r2", "validation_cosine", "baseline_cosine")],
        rtol=1e-9,
    )
    assert (
        fitted.weights_sha256 == HASH
        and not fitted.zero
        and fit_packaged(SPACE, "efficientnet_lite2").zero
    )


def test_what_is_exported_is_imported_again_byte_for_byte_for_all_heads_on_the_same_weights(
    checkout,
):
    path = export(fit_packaged(SPACE, LITE0), checkout / "mine")
    for model in (LITE0, "animals_lite0"):
        done = warm.singflow(
            ROOT,
            "import_translator",
            "--release",
            "mine",
            "--model",
            model,
            "--space",
            SPACE,
            cwd=checkout,
        )
        assert done.returncode == 0 and "not checked" not in done.stderr, done.stderr
        taken = checkout / f"checkpoints/translators/{SPACE}/{model}.safetensors"
        ours, theirs = load_file(path), load_file(taken)
        assert ours.keys() == theirs.keys() and all(
            ours[name].tobytes() == theirs[name].tobytes() for name in ours
        )
    listed = {(translator.origin, translator.model): translator for translator in at_hand()}
    mine = listed["imported", LITE0]
    assert (mine.rows, mine.weights_sha256, mine.sha256) == (
        507,
        HASH,
        sha256_of(checkout / f"checkpoints/translators/{SPACE}/{LITE0}.safetensors"),
    )
    assert mine.r2 == pytest.approx(listed["packaged", LITE0].r2, abs=1e-12) and 0.2 < mine.r2 < 0.3


def test_another_model_other_weights_and_another_space_are_refused(checkout):
    export(fit_packaged(SPACE, LITE0), checkout / "mine")
    registry = yaml.safe_load((ROOT / "config/spaces.yaml").read_text())
    registry["warmer"] = registry[SPACE] | {"temperature": 3.0}
    (checkout / "spaces.yaml").write_text(yaml.safe_dump(registry))
    for flags, message in (
        (
            ["--model", "efficientnet_lite1", "--space", SPACE],
            f"with weights {HASH[:12]}, but efficientnet_lite1 is .* with weights 0437a714",
        ),
        (
            ["--model", "timm/resnet18.a1_in1k", "--space", SPACE],
            "fitted for timm/tf_efficientnet_lite0.in1k, but timm/resnet18.a1_in1k is",
        ),
        (["--model", LITE0, "--space", "clip_vit_l14"], r"\(384 dimensions\), which clip_vit_l14"),
        (
            ["--model", LITE0, "--space", "warmer", "--spaces", "spaces.yaml"],
            "which warmer of spaces.yaml is not",
        ),
    ):
        done = warm.singflow(ROOT, "import_translator", "--release", "mine", *flags, cwd=checkout)
        assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
    tensors, made = read_tensors(checkout / "mine/translator.safetensors", ["weight", "bias"])
    for key, model in (
        ("weights_sha256", "efficientnet_lite0 is timm/tf_efficientnet_lite0"),
        ("space_sha256", "its space has weights 0000"),
    ):
        write_tensors(checkout / "mine/translator.safetensors", tensors, {**made, key: "0" * 64})
        done = warm.singflow(
            ROOT,
            "import_translator",
            "--release",
            "mine",
            "--model",
            LITE0,
            "--space",
            SPACE,
            cwd=checkout,
        )
        assert done.returncode == 1 and model in done.stderr, done.stderr
    assert not (checkout / "checkpoints").exists()


def test_a_study_takes_an_imported_translator_for_the_weights_that_it_was_fitted_for_alone(
    checkout,
):
    export(fit_packaged(SPACE, LITE0), checkout / "mine")
    assert (
        warm.singflow(
            ROOT,
            "import_translator",
            "--release",
            "mine",
            "--model",
            LITE0,
            "--space",
            SPACE,
            cwd=checkout,
        ).returncode
        == 0
    )
    path = checkout / f"checkpoints/translators/{SPACE}/{LITE0}.safetensors"
    own = own_results(checkout)
    done = fit(checkout, f"{SPACE}/{LITE0}:{sha256_of(path)[:16]}")
    assert done.returncode == 0 and "imported" in done.stderr, done.stderr
    tensors, made = read_tensors(path, ["weight", "bias"])
    assert {"weights_sha256", "space_sha256"} <= made.keys()
    for key, name, shards in (
        ("weights_sha256", LITE0, "features"),
        ("space_sha256", SPACE, "embeddings"),
    ):
        write_tensors(path, tensors, {**made, key: "0" * 64})
        own.path("translator").unlink(missing_ok=True)
        done = fit(checkout, f"{SPACE}/{LITE0}:{sha256_of(path)[:16]}")
        assert (
            done.returncode == 1
            and f"{LITE0}.safetensors: was fitted for weights 000000000000 of {name}" in done.stderr
        ), done.stderr
        assert (
            f"{shards}/{name} was made with" in done.stderr and not own.path("translator").exists()
        )
    write_tensors(
        path, tensors, {key: value for key, value in made.items() if not key.endswith("sha256")}
    )  # as of the authors' release
    assert fit(checkout, f"{SPACE}/{LITE0}:{sha256_of(path)[:16]}").returncode == 0


def test_a_translator_of_a_study_is_exported_with_its_figures_and_its_card_says_them(checkout):
    arrays = study(checkout / "results/s")
    path = export(of_study(checkout / "results/s", SPACE, LITE0), checkout / "out")
    first = path.read_bytes()
    assert (
        export(of_study(checkout / "results/s", SPACE, LITE0), checkout / "out").read_bytes()
        == first
    )
    read = read_exported(path)
    np.testing.assert_array_equal(read.translator.weight, arrays["weight"])
    assert (read.model_id, read.weights_sha256) == ("timm/tf_efficientnet_lite0.in1k", HASH)
    (checkout / "mine").mkdir()
    (checkout / "mine/README.md").write_text("# Mine")
    with pytest.raises(
        InputError,
        match=(
            r"mine/README.md: is no card of a translator, and would be replaced by one: "
            r"name another folder"
        ),
    ):
        export(of_study(checkout / "results/s", SPACE, LITE0), checkout / "mine")
    assert not (checkout / "mine/translator.safetensors").exists()
    text = (checkout / "out/README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "timm/tf_efficientnet_lite0.in1k"
    for said in (
        "the images of study s",
        "on 40 rows",
        "On 10 images",
        "R² 0.2500",
        "lambda 3",
        HASH,
        "(384, 1280)",
    ):
        assert said in text
    assert "Known zero" not in text and "**Known zero.**" in card(
        fit_packaged(SPACE, "efficientnet_lite2")
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"reference": "packaged"}, "507 ImageNet images"),
        ({"reference": "/elsewhere/results/o"}, "features and embeddings: the images of study o."),
        ({"n_train": 0}, "it was imported"),
        ({"n_train": 0, "reference": "packaged"}, "it was imported"),
    ],
)
def test_the_card_says_whose_images_a_studys_translator_was_fitted_on(checkout, facts, words):
    study(checkout / "results/s", **facts)
    assert words in card(of_study(checkout / "results/s", SPACE, LITE0))


def test_what_a_study_lacks_is_said(checkout):
    study(checkout / "results/s")
    with pytest.raises(
        InputError, match=f"results/s has no such translator: it has {SPACE}/{LITE0}: name one"
    ):
        of_study(checkout / "results/s", SPACE, "resnet50")
    with pytest.raises(
        InputError, match="nowhere has no such translator: name a finished study's with --results"
    ):
        of_study(checkout / "nowhere", SPACE, LITE0)
    (checkout / f"results/s/embeddings/{SPACE}/shard-00000.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"embeddings/conse_minilm/shard-00000.safetensors: not here.*make fetch"
    ):
        of_study(checkout / "results/s", SPACE, LITE0)
    with pytest.raises(
        InputError,
        match=(
            "the packaged reference has no resnet50 for conse_minilm; "
            "it has efficientnet_lite0 for conse_minilm"
        ),
    ):
        fit_packaged(SPACE, "resnet50")
    with pytest.raises(InputError, match=r"does not say what it was fitted for.*export_translator"):
        read_exported(checkout / f"results/s/translators/{SPACE}/{LITE0}/linear.safetensors")


def test_all_that_are_at_hand_are_listed(checkout):
    study(checkout / "results/s")
    study(checkout / "results/t", model="timm/tf_efficientnet_lite0.in1k")
    done = warm.singflow(ROOT, "translators", cwd=checkout)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["from", "space", "model", "R2", "rows", "weights", "file"]
    packaged = [["packaged", SPACE, f"efficientnet_lite{number}"] for number in range(3)]
    assert [row[:3] for row in rows[1:]] == [
        *packaged,
        ["results/s", SPACE, LITE0],
        ["results/t", SPACE, "timm/tf_efficientnet_lite0.in1k"],
    ]
    assert rows[4][3:6] == ["0.250", "40", HASH[:12]] and rows[1][3:6] == [
        "0.238",
        "507",
        HASH[:12],
    ]
    everything = json.loads(warm.singflow(ROOT, "translators", "--json", cwd=checkout).stdout)
    assert everything[3]["weights_sha256"] == HASH and len(everything) == 5

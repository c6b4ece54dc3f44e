"""The two engines: same graph, same idea of what has to run again."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from singflow.artifacts.tensors import read_tensors
from singflow.engines.code import step_files
from singflow.engines.stages import FIRST
from singflow.pictures.rendering import TYPES as PICTURE_TYPES
from tests.project import Project

MODELS = ["efficientnet_lite0", "tiny"]
PAGE = {"write_report"}
STUDY = {"resolve_study"}  # which every change of a parameter is one of


def snakemake_graph(project):
    rows = [
        line.split("\t")
        for line in project.snakemake("--detailed-summary").splitlines()
        if line.startswith(("results/", "output_file"))
    ]
    table = pd.DataFrame(rows[1:], columns=rows[0])
    return {
        command: (
            set(group["output_file"]),
            set(filter(None, group["input-file(s)"].iloc[0].split(","))),
        )
        for command, group in table.groupby("shellcmd")
        if command not in ("", "-")
    }


def dvc_graph(project):
    from dvc.repo import Repo

    with Repo(str(project.folder)) as repo:
        stages = repo.index.stages
        base = str(project.folder)
        return {
            stage.cmd: (
                {os.path.relpath(out.fs_path, base) for out in stage.outs},
                {
                    os.path.relpath(dep.fs_path, base)
                    for dep in stage.deps
                    if dep.protocol in ("local", "file") and not hasattr(dep, "params")
                },
            )
            for stage in stages
            if stage.name != FIRST
        }


def covered(files, paths):
    """Every file is a path or lies below one, and every path is met by a file."""
    below = {
        file: {path for path in paths if file == path or file.startswith(path + "/")}
        for file in files
    }
    return all(below.values()) and set().union(*below.values()) == paths


def test_both_engines_have_the_same_commands_inputs_and_outputs(snakemake_project):
    ours, theirs = snakemake_graph(snakemake_project), dvc_graph(snakemake_project)
    assert set(ours) == set(theirs)
    assert len(ours) == 65
    for command, (outputs, inputs) in ours.items():
        dvc_outputs, dvc_inputs = theirs[command]
        assert covered(outputs, dvc_outputs), command
        # Snakemake watches one entry, as a parameter, and the local files of that entry. DVC
        # watches whole registries and a digest of all local files of the study, and compares the
        # resulting entry.
        watched = {"config/models.yaml", "config/spaces.yaml", "results/code.json"}
        assert covered(inputs, dvc_inputs - watched), (command, inputs ^ dvc_inputs)


def test_every_parameter_in_a_dvc_command_is_declared_so_that_params_diff_shows_it(
    snakemake_project,
):
    stages = yaml.safe_load((snakemake_project.folder / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        body = stage.get("do", stage)
        used = set(re.findall(r"\$\{([\w.]+)\}", body["cmd"])) - {"study"}
        used = {key for key in used if key != "item" and not key.startswith("item.")}
        used |= set(
            re.findall(r"\$\{([\w.]+)\}", str(stage.get("foreach", stage.get("matrix"))))
        ) - {"extraction.shard_ids"}
        declared = {key for key in body.get("params", []) if isinstance(key, str)}
        in_paths = {"models", "spaces", "comparison.models", "comparison.kinds"}
        missing = {
            key
            for key in used - in_paths
            if key not in declared and key.split(".")[0] not in declared
        }
        assert not missing, (name, missing)


def test_rule_script_and_stage_have_one_name(snakemake_project):
    folder = snakemake_project.folder
    rules = {
        name
        for path in (folder / "rules").glob("*.smk")
        for name in re.findall(r'^step\(\s*"(\w+)"', path.read_text(), flags=re.M)
    }
    stages = set(yaml.safe_load((folder / "dvc.yaml").read_text())["stages"])
    assert rules | {FIRST} == stages == set(step_files(folder))


def test_the_artifacts_fulfil_the_contract(snakemake_project):
    results = snakemake_project.folder / "results/demo"
    manifest = pd.read_parquet(results / "data/manifest.parquet")
    assert list(manifest.columns) == [
        "image_id",
        "path",
        "label",
        "class_index",
        "prompt",
        "split",
        "fold",
        "width",
        "height",
        "sha256",
    ]
    assert (results / "data/rejected.csv").read_text() == "path,reason\n"
    for shard in ("00000", "00001"):
        features, metadata = read_tensors(
            results / f"features/efficientnet_lite0/shard-{shard}.safetensors",
            ["features", "image_id", "view"],
        )
        embeddings, _ = read_tensors(
            results / f"embeddings/conse_minilm/shard-{shard}.safetensors",
            ["embeddings", "image_id", "view"],
        )
        assert {key: (str(value.dtype), value.shape) for key, value in features.items()} == {
            "features": ("float32", (20, 1280)),
            "image_id": ("int64", (20,)),
            "view": ("int32", (20,)),
        }
        assert embeddings["embeddings"].shape == (20, 384)
        assert {
            "schema_version",
            "study",
            "model",
            "weights_sha256",
            "head_max_error",
            "top1",
            "software",
        } <= set(metadata)
        assert str(snakemake_project.folder) not in json.dumps(metadata)
    head, _ = read_tensors(
        results / "features/efficientnet_lite0/head.safetensors", ["weight", "bias"]
    )
    assert (head["weight"].shape, head["bias"].shape) == ((1000, 1280), (1000,))
    prompts, _ = read_tensors(
        results / "prompts/conse_minilm.safetensors", ["label_embeddings", "concept_embeddings"]
    )
    names = json.loads((results / "prompts/conse_minilm.json").read_text())
    assert prompts["label_embeddings"].shape == (len(names["labels"]), 384) == (19, 384)
    assert prompts["concept_embeddings"].shape == (len(names["concepts"]), 384) == (30, 384)
    projector, _ = read_tensors(
        results / "projectors/efficientnet_lite0.safetensors", ["singular_values", "null_basis"]
    )
    assert {key: (str(value.dtype), value.shape) for key, value in projector.items()} == {
        "singular_values": ("float64", (1000,)),
        "null_basis": ("float64", (1280, 280)),
    }
    report = json.loads((results / "projectors/efficientnet_lite0.json").read_text())
    assert set(report) == {
        "rank",
        "null_dim",
        "rule",
        "tolerance",
        "orthonormality_error",
        "max_logit_change",
    } | {"weight_dtype", "rank_stored", "rank_float64"}
    assert (
        report["rank"],
        report["rank_stored"],
        report["rank_float64"],
        report["weight_dtype"],
    ) == (1000, 1000, 1000, "float32")
    assert report["orthonormality_error"] <= 1e-12 and report["max_logit_change"] <= 1e-4
    tensors = ["weight", "bias", "fold_weight", "fold_bias"]
    translator, _ = read_tensors(
        results / "translators/conse_minilm/efficientnet_lite0/linear.safetensors", tensors
    )
    assert [translator[name].shape for name in tensors] == [
        (384, 1280),
        (384,),
        (5, 384, 1280),
        (5, 384),
    ]
    fit = json.loads(
        (results / "translators/conse_minilm/efficientnet_lite0/linear.json").read_text()
    )
    contract = {
        "alpha",
        "validation_cosine",
        "validation_mse",
        "validation_r2",
        "baseline_cosine",
        "n_train",
        "n_validation",
        "alpha_curve",
    }
    assert contract | {"lambda"} <= set(fit)
    assert (fit["n_train"], fit["n_validation"], fit["n_held_out"], fit["folds"]) == (40, 20, 4, 5)
    scores = pd.read_parquet(results / "scores/conse_minilm/efficientnet_lite0.parquet")
    assert list(scores.columns) == [
        "image_id", "label", "class_index", "predicted_index", "fold", "is_deg", "as_deg",
        "as_contrast_deg", "angle_original_deg", "angle_equivalent_deg", "conditional_is_deg",
        "conditional_as_deg", "null_energy", "logit_change", "control_is_deg", "control_as_deg",
        "matched_is_deg", "matched_as_deg", "floor_is_deg",
    ]  # fmt: skip
    assert list(scores["image_id"]) == list(range(20)) and scores.notna().all().all()
    zero_shot = pd.read_parquet(results / "zero_shot/conse_minilm/efficientnet_lite0.parquet")
    assert list(zero_shot.columns) == ["image_id", "label", "translated", "equivalent", "embedding"]
    assert (
        list(zero_shot["label"]) == list(scores["label"])
        and (zero_shot["embedding"] == zero_shot["label"]).mean() > 0.8
    )
    assert (scores["is_deg"] > 0).all()
    classes, _ = read_tensors(
        results / "classes/conse_minilm/efficientnet_lite0.safetensors",
        ["class_embeddings", "other_embeddings"],
    )
    named = ["class_embeddings", "word_weights", "offset"]
    words, _ = read_tensors(results / "evidence/conse_minilm/efficientnet_lite0.safetensors", named)
    assert {name: tensor.shape for name, tensor in words.items()} == {
        "class_embeddings": (1000, 384),
        "word_weights": (5,),
        "offset": (384,),
    }
    assert np.array_equal(words["class_embeddings"], classes["class_embeddings"])
    np.testing.assert_allclose(np.linalg.norm([*classes.values()], axis=2), 1.0, atol=1e-5)
    evidence = json.loads((results / "evidence/conse_minilm/efficientnet_lite0.json").read_text())
    assert set(evidence) == {
        "n", "principal_dim", "null_dim", "r2", "r2_words", "unique_r2", "unique_r2_low",
        "unique_r2_high", "unique_r2_without", "margin", "p", "turn_deg", "turn_low_deg",
        "turn_high_deg", "floor_is_deg", "floor_is_sd", "detectable", "blind_unique_r2", "lambdas",
        "known_zero", "known_leak",
    }  # fmt: skip
    assert (evidence["n"], evidence["principal_dim"], evidence["null_dim"]) == (20, 1000, 280)
    assert (
        evidence["unique_r2_low"] < evidence["unique_r2"] < evidence["unique_r2_high"]
        and len(evidence["unique_r2_without"]) == 5
    )
    images = pd.read_parquet(results / "evidence_images/conse_minilm/efficientnet_lite0.parquet")
    assert list(images.columns) == [
        "image_id",
        "floor_is_deg",
        "conditional_is_deg",
        "conditional_as_deg",
    ]
    assert all(images[column].equals(scores[column]) for column in images)
    assert images["floor_is_deg"].mean() == pytest.approx(evidence["floor_is_deg"], abs=1e-9)
    planted = pd.read_parquet(results / "evidence/conse_minilm/efficientnet_lite0.parquet")
    assert list(planted.columns) == ["share", "draw", "unique_r2", "unique_r2_low", "p"]
    assert planted.groupby("share").size().to_dict() == {0.0: 4, 0.01: 4, 0.03: 4, 0.1: 4}
    extension = pd.read_parquet(results / "head_extensions/conse_minilm/efficientnet_lite0.parquet")
    kinds = {"directions": "int64"} | dict.fromkeys(
        ["unique_r2", "unique_r2_low", "unique_r2_high"], "float64"
    )
    assert extension.dtypes.map(str).to_dict() == kinds
    assert (
        list(extension["directions"]) == list(range(281))
        and (extension["unique_r2_low"] <= extension["unique_r2_high"]).all()
    )
    assert extension["unique_r2"].iloc[[0, -1]].tolist() == pytest.approx(
        [0.0, evidence["unique_r2"]], abs=1e-6
    )
    assert len(pd.read_parquet(results / "head_extensions/conse_minilm/tiny.parquet")) == 1
    concepts = pd.read_parquet(results / "concepts/conse_minilm/efficientnet_lite0.parquet")
    assert list(concepts.columns) == [
        "label",
        "concept",
        "n",
        "angle_mean",
        "angle_std",
        "as_mean",
        "as_std",
        "as_abs_mean",
        "contrast_std",
    ]
    assert len(concepts) == 19 * 30
    controls = pd.read_parquet(results / "controls/conse_minilm/efficientnet_lite0.parquet")
    assert list(controls.columns) == [
        "image_id",
        "subspace",
        "dimension",
        "is_deg",
        "as_deg",
        "as_abs_deg",
        "matched_is_deg",
        "matched_as_deg",
    ]
    own = controls[(controls["dimension"] == 280)].set_index(["subspace", "image_id"])
    assert set(controls["subspace"]) == {"null", "random", "row"} and len(own) == 60
    assert list(own.loc["random", "is_deg"]) == list(scores["control_is_deg"]) and list(
        own.loc["null", "is_deg"]
    ) == list(scores["is_deg"])
    validation = pd.read_parquet(results / "null_validation/efficientnet_lite0.parquet")
    assert list(validation.columns) == [
        "image_id",
        "perturbation",
        "norm",
        "logit_change",
        "top1_changed",
        "softmax_change",
    ]
    assert (
        validation.groupby("perturbation")["logit_change"].max()["null"]
        < 1e-4
        < validation.groupby("perturbation")["logit_change"].min()["random"]
    )
    steering = pd.read_parquet(results / "steering/conse_minilm/efficientnet_lite0.parquet")
    assert list(steering.columns) == [
        "image_id", "label", "prompt", "target_is_deg", "step", "is_deg", "as_target_deg",
        "as_label_deg", "logit_change", "reachable",
    ]  # fmt: skip
    assert (
        steering["reachable"].all()
        and (steering["is_deg"] - steering["target_is_deg"]).abs().max() <= 1e-3
    )
    assert steering["logit_change"].max() <= 1e-4 and (steering["as_target_deg"] > 0).all()
    probe = json.loads((results / "probes/conse_minilm/efficientnet_lite0.json").read_text())
    assert {"accuracy_principal", "accuracy_translated", "n_train", "n_test"} <= set(probe)
    for kind in ("mlp3", "mlp4", "residual"):
        _, made = read_tensors(
            results / f"translators/conse_minilm/efficientnet_lite0/{kind}.safetensors", []
        )
        assert made["kind"] == kind
        trained = json.loads(
            (results / f"translators/conse_minilm/efficientnet_lite0/{kind}.json").read_text()
        )
        assert contract <= set(trained) and set(trained["losses"]) == {"mse", "cosine", "both"}
    assert not list(results.rglob("*.partial"))
    neighbours = pd.read_parquet(results / "neighbours/conse_minilm/efficientnet_lite0.parquet")
    assert list(neighbours.columns) == [
        "image_id",
        "original_id",
        "original_deg",
        "equivalent_id",
        "equivalent_deg",
    ]
    assert (
        list(neighbours["image_id"]) == list(range(20))
        and (neighbours["original_id"] != neighbours["image_id"]).all()
    )
    pictures = pd.read_parquet(results / "pictures/conse_minilm/efficientnet_lite0.parquet")
    assert list(pictures.columns) == [*PICTURE_TYPES, "picture"] and set(pictures["renderer"]) == {
        "photo",
        "retrieval",
    }
    assert pictures.groupby("figure").size().to_dict() == {
        "photo": 3,
        "fig1": 6,
        "fig6": 6,
        "fig10": 6,
        "fig11": 8,
        "fig13": 12,
    }
    assert set(pd.read_parquet(results / "pictures/conse_minilm/tiny.parquet")["figure"]) == {
        "photo",
        "fig1",
    }
    for figure in (
        *(f"fig{number}" for number in (1, *range(3, 14), 15)),
        "controls",
        "rank_curves",
        "head_extensions",
    ):
        assert (results / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"figures/{figure}.pdf").read_bytes().startswith(b"%PDF")


TABLES = {
    "models": 2, "angle_ladder": 6, "labels": 38, "label_correlations": 1, "controls": 5,
    "orders": 1, "model_pairs": 0, "order_agreement": 0, "concepts": 380, "spurious": None,
    "steering": 4, "translators": 10, "null_validation": 6, "rank_curves": 20, "head_extensions": 2,
    "probes": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_table_says_on_what_its_numbers_rest(snakemake_project, name):
    results = snakemake_project.folder / "results/demo"
    table = pd.read_csv(results / f"tables/{name}.csv", keep_default_na=False)
    assert TABLES[name] in (None, len(table))
    rule = (
        {"rank_rule"} if name != "translators" else set()
    )  # of translators, which know no null space
    quality = (
        {"translator", "validation_r2", "marks"} if name != "null_validation" else set()
    )  # of heads alone
    number = {"n", "n_images", "n_evidence", "n_labels", "n_models"} & set(
        table
    ) or name == "model_pairs"  # n_evidence in models.csv
    assert {"seed"} | rule | quality <= set(table) and number
    if quality and name != "translators":
        assert (table["translator"] == "weak").all()


def test_a_head_without_null_space_is_said_plainly_and_scores_zero(snakemake_project):
    results = snakemake_project.folder / "results/demo"
    scores = pd.read_parquet(results / "scores/conse_minilm/tiny.parquet")
    assert (
        not scores[
            ["is_deg", "as_deg", "null_energy", "logit_change", "control_is_deg", "control_as_deg"]
        ]
        .any()
        .any()
    )
    assert json.loads((results / "projectors/tiny.json").read_text())["null_dim"] == 0
    text = (results / "tables/summary.txt").read_text()
    assert "tiny: no null space: the logits see every direction, so IS = AS = 0." in text
    assert "nan" not in text.lower()
    log = (results / "logs/fit_projector/tiny.log").read_text()
    assert "this head has no null space by rule exact" in log
    for path in (results / "logs").rglob("*.log"):
        assert "Warning" not in path.read_text(), path


def test_a_study_of_twenty_images_alone_says_that_they_make_a_weak_translator(snakemake_project):
    text = (snakemake_project.folder / "results/demo/tables/summary.txt").read_text()
    assert "efficientnet_lite0*" in text
    assert "* WEAK TRANSLATOR" in text


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_a_second_run_of_either_engine_does_nothing(engine, request):
    project = request.getfixturevalue(f"{engine}_project")
    if engine == "snakemake":
        assert "Nothing to be done" in project.snakemake()
    else:
        output = project.dvc("repro")
        assert project.ran_by_dvc(output) == []


def test_snakemake_has_nothing_to_do_after_dvc(dvc_project):
    assert "Nothing to be done" in dvc_project.snakemake()


def test_neither_engine_has_anything_to_do_after_snakemake_has_published(published):
    assert published.ran_by_dvc(published.dvc("repro")) == []
    assert "Nothing to be done" in published.snakemake()


def both(projects):
    snakemake_project, dvc_project = projects
    return snakemake_project.planned(), dvc_project.changed()


@pytest.fixture
def projects(snakemake_project, dvc_project):
    saved = {
        name: (snakemake_project.folder / name).read_bytes()
        for name in (
            "params.yaml",
            "config/models.yaml",
            *(
                f"src/singflow/{name}.py"
                for name in ("analyses/metrics", "study", "artifacts/catalog")
            ),
        )
    }
    yield snakemake_project, dvc_project
    resolved = (dvc_project.folder / "config/models.yaml").read_bytes() != saved[
        "config/models.yaml"
    ]
    for project in (snakemake_project, dvc_project):
        for name, content in saved.items():
            (project.folder / name).write_bytes(content)
    if resolved:
        dvc_project.dvc("repro", "resolve_model")


def test_touching_every_file_re_runs_nothing(snakemake_project, dvc_project, tmp_path):
    projects = [
        project.copy(tmp_path / str(number))
        for number, project in enumerate((snakemake_project, dvc_project))
    ]
    for project in projects:
        for path in sorted(project.folder.rglob("*"), reverse=True):
            if path.is_file() and not {".git", ".snakemake", ".dvc"} & set(
                path.relative_to(project.folder).parts
            ):
                path.touch()
    assert both(projects) == (set(), set())


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "steps"),
    [
        ("analyses/metrics.py", "def unit", "# a comment\n\n\n\ndef unit", set()),
        ("analyses/metrics.py", r'""".*?"""', '"""Other words."""', set()),
        (
            "study.py",
            "class Params",
            "class Unused(Section):\n    key: int = 1\n\n\nclass Params",
            set(),
        ),
        (
            "artifacts/catalog.py",
            r"CATALOG: dict.*? = \{",
            'CATALOG = {"new": Artifact("new/{model}.parquet", "New."),',
            set(),
        ),
        (
            "analyses/metrics.py",
            r"def rescale\(.*?\n\n\n",
            "def rescale(*given):\n    return 1\n\n\n",
            {"render_pictures"},
        ),
        (
            "analyses/metrics.py",
            r"def angles_to_all_deg\(.*",
            "def angles_to_all_deg(*given):\n    return 1\n\n\n",
            {"scan_concepts", "measure_null_removal"},
        ),
    ],
)
def test_an_edit_of_code_re_runs_exactly_the_steps_that_it_can_change(
    projects, file, pattern, replacement, steps
):
    for project in projects:
        project.edit(f"src/singflow/{file}", pattern, replacement)
    expected = {f"{step}@conse_minilm-{model}" for step in steps for model in MODELS}
    assert both(projects) == (expected, expected)


@pytest.mark.parametrize(
    ("pattern", "replacement", "steps"),
    [
        (r"draws: 4", "draws: 5", {f"measure_evidence@conse_minilm-{model}" for model in MODELS}),
        (r"extremes: 8", "extremes: 7", {"plot_concepts"}),
        (r"unusual_labels: \[\]", "unusual_labels: [goose]", {"summarize"}),
        (
            r"target_is_deg: \[5.0",
            "target_is_deg: [6.0",
            {
                f"{step}@conse_minilm-{model}"
                for step in ("steer_concepts", "render_pictures")
                for model in MODELS
            },
        ),
        (
            r"guidance: 8.0",
            "guidance: 7.0",
            {f"render_pictures@conse_minilm-{model}" for model in MODELS},
        ),
        (r"max_images: 10000", "max_images: 10", set()),
        (
            r"epochs: 3",
            "epochs: 4",
            {
                f"train_translator@conse_minilm-efficientnet_lite0-{kind}"
                for kind in ("mlp3", "mlp4", "residual")
            },
        ),
        (
            r"max_draws: 5",
            "max_draws: 6",
            {f"measure_controls@conse_minilm-{model}" for model in MODELS},
        ),
        (r"most: 40", "most: 30", {"plot_concept_scans"}),
        (r"per_class:  ", "per_class: 1", {"build_manifest"}),
        (
            r"rule: exact",
            "rule: centered",
            {"fit_projector@efficientnet_lite0", "fit_projector@tiny"},
        ),
    ],
)
def test_one_changed_parameter_re_runs_exactly_its_steps(projects, pattern, replacement, steps):
    for project in projects:
        project.edit("params.yaml", pattern, replacement)
    assert both(projects) == (
        steps | STUDY,
        (steps or PAGE) | STUDY,
    )  # Snakemake's reason for the page is that resolve_study runs
    assert (steps or PAGE) | STUDY | PAGE <= projects[0].planned(direct=False)


@pytest.mark.parametrize(
    ("pattern", "replacement", "first", "later"),
    [
        (r"resamples: 200", "resamples: 300", {"summarize"}, {"compare_models"}),
        (
            r"- 1\.0\n",
            "- 2.0\n",
            *(
                {f"{step}@conse_minilm-{model}" for model in MODELS}
                for step in ("fit_translator", "measure_evidence")
            ),
        ),
        (
            r"an image of a jellyfish",
            "a jeep",
            {"embed_prompts@conse_minilm"},
            {
                f"{step}@conse_minilm-{model}"
                for step in ("steer_concepts", "render_pictures")
                for model in MODELS
            },
        ),
    ],
)
def test_a_parameter_of_two_steps_of_which_one_follows_the_other_re_runs_both(
    projects, pattern, replacement, first, later
):
    for project in projects:
        project.edit("params.yaml", pattern, replacement)
    snakemake_project, dvc_project = projects
    assert dvc_project.changed() == first | later | STUDY
    assert (
        snakemake_project.planned() == first | STUDY
    )  # of the others it gives the earlier step as the reason
    assert later <= snakemake_project.planned(direct=False)


def test_one_changed_registry_entry_re_runs_its_model_alone(projects):
    for project in projects:
        project.edit(
            "config/models.yaml", r"weights: random", "weights: random\n  reported_top1: 1.0"
        )
    snakemake_project, dvc_project = projects
    assert snakemake_project.planned() == {"resolve_model@tiny"}
    extraction = {"extract_head@tiny", "extract_features@00000-tiny", "extract_features@00001-tiny"}
    planned = snakemake_project.planned(direct=False)
    others = ("build_manifest", "embed_images", "embed_prompts")
    assert extraction <= planned and not [
        job for job in planned if "lite0" in job or job.startswith(others)
    ]
    dvc_project.dvc("repro", "resolve_model")
    assert (
        dvc_project.changed() == extraction | {"summarize"} | PAGE
    )  # which compares top-1 with what the entry reports


def test_an_added_registry_entry_re_runs_no_model(projects):
    for project in projects:
        (project.folder / "config/models.yaml").open("a").write(
            "\nother:\n  source: timm\n  id: test_vit.r160_in1k\n  weights: random\n"
        )
    snakemake_project, dvc_project = projects
    assert snakemake_project.planned(direct=False) == set()
    dvc_project.dvc("repro", "resolve_model")
    assert dvc_project.changed() == set()


def test_an_added_model_runs_its_own_steps_and_the_summaries(projects):
    for project in projects:
        project.edit("params.yaml", r"lite0, tiny\]", "lite0, tiny, efficientnet_lite1]")
    snakemake_project, dvc_project = projects
    planned = snakemake_project.planned(direct=False)
    gather = {"summarize", "compare_models", "list_concepts", "tabulate_steering"}
    figures = {
        f"plot_{name}"
        for name in (
            *(
                "scores",
                "labels",
                "concepts",
                "null_validation",
                "probes",
                "concept_scans",
                "controls",
                "rank_curves",
            ),
            *("head_extensions", "pictures", "angle_ladder"),
        )
    }
    after_summary = {"plot_translators"}
    assert {
        job for job in planned if "lite1" not in job
    } == gather | figures | after_summary | PAGE | STUDY
    assert {
        job for job in dvc_project.changed() if "lite1" not in job
    } == gather | figures | PAGE | STUDY


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A checkout without results, whose study each test writes anew."""
    return Project(tmp_path_factory.mktemp("untouched"))


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (
            "  views: 2",
            "  veiws: 2",
            "params.yaml: extraction.veiws: unknown key; did you mean 'views'?",
        ),
        (
            r"- 0\.001\n",
            "- -1.0\n",
            (
                "params.yaml: translator.lambdas.0: -1.0 Input should be greater than or equal "
                "to 0.000001"
            ),
        ),
        (
            r"tiny\]",
            "efficientnet_lite9]",
            "models.yaml: no entry 'efficientnet_lite9'.*did you mean 'efficientnet_lite",
        ),
        (
            r"spaces: \[conse_minilm\]",
            "spaces: [clip]",
            "spaces.yaml: no entry 'clip': it has conse_minilm",
        ),
        ("study: demo", "study: ../demo", "params.yaml: study: '../demo' may hold only letters"),
        (
            "study: demo",
            "study: a;touch$(x)",
            "params.yaml: study: 'a;touch\\$\\(x\\)' may hold only letters",
        ),
        (
            "config/vocab/concepts.txt",
            "config/vocab/no such.txt",
            "Missing input files for rule embed_prompts",
        ),
    ],
)
def test_a_bad_study_stops_snakemake_before_any_job(untouched, pattern, replacement, message):
    project = untouched
    project.study()
    project.edit("params.yaml", pattern, replacement)
    done = project.run("snakemake", "--cores", "1", check=False)
    assert done.returncode == 1
    assert re.search(message, done.stdout), done.stdout[-2000:]
    assert not list((project.folder / "results").rglob("*.parquet"))


def test_an_unknown_key_stops_dvc_at_its_first_step(untouched):
    project = untouched
    project.study()
    (project.folder / "params.yaml").open("a").write("\nunheard_of: 1\n")
    done = project.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "params.yaml: unheard_of: unknown key" in done.stdout
    assert not list((project.folder / "results").rglob("*.safetensors"))


def test_a_missing_image_folder_is_named_and_leaves_no_half_file(tmp_path):
    project = Project(tmp_path)
    project.edit("params.yaml", "source: packaged", "source: folder")
    project.edit("params.yaml", "root: [.]", "root: no such folder")
    for command in (
        ("snakemake", "--cores", "2", "results/demo/data/manifest.parquet"),
        ("dvc", "repro", "build_manifest"),
    ):
        done = project.run(*command, check=False)
        assert done.returncode != 0
        assert (
            "error: data.root no such folder: no such folder: correct data.root in params.yaml"
            in done.stdout
        )
        assert "Traceback" not in done.stdout
    files = {path.name for path in (project.folder / "results").rglob("*") if path.is_file()}
    assert files == {"build_manifest.log", "code.json"}

"""The two engines: same graph, same idea of what has to run again."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from singflow.artifacts.tensors import read_tensors
from singflow.engines.stages import FIRST
from singflow.pictures.rendering import TYPES as PICTURE_TYPES
from tests.project import Project

MODELS = ["efficientnet_lite0", "tiny"]
PAGE = {"write_report"}
STUDY = {"resolve_study"}  # which every change of a parameter is one of
LITE0 = "conse_minilm/efficientnet_lite0"


def snakemake_graph(project):
    said = project.snakemake("--detailed-summary").splitlines()
    columns, *rows = [
        line.split("\t") for line in said if line.startswith(("results/", "output_file"))
    ]
    table = pd.DataFrame(rows, columns=columns)
    jobs = {}
    for command, group in table[~table["shellcmd"].isin(["", "-"])].groupby("shellcmd"):
        inputs = set(filter(None, group["input-file(s)"].iloc[0].split(",")))
        jobs[command] = set(group["output_file"]), inputs
    return jobs


def dvc_graph(project):
    from dvc.repo import Repo

    def local(items):
        files = [item for item in items if item.protocol in ("local", "file")]
        return {
            os.path.relpath(item.fs_path, project.folder)
            for item in files
            if not hasattr(item, "params")
        }

    with Repo(str(project.folder)) as repo:
        stages = [stage for stage in repo.index.stages if stage.name != FIRST]
        return {stage.cmd: (local(stage.outs), local(stage.deps)) for stage in stages}


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
    assert len(ours) == 67
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
        items = str(stage.get("foreach", stage.get("matrix")))
        used = set(re.findall(r"\$\{([\w.]+)\}", body["cmd"] + items))
        in_paths = {"study", "item", "models", "spaces", "extraction.shard_ids"}
        in_paths |= {"comparison.models", "comparison.kinds"}
        declared = {key for key in body.get("params", []) if isinstance(key, str)}
        missing = {
            key
            for key in used - in_paths - declared
            if key.split(".")[0] not in {"item"} | declared
        }
        assert not missing, (name, missing)


COLUMNS = {
    "data/manifest": "image_id path label class_index prompt split fold width height sha256",
    f"scores/{LITE0}": (
        "image_id label class_index predicted_index fold is_deg as_deg as_contrast_deg "
        "angle_original_deg angle_equivalent_deg conditional_is_deg conditional_as_deg null_energy "
        "logit_change control_is_deg control_as_deg matched_is_deg matched_as_deg floor_is_deg"
    ),
    f"zero_shot/{LITE0}": "image_id label translated equivalent embedding",
    f"evidence_images/{LITE0}": "image_id floor_is_deg conditional_is_deg conditional_as_deg",
    f"evidence/{LITE0}": "share draw unique_r2 unique_r2_low p",
    f"head_extensions/{LITE0}": "directions unique_r2 unique_r2_low unique_r2_high",
    f"concepts/{LITE0}": (
        "label concept n angle_mean angle_std as_mean as_std as_abs_mean contrast_std"
    ),
    f"controls/{LITE0}": (
        "image_id subspace dimension is_deg as_deg as_abs_deg matched_is_deg matched_as_deg"
    ),
    "unusual/efficientnet_lite0": (
        "image_id label class_index null_energy max_softmax energy vim_residual nusa mahalanobis"
    ),
    "null_validation/efficientnet_lite0": (
        "image_id perturbation norm logit_change top1_changed softmax_change"
    ),
    f"steering/{LITE0}": (
        "image_id label prompt target_is_deg step is_deg as_target_deg as_label_deg logit_change "
        "reachable"
    ),
    f"neighbours/{LITE0}": "image_id original_id original_deg equivalent_id equivalent_deg",
    f"pictures/{LITE0}": " ".join([*PICTURE_TYPES, "picture"]),
    f"maps/{LITE0}": (
        "image_id map text row column value conditional_deg beyond as_deg first_order_deg rest_deg "
        "threshold_deg others left top right bottom"
    ),
}
ROWS = {"image_id": ("int64", (20,)), "view": ("int32", (20,))}
TENSORS = {
    **{
        f"features/efficientnet_lite0/shard-{shard}": {"features": ("float32", (20, 1280))} | ROWS
        for shard in ("00000", "00001")
    },
    "features/efficientnet_lite0/head": {
        "weight": ("float32", (1000, 1280)), "bias": ("float32", (1000,)),
    },
    "embeddings/conse_minilm/shard-00000": {"embeddings": ("float32", (20, 384))} | ROWS,
    "prompts/conse_minilm": {
        "label_embeddings": ("float32", (19, 384)), "concept_embeddings": ("float32", (30, 384)),
    },
    "projectors/efficientnet_lite0": {
        "singular_values": ("float64", (1000,)), "null_basis": ("float64", (1280, 280)),
    },
    f"translators/{LITE0}/linear": {
        "weight": ("float32", (384, 1280)), "bias": ("float32", (384,)),
        "fold_weight": ("float32", (5, 384, 1280)), "fold_bias": ("float32", (5, 384)),
    },
    f"evidence/{LITE0}": {
        "class_embeddings": ("float32", (1000, 384)), "word_weights": ("float64", (5,)),
        "offset": ("float64", (384,)),
    },
}  # fmt: skip
FITTED = (
    "alpha validation_cosine validation_mse validation_r2 baseline_cosine n_train n_validation "
    "alpha_curve"
)
KEYS = {  # and whether there are no others
    "projectors/efficientnet_lite0": (
        "rank null_dim rule tolerance orthonormality_error max_logit_change weight_dtype "
        "rank_stored rank_float64", True,
    ),
    f"translators/{LITE0}/linear": (f"{FITTED} lambda", False),
    **{f"translators/{LITE0}/{kind}": (FITTED, False) for kind in ("mlp3", "mlp4", "residual")},
    f"evidence/{LITE0}": (
        "n principal_dim null_dim r2 r2_words unique_r2 unique_r2_low unique_r2_high "
        "unique_r2_without margin p turn_deg turn_low_deg turn_high_deg floor_is_deg floor_is_sd "
        "detectable blind_unique_r2 lambdas known_zero known_leak", True,
    ),
    "unusual/efficientnet_lite0": ("n_fit principal_dim in_sample", True),
    f"probes/{LITE0}": ("accuracy_principal accuracy_translated n_train n_test", False),
}  # fmt: skip


@pytest.fixture(scope="module")
def results(snakemake_project):
    return snakemake_project.folder / "results/demo"


@pytest.fixture(scope="module")
def read(results):
    """A reader of artifacts by name and suffix."""

    def read(name, suffix="parquet"):
        if suffix == "json":
            return json.loads((results / f"{name}.json").read_text())
        if suffix == "parquet":
            return pd.read_parquet(results / f"{name}.parquet")
        return read_tensors(results / f"{name}.safetensors", list(TENSORS.get(name, [])))

    return read


def test_the_artifacts_have_the_columns_tensors_and_keys_of_the_contract(read):
    for name, columns in COLUMNS.items():
        assert list(read(name).columns) == columns.split(), name
    for name, tensors in TENSORS.items():
        found, _ = read(name, "safetensors")
        assert tensors == {key: (str(value.dtype), value.shape) for key, value in found.items()}
    for name, (keys, all_keys) in KEYS.items():
        found = set(read(name, "json"))
        assert found == set(keys.split()) if all_keys else found >= set(keys.split()), name


def test_the_numbers_of_artifacts_fit_together(read, results):
    assert (results / "data/rejected.csv").read_text() == "path,reason\n"
    report = read("projectors/efficientnet_lite0", "json")
    assert report["rank_float64"] == 1000 and report["max_logit_change"] <= 1e-4
    fit = read(f"translators/{LITE0}/linear", "json")
    assert (fit["n_train"], fit["n_validation"], fit["n_held_out"], fit["folds"]) == (40, 20, 4, 5)

    scores, zero_shot = read(f"scores/{LITE0}"), read(f"zero_shot/{LITE0}")
    assert list(scores["image_id"]) == list(range(20)) and scores.notna().all().all()
    assert (scores["is_deg"] > 0).all() and list(zero_shot["label"]) == list(scores["label"])
    assert (zero_shot["embedding"] == zero_shot["label"]).mean() > 0.8
    names = ["class_embeddings", "other_embeddings"]
    classes = read_tensors(results / f"classes/{LITE0}.safetensors", names)[0]
    words = read(f"evidence/{LITE0}", "safetensors")[0]
    assert np.array_equal(words["class_embeddings"], classes["class_embeddings"])
    np.testing.assert_allclose(np.linalg.norm([*classes.values()], axis=2), 1.0, atol=1e-5)
    evidence = read(f"evidence/{LITE0}", "json")
    assert (evidence["n"], evidence["principal_dim"], evidence["null_dim"]) == (20, 1000, 280)
    assert evidence["unique_r2_low"] < evidence["unique_r2"] < evidence["unique_r2_high"]
    assert len(evidence["unique_r2_without"]) == 5
    images, planted = read(f"evidence_images/{LITE0}"), read(f"evidence/{LITE0}")
    assert images["floor_is_deg"].mean() == pytest.approx(evidence["floor_is_deg"], abs=1e-9)
    assert planted.groupby("share").size().to_dict() == dict.fromkeys((0.0, 0.01, 0.03, 0.1), 4)
    extension = read(f"head_extensions/{LITE0}")
    assert list(extension["directions"]) == list(range(281))
    assert (extension["unique_r2_low"] <= extension["unique_r2_high"]).all()
    ends = [0.0, evidence["unique_r2"]]
    assert extension["unique_r2"].iloc[[0, -1]].tolist() == pytest.approx(ends, abs=1e-6)
    assert len(read("head_extensions/conse_minilm/tiny")) == 1

    assert len(read(f"concepts/{LITE0}")) == 19 * 30
    controls = read(f"controls/{LITE0}")
    assert (controls["dimension"] == 280).sum() == 60
    steering = read(f"steering/{LITE0}")
    assert steering["reachable"].all() and steering["logit_change"].max() <= 1e-4

    neighbours, pictures = read(f"neighbours/{LITE0}"), read(f"pictures/{LITE0}")
    assert list(neighbours["image_id"]) == list(range(20))
    assert (neighbours["original_id"] != neighbours["image_id"]).all()
    assert set(pictures["renderer"]) == {"photo", "words"}
    assert (pictures.loc[pictures["renderer"] == "words", "word_1"] != "").all()
    assert pictures["figure"].eq("fig11").sum() == 8  # a pair for each kind of translator
    maps = read(f"maps/{LITE0}").query("map == 'toward label'").groupby("image_id")
    assert (maps["others"].max() == 3).all()  # of the fold
    found = maps["value"].sum() - scores.set_index("image_id")["as_deg"][[*maps.groups]]
    assert len(found) == 3 and found.abs().max() < 1e-3
    assert read("maps/conse_minilm/tiny").empty
    assert not list(results.rglob("*.partial"))


TABLES = {
    "models": 2, "angle_ladder": 6, "labels": 38, "label_correlations": 1, "controls": 5,
    "orders": 1, "model_pairs": 0, "order_agreement": 0, "concepts": 380, "spurious": None,
    "steering": 4, "translators": 10, "null_validation": 6, "rank_curves": 20, "head_extensions": 2,
    "probes": 2, "unusual": 12, "maps": 7,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_table_says_on_what_its_numbers_rest(results, name):
    table = pd.read_csv(results / f"tables/{name}.csv", keep_default_na=False)
    assert TABLES[name] in (None, len(table))
    # Translators know no null space; these two are of heads alone.
    of_heads = name in ("null_validation", "unusual")
    wanted = {"seed"} if name == "translators" else {"seed", "rank_rule"}
    if not of_heads:
        wanted |= {"translator", "validation_r2", "marks"}
    assert wanted <= set(table)
    numbers = {"n", "n_images", "n_evidence", "n_labels", "n_models", "n_usual"}
    assert numbers & set(table) or name == "model_pairs"  # n_evidence in models.csv
    if name != "translators" and not of_heads:
        assert (table["translator"] == "weak").all()


def test_a_head_without_null_space_is_said_plainly_and_scores_zero(read, results):
    scores = read("scores/conse_minilm/tiny")
    zero = ["is_deg", "as_deg", "null_energy", "logit_change", "control_is_deg", "control_as_deg"]
    assert not scores[zero].any().any()
    assert read("projectors/tiny", "json")["null_dim"] == 0
    text = (results / "tables/summary.txt").read_text()
    assert "tiny: no null space: the logits see every direction, so IS = AS = 0." in text
    assert "nan" not in text.lower()
    log = (results / "logs/fit_projector/tiny.log").read_text()
    assert "this head has no null space by rule exact" in log
    for path in (results / "logs").rglob("*.log"):
        assert "Warning" not in path.read_text(), path


@pytest.mark.parametrize("made_by", ["snakemake_project", "dvc_project", "published"])
def test_neither_engine_has_anything_to_do_after_either_or_after_publishing(made_by, request):
    project = request.getfixturevalue(made_by)
    assert "Nothing to be done" in project.snakemake()
    if made_by != "snakemake_project":  # of which DVC has no record
        assert project.ran_by_dvc(project.dvc("repro")) == []


def both(projects):
    snakemake_project, dvc_project = projects
    return snakemake_project.planned(), dvc_project.changed()


EDITED = [
    *("params.yaml", "config/models.yaml"),
    *(f"src/singflow/{name}.py" for name in ("analyses/metrics", "study", "artifacts/catalog")),
]


@pytest.fixture
def projects(snakemake_project, dvc_project):
    saved = {name: (snakemake_project.folder / name).read_bytes() for name in EDITED}
    yield snakemake_project, dvc_project
    registry = dvc_project.folder / "config/models.yaml"
    resolved = registry.read_bytes() != saved["config/models.yaml"]
    for project in (snakemake_project, dvc_project):
        for name, content in saved.items():
            (project.folder / name).write_bytes(content)
    if resolved:
        dvc_project.dvc("repro", "resolve_model")


def test_touching_every_file_re_runs_nothing(snakemake_project, dvc_project, tmp_path):
    copies = snakemake_project.copy(tmp_path / "0"), dvc_project.copy(tmp_path / "1")
    for project in copies:
        for path in sorted(project.folder.rglob("*"), reverse=True):
            engines = {".git", ".snakemake", ".dvc"} & set(path.relative_to(project.folder).parts)
            if path.is_file() and not engines:
                path.touch()
    assert both(copies) == (set(), set())


NEW = 'CATALOG = {"new": Artifact("new/{model}.parquet", "New."),'
WITHOUT_EFFECT = [
    ("analyses/metrics", "def unit", "# a comment\n\n\n\ndef unit"),
    ("analyses/metrics", r'""".*?"""', '"""Other words."""'),
    ("study", "class Params", "class Unused(Section):\n    key: int = 1\n\n\nclass Params"),
    ("artifacts/catalog", r"CATALOG: dict.*? = \{", NEW),
]
OTHER = "def {}(*given):\n    return 1\n\n\n"
WITH_EFFECT = [
    ("analyses/metrics", r"def rescale\(.*?\n\n\n", OTHER.format("rescale")),
    ("analyses/metrics", r"def angles_to_all_deg\(.*", OTHER.format("angles_to_all_deg")),
]


@pytest.mark.parametrize(
    ("edits", "steps"),
    [(WITHOUT_EFFECT, []), (WITH_EFFECT, ["render_pictures", "scan_concepts", "measure_controls"])],
)
def test_an_edit_of_code_re_runs_exactly_the_steps_that_it_can_change(projects, edits, steps):
    for project in projects:
        for file, pattern, replacement in edits:
            project.edit(f"src/singflow/{file}.py", pattern, replacement)
    assert both(projects) == (of_models(*steps), of_models(*steps))


def of_models(*steps):
    """Jobs of steps for each model in the space."""
    return {f"{step}@conse_minilm-{model}" for step in steps for model in MODELS}


READ_BY = {  # steps by the parameters that a test or a guide changes
    "evidence.draws": {"measure_evidence"},
    "plot_concepts.extremes": {"plot_concepts"},
    "null_energy.unusual_labels": {"summarize", "measure_unusual", "tabulate_unusual"},
    "steering.target_is_deg": {"steer_concepts", "render_pictures"},
    "pictures.guidance": {"render_pictures", "map_images", "plot_maps"},
    "report.max_images": {"write_report"},
    "training.epochs": {"train_translator"},
    "controls.max_draws": {"measure_controls"},
    "plot_concept_scans.most": {"plot_concept_scans"},
    "data.per_class": {"build_manifest"},
    "projector.rule": {"fit_projector"},
    "summary.resamples": {"summarize", "compare_models"},
    "translator.lambdas": {"fit_translator", "measure_evidence", "map_images"},
    "translator.reference": {
        *("build_manifest", "embed_prompts", "fit_translator", "train_translator"),
        *("measure_evidence", "measure_unusual", "map_images"),
    },
    "steering.prompts": {"embed_prompts", "steer_concepts", "render_pictures", "map_images"},
}


def test_dvc_watches_a_parameter_for_exactly_the_steps_that_read_it(snakemake_project):
    stages = yaml.safe_load((snakemake_project.folder / "dvc.yaml").read_text())["stages"]
    declared = {
        name: {key for key in stage.get("do", stage).get("params", []) if isinstance(key, str)}
        for name, stage in stages.items()
    }
    for key, steps in READ_BY.items():
        named = {key, key.split(".")[0]}
        assert {name for name, keys in declared.items() if keys & named} == steps, key


@pytest.mark.parametrize(
    ("pattern", "replacement", "steps"),
    [
        (r"draws: 4", "draws: 5", of_models("measure_evidence")),
        (r"extremes: 8", "extremes: 7", {"plot_concepts"}),
        (r"max_images: 10000", "max_images: 10", set()),
        (r"per_class:  ", "per_class: 1", {"build_manifest"}),
    ],
)
def test_one_changed_parameter_re_runs_exactly_its_steps(projects, pattern, replacement, steps):
    for project in projects:
        project.edit("params.yaml", pattern, replacement)
    # Snakemake's reason for the page is that resolve_study runs.
    assert both(projects) == (steps | STUDY, (steps or PAGE) | STUDY)
    assert (steps or PAGE) | STUDY | PAGE <= projects[0].planned(direct=False)


def test_a_parameter_of_two_steps_of_which_one_follows_the_other_re_runs_both(projects):
    for project in projects:
        project.edit("params.yaml", r"an image of a jellyfish", "a jeep")
    snakemake_project, dvc_project = projects
    first = {"embed_prompts@conse_minilm"}
    later = of_models("steer_concepts", "render_pictures", "map_images")
    assert dvc_project.changed() == first | later | STUDY
    # Of the others Snakemake gives the earlier step as the reason.
    assert snakemake_project.planned() == first | STUDY
    assert later <= snakemake_project.planned(direct=False)


def test_a_changed_registry_entry_re_runs_its_model_alone_and_an_added_one_nothing(projects):
    added = "\nother:\n  source: timm\n  id: test_vit.r160_in1k\n  weights: random\n"
    for project in projects:
        (project.folder / "config/models.yaml").open("a").write(added)
        known = "weights: random\n  reported_top1: 1.0"
        project.edit("config/models.yaml", r"weights: random", known)
    snakemake_project, dvc_project = projects
    planned = snakemake_project.planned(direct=False)
    extraction = {"extract_head@tiny", "extract_features@00000-tiny", "extract_features@00001-tiny"}
    others = ("build_manifest", "embed_images", "embed_prompts")
    assert extraction <= planned and snakemake_project.planned() == {"resolve_model@tiny"}
    assert not [job for job in planned if "lite0" in job or job.startswith(others)]
    dvc_project.dvc("repro", "resolve_model")
    # The summary compares top-1 with what the entry reports, and maps need the classifier.
    later = {"map_images@conse_minilm-tiny", "summarize"} | PAGE
    assert dvc_project.changed() == extraction | later


def test_an_added_model_runs_its_own_steps_and_the_summaries(projects):
    for project in projects:
        project.edit("params.yaml", r"lite0, tiny\]", "lite0, tiny, efficientnet_lite1]")
    planned, changed = projects[0].planned(direct=False), projects[1].changed()
    gather = {"summarize", "compare_models", "list_concepts"}
    gather |= {"tabulate_steering", "tabulate_unusual"}
    figures = "scores labels concepts null_validation probes concept_scans controls rank_curves"
    figures += " head_extensions pictures angle_ladder maps"
    gather |= {f"plot_{name}" for name in figures.split()} | PAGE | STUDY
    after_summary = {"plot_translators"}
    assert {job for job in planned if "lite1" not in job} == gather | after_summary
    assert {job for job in changed if "lite1" not in job} == gather


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A checkout without results, whose study each test writes anew."""
    return Project(tmp_path_factory.mktemp("untouched"))


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("  views: 2", "  veiws: 2", "params.yaml: extraction.veiws: unknown key; did you mean"),
        (r"tiny\]", "efficientnet_lite9]", "models.yaml: no entry 'efficientnet_lite9'.*did you"),
        (
            "study: demo",
            "study: a;touch$(x)",
            "params.yaml: study: 'a;touch\\$\\(x\\)' may hold only letters",
        ),
        ("vocab/concepts.txt", "vocab/no such.txt", "Missing input files for rule embed_prompts"),
    ],
)
def test_a_bad_study_stops_snakemake_before_any_job(untouched, pattern, replacement, message):
    untouched.study()
    untouched.edit("params.yaml", pattern, replacement)
    done = untouched.run("snakemake", "--cores", "1", check=False)
    assert done.returncode == 1 and re.search(message, done.stdout), done.stdout[-2000:]
    assert not list((untouched.folder / "results").rglob("*.parquet"))


def test_an_unknown_key_stops_dvc_at_its_first_step(untouched):
    untouched.study()
    (untouched.folder / "params.yaml").open("a").write("\nunheard_of: 1\n")
    done = untouched.run("dvc", "repro", check=False)
    assert done.returncode != 0 and "params.yaml: unheard_of: unknown key" in done.stdout
    assert not list((untouched.folder / "results").rglob("*.safetensors"))


def test_a_missing_image_folder_is_named_and_leaves_no_half_file(tmp_path):
    project = Project(tmp_path)
    project.study(data={"source": "folder", "root": "no such folder"})
    for command in (
        ("snakemake", "--cores", "2", "results/demo/data/manifest.parquet"),
        ("dvc", "repro", "build_manifest"),
    ):
        done = project.run(*command, check=False)
        fix = "error: data.root no such folder: no such folder: correct data.root in params.yaml"
        assert done.returncode != 0 and fix in done.stdout and "Traceback" not in done.stdout
    files = {path.name for path in (project.folder / "results").rglob("*") if path.is_file()}
    assert files == {"build_manifest.log", "code.json"}

"""The two engines: same graph, same idea of what has to run again."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

from singflow.artifacts.catalog import CATALOG, artifact_of
from singflow.engines.dvc import FIRST
from singflow.pictures.rendering import TYPES as PICTURE_TYPES
from tests.project import Project

MODELS = ["efficientnet_lite0", "tiny"]
DVC = pytest.mark.nightly  # what runs the study by the other engine, too
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
    assert len(ours) == 54
    for command, (outputs, inputs) in ours.items():
        dvc_outputs, dvc_inputs = theirs[command]
        assert covered(outputs, dvc_outputs), command
        # Snakemake watches one entry, as a parameter, and the local files of that entry. DVC
        # watches whole registries and a digest of all local files of the study, and compares the
        # resulting entry.
        folders, kinds = ("config", "src/singflow/packaged"), ("models", "spaces")
        watched = {f"{folder}/{kind}.yaml" for folder in folders for kind in kinds}
        watched |= {"results/code.json"}
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


@pytest.fixture(scope="module")
def results(snakemake_project):
    return snakemake_project.folder / "results/demo"


@pytest.fixture(scope="module")
def read(results):
    """A reader of artifacts by name and suffix."""

    def read(name, suffix="parquet"):
        path = results / f"{name}.{suffix}"
        return pd.read_parquet(path) if suffix == "parquet" else json.loads(path.read_text())

    return read


def is_described(name, about):
    """Whether a column or tensor is in the text on its artifact, which may shorten its name."""
    shortened = {
        name,
        re.sub("_(low|high)$", "", name),
        re.sub(r"(?<=^word_)\d", "1", name),
        re.sub(r"^([a-z]+)[_.].*", r"\1_*", name),
        re.sub(r"^([a-z]+)[_.].*", r"\1.*", name),
    }
    return any(re.search(rf"(?<![\w.]){re.escape(form)}(?!\w)", about) for form in shortened)


def test_every_artifact_holds_what_docs_artifacts_says_of_it(results):
    found = set()
    for path in filter(Path.is_file, results.rglob("*")):
        place = path.relative_to(results).as_posix()
        name = artifact_of(place)
        assert name or place.startswith(("logs/", "benchmarks/", "figures/", "dvc.yaml")), place
        found.add(name)
        if path.suffix == ".parquet":
            columns = pd.read_parquet(path).dtypes
            assert all(is_described(column, CATALOG[name].about) for column in columns.index), place
            assert CATALOG[name].columns.items() <= {n: d.kind for n, d in columns.items()}.items()
        if path.suffix == ".safetensors":
            about, expected = CATALOG[name].about, CATALOG[name].tensors
            for tensor, array in load_file(path).items():
                kind = (array.dtype.kind, array.ndim)
                assert is_described(tensor, about), (place, tensor)
                assert str(array.dtype) in about or kind[0] == "i", (place, tensor)
                assert expected.get(tensor, kind) == kind, (place, tensor)
    assert {*CATALOG} <= found
    for name in ("projector_report", "evidence"):
        for path, _ in CATALOG[name].among(results):
            keys = json.loads(path.read_text())
            assert all(is_described(key, CATALOG[name].about) for key in keys), path


def test_the_numbers_of_artifacts_fit_together(read, results):
    assert (results / "data/rejected.csv").read_text() == "path,reason\n"
    fit = read(f"translators/{LITE0}/linear", "json")
    assert (fit["n_train"], fit["n_validation"], fit["n_held_out"], fit["folds"]) == (40, 20, 4, 5)
    scores, zero_shot = read(f"scores/{LITE0}"), read(f"zero_shot/{LITE0}")
    assert list(scores["image_id"]) == list(range(20)) and scores.notna().all().all()
    assert (scores["is_deg"] > 0).all() and list(zero_shot["label"]) == list(scores["label"])
    assert (zero_shot["embedding"] == zero_shot["label"]).mean() > 0.8
    classes, words = (
        load_file(results / f"{folder}/{LITE0}.safetensors") for folder in ("classes", "evidence")
    )
    assert np.array_equal(words["class_embeddings"], classes["class_embeddings"])
    evidence = read(f"evidence/{LITE0}", "json")
    assert (evidence["n"], evidence["principal_dim"], evidence["null_dim"]) == (20, 1000, 280)
    assert evidence["unique_r2_low"] <= evidence["unique_r2"] <= evidence["unique_r2_high"]
    floor = read(f"evidence_images/{LITE0}")["floor_is_deg"].mean()
    assert floor == pytest.approx(evidence["floor_is_deg"], abs=1e-9)
    pictures = read(f"pictures/{LITE0}")
    assert {*pictures} >= {*PICTURE_TYPES} and set(pictures["renderer"]) == {"photo", "words"}
    assert pictures["figure"].eq("fig11").sum() == 8  # a pair for each kind of translator


TABLES = {
    "models": 2, "angle_ladder": 6, "labels": 38,
    "hidden_texts": 0, "hidden_groups": 0,
    "orders": 1, "model_pairs": 0, "concepts": 380, "spurious": None,
    "steering": 4, "translators": 10, "null_validation": 6, "probes": 2,
}  # fmt: skip


def test_every_table_says_on_what_its_numbers_rest(results):
    for name, rows in TABLES.items():
        table = pd.read_csv(results / f"tables/{name}.csv", keep_default_na=False)
        assert rows in (None, len(table)), name
        # Translators know no null space; one of the tables is of heads alone.
        of_heads = name == "null_validation"
        wanted = {"seed"} if name == "translators" else {"seed", "rank_rule"}
        if not of_heads:
            wanted |= {"translator", "validation_r2", "marks"}
        assert wanted <= set(table), name
        numbers = {"n", "n_images", "n_evidence", "n_labels", "n_models"}
        assert numbers & set(table) or name == "model_pairs"  # n_evidence in models.csv
        if name != "translators" and not of_heads:
            assert (table["translator"] == "weak").all(), name


def test_a_head_without_null_space_is_said_plainly_and_scores_zero(read, results):
    scores = read("scores/conse_minilm/tiny")
    assert not scores[["is_deg", "as_deg", "null_energy", "logit_change"]].any().any()
    assert read("projectors/tiny", "json")["null_dim"] == 0
    translator = read("translators/conse_minilm/tiny/linear", "json")
    r2 = read("evidence/conse_minilm/tiny", "json")["r2"]
    assert r2 == pytest.approx(translator["validation_r2"], abs=1e-4)
    text = (results / "tables/summary.txt").read_text()
    assert "tiny: no null space: the logits see every direction." in text
    assert "nan" not in text.lower()
    log = (results / "logs/fit_projector/tiny.log").read_text()
    assert "this head has no null space by rule exact" in log
    for path in (results / "logs").rglob("*.log"):
        assert "Warning" not in path.read_text(), path


@pytest.mark.parametrize(
    "made_by",
    ["snakemake_project", *(pytest.param(n, marks=DVC) for n in ("dvc_project", "published"))],
)
def test_neither_engine_has_anything_to_do_after_either_or_after_publishing(made_by, request):
    project = request.getfixturevalue(made_by)
    assert "Nothing to be done" in project.snakemake()
    if made_by != "snakemake_project":  # of which DVC has no record
        assert project.ran_by_dvc(project.dvc("repro")) == []


OWN, PACKAGED = "config/models.yaml", "src/singflow/packaged/models.yaml"
EDITED = [
    *("params.yaml", OWN, PACKAGED, "config/vocab/concepts.txt", "scripts/fit_projector.py"),
    *("src/singflow/cli.py", "src/singflow/study.py", "src/singflow/artifacts/catalog.py"),
    *("src/singflow/analyses/steering.py", "src/singflow/analyses/metrics.py"),
]


class Finished:
    """The study as an engine has finished it, which a test edits."""

    def __init__(self, project, *, by_dvc):
        self.project, self.by_dvc = project, by_dvc

    def stale(self):
        return self.project.changed() if self.by_dvc else self.project.planned()


@pytest.fixture(
    scope="module",
    params=["snakemake_project", pytest.param("dvc_project", marks=DVC)],
    ids=["Snakemake", "DVC"],
)
def made(request):
    return Finished(request.getfixturevalue(request.param), by_dvc=request.param == "dvc_project")


@pytest.fixture
def finished(made):
    project = made.project
    saved = {name: (project.folder / name).read_bytes() for name in EDITED}
    yield made
    resolved = (project.folder / OWN).read_bytes() != saved[OWN]
    for name, content in saved.items():
        (project.folder / name).write_bytes(content)
    if made.by_dvc and resolved:
        project.dvc("repro", "resolve_model")


def test_touching_every_file_re_runs_nothing(made, tmp_path):
    copy = made.project.copy(tmp_path / "copy")
    for path in sorted(copy.folder.rglob("*"), reverse=True):
        engines = {".git", ".snakemake", ".dvc"} & set(path.relative_to(copy.folder).parts)
        if path.is_file() and not engines:
            path.touch()
    assert Finished(copy, by_dvc=made.by_dvc).stale() == set()


NEW = 'CATALOG: dict[str, Artifact] = {"new": Artifact("new/{model}.parquet", "New."),'
WITHOUT_EFFECT = [
    ("analyses/metrics", "def unit", "# a comment\n\n\n\ndef unit"),
    ("analyses/metrics", r'""".*?"""', '"""Other words."""'),
    ("study", "class Params", "class Unused(Section):\n    key: int = 1\n\n\nclass Params"),
    ("artifacts/catalog", r"CATALOG: dict.*? = \{", NEW),
    ("cli", "100_000, 50, 50", "100_000, 50, 51"),
]


def test_comments_docstrings_and_what_all_steps_share_re_run_nothing(finished):
    for file, pattern, replacement in WITHOUT_EFFECT:
        finished.project.edit(f"src/singflow/{file}.py", pattern, replacement)
    assert finished.stale() == set()


def test_an_edit_of_code_re_runs_exactly_the_steps_that_import_it(finished):
    finished.project.edit("src/singflow/analyses/steering.py", "$", "\n\nNEW = 1\n")
    first = of_models("steer_concepts", "render_pictures")
    later = {"tabulate_steering", "plot_pictures", "plot_angle_ladder"}
    if finished.by_dvc:
        assert finished.stale() == first | later
    else:  # of the others Snakemake gives the earlier step as the reason
        assert finished.stale() == first
        planned = {job.partition("@")[0] for job in finished.project.planned(direct=False)}
        assert later < planned and not {"fit_projector", "measure_scores", "summarize"} & planned


def test_an_edit_of_a_script_or_of_the_words_re_runs_the_steps_that_use_them(finished):
    finished.project.edit("scripts/fit_projector.py", "$", "\n\nNEW = 1\n")
    finished.project.edit("config/vocab/concepts.txt", "$", "a new concept\n")
    fitted = {f"fit_projector@{model}" for model in MODELS}
    assert finished.stale() == fitted | {"embed_prompts@conse_minilm"}


def test_another_explanation_in_params_yaml_is_written_and_runs_nothing_else(finished):
    finished.project.edit("src/singflow/study.py", "any whole number", "a whole number")
    assert finished.stale() == (set() if finished.by_dvc else STUDY)


def test_touched_files_are_kept_over_an_update_that_changes_no_number(snakemake_project, tmp_path):
    project = snakemake_project.copy(tmp_path / "copy")
    project.edit("src/singflow/analyses/steering.py", "$", "\n\nNEW = 1\n")
    steered = of_models("steer_concepts", "render_pictures")
    assert project.planned() == steered
    files = [f"results/demo/steering/conse_minilm/{model}.parquet" for model in MODELS]
    project.snakemake("--touch", *files)
    assert project.planned() == of_models("render_pictures") | {"tabulate_steering"}
    project.snakemake("--touch")
    assert "Nothing to be done" in project.snakemake()
    assert project.differs(snakemake_project) == set()


def of_models(*steps):
    """Jobs of steps for each model in the space."""
    return {f"{step}@conse_minilm-{model}" for step in steps for model in MODELS}


READ_BY = {  # steps by the parameters that a test or a guide changes
    "evidence.draws": {"measure_evidence"},
    "plot_concepts.extremes": {"plot_concepts"},
    "steering.target_is_deg": {"steer_concepts", "render_pictures"},
    "pictures.guidance": {"render_pictures"},
    "report.max_images": {"write_report"},
    "training.epochs": {"train_translator"},
    "data.per_class": {"build_manifest"},
    "projector.rule": {"fit_projector"},
    "summary.resamples": {"summarize"},
    "translator.lambdas": {"fit_translator", "measure_evidence"},
    "translator.reference": {
        *("build_manifest", "embed_prompts", "fit_translator", "train_translator"),
        *("measure_evidence", "probe_principal"),
    },
    "plot_labels.labels": {"plot_labels"},
    "plot_concepts.labels": {"plot_concepts"},
    "steering.labels": {"steer_concepts", "render_pictures"},
    "steering.prompts": {"embed_prompts", "steer_concepts", "render_pictures"},
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


def test_changed_parameters_re_run_exactly_the_steps_that_read_them(finished):
    finished.project.edit("params.yaml", "draws: 4", "draws: 5")
    finished.project.edit("params.yaml", "max_images: 10000", "max_images: 10")
    steps = of_models("measure_evidence") | STUDY
    # Snakemake's reason for the page is that resolve_study runs.
    assert finished.stale() == (steps | PAGE if finished.by_dvc else steps)


def test_another_choice_of_labels_is_checked_and_runs_no_tower(finished):
    for before, after in (("plot_labels:\n", ""), ("plot_concepts:\n", ""), ("", ".*?steered")):
        place = rf"(?<={before})  labels: \[\](?={after})"
        finished.project.edit("params.yaml", place, "  labels: [beaker]")
    steps = {"plot_labels", "plot_concepts"} | of_models("steer_concepts", "render_pictures")
    assert finished.stale() == steps | STUDY
    if not finished.by_dvc:
        later = {job.partition("@")[0] for job in finished.project.planned(direct=False)}
        assert not later & {"build_manifest", "extract_head", "extract_features", "embed_images"}


def test_a_parameter_of_two_steps_of_which_one_follows_the_other_re_runs_both(finished):
    finished.project.edit("params.yaml", "an image of a jellyfish", "a jeep")
    first = {"embed_prompts@conse_minilm"} | STUDY
    later = of_models("steer_concepts", "render_pictures")
    if finished.by_dvc:
        assert finished.stale() == first | later
    else:  # of the others Snakemake gives the earlier step as the reason
        assert finished.stale() == first
        assert later | PAGE <= finished.project.planned(direct=False)


def test_a_changed_registry_entry_re_runs_its_model_alone_and_an_added_one_nothing(finished):
    project = finished.project
    added = "\nother:\n  source: timm\n  id: test_vit.r160_in1k\n  weights: random\n"
    (project.folder / OWN).open("a").write(added)
    project.edit(OWN, "weights: random", "weights: random, reported_top1: 1.0")
    extraction = {"extract_head@tiny", "extract_features@00000-tiny", "extract_features@00001-tiny"}
    if finished.by_dvc:
        project.dvc("repro", "resolve_model")
        # The summary compares top-1 with what the entry reports.
        later = {"summarize"} | PAGE
        assert finished.stale() == extraction | later
    else:
        planned = project.planned(direct=False)
        others = ("build_manifest", "embed_images", "embed_prompts")
        assert extraction <= planned and finished.stale() == {"resolve_model@tiny"}
        assert not [job for job in planned if "lite0" in job or job.startswith(others)]


def test_a_changed_packaged_entry_re_runs_its_model_as_an_own_one_does(finished):
    finished.project.edit(PACKAGED, r"reported_top1: 75\.1", "reported_top1: 75.2")
    # DVC watches whole registries, and then compares the resulting entries.
    models = MODELS if finished.by_dvc else ["efficientnet_lite0"]
    assert finished.stale() == {f"resolve_model@{model}" for model in models}


def test_an_added_model_runs_its_own_steps_and_the_summaries(finished):
    finished.project.edit("params.yaml", r"lite0, tiny\]", "lite0, tiny, efficientnet_lite1]")
    gather = {"summarize", "compare_models", "list_concepts", "tabulate_steering"}
    figures = "scores labels concepts null_validation probes hidden_texts pictures angle_ladder"
    gather |= {f"plot_{name}" for name in figures.split()} | PAGE | STUDY
    after_summary = {"plot_translators"}
    stale = finished.stale() if finished.by_dvc else finished.project.planned(direct=False)
    expected = gather if finished.by_dvc else gather | after_summary
    assert {job for job in stale if "lite1" not in job} == expected


def test_a_bad_study_stops_either_engine_before_any_job(tmp_path):
    project, snakemake, file = Project(tmp_path), "snakemake --cores 1", "params.yaml: "
    for command, place, other, said in (
        (snakemake, "  views: 2", "  veiws: 2", f"{file}extraction.veiws: unknown key; did you"),
        (snakemake, "vocab/conc", "vocab/no conc", "Missing input files for rule embed_prompts"),
        ("dvc repro", "seed: 0", "unheard_of: 1\nseed: 0", f"{file}unheard_of: unknown key"),
    ):
        project.study()
        project.edit("params.yaml", place, other)
        assert said in project.refused(*command.split())
        assert not re.search(r"parquet|safetensors", str(list((tmp_path / "results").rglob("*"))))


@pytest.mark.parametrize(
    "command", [("snakemake", "--cores", "1"), pytest.param(("dvc", "repro"), marks=DVC)]
)
def test_a_label_that_no_image_has_stops_either_engine_before_the_first_tower(tmp_path, command):
    project, results = Project(tmp_path), tmp_path / "results"
    said = "no image has the label 'bull mastif' (did you mean 'bull mastiff'?)"
    manifest = "results/demo/data/manifest.parquet"
    for key in ("plot_labels", "steering"):
        # first where the images are not listed yet, then where they are
        project.study(**{key: {"labels": ["beaker", "bull mastif"]}})
        assert f"{key}.labels: {said}" in project.refused(*command)
        assert (project.folder / manifest).is_file() == (key == "steering")
        assert not list(results.rglob("shard-*"))
        project.study()
        project.run(*command, *([manifest] if command[0] == "snakemake" else ["build_manifest"]))


def test_a_missing_image_folder_is_named_and_leaves_no_half_file(tmp_path):
    project = Project(tmp_path)
    project.study(data={"source": "folder", "root": "no such folder"})
    for command in (
        ("snakemake", "--cores", "2", "results/demo/data/manifest.parquet"),
        ("dvc", "repro", "build_manifest"),
    ):
        fix = "error: data.root no such folder: no such folder: correct data.root in params.yaml"
        assert fix in project.refused(*command)
    files = {path.name for path in (project.folder / "results").rglob("*") if path.is_file()}
    assert files == {"build_manifest.log", "code.json"}

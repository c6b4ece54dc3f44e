"""dvc.yaml beside the rules, and studies that go back and forth between Snakemake and DVC.

After every flow the results are compared, by content, with those of a study that Snakemake alone
computes from nothing.
"""

import os
import re
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
import yaml

from singflow.artifacts.catalog import CATALOG, IN_GIT, TIERS
from singflow.engines.code import PACKAGE, modules_of, step_files
from singflow.engines.flags import at
from singflow.engines.records import made_elsewhere
from singflow.study import with_derived_keys
from tests.project import ROOT, Project

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
RULE = re.compile(
    r"^(?:use rule \w+ as |rule )(\w+)(?: with)?:\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL
)
RULES = {
    name: (f"rules/{path.name}", text)
    for path in (ROOT / "rules").glob("*.smk")
    for name, text in RULE.findall(path.read_text(encoding="utf-8"))
}
RESULTS = "results/${study}"


def part(rule, keyword):
    """What a rule says after a keyword."""
    (found,) = re.findall(rf"^    {keyword}:\n(.*?)(?=^    \w)", RULES[rule][1], re.M | re.S) or [
        ""
    ]
    return found


def artifacts(text):
    """Artifacts that an input or output names."""
    names = {*re.findall(r'"([\w./]+)"', text)} | {
        f"figures/{name}.png" for name in re.findall(r'figure\("(\w+)"\)', text)
    }
    return names & CATALOG.keys()


def tier_of(rule):
    (tier,) = {CATALOG[name].tier for name in artifacts(part(rule, "output"))}
    return tier


def watched(tier):
    """Files, folders and keys of params.yaml that a stage depends on."""
    stage = DVC["stages"][tier]
    keys = {key for key in stage["params"] if isinstance(key, str)}
    return {*stage["deps"]}, keys, {"params.yaml": None} in stage["params"]


def lacking(rule):
    """What a rule reads and its stage does not watch."""
    deps, keys, everything = watched(tier_of(rule))
    made = {f"{RESULTS}/{name}" for name in TIERS[tier_of(rule)]}
    file, text = RULES[rule]

    def there(path):
        return any(path == place or path.startswith(f"{place}/") for place in deps | made)

    for name in artifacts(part(rule, "input")):
        if not there(f"{RESULTS}/{CATALOG[name].path.split('/')[0]}"):
            yield name
    given = re.findall(r'"([\w.= ]+)"', re.search(r"\*\*step\((.*?)\),\n", text, re.S)[1])
    flags = " ".join(given[1:]).split()
    read = [flag.partition("=")[2] or flag for flag in flags if flag not in CATALOG]
    for key in [*read, *re.findall(r'own\("([\w.]+)"\)', text)]:
        parts = key.split(".")
        if not everything and not {".".join(parts[: n + 1]) for n in range(len(parts))} & keys:
            yield key
    yield from (f"${{{key}}}" for key in re.findall(r'own\("([\w.]+)"\)', text)
                if f"${{{key}}}" not in deps)  # fmt: skip
    program = step_files(ROOT)[rule]
    code = [program, *(PACKAGE.joinpath(*name.split(".")[1:]) for name in modules_of(program))]
    for path in code:
        path = path if path.suffix else path / "__init__.py" if path.is_dir() else f"{path}.py"
        name = re.sub(r".*/(?=scripts/|src/)", "", str(path))
        if not there(name):
            yield name
    needed = {file, "rules/common.smk"}
    needed |= {"reference/imagenet507"} if 'state("reference")' in text else set()
    needed |= {"checkpoints"} if "own_files(" in text else set()
    needed |= {f"config/{kind}s.yaml" for kind in re.findall(r'state\("(model|space)"\)', text)}
    needed |= {"src/singflow/packaged"} if re.search(r'state\("(model|space)"\)', text) else set()
    yield from sorted(needed - deps)


def test_a_stage_watches_whatever_its_rules_read():
    assert RULES.keys() == step_files(ROOT).keys()
    assert {rule: [*lacking(rule)] for rule in RULES if [*lacking(rule)]} == {}


def test_a_stage_has_the_folders_of_its_tier_and_nothing_that_no_rule_reads():
    assert DVC["stages"].keys() == TIERS.keys()
    params = with_derived_keys({"study": "x", "models": []})
    for tier, names in TIERS.items():
        stage = DVC["stages"][tier]
        kept = [key for metric in stage.get("metrics", []) for key in metric]
        assert {*stage["outs"], *kept} == {f"{RESULTS}/{name}" for name in names}
        assert {path.removeprefix(f"{RESULTS}/") for path in kept} <= {*IN_GIT}
        deps, keys, _ = watched(tier)
        assert all(at(params, key) is not ... for key in keys)  # KeyError: there is no such key
        for dep in deps:
            place = ROOT / dep
            assert "${" in dep or place.exists(), dep
            rules = {file for rule, (file, _) in RULES.items() if tier_of(rule) == tier}
            assert not dep.startswith("rules/") or dep in rules | {"rules/common.smk"}, dep
        for dep in (dep for dep in deps if dep.startswith("scripts/")):
            assert tier_of(dep.removeprefix("scripts/").removesuffix(".py")) == tier, dep


OTHER = """
other: {source: timm, id: test_vit.r160_in1k, weights: random}
"""
SMALLEST = {
    "models": ["tiny"],
    "analyses": ["zero_shot"],
    "comparison": {"models": [], "kinds": []},
    "evidence": {"draws": 2},
    "extraction": {"views": 1, "shards": 2},
}
LATE = {"translator": {"lambdas": [0.1, 10.0]}}
EARLY = {"extraction": {"views": 2, "shards": 2}}
MODELS = {"models": ["tiny", "other"]}
AFTER = {"translators", "analyses", "report"}  # the tiers that LATE changes


def write(project, **differences):
    project.study(**(SMALLEST | differences))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkout with the smallest study, computed by `dvc repro` and pushed."""
    project = Project(tmp_path_factory.mktemp("base") / "checkout")
    (project.folder / "config/models.yaml").open("a").write(OTHER)
    write(project)
    project.dvc("remote", "modify", "local", "url", str(project.folder.parent / "store"))
    project.commit()
    project.dvc("repro")
    project.commit()
    project.dvc("push")
    return project


@pytest.fixture(scope="module")
def truth(base, tmp_path_factory):
    """A function: the artifacts that Snakemake makes from nothing of a study with differences."""
    known = {}

    def truth(**differences):
        key = repr(differences)
        if key not in known:
            project = base.clone(tmp_path_factory.mktemp("truth") / "checkout")
            write(project, **differences)
            project.snakemake()
            known[key] = project.artifacts()
        return known[key]

    return truth


@pytest.fixture
def clone(base, tmp_path):
    """What a colleague has cloned."""
    return base.clone(tmp_path / "clone")


def repro(project):
    """Stages that `dvc repro` ran. Afterwards neither engine has anything to do."""
    ran = {*project.ran_by_dvc(project.dvc("repro"))}
    assert project.changed() == set()
    assert "Nothing to be done" in project.snakemake("--dry-run")
    return ran


def test_a_clone_pulls_and_another_late_parameter_runs_no_tower(clone, truth):
    clone.dvc("pull")
    assert clone.artifacts() == truth()
    clone.command("fetch")
    assert clone.changed() == set() and "Nothing to be done" in clone.snakemake("--dry-run")
    write(clone, **LATE)
    assert repro(clone) == AFTER
    assert clone.artifacts() == truth(**LATE)
    clone.edit("src/singflow/analyses/evidence.py", '"""', '"""Other words. ')
    assert "Nothing to be done" in clone.snakemake("--dry-run")
    assert clone.changed() == {"analyses", "report"}
    clone.dvc("commit", "--force")
    assert clone.changed() == set()


@pytest.mark.nightly
def test_snakemake_adds_a_model_and_dvc_records_it(base, truth, tmp_path):
    project = base.copy(tmp_path / "checkout")
    write(project, **MODELS)
    said = project.snakemake()
    assert "rule extract_features" in said and "model=tiny" not in said
    assert project.changed() != set()
    project.dvc("commit", "--force")
    assert project.changed() == set() and repro(project) == set()
    assert project.artifacts() == truth(**MODELS)


def test_results_made_elsewhere_are_named_before_anything_runs(base, truth, tmp_path):
    for way in ("copied", "checked out"):
        project = base.clone(tmp_path / way)
        if way == "copied":
            shutil.copytree(base.folder / "results", project.folder / "results", dirs_exist_ok=True)
        else:
            project.dvc("pull")
        write(project, **EARLY)
        said = project.refused("singflow", "run", "--cores", "2")
        assert re.search(r"results/demo: \d+ files were made elsewhere .*: results/demo/", said)
        assert "`make fetch`" in said and "`snakemake --touch --forceall" in said
        assert project.artifacts() == truth() | {"params.yaml": project.artifacts()["params.yaml"]}
        write(project)
        if way == "copied":
            project.run("snakemake", "--touch", "--forceall", "--cores", "1")
        else:
            project.command("fetch")
        assert "Nothing to be done" in project.snakemake("--dry-run")
        assert project.command("run").rstrip().endswith("results/demo/report.html")
        table = project.folder / "results/demo/tables/models.csv"
        table.write_text("mine")
        assert "results/demo/tables/models.csv" in project.refused("singflow", "run")
        table.unlink()
        # of another job; DVC links equal files to one object
        os.link(project.folder / "results/demo/data/rejected.csv", table)
        with chdir(project.folder):
            assert made_elsewhere(Path("results/demo")) == []

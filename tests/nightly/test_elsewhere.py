"""The workflow in other folders, deployed by snakedeploy, and as a module of other workflows."""

import os
import re
import shutil

import pytest
import yaml

from tests.project import COMMAND, ROOT, SMALL, Project, artifacts_of, blocks, without
from tests.workflow.test_targets import BARE

PAGE = (ROOT / "docs/installation.md").read_text(encoding="utf-8")
SNAKEFILE = f"{ROOT}/Snakefile"
SIX = {"study": "six", "data": {"table": "config/vocab/packaged_six.csv"}}
ONE = {"models": ["efficientnet_lite0"], "comparison": {"models": []}}
ONE |= {"extraction": {"views": 1, "shards": 1}, "controls": {"known": "none"}}
STUDY = SMALL | SIX | ONE


def snakemake(folder, *options, **variables):
    """Exit status, and what Snakemake says in a folder of another project."""
    known = {"PYTHONPATH": f"{ROOT}/src"} | variables
    done = Project.at(folder).run("snakemake", *options, check=False, **known)
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def files_and_commands(said):
    """Lines on inputs, outputs, logs, benchmarks and commands of the steps in a dry run."""
    files = r"^    (?:input|output|log|benchmark): .*"
    steps = [block for block in re.split(r"\n\n", said) if "benchmark: " in block]
    lines = re.findall(f"{files}|{COMMAND}", "\n".join(steps), flags=re.MULTILINE)
    return sorted(line.strip().replace(f"{ROOT}/", "") for line in lines)


def module(name, **parts):
    lines = [
        f"    {key}: {value}\n" for key, value in ({"snakefile": f'"{SNAKEFILE}"'} | parts).items()
    ]
    return "".join([f"module {name}:\n", *lines, f"use rule * from {name} as {name}_*\n"])


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A checkout, and the variables with which a host of repositories has its tag v1."""
    folder = tmp_path_factory.mktemp("github")
    checkout = Project(folder / "a checkout")
    checkout.run("git", "tag", "v1")
    checkout.run(
        "git", "clone", "-q", "--bare", str(checkout.folder), str(folder / "lab/sing-flow")
    )
    host = {"KEY": f"url.{folder}/.insteadOf", "VALUE": "https://github.com/"}
    variables = {f"GIT_CONFIG_{name}_0": value for name, value in host.items()}
    variables |= {"GIT_CONFIG_COUNT": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return folder, variables | {"PYTHONPATH": str(checkout.folder / "src")}


@pytest.fixture(scope="module")
def deployed(repository, tmp_path_factory):
    """A study that ran where snakedeploy deployed the workflow."""
    if shutil.which("snakedeploy") is None:
        without("no snakedeploy: take Python 3.12 or older")
    folder, variables = repository
    project = Project.at(tmp_path_factory.mktemp("deployed"))
    deploy = ("snakedeploy", "deploy-workflow", f"{folder}/lab/sing-flow", ".", "--tag", "v1")
    project.run(*deploy)
    snakefile = (project.folder / "workflow/Snakefile").read_text()
    assert 'github("lab/sing-flow", path="Snakefile", tag="v1")' in snakefile
    study = project.folder / "config/config.yaml"
    assert study.read_text() == (ROOT / "config/studies/demo.yaml").read_text()
    study.write_text(yaml.safe_dump(STUDY))
    project.said = project.snakemake(**variables)
    return project


def test_a_deployed_workflow_runs_the_study_of_its_config_folder(deployed, repository):
    _, variables = repository
    made = artifacts_of(deployed.folder / "results/six")
    assert {"report.html", "metrics.json", "tables/models.csv", "figures/fig3.png"} <= made.keys()
    study = yaml.safe_load(made["params.yaml"])
    assert study["data"]["table"] == STUDY["data"]["table"]  # of the folder's own config/
    assert study["translator"]["reference"] == "packaged" and study["seed"] == 0
    assert str(repository[0]).encode() not in made["report.html"]
    assert "Nothing to be done" in deployed.snakemake(**variables)
    said = deployed.snakemake("--report", "report.zip", **variables)
    assert "Report created" in said and (deployed.folder / "report.zip").is_file()


def test_a_module_with_a_prefix_gives_the_same_bytes_beside_the_other_study(deployed, repository):
    _, variables = repository
    before = artifacts_of(deployed.folder / "results/six")
    config = deployed.folder / "config/second.yaml"
    config.write_text(yaml.safe_dump({"second": STUDY}))
    prefix = "été/run-1.2/their_own/"
    uses = module("second", config='config["second"]', prefix=f'"{prefix}"')
    (deployed.folder / "their.smk").write_text(f'configfile: "{config}"\n{uses}')
    made = "null_validation/efficientnet_lite0.parquet"  # far from all of the other study
    deployed.snakemake(f"{prefix}results/six/{made}", "-s", "their.smk", PYTHONPATH=f"{ROOT}/src")
    theirs = artifacts_of(deployed.folder / prefix / "results/six")
    assert {name for name in theirs if theirs[name] != before.get(name)} == set()
    assert len(theirs) > 7 and made in theirs
    assert artifacts_of(deployed.folder / "results/six") == before
    assert "Nothing to be done" in deployed.snakemake(**variables)


@pytest.mark.parametrize("prefix", ["it's theirs", "$HOME", "a;b", "two words/"])
def test_a_prefix_that_needs_quotes_in_a_shell_is_refused(tmp_path, prefix):
    uses = module("one", config=repr(STUDY), prefix=repr(prefix))
    (tmp_path / "Snakefile").write_text(uses)
    status, said = snakemake(tmp_path, "--dry-run")
    words = "results/six: give the module a prefix of letters, digits and . _ - /"
    assert status == 1 and f"{prefix.strip('/')}/{words}" in said.splitlines(), said


def test_modules_have_the_steps_of_the_checkout_in_folders_of_their_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    options = ("--cores", "2", "--dry-run", "--printshellcmds")
    status, said = snakemake(tmp_path, "-s", SNAKEFILE, "--configfile", "mine.yaml", *options)
    assert status == 0, said
    alone = files_and_commands(said)
    assert len(alone) > 125 and not any("/config/" in line for line in alone)
    one = module("one", config=repr(STUDY), prefix='"a/b"')
    two = module("two", config=repr(STUDY | {"pathvars": {"results": "c"}}))
    inputs = "rules.one_all.input, rules.two_all.input"
    (tmp_path / "Snakefile").write_text(
        f"{one}{two}rule all:\n    default_target: True\n    input: {inputs}\n"
    )
    status, said = snakemake(tmp_path, *options)
    assert status == 0, said
    both = files_and_commands(said)
    there = [line.replace("results/six", "a/b/results/six") for line in alone]
    there += [line.replace("results/six", "c/six") for line in alone]
    assert both == sorted(there)
    status, said = snakemake(tmp_path, *options, "--mode", "subprocess", SINGFLOW_STUDY="another")
    assert status == 1 and "it has changed since this run began" in said


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"models": ["efficientnet_lite0"]}, "config of one: study: missing"),
        (STUDY | {"model": []}, "config of one: model: unknown key; did you mean 'models'?"),
        (STUDY | {"models": ["lite0"]}, "models.yaml: no entry 'lite0'"),
        (STUDY | {"data": "photos"}, "config of one: data: 'photos'"),
    ],
)
def test_a_mistake_in_the_config_of_a_module_is_named(tmp_path, config, words):
    (tmp_path / "Snakefile").write_text(module("one", config=repr(config)))
    status, said = snakemake(tmp_path, "--dry-run")
    assert status == 1 and words in said, said


def test_a_snakemake_without_the_package_says_what_a_run_needs(repository, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    clone = Project.at(repository[0] / "a checkout").clone(tmp_path / "clone").folder
    bare = {"warm_start": False, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/singflow").symlink_to(ROOT / "src/singflow")  # as where a wheel is installed
    (tmp_path / "Snakefile").write_text(module("one", config=repr(STUDY)))
    wheel = bare | {"PYTHONPATH": str(tmp_path / "lib")}
    for folder, source, known in ((clone, clone, bare), (tmp_path, ROOT, bare | wheel)):
        status, said = snakemake(folder, "--dry-run", **known)
        missing = (
            "no checkout of singflow is installed beside this snakemake: run `make workflow` in a "
            f"checkout of {source} and use its .venv/bin/snakemake"
        )
        assert status == 1 and missing in said.splitlines(), said


def test_the_environment_of_conda_installs_the_package_of_the_checkout(tmp_path):
    (tmp_path / "pip").write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    (tmp_path / "pip").chmod(0o755)
    script = ("sh", f"{ROOT}/rules/environment.post-deploy.sh")
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SINGFLOW_CHECKOUT": str(ROOT)}
    done = Project.at(tmp_path).run(*script, **path)
    assert done.stdout.startswith(f"{ROOT} install --constraint constraints.txt --editable .[")


def test_the_page_shows_a_module_that_plans_its_report(tmp_path):
    (uses,) = re.findall(r"```\n(module sing:.*?)```", PAGE, flags=re.DOTALL)
    head = f"config['sing'] = {STUDY!r}\n"
    (tmp_path / "Snakefile").write_text(head + uses.replace("/data/singflow", str(ROOT)))
    status, said = snakemake(tmp_path, "--dry-run", "--quiet", "rules")
    assert status == 0 and "sing_write_report" in said, said
    (other,) = re.findall(r"`use rule \* (from sing .*?)`", PAGE)
    grouped = (tmp_path / "Snakefile").read_text().replace("from sing as sing_*", other)
    (tmp_path / "Snakefile").write_text(grouped.replace("rules.sing_", "rules."))
    status, said = snakemake(tmp_path, "--dry-run", "--profile", f"{ROOT}/slurm")
    assert status == 0 and "Group job model" in said, said
    (command,) = [block for block in blocks(PAGE) if block.startswith("snakemake -s ")]
    assert "--configfile mine.yaml" in command

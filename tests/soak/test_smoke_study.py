"""The whole plumbing of the paper, without its weights: every classifier in both spaces, as the README runs it."""

import subprocess

import pytest
import yaml

from tests.project import Project
from tests.workflow.test_paper_smoke import NULL_DIM, SPACES, assert_model, assert_model_in_spaces, assert_space, assert_table, commands


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("smoke"))
    done = subprocess.run(
        ["bash", "-euc", commands()],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # without a limit of time: it is hours on a slow machine
    assert done.returncode == 0, done.stdout[-6000:]
    project.said = done.stdout
    project.results = project.folder / "results/paper_smoke"
    return project


def test_the_smoke_study_ends_with_a_table_that_says_what_it_is_worth(smoke):
    assert_table(smoke.said, NULL_DIM)


@pytest.mark.parametrize("model", NULL_DIM)
def test_the_artifacts_of_every_model_fulfil_the_contract(smoke, model):
    assert_model(smoke.results, model)
    assert_model_in_spaces(smoke.results, model)


@pytest.mark.parametrize("space", SPACES)
def test_the_artifacts_of_both_spaces_fulfil_the_contract(smoke, space):
    assert_space(smoke.results, space, yaml.safe_load((smoke.folder / "params.yaml").read_text()))

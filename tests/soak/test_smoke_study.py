"""All steps of the paper without its weights: every classifier in both spaces, as in the README."""

from tests.project import Project
from tests.workflow.test_paper_smoke import NULL_DIM, assert_study, run_study


def test_the_smoke_study_of_all_models_says_what_it_is_worth_and_fulfils_the_contract(tmp_path):
    project = Project(tmp_path)
    run_study(project, patience=None)  # hours on a slow machine
    assert_study(project, NULL_DIM)

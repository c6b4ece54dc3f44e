"""The first stage of DVC: it checks the study and writes what the other stages depend on."""

import json

import pytest

from singflow.engines.code import digest_of, step_files
from tests import warm
from tests.project import ROOT

PARAMS = (ROOT / "params.yaml").read_text()


@pytest.fixture
def check(tmp_path):
    """A function that runs the first stage on the text of a study."""
    for name in ("scripts", "src", "config", "checkpoints", "reference"):
        (tmp_path / name).symlink_to(ROOT / name)

    def check(text):
        (tmp_path / "params.yaml").write_text(text)
        options = ("--params", "params.yaml", "--output", "code.json")
        return warm.run(ROOT / "scripts/check_study.py", *options, cwd=tmp_path)

    return check


def test_the_first_stage_writes_the_digests_of_all_steps(check, tmp_path):
    done = check(PARAMS)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "code.json").read_text())
    reference, archives, own_files = (
        said.pop(key) for key in ("reference", "archives", "own_files")
    )
    assert said == {step: digest_of(path) for step, path in step_files(ROOT).items()}
    assert (len(reference), archives, own_files) == (64, None, "")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("resamples: 2000", "resamples: 1e3", "resamples is '1e3' to Snakemake, and 1000.0 to DVC"),
        ("study: demo", "stduy: demo", "stduy: unknown key; did you mean 'study'?"),
        ("efficientnet_lite1", "efficientnet_lite9", "no entry 'efficientnet_lite9'"),
    ],
)
def test_the_first_stage_refuses_a_study_that_is_not_valid(check, right, wrong, message):
    assert right in PARAMS
    refused = check(PARAMS.replace(right, wrong, 1))
    assert refused.returncode == 1 and message in refused.stderr
    assert "Traceback" not in refused.stderr

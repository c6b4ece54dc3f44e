"""The first stage of DVC."""

from singflow.engines.code import step_files
from tests import warm
from tests.project import ROOT

STEPS = step_files(ROOT)


def test_the_first_stage_of_dvc_writes_the_digests_and_refuses_a_study_that_is_not_valid(tmp_path):
    for name in ("scripts", "src", "config", "params.yaml", "checkpoints", "reference"):
        (tmp_path / name).symlink_to(ROOT / name)

    def check(params):
        options = ("--params", params, "--output", "code.json")
        return warm.run(ROOT / "scripts/check_study.py", *options, cwd=tmp_path)

    done = check("params.yaml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "code.json").read_text().count("\n") == len(STEPS) + 5
    text = (ROOT / "params.yaml").read_text()
    for right, wrong, message in (
        ("resamples: 2000", "resamples: 1e3", "resamples is '1e3' to Snakemake, and 1000.0 to DVC"),
        ("study: demo", "stduy: demo", "stduy: unknown key; did you mean 'study'?"),
        ("efficientnet_lite1", "efficientnet_lite9", "no entry 'efficientnet_lite9'"),
    ):
        assert right in text
        (tmp_path / "wrong.yaml").write_text(text.replace(right, wrong, 1))
        refused = check("wrong.yaml")
        assert refused.returncode == 1 and message in refused.stderr
        assert "Traceback" not in refused.stderr

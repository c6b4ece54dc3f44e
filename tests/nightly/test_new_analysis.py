"""Seven files add an analysis, as in CONTRIBUTING.md, to a checkout with a finished study."""

import re
from pathlib import Path

import pandas as pd
import pytest

from singflow.artifacts.catalog import FORMATS
from tests.project import ROOT

FILES = Path(__file__).with_name("new_analysis")
STEP = "measure_feature_norms"
OWN = {f"{STEP}@efficientnet_lite0", f"{STEP}@tiny", "plot_feature_norms"}
PAGE = {"write_report", "resolve_study"}  # the page, and the study's parameters that it shows
LIST = (r"from singflow\.analyses", r"    report: Report\n")  # where lines go into study.py


def lay_over(project):
    """Copy the files; the lines for study.py go to their places."""
    files = [path for path in FILES.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in files:
        text, target = path.read_text(), project.folder / path.relative_to(FILES)
        if path.name == "study.py":
            for place, line in zip(LIST, text.split("\n\n"), strict=True):
                file = target.read_text()
                at = re.search(place, file).start()
                target.write_text(f"{file[:at]}{line.rstrip()}\n{file[at:]}")
        else:
            target.write_text(text)
    project.run("python", "-m", "singflow.engines.stages")
    project.command("study", "params.yaml")
    return [path.relative_to(FILES) for path in files]


@pytest.fixture(scope="module")
def extended(published, tmp_path_factory):
    return published.copy(tmp_path_factory.mktemp("new_analysis") / "checkout")


def test_seven_files_are_all_that_an_analysis_takes(extended):
    before, laid = extended.artifacts(), lay_over(extended)
    _, page = (ROOT / "CONTRIBUTING.md").read_text().split("## Add an analysis")
    listed = re.findall(r"^\d\. `([^`]+)`", page, flags=re.MULTILINE)
    assert {Path(name).parent for name in listed} == {name.parent for name in laid}
    assert len(listed) == len(laid) == 7

    assert extended.changed() == extended.planned(direct=False) == OWN | PAGE
    extended.snakemake()
    new = {f"figures/feature_norms.{kind}" for kind in FORMATS} | {"tables/feature_norms.csv"}
    new |= {f"feature_norms/{model}.parquet" for model in ("efficientnet_lite0", "tiny")}
    after = extended.artifacts()
    assert after.keys() - before.keys() == new
    assert extended.differs(before) == new | {"report.html", "params.yaml"}
    table = pd.read_csv(extended.folder / "results/demo/tables/feature_norms.csv")
    assert (table["norm_mean"] > 0).all() and {"rank_rule", "null_dim", "seed"} <= set(table)
    page = after["report.html"].decode()
    for shown in (
        'id="feature_norms"',
        "How long features are",
        '<option value="feature_norms">',
        "as it is in the mean over the label",
        "feature_norms:\n  order: 2.0",
    ):
        assert shown in page


def test_dvc_runs_the_same_and_an_edit_or_a_parameter_of_it_re_runs_its_own_steps_alone(extended):
    by_snakemake = extended.artifacts()
    assert f"Running stage '{STEP}" in extended.dvc("repro")
    assert extended.differs(by_snakemake) == set()
    source = "src/singflow/figures/plot_feature_norms.py"
    extended.edit(source, "mean norm of a label's features", "mean norm")
    assert extended.planned() == extended.changed() == {"plot_feature_norms"}
    extended.edit(source, "mean norm", "mean norm of a label's features")
    extended.edit("params.yaml", r"order: 2\.0", "order: 1.0")
    steps = {step for step in OWN if step.startswith("measure")} | {"resolve_study"}
    assert extended.planned() == extended.changed() == steps

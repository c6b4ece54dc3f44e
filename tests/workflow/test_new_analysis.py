"""Seven files add an analysis, as in docs/architecture.md, to a checkout with a finished study."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tests.project import ROOT

FILES = Path(__file__).with_name("new_analysis")
OWN = {
    "measure_feature_norms@efficientnet_lite0",
    "measure_feature_norms@tiny",
    "plot_feature_norms",
}
PAGE = {
    "write_report",
    "resolve_study",
}  # the page, and the record of the study's parameters that it shows


BEFORE = {  # where the paragraphs of a file go into the file that is there
    "study.py": (r"from singflow\.analyses", r"    report: Report\n"),
    "catalog.py": (r"\}\nTABLES = ", r"\}  # name: what a row is", '"controls", "rank_curves"'),
}


def lay_over(project):
    """Copy the files; what one adds to a file that is there goes to its place."""
    laid = [
        path.relative_to(FILES)
        for path in FILES.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    for name in laid:
        text, target = (FILES / name).read_text(), project.folder / name
        if name.name in BEFORE:
            for place, paragraph in zip(BEFORE[name.name], text.split("\n\n"), strict=True):
                file = target.read_text()
                at = re.search(place, file).start()
                target.write_text(f"{file[:at]}{paragraph.rstrip()}\n{file[at:]}")
        else:
            target.write_text((target.read_text() if target.exists() else "") + text)
    project.run("python", "-m", "singflow.engines.stages")
    project.command("study", "params.yaml")
    return laid


@pytest.fixture(scope="module")
def extended(published, tmp_path_factory):
    return published.copy(tmp_path_factory.mktemp("new_analysis") / "checkout")


def test_seven_files_are_all_that_an_analysis_takes(extended):
    assert extended.planned() == extended.changed() == set()
    before = extended.artifacts()
    laid = lay_over(extended)
    assert len(laid) == 7
    listed = re.findall(
        r"^\d\. `([^`]+)`", (ROOT / "docs/architecture.md").read_text(), flags=re.MULTILINE
    )
    assert {Path(name).parent for name in listed} == {name.parent for name in laid} and len(
        listed
    ) == 7

    assert extended.planned() == OWN | PAGE - {"write_report"}, (
        "the page has another reason, that these run"
    )
    assert extended.changed() == OWN | PAGE
    assert extended.planned(direct=False) == OWN | PAGE
    extended.snakemake()
    after = extended.artifacts()
    new = {"tables/feature_norms.csv", "figures/feature_norms.png", "figures/feature_norms.pdf"}
    new |= {f"feature_norms/{model}.parquet" for model in ("efficientnet_lite0", "tiny")}
    assert after.keys() - before.keys() == new
    assert {name for name in before if before[name] != after[name]} == {
        "report.html",
        "params.yaml",
    }
    table = pd.read_csv(extended.folder / "results/demo/tables/feature_norms.csv")
    assert (table["norm_mean"] > 0).all() and {"rank_rule", "null_dim", "seed"} <= set(table)
    page = after["report.html"].decode()
    assert (
        'id="feature_norms"' in page
        and "How long features are" in page
        and 'id="t-feature_norms"' in page
    )
    assert "feature_norms:\n  order: 2.0" in page


def test_dvc_runs_the_same_and_an_edit_or_a_parameter_of_it_re_runs_its_own_steps_alone(extended):
    by_snakemake = extended.artifacts()
    said = extended.dvc("repro")
    assert re.findall(r"Running stage '(measure_feature_norms|plot_feature_norms)", said)
    assert extended.artifacts() == by_snakemake
    extended.edit(
        "src/singflow/figures/plot_feature_norms.py", "mean norm of a label's features", "mean norm"
    )
    assert extended.ran_by_dvc(extended.dvc("repro")) == [
        "plot_feature_norms@study",
        "write_report@study",
    ]
    assert extended.planned() == {"plot_feature_norms"}
    extended.snakemake()
    extended.edit("params.yaml", r"order: 2\.0", "order: 1.0")
    steps = {step for step in OWN if step.startswith("measure")} | {"resolve_study"}
    assert extended.planned() == extended.changed() == steps

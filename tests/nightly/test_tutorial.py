"""docs/tutorial.md as its reader follows it, and the pages as a site."""

import re
import sys

import pandas as pd
import pytest

import singflow
from tests.project import ROOT, Project, blocks, quoted

PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")


def test_the_tutorial_leads_to_its_answer(tmp_path):
    project = Project(tmp_path)
    (photos,), (model, study) = blocks(PAGE, "python"), blocks(PAGE, "yaml")
    project.run(sys.executable, "-c", photos)
    with (tmp_path / "config/models.yaml").open("a") as registry:
        registry.write(f"\n{model}")
    (tmp_path / "dogs.yaml").write_text(study)
    (commands,) = blocks(PAGE)
    assert commands.endswith("\nsingflow run\n")
    project.shell(f"{commands.strip()} -- results/dogs/tables/summary.txt")  # no figures
    said = (tmp_path / "results/dogs/tables/summary.txt").read_text()
    for told, found in quoted("".join(blocks(PAGE, "text")), said):
        assert told == pytest.approx(found, rel=0.1, abs=0.2)
    found = pd.read_csv(tmp_path / "results/dogs/tables/models.csv").set_index("model").loc["dogs"]
    result = re.search(r"D = ([\d.]+), 95 % interval ([\d.]+) to\s([\d.]+), n = (\d+)", PAGE)
    names = ["unique_r2", "unique_r2_low", "unique_r2_high", "n_evidence"]
    assert list(map(float, result.groups())) == pytest.approx(found[names].tolist(), abs=0.002)
    leaks = re.search(r"is (\d+) % of the variance if.*and ([\d.]+) % along", PAGE, flags=re.DOTALL)
    detectable = 100 * found[["detectable", "detectable_first"]]
    assert list(map(float, leaks.groups())) == pytest.approx(detectable.tolist(), rel=0.1)
    assert found["p_holm"] < 0.001 and found["margin"] == 0.005


def test_the_site_is_built_without_a_warning_and_from_the_folder_alone(tmp_path):
    project = Project(tmp_path)
    built = project.run("mkdocs", "build", NOTEBOOK="false", NO_MKDOCS_2_WARNING="1")
    site = tmp_path / "site"
    pages = {path.stem for path in site.glob("*.html")}
    assert pages >= {path.stem for path in (tmp_path / "docs").glob("*.md")}, built.stdout
    named = (site / "reference.html").read_text(encoding="utf-8")
    assert all(f'id="singflow.{name}"' in named for name in singflow.__all__)
    assert "Does your classifier ignore meaning?" in (site / "notebooks/own_model.html").read_text()
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)\b[^>]*?(?:src|href)=\"?(https?:[^\">]+)", page.read_text()
        )
        assert loaded == [], page

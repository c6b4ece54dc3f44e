"""A finished study as an archive, and as the page that Snakemake makes of it."""

import html
import re
import shutil
import zipfile
from pathlib import Path

from singflow.report.content import read_caption
from singflow.sharing.crate import final
from tests.nightly.test_readme import ARCHIVES
from tests.project import MADE
from tests.results import ANALYSES

CLOSED = "http://127.0.0.1:9"
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED)


def letters(text):
    return re.sub(r"[^a-zA-Z0-9]", "", html.unescape(text))


def shown(project):
    """Figures and tables for readers, relative to the results."""
    results = project.folder / "results/demo"
    files = [*results.glob("figures/*.png"), *results.glob("tables/*.csv")]
    return sorted(path.relative_to(results) for path in files)


def test_the_study_is_finished_by_exactly_the_files_that_the_archive_asks_for(snakemake_project):
    results = snakemake_project.folder / "results/demo"
    files = [
        path for name in (".", "data", "tables", "figures") for path in (results / name).iterdir()
    ]
    assert set(final(ANALYSES)) == {
        str(path.relative_to(results)) for path in files if path.is_file()
    }


def test_the_archive_of_a_study_holds_a_workflow_that_resolves(snakemake_project, tmp_path):
    crate, folder = tmp_path / "demo.crate.zip", tmp_path / "unpacked"
    said = snakemake_project.command("crate", "--output", str(crate), "--date", "2026-01-02")
    left_out = r"\d+ results, \d+\.\d MiB of tensors and pictures, were left out\."
    assert re.search(
        rf"demo\.crate\.zip: \d+\.\d MiB, \d+ files\. {left_out} The image files", said
    )
    with zipfile.ZipFile(crate) as archive:
        names = set(archive.namelist())
        archive.extractall(folder)
    assert {f"results/demo/{path}" for path in shown(snakemake_project)} <= names
    snakemake = f"cd '{folder}' && snakemake --dry-run"
    snakemake_project.run("bash", "-c", snakemake, PYTHONPATH=str(folder / "src"))


def test_what_one_engine_made_is_finished_although_the_other_knows_nothing_of_it(
    published, tmp_path
):
    project = published.copy(tmp_path / "checkout")
    shutil.rmtree(project.folder / ".snakemake/metadata")
    (project.folder / "results/demo/data/manifest.parquet").touch()
    assert "Nothing to be done" not in project.snakemake("--dry-run")
    assert "demo.crate.zip: " in project.shell(ARCHIVES[1])
    project.edit("params.yaml", "extremes: 8", "extremes: 7")
    said = project.refused("make", *MADE, "crate", "CRATE=--output again.zip")
    assert "error: the run is not finished: `snakemake --dry-run` lists what is left" in said


def test_snakemake_report_shows_every_figure_and_table_with_its_caption_and_without_a_network(
    snakemake_project, tmp_path
):
    project = snakemake_project.copy(tmp_path / "checkout")
    project.shell(ARCHIVES[0], **NO_NETWORK)
    with zipfile.ZipFile(project.folder / "report.zip") as archive:
        packed = {Path(name).name for name in archive.namelist()}
        page = archive.read("report/report.html").decode()
    assert {path.name for path in shown(project)} <= packed
    text, captions = letters(page), project.folder / "report/captions"
    for path in shown(project):
        assert letters(read_caption(captions / f"{path.stem}.rst").text) in text, path
    assert letters("What the null space of image classifiers holds, in study demo") in text
    assert not re.search(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?https?://""", page)
    assert str(project.folder) not in page

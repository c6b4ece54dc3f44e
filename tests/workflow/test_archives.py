"""A finished study as an archive, and as the page that Snakemake makes of it."""

import html
import re
import shutil
import zipfile
from pathlib import Path

from singflow.report.content import read_caption
from singflow.sharing.crate import FINAL
from tests.sharing.rocrate_profile import issues

CLOSED = "http://127.0.0.1:9"
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED)


def letters(text):
    return re.sub(r"[^a-zA-Z0-9]", "", html.unescape(text))


def shown(project):
    """Figures and tables for readers, relative to the results."""
    results = project.folder / "results/demo"
    return [
        path.relative_to(results)
        for pattern in ("figures/*.png", "tables/*.csv")
        for path in sorted(results.glob(pattern))
    ]


def test_the_study_is_finished_by_exactly_the_files_that_the_archive_asks_for(snakemake_project):
    results = snakemake_project.folder / "results/demo"
    there = {
        str(path.relative_to(results))
        for folder in (".", "data", "tables", "figures")
        for path in (results / folder).iterdir()
        if path.is_file()
    }
    assert set(FINAL) == there


def test_the_archive_satisfies_the_profile_and_holds_a_workflow_that_resolves(
    snakemake_project, tmp_path, monkeypatch
):
    crate, folder = tmp_path / "demo.crate.zip", tmp_path / "unpacked"
    output = snakemake_project.run(
        "singflow", "crate", "--output", str(crate), "--date", "2026-01-02"
    ).stdout
    left_out = r"\d+ results, \d+\.\d MiB of tensors and pictures, were left out\."
    assert re.search(
        rf"demo\.crate\.zip: \d+\.\d MiB, \d+ files\. {left_out} The image files", output
    )
    assert issues(crate, monkeypatch, tmp_path / "cache") == []
    with zipfile.ZipFile(crate) as archive:
        names = set(archive.namelist())
        archive.extractall(folder)
    assert {f"results/demo/{path}" for path in shown(snakemake_project)} <= names
    for path in folder.rglob("*"):
        assert path.is_dir() or str(snakemake_project.folder).encode() not in path.read_bytes(), (
            path
        )
    snakemake_project.run(
        "bash", "-c", f"cd '{folder}' && snakemake --dry-run", PYTHONPATH=str(folder / "src")
    )


def test_what_one_engine_made_is_finished_although_the_other_knows_nothing_of_it(
    published, tmp_path
):
    project = published.copy(tmp_path / "checkout")
    shutil.rmtree(project.folder / ".snakemake/metadata")
    (project.folder / "results/demo/data/manifest.parquet").touch()
    assert "Nothing to be done" not in project.snakemake("--dry-run")
    assert "demo.crate.zip: " in project.run("make", "-o", ".venv/workflow", "crate").stdout
    project.edit("params.yaml", "extremes: 8", "extremes: 7")
    refused = project.run(
        "make", "-o", ".venv/workflow", "crate", "CRATE=--output again.zip", check=False
    )
    assert (
        refused.returncode != 0
        and "error: the run is not finished: `snakemake --dry-run` lists what is left"
        in refused.stdout
    )


def test_snakemake_report_shows_every_figure_and_table_with_its_caption_and_without_a_network(
    snakemake_project, tmp_path
):
    for name in ("report.html", "report.zip"):
        snakemake_project.snakemake("--report", str(tmp_path / name), **NO_NETWORK)
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        packed = {Path(name).name for name in archive.namelist()}
        pages = [
            (tmp_path / "report.html").read_text(),
            archive.read("report/report.html").decode(),
        ]
    assert {path.name for path in shown(snakemake_project)} <= packed
    captions = snakemake_project.folder / "report/captions"
    for page in pages:
        text = letters(page)
        for path in shown(snakemake_project):
            assert letters(read_caption(captions / f"{path.stem}.rst").text) in text, path
        assert letters("What the null space of image classifiers holds, in study demo") in text
        assert not re.search(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?https?://""", page)
        assert str(snakemake_project.folder) not in page

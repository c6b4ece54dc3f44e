"""A finished study, and the archive that Snakemake makes of it."""

import html
import re
import zipfile
from pathlib import Path

from singflow.artifacts.catalog import asked
from tests.nightly.test_readme import PACKED
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


def test_a_finished_study_has_exactly_the_files_of_the_catalog(snakemake_project):
    results = snakemake_project.folder / "results/demo"
    files = [
        path for name in (".", "data", "tables", "figures") for path in (results / name).iterdir()
    ]
    final = {artifact.path for artifact in asked(ANALYSES).values() if not artifact.wildcards}
    assert final == {str(path.relative_to(results)) for path in files if path.is_file()}


def test_snakemake_report_shows_every_figure_and_table_with_its_caption_and_without_a_network(
    snakemake_project, tmp_path
):
    project = snakemake_project.copy(tmp_path / "checkout")
    project.shell(PACKED, **NO_NETWORK)
    with zipfile.ZipFile(project.folder / "report.zip") as archive:
        packed = {Path(name).name for name in archive.namelist()}
        page = archive.read("report/report.html").decode()
    assert {path.name for path in shown(project)} <= packed
    text, captions = letters(page.replace("\\n", " ")), project.folder / "report/captions"
    for path in shown(project):
        assert letters((captions / f"{path.stem}.rst").read_text()) in text, path
    assert letters("What the null space of image classifiers holds, in study demo") in text
    assert not re.search(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?https?://""", page)
    assert str(project.folder) not in page

"""Chromium for the tests of the page: one browser and one page of artifacts for all of them."""

from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from singflow.artifacts.files import write_bytes
from tests.project import without
from tests.report.report_study import write_page, write_study

SWITCHES = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)
HINT = "no Chromium: install one, or run `playwright install chromium`"


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium of the system or playwright. Without it tests are skipped, or fail in CI."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        found = which("chromium") or which("chromium-browser") or which("google-chrome")
        try:
            chromium = playwright.chromium.launch(executable_path=found, args=SWITCHES.split())
        except Error as error:
            without(f"{HINT}: {error}")
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the page of the synthetic study lies, with a benchmark of one step."""
    folder: Path = tmp_path_factory.mktemp("study")
    write_study(folder)
    write_bytes(folder / "results/benchmarks/summarize.tsv", b"s\tmax_rss\n1.25\t300.5\n")
    write_page(folder)
    return f"file://{folder}/results/report.html"


@pytest.fixture(scope="session")
def tab(browser) -> Iterator[object]:
    """A tab, which keeps the code that it has read."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def load(tab, address):
    """Open the page at a width. There must be no message, error or foreign request."""
    said: list[str] = []
    heard = {
        "console": lambda message: said.append(f"console: {message.text}"),
        "pageerror": lambda error: said.append(f"error: {error}"),
        "dialog": lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()),
    }

    def watch(route):
        if not route.request.url.startswith(("file://", "blob:", "data:")):
            said.append(f"request: {route.request.url}")
            route.abort()
        else:
            route.continue_()

    def load(width: int = 1280):
        tab.set_viewport_size({"width": width, "height": 844})
        tab.mouse.move(0, 0)
        tab.goto(address)
        tab.wait_for_selector("body[data-ready=yes]")
        return tab

    tab.route("**/*", watch)
    for event, handler in heard.items():
        tab.on(event, handler)
    yield load
    tab.goto("about:blank")
    tab.unroute_all()
    for event, handler in heard.items():
        tab.remove_listener(event, handler)
    assert said == []

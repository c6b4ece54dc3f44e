"""The local page in a real browser: a photo, words, the slider, and what is refused."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
from PIL import Image

from singflow.data.manifest import data_root
from tests import PATIENCE
from tests.project import ROOT

WAIT = PATIENCE * 1000  # milliseconds
WATCHED = ROOT / "tests/parts/browser/watched.py"  # the command line


@contextmanager
def serving(folder, cache, *options):
    """Address of a page.

    At the end the page must stop at Ctrl-C, without a traceback, leave no file, and have asked no
    other host for anything. `cache`: a folder for what is fitted before the page is there.
    """
    for name, at in (
        ("config", ROOT / "config"), ("reference", ROOT / "reference"), (".cache", cache)
    ):  # fmt: skip
        (folder / name).symlink_to(at)
    said, temporary = folder / "said", folder / "temporary"
    temporary.mkdir()
    command = [sys.executable, WATCHED, "app", "--threads", "1", *options]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with said.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env=environment)
    try:
        yield address_of(process, said)
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(PATIENCE)
    told = said.read_text()
    assert status in (0, 128 + signal.SIGINT), told
    told = re.sub(r"(?s)Traceback.*?InvalidPathError: Cannot move /etc/hostname.*?\n", "", told)
    assert not re.search("Traceback|asked elsewhere", told), told
    assert list(temporary.rglob("*.*")) == []


def address_of(process, said):
    """Where the page is, once it says so."""
    while process.poll() is None:
        if found := re.search(r"the page is at (http://\S+)", said.read_text()):
            return found[1]
        time.sleep(0.2)
    pytest.fail(said.read_text())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def server(cache, tmp_path_factory):
    """Address of the page that these tests share."""
    with serving(tmp_path_factory.mktemp("page"), cache) as address:
        yield address


@pytest.fixture(scope="module")
def context(browser):
    """What the pages of these tests share: what the browser has read of their code."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def visit(context, server):
    """Open the page in a new tab. At the end there must be no error and no foreign request."""
    wrong: list[str] = []
    pages = []
    at_home = server, "data:", "blob:"
    heard = {
        "request": lambda request: request.url.startswith(at_home) or wrong.append(request.url),
        "websocket": lambda socket: wrong.append(socket.url),
        "pageerror": lambda error: wrong.append(str(error)),
    }

    def opened():
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(WAIT)
        for event, handler in heard.items():
            page.on(event, handler)
        page.goto(server)
        page.wait_for_selector("#look")
        return page

    yield opened
    for page in pages:
        page.close()
    assert wrong == []


@pytest.fixture(scope="module")
def photos():
    return sorted(data_root("packaged", "").glob("imagenet_*.jpg"))


def drop(page, file):
    page.locator("#photo input[type=file]").set_input_files(file)


def settled(page):
    """Wait until what is on the screen is no longer worked at."""
    status = "document.querySelectorAll('[data-testid=status-tracker]')"
    page.wait_for_function(f"![...{status}].some(e => !e.classList.contains('hide'))")


def analysed(page, file):
    drop(page, file)
    page.wait_for_selector("#said >> text=this photo: ")
    page.wait_for_selector("#figure img")
    settled(page)


def check_every_look(page):
    """On a wide and a narrow screen, in light and in dark."""
    for width, colours in ((1280, "light"), (1280, "dark"), (375, "light"), (375, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=colours)
        dark = "dark => document.body.classList.contains('dark') === dark"
        page.wait_for_function(dark, arg=colours == "dark")
        between = "document.getAnimations().some(each => each instanceof CSSTransition)"
        page.wait_for_function(f"() => !{between}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_photo_is_dropped_words_are_typed_and_the_slider_is_moved(visit, photos):
    page = visit()
    analysed(page, photos[3])
    said = page.locator("#said")
    assert "this photo: buckeye" in said.inner_text()
    assert said.locator("strong").inner_text() == "Nothing in this photo moves beyond chance."
    assert "efficientnet_lite0: no reason to keep the features" in said.inner_text()
    likeliest = page.locator("#toward label").all_inner_texts()  # no words: the classes
    assert len(likeliest) == 3 and "buckeye" in likeliest[0]
    page.locator("#words textarea").fill("a lighthouse\n<b>a rug</b>\n")
    page.locator("#look").click()
    page.wait_for_selector("#toward >> text=a lighthouse")
    settled(page)
    assert "<b>a rug</b>" in said.inner_text() and said.locator("b").count() == 0
    slider = page.locator("#turn input[type=range]")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("PageUp")
    turned = float(slider.input_value())
    page.wait_for_selector(f"#way >> text=turned by {turned:.1f} degrees")
    told = page.locator("#way").inner_text()
    found = re.search(r"is ([\d.]+) degrees from 'a lighthouse' \(before: ([\d.]+)\)", told)
    assert turned > 1 and float(found[1]) < float(found[2]) and "still sees buckeye" in told
    page.locator("#toward label", has_text="a rug").click()
    page.wait_for_selector("#way >> text=from '<b>a rug</b>'")
    settled(page)
    check_every_look(page)


def test_what_is_no_photo_is_refused_in_words_and_a_photo_after_it_is_not(visit, photos, tmp_path):
    page = visit()
    page.locator("#look").click()
    page.wait_for_selector("#said >> text=no photo so far")
    (tmp_path / "broken.jpg").write_bytes(photos[0].read_bytes()[:3000])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    for name, reason in (
        ("broken.jpg", "truncated or corrupt"),
        ("bomb.png", "absurdly large: 20000 x 20000 pixels"),
    ):
        drop(page, tmp_path / name)
        page.wait_for_selector(f"#said strong >> text={reason}")
        assert not page.locator("#steering").is_visible()
        settled(page)
        page.get_by_label("Clear").or_(page.get_by_label("Remove Image")).first.click()
        page.wait_for_selector("#said >> text=Drop a photo")
    with (tmp_path / "large.bmp").open("wb") as file:
        file.truncate(100 * 10**6)
    drop(page, tmp_path / "large.bmp")
    page.wait_for_selector("[data-testid=toast-body] >> text=maximum allowed size of 50 ")
    page.reload()
    first, *others = (Image.open(path).convert("RGB") for path in photos[3:6])
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others)
    analysed(page, tmp_path / "moving.gif")
    assert "this photo: buckeye" in page.locator("#said").inner_text()


def test_other_hosts_paths_and_addresses_are_refused(visit, server):
    page = visit()
    assert httpx.get(server, headers={"Host": "example.org"}).status_code == 400
    for path in ("/etc/passwd", "../../../../etc/passwd", str(ROOT / "pyproject.toml")):
        assert httpx.get(f"{server}gradio_api/file={path}").status_code in (403, 404)
    at = page.evaluate("window.gradio_config.dependencies.find(d => d.targets.length > 1).id")
    given = "efficientnet_lite0", "conse_minilm", ""
    file = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    call = {"data": [file, *given], "fn_index": at, "session_hash": "x"}
    assert httpx.post(f"{server}gradio_api/queue/join", json=call).status_code == 200
    heard = httpx.get(f"{server}gradio_api/queue/data?session_hash=x", timeout=PATIENCE).text
    assert '"success":false' in heard and "this photo:" not in heard


@pytest.mark.nightly
def test_beyond_this_machine_it_says_that_there_is_no_password(cache, tmp_path):
    with serving(tmp_path, cache, "--host", "0.0.0.0"):  # noqa: S104
        pass
    said = (tmp_path / "said").read_text()
    words = "whoever reaches 0.0.0.0 can use the page: it asks for no password"
    assert said.index(words) < said.index("the page is at")

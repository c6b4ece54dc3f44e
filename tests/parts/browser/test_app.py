"""The local page in a real browser: a photo, words, the slider, and files that are no photo."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from singflow.data.manifest import data_root
from singflow.photo.app import CONNECTIONS
from tests import PATIENCE
from tests.parts.browser.test_report_browser import check_width_and_access
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
    command = [sys.executable, WATCHED, "app", "--port", "0", "--threads", "1", *options]
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
    assert not re.search("Traceback|asked elsewhere|graceful", told), told
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
def visit(browser, context, server):
    """Open the page in a new tab. At the end there must be no error and no request to another host.

    `apart`: as another user, since a browser has at most six connections to a host, and every page
    that waits has one.
    """
    wrong: list[str] = []
    pages = []
    at_home = server, "data:", "blob:"
    heard = {
        "request": lambda request: request.url.startswith(at_home) or wrong.append(request.url),
        "websocket": lambda socket: wrong.append(socket.url),
        "pageerror": lambda error: wrong.append(str(error)),
        "console": lambda said: "Content Security" in said.text and wrong.append(said.text),
    }

    def opened(*, apart=False):
        page = browser.new_page() if apart else context.new_page()
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


def press(page):
    page.locator("#look").click()


def clear(page):
    page.get_by_label("Clear").or_(page.get_by_label("Remove Image")).first.click()
    page.wait_for_selector("#photo input[type=file]", state="attached")


def seen_in(page):
    """What the page says that the classifier sees."""
    return page.locator("#said h2").first.inner_text()


def settled(page):
    """Wait until what is on the screen is no longer worked at."""
    status = "document.querySelectorAll('[data-testid=status-tracker]')"
    page.wait_for_function(f"![...{status}].some(e => !e.classList.contains('hide'))")


def analysed(page, file):
    drop(page, file)
    page.wait_for_selector("#said .verdict")
    page.wait_for_selector("#way .logits")
    settled(page)


def look_like(page, width, colours):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=colours)
    dark = "dark => document.body.classList.contains('dark') === dark"
    page.wait_for_function(dark, arg=colours == "dark")
    between = "document.getAnimations().some(each => each instanceof CSSTransition)"
    page.wait_for_function(f"() => !{between}")  # colours between the two


def check_every_look(page):
    """On a wide and a narrow screen, in light and in dark."""
    for width, colours in ((1280, "light"), (1280, "dark"), (375, "light"), (375, "dark")):
        look_like(page, width, colours)
        check_width_and_access(page, width)


def test_a_photo_is_dropped_words_are_typed_and_the_slider_is_moved(visit, photos):
    page = visit()
    check_every_look(page)  # and what follows on the last of them
    analysed(page, photos[3])
    assert "It sees: buckeye" in seen_in(page)
    assert page.locator("#said svg[role=img]").count() == 2
    words = "by the reference's 507 images: efficientnet_lite0: nothing found."
    assert words in page.locator("#about .said").inner_text()
    assert re.fullmatch(r"below 0.0005|-?0\.00\d \[.*\]", page.locator("#about .d").inner_text())
    assert "beyond chance" in page.locator("#moved").inner_text()
    likeliest = page.locator("#toward label").all_inner_texts()  # no words: the classes
    assert len(likeliest) == 3 and "buckeye" in likeliest[0]
    assert "the chance of this photo" in page.locator("#maps").inner_text()  # of the classes
    page.locator("#words textarea").fill("a lighthouse\n<b>a rug</b>\n")
    press(page)
    page.wait_for_selector("#toward >> text=a lighthouse")
    settled(page)
    assert "<b>a rug</b>" in page.locator("#moved").inner_text()
    assert page.locator("#moved b").count() == 0
    look_like(page, 1280, "light")
    still = picture(page)
    slider = page.locator("#turn input[type=range]")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("PageUp")
    changed = "before => document.querySelector('#way svg').outerHTML !== before"
    page.wait_for_function(changed, arg=still)
    turned = float(slider.input_value())
    page.wait_for_selector(f"#way >> text=Turned by {turned:.1f}°")
    said = page.locator("#way").inner_text()
    found = re.search(r"is ([\d.]+)° from “a lighthouse” \(it was ([\d.]+)°", said)
    assert turned > 1 and float(found[1]) < float(found[2]) and "still sees buckeye" in said
    assert 0 < float(page.locator("#way .logits").inner_text()) < 1e-4
    page.locator("#toward label", has_text="a rug").click()
    page.wait_for_selector("#way >> text=from “<b>a rug</b>”")
    settled(page)
    check_every_look(page)


def picture(page):
    return page.locator("#way svg").first.evaluate("node => node.outerHTML")


def shown(page, selector):
    """Colours of what is on the screen: (height, width, 3)."""
    image = Image.open(io.BytesIO(page.locator(selector).first.screenshot()))
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.nightly
def test_maps_lie_over_the_photo_and_the_keyboard_alone_shows_it_without_them(
    context, photos, cache, tmp_path
):
    """On every screen, told in words too; a wide photo is neither stretched nor cut."""
    with Image.open(photos[10]) as photo:
        photo.convert("RGB").resize((900, 300)).save(tmp_path / "wide.png")
    (tmp_path / "page").mkdir()
    with serving(tmp_path / "page", cache, "--model", "animals_lite0") as address:
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto(address)
        page.wait_for_selector("#look")
        look_at_maps(page, tmp_path / "wide.png")
        page.close()


def look_at_maps(page, wide):
    """One of two texts is beyond the chance of a photo."""
    page.locator("#words textarea").fill("a chair\n<b>a rug</b>")
    analysed(page, wide)
    frame = "#maps .frame img"
    (said,) = page.locator(frame).evaluate_all("nodes => nodes.map(node => node.alt)")
    assert said.startswith("map of 'a chair': AS ")
    assert re.search(r"\(row \d, column \d of 7 x 7\)", said)
    assert page.locator("#maps figcaption").all_inner_texts() == ["a chair"]
    within = "within the chance of this photo, so without a map: <b>a rug</b>"
    assert within in page.locator("#maps").inner_text()
    asked = []
    page.on("request", lambda request: "queue/join" in request.url and asked.append(request.url))
    page.locator("#words textarea").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.locator("#bare").evaluate("node => node === document.activeElement"):
            break
    assert asked == [], "the photo is not analyzed again on the way"
    assert page.locator("#bare").evaluate("node => getComputedStyle(node).outlineWidth") == "3px"
    for width, colours in ((1280, "light"), (375, "dark")):
        look_like(page, width, colours)
        box = page.locator(frame).first.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(3, rel=0.02) and box["width"] > 200
        mapped = shown(page, frame)
        page.keyboard.press("Space")
        assert page.locator("#bare").is_checked()
        bare = shown(page, frame)
        outside = slice(20, -20), slice(5, int(box["width"] / 4))
        assert np.ptp(mapped[outside], axis=2).mean() < 5 < np.ptp(bare[outside], axis=2).mean()
        check_width_and_access(page, width)
        page.keyboard.press("Space")
        assert np.array_equal(shown(page, frame), mapped)


@pytest.mark.nightly
def test_a_phone_scrolls_to_what_is_said_and_moves_at_once_where_motion_is_unwanted(visit, photos):
    page = visit(apart=True)
    page.add_init_script("""
        const scroll = Element.prototype.scrollIntoView;
        Element.prototype.scrollIntoView = function (how) {
            window.scrolled = how.behavior;
            scroll.call(this, how);
        };
    """)
    top = "document.querySelector('#about').getBoundingClientRect().top"
    for width, motion, moved in (
        (375, "reduce", "instant"), (375, "no-preference", "smooth"), (1280, "reduce", None)
    ):  # fmt: skip
        page.set_viewport_size({"width": width, "height": 667})
        page.emulate_media(reduced_motion=motion)
        page.reload()
        page.wait_for_selector("#look")
        assert (page.evaluate(top) > 667) == (width == 375)
        drop(page, photos[3])
        page.wait_for_selector("#said .verdict")
        page.wait_for_function(f"0 <= {top} && {top} < 150")
        assert page.evaluate("window.scrolled ?? null") == moved
        assert (page.evaluate("scrollY") > 0) == (width == 375)
    page.set_viewport_size({"width": 375, "height": 667})
    clear(page)
    settled(page)
    assert page.evaluate("window.scrolled ?? null") is None


@pytest.mark.nightly
def test_all_is_done_from_the_keyboard(visit):
    page = visit()
    page.set_viewport_size({"width": 1280, "height": 800})
    box = page.locator("#examples").bounding_box()
    assert box["y"] + box["height"] < 800, "the examples are seen without scrolling"
    example = page.locator("#examples button").first
    for _ in range(40):
        page.keyboard.press("Tab")
        if example.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#said .verdict")
    assert f"It sees: {example.inner_text().strip()}" in seen_in(page)


def test_what_is_no_photo_is_refused_in_words_and_a_photo_after_it_is_not(visit, photos, tmp_path):
    page = visit()
    press(page)
    page.wait_for_selector("#said >> text=no photo so far")
    (tmp_path / "broken.jpg").write_bytes(photos[0].read_bytes()[:3000])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    for name, reason in (
        ("broken.jpg", "truncated or corrupt"),
        ("bomb.png", "absurdly large: 20000 x 20000 pixels"),
    ):
        drop(page, tmp_path / name)
        page.wait_for_selector(f"#said .refused[role=alert] >> text={reason}")
        assert not page.locator("#steering").is_visible()
        settled(page)
        page.wait_for_selector("#photo img", state="detached")  # no broken picture
    first, *others = (Image.open(path).convert("RGB") for path in photos[3:6])
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others)
    analysed(page, tmp_path / "moving.gif")
    assert "It sees: buckeye" in seen_in(page)
    clear(page)
    page.wait_for_selector("#said >> text=Drop a photo")
    first.save(tmp_path / "shown by no browser.tiff")
    analysed(page, tmp_path / "shown by no browser.tiff")
    assert "It sees: buckeye" in seen_in(page) and not page.locator("#photo img").is_visible()


@pytest.mark.nightly
def test_a_file_of_100_mb_is_refused_in_words(visit, tmp_path):
    page = visit()
    with (tmp_path / "large.bmp").open("wb") as file:
        file.truncate(100 * 10**6)
    drop(page, tmp_path / "large.bmp")
    page.wait_for_selector("[data-testid=toast-body] >> text=maximum allowed size of 50 ")
    assert page.locator("#said .verdict").count() == 0


@pytest.mark.nightly
def test_five_at_once_are_answered_each_with_its_own_photo(visit, photos):
    pages = [visit(apart=True) for _ in range(5)]
    for page, photo in zip(pages, photos, strict=False):
        drop(page, photo)
    seen = []
    for page in pages:
        page.wait_for_selector("#said .verdict")
        seen.append(seen_in(page))
    assert len(set(seen)) == 5 and "It sees: buckeye" in seen[3]


@pytest.mark.nightly
def test_the_browser_may_ask_no_other_host(server):
    policy = httpx.get(server, timeout=PATIENCE).headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ") and "http" not in policy


@pytest.mark.nightly
def test_more_connections_than_the_page_takes_are_refused_until_others_end(server):
    at = urlsplit(server)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection((at.hostname, at.port), PATIENCE))
        assert httpx.get(server, timeout=PATIENCE).status_code == 503
    ended = time.monotonic() + PATIENCE
    while httpx.get(server, timeout=PATIENCE).status_code != 200:
        assert time.monotonic() < ended


@pytest.mark.nightly
def test_an_upload_that_breaks_off_leaves_no_traceback(server):
    place = urlsplit(server)
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 999\r\n"
    with socket.create_connection((place.hostname, place.port)) as upload:
        upload.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x".encode())
    assert httpx.get(server).status_code == 200  # `serving` looks at what the page has said


def test_only_this_machine_is_listened_to(server):
    import psutil

    port = urlsplit(server).port
    ours = [each for each in psutil.net_connections("tcp") if each.laddr.port == port]
    assert {each.laddr.ip for each in ours if each.status == "LISTEN"} == {"127.0.0.1"}


@pytest.mark.nightly
def test_beyond_this_machine_it_says_that_there_is_no_password_and_ends_at_once(
    context, photos, cache, tmp_path
):
    """While a page is open and a photo is looked at."""
    with serving(tmp_path, cache, "--host", "0.0.0.0") as address:  # noqa: S104
        page = context.new_page()
        page.goto(address.replace("0.0.0.0", "127.0.0.1"))  # noqa: S104
        page.wait_for_selector("#look", timeout=WAIT)
        drop(page, photos[0])
        page.wait_for_selector("#photo img", timeout=WAIT)
        began = time.monotonic()
    assert time.monotonic() - began < 60
    page.close()
    said = (tmp_path / "said").read_text()
    words = "whoever reaches 0.0.0.0 can use the page: it asks for no password"
    assert said.index(words) < said.index("the page is at")

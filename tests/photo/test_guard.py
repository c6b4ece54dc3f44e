"""What the local page refuses to whoever reaches it."""

import asyncio
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from singflow.photo.app import EXAMPLES, application
from singflow.photo.guard import AT_ONCE, KEPT, UNREAD, UPLOAD, Guard
from tests.photo.handmade import MODEL
from tests.photo.test_page import opened
from tests.project import ROOT

pytestmark = pytest.mark.nightly

ANALYZE, ANSWERS = EXAMPLES, "/gradio_api/queue/data"  # the function after the examples'
HOST = "http://127.0.0.1:7860"
MB = 2**20
PICTURE = ROOT / "docs/evidence/level.png"


class Page(TestClient):
    """The page as an attacker sees it."""

    def upload(self, content, name="photo.png", field="files", **options):
        return self.post(UPLOAD, files={field: (name, content)}, **options)

    def call(self, photo, session=None, function=ANALYZE, data=None, **options):
        data = [photo, MODEL, "conse_minilm", ""] if data is None else data
        call = {"data": data, "fn_index": function, "session_hash": session or uuid.uuid4().hex}
        options["headers"] = {"content-type": "application/json"} | options.get("headers", {})
        return self.post("/gradio_api/queue/join", content=json.dumps(call), **options)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def page(made, uploads):
    with pytest.MonkeyPatch.context() as changed:
        changed.chdir(made)
        changed.setenv("GRADIO_TEMP_DIR", str(uploads))
        state = opened(made / "results/tiny")
        changed.chdir(ROOT)
        with Page(application(state, "127.0.0.1", 1), HOST) as page:
            yield page


def files(folder):
    return {file for file in folder.rglob("*") if file.is_file()}


def photo(path, **parts):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}} | parts


def test_a_call_that_names_a_file_or_an_address_is_refused_and_nothing_is_copied(page, uploads):
    uploaded = Path(page.upload(b"no picture").json()[0])
    before = files(uploads)
    (uploaded.parent / "link").symlink_to("/etc/passwd")
    for other in (
        photo("/etc/passwd"),
        photo("/etc/passwd", is_stream=True),
        {"path": "/etc/passwd"},
        photo("params.yaml"),
        photo(uploaded / "../../../../../../../../../etc/passwd"),
        photo(uploaded.parent / "link"),
        photo("file:///etc/passwd"),
        photo("http://127.0.0.1:1/"),
        photo("nothing", url="http://127.0.0.1:1/"),
        photo("\0"),
        [photo("/etc/passwd")],
        {"deep": photo("/etc/passwd")},
    ):
        assert page.call(other).status_code == 422, other
    for host in ("127.0.0.1:7860?", "127.0.0.1:7860#", "127.0.0.1:7860/x?"):
        assert page.call(photo("/etc/passwd"), headers={"host": host}).status_code in (400, 422)
    for function in (-1, 99):
        answer = page.call(None, function=function).json()
        assert answer["detail"] == "the page has no such function"
    (uploaded.parent / "link").unlink()
    assert page.call(photo(uploaded)).status_code == 200
    assert files(uploads) == before


def test_a_call_that_does_not_fit_its_function_is_refused_in_a_line_and_logs_nothing(
    page, capfd, caplog
):
    uploaded = photo(Path(page.upload(PICTURE.read_bytes()).json()[0]))
    good = [uploaded, MODEL, "conse_minilm", ""]
    for data in ([], good[:3], [*good, ""], [uploaded, 5, "conse_minilm", ""], [*good[:3], None]):
        assert page.call(None, data=data).json()["detail"] == "not what this function takes"
    for changed in ([None, "toward", float("nan")], [None, "toward", "far"], [{}, "toward", 1.0]):
        assert page.call(None, function=ANALYZE + 2, data=changed).status_code == 422
    assert page.call(None, session="\ud800").status_code == 422
    for place, value, said in (
        (1, "no such model", "no such model in conse_minilm: is not offered here"),
        (2, "no such space", "in no such space: is not offered here"),
        (3, "a \ud800 dog", "is not valid Unicode: write it anew"),
    ):
        session = uuid.uuid4().hex
        data = [value if at == place else part for at, part in enumerate(good)]
        assert page.call(None, session, data=data).status_code == 200
        answer = page.get(ANSWERS, params={"session_hash": session}).text
        assert said in answer and "process_completed" in answer
    for function, data in ((ANALYZE + 1, [None, "x"]), (ANALYZE + 2, [None, "x", -1e9])):
        session = uuid.uuid4().hex
        assert page.call(None, session, function, data=data).status_code == 200
        assert '"success":true' in page.get(ANSWERS, params={"session_hash": session}).text
    out, error = capfd.readouterr()
    assert "Traceback" not in out + error + caplog.text


def test_of_a_model_that_is_offered_the_verdict_is_told_once_it_is_loaded_and_of_no_other(page):
    for model, told in ((MODEL, True), ("no such model", False)):
        page.call(None, model[:2], ANALYZE + 6, data=[model, "conse_minilm"])
        answer = page.get(ANSWERS, params={"session_hash": model[:2]}).text
        assert '"success":true' in answer and ("nothing found" in answer) == told


def test_what_gradio_serves_beside_the_page_is_not_served(page):
    for path in (
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/info",
        "/openapi.json",
        "/monitoring",
    ):
        assert page.get(path).status_code == 404, path
    for file in ("config/models.yaml", f"{ROOT}/params.yaml", "/etc/hostname"):
        assert page.get(f"/gradio_api/file={file}").status_code in (403, 404), file
    for path in ("process_recording", "component_server", "call/analyze", "run/analyze"):
        assert page.post(f"/gradio_api/{path}", files={"video": b"x"}).status_code == 404, path


def test_other_pages_of_the_browser_can_neither_upload_nor_ask(page):
    for origin in ("http://elsewhere.example.org", "null", "http://localhost:8888"):
        headers = {"origin": origin}
        assert page.upload(b"x", headers=headers).status_code == 403
        assert page.call(None, headers=headers).status_code == 403
    assert page.upload(b"x", headers={"origin": HOST}).status_code == 200


def test_a_large_body_is_refused_whether_it_says_its_length_or_not(page):
    path, large = "/gradio_api/queue/join", b"[" * 2 * MB
    assert page.post(path, content=large).status_code == 413
    pieces = (large[:MB] for _ in range(2))
    assert page.post(path, content=pieces).status_code == 413
    assert page.post(UPLOAD, files=[("files", b"x" * MB)] * 2).status_code == 413
    assert page.post(UPLOAD, files={"files": b"x" * MB}).status_code == 200


def test_the_newest_photos_are_kept_and_nothing_that_a_broken_upload_leaves(page, uploads):
    before = files(uploads)
    page.upload(b"x", field="other")
    assert files(uploads) == before
    paths = [Path(page.upload(b"%d" % n * (MB // 2)).json()[0]) for n in range(KEPT + 5)]
    assert [path.exists() for path in paths] == [False] * 5 + [True] * KEPT
    icons = {file for file in files(uploads) if file.suffix == ".jpg"}
    assert len(icons) == EXAMPLES and files(uploads) == {*icons, *paths[5:]}
    page.call(photo(paths[0]), "gone")
    assert "the photo is no longer here" in page.get(ANSWERS, params={"session_hash": "gone"}).text


def test_answers_that_nobody_reads_do_not_pile_up(page):
    calls = [page.call(None, "one").status_code for _ in range(UNREAD + 1)]
    assert calls == [200] * UNREAD + [429]
    assert page.call(None, "another").status_code == 200
    assert page.get(ANSWERS, params={"session_hash": "one"}).text.count("no photo") == UNREAD
    assert page.call(None, "one").status_code == 200


def test_few_photos_are_taken_at_once(tmp_path):
    statuses = []

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def run():
        end = asyncio.Event()

        async def waits(*_):
            await end.wait()

        guard = Guard(waits, tmp_path, MB)
        scope = {"type": "http", "path": UPLOAD, "headers": []}
        tasks = [asyncio.create_task(guard(dict(scope), None, send)) for _ in range(AT_ONCE + 2)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        end.set()
        await asyncio.gather(*tasks)
        assert guard.uploads == 0

    with ThreadPoolExecutor(1) as thread:  # Playwright's loop may run in this one
        thread.submit(asyncio.run, run()).result()
    assert statuses == [503, 503]

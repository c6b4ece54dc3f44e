"""What the local page refuses: strange requests, large bodies, and more uploads than fit."""

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from gradio import Blocks
    from starlette.types import ASGIApp, Receive, Scope, Send

# Gradio serves much more, such as forwarded addresses, and calls that the page does not make.
SERVED = re.compile(
    r"/(theme\.css|favicon\.ico|config|(assets|static)/.+|gradio_api/"
    r"(app_id|upload|upload_progress|queue/join|queue/data|run/predict|heartbeat/\w+|file=/.+))?"
)
UPLOAD, CALLS = "/gradio_api/upload", ("/gradio_api/queue/join", "/gradio_api/run/predict")
MOST_BYTES = 2**20  # in the body of a request that uploads no photo
AT_ONCE = 10  # uploads
KEPT = 20  # of the largest photos
LEAST_BYTES = 2**20  # that a kept file counts
UNREAD = 5  # answers that wait for one session
SESSIONS = 200  # whose answers wait


class Guard:
    """ASGI middleware that answers only what the page asks.

    folder: where Gradio keeps uploads. max_bytes: limit on the size of a photo.
    """

    def __init__(self, app: "ASGIApp", folder: Path, max_bytes: int) -> None:
        self.app, self.folder, self.max_bytes = app, folder, max_bytes
        self.uploads, self.own = 0, set(folder.glob("*/*"))

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Refuse a request, or pass it on with a limit on its body."""
        from starlette.datastructures import Headers
        from starlette.middleware.body_limit import RequestBodyLimitMiddleware
        from starlette.responses import PlainTextResponse

        async def refuse(status: int, reason: str) -> None:
            await PlainTextResponse(reason, status)(scope, receive, send)

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path, headers = scope["path"], Headers(scope=scope)
        if not SERVED.fullmatch(path):
            return await refuse(404, "the page has no such address")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return await refuse(403, "only the page itself may ask")
        if path != UPLOAD:
            limited = RequestBodyLimitMiddleware(self.app, MOST_BYTES)
            return await limited(scope, receive, send)
        if self.uploads == AT_ONCE:
            return await refuse(503, "too many photos at once: try again")
        self.uploads += 1
        try:
            await RequestBodyLimitMiddleware(self.app, self.max_bytes + MOST_BYTES)(
                scope, receive, send
            )
        finally:
            self.uploads -= 1
            self._make_room()

    def _make_room(self) -> None:
        """Remove the oldest photos that exceed the room, and what broken uploads have left."""
        if not self.uploads:
            for file in filter(Path.is_file, self.folder.glob("*")):
                file.unlink(missing_ok=True)
        room = KEPT * self.max_bytes
        with suppress(FileNotFoundError):  # Gradio removes old photos, too
            facts = [(file.stat(), file) for file in set(self.folder.glob("*/*")) - self.own]
            for fact, file in sorted(facts, key=lambda pair: pair[0].st_mtime, reverse=True):
                room -= max(fact.st_size, LEAST_BYTES)
                if room < 0:
                    shutil.rmtree(file.parent)


class _Photo(BaseModel):
    path: Path


class _Call(BaseModel):
    session_hash: Annotated[str, Field(pattern=r"^\w{1,64}$")]
    fn_index: int
    data: list[_Photo | str | Annotated[float, Field(allow_inf_nan=False)] | None]


SENT = {  # by kind of component
    "image": (_Photo, type(None)),
    "textbox": (str,),
    "dropdown": (str,),
    "radio": (str, type(None)),
    "slider": (float,),
    "state": (type(None),),
}


def checked_calls(folder: Path, page: "Blocks") -> Callable[..., object]:
    """A dependency of the application that refuses calls which the page does not make.

    Calls name functions of the page and uploaded photos, and a session reads its answers.
    """
    from fastapi import HTTPException, Request

    queue = page._queue
    queue.pending_messages_per_session.max_size = SESSIONS

    async def check(request: Request) -> None:
        if request.scope["path"] not in CALLS:
            return
        try:
            call = _Call.model_validate(await request.json())
            photos = [value.path.resolve() for value in call.data if isinstance(value, _Photo)]
        except ValueError:
            raise HTTPException(422, "not a call of the page") from None
        if call.fn_index not in page.fns:
            raise HTTPException(422, "the page has no such function")
        kinds = [SENT[block.get_block_name()] for block in page.fns[call.fn_index].inputs]
        if len(kinds) != len(call.data) or not all(map(isinstance, call.data, kinds)):
            raise HTTPException(422, "not what this function takes")
        if not all(photo.is_relative_to(folder) for photo in photos):
            raise HTTPException(422, "no such photo: upload it first")
        if len(queue.pending_event_ids_session.get(call.session_hash, ())) >= UNREAD:
            raise HTTPException(429, "too many answers that were not read: load the page again")
        if call.session_hash in queue.pending_messages_per_session:
            queue.pending_messages_per_session.move_to_end(call.session_hash)

    return check

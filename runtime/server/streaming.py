"""Transcripts as answers, whole or as server-sent events; a client that hangs up cancels the work."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from env.errors import KitError
from runtime.server.errors import to_api_error
from runtime.server.service import Service
from runtime.transcriber import Request
from runtime.transcript import Transcript

T = TypeVar("T")

WARNINGS_HEADER = "x-asr-warnings"

Events = Callable[[Transcript], Iterable[str]]


async def or_disconnect(request: HttpRequest, work: Awaitable[T]) -> T:
    """Return the result of `work`. If the client hangs up first, cancel it and raise ClientDisconnect.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_wait_disconnect(request.receive))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _cancel(task, disconnected)


async def whole_transcript(
    http: HttpRequest, service: Service, request: Request, *, fields: Mapping[str, str]
) -> Transcript:
    """Return the complete transcript. Raises ApiError, and ClientDisconnect."""
    try:
        return await or_disconnect(http, service.transcribe(request))
    except KitError as error:
        raise to_api_error(error, fields) from error


async def stream_transcript(
    http: HttpRequest,
    service: Service,
    request: Request,
    *,
    fields: Mapping[str, str],
    on_text: Callable[[str], str],
    on_end: Events,
) -> Response:
    """Return an answer of server-sent events: `on_text` makes one from each piece of text, `on_end` the last ones.

    Raises like `whole_transcript` until the audio is read; later failures become an event with an `error`.
    """
    texts: asyncio.Queue[str | None] = asyncio.Queue()
    work = asyncio.ensure_future(
        service.transcribe(request, on_start=lambda: texts.put_nowait(""), on_text=texts.put_nowait)
    )
    work.add_done_callback(lambda _: texts.put_nowait(None))
    try:
        if await or_disconnect(http, texts.get()) is None:
            await work
    except KitError as error:
        raise to_api_error(error, fields) from error
    except BaseException:
        await _cancel(work)
        raise

    async def last_events() -> Iterable[str]:
        try:
            transcript = work.result()
        except KitError as error:
            return [json.dumps(to_api_error(error, fields).body, ensure_ascii=False)]
        return await service.in_writer_thread(lambda: on_end(transcript))

    return _EventStream(work, texts, on_text, last_events, send_timeout=service.settings.request_timeout_seconds)


class _EventStream(Response):
    """Sends events as they come; cancels the work if the client hangs up."""

    media_type = "text/event-stream"

    def __init__(
        self,
        work: "asyncio.Future[Transcript]",
        texts: "asyncio.Queue[str | None]",
        on_text: Callable[[str], str],
        last_events: Callable[[], Awaitable[Iterable[str]]],
        *,
        send_timeout: float,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._work, self._texts, self._on_text, self._last_events = work, texts, on_text, last_events
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async def send_data(data: str) -> None:
            message = {"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True}
            await asyncio.wait_for(send(message), self._send_timeout)  # a client that does not read

        disconnected = asyncio.ensure_future(_wait_disconnect(receive))
        disconnected.add_done_callback(lambda _: self._work.cancel())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (text := await self._texts.get()) is not None:
                if text:
                    await send_data(self._on_text(text))
            with contextlib.suppress(asyncio.CancelledError):  # nobody is there any more
                for data in await self._last_events():
                    await send_data(data)
            await send({"type": "http.response.body", "body": b""})
        finally:
            await _cancel(self._work, disconnected)


def to_json(event: Mapping[str, Any]) -> str:
    """Serialize an event, in UTF-8 rather than escapes."""
    return json.dumps(event, ensure_ascii=False)


def no_effect(name: str, why: str) -> str:
    """A warning that a field has no effect, and why."""
    return f"{name}: has no effect: {why}"


def with_warnings(response: Response, warnings: Iterable[str]) -> Response:
    """Add the warnings in a header, so that they reach clients that did not ask for JSON, too."""
    text = "; ".join(warnings)
    if text:
        response.headers[WARNINGS_HEADER] = text.encode("ascii", "backslashreplace").decode()
    return response


async def _wait_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

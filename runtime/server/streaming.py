"""Answers that stop their work when the client hangs up, whole or as server-sent events."""

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
from runtime.server.errors import from_kit
from runtime.server.service import Service
from runtime.transcriber import Request
from runtime.transcript import Transcript

T = TypeVar("T")

WARNINGS_HEADER = "x-asr-warnings"

Events = Callable[[Transcript], Iterable[str]]


async def unless_gone(request: HttpRequest, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled as soon as the client hangs up: then raises ClientDisconnect.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _cancelled(task, gone)


async def whole(http: HttpRequest, service: Service, request: Request, *, fields: Mapping[str, str]) -> Transcript:
    """The transcript. Raises ApiError, and ClientDisconnect."""
    try:
        return await unless_gone(http, service.transcribe(request))
    except KitError as error:
        raise from_kit(error, fields) from error


async def streamed(
    http: HttpRequest,
    service: Service,
    request: Request,
    *,
    fields: Mapping[str, str],
    on_text: Callable[[str], str],
    on_end: Events,
) -> Response:
    """Server-sent events: `on_text` makes one of each bit of text, `on_end` the last ones.

    Raises like `whole` as long as the audio is not read; what fails later is an event with an `error`.
    """
    texts: asyncio.Queue[str | None] = asyncio.Queue()
    work = asyncio.ensure_future(
        service.transcribe(request, on_start=lambda: texts.put_nowait(""), on_text=texts.put_nowait)
    )
    work.add_done_callback(lambda _: texts.put_nowait(None))
    try:
        if await unless_gone(http, texts.get()) is None:
            await work
    except KitError as error:
        raise from_kit(error, fields) from error
    except BaseException:
        await _cancelled(work)
        raise

    async def ending() -> Iterable[str]:
        try:
            heard = work.result()
        except KitError as error:
            return [json.dumps(from_kit(error, fields).body, ensure_ascii=False)]
        return await service.write(lambda: on_end(heard))

    return _EventStream(work, texts, on_text, ending, patience=service.settings.request_timeout_seconds)


class _EventStream(Response):
    """Sends what comes; work nobody listens to any more is cancelled."""

    media_type = "text/event-stream"

    def __init__(
        self,
        work: "asyncio.Future[Transcript]",
        texts: "asyncio.Queue[str | None]",
        on_text: Callable[[str], str],
        ending: Callable[[], Awaitable[Iterable[str]]],
        *,
        patience: float,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._work, self._texts, self._on_text, self._ending = work, texts, on_text, ending
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async def put(data: str) -> None:
            message = {"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True}
            await asyncio.wait_for(send(message), self._patience)  # a client that does not read

        gone = asyncio.ensure_future(_disconnected(receive))
        gone.add_done_callback(lambda _: self._work.cancel())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (text := await self._texts.get()) is not None:
                if text:
                    await put(self._on_text(text))
            with contextlib.suppress(asyncio.CancelledError):  # nobody is there any more
                for data in await self._ending():
                    await put(data)
            await send({"type": "http.response.body", "body": b""})
        finally:
            await _cancelled(self._work, gone)


def data_of(event: Mapping[str, Any]) -> str:
    """An event's JSON."""
    return json.dumps(event, ensure_ascii=False)


def no_effect(name: str, why: str) -> str:
    """The warning that a field has no effect."""
    return f"{name}: has no effect: {why}"


def with_warnings(response: Response, warnings: Iterable[str]) -> Response:
    """The answer with what had no effect in a header, which reaches those, too, who asked for no JSON."""
    told = "; ".join(warnings)
    if told:
        response.headers[WARNINGS_HEADER] = told.encode("ascii", "backslashreplace").decode()
    return response


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel what is not done, and wait for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

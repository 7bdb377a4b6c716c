"""Request bodies: limits while they arrive, spooled to disk if large, deleted with the request; strict JSON."""

import asyncio
import base64
import binascii
import io
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from env.settings import Settings
from runtime import sandbox
from runtime.sandbox import Cancellation, ExceededError, HelperLimits, RefusedError, UnavailableError
from runtime.server.errors import ApiError
from runtime.server.service import Service, trim_heap_sometimes
from runtime.server.spool import SpooledFile, SpoolFullError, Upload, memory_limit
from runtime.server.state import state_of
from runtime.server.streaming import or_disconnect
from runtime.urls import network

T = TypeVar("T")
Open = Callable[[], SpooledFile]
Fields = dict[str, list[str | Upload]]

MAX_COMMAS = 20_000  # without a limit, 512 MiB could hold 170 million empty lists, which take 10 GiB
MAX_FIELDS = 40
LARGE_BODY = 256 << 10  # bytes from which on a body is parsed in a helper process; less takes a millisecond
DECODED_KEY = "decoded"  # where in a part of a message decoded audio is
FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")

log = logging.getLogger(__name__)


def parse_strict_json(content: bytes, *, max_commas: int = MAX_COMMAS, allow_surrogates: bool = False) -> Any:
    """Parse JSON.

    Raises ValueError for text that is no JSON or too deeply nested, for a duplicate key, for more than `max_commas`
    commas and, unless `allow_surrogates`, for lone surrogates, which JSON can hold (\\ud800) and UTF-8 cannot.
    """
    if content.count(b",") > max_commas:
        raise ValueError(f"it holds more than {max_commas} commas")
    try:
        value = json.loads(content, object_pairs_hook=_unique_keys)
        if not allow_surrogates:
            _check_text(value)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    reply = dict(pairs)
    if len(reply) < len(pairs):
        (name, count), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is given {count} times")
    return reply


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_text(inner)


def memory_share(request: Request) -> int:
    """How many bytes of an upload may stay in memory: the fewer, the more requests there are."""
    return memory_limit(state_of(request).accepted)


def spool_opener(request: Request) -> Open:
    """Return a function that opens spooled files for a request."""
    return partial(state_of(request).service.spool.open, memory_share(request), owner_of(request))


def owner_of(request: Request) -> str:
    """Whom a request's disk space counts for: the key's owner, or the address."""
    return request.state.owner or (network(request.client.host) if request.client else "")


@asynccontextmanager
async def read_form(request: Request, settings: Settings) -> AsyncIterator[Fields]:
    """Yield the fields of a form, each with all its values; at most one of them is a file.

    Raises ApiError: 408 or 413 for a body that takes too long or is too large, 415 for another content type, 400 for a
    malformed one, 507 if there is no room for it.
    """
    kind = content_type(request)
    if kind not in FORM_TYPES:
        raise ApiError(415, f"the body is {kind or 'of no type'}, expected {FORM_TYPES[0]}", code="content_type")
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() != "utf-8":  # Python knows codecs that are no character sets, and slow ones
        raise ApiError(415, f"the form is in the character set {charset!r}, expected utf-8", code="content_type")
    body = _limited_body(request, settings.upload_max_mib << 20)
    files = ExitStack()
    parser: _CompleteFormParser | FormParser
    if kind == FORM_TYPES[0]:
        parser = _CompleteFormParser(request.headers, body, files=files, open_file=spool_opener(request))
    else:
        parser = FormParser(request.headers, body, max_fields=MAX_FIELDS)
    try:
        try:
            data = await _with_timeout(parser.parse(), settings.request_timeout_seconds)
        except MultiPartException as error:
            raise ApiError(400, f"the form cannot be read: {error.message}", code="invalid_body") from None
        except OSError as error:
            raise _storage_error(error) from error
        finally:
            await body.aclose()
            await trim_heap_sometimes()
        fields: Fields = {}
        for name, value in data.multi_items():
            fields.setdefault(name, []).append(_upload(value) if isinstance(value, UploadFile) else value)
        yield fields
    finally:
        await run_in_threadpool(files.close)


async def read_json(request: Request, service: Service, read: Callable[[Any], T]) -> T:
    """Return what `read`, called in a thread, makes of a chat request's body. The audio of a large body is already
    decoded: it is an Upload, under DECODED_KEY, in its part of a message.

    Raises ApiError like `read_form`, what `read` raises, and ClientDisconnect if the client hangs up while a large body
    is read.
    """
    kind = content_type(request)
    if kind != "application/json":
        raise ApiError(415, f"the body is {kind or 'of no type'}, expected application/json", code="content_type")
    with spool_opener(request)() as file, ExitStack() as unless_kept:
        try:
            spooling = _spool(request, file, service.settings.upload_max_mib << 20)
            await _with_timeout(spooling, service.settings.request_timeout_seconds)
        except OSError as error:
            raise _storage_error(error) from error
        try:
            if file.tell() > LARGE_BODY:
                into, cancellation = unless_kept.enter_context(spool_opener(request)()), Cancellation()
                reading = service.in_body_thread(partial(_parse_large, file, into, read, cancellation), cancellation)
                parsed = await or_disconnect(request, reading)
                unless_kept.pop_all()  # the upload's owner closes it
                return parsed
            return await service.in_parser_thread(partial(_parse_small, file, read))
        finally:
            await trim_heap_sometimes()


def _parse_small(file: IO[bytes], read: Callable[[Any], T]) -> T:
    file.seek(0)
    try:
        body = parse_strict_json(file.read())
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_body") from None
    return read(body)


def _parse_large(file: IO[bytes], into: SpooledFile, read: Callable[[Any], T], cancellation: Cancellation) -> T:
    """Parse a large body, its audio decoded to `into`, which is closed if there is none."""
    reply = _parse_in_helper(file, into, cancellation)
    if reply["place"] is None:
        into.close()
    else:
        message, part = reply["place"]
        reply["body"]["messages"][message]["content"][part][DECODED_KEY] = Upload(into, "audio")
    return read(reply["body"])


def _parse_in_helper(file: IO[bytes], into: SpooledFile, cancellation: Cancellation) -> Any:
    """Run `chat_body.read` in a helper process."""
    size = file.seek(0, io.SEEK_END)
    limits = helper_limits(size)
    try:
        descriptor = into.write_externally(limits.output)
        task = "runtime.server.routes.chat_body:read"
        reply = sandbox.call(task, file, descriptor, {}, bounds=limits, cancellation=cancellation)
        into.finish_external_write()
        return reply
    except RefusedError as error:
        subject, reason, _ = error.arguments
        if subject == "messages":
            raise ApiError(400, f"{subject}: {reason}", param=subject, code="invalid_value") from None
        raise ApiError(400, f"{subject} {reason}", code="invalid_body") from None
    except ExceededError as error:
        raise ApiError(400, f"the body {error}", code="invalid_body") from None
    except UnavailableError as error:
        log.error("a body cannot be read: %s", error)
        raise ApiError(503, "the body cannot be read now; try again later", code="unreadable_now") from error
    except OSError as error:
        raise _storage_error(error) from error


def helper_limits(size: int) -> HelperLimits:
    """The helper's limits for a body of `size` bytes."""
    cpu_seconds = 10 + size / (8 << 20)
    output = size * 3 // 4  # of four characters of base64 come three bytes
    return HelperLimits(memory=(64 << 20) + size, output=output, cpu_seconds=cpu_seconds, seconds=4 * cpu_seconds)


def from_base64(text: str, *, name: str, param: str, open_file: Open) -> Upload:
    """Decode base64 to a file. Raises ApiError if it is none."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{param} is no base64: {error}", param=param, code="invalid_value") from None
    file = open_file()
    try:
        file.write(content)
    except OSError as error:
        file.close()
        raise _storage_error(error) from error
    return Upload(file, name)


def content_type(request: Request) -> str:
    """The body's media type, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class _CompleteFormParser(MultiPartParser):
    """Parses a form with at most one file, which `files` closes. A form without its closing boundary is refused."""

    def __init__(
        self, headers: Headers, body: AsyncGenerator[bytes, None], *, files: ExitStack, open_file: Open
    ) -> None:
        super().__init__(headers, self._until_complete(body), max_files=1, max_fields=MAX_FIELDS)
        self._files, self._open = files, open_file
        self._ended = False

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if part := self._current_part.file:
            part.file.close()
            file = cast(BinaryIO, self._files.enter_context(self._open()))
            self._current_part.file = UploadFile(file, size=0, filename=part.filename, headers=part.headers)

    def on_end(self) -> None:
        self._ended = True

    async def _until_complete(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in body:
            yield chunk
        if not self._ended:
            raise MultiPartException("it breaks off before its closing boundary")


def _upload(part: UploadFile) -> Upload:
    assert isinstance(part.file, SpooledFile)
    return Upload(part.file, Path(part.filename or "").name or "audio")


def _storage_error(error: OSError) -> ApiError:
    log.error("an upload cannot be stored: %s", error)
    return ApiError(507, f"the upload cannot be stored: {error.strerror or error}", code="storage", close=True)


async def _with_timeout(reading: Coroutine[Any, Any, T], seconds: float) -> T:
    try:
        return await asyncio.wait_for(reading, seconds)
    except asyncio.TimeoutError:
        message = f"the body took longer to arrive than the limit of {seconds:g} s"
        raise ApiError(408, message, code="slow_upload", close=True) from None


async def _spool(request: Request, file: SpooledFile, max_bytes: int) -> None:
    async for chunk in _limited_body(request, max_bytes):
        await run_in_threadpool(file.write, chunk)


async def _limited_body(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body in chunks. Raises ApiError: 413 as soon as it is known to be too large, 507 if its declared length
    does not fit the spool."""
    declared = request.headers.get("content-length", "")
    arrived = int(declared) if declared.isdecimal() else 0
    if arrived <= max_bytes:
        if arrived > memory_share(request):
            try:
                state_of(request).service.spool.check(arrived, owner_of(request))
            except SpoolFullError as error:
                raise _storage_error(error) from error
        arrived = 0
        async for chunk in request.stream():
            arrived += len(chunk)
            if arrived > max_bytes:
                break
            yield chunk
    if arrived > max_bytes:
        message = f"the body is larger than {max_bytes / 2**20:g} MiB, the limit (ASR_UPLOAD_MAX_MIB)"
        raise ApiError(413, message, code="too_large", close=True)

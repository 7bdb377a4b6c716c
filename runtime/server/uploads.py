"""Bodies of requests: bounded while they arrive, on disk if they are large or many, gone when the request is."""

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
from runtime.server.service import Service, tidy
from runtime.server.spool import SpooledFile, SpoolFullError, Upload, most_in_memory
from runtime.server.state import life_of
from runtime.server.streaming import unless_gone
from runtime.urls import network

MOST_COMMAS = 20_000  # without a limit, 512 MiB could hold 170 million empty lists, which take 10 GiB

T = TypeVar("T")
Open = Callable[[], SpooledFile]

log = logging.getLogger(__name__)

MOST_FIELDS = 40
LARGE = 256 << 10  # bytes from which on a body is parsed in a helper process; less takes a millisecond
DECODED = "decoded"  # where in a part of a message decoded audio is
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


Fields = dict[str, list[str | Upload]]


def parse_strict_json(content: bytes, *, most_commas: int = MOST_COMMAS, halves: bool = False) -> Any:
    """The value that `content` holds.

    Raises ValueError for what is no JSON or nested too deeply, for a key that an object has twice, for halves of
    characters, which JSON can hold (\\ud800) and UTF-8 cannot, unless `halves` has them pass, and for more than
    `most_commas` commas.
    """
    if content.count(b",") > most_commas:
        raise ValueError(f"it holds more than {most_commas} commas")
    try:
        value = json.loads(content, object_pairs_hook=_unrepeated)
        if not halves:
            _check_text(value)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return value


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, count), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is given {count} times")
    return found


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


def in_memory(request: Request) -> int:
    """Bytes that an upload may keep in memory: the fewer, the more requests there are."""
    return most_in_memory(life_of(request).accepted)


def opener(request: Request) -> Open:
    """Makes the files that a request is kept in."""
    return partial(life_of(request).service.spool.open, in_memory(request), caller(request))


def caller(request: Request) -> str:
    """To whom the room on disk counts that a request takes: a key's owner, or an address."""
    return request.state.owner or (network(request.client.host) if request.client else "")


@asynccontextmanager
async def form(request: Request, settings: Settings) -> AsyncIterator[Fields]:
    """The fields of a form, each with all its values; at most one of them is a file.

    Raises ApiError: 408 and 413 for a body that takes longer or is larger than the settings allow, 415 for another type
    of body, 400 for a broken one, 507 where there is no room for it.
    """
    kind = content_type(request)
    if kind not in FORMS:
        raise ApiError(415, f"the body is {kind or 'of no type'}, expected {FORMS[0]}", code="content_type")
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() != "utf-8":  # Python knows codecs that are no character sets, and slow ones
        raise ApiError(415, f"the form is in the character set {charset!r}, expected utf-8", code="content_type")
    body = _bounded(request, settings.upload_max_mib << 20)
    kept = ExitStack()
    parser: _WholeForm | FormParser
    if kind == FORMS[0]:
        parser = _WholeForm(request.headers, body, kept=kept, open_file=opener(request))
    else:
        parser = FormParser(request.headers, body, max_fields=MOST_FIELDS)
    try:
        try:
            data = await _in_time(parser.parse(), settings)
        except MultiPartException as error:
            raise ApiError(400, f"the form cannot be read: {error.message}", code="invalid_body") from None
        except OSError as error:
            raise _unstorable(error) from error
        finally:
            await body.aclose()
            await tidy()
        fields: Fields = {}
        for name, value in data.multi_items():
            fields.setdefault(name, []).append(_upload(value) if isinstance(value, UploadFile) else value)
        yield fields
    finally:
        await run_in_threadpool(kept.close)


async def json_body(request: Request, service: Service, read: Callable[[Any], T]) -> T:
    """What `read`, called in one of the service's threads for bodies, makes of a chat request. The audio of a large one
    is decoded already: an Upload, as DECODED, in its part of a message.

    Raises ApiError like `form`, what `read` raises, and ClientDisconnect where the client hangs up while a large one is
    read, which ends that.
    """
    kind = content_type(request)
    if kind != "application/json":
        raise ApiError(415, f"the body is {kind or 'of no type'}, expected application/json", code="content_type")
    with opener(request)() as file, ExitStack() as unless_kept:
        try:
            await _in_time(_spool(request, file, service.settings), service.settings)
        except OSError as error:
            raise _unstorable(error) from error
        try:
            if file.tell() > LARGE:
                into, cancellation = unless_kept.enter_context(opener(request)()), Cancellation()
                reading = service.read(partial(_read_large, file, into, read, cancellation), cancellation)
                asked = await unless_gone(request, reading)
                unless_kept.pop_all()  # the upload's owner closes it
                return asked
            return await service.parse(partial(_read_small, file, read))
        finally:
            await tidy()


def _read_small(file: IO[bytes], read: Callable[[Any], T]) -> T:
    file.seek(0)
    try:
        body = parse_strict_json(file.read())
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_body") from None
    return read(body)


def _read_large(file: IO[bytes], into: SpooledFile, read: Callable[[Any], T], cancellation: Cancellation) -> T:
    """The audio is written to `into`, which is closed where there is none."""
    found = _parsed_apart(file, into, cancellation)
    if found["place"] is None:
        into.close()
    else:
        message, part = found["place"]
        found["body"]["messages"][message]["content"][part][DECODED] = Upload(into, "audio")
    return read(found["body"])


def _parsed_apart(file: IO[bytes], into: SpooledFile, cancellation: Cancellation) -> Any:
    """What `chat_body.read` gives, in a helper process."""
    size = file.seek(0, io.SEEK_END)
    limits = bounds(size)
    try:
        descriptor = into.on_disk(limits.output)
        task = "runtime.server.routes.chat_body:read"
        found = sandbox.call(task, file, descriptor, {}, bounds=limits, cancellation=cancellation)
        into.settle()
        return found
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
        raise _unstorable(error) from error


def bounds(size: int) -> HelperLimits:
    """For a body of so many bytes."""
    cpu_seconds = 10 + size / (8 << 20)
    output = size * 3 // 4  # of four characters of base64 come three bytes
    return HelperLimits(memory=(64 << 20) + size, output=output, cpu_seconds=cpu_seconds, seconds=4 * cpu_seconds)


def from_base64(text: str, *, name: str, param: str, open_file: Open) -> Upload:
    """The file that base64 stands for. Raises ApiError where it does not."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{param} is no base64: {error}", param=param, code="invalid_value") from None
    file = open_file()
    try:
        file.write(content)
    except OSError as error:
        file.close()
        raise _unstorable(error) from error
    return Upload(file, name)


def content_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class _WholeForm(MultiPartParser):
    """Reads a form with one file at most, which `kept` closes; without its closing boundary it is refused."""

    def __init__(
        self, headers: Headers, body: AsyncGenerator[bytes, None], *, kept: ExitStack, open_file: Open
    ) -> None:
        super().__init__(headers, self._until_its_end(body), max_files=1, max_fields=MOST_FIELDS)
        self._kept, self._open = kept, open_file
        self._ended = False

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if part := self._current_part.file:
            part.file.close()
            file = cast(BinaryIO, self._kept.enter_context(self._open()))
            self._current_part.file = UploadFile(file, size=0, filename=part.filename, headers=part.headers)

    def on_end(self) -> None:
        self._ended = True

    async def _until_its_end(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for piece in body:
            yield piece
        if not self._ended:
            raise MultiPartException("it breaks off before its closing boundary")


def _upload(part: UploadFile) -> Upload:
    assert isinstance(part.file, SpooledFile)
    return Upload(part.file, Path(part.filename or "").name or "audio")


def _unstorable(error: OSError) -> ApiError:
    log.error("an upload cannot be stored: %s", error)
    return ApiError(507, f"the upload cannot be stored: {error.strerror or error}", code="storage", close=True)


async def _in_time(reading: Coroutine[Any, Any, T], settings: Settings) -> T:
    seconds = settings.request_timeout_seconds
    try:
        return await asyncio.wait_for(reading, seconds)
    except asyncio.TimeoutError:
        words = f"the body took longer to arrive than the limit of {seconds:g} s"
        raise ApiError(408, words, code="slow_upload", close=True) from None


async def _spool(request: Request, file: SpooledFile, settings: Settings) -> None:
    async for piece in _bounded(request, settings.upload_max_mib << 20):
        await run_in_threadpool(file.write, piece)


async def _bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body piece by piece. Raises ApiError, 413, as soon as it is known to be too large, and 507 where it is known
    from the start that there is no room for it."""
    declared = request.headers.get("content-length", "")
    arrived = int(declared) if declared.isdecimal() else 0
    if arrived <= most_bytes:
        if arrived > in_memory(request):
            try:
                life_of(request).service.spool.check(arrived, caller(request))
            except SpoolFullError as error:
                raise _unstorable(error) from error
        arrived = 0
        async for piece in request.stream():
            arrived += len(piece)
            if arrived > most_bytes:
                break
            yield piece
    if arrived > most_bytes:
        words = f"the body is larger than {most_bytes / 2**20:g} MiB, the limit (ASR_UPLOAD_MAX_MIB)"
        raise ApiError(413, words, code="too_large", close=True)

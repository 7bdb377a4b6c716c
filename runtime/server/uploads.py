"""Bodies of requests: bounded while they arrive, on disk if they are large or many, gone when the request is."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from env.settings import Settings
from runtime import audio
from runtime.audio import Audio, Limits
from runtime.errors import KitError
from runtime.server.errors import ApiError
from runtime.server.life import life_of

T = TypeVar("T")

IN_MEMORY = 1 << 20  # bytes of an upload; the rest is in a file without a name
ALL_IN_MEMORY = 32 << 20  # bytes of all uploads together, as hundreds may wait
MOST_FIELDS = 40
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


@dataclass(frozen=True)
class Upload:
    """Audio as a client sent it, under the name that the client gave it."""

    file: "SpooledTemporaryFile[bytes]"
    name: str

    def load(self, *, limits: Limits) -> Audio:
        """Decode it. Raises KitError like `runtime.audio.load`, with the client's name for it."""
        try:
            source: Path | bytes
            if self.file._rolled:  # type: ignore[attr-defined]
                source = Path(f"/proc/self/fd/{self.file.fileno()}")  # opened anew, however often
            else:
                self.file.seek(0)
                source = self.file.read()
            return replace(audio.load(source, limits=limits), source=self.name)
        except KitError as error:
            raise type(error)(self.name, error.reason, error.advice) from error

    def close(self) -> None:
        """Forget it."""
        self.file.close()


Fields = dict[str, list[str | Upload]]


def in_memory(request: Request) -> int:
    """Bytes that an upload may keep in memory: the fewer, the more requests there are."""
    return min(IN_MEMORY, ALL_IN_MEMORY // life_of(request).accepted)


@asynccontextmanager
async def form(request: Request, settings: Settings) -> AsyncIterator[Fields]:
    """The fields of a form, each with all its values; at most one of them is a file.

    Raises ApiError: 408 and 413 for a body that takes longer or is larger than the settings allow, 415 for another type
    of body, 400 for a broken one.
    """
    kind = content_type(request)
    if kind not in FORMS:
        raise ApiError(415, f"the body is {kind or 'of no type'}, expected {FORMS[0]}", code="content_type")
    body = _bounded(request, settings.upload_max_mib << 20)
    parser: MultiPartParser | FormParser
    if kind == FORMS[0]:
        parser = MultiPartParser(request.headers, body, max_files=1, max_fields=MOST_FIELDS)
        parser.spool_max_size = in_memory(request)
    else:
        parser = FormParser(request.headers, body, max_fields=MOST_FIELDS)
    try:
        data = await _in_time(parser.parse(), settings)
    except MultiPartException as error:
        raise ApiError(400, f"the form cannot be read: {error.message}", code="invalid_body") from None
    except OSError as error:
        raise _unstorable(error) from error
    finally:
        await body.aclose()
    fields: Fields = {}
    for name, value in data.multi_items():
        fields.setdefault(name, []).append(_upload(value) if isinstance(value, UploadFile) else value)
    try:
        yield fields
    finally:
        await data.close()


async def json_body(request: Request, settings: Settings) -> Any:
    """A JSON body, read in a thread. Raises ApiError like `form`."""
    kind = content_type(request)
    if kind != "application/json":
        raise ApiError(415, f"the body is {kind or 'of no type'}, expected application/json", code="content_type")
    with SpooledTemporaryFile(max_size=in_memory(request)) as file:
        try:
            await _in_time(_spool(request, file, settings), settings)
        except OSError as error:
            raise _unstorable(error) from error
        file.seek(0)
        try:
            return await run_in_threadpool(json.load, file)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is no JSON: {error}", code="invalid_body") from None


def from_base64(text: str, *, name: str, param: str, most_in_memory: int) -> Upload:
    """The file that base64 stands for. Raises ApiError where it does not."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{param} is no base64: {error}", param=param, code="invalid_value") from None
    file = SpooledTemporaryFile(max_size=most_in_memory)  # noqa: SIM115 - the upload's owner closes it
    try:
        file.write(content)
    except OSError as error:
        file.close()
        raise _unstorable(error) from error
    return Upload(file, name)


def content_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _upload(part: UploadFile) -> Upload:
    assert isinstance(part.file, SpooledTemporaryFile)
    return Upload(part.file, Path(part.filename or "").name or "audio")


def _unstorable(error: OSError) -> ApiError:
    return ApiError(500, f"the upload cannot be stored: {error.strerror or error}", code="storage", close=True)


async def _in_time(reading: Coroutine[Any, Any, T], settings: Settings) -> T:
    seconds = settings.request_timeout_seconds
    try:
        return await asyncio.wait_for(reading, seconds)
    except asyncio.TimeoutError:
        words = f"the body took longer to arrive than the limit of {seconds:g} s"
        raise ApiError(408, words, code="slow_upload", close=True) from None


async def _spool(request: Request, file: "SpooledTemporaryFile[bytes]", settings: Settings) -> None:
    async for piece in _bounded(request, settings.upload_max_mib << 20):
        await run_in_threadpool(file.write, piece)


async def _bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body piece by piece. Raises ApiError, 413, as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "")
    arrived = int(declared) if declared.isdecimal() else 0
    if arrived <= most_bytes:
        arrived = 0
        async for piece in request.stream():
            arrived += len(piece)
            if arrived > most_bytes:
                break
            yield piece
    if arrived > most_bytes:
        words = f"the body is larger than {most_bytes / 2**20:g} MiB, the limit (ASR_UPLOAD_MAX_MIB)"
        raise ApiError(413, words, code="too_large", close=True)

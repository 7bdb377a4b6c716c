"""Parses, in a helper process, the body of a chat request that base64 audio makes large, piece by piece."""

import base64
import contextlib
import io
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from env.errors import KitError
from runtime.server import uploads

AUDIO_KEYS = {"input_audio": "data", "audio_url": "url"}  # parts of a message that bring audio, and where they have it
MAX_OTHER_BYTES = 256 << 10  # bytes of all that is not audio
LONG_STRING_BYTES = 128 << 10  # bytes from which on a string is taken for audio; that of the longest context has fewer
MAX_URL_HEAD = 1 << 10  # bytes of a data URL before its data
DECODE_BYTES = 1 << 20  # bytes decoded at once
MAX_ESCAPE_BYTES = 6  # bytes of the longest escape, \\u002B


@dataclass(frozen=True)
class LongString:
    """A long string's position in the body, and the token that replaces it while the rest is parsed."""

    start: int
    end: int
    token: str


def read(file: IO[bytes], into: IO[bytes], _: Mapping[str, Any], __: Callable[[float], None]) -> dict[str, Any]:
    """Return the `body`, with only the beginning of each audio; the first audio is decoded to `into`. `place` has the
    indices of its message and part, None if there is none.

    Raises KitError for what is no JSON or no base64, and for much text beside the audio.
    """
    file.seek(0)
    content = file.read()
    strings = list(_long_strings(content))
    try:
        body = uploads.parse_strict_json(_without_strings(content, strings))
    except ValueError as error:
        raise KitError("the body", f"is no JSON: {error}") from None
    left = {string.token: string for string in strings}
    place: tuple[int, int] | None = None
    for here, kind, part in _parts(body):
        string = left.pop(part[AUDIO_KEYS[kind]], None)
        if string is None:
            continue
        head, start = _split_data_url(content, string)
        part[AUDIO_KEYS[kind]] = head
        if place is None and base64_start(kind, head) is not None:
            place = here
            _decode(content, start, string.end, into)
    for string in left.values():
        raise KitError("the body", f"holds a text of {string.end - string.start} bytes, which only its audio may")
    return {"body": body, "place": place}


def base64_start(kind: str, text: str) -> int | None:
    """Where base64 begins in a part's text; None for a URL, or what is no base64."""
    if text[:5].lower() == "data:":
        head, comma, _ = text[:MAX_URL_HEAD].partition(",")
        return len(head) + 1 if comma and head.lower().endswith(";base64") else None
    if kind == "audio_url" or text[:8].lower().startswith(("http://", "https://")):
        return None
    return 0


def _long_strings(content: bytes) -> Iterator[LongString]:
    position = rest = 0
    while (start := content.find(b'"', position)) >= 0:
        end = _string_end(content, start + 1)
        if end < 0:
            break
        rest += start - position
        if end - start > LONG_STRING_BYTES:
            yield LongString(start + 1, end, secrets.token_hex())
        else:
            rest += end - start
        _check_rest(rest)
        position = end + 1
    _check_rest(rest + len(content) - position)


def _check_rest(size: int) -> None:
    if size > MAX_OTHER_BYTES:
        raise KitError("the body", f"holds more than {MAX_OTHER_BYTES} bytes beside its audio")


def _string_end(content: bytes, start: int) -> int:
    """The index of a string's closing quote; -1 without one."""
    end = content.find(b'"', start)
    while end >= 0:
        slash = end
        while slash > start and content[slash - 1] == ord("\\"):
            slash -= 1
        if (end - slash) % 2 == 0:  # the backslashes escape each other
            return end
        end = content.find(b'"', end + 1)
    return -1


def _without_strings(content: bytes, strings: Sequence[LongString]) -> bytes:
    """Replace each long string by its token."""
    pieces, position = [], 0
    for string in strings:
        pieces += [content[position : string.start], string.token.encode()]
        position = string.end
    return b"".join([*pieces, content[position:]])


def _parts(body: Any) -> Iterator[tuple[tuple[int, int], str, dict[str, Any]]]:
    """Yield each audio part: the indices of its message and itself, its kind, and its content."""
    for number, message in enumerate(_list(body, "messages")):
        for index, part in enumerate(_list(message, "content")):
            for kind in AUDIO_KEYS:
                content = part.get(kind) if isinstance(part, dict) and part.get("type") == kind else None
                if isinstance(content, dict) and isinstance(content.get(AUDIO_KEYS[kind]), str):
                    yield (number, index), kind, content


def _list(holder: Any, name: str) -> list[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    return found if isinstance(found, list) else []


def _split_data_url(content: bytes, string: LongString) -> tuple[str, int]:
    """The head of a part's text, and where in the body its base64 begins."""
    first = content[string.start : string.start + MAX_URL_HEAD]
    if first[:4].lower() == b"http":
        raise KitError("messages", f"hold a URL of {string.end - string.start} bytes")
    comma = first.find(b",")
    if first[:5].lower() != b"data:" or comma < 0:
        return first[:5].decode(errors="replace"), string.start
    try:
        return f"{_unescape(first[:comma]).decode()},", string.start + comma + 1
    except ValueError as error:
        raise KitError("the body", f"is no JSON: {error}") from None


def _decode(content: bytes, start: int, end: int, into: IO[bytes]) -> None:
    left = b""
    try:
        while start < end:
            stop = min(start + DECODE_BYTES, end)
            if stop < end and (escape := content.rfind(b"\\", stop - MAX_ESCAPE_BYTES, stop)) >= 0:
                stop = escape  # which must not be parted
            piece = left + _unescape(content[start:stop])
            whole = len(piece) - (len(piece) % 4 if stop < end else 0)
            if stop < end and b"=" in piece:
                raise ValueError("padding before its end")
            into.write(base64.b64decode(piece[:whole], validate=True))
            left, start = piece[whole:], stop
    except ValueError as error:
        raise KitError("messages", f"is no base64: {error}") from None


def _unescape(text: bytes) -> bytes:
    """Decode the escapes of a JSON string: PHP writes / as \\/, .NET writes + as \\u002B. Raises ValueError for an
    invalid one."""
    unescaped: str = json.loads(b'"' + text + b'"') if b"\\" in text else text.decode()
    return unescaped.encode()


def try_out() -> None:
    """Read a valid and an invalid body, so that everything is loaded that is loaded at first use."""
    part = {"type": "input_audio", "input_audio": {"data": "AAAA" * LONG_STRING_BYTES}}
    sound = json.dumps({"messages": [{"content": [part]}]}).encode()
    for content in (sound, b"{" * LONG_STRING_BYTES):
        with contextlib.suppress(KitError):
            read(io.BytesIO(content), io.BytesIO(), {}, lambda _: None)

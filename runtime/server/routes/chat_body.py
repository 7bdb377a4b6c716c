"""The body of a chat request that its audio, in base64, makes large: read in a helper process, piece by piece."""

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

KEYS = {"input_audio": "data", "audio_url": "url"}  # parts of a message that bring audio, and where they have it
MOST_REST = 256 << 10  # bytes of all that is not audio
LONG = 128 << 10  # bytes from which on a string is taken for audio; that of the longest context has fewer
MOST_HEAD = 1 << 10  # bytes of a data URL before its data
PIECE = 1 << 20  # bytes decoded at once
ESCAPE = 6  # bytes of the longest escape, \\u002B


@dataclass(frozen=True)
class Long:
    """A long string: where in the body it stands, and what stands for it when the rest is parsed."""

    start: int
    end: int
    token: str


def read(file: IO[bytes], into: IO[bytes], _: Mapping[str, Any], __: Callable[[float], None]) -> dict[str, Any]:
    """The `body`, of whose audio only how it begins is left; the first piece of it is written, decoded. `place` has the
    indices of its message and part, None where there is none.

    Raises KitError for what is no JSON or no base64, or holds much else.
    """
    file.seek(0)
    content = file.read()
    strings = list(_long_strings(content))
    try:
        body = uploads.parse_strict_json(_rest(content, strings))
    except ValueError as error:
        raise KitError("the body", f"is no JSON: {error}") from None
    left = {string.token: string for string in strings}
    place: tuple[int, int] | None = None
    for here, kind, part in _parts(body):
        string = left.pop(part[KEYS[kind]], None)
        if string is None:
            continue
        head, start = _head(content, string)
        part[KEYS[kind]] = head
        if place is None and base64_start(kind, head) is not None:
            place = here
            _decode(content, start, string.end, into)
    for string in left.values():
        raise KitError("the body", f"holds a text of {string.end - string.start} bytes, which only its audio may")
    return {"body": body, "place": place}


def base64_start(kind: str, text: str) -> int | None:
    """Where in the text of a part base64 begins; None for a URL, or what is no base64."""
    if text[:5].lower() == "data:":
        head, comma, _ = text[:MOST_HEAD].partition(",")
        return len(head) + 1 if comma and head.lower().endswith(";base64") else None
    if kind == "audio_url" or text[:8].lower().startswith(("http://", "https://")):
        return None
    return 0


def _long_strings(content: bytes) -> Iterator[Long]:
    position = rest = 0
    while (start := content.find(b'"', position)) >= 0:
        end = _string_end(content, start + 1)
        if end < 0:
            break
        rest += start - position
        if end - start > LONG:
            yield Long(start + 1, end, secrets.token_hex())
        else:
            rest += end - start
        _check_rest(rest)
        position = end + 1
    _check_rest(rest + len(content) - position)


def _check_rest(size: int) -> None:
    if size > MOST_REST:
        raise KitError("the body", f"holds more than {MOST_REST} bytes beside its audio")


def _string_end(content: bytes, start: int) -> int:
    """Where the quote stands that ends a string; -1 where none does."""
    end = content.find(b'"', start)
    while end >= 0:
        slash = end
        while slash > start and content[slash - 1] == ord("\\"):
            slash -= 1
        if (end - slash) % 2 == 0:  # the backslashes escape each other
            return end
        end = content.find(b'"', end + 1)
    return -1


def _rest(content: bytes, strings: Sequence[Long]) -> bytes:
    """The body with a token in place of each long string."""
    pieces, position = [], 0
    for string in strings:
        pieces += [content[position : string.start], string.token.encode()]
        position = string.end
    return b"".join([*pieces, content[position:]])


def _parts(body: Any) -> Iterator[tuple[tuple[int, int], str, dict[str, Any]]]:
    """Index of the message and of the part, kind and content of the parts that bring audio."""
    for number, message in enumerate(_list(body, "messages")):
        for index, part in enumerate(_list(message, "content")):
            for kind in KEYS:
                content = part.get(kind) if isinstance(part, dict) and part.get("type") == kind else None
                if isinstance(content, dict) and isinstance(content.get(KEYS[kind]), str):
                    yield (number, index), kind, content


def _list(holder: Any, name: str) -> list[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    return found if isinstance(found, list) else []


def _head(content: bytes, string: Long) -> tuple[str, int]:
    """How the text of a part begins, and where in the body its base64 does."""
    first = content[string.start : string.start + MOST_HEAD]
    if first[:4].lower() == b"http":
        raise KitError("messages", f"hold a URL of {string.end - string.start} bytes")
    comma = first.find(b",")
    if first[:5].lower() != b"data:" or comma < 0:
        return first[:5].decode(errors="replace"), string.start
    try:
        return f"{_unescaped(first[:comma]).decode()},", string.start + comma + 1
    except ValueError as error:
        raise KitError("the body", f"is no JSON: {error}") from None


def _decode(content: bytes, start: int, end: int, into: IO[bytes]) -> None:
    left = b""
    try:
        while start < end:
            stop = min(start + PIECE, end)
            if stop < end and (escape := content.rfind(b"\\", stop - ESCAPE, stop)) >= 0:
                stop = escape  # which must not be parted
            piece = left + _unescaped(content[start:stop])
            whole = len(piece) - (len(piece) % 4 if stop < end else 0)
            if stop < end and b"=" in piece:
                raise ValueError("padding before its end")
            into.write(base64.b64decode(piece[:whole], validate=True))
            left, start = piece[whole:], stop
    except ValueError as error:
        raise KitError("messages", f"is no base64: {error}") from None


def _unescaped(text: bytes) -> bytes:
    """What stands in a JSON string: PHP writes / as \\/, .NET writes + as \\u002B. Raises ValueError for no escape."""
    unescaped: str = json.loads(b'"' + text + b'"') if b"\\" in text else text.decode()
    return unescaped.encode()


def try_out() -> None:
    """Read what is sound and what is none, so that everything is loaded that is loaded at its first use."""
    part = {"type": "input_audio", "input_audio": {"data": "AAAA" * LONG}}
    sound = json.dumps({"messages": [{"content": [part]}]}).encode()
    for content in (sound, b"{" * LONG):
        with contextlib.suppress(KitError):
            read(io.BytesIO(content), io.BytesIO(), {}, lambda _: None)

"""The body of a chat request that its audio, in base64, makes large: parsed and decoded in a helper process."""

import binascii
import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from runtime.errors import KitError
from runtime.server import strict_json

KEYS = {"input_audio": "data", "audio_url": "url"}  # parts of a message that bring audio, and where they have it
LARGE = 64 << 10  # characters from which on base64 is decoded here
MOST_REST = 256 << 10  # bytes of all that is not audio
MOST_HEAD = 1 << 10  # characters of a data URL before its data
PIECE = 1 << 20  # characters decoded at once, a multiple of 4


def read(file: IO[bytes], into: IO[bytes], _: Mapping[str, Any], __: Callable[[float], None]) -> dict[str, Any]:
    """The `body`, the large piece of audio cut out of it and written, decoded. `place` has the indices of its message
    and part, None where there is none. Of further ones, which the route refuses, nothing is kept.

    Raises KitError for what is no JSON or no base64, or holds much else.
    """
    file.seek(0)
    try:
        body = strict_json.read(file.read())
    except ValueError as error:
        raise KitError("the body", f"is no JSON: {error}") from None
    place: tuple[int, int] | None = None
    for here, kind, content in _large_parts(body):
        text = content[KEYS[kind]]
        start = base64_start(kind, text)
        if start is None:
            continue
        if place is None:
            _decode(text, start, into)
        place = place or here
        content[KEYS[kind]] = text[: max(start, 1)]
    rest = len(json.dumps(body))
    if rest > MOST_REST:
        raise KitError("the body", f"holds {rest} bytes beside its audio, the limit is {MOST_REST}")
    return {"body": body, "place": place}


def base64_start(kind: str, text: str) -> int | None:
    """Where in the text of a part base64 begins; None for a URL, or what is no base64."""
    if text[:5].lower() == "data:":
        head, comma, _ = text[:MOST_HEAD].partition(",")
        return len(head) + 1 if comma and head.lower().endswith(";base64") else None
    if kind == "audio_url" or text[:8].lower().startswith(("http://", "https://")):
        return None
    return 0


def _large_parts(body: Any) -> Iterator[tuple[tuple[int, int], str, dict[str, Any]]]:
    """Index of the message and of the part, kind and content of the parts with much audio."""
    for number, message in enumerate(_list(body, "messages")):
        for index, part in enumerate(_list(message, "content")):
            if not isinstance(part, dict):
                continue
            for kind in KEYS:
                content = part.get(kind) if part.get("type") == kind else None
                text = content.get(KEYS[kind]) if isinstance(content, dict) else None
                if isinstance(text, str) and len(text) > LARGE:
                    yield (number, index), kind, part[kind]


def _list(holder: Any, name: str) -> list[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    return found if isinstance(found, list) else []


def _decode(text: str, start: int, into: IO[bytes]) -> None:
    try:
        for place in range(start, len(text), PIECE):
            piece = text[place : place + PIECE]
            if piece.endswith("=") and place + PIECE < len(text):
                raise ValueError("Excess data after padding")
            into.write(binascii.a2b_base64(piece, strict_mode=True))
    except ValueError as error:
        raise KitError("messages", f"is no base64: {error}") from None


def try_out() -> None:
    """Parse what is sound and what is none, so that everything is loaded that is loaded at its first use."""
    part = {"type": "input_audio", "input_audio": {"data": "AAAA" * LARGE}}
    sound = json.dumps({"messages": [{"content": [part]}]}).encode()
    for content in (sound, b"{"):
        with contextlib.suppress(KitError):
            read(io.BytesIO(content), io.BytesIO(), {}, lambda _: None)

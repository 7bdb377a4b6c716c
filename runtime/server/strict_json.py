"""JSON from strangers: nothing repeated, nothing that cannot be text, and not so much of it that memory fills."""

import json
from collections import Counter
from typing import Any

MOST_COMMAS = 20_000  # without a limit, 512 MiB could hold 170 million empty lists, which take 10 GiB


def read(content: bytes, *, most_commas: int = MOST_COMMAS, halves: bool = False) -> Any:
    """The value that `content` holds.

    Raises ValueError for what is no JSON or nested too deeply, for a key that an object has twice, for halves of
    characters, which JSON can hold (\\ud800) and UTF-8 cannot, unless `halves` has them pass, and for more than
    `most_commas` commas.
    """
    if content.count(b",") > most_commas:
        raise ValueError(f"it holds more than {most_commas} commas")
    try:
        value = json.loads(content, object_pairs_hook=_unrepeated)
        _check_text(value, halves)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return value


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, count), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is given {count} times")
    return found


def _check_text(value: Any, halves: bool) -> None:
    if isinstance(value, str) and not halves and not value.isascii():
        value.encode()
    for inner in value if isinstance(value, list) else ():
        _check_text(inner, halves)
    for key, inner in value.items() if isinstance(value, dict) else ():
        _check_text(key, halves)
        _check_text(inner, halves)

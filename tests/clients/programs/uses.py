"""How a program here tells what came of each thing that its client's users do: one JSON object on stdout."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

PATIENCE = 60.0  # seconds until what a client waits for will never come
Use = Callable[[], Awaitable[Any]]


def report(*uses: Use) -> None:
    """Do one after the other; print by the name of each what it returned, or how it failed."""
    with redirect_stdout(sys.stderr):  # LangChain prints how far it is
        told = asyncio.run(_outcomes(uses))
    print(json.dumps(told))


async def _outcomes(uses: Sequence[Use]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for use in uses:
        try:
            told[use.__name__] = {"answer": await asyncio.wait_for(use(), PATIENCE)}
        except Exception as error:  # noqa: BLE001 - whatever a client raises is what came of it
            told[use.__name__] = {"error": f"{type(error).__name__}: {error}"}
    return told

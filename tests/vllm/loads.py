"""Clients that have a server transcribe a long recording, and how they were answered."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from serving import PATIENCE, TRANSCRIPTIONS

from .program import Program

CLIENTS = 12


@dataclass(frozen=True)
class Outcome:
    """How a request ended: the status, then the text or the code of an error. The `deltas` of a stream are joined."""

    status: int
    text: str = ""
    code: str = ""
    deltas: str | None = None


@contextmanager
def under_load(program: Program, recording: bytes) -> Iterator[list["Future[Outcome]"]]:
    """Half of the clients want a stream; the block is entered when each of those has some of its text."""
    begun = threading.Barrier(CLIENTS // 2 + 1)
    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(_plain, program, recording) for _ in range(CLIENTS // 2)]
        asked += [pool.submit(_stream, program, recording, begun) for _ in range(CLIENTS // 2)]
        begun.wait(PATIENCE)
        yield asked


def _plain(program: Program, recording: bytes) -> Outcome:
    answer = program.post(files={"file": recording})
    told = answer.json()
    return Outcome(answer.status_code, told.get("text", ""), told.get("error", {}).get("code", ""))


def _stream(program: Program, recording: bytes, begun: threading.Barrier) -> Outcome:
    deltas: list[str] = []
    with httpx.stream(
        "POST",
        program.url + TRANSCRIPTIONS,
        files={"file": recording},
        data={"stream": "true"},
        timeout=PATIENCE,
    ) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event.get("type") == "transcript.text.delta":
                deltas.append(event["delta"])
                if len(deltas) == 1:
                    begun.wait(PATIENCE)
    return Outcome(answer.status_code, event.get("text", ""), event.get("error", {}).get("code", ""), "".join(deltas))

"""Two thousand broken files and a few bombs: each is answered, and nothing of them stays."""

import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import httpx
import pytest
from broken_audio import QUARTER, bombs, broken
from processes import resident
from serving import PATIENCE, TRANSCRIPTIONS, Served, served

from runtime.sandbox.pool import QUICK_PLACES, SLOW_PLACES
from runtime.transcriber import Transcriber

FILES, PER_ROUND, SEED = 2000, 100, 4
CLIENTS = 8
GROWTH = 16 << 20  # bytes of resident memory from the second third to the last


@pytest.fixture
def attic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def descriptors() -> Counter[str]:
    """What this process has open."""
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return Counter(str(link.readlink()).partition(":")[0] for link in links)


def fire(server: Served, files: Sequence[tuple[str, bytes]]) -> list[httpx.Response]:
    """Many clients, each sending the next file when its last is answered."""

    def send(file: tuple[str, bytes]) -> httpx.Response:
        return client.post(server.url + TRANSCRIPTIONS, files={"file": file})

    with httpx.Client(timeout=PATIENCE) as client, ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(send, files))


def test_broken_files_are_answered_and_leave_nothing(transcriber: Transcriber, attic: Path) -> None:
    rounds = broken(FILES, seed=SEED)
    opened = descriptors()
    statuses: Counter[int] = Counter()
    sizes = []
    with served(transcriber, max_new_tokens=4, max_audio_seconds=60) as server:
        while files := list(islice(rounds, PER_ROUND)):
            for (name, _), answer in zip(files, fire(server, files), strict=True):
                assert answer.status_code in (200, 400), f"{name}: {answer.text}"
                assert answer.status_code == 200 or answer.json()["error"]["code"] == "invalid_audio", name
                statuses[answer.status_code] += 1
            sizes.append(resident())
    third = len(sizes) // 3
    assert max(sizes[2 * third :]) - max(sizes[third : 2 * third]) < GROWTH, [size >> 20 for size in sizes]
    assert statuses[200] > FILES / 10
    assert statuses[400] > FILES / 2
    assert list(attic.iterdir()) == []
    left = descriptors() - opened  # but for the connections to helper processes that wait
    assert left.keys() <= {"socket"}
    assert left.total() <= QUICK_PLACES + SLOW_PLACES
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("audio-", "url-"))]


def test_bombs_are_refused_or_heard_as_the_silence_that_they_are(transcriber: Transcriber, attic: Path) -> None:
    with served(transcriber, max_audio_seconds=60) as server:
        for (name, _), answer in zip(bombs().items(), fire(server, list(bombs().items())), strict=True):
            if name == "channels":
                assert (answer.status_code, answer.json()["text"]) == (200, "")
            else:
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_audio"), name
    with served(transcriber) as server:
        heard = fire(server, [("silence.flac", bombs()["flac"])])[0].json()
    assert (heard["text"], heard["duration"]) == ("", QUARTER)
    assert list(attic.iterdir()) == []

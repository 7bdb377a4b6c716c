"""`kill -9` in the middle of the work: nobody is told half a story, and the server comes back as new."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import httpx
import pytest
from engine import free_port
from serving import PATIENCE, TRANSCRIPTIONS

from env.settings import Settings
from env.sources import load_settings
from runtime.demo import Clip
from runtime.ops.process import state
from runtime.ops.process.control import start, stop
from runtime.restart_policy import Policy

CLIENTS = 8


@pytest.fixture
def attic(tmp_path: Path) -> Path:
    """Where temporary files go."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


@pytest.fixture
def settings(attic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A place of its own for a server, as its process finds it in the environment."""
    variables = {"ASR_DEVICE": "cpu", "ASR_PORT": str(free_port()), "ASR_OUT_DIR": str(tmp_path / "out")}
    for name, value in {**variables, "TMPDIR": str(attic)}.items():
        monkeypatch.setenv(name, value)
    made = load_settings(variables)
    yield made
    stop(made, now=True, grace=0)


def test_a_killed_server_gives_whole_answers_or_none_and_comes_back(
    settings: Settings, attic: Path, speech: list[Clip]
) -> None:
    first = start(settings, on_stage=lambda _: None, policy=Policy(pause=0.01))
    url, clip = first.url + TRANSCRIPTIONS, speech[0]
    large = clip.path.read_bytes() + b"LIST\xff\xff\x0f\0" + bytes(0xFFFFF + 1)  # goes to a file on its way
    busy, over = Barrier(CLIENTS + 1), Event()

    def ask() -> list[int]:
        """The answers that came whole, up to the first that did not come."""
        statuses: list[int] = []
        try:
            while not over.is_set():
                answer = httpx.post(url, files={"file": large}, timeout=PATIENCE)
                statuses.append(answer.status_code)
                assert answer.json()["text"] == clip.text
                if len(statuses) == 1:
                    busy.wait(PATIENCE)
        except httpx.TransportError:
            return statuses
        return []

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask) for _ in range(CLIENTS)]
        busy.wait(PATIENCE)
        found = state.read_state(state.state_files(settings)).record
        assert found
        assert found.server
        with found.server.handle() as handle:
            assert handle
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        answered = [client.result() for client in clients]
        over.set()
    assert all(statuses and set(statuses) == {200} for statuses in answered)

    again = start(settings, on_stage=lambda _: None)
    assert again.already
    assert again.pid != first.pid
    assert httpx.post(url, files={"file": large}, timeout=PATIENCE).json()["text"] == clip.text
    assert stop(settings)
    assert not state.is_locked(state.state_files(settings).lock)
    assert list(attic.glob("tmp*")) == []  # torch may leave a directory

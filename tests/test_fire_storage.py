"""No room for what clients send: they are told so, and what needs no room is answered as ever."""

import base64
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from audio_files import made
from serving import Served, served
from strangers import serving

from runtime.measure.clips import Clip
from runtime.transcriber import Transcriber

LARGE = made("16 bit.wav", 20.0)  # seconds; more bytes than stay in memory


@pytest.fixture
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server around the demo model."""
    with served(transcriber, allow_private_urls=True, max_new_tokens=4) as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def full(disk: Path) -> str:
    """Where there is too little room."""
    return str(disk)


def read_only(disk: Path) -> str:
    """Where nothing can be written."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return str(disk)


def missing(disk: Path) -> str:
    """Where there is no directory."""
    return str(disk / "none")


def uploaded(server: Served) -> httpx.Response:
    """A file that goes to disk."""
    return server.post(files={"file": LARGE})


def spoken(server: Served) -> httpx.Response:
    """A chat that does."""
    audio = {"type": "input_audio", "input_audio": {"data": base64.b64encode(LARGE).decode(), "format": "wav"}}
    return server.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [audio]}]})


def linked(server: Served) -> httpx.Response:
    """A URL whose answer does."""
    with serving(lambda handler: handler.reply(LARGE)) as shop:
        return server.post(data={"url": shop.url})


def nameless() -> set[str]:
    """Files that are open and have no name any more."""
    links = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return {name for name in links if "(deleted)" in name}


@pytest.mark.parametrize("place", [full, read_only, missing])
def test_what_cannot_be_stored_is_told_and_the_rest_goes_on(
    server: Served,
    speech: list[Clip],
    disk: Path,
    place: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = nameless()
    monkeypatch.setattr(tempfile, "tempdir", place(disk))
    for send in (uploaded, spoken, linked):
        answer = send(server)
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage"), answer.text
        assert "cannot be stored: " in answer.json()["error"]["message"]
        assert "cannot be stored" in caplog.text
        caplog.clear()
        small = server.post(files={"file": speech[0].path.read_bytes()})
        assert small.status_code == 200
    monkeypatch.undo()
    assert uploaded(server).status_code == 200
    assert nameless() == kept

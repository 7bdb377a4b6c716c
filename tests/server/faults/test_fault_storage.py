"""No room for what clients send: they are told so, and what needs no room is answered as ever."""

import base64
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from attacks import SOMEBODY_ELSE
from audio_files import made
from fronting import until
from serving import PATIENCE, TRANSCRIPTIONS, Served, served
from strangers import serving

from runtime.demo import Clip
from runtime.server.spool import Spool
from runtime.transcriber import Transcriber

LARGE = made("16 bit.wav", 20.0)  # seconds; more bytes than stay in memory: 3.7 MiB


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
    until(lambda: nameless() == kept)  # the server lets go of a clip once it has answered


def half_sent(server: Served, size: int) -> socket.socket:
    """A client that has sent all of a form with a file of that size but its end, and waits."""
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(size)
    head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    connection = socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE)
    connection.sendall(f"{head}Content-Length: {len(form) + 7}\r\n\r\n".encode() + form)
    return connection


def in_pieces(server: Served) -> httpx.Response:
    """A file that goes to disk, of a size that is not told before."""
    request = httpx.Request("POST", server.url + TRANSCRIPTIONS, files={"file": LARGE})
    body = request.read()
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    return server.post(content=pieces, headers={"Content-Type": request.headers["Content-Type"]})


def test_all_uploads_together_take_no_more_than_they_may(transcriber: Transcriber, speech: list[Clip]) -> None:
    clip = speech[0].path.read_bytes()
    most = {"spool_max_mib": 10, "allow_private_urls": True, "max_new_tokens": 4}
    with served(transcriber, **most) as server:
        spool = server.service.spool
        with half_sent(server, (10 << 20) - len(LARGE) // 2):
            until(lambda: spool.used > spool.limit - len(LARGE))
            for send in (uploaded, in_pieces, spoken, linked):
                refused = send(server)
                assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage"), refused.text
                assert "would take more than 10 MiB on disk, the limit (ASR_SPOOL_MAX_MIB)" in refused.text
                assert int(refused.headers["Retry-After"]) > 0
            assert server.post(files={"file": clip}).status_code == 200  # which stays in memory
            assert spool.used <= spool.limit
        until(lambda: spool.used == 0)
        for send in (uploaded, in_pieces, spoken, linked):
            assert send(server).status_code == 200
        assert spool.used == 0


def test_what_is_written_too_late_takes_no_room() -> None:
    """By a thread that still fetches when its client is gone."""
    spool = Spool(1 << 20, 1 << 20)
    file = spool.open(10, "somebody")
    file.write(bytes(100_000))
    assert spool.used == 100_000
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        file.write(bytes(100_000))
    assert spool.used == 0


def test_one_caller_leaves_room_on_disk_for_others(transcriber: Transcriber) -> None:
    with served(transcriber, spool_max_mib=16, upload_max_mib=5, url_max_mib=5, max_new_tokens=4) as server:
        spool = server.service.spool
        with half_sent(server, 4900 << 10):
            until(lambda: spool.used > 4 << 20)
            refused = uploaded(server)
            assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage")
            assert "your uploads together would take more than 8 MiB on disk" in refused.text
            with httpx.Client(transport=httpx.HTTPTransport(local_address=SOMEBODY_ELSE), timeout=PATIENCE) as other:
                assert other.post(server.url + TRANSCRIPTIONS, files={"file": LARGE}).status_code == 200
        until(lambda: spool.used == 0)
        assert uploaded(server).status_code == 200

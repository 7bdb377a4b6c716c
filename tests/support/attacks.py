"""What a hostile caller can send. `python tests/support/attacks.py` measures what each attack does to others.

For each it prints the memory of the server and its helpers before, at most during and after it, its descriptors, how
long /health/live takes, and how many times as long as alone somebody else's clip of 2 seconds does.
"""

import argparse
import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
import psutil
from audio_files import ffmpeg, speechlike
from serving import PATIENCE, SERVE, TRANSCRIPTIONS
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from env.sources import PROJECT
from runtime.demo import bundled_clips
from runtime.server.uploads import MAX_COMMAS

CHAT, REALTIME, HEALTH = "/v1/chat/completions", "/v1/realtime", "/health/live"
SOMEBODY_ELSE = "127.0.0.2"  # an address of its own, as limits are by address

# What one caller does once; the status of the answer, or the word for what happened instead.
Strike = Callable[[str], int | str]


def box(kind: bytes, content: bytes) -> bytes:
    """A box of an mp4 file."""
    return struct.pack(">I4s", len(content) + 8, kind) + content


def boxes(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kinds of boxes that follow each other, and the boxes."""
    start = 0
    while start < len(file):
        length, kind = struct.unpack(">I4s", file[start : start + 8])
        yield kind, file[start : start + length]
        start += length


@cache
def mp4() -> bytes:
    """A small one that is whole."""
    return ffmpeg(speechlike(0.3, 16_000), 16_000, container="mp4", codec="aac")


def forged_table() -> bytes:
    """An mp4 of which FFmpeg makes a table of 1.3 GB."""
    file = bytearray(mp4())
    table = file.index(b"stsz")
    file[table + 8 : table + 16] = struct.pack(">II", 1, 55_000_000)
    return bytes(file)


def many_tracks(count: int = 1000) -> bytes:
    """An mp4 whose one track is there so many times: FFmpeg keeps 1.2 GiB of decoders."""
    moov = list(boxes(dict(boxes(mp4()))[b"moov"][8:]))
    content = b"".join(one * (count if kind == b"trak" else 1) for kind, one in moov)
    return b"".join(box(b"moov", content) if kind == b"moov" else one for kind, one in boxes(mp4()))


def voids() -> bytes:
    """4 MiB of Matroska elements of 2 bytes."""
    return b"\x1aE\xdf\xa3\x80\x18S\x80g\xff" + b"\xec\x80" * (2 << 20)


def empty_boxes() -> bytes:
    """16 MiB of mp4 boxes of 8 bytes."""
    return box(b"ftyp", b"M4A ") + box(b"free", b"") * (2 << 20)


def empty_chunks() -> bytes:
    """16 MiB of wav chunks of no bytes."""
    return b"RIFF\xff\xff\xff\xffWAVE" + (b"JUNK" + bytes(4)) * (2 << 20)


FILES: Mapping[str, Callable[[], bytes]] = {
    "forged table": forged_table,
    "1,000 tracks": many_tracks,
    "EBML voids": voids,
    "mp4 boxes": empty_boxes,
    "wav chunks": empty_chunks,
}


def upload(file: bytes, url: str) -> int:
    """Post a file."""
    return httpx.post(url + TRANSCRIPTIONS, files={"file": ("a.bin", file)}, timeout=PATIENCE).status_code


def chat(body: bytes, url: str) -> int:
    """Post a chat request."""
    return httpx.post(
        url + CHAT, content=body, headers={"content-type": "application/json"}, timeout=PATIENCE
    ).status_code


def large_chat() -> bytes:
    """64 MiB of base64 that is no audio."""
    part = {"type": "input_audio", "input_audio": {"data": "QUJD" * (16 << 20), "format": "wav"}}
    return json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()


def nested_chat() -> bytes:
    """As many lists as the parser takes, in 16 MiB of spaces."""
    return b'{"messages": [' + b",".join([b"[]" + b" " * 850] * MAX_COMMAS) + b"]}"


def session(url: str) -> ClientConnection:
    """A realtime session."""
    return connect(url.replace("http", "ws", 1) + REALTIME, max_size=None, open_timeout=PATIENCE)


def chatter(url: str) -> str:
    """Events of 90 KB that mean nothing."""
    event = json.dumps({"type": "session.update", "session": {"audio": ["x" * 90] * 900}})
    with session(url) as socket:
        for _ in range(20):
            socket.send(event)
            socket.recv(timeout=PATIENCE)
    return "answered"


def appends(url: str) -> str:
    """15 MiB of silence in one event; nobody waits until all of it is heard."""
    with session(url) as socket:
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA" * (5 << 20)}))
        with contextlib.suppress(TimeoutError):
            while True:
                socket.recv(timeout=5.0)
    return "hung up"


def idle(url: str) -> int | str:
    """A hundred sessions that say nothing."""
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(100):
                stack.enter_context(session(url))
        except InvalidStatus as refusal:
            return refusal.response.status_code
    return "answered"


def pings(url: str) -> str:
    """A thousand pings."""
    with session(url) as socket:
        try:
            for _ in range(1000):
                socket.ping()
            socket.recv(timeout=PATIENCE)
            socket.recv(timeout=PATIENCE)
        except ConnectionClosed:
            return "closed"
    return "answered"


def nothing(_: str) -> str:
    """For comparison."""
    time.sleep(0.1)
    return "nothing"


def busy_processor(_: str) -> str:
    """For comparison: a caller who asks nothing, and whose program takes a processor that the server wants too."""
    subprocess.run([sys.executable, "-c", "for _ in range(10_000_000): pass"], check=True)
    return "nothing"


STRIKES: Mapping[str, Callable[[], Strike]] = {
    "nothing": lambda: nothing,
    "busy processor": lambda: busy_processor,
    **{name: lambda make=make: partial(upload, make()) for name, make in FILES.items()},  # type: ignore[misc]
    "chat, 64 MiB": lambda: partial(chat, large_chat()),
    "chat, many lists": lambda: partial(chat, nested_chat()),
    "realtime events": lambda: chatter,
    "15 MiB appends": lambda: appends,
    "idle sessions": lambda: idle,
    "pings": lambda: pings,
}


def helpers() -> list[psutil.Process]:
    """The helper processes of this process."""
    (template,) = [one for one in psutil.Process().children() if "runtime.sandbox.template" in one.cmdline()]
    return list(template.children())


@dataclass
class Observed:
    """Bytes of memory, descriptors of the server, and seconds."""

    before: int
    peak: int = 0
    after: int = 0
    opened: int = 0
    statuses: Counter[int | str] = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)
    clip: list[float] = field(default_factory=list)


def memory(server: psutil.Process) -> int:
    """What a server and its helpers hold, without what they share."""
    total = 0
    for process in [server, *server.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total


@contextlib.contextmanager
def repeated(work: Callable[[], None], pause: float = 0.0) -> Iterator[None]:
    """Work on and on, in a thread, until the block ends."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(pause):
            work()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def timed(work: Callable[[], object], into: list[float]) -> None:
    begun = time.perf_counter()
    work()
    into.append(time.perf_counter() - begun)


def ask(client: httpx.Client, url: str, clip: bytes) -> None:
    """Somebody else's clip."""
    answer = client.post(url + TRANSCRIPTIONS, files={"file": ("clip.wav", clip)}, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text


def observe(server: psutil.Process, url: str, strike: Strike, *, callers: int, seconds: float, clip: bytes) -> Observed:
    """One attack, by so many callers at once."""
    found = Observed(memory(server))
    opened = server.num_fds()
    deadline = time.monotonic() + seconds

    def attack(_: int) -> None:
        while time.monotonic() < deadline:
            found.statuses[strike(url)] += 1

    def look() -> None:
        found.peak = max(found.peak, memory(server))

    transport = httpx.HTTPTransport(local_address=SOMEBODY_ELSE)
    with (
        httpx.Client(transport=transport) as client,
        httpx.Client() as health,
        repeated(look, 0.05),
        repeated(lambda: timed(lambda: health.get(url + HEALTH), found.health), 0.02),
        repeated(lambda: timed(lambda: ask(client, url, clip), found.clip), 0.05),
        ThreadPoolExecutor(callers) as pool,
    ):
        list(pool.map(attack, range(callers)))
    found.after, found.opened = memory(server), server.num_fds() - opened
    return found


@contextlib.contextmanager
def running() -> Iterator[tuple[psutil.Process, str]]:
    """A server of its own, with the demo model."""
    environment = {**os.environ, "ASR_DEVICE": "cpu", "ASR_LOG_LEVEL": "error"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        port = next(line for line in process.stdout if line.startswith("PORT")).split()[1]
        try:
            yield psutil.Process(process.pid), f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the attacks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", default=list(STRIKES), help=", ".join(STRIKES))
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    wanted = parser.parse_args(arguments)
    clip = min((clip.path for clip in bundled_clips()), key=lambda path: path.stat().st_size).read_bytes()
    with running() as (server, url):
        alone: list[float] = []
        with httpx.Client() as client:
            for _ in range(20):
                timed(lambda: ask(client, url, clip), alone)
        lone = median(alone)
        print(f"somebody else's clip alone: {1000 * lone:.0f} ms")
        print("attack              MiB before  peak  after  descriptors  health p99    clip, times alone  answers")
        for name in wanted.attacks:
            found = observe(server, url, STRIKES[name](), callers=wanted.callers, seconds=wanted.seconds, clip=clip)
            sizes = [size >> 20 for size in (found.before, found.peak, found.after)]
            p99 = quantiles(found.health, n=100)[98]
            print(
                f"{name:20}{sizes[0]:10}{sizes[1]:6}{sizes[2]:7}{found.opened:+13}{1000 * p99:9.0f} ms"
                f"{median(found.clip) / lone:13.1f} (≤ {max(found.clip) / lone:.1f})  {dict(found.statuses)}",
                flush=True,
            )


if __name__ == "__main__":
    main()

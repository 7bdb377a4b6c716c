"""The kit's server as an operator runs it, `invoke serve`, as a process of its own with vLLMs that it starts."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import openai
from engine import free_port
from invoking import INVOKE
from processes import kill
from serving import PATIENCE, TRANSCRIPTIONS
from tree import bare_environment

from env.sources import PROJECT
from runtime.host.processes import ProcessHandle

from .processes import group, vllms

START = 300.0  # seconds until a vLLM that is awaited will never be ready
READY = "ready on"


class Log:
    """What a program prints, read by a thread of its own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._over = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        """All of it so far."""
        with self._changed:
            return "".join(self._lines)

    def wait(self, words: str, *, times: int = 1) -> None:
        """Until so many lines had these words. Fails where the program ends without, or takes too long."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._count(words) >= times, timeout=START)
            assert self._count(words) >= times, f"{words!r} is not {times} times in\n{''.join(self._lines)}"

    def end(self) -> str:
        """All of it, once the program and what it has started have ended."""
        self._reader.join()
        return self.text

    def _count(self, words: str) -> int:
        return sum(words in line for line in self._lines)

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


@dataclass(frozen=True)
class Program:
    """A server that runs, or did."""

    process: "subprocess.Popen[str]"
    log: Log
    url: str
    known: list[ProcessHandle] = field(default_factory=list)

    def vllms(self) -> list[ProcessHandle]:
        """The API servers of its vLLMs that live. What is left of them in the end is found by this."""
        found = vllms(self.process.pid)
        self.known.extend(found)
        return found

    def left(self) -> list[ProcessHandle]:
        """What lives of all vLLMs that `vllms` has ever found."""
        return [entry.process for leader in set(self.known) for entry in group(leader)]

    def client(self) -> openai.OpenAI:
        """The official client, which tries once."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)

    def post(self, **options: Any) -> httpx.Response:
        """A request for a transcript."""
        return httpx.post(self.url + TRANSCRIPTIONS, timeout=PATIENCE, **options)

    def get(self, path: str) -> httpx.Response:
        """One request."""
        return httpx.get(self.url + path, timeout=PATIENCE)

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Signal it; returns all that it has printed, once it has ended."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        return self.log.end()


@contextmanager
def serving(python: Path, out: Path, **variables: str) -> Iterator[Program]:
    """`invoke serve` with the engine vllm, just begun; whatever is left of it in the end is killed, and a failure."""
    port = free_port()
    environment = bare_environment(
        ASR_PROFILE="cpu",
        ASR_DEVICE="cpu",
        ASR_ENGINE="vllm",
        ASR_VLLM_PYTHON=str(python),
        ASR_PORT=str(port),
        ASR_OUT_DIR=str(out),
        **variables,
    )
    with subprocess.Popen(
        [INVOKE, "serve"],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        program = Program(process, Log(process.stdout), f"http://127.0.0.1:{port}")
        try:
            yield program
        finally:
            program.vllms()
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                left = program.left()
                for one in left:
                    kill(one)
                program.log.end()
        assert not left

"""What tests of other people's clients share: a server, recordings, and what came of each use of a client.

A program of tests/clients/programs does with one client what its users do, in an interpreter of its own.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from audio_files import RECIPES
from pydantic import SecretStr
from realtime_client import pcm, spoken
from recordings import joined
from serving import Served, served
from tree import bare_environment

from env.sources import PROJECT
from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.transcriber import Request, Transcriber

CLIENTS = PROJECT / ".clients"
PROGRAMS = PROJECT / "tests" / "clients" / "programs"
PYTHON = CLIENTS / "python" / "bin" / "python"
NODE = CLIENTS / "python" / "bin" / "node"
KEY = "sk-of-a-client"
LONG = 300  # seconds after which a program will never end
# What the clients cannot be told otherwise: LiteLLM fetches a list of prices where it is imported.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@dataclass(frozen=True)
class Recordings:
    """Files for the programs, and what the model hears in them."""

    folder: Path
    english: str
    forced: str  # a Chinese clip, heard as English
    hotword: str  # with its context
    talk: str  # all clips in one file
    turns: tuple[str, str]  # two English clips, with pauses around them


class Uses:
    """What came of each use of a client, by the name that its program gives to it."""

    def __init__(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        self._told = told

    def __getitem__(self, name: str) -> Any:
        outcome = self._told[name]
        assert "error" not in outcome, outcome["error"]
        return outcome["answer"]


@pytest.fixture(scope="session")
def recordings(transcriber: Transcriber, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """In a folder of their own."""
    folder = tmp_path_factory.mktemp("recordings")
    named = {clip.path.stem: clip for clip in clips}
    english, chinese, hotword = named["english-1"], named["chinese-1"], named["english-hotword"]
    for name, clip in (("english", english), ("chinese", chinese), ("hotword", hotword)):
        shutil.copy(clip.path, folder / f"{name}.wav")
    (folder / "hotword.txt").write_text(hotword.context, encoding="utf-8")
    samples = transcriber.prepare(Request(english.path)).audio.samples
    for name in ("browser.webm", "aac.m4a", "ffmpeg.mp3"):
        (folder / name).write_bytes(RECIPES[name](samples[:, None], SAMPLE_RATE))
    talk = joined([clip for clip in clips if clip.language], transcriber)
    (folder / "talk.wav").write_bytes(talk)
    said = (english, named["english-2"])
    sound, first = spoken(transcriber, said), len(spoken(transcriber, said[:1]))
    for number, turn in enumerate((sound[:first], sound[first:]), start=1):
        for rate in (16_000, 24_000):
            (folder / f"turn-{number}-{rate}.pcm").write_bytes(pcm(turn, rate=rate))
    forced = transcriber.transcribe(chinese.path, language="en").text
    assert forced != chinese.text
    assert transcriber.transcribe(hotword.path).text != hotword.text
    return Recordings(
        folder, english.text, forced, hotword.text, transcriber.transcribe(talk).text, (said[0].text, said[1].text)
    )


@pytest.fixture(scope="session")
def kit(transcriber: Transcriber) -> Iterator[Served]:
    """A server that wants a key."""
    with served(transcriber, api_key=SecretStr(KEY)) as running:
        yield running


@pytest.fixture(scope="session")
def secure(transcriber: Transcriber, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """The same over https, and the certificate of who signed for it."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "authority.crt")
    files = {"tls_cert_file": folder / "server.crt", "tls_key_file": folder / "server.key"}
    with served(transcriber, api_key=SecretStr(KEY), **files) as running:
        yield running, folder / "authority.crt"


def run_python(program: str, kit: Served, recordings: Recordings) -> Uses:
    """Run a program in Python: `program.py SERVER KEY FOLDER`."""
    return _run([PYTHON, PROGRAMS / program, kit.url, KEY, recordings.folder])


def run_node(program: str, kit: Served, recordings: Recordings, *more: str, **variables: str | Path) -> Uses:
    """Run a program in JavaScript: `program.mjs SERVER KEY FOLDER …`."""
    here = CLIENTS / "node"
    for file in PROGRAMS.glob("*.mjs"):  # Node looks for packages beside a program and above it
        shutil.copy(file, here)
    return _run([NODE, here / program, kit.url, KEY, recordings.folder, *more], **variables)


def _run(command: list[str | Path], **variables: str | Path) -> Uses:
    if not PYTHON.exists():
        pytest.fail("there is no .clients/python: `make test-clients` makes it")
    environment = bare_environment(**OFFLINE, **{name: str(value) for name, value in variables.items()})
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LONG)
    assert result.returncode == 0, result.stderr
    return Uses(json.loads(result.stdout))

"""`invoke smoke --url`: a server that passes, one that is none, and what happens when it goes away."""

import functools
import http.server
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from invoke import Context, Exit
from invoking import INVOKE
from pydantic import SecretStr
from reference import read_json
from serving import Served, held, served

from env.sources import PROJECT
from runtime.demo import Clip
from runtime.measure import records
from runtime.measure.client import KEY
from runtime.measure.smoke.backends import SmokeRequest, hearing
from runtime.measure.smoke.record import SMOKE, Smoke
from runtime.measure.smoke.run import Cases, run, steps
from runtime.tasks import model as tasks
from runtime.transcriber import Transcriber

SECRET = "a-key-of-the-tests"


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where records go. No key is known, unless a test sets it."""
    monkeypatch.setenv("ASR_OUT_DIR", str(tmp_path))
    monkeypatch.setenv("ASR_DEVICE", "cpu")
    monkeypatch.delenv(KEY, raising=False)
    return tmp_path


def failure(url: str) -> Exit:
    """How `invoke smoke --url` ends where it fails."""
    with pytest.raises(Exit) as ended:
        tasks.smoke(Context(), url=url)
    return ended.value


def test_a_server_that_is_as_it_should_be(
    server: Served, out: Path, clips: list[Clip], capsys: pytest.CaptureFixture[str]
) -> None:
    tasks.smoke(Context(), url=f"{server.url}/v1/")
    said = capsys.readouterr().out
    assert said.startswith(f"{server.url}: on a CPU, no NPU: cpu (")
    assert "FAIL" not in said
    record = records.read(out / "smoke.json", Smoke, SMOKE)
    assert record.passed
    assert record.head.where.url == server.url
    assert [verdict.text for verdict in record.verdicts] == [clip.text for clip in clips]


def test_a_server_with_a_key(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(transcriber, api_key=SecretStr(SECRET), max_audio_seconds=5.0) as guarded:
        for key in ("", "a-wrong-one"):
            monkeypatch.setenv(KEY, key)
            refused = failure(guarded.url)
            assert "answered 401 (invalid_api_key)" in str(refused)
            assert f"put the server's key into {KEY}" in str(refused)
        assert not (out / "smoke.json").exists()
        monkeypatch.setenv(KEY, SECRET)
        ended = failure(guarded.url)  # as long clips are refused
    assert ended.code == 1
    assert "failed, as said above" in str(ended)
    said = capsys.readouterr().out
    assert "chinese-1.wav: " in said
    assert "answered 400 (invalid_audio)" in said
    assert f'curl -H "Authorization: Bearer ${KEY}" -F file=@runtime/demo/clips/chinese-1.wav' in said
    assert SECRET not in said + (out / "smoke.json").read_text(encoding="utf-8")


def test_the_command_that_asks_again_is_one_that_a_shell_takes(server: Served, clips: list[Clip]) -> None:
    clip = next(clip for clip in clips if clip.path.stem == "chinese-hotword")
    with hearing(tasks.load_settings(), server.url) as ears:
        ask = SmokeRequest(clip.path, language="Chinese", context=clip.context, form="text")
        typed = ears.again(ask)
        assert ears.again(SmokeRequest(b"")) == ""
        expected = ears.hear(ask)
    done = subprocess.run(typed, shell=True, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == expected == f"{clip.text}\n"


def test_nobody_there() -> None:
    assert "http://127.0.0.1:9: cannot be reached: Connection refused → invoke start" in str(
        failure("http://127.0.0.1:9")
    )


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server that has nothing to do with the kit."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def test_a_server_of_something_else(stranger: str, out: Path) -> None:
    ended = failure(stranger)
    assert "is no server of this kit: answers 404 to /health/ready → give the --url" in str(ended)
    assert not (out / "smoke.json").exists()


def test_a_server_that_goes_away(transcriber: Transcriber, clips: list[Clip]) -> None:
    chosen = tuple(clip for clip in clips if clip.path.stem in ("english-2", "chinese-2"))
    which = Cases(chosen, (), chosen)
    with ExitStack() as life:
        server = life.enter_context(served(transcriber))
        with hearing(transcriber.settings, server.url) as ears:
            goes = iter([lambda: None, life.close])
            found = run(steps(ears, which), ears, records.RunClock(), on_outcome=lambda _: next(goes, lambda: None)())
    assert found.head.complete
    assert not found.passed
    good, bad = found.verdicts
    assert good.passed
    assert bad.fault == f"{server.url}: cannot be reached: Connection refused"
    assert bad.advice.startswith("invoke status, then the server's log; the same again: curl -F file=@")
    assert [check.check for check in found.checks if check.passed] == ["warm-up"]


def test_ctrl_c_ends_with_130_and_a_marked_record(transcriber: Transcriber, out: Path) -> None:
    still, engine = held(transcriber)
    with served(still) as server:
        with subprocess.Popen(
            [INVOKE, "smoke", "--url", server.url],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            engine.next()
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=60)
        engine_told = errors.splitlines()[-1]
    assert running.returncode == 130, errors
    assert engine_told.startswith("smoke: interrupted after 0 of ")
    record = read_json(out / "smoke.json")
    assert record["head"]["ended"] in engine_told
    assert not record["passed"]

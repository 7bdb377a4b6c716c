"""What the log says, in both forms, and what it never says; ids of requests; levels; libraries."""

import asyncio
import json
import logging
import re
import sys
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import SecretStr
from serving import PATIENCE, TRANSCRIPTIONS, Served, bearer, decoded, hang_up_after_upload, held, served
from transformers.utils import logging as library

from env.errors import KitError, UsageError
from env.settings import Settings
from runtime.demo import Clip
from runtime.ops.process import supervisor
from runtime.ops.process.status import last_errors
from runtime.server import logs
from runtime.server.routes import transcriptions
from runtime.transcriber import Transcriber

Log = Callable[..., Callable[[], str]]


@pytest.fixture
def logged(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Iterator[Log]:
    """Configures the log, with some settings changed; what that gives tells all that was logged since it was asked."""
    loggers = [logging.getLogger(name) for name in (None, logs.KIT_LOGGER)]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook

    def configured(**changes: object) -> Callable[[], str]:
        logs.configure(settings.model_copy(update={"log_format": "json", **changes}))
        return lambda: capsys.readouterr().err

    yield configured
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


def lines(text: str) -> list[dict[str, Any]]:
    """The log's objects, one a line."""
    return [json.loads(line) for line in text.splitlines()]


def ended(text: str, route: str = TRANSCRIPTIONS) -> list[dict[str, Any]]:
    """The lines of requests."""
    return [line for line in lines(text) if line["event"] == "request" and line["route"] == route]


def test_a_request_leaves_one_line_that_says_what_became_of_it(
    logged: Log, transcriber: Transcriber, speech: list[Clip]
) -> None:
    told = logged()
    with served(transcriber, api_key=SecretStr("sk-one")) as server:
        key = {**bearer("sk-one"), "X-Request-ID": "job-7:clip.1"}
        answer = server.post(
            files={"file": speech[0].path.read_bytes()}, data={"response_format": "verbose_json"}, headers=key
        )
        server.get("/health/ready")
        server.get("/metrics")
    (line,) = lines(told())
    heard = answer.json()
    assert answer.headers["x-request-id"] == line["request_id"] == "job-7:clip.1"
    assert line["timestamp"].endswith("Z")
    assert line["audio_seconds"] == pytest.approx(heard["duration"], abs=0.01)
    assert line["tokens"] == heard["tokens"]
    assert 0 <= line["queue_seconds"] < line["first_token_seconds"] < line["seconds"] < PATIENCE
    assert {name: line[name] for name in ("method", "status", "owner", "client", "language", "level")} == {
        "method": "POST",
        "status": 200,
        "owner": "api",
        "client": "127.0.0.1",
        "language": speech[0].language,
        "level": "info",
    }


def test_failures_are_told_by_their_codes(logged: Log, transcriber: Transcriber, speech: list[Clip]) -> None:
    told = logged()
    silent, engine = held(transcriber)
    with served(silent) as server, ThreadPoolExecutor(1) as pool:
        server.post(files={"file": b"no audio"})
        for stream in ("false", "true"):
            waiting = pool.submit(server.post, files={"file": speech[0].path.read_bytes()}, data={"stream": stream})
            engine.next().tell(RuntimeError("NPU error 507011"))
            waiting.result()
        with hang_up_after_upload(server, speech[0]):
            decoding = engine.next()
        assert decoding.cancelled.wait(PATIENCE)
        assert server.server_state.wait_idle(PATIENCE)
    found = told()
    assert [(line["status"], line.get("failure")) for line in ended(found)] == [
        (400, "invalid_audio"),
        (500, "decoding_failed"),
        (500, "decoding_failed"),
        (499, None),
    ]
    causes = [line for line in lines(found) if "507011" in line["event"]]
    assert [line["request_id"] for line in causes] == [line["request_id"] for line in ended(found)[1:3]]
    assert all("RuntimeError" in line["exception"] and line["level"] == "error" for line in causes)


def crash(fields: Any) -> transcriptions.TranscriptionRequest:
    """A bug that quotes what it was given."""
    name = fields["file"][0].name
    try:
        raise KitError(name, f"{fields['prompt']} is too long")
    except KitError as error:
        raise ValueError(f"{name} cannot be read") from error


@pytest.mark.parametrize("form", ["human", "json"])
def test_what_is_private_is_not_logged(
    logged: Log, transcriber: Transcriber, speech: list[Clip], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    told = logged(log_format=form, log_level="debug")
    silent, engine = held(transcriber)
    sound = speech[0].path.read_bytes()
    key = bearer("sk-secret-key")
    context = {"prompt": "secret-context"}
    with (
        served(silent, api_key=SecretStr("sk-secret-key")) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        for end in (decoded("secret-text"), ValueError("of the engine")):
            waiting = pool.submit(server.post, files={"file": ("secret-name.wav", sound)}, data=context, headers=key)
            engine.next().tell(end)
            waiting.result()
        server.post(files={"file": ("secret-name.wav", b"no audio")}, data=context, headers=key)
        server.post(data={"url": "http://127.0.0.1/secret-path?secret-query"}, headers=key)
        server.get("/secret-path?secret-query=1", headers=key)
        server.get("/v1/models/secret-path?secret-query", headers=bearer("sk-secret-other"))
        monkeypatch.setattr(transcriptions, "parse_fields", crash)
        bug = server.post(files={"file": ("secret-name.wav", sound)}, data=context, headers=key)
    found = told()
    assert found.count("invalid_audio") == 2
    assert "in crash" in found
    assert "ValueError" in found
    assert bug.json()["error"]["request_id"] in found
    assert "secret" not in found


def test_what_is_quoted_gives_no_orders_to_a_terminal_and_is_no_record_of_its_own(
    logged: Log, transcriber: Transcriber, speech: list[Clip]
) -> None:
    told = logged(log_content=True, log_format="human")
    order, forged = "\x1b]0;mine\x07\x9b2J\r\u202e", "\n2026-01-01T00:00:00Z [info] all is well"
    with served(transcriber, log_content=True) as server:
        server.post(files={"file": (f"a{order}.wav", speech[0].path.read_bytes())}, data={"prompt": order})
    logging.getLogger(logs.KIT_LOGGER).warning("a file %s", order + forged, exc_info=KitError(f"b{order}", forged))
    found = told()
    assert r"\x1b]0;mine\x07\x9b2J" in found
    assert [letter for letter in found if unicodedata.category(letter) in ("Cc", "Cf") and letter != "\n"] == []
    assert not any(line.startswith("2026-01-01") for line in found.splitlines())
    assert "all is well" in found


def test_content_is_logged_where_that_is_wanted(logged: Log, transcriber: Transcriber, speech: list[Clip]) -> None:
    told = logged(log_content=True)
    with served(transcriber, log_content=True) as server:
        clip = ("meeting.wav", speech[0].path.read_bytes())
        server.post(files={"file": clip}, data={"prompt": "hotword"})
    found = lines(told())
    (line,) = [line for line in found if line["event"] == "transcribed"]
    assert (line["source"], line["context"]) == ("meeting.wav", "hotword")
    assert line["text"]
    assert line["request_id"] == next(line for line in found if line["event"] == "request")["request_id"]


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "ümlaut".encode().decode("latin-1"), 'quote"'])
def test_an_id_that_could_do_harm_is_replaced(server: Served, given: str) -> None:
    answer = server.get("/health/live", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"].isalnum()


def test_every_failure_names_the_request(
    server: Served, client: openai.OpenAI, speech: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in (server.get("/none"), server.post("/v1/info"), server.post(files={"file": b"x"})):
        assert answer.status_code >= 400
        assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(file=speech[0].path, model="demo", language="xx")
    assert (refused.value.code, refused.value.request_id) == ("invalid_language", refused.value.body["request_id"])  # type: ignore[index]
    streamed = server.post(files={"file": speech[0].path.read_bytes()}, data={"stream": "true"})
    assert streamed.headers["x-request-id"]
    monkeypatch.setattr(transcriptions, "parse_fields", crash)
    bug = server.post(files={"file": ("secret-name.wav", speech[0].path.read_bytes())}, data={"prompt": "secret"})
    assert bug.status_code == 500
    assert bug.headers["x-request-id"] in bug.json()["error"]["message"]
    assert "secret" not in bug.text


def test_the_level_can_be_changed(logged: Log, transcriber: Transcriber) -> None:
    told = logged(log_level="warning")
    with served(transcriber) as server:
        server.get("/docs")
    assert "/docs" not in told()
    logs.set_level("debug")
    with served(transcriber) as server:
        server.get("/health/live")
    logging.getLogger("some.library").info("what it works on")
    (line,) = lines(told())
    assert (line["route"], line["level"]) == ("/health/live", "debug")
    with pytest.raises(UsageError, match=r"'loud' is not possible → choose from debug, info, warning, error"):
        logs.set_level("loud")


def test_libraries_and_crashes_are_logged_in_the_same_form(logged: Log) -> None:
    told = logged()
    transformers = library.get_logger("transformers.of.a.test")
    library.enable_default_handler()
    logs.capture_library_loggers()
    transformers.warning("a warning of transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a warning of Python", UserWarning, stacklevel=1)
    asyncio.run(forgotten())
    thread = threading.Thread(target=lambda: 1 / 0, name="reader")
    thread.start()
    thread.join()
    found = {line["logger"]: line for line in lines(told())}
    assert found["transformers.of.a.test"]["event"] == "a warning of transformers"
    assert "a warning of Python" in found["py.warnings"]["event"]
    assert found["asyncio"]["event"] == "Task exception was never retrieved"
    assert found["asyncio"]["exception"].endswith("KitError")
    assert found["runtime.server.logs"]["event"] == "the thread reader has crashed"
    assert "ZeroDivisionError: division by zero" in found["runtime.server.logs"]["exception"]


@pytest.mark.parametrize("form", ["human", "json"])
def test_the_supervisor_logs_in_the_same_form_and_errors_are_found(logged: Log, form: str, tmp_path: Path) -> None:
    told, file = logged(log_format=form), tmp_path / "server.log"
    (*_, handler) = logging.getLogger().handlers  # alone: pytest's adds to records that it has seen
    handler.handle(logging.LogRecord(supervisor.SUPERVISOR_LOGGER, logging.ERROR, "", 0, "no room", None, None))
    first, last = told(), supervisor.format_line(form, "error", "no room")
    assert re.sub(r"\d", "0", first) == re.sub(r"\d", "0", last) + "\n"
    logging.getLogger(logs.KIT_LOGGER).info("all is well")
    logging.getLogger(logs.KIT_LOGGER).warning("goes on", exc_info=KeyError("a name"))
    file.write_text(f"{first}{last}\n{told()}", encoding="utf-8")
    *others, exception = last_errors(file, 9)
    assert others == [first.rstrip(), last]
    assert "KeyError" in exception


async def forgotten() -> None:
    """A task whose failure nobody asks for."""

    async def fail() -> None:
        raise KitError("a client's file", "cannot be read")

    await asyncio.wait([asyncio.ensure_future(fail())])

"""Keys and certificates that change while the server answers: what is new is used, what is broken is refused, and
nobody who is connected notices."""

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pki import ALICE, BOB, NEXT, Pki, renamed, swapped, tls, until, write
from pydantic import SecretStr
from realtime_client import realtime_session
from serving import PATIENCE, TRANSCRIPTIONS, Served, bearer, decoded, held, served

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.demo import Clip
from runtime.host import local_client
from runtime.server import credentials
from runtime.server.credentials import read_access
from runtime.transcriber import Transcriber

LOGGER = "runtime.server.credentials"


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.create()


@pytest.fixture
def record(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged of the files so far."""
    caplog.set_level(logging.INFO, LOGGER)
    return lambda: [record.getMessage() for record in caplog.records if record.name == LOGGER]


def in_place(new: Path, live: Path) -> None:
    """As `cp` and `cat >` do."""
    for name in ("tls.crt", "tls.key"):
        (live / name).write_bytes((new / name).read_bytes())


def linked(new: Path, live: Path) -> None:
    """As certbot does: each name is a link to the newest file."""
    for name in ("tls.crt", "tls.key"):
        (live / f"{name}.new").symlink_to(new / name)
        (live / f"{name}.new").replace(live / name)


def hooked(new: Path, live: Path) -> None:
    """As the hook for certbot in the server's README does."""
    page = (PROJECT / "runtime" / "server" / "README.md").read_text(encoding="utf-8")
    (hook,) = re.findall(r"```sh\n(#!/bin/sh -e\n.*?)```", page, re.DOTALL)
    script = new / "hook"
    script.write_text(hook.replace("10001", str(os.getuid())).replace("/srv/qwen3-asr", str(live)), encoding="utf-8")
    script.chmod(0o755)
    (new / "tls.crt").rename(new / "fullchain.pem")
    (new / "tls.key").rename(new / "privkey.pem")
    subprocess.run([script], env={**os.environ, "RENEWED_LINEAGE": str(new)}, check=True)


@pytest.mark.parametrize("renew", [renamed, in_place, linked, hooked])
def test_a_renewed_certificate_is_used_and_its_expiry_told(
    transcriber: Transcriber, pki: Pki, tmp_path: Path, renew: Callable[[Path, Path], None]
) -> None:
    live = tmp_path / "live"
    old = pki.issue(live, days=3)
    with served(transcriber, **tls(live)) as server:
        assert pki.shown(server.http_server.port) == old
        assert days_left(server, pki) == pytest.approx(3, abs=0.1)
        for attempt in range(2):
            new = pki.issue(tmp_path / f"new{attempt}", days=60)
            renew(tmp_path / f"new{attempt}", live)
            until(lambda new=new: pki.shown(server.http_server.port) == new)  # type: ignore[misc]
        assert days_left(server, pki) == pytest.approx(60, abs=0.1)


def test_a_secret_of_kubernetes_is_used_when_it_is_swapped(transcriber: Transcriber, pki: Pki, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    first, second = tmp_path / "..2026_01", tmp_path / "..2026_02"
    pki.issue(first)
    swapped(first, live)
    with served(transcriber, **tls(live)) as server:
        new = pki.issue(second)
        swapped(second, live)
        shutil.rmtree(first)
        until(lambda: pki.shown(server.http_server.port) == new)


def days_left(server: Served, pki: Pki) -> float:
    """By the metric."""
    text = httpx.get(f"{server.url}/metrics", verify=pki.client, timeout=PATIENCE).text
    lines = [line for line in text.splitlines() if line.startswith("asr_tls_certificate_expiry_timestamp_seconds ")]
    assert len(lines) == 1
    return (float(lines[0].split()[1]) - time.time()) / 86400


def test_without_a_certificate_there_is_no_metric_of_one(server: Served) -> None:
    assert "asr_tls" not in server.get("/metrics").text


def test_whoever_is_connected_goes_on(transcriber: Transcriber, pki: Pki, tmp_path: Path, speech: list[Clip]) -> None:
    live = tmp_path / "live"
    pki.issue(live)
    still, engine = held(transcriber)
    with (
        served(still, **tls(live)) as server,
        realtime_session(server, ssl=pki.client) as talk,
        httpx.Client(verify=pki.client, timeout=PATIENCE) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        form: dict[str, Any] = {"files": {"file": speech[0].path.read_bytes()}, "data": {"stream": "true"}}
        asked = pool.submit(lambda: client.post(server.url + TRANSCRIPTIONS, **form).text)
        utterance = engine.next()
        new = pki.issue(tmp_path / "new")
        renamed(tmp_path / "new", live)
        until(lambda: pki.shown(server.http_server.port) == new)
        utterance.tell(decoded("as if nothing had happened"))
        assert "as if nothing had happened" in asked.result()
        assert talk.set(turn_detection=None)["audio"]["input"]["turn_detection"] is None
        assert client.get(f"{server.url}/health/ready").status_code == 200  # on the connection that it has


def half_written(live: Path) -> None:
    whole = (live / "tls.crt").read_bytes()
    (live / "tls.crt").write_bytes(whole[: len(whole) // 2])


def of_another(live: Path) -> None:
    shutil.copy(live.parent / "other" / "tls.key", live / "tls.key")


def gone(live: Path) -> None:
    (live / "tls.key").unlink()


def unreadable(live: Path) -> None:
    (live / "tls.crt").unlink()
    (live / "tls.crt").symlink_to("tls.crt")


def expired(live: Path) -> None:
    renamed(live.parent / "expired", live)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half_written, "tls.crt holds no certificate"),
        (of_another, "is not the key of the certificate"),
        (gone, "ASR_TLS_KEY_FILE: .*tls.key cannot be read: No such file"),
        (unreadable, "ASR_TLS_CERT_FILE: .*tls.crt cannot be read: Too many levels"),
        (expired, "certificate has expired"),
    ],
)
def test_broken_files_are_refused_once_and_the_old_stay(
    transcriber: Transcriber,
    pki: Pki,
    tmp_path: Path,
    record: Callable[[], list[str]],
    damage: Callable[[Path], None],
    words: str,
) -> None:
    live = tmp_path / "live"
    old = pki.issue(live)
    pki.issue(tmp_path / "other")
    pki.issue(tmp_path / "expired", days=-1)
    with served(transcriber, **tls(live)) as server:
        damage(live)
        until(lambda: any(re.search(words, line) for line in record()))
        assert pki.shown(server.http_server.port) == old
        new = pki.issue(tmp_path / "new")
        (live / "tls.crt").unlink()
        renamed(tmp_path / "new", live)
        until(lambda: pki.shown(server.http_server.port) == new)
    (refused,) = (line for line in record() if re.search(words, line))
    assert refused.endswith("; what was read before stays in use")
    assert "\n" not in refused
    assert record()[-1].startswith("read again: the certificate, valid until ")


def answers(server: Served, key: str) -> tuple[int, str | None]:
    """How a caller with this key is answered: status, and requests that are left within the minute."""
    answer = server.get("/v1/models", headers=bearer(key))
    return answer.status_code, answer.headers.get("x-ratelimit-remaining-requests")


def test_a_key_is_rotated_while_its_owner_is_counted_on(
    transcriber: Transcriber, tmp_path: Path, speech: list[Clip], record: Callable[[], list[str]]
) -> None:
    keys = tmp_path / "keys"
    write(keys, f"alice:{ALICE} at_once=1", f"bob:{BOB}")
    still, engine = held(transcriber)
    form: dict[str, Any] = {"files": {"file": speech[0].path.read_bytes()}}
    with served(still, keys_file=keys) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, headers=bearer(ALICE), **form)
        utterance = engine.next()
        write(keys, f"alice:{NEXT} at_once=1", f"bob:{BOB}")
        until(lambda: answers(server, ALICE)[0] == 401)
        refused = server.post(headers=bearer(NEXT), **form)  # the one at once is still being answered
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_at_once")
        utterance.tell(decoded("asked in time"))
        assert asked.result().json()["text"] == "asked in time"
        assert answers(server, NEXT)[0] == answers(server, BOB)[0] == 200
    assert record() == ["read again: keys: 2 of callers, 1 new, 1 gone"]
    assert not any(key in line for line in record() for key in (ALICE, BOB, NEXT))


def test_requests_within_the_minute_count_on_where_a_limit_is_changed(transcriber: Transcriber, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    write(keys, f"alice:{ALICE} per_minute=3")
    with served(transcriber, keys_file=keys) as server:
        assert [answers(server, ALICE) for _ in range(2)] == [(200, "2"), (200, "1")]
        write(keys, f"alice:{ALICE} per_minute=10", f"bob:{BOB}")
        until(lambda: answers(server, BOB)[0] == 200)
        assert answers(server, ALICE) == (200, "7")
        write(keys, f"alice:{ALICE} per_minute=2")
        until(lambda: answers(server, BOB)[0] == 401)
        assert answers(server, ALICE) == (429, "0")


def test_sessions_end_with_their_key(transcriber: Transcriber, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    write(keys, f"alice:{ALICE} sessions=1", f"bob:{BOB}")
    with (
        served(transcriber, keys_file=keys) as server,
        realtime_session(server, additional_headers=bearer(ALICE)) as ends,
        realtime_session(server, additional_headers=bearer(BOB)) as goes_on,
    ):
        write(keys, f"alice:{NEXT} sessions=1", f"bob:{BOB}")
        close = ends.wait_closed()
        assert (close.code, close.reason) == (1008, "the key: is none of this server's any more")
        assert [event["error"]["code"] for event in ends.of_type("error")] == ["invalid_api_key"]
        assert goes_on.set(turn_detection=None)
        with realtime_session(server, additional_headers=bearer(NEXT)):  # the place of the first is free
            pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no key"),
        (f"alice:{NEXT}\nbob", "line 2 of .* is not name:key"),
        (f"alice:{NEXT}\nbob:{NEXT}", "line 2 of .* repeats a name or a key"),
        (None, "cannot be read: .*No such file"),
    ],
)
def test_a_broken_file_of_keys_is_refused_and_the_old_keys_stay(
    transcriber: Transcriber, tmp_path: Path, record: Callable[[], list[str]], content: str | None, words: str
) -> None:
    keys = tmp_path / "keys"
    write(keys, f"alice:{ALICE}")
    with served(transcriber, keys_file=keys) as server:
        if content is None:
            keys.unlink()
        else:
            keys.write_text(content, encoding="utf-8")
        until(lambda: bool(record()))
        assert answers(server, ALICE)[0] == 200
        assert answers(server, NEXT)[0] == 401
        write(keys, f"alice:{NEXT}")
        until(lambda: answers(server, NEXT)[0] == 200)
    (refused,) = (line for line in record() if re.search(words, line))
    assert ALICE not in refused
    assert NEXT not in refused


def test_whatever_is_raised_the_files_are_looked_at_again(
    transcriber: Transcriber, tmp_path: Path, record: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    write(keys, f"alice:{ALICE}")
    with served(transcriber, keys_file=keys) as server:
        with monkeypatch.context() as broken:
            broken.setattr(credentials, "known_keys", lambda _: [][NEXT])  # type: ignore[call-overload]
            write(keys, f"alice:{NEXT}")
            until(lambda: bool(record()))
            assert answers(server, ALICE)[0] == 200
        until(lambda: answers(server, NEXT)[0] == 200)
    refused, _ = record()
    assert re.fullmatch(rf"{keys}: TypeError in .*, line \d+; what was read before stays in use", refused)


def test_the_admin_keys_file_is_read_again_and_read_by_admin_calls(transcriber: Transcriber, tmp_path: Path) -> None:
    file = tmp_path / "admin"
    write(file, "first-admin-key")
    with served(transcriber, admin_key_file=file) as server:
        settings = server.service.settings.model_copy(update={"port": server.http_server.port})
        assert local_client.call_server(settings, "GET", "/admin/status")
        write(file, "second-admin-key")
        until(lambda: server.get("/admin/status", headers=bearer("first-admin-key")).status_code == 401)
        assert local_client.call_server(settings, "GET", "/admin/status")
        file.write_text("short", encoding="utf-8")
        with pytest.raises(KitError, match="set ASR_ADMIN_KEY or ASR_ADMIN_KEY_FILE as for the server"):
            local_client.call_server(settings, "GET", "/admin/status")
        assert server.get("/admin/status", headers=bearer("second-admin-key")).status_code == 200
        file.unlink()
        with pytest.raises(KitError, match=r"ASR_ADMIN_KEY_FILE: .* cannot be read"):
            local_client.call_server(settings, "GET", "/admin/status")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key of 8 characters"),
        ("seven77", "holds no key of 8 characters"),
        ("first-key second-key", "is not all of visible ASCII"),
        (ALICE, "is a caller's key too"),
    ],
)
def test_an_admin_keys_file_that_cannot_be_used(settings: Settings, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "admin"
    file.write_text(text, encoding="utf-8")
    changes = {"admin_key_file": file, "api_key": SecretStr(ALICE)}
    with pytest.raises(KitError, match=rf"ASR_ADMIN_KEY_FILE: .*{words}") as caught:
        read_access(settings.model_copy(update=changes))
    assert ALICE not in str(caught.value)
    with pytest.raises(KitError, match="ASR_ADMIN_KEY: is set, and so is ASR_ADMIN_KEY_FILE"):
        read_access(settings.model_copy(update={**changes, "admin_key": SecretStr("of-operators")}))

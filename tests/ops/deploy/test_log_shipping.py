"""The log as a collector gets it: one object a line, with the fields of docker/logging/README.md, whichever way."""

import fnmatch
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from documents import commands, outline
from engine import docker, free_port, stand_in_base
from invoking import invoke
from kustomize import load
from serving import PATIENCE, TRANSCRIPTIONS

from env.field import variable
from env.settings import Settings
from env.sources import PROJECT
from runtime.demo import Clip

FOLDER = PROJECT / "docker" / "logging"
READMES = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")}
NASTY = 'first\nsecond\r\n\x1b]0;mine\x07\x00\x85\u2028\u2029\u202e"}\n{"event": "forged"}'
JOURNALD = Path("/usr/lib/systemd/systemd-journald")
SPLIT = 16 << 10  # bytes from which on Docker splits a line
COMPOSE = PROJECT / "docker" / "compose.yaml"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, clips: list[Clip]) -> Path:
    """The file that a real server has written its log to: of answers, refusals and what a caller quotes."""
    out, port = tmp_path_factory.mktemp("logged"), free_port()
    variables = {
        "ASR_OUT_DIR": str(out),
        "ASR_PORT": str(port),
        "ASR_API_KEY": "opensesame",
        "ASR_LOG_FORMAT": "json",
        "ASR_LOG_CONTENT": "true",
    }
    started = invoke("start", **variables)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False) as client:
            client.headers["Authorization"] = "Bearer opensesame"
            sound = clips[0].path.read_bytes()
            for file in (sound, b"no audio"):
                client.post(TRANSCRIPTIONS, files={"file": ("meeting.wav", file)}, data={"prompt": NASTY})
            client.get("/none", headers={"Authorization": "Bearer wrong"})
    finally:
        assert invoke("stop", **variables).returncode == 0
    return out / "logs" / f"server-{port}.log"


@pytest.fixture(scope="module")
def written(log: Path) -> list[bytes]:
    """Its lines."""
    content = log.read_bytes()
    assert content.endswith(b"\n")
    return content.split(b"\n")[:-1]


def documented(text: str) -> dict[str, str]:
    """The fields in a README's first table → the lines that they are in."""
    table = text.partition("| --- |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", table, re.MULTILINE)
    return {field: place for fields, place in rows for field in re.findall(r"`(\w+)`", fields)}


def test_every_line_is_an_object_with_the_fields_that_are_documented(written: list[bytes]) -> None:
    found = [json.loads(line) for line in written]
    assert all(isinstance(line, dict) for line in found)
    fields = documented(READMES["README.md"])
    assert {name for line in found for name in line} | {"exception"} == set(fields)
    for line in found:
        assert {"timestamp", "level", "logger", "event"} <= set(line)
        assert datetime.strptime(line["timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")
        for name in line:
            assert fields[name] in ("all", "failures", f"`{line['event']}`") or name == "request_id", (name, line)
    ended = [line for line in found if line["event"] == "request"]
    assert [(line["status"], line.get("failure")) for line in ended[:2]] == [(200, None), (400, "invalid_audio")]
    assert (ended[-1]["route"], ended[-1]["status"]) == ("other", 404)


def test_a_text_of_several_lines_is_quoted_in_one(written: list[bytes]) -> None:
    quoting = [line for line in written if b"forged" in line]
    assert quoting
    assert [json.loads(line)["context"] for line in quoting] == [NASTY]
    for line in written:
        assert len(line.decode().splitlines()) == 1
        assert not re.search(rb"[\x00-\x1f\x7f]", line)


def test_docker_keeps_each_line(written: list[bytes], tmp_path: Path) -> None:
    """By the driver of docker/compose.yaml, read as a collector does: out of its envelope, joined where it is split."""
    driver = load(COMPOSE)["x-confined"]["logging"]
    options = [word for name, value in driver["options"].items() for word in ("--log-opt", f"{name}={value}")]
    sent = [*written, json.dumps({"event": "long", "exception": "x" * SPLIT}).encode()]
    (tmp_path / "log").write_bytes(b"".join(line + b"\n" for line in sent))
    base, name = stand_in_base(), f"asr-log-shipping-{os.getpid()}"
    with (tmp_path / "log").open("rb") as stdin:
        command = ["docker", "run", "--interactive", "--name", name, "--network", "none"]
        command += ["--log-driver", driver["driver"], *options, base, "cat"]
        subprocess.run(command, stdin=stdin, capture_output=True, check=True, timeout=PATIENCE)
    try:
        path = Path(docker("inspect", "--format", "{{.LogPath}}", name))
        assert fnmatch.fnmatch(str(path), "*" + shipped("asr.docker")["path"].removeprefix("/var/lib/docker"))
        envelopes = [json.loads(line)["log"] for line in path.read_text(encoding="utf-8").splitlines()]
    finally:
        docker("rm", "--force", name)
    assert len(envelopes) == len(sent) + 1
    assert "".join(envelopes).encode().split(b"\n")[:-1] == sent


@pytest.fixture
def journal() -> Iterator[str]:
    """The name of a journald of this test's own, which has nothing to do with that of the machine."""
    if os.geteuid() or not JOURNALD.exists() or not shutil.which("journalctl"):
        pytest.skip("a journald of its own takes root and systemd's journald: apt-get install systemd")
    name = f"asr{os.getpid()}"
    sockets = Path(f"/run/systemd/journal.{name}")
    kept = Path("/var/log/journal").exists()
    with subprocess.Popen([JOURNALD, name], stderr=subprocess.PIPE) as process:
        until = time.monotonic() + PATIENCE
        while not (sockets / "stdout").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield name
        process.terminate()
    shutil.rmtree(sockets, ignore_errors=True)
    for place in (Path("/var/log/journal"), Path("/run/log/journal")):
        for folder in place.glob(f"*.{name}"):
            shutil.rmtree(folder)
    if not kept and Path("/var/log/journal").exists():
        Path("/var/log/journal").rmdir()


def test_journald_keeps_each_line(written: list[bytes], journal: str) -> None:
    """Through the socket that systemd gives a unit as its standard error."""
    with socket.socket(socket.AF_UNIX) as stderr:
        stderr.connect(f"/run/systemd/journal.{journal}/stdout")
        stderr.sendall(b"qwen3-asr\n\n6\n0\n0\n0\n0\n" + b"".join(line + b"\n" for line in written))
    command = ["journalctl", f"--namespace={journal}", "SYSLOG_IDENTIFIER=qwen3-asr", "--output", "json", "--all"]
    until = time.monotonic() + PATIENCE
    messages: list[Any] = []
    while len(messages) < len(written) and time.monotonic() < until:
        found = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout.splitlines()
        messages = [json.loads(line)["MESSAGE"] for line in found]
    assert [message.encode() for message in messages] == written


def test_an_operators_own_file_sends_it_to_journald(tmp_path: Path) -> None:
    """The file that is given, merged last: no option of the driver before it is left."""
    if not shutil.which("docker-compose"):
        pytest.skip("docker-compose is not installed")
    host = tmp_path / "compose-8000.json"
    images = {service: {"image": "x"} for service in ("asr", "prometheus", "grafana")}
    host.write_text(json.dumps({"services": images}), encoding="utf-8")
    files = [word for path in (COMPOSE, host, FOLDER / "journald.yaml") for word in ("-f", str(path))]
    command = ["docker-compose", *files, "config"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    merged = yaml.safe_load(result.stdout)["services"]["asr"]["logging"]
    assert merged == {"driver": "journald", "options": {"tag": "qwen3-asr"}}
    (filtered,) = re.findall(r"CONTAINER_TAG=[\w-]+", READMES["README.md"])
    assert filtered == f"CONTAINER_TAG={merged['options']['tag']}" == shipped("asr.journald")["systemd_filter"]


def shipped(tag: str) -> dict[str, Any]:
    """The input of fluent-bit.yaml with this tag."""
    content = load(FOLDER / "fluent-bit.yaml")
    (found,) = (one for one in content["pipeline"]["inputs"] if one["tag"] == tag)
    return dict(found)


def test_the_collectors_example_fits_the_servers_lines(log: Path, written: list[bytes]) -> None:
    content = load(FOLDER / "fluent-bit.yaml")
    (parser,) = content["parsers"]
    first = json.loads(written[0])
    assert datetime.strptime(first[parser["time_key"]], parser["time_format"].replace("%L", "%f"))
    inputs, filters = content["pipeline"]["inputs"], content["pipeline"]["filters"]
    named = [one["parser"] for one in (*inputs, *filters) if "parser" in one]
    assert named == [parser["name"]] * 3
    file = shipped("asr.file")
    aside = log.with_suffix(".1.log")
    assert fnmatch.fnmatch(log.name, Path(file["path"]).name)
    assert not fnmatch.fnmatch(log.name, Path(file["exclude_path"]).name)
    assert fnmatch.fnmatch(aside.name, Path(file["exclude_path"]).name)
    (output,) = content["pipeline"]["outputs"]
    fields = documented(READMES["README.md"])
    assert {label.strip("$") for label in output["label_keys"].split(",")} <= set(fields)


def test_both_readmes_say_the_same_of_what_there_is() -> None:
    english, chinese = READMES.values()
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)
    assert set(documented(english)) == set(documented(chinese))
    for text in (english, chinese):
        assert set(re.findall(r"ASR_\w+", text)) <= {variable(name) for name in Settings.model_fields}
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (FOLDER / link).is_file(), link

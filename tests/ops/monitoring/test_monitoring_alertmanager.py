"""The example for Alertmanager: what it sends to whom, and what it leaves out, in a real Alertmanager on loopback."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine import free_port, unavailable
from kustomize import load
from serving import PATIENCE
from watchers import process

from runtime.ops.deploy import monitoring

EXAMPLE = monitoring.FILES / "alertmanager.example.yml"
RULES = monitoring.FILES / "prometheus" / "rules.yml"


def program(*names: str) -> str:
    """The first of these that is installed."""
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        unavailable("no Alertmanager checked the example: apt-get install prometheus-alertmanager")
    return str(found)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that has the example. Its mails and webhooks are due later than a test ends."""
    name, address = program("prometheus-alertmanager", "alertmanager"), f"127.0.0.1:{free_port()}"
    words = [name, f"--config.file={EXAMPLE}", f"--web.listen-address={address}", "--cluster.listen-address="]
    words.append(f"--storage.path={tmp_path_factory.mktemp('alertmanager')}")
    with process(words, "Listening on"):
        yield f"http://{address}/api/v2"


def receive(alertmanager: str, *alerts: dict[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """All that it has been sent, these too, by name and instance."""
    body = [{"labels": labels} for labels in alerts]
    httpx.post(f"{alertmanager}/alerts", json=body, timeout=PATIENCE).raise_for_status()
    found = httpx.get(f"{alertmanager}/alerts", timeout=PATIENCE).raise_for_status().json()
    return {(one["labels"]["alertname"], one["labels"]["instance"]): one for one in found}


def alert(name: str, instance: str, severity: str = "critical") -> dict[str, str]:
    return {"alertname": name, "job": "asr", "instance": instance, "severity": severity}


def test_the_example_is_valid() -> None:
    result = subprocess.run(
        [program("amtool"), "check-config", str(EXAMPLE)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "severity", "receiver"), [("AsrDown", "critical", "on-call"), ("AsrSlow", "warning", "team")]
)
def test_who_is_told_depends_on_the_severity(alertmanager: str, name: str, severity: str, receiver: str) -> None:
    found = receive(alertmanager, alert(name, "a:8000", severity))
    assert found[name, "a:8000"]["receivers"] == [{"name": receiver}]


@pytest.mark.parametrize(
    ("cause", "effect"),
    [("AsrDown", "AsrNotReady"), ("AsrDown", "AsrOftenNotReady"), ("AsrCrashLoop", "AsrOftenNotReady")],
)
def test_what_follows_from_another_alert_is_left_out(alertmanager: str, cause: str, effect: str) -> None:
    here, elsewhere = f"{cause}-{effect}:8000", f"{cause}-{effect}:8001"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:  # it compares alerts in a thread of its own
        found = receive(alertmanager, alert(cause, here), alert(effect, here), alert(effect, elsewhere))
        if found[effect, here]["status"]["inhibitedBy"]:
            break
    assert not found[cause, here]["status"]["inhibitedBy"]
    assert found[effect, here]["status"]["inhibitedBy"] == [found[cause, here]["fingerprint"]]
    assert not found[effect, elsewhere]["status"]["inhibitedBy"]  # one server's fault hides nothing of another's


def test_it_names_only_alerts_that_there_are() -> None:
    known = set(re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")))
    rules = load(EXAMPLE)["inhibit_rules"]
    matchers = chain.from_iterable(rule[side] for rule in rules for side in ("source_matchers", "target_matchers"))
    named = {name for matcher in matchers for name in matcher.split('"')[1].split("|")}
    assert named <= known


def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    """All but `make up`, which is tested with containers."""
    folder = tmp_path / "docker" / "monitoring"
    shutil.copytree(monitoring.FILES, folder)
    text = (monitoring.FILES / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    shown = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    typed = [command for command in shown if "make up" not in command]
    assert len(typed) == len(shown) - 1
    program("amtool"), program("promtool")
    result = subprocess.run(["sh", "-ec", "\n".join(typed)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    links = [rule["annotations"]["runbook_url"] for rule in load(tmp_path / "asr-rules.yml")["groups"][0]["rules"]]
    base = "https://git.example.com/asr/blob/main/docker/monitoring/RUNBOOK.md#"
    assert all(re.fullmatch(rf"{re.escape(base)}\w+", link) for link in links)

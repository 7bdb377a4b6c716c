"""`make up MONITORING=1`, and the targets that one types at a terminal, with a real engine."""

import os
import pty
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import watchers
from engine import Host, await_event, docker, free_port
from serving import PATIENCE

DASHBOARD = "/etc/grafana/provisioning/dashboards/qwen3-asr.json"


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """What a host without a registry sets, where another server has the usual ports."""
    images = {"ASR_PROMETHEUS_IMAGE": watchers.prometheus(), "ASR_GRAFANA_IMAGE": watchers.grafana()}
    return images | {"ASR_PROMETHEUS_PORT": str(free_port()), "ASR_GRAFANA_PORT": str(free_port())}


@pytest.fixture(scope="module")
def up(host: Host, built: str, variables: dict[str, str]) -> Iterator[str]:
    """What `make up MONITORING=1` printed."""
    assert built
    result = host.make("up", MONITORING="1", **variables)
    assert result.returncode == 0, result.stdout
    yield result.stdout
    host.make("down")
    docker("volume", "rm", "--force", *(f"qwen3-asr-{host.port}_{name}" for name in ("grafana", "prometheus")))


@pytest.fixture
def typing(host: Host, up: str) -> Iterator["Terminal"]:
    """Where somebody types."""
    assert up
    terminal = Terminal(host)
    yield terminal
    terminal.close()


class Terminal:
    """A terminal with a make target at work."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._keyboard, self._inside = pty.openpty()

    def type(self, target: str, *, keys: bytes = b"", enough: bytes = b"") -> str:
        """What a make target shows where somebody types `keys`, or Ctrl-C when the screen shows `enough`."""
        inside, shown = self._inside, b""
        with subprocess.Popen(
            ["make", target],
            cwd=self._host.clone,
            env=self._host.environment,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        ) as process:
            os.close(inside)
            os.write(self._keyboard, keys)
            while piece := self._read():
                shown += piece
                if enough and enough in shown:
                    os.killpg(process.pid, signal.SIGINT)
                    enough = b""
        assert b"Traceback" not in shown
        return shown.decode()

    def close(self) -> None:
        """Forget it."""
        os.close(self._keyboard)

    def _read(self) -> bytes:
        assert select.select([self._keyboard], [], [], PATIENCE)[0], "the screen stays as it is"
        try:
            return os.read(self._keyboard, 4096)
        except OSError:  # nobody is at the other end any more
            return b""


def samples(variables: dict[str, str], query: str) -> list[dict[str, Any]]:
    """What Prometheus answers, once that is something: it asks the server within 15 s, and tells nobody when."""
    url, pause = f"http://127.0.0.1:{variables['ASR_PROMETHEUS_PORT']}/api/v1/query", threading.Event()
    for _ in range(int(PATIENCE)):
        if found := httpx.get(url, params={"query": query}, timeout=PATIENCE).json()["data"]["result"]:
            return list(found)
        pause.wait(1)
    pytest.fail(f"no data: {query}")


def test_up_says_where_to_look(up: str, variables: dict[str, str]) -> None:
    assert f"Grafana: http://127.0.0.1:{variables['ASR_GRAFANA_PORT']}\n" in up
    assert f"Prometheus: http://127.0.0.1:{variables['ASR_PROMETHEUS_PORT']}\n" in up


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(("service", "port"), [("prometheus", "9090/tcp"), ("grafana", "3000/tcp")])
def test_who_watches_has_no_rights_and_is_open_to_this_host_alone(
    host: Host, variables: dict[str, str], service: str, port: str
) -> None:
    container = host.container(service)
    limits = container["HostConfig"]
    assert (limits["ReadonlyRootfs"], limits["CapDrop"]) == (True, ["ALL"])
    assert "no-new-privileges" in limits["SecurityOpt"]
    published = {"HostIp": "127.0.0.1", "HostPort": variables[f"ASR_{service.upper()}_PORT"]}
    assert limits["PortBindings"] == {port: [published]}
    assert container["Name"].strip("/") in host.make("ps").stdout
    await_event(container["Id"], "health_status: healthy", since=container["Created"])


@pytest.mark.usefixtures("up")
def test_grafanas_user_can_read_the_dashboard(host: Host) -> None:
    assert '"uid": "qwen3-asr"' in docker("exec", host.container("grafana")["Id"], "cat", DASHBOARD)


def test_a_shell_in_the_container_is_a_target_away(host: Host, typing: Terminal) -> None:
    shown = typing.type("shell", keys=b"echo user=$(id -u) port=$ASR_PORT; exit\n")
    assert f"user=10001 port={host.port}\r\n" in shown


def test_the_log_is_followed_until_somebody_has_seen_enough(host: Host, typing: Terminal) -> None:
    assert "ready on cpu" in typing.type("logs", enough=b"ready on cpu")
    assert host.container("asr")["State"]["Running"]


@pytest.mark.usefixtures("up")
def test_restart_keeps_who_watches_and_what_was_recorded(host: Host, variables: dict[str, str]) -> None:
    (ready,) = samples(variables, "asr_ready")
    assert (ready["metric"]["instance"], ready["value"][1]) == (f"asr:{host.port}", "1")
    (before,), server = samples(variables, "process_start_time_seconds"), host.container("asr")["Id"]
    result = host.make("restart", **variables)
    assert result.returncode == 0, result.stdout
    assert host.container("asr")["Id"] != server
    (first,) = samples(variables, "min_over_time(process_start_time_seconds[10m])")
    assert first["value"][1] == before["value"][1]


@pytest.mark.usefixtures("up")
def test_down_takes_them_along_and_keeps_what_was_recorded(host: Host) -> None:
    result = host.make("down")
    assert result.returncode == 0, result.stdout
    assert host.containers() == []
    assert f"qwen3-asr-{host.port}_prometheus" in docker("volume", "ls", "--quiet").split()
    assert not (host.clone / "out" / f"monitoring-{host.port}").exists()

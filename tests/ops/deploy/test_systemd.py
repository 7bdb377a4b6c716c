"""A unit of systemd: the server tells how it is, and the unit's figures are the kit's."""

import configparser
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving import PATIENCE, SERVE

from env.sources import PROJECT, load_settings, profile_names
from runtime.ops.deploy import limits, override
from runtime.ops.process.supervisor import SETUP_FAULT_CODES

FOLDER = PROJECT / "docker" / "systemd"
UNIT, NPU, ENVIRONMENT = FOLDER / "qwen3-asr.service", FOLDER / "npu.conf", FOLDER / "qwen3-asr.env"
OPT = "/opt/qwen3-asr"
DRAIN = 7
MOST = 3.0  # exposure as systemd-analyze counts it, of 10; without options it is 9.6


class Systemd:
    """What it hears on its socket."""

    def __init__(self, server: "subprocess.Popen[bytes]", heard: socket.socket) -> None:
        self.server, self._heard = server, heard

    def until(self, name: str, value: str = "1") -> dict[str, str]:
        """The next message with this assignment, and the latest status before it."""
        found: dict[str, str] = {}
        deadline = time.monotonic() + PATIENCE
        while found.get(name) != value:
            assert time.monotonic() < deadline, f"no {name}={value}, at last {found}"
            found = {"STATUS": found.get("STATUS", "")} | self._next()
        return found

    def _next(self) -> dict[str, str]:
        lines = self._heard.recv(4096).decode().splitlines()
        return dict(line.partition("=")[::2] for line in lines)


@contextmanager
def under_systemd(tmp_path: Path, address: str, **variables: str) -> Iterator[Systemd]:
    """The real server with the demo model, as a unit runs it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        heard.settimeout(PATIENCE)
        settings = {"ASR_DEVICE": "cpu", "ASR_OUT_DIR": str(tmp_path / "out"), "ASR_DRAIN_SECONDS": str(DRAIN)}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
        environment |= {"ASR_PROFILE": "cpu", **settings, "NOTIFY_SOCKET": address, **variables}
        with subprocess.Popen([sys.executable, "-c", SERVE], env=environment, stdout=subprocess.DEVNULL) as server:
            try:
                yield Systemd(server, heard)
            finally:
                server.kill()


def stop_time() -> str:
    """The time that the server asks for when it stops, in microseconds."""
    return str(override.stop_seconds(load_settings({"ASR_DRAIN_SECONDS": str(DRAIN)})) * 1_000_000)


def test_systemd_hears_of_a_life(tmp_path: Path) -> None:
    with under_systemd(tmp_path, str(tmp_path / "notify"), WATCHDOG_USEC="200000") as systemd:
        assert systemd.until("READY")["STATUS"].startswith("ready on cpu")
        for _ in range(2):
            systemd.until("WATCHDOG")
        systemd.server.send_signal(signal.SIGTERM)
        assert systemd.until("STOPPING")["EXTEND_TIMEOUT_USEC"] == stop_time()
        assert systemd.server.wait(PATIENCE) == 0


def test_systemd_hears_that_a_server_stops_before_it_is_ready(tmp_path: Path) -> None:
    with under_systemd(tmp_path, f"@{tmp_path}") as systemd:
        assert systemd.until("STATUS", "verifying weights")
        systemd.server.send_signal(signal.SIGTERM)
        assert systemd.until("STOPPING")["EXTEND_TIMEOUT_USEC"] == stop_time()
        assert systemd.server.wait(PATIENCE) == 0


def test_a_server_lives_on_where_systemd_cannot_be_told(tmp_path: Path) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody"), "ASR_PROFILE": "cpu", "ASR_DEVICE": "cpu"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("PORT"):
                break
        server.terminate()
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    assert any("systemd was not told READY: No such file" in line or "told READY: [Errno 2]" in line for line in lines)


def unit() -> Mapping[str, str]:
    """The unit's options; of one that is there twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    parser.read(UNIT)
    return {name: text for section in parser.sections() for name, text in parser[section].items()}


def test_the_figures_of_the_unit_are_those_of_the_kit() -> None:
    options, vllm = unit(), load_settings({"ASR_STACK": "vllm", "ASR_PROFILE": "cpu"})
    assert options["TimeoutStopSec"] == str(override.stop_seconds(vllm))
    assert options["RestartPreventExitStatus"] == " ".join(map(str, SETUP_FAULT_CODES))
    assert options["TasksMax"] == str(limits.PROCESSES)
    assert (options["Type"], options["NotifyAccess"]) == ("notify", "main")
    with_cann, python, *words = shlex.split(options["ExecStart"].replace(OPT, str(PROJECT)))
    assert os.access(with_cann, os.X_OK)
    assert os.access(python, os.X_OK)
    assert words == ["-m", "invoke", "serve"]
    nodes = re.findall(r"^DeviceAllow=(\S+) rw$", NPU.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(override.NPU_DEVICES) < set(nodes)


def test_cann_writes_as_much_as_in_the_container() -> None:
    image = (PROJECT / "docker" / "Dockerfile").read_text(encoding="utf-8").partition("\nENV PATH=")[2]
    (line,) = re.findall(r"^Environment=(.*)$", NPU.read_text(encoding="utf-8"), re.MULTILINE)
    given = dict(word.split("=") for word in line.split())
    assert given.keys() == set(re.findall(r"^ +(ASCEND_\w+)=", image, re.MULTILINE))
    assert f"ASCEND_HOST_LOG_FILE_NUM={given['ASCEND_HOST_LOG_FILE_NUM']} " in image


def test_the_settings_of_the_unit_can_be_set() -> None:
    given = re.findall(r"^#?(ASR_\w+)=(.*)$", ENVIRONMENT.read_text(encoding="utf-8"), re.MULTILINE)
    profiles = [value for name, value in given if name == "ASR_PROFILE"]
    assert set(profiles) <= set(profile_names())
    assert load_settings(dict(given)).host == "0.0.0.0"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here: apt-get install systemd")
@pytest.mark.parametrize("npu", [False, True], ids=["cpu", "npu"])
def test_systemd_takes_the_unit_and_finds_it_tight(npu: bool, tmp_path: Path) -> None:
    path = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8").replace(OPT, str(PROJECT))
    path.write_text(text.replace("[Install]", NPU.read_text(encoding="utf-8") + "[Install]") if npu else text)
    verified = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    shown = subprocess.run(security, capture_output=True, text=True, check=True).stdout
    figure = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)
    assert figure
    told = {readme: readme.read_text(encoding="utf-8") for readme in FOLDER.glob("README*.md")}
    assert float(figure[1]) < MOST
    assert all(figure[1] in text for text in told.values())

"""What a container has said is there when the container is not, with a real engine."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import docker, stand_in_base

from env.settings import Settings
from env.sources import load_settings
from runtime.ops.deploy import container_logs

# Says at once how it was started, and when it is stopped, what it does then.
SCRIPT = "trap 'echo draining; exit 0' TERM; echo ready; seq 300000 300999 >&2; while :; do sleep 0.1; done"


@pytest.fixture
def start() -> Iterator[Callable[[str], str]]:
    """Starts a container that says something; it is removed if the test does not."""
    names: list[str] = []

    def start(script: str = SCRIPT) -> str:
        names.append(f"qwen3-asr-kit-test-{uuid.uuid4().hex[:12]}")
        words = ["run", "--detach", "--network", "none", "--name", names[-1], stand_in_base(), "sh", "-c", script]
        return docker(*words)

    yield start
    left = set(docker("ps", "--all", "--format", "{{.Names}}").split()) & set(names)
    if left:
        docker("rm", "--force", *left)


def settings_for(tmp_path: Path, **changes: str) -> Settings:
    return load_settings({"ASR_OUT_DIR": str(tmp_path / "out"), "ASR_PORT": "8123", **changes})


def logs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "out" / "logs").iterdir(), key=lambda path: path.stat().st_mtime)


def test_a_removed_containers_log_is_kept_to_its_last_line(start: Callable[..., str], tmp_path: Path) -> None:
    container = start()
    with container_logs.kept(settings_for(tmp_path), container):
        docker("stop", container)
        docker("rm", container)
    (path,) = logs(tmp_path)
    assert path.name == f"container-8123-{container[:12]}.log"
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    assert lines[0] == "ready"
    assert lines[-1] == "draining"
    assert "300999" in lines


def test_that_of_one_that_stays_is_left_to_docker(start: Callable[..., str], tmp_path: Path) -> None:
    container = start()
    with container_logs.kept(settings_for(tmp_path), container):
        pass
    with container_logs.kept(settings_for(tmp_path), ""):
        pass
    assert logs(tmp_path) == []


def test_number_and_size_are_bounded(start: Callable[..., str], tmp_path: Path) -> None:
    settings = settings_for(tmp_path, ASR_LOG_FILES="1", ASR_LOG_MAX_MIB="1")
    for _ in range(2):
        container = start("seq 1000000 1200000")  # 1.5 MiB
        docker("wait", container)
        with container_logs.kept(settings, container):
            docker("rm", container)
    (path,) = logs(tmp_path)
    assert path.name == f"container-8123-{container[:12]}.log"
    lines = path.read_text().splitlines()
    assert lines[-1] == "1200000"
    assert (1 << 20) - 100 < path.stat().st_size <= 1 << 20
    assert len(lines[0]) == 7  # a whole line


def test_a_disk_that_cannot_be_written_hinders_nothing(
    start: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("no directory")
    container = start("echo ready")
    with container_logs.kept(settings_for(tmp_path), container):
        docker("rm", "--force", container)
    assert "the container's log is not kept: Not a directory" in capsys.readouterr().err


def test_a_server_that_cannot_be_stopped_is_still_told(start: Callable[..., str], tmp_path: Path) -> None:
    container = start()
    with pytest.raises(ValueError, match="compose failed"), container_logs.kept(settings_for(tmp_path), container):
        raise ValueError("compose failed")
    assert logs(tmp_path) == []

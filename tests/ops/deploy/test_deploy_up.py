"""What `make up` and its kin do to what serves, with a docker that says what a test wants."""

import json
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosting import Fake, faking
from invoking import assert_refused, invoke
from processes import await_ready as await_server
from processes import port_of_its_own, stand_in

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.host import docker as readiness
from runtime.host.docker import DockerError, NotReadyError
from runtime.host.local_client import Health
from runtime.ops.deploy import compose, compose_project, container_logs, override, releases
from runtime.ops.doctor.checks import OWN_FILE
from runtime.ops.process import foreign

CONTAINER = "c" * 64
RUNS = {"State": {"Status": "running", "ExitCode": 0}, "RestartCount": 0}
HEALTHY = {"State": {"Status": "running", "ExitCode": 0, "Health": {"Status": "healthy"}}, "RestartCount": 0}
ENDED = {"State": {"Status": "exited", "ExitCode": 1}, "RestartCount": 0}
OLD = {"Image": "sha256:old", "Config": {"Env": None}}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a command: a shell script that comes first on PATH."""
    return faking(tmp_path / "bin", monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a port of its own, and of an image that is not built here."""
    with port_of_its_own(tmp_path) as made:
        yield made.model_copy(update={"image": "an/image:1"})


@pytest.fixture
def server(settings: Settings) -> Iterator[None]:
    """What answers on the port, whatever docker says."""
    here = {"ASR_HOST": "127.0.0.1", "ASR_PORT": str(settings.port)}
    with subprocess.Popen(stand_in("ready"), env=here) as process:
        await_server(f"http://127.0.0.1:{settings.port}")
        yield
        process.terminate()


def listed(directory: object = "") -> str:
    """A line of docker ps, as the kit asks for it."""
    return f"printf '{CONTAINER}\\tqwen3-asr_asr_1\\tUp 3 hours\\t{directory}\\n'"


def docker(state: Path, directory: object = "", *, second: dict[str, Any] = HEALTHY) -> str:
    """A docker with one container, which is healthy. The first that compose starts ends at once, the next one is as
    `second` says. It leaves empty files behind, as a full disk takes no others."""
    state.mkdir()
    return f"""case "$*" in
        'compose version'*) echo 2 ;;
        compose*' up '*) [ -e {state}/up ] && : >{state}/again || : >{state}/up ;;
        compose*config*) echo asr ;;
        'ps --all'*) {listed(directory)} ;;
        'image inspect'*Labels*) echo '{{"qwen3-asr.stack": "cpu"}}' ;;
        'image inspect'*'.Id}}}} an/image:1') echo sha256:new ;;
        'image inspect'*.Id*) echo "$5" ;;
        inspect*--format*) echo true ;;
        inspect*) if [ -e {state}/again ]; then echo '{json.dumps([second])}'
            elif [ -e {state}/up ]; then echo '{json.dumps([ENDED])}'
            else echo '{json.dumps([{**OLD, **HEALTHY}])}'
            fi ;;
        logs*) echo no luck today ;;
        stop*|rm*) : >{state}/$1 ;;
        esac"""


def put_on_record(settings: Settings, **given: str) -> None:
    """Two releases, of which the last one serves."""
    written = override.write_host_file(settings)
    described = releases.describe(settings, compose.compose_files(settings), image_id="sha256:first")
    for image_id in ("sha256:first", "sha256:old"):
        kept = {**vars(described), "image_id": image_id, "image": image_id, "title": image_id, "settings": given}
        releases.keep(settings, releases.Release(**kept))
    written.write_text(releases.read(settings)[-1].files[releases.WRITTEN], encoding="utf-8")


def test_another_clones_server_is_left_alone(settings: Settings, tmp_path: Path, fake: Fake) -> None:
    clone = tmp_path / "production"
    (clone / "docker").mkdir(parents=True)
    fake("docker", docker(tmp_path / "state", clone / "docker"))
    put_on_record(settings)
    words = rf"is the server of {clone} → ASR_PORT={settings.port} make -C {clone} down, or another ASR_PORT here"
    with pytest.raises(KitError, match=words):
        compose.down(settings)
    with pytest.raises(KitError, match=words):
        compose.up(settings, on_stage=print, say=print)
    with pytest.raises(KitError, match=words):
        compose.roll_back(settings, releases.before(settings), on_stage=print, say=print)
    assert list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize("target", ["ps", "logs", "shell"])
def test_another_clones_server_is_neither_shown_nor_entered(
    target: str, settings: Settings, tmp_path: Path, fake: Fake
) -> None:
    clone = tmp_path / "production"
    (clone / "docker").mkdir(parents=True)
    fake("docker", docker(tmp_path / "state", clone / "docker"))
    override.write_host_file(settings)
    port = str(settings.port)
    refused = invoke(f"container.{target}", ASR_PORT=port, ASR_OUT_DIR=str(settings.out_dir))
    assert_refused(refused, f"is the server of {clone}", f"→ ASR_PORT={port} make -C {clone} {target}")
    assert list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize("directory", [PROJECT / "docker", "/where/the/clone/was/docker", ""])
def test_a_clones_own_is_removed_even_where_the_clone_was_moved(
    directory: object, settings: Settings, tmp_path: Path, fake: Fake
) -> None:
    fake("docker", docker(tmp_path / "state", directory))
    assert compose.down(settings)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"stop", "rm"}


@pytest.mark.usefixtures("server")
def test_what_served_comes_back_where_the_disk_is_full_by_then(
    settings: Settings, tmp_path: Path, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("docker", docker(tmp_path / "state"))
    written = override.write_host_file(settings)
    before = written.read_text(encoding="utf-8")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(_: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))  # no file takes another byte

    try:
        with pytest.raises(compose.ServesAgainError, match="no luck today"):
            compose.up(settings.model_copy(update={"drain_seconds": 5.0}), on_stage=lambda _: None, say=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert (tmp_path / "state" / "again").exists()
    assert json.loads(written.read_text(encoding="utf-8"))["services"]["asr"]["stop_grace_period"] in before
    assert written.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in written.parent.glob(".part-*")] == []
    assert "Not on record for make rollback: " in capsys.readouterr().err


def test_what_is_gone_meanwhile_serves_no_longer(settings: Settings, tmp_path: Path, fake: Fake) -> None:
    fake("docker", docker(tmp_path / "state"))
    written = override.write_host_file(settings)
    found = compose.serving(settings)
    assert found
    assert (found.release.image_id, found.proxies) == ("sha256:old", {})
    written.write_text("{", encoding="utf-8")
    assert compose.serving(settings) is None
    fake("docker", f"case $1 in ps) {listed()} ;; esac")
    assert compose.serving(settings) is None


def test_an_own_compose_file_that_is_damaged_now_does_not_refuse_a_rollback(
    settings: Settings, tmp_path: Path, fake: Fake
) -> None:
    fake("docker", docker(tmp_path / "state", second=ENDED))
    own = tmp_path / "own.yaml"
    put_on_record(settings, ASR_PROFILE="cpu", ASR_COMPOSE_FILE=str(own))
    shown = invoke("container.rollback", ASR_PORT=str(settings.port), ASR_OUT_DIR=str(settings.out_dir))
    assert OWN_FILE not in shown.stdout + shown.stderr
    assert (tmp_path / "state" / "up").exists(), shown.stdout + shown.stderr


def test_a_server_whose_health_nobody_checks_is_not_waited_for_without_end(fake: Fake) -> None:
    fake("docker", f"case $1 in inspect) echo '{json.dumps([RUNS])}' ;; *) echo hangs ;; esac")
    with pytest.raises(NotReadyError, match=r"runs but did not get ready; the end of its log:\nhangs"):
        readiness.await_ready(CONTAINER, lambda: Health("starting", "loading"), on_stage=lambda _: None, limit=0.2)
    found = re.search(r"--start-period=(\d+)m", (PROJECT / "docker" / "Dockerfile").read_text(encoding="utf-8"))
    assert found
    assert int(found[1]) * 60 == readiness.START_PERIOD


def test_what_docker_cannot_show_is_not_kept_as_a_log(
    settings: Settings, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "Error response from daemon: configured logging driver does not support reading"
    fake("docker", f"case $1 in logs) echo '{why}' >&2; exit 1 ;; esac")
    with container_logs.kept(settings, CONTAINER):
        pass
    assert f"the container's log is not kept: {why}" in capsys.readouterr().err
    logs = override.host_file(settings).parent / "logs"
    assert list(logs.iterdir()) == []
    fake("docker", "case $1 in logs) echo its own line; echo 'Error: it is gone' >&2; exit 1 ;; esac")
    with container_logs.kept(settings, CONTAINER):
        pass
    (path,) = logs.iterdir()
    assert "its own line" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "why"), [("exec sleep 60", "did not answer within 0.2 s"), ("echo denied >&2; exit 1", "denied")]
)
def test_a_docker_that_does_not_tell_has_not_said_that_there_is_none(
    script: str, why: str, settings: Settings, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("docker", script)
    with pytest.raises(DockerError, match=f"docker ps: {why}"):
        compose_project.containers(settings, timeout=0.2)
    monkeypatch.setattr(foreign, "FOREIGN_DOCKER_TIMEOUT", 0.2)
    assert foreign.find_container(settings) is None

"""vLLM alone in the container, as `make up` runs it with ASR_VLLM_ALONE, and how long a start with vLLM may take."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import free_port
from hosting import A2, Fake, an_a2, described, faking
from invoking import assert_refused, invoke
from vllm_server import StandIn, vllm_server

from env.errors import UsageError
from env.sources import PROJECT, load_settings
from runtime.engines.vllm import client, command
from runtime.host.local_client import Health
from runtime.ops.deploy import compose, image, override, standalone
from runtime.transcriber import Transcriber

ALONE = {"ASR_PROFILE": A2, "ASR_STACK": "vllm", "ASR_VLLM_ALONE": "yes"}
RUNNING = [{"State": {"Status": "running", "ExitCode": 0, "Health": {"Status": "starting"}}, "RestartCount": 0}]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a command: a shell script that comes first on PATH."""
    return faking(tmp_path / "bin", monkeypatch)


@pytest.fixture
def root(tmp_path: Path, fake: Fake) -> Path:
    """An Atlas 800 A2's files, and a docker without Ascend's runtime."""
    fake("docker", "echo '{\"runc\": {}}'")
    return an_a2(tmp_path / "root")


@pytest.fixture
def loading(transcriber: Transcriber) -> Iterator[StandIn]:
    """A vLLM that is not ready yet."""
    with vllm_server(transcriber, health=503) as server:
        yield server


def healthcheck(server: StandIn, *arguments: str) -> int:
    """The exit code of the image's health check."""
    command = [sys.executable, "-I", "docker/healthcheck.py", *arguments]
    asked = subprocess.run(command, cwd=PROJECT, env={"ASR_PORT": str(server.port)}, capture_output=True, check=False)
    assert asked.stderr == b""
    return asked.returncode


def test_the_container_runs_vllm_and_asks_it_whether_it_is_ready(root: Path, tmp_path: Path, loading: StandIn) -> None:
    service = described(root, tmp_path, **ALONE, ASR_NPUS="1", ASR_PORT="8102", ASR_VLLM_KEY="hush")
    assert service["command"] == ["invoke", "vllm"]
    assert service["ports"] == ["127.0.0.1:8102:8102"]
    assert service["devices"][0] == "/dev/davinci1:/dev/davinci1"
    assert service["environment"]["ASR_VLLM_KEY"] == "hush"
    kind, program, *arguments = service["healthcheck"]["test"]
    assert (kind, PROJECT / Path(program).relative_to(override.KIT)) == (
        "CMD",
        PROJECT / "docker" / "bin" / "healthcheck",
    )
    assert healthcheck(loading, *arguments) == 1
    loading.health = 200
    assert healthcheck(loading, *arguments) == 0
    assert healthcheck(loading) == 1  # which asks the kit's server


def test_the_health_check_hands_its_path_on(fake: Fake) -> None:
    fake("python3", 'echo "$@"')
    command = [str(PROJECT / "docker" / "bin" / "healthcheck"), override.VLLM_HEALTH]
    assert subprocess.check_output(command, text=True) == "-I /kit/docker/healthcheck.py /health\n"


def test_the_server_is_the_images_own_command(root: Path, tmp_path: Path) -> None:
    service = described(root, tmp_path, ASR_PROFILE=A2, ASR_STACK="vllm")
    assert "command" not in service
    assert "test" not in service["healthcheck"]


@pytest.mark.parametrize("own", [{"ASR_STACK": "vllm"}, {"ASR_ENGINE": "vllm", "ASR_VLLM_URL": "http://10.0.0.7:8101"}])
def test_docker_waits_longer_than_the_engine(own: dict[str, str], root: Path, tmp_path: Path) -> None:
    healthcheck = described(root, tmp_path, ASR_PROFILE=A2, ASR_VLLM_START_SECONDS="1234.5", **own)["healthcheck"]
    assert healthcheck == {"start_period": f"{1235 + override.AROUND_VLLM}s"}
    assert override.AROUND_VLLM > client.TOKEN_TIMEOUT + 4.7e9 / 50e6


def test_another_engine_starts_as_the_image_says(root: Path, tmp_path: Path) -> None:
    assert "healthcheck" not in described(root, tmp_path, ASR_PROFILE=A2)


def test_up_waits_for_vllm(tmp_path: Path, fake: Fake, loading: StandIn, capfd: pytest.CaptureFixture[str]) -> None:
    fake(
        "docker",
        f"""case "$*" in
        *Runtimes*) echo '{{}}' ;;
        'image inspect'*) echo '{{"{image.STACK_LABEL}": "vllm"}}' ;;
        inspect*) echo '{json.dumps(RUNNING)}' ;;
        *'ps --all'*) printf 'the-container\\tname\\tUp 1 second\\t\\n' ;;
        *) echo 2 ;;
        esac""",
    )
    settings = load_settings(
        {**ALONE, "ASR_IMAGE": "an/image:1", "ASR_OUT_DIR": str(tmp_path / "out"), "ASR_PORT": str(loading.port)}
    )
    stages: list[str] = []
    said: list[str] = []

    def hear(stage: str) -> None:
        stages.append(stage)
        loading.health = 200

    assert compose.up(settings, on_stage=hear, say=said.append, root=an_a2(tmp_path / "root")) == loading.url
    assert stages == ["loading", "ready"]
    assert "docker update --restart unless-stopped the-container" in capfd.readouterr().err


def test_nobody_there_is_no_vllm_that_is_ready() -> None:
    assert standalone.ask_vllm("http://127.0.0.1:1") == Health("starting", "loading")


def refusal(tmp_path: Path, **variables: str) -> str:
    """Why `make up` refuses, before it asks Docker anything."""
    with pytest.raises(UsageError) as caught:
        compose.up(
            load_settings({**ALONE, "ASR_OUT_DIR": str(tmp_path), **variables}), on_stage=lambda _: None, say=print
        )
    return str(caught.value)


def test_what_does_not_go_with_vllm_alone_is_named(tmp_path: Path) -> None:
    assert "the engine transformers → export ASR_STACK=vllm" in refusal(tmp_path, ASR_STACK="npu")
    assert "unset ASR_ENGINE" in refusal(tmp_path, ASR_ENGINE="transformers")
    assert "ASR_STACK is cpu" in refusal(tmp_path, ASR_STACK="cpu", ASR_ENGINE="vllm")  # which has vLLM's client alone
    for name, value in (
        ("ASR_VLLM_URL", "http://10.0.0.7:8101"),
        ("ASR_API_KEY", "a-key-of-the-api"),
        ("ASR_KEYS_FILE", "keys"),
        ("ASR_TLS_CERT_FILE", "tls.crt"),
    ):
        assert f"to which {name} belongs → unset one of the two" in refusal(tmp_path, **{name: value})
    assert "MONITORING=1" in refusal(tmp_path, ASR_MONITORING="true")
    assert "ASR_NPUS is 0-1, ASR_VLLM_REPLICAS not set → make up for each NPU" in refusal(tmp_path, ASR_NPUS="0-1")
    assert "ASR_NPUS is 0, ASR_VLLM_REPLICAS 2 → make up for each" in refusal(tmp_path, ASR_VLLM_REPLICAS="2")


def test_who_watched_a_server_before_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "monitoring-8000").mkdir()
    assert "make down, then make up" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("variables", "address", "warns"),
    [
        ({"ASR_PORT": "8102"}, "http://127.0.0.1:8102", False),
        ({"ASR_HOST": "10.0.0.11"}, "http://10.0.0.11:8000", True),
        ({"ASR_HOST": "0.0.0.0", "ASR_VLLM_KEY": "hush"}, "http://HOST:8000", False),
    ],
)
def test_its_address_is_told(variables: dict[str, str], address: str, warns: bool) -> None:
    settings = load_settings({**ALONE, **variables})
    assert standalone.address(settings) == f"ASR_ENGINE=vllm ASR_VLLM_URL={address}"
    assert bool(standalone.warning(settings)) == warns
    assert "hush" not in standalone.address(settings)


def test_in_a_container_with_one_npu_it_takes_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DEV", tmp_path)
    monkeypatch.setenv(command.IMAGE_VARIABLE, "1")
    monkeypatch.delenv(command.VISIBLE_DEVICES, raising=False)
    (tmp_path / "davinci5").touch()
    order = command.standalone_spec(load_settings(ALONE), tmp_path)
    assert (order.name, order.environment[command.VISIBLE_DEVICES]) == (
        "vLLM on npu:0",
        "0",
    )  # as CANN counts them there


def test_the_server_says_who_runs_vllm_alone(tmp_path: Path) -> None:
    result = invoke("serve", ASR_VLLM_ALONE="true", ASR_OUT_DIR=str(tmp_path), ASR_PORT=str(free_port()))
    assert_refused(result, "ASR_VLLM_ALONE", "→ invoke vllm", code=2)

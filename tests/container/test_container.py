"""From `make up` to `make down`, with a real engine: the image is built, serves, is examined, and leaves nothing."""

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine import Host, await_event, docker, free_port, layered, run, stand_in_base
from packaging.utils import canonicalize_name
from pki import Pki, swapped, tls, until

from env.field import variable
from env.sources import load_settings
from env.stacks import load_stack
from runtime.demo import Clip
from runtime.ops.deploy import mounts
from runtime.ops.deploy.limits import PROCESSES
from runtime.urls import has_ipv6
from runtime.version import version

UNPRIVILEGED = 10001
WRITABLE = ("--tmpfs", "/kit/out")


@pytest.fixture(scope="module")
def up(host: Host, built: str) -> Iterator[str]:
    """What `make up` printed when it started the server."""
    assert built
    result = host.make("up")
    assert result.returncode == 0, result.stdout
    yield result.stdout
    host.make("down")


@pytest.fixture(scope="module")
def container(host: Host, up: str) -> dict[str, Any]:
    """The running container, as Docker describes it."""
    assert up
    return host.container("asr")


@pytest.fixture(scope="module")
def image(container: dict[str, Any]) -> str:
    """The image that was built."""
    return str(container["Config"]["Image"])


def run_image(image: str, *options: str, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the image in the foreground, read-only as compose does."""
    fixed = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"]
    words = ["docker", "run", *fixed, *(options or WRITABLE), image, *command]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


def test_up_shows_what_it_runs_and_ends_with_an_address_that_answers(up: str, host: Host, speech: list[Clip]) -> None:
    for part in (" up --detach", f"http://127.0.0.1:{host.port}", "Starting: ready on cpu", "$ curl ", speech[0].text):
        assert part in up


def test_the_container_is_healthy_and_has_no_right_that_it_does_not_need(container: dict[str, Any]) -> None:
    await_event(container["Id"], "health_status: healthy", since=container["Created"])
    limits = container["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert "no-new-privileges" in limits["SecurityOpt"]
    assert not limits["Privileged"]
    assert limits["Init"]
    assert limits["Memory"] > 4 << 30
    assert limits["PidsLimit"] == PROCESSES
    assert "size=" in limits["Tmpfs"]["/tmp"]
    assert container["Config"]["User"] == f"{UNPRIVILEGED}:{UNPRIVILEGED}"
    assert [mount["Destination"] for mount in container["Mounts"] if mount["RW"]] == ["/kit/out"]


def test_once_ready_it_survives_a_reboot(container: dict[str, Any]) -> None:
    (now,) = json.loads(docker("inspect", container["Id"]))
    assert now["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_it_transcribes(container: dict[str, Any], speech: list[Clip]) -> None:
    clip = speech[0]
    text = docker("exec", container["Id"], "invoke", "transcribe", f"runtime/demo/clips/{clip.path.name}")
    assert text == clip.text


def test_it_is_measured_where_it_serves(host: Host, container: dict[str, Any]) -> None:
    inside = ("exec", container["Id"])
    url = f"http://127.0.0.1:{host.port}"
    assert docker(*inside, "invoke", "smoke", "--url", url).endswith("Written to out/smoke.json")
    docker(*inside, "invoke", "bench", "--quick", "--parts", "latency")
    record = json.loads(docker(*inside, "cat", "out/bench/bench.json"))
    assert record["head"]["ended"] == "complete"
    assert record["absent"] == []
    assert "latency.png" in docker(*inside, "ls", "out/bench").split()


def test_up_again_changes_nothing(host: Host, container: dict[str, Any]) -> None:
    result = host.make("up")
    assert result.returncode == 0, result.stdout
    assert "docker build" not in result.stdout
    assert host.containers() == [container["Id"]]


def test_the_log_and_the_list_are_a_target_away(host: Host, container: dict[str, Any]) -> None:
    assert "Up" in host.make("ps").stdout
    assert container["State"]["Status"] == "running"
    words = [str(host.clone / ".venv" / "bin" / "invoke"), "status"]
    shown = run(words, cwd=host.clone, environment=host.environment)
    assert shown.returncode == 0, shown.stdout
    assert "state    ready" in shown.stdout
    assert f"run by   the container {container['Name'].removeprefix('/')} of make up" in shown.stdout


def test_the_image_says_what_it_is_made_of(image: str, container: dict[str, Any]) -> None:
    (described,) = json.loads(docker("image", "inspect", image))
    labels = described["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version()
    assert labels["org.opencontainers.image.base.name"] == stand_in_base()
    manifest = json.loads(docker("exec", container["Id"], "cat", "/kit/manifest.json"))
    packages = {canonicalize_name(package["name"]): package["version"] for package in manifest["python_packages"]}
    pins = load_stack("cpu").pins_for(python="3.11", machine=os.uname().machine)
    for pin in pins:
        assert packages[canonicalize_name(pin.name)].partition("+")[0] == pin.version.partition("+")[0]
    assert any(package["name"] == "python3" for package in manifest["os_packages"])


def test_a_change_of_the_code_does_not_install_torch_again(host: Host, built: str) -> None:
    assert "$ docker build " in built
    code = host.clone / "runtime" / "urls.py"
    before = code.read_text(encoding="utf-8")
    code.write_text(before + "# changed\n", encoding="utf-8")
    try:
        result = host.make("build", ASR_IMAGE="qwen3-asr-kit-test/changed:1")
    finally:
        code.write_text(before, encoding="utf-8")
    assert result.returncode == 0, result.stdout
    assert "Using cache" in result.stdout
    assert "Fetching" not in result.stdout


def test_python_and_invoke_find_cann_where_docker_exec_starts_them(image: str) -> None:
    files = {
        "Ascend/ascend-toolkit/set_env.sh": "export FROM_TOOLKIT=$UNSET_VARIABLE-$#; echo noise; false\n",
        "Ascend/cann-8.5.1/share/info/ascendnpu-ir/bin/set_env.sh": "export FROM_COMPILER=yes\n",
        "Ascend/nnal/atb/set_env.sh": 'export FROM_ATB="$PATH"\n',
    }
    name = layered(image, "qwen3-asr-kit-test/cann:1", instructions="COPY Ascend /usr/local/Ascend", files=files)
    read = "import os; print(os.environ['FROM_TOOLKIT'], os.environ['FROM_COMPILER'], os.environ['FROM_ATB'])"
    identity = docker("run", "--detach", name, "sleep", "infinity")
    try:
        for words in (("python3", "-c", read), ("/kit/docker/bin/with-cann", "python3", "-c", read)):
            toolkit, compiler, path = docker("exec", identity, *words).split(" ")
            assert (toolkit, compiler) == ("-0", "yes")
            assert "/kit/docker/bin" not in path
        assert "Available tasks" in docker("exec", identity, "invoke", "--list")
    finally:
        docker("rm", "--force", identity)
    assert run_image(name, command=("python3", "-c", read)).stdout.startswith("-0 yes")


def test_weights_that_are_missing_are_named(image: str) -> None:
    result = run_image(image, *WRITABLE, "--env", "ASR_MODEL=weights/none")
    assert result.returncode == 1
    assert "weights/none" in result.stderr
    assert "fetch-weights" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_volume_that_is_read_only_is_named(image: str, tmp_path: Path) -> None:
    result = run_image(image, "--volume", f"{tmp_path}:/kit/out:ro")
    assert result.returncode == 1
    assert "/kit/out cannot be written" in result.stderr.replace(": ", " ")
    assert "Traceback" not in result.stderr


def test_as_pid_1_it_survives_sighup_and_sees_a_renewed_certificate(image: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's are closed to the container's user
        base, live, pki = Path(name), Path(name) / "live", Pki.create()
        base.chmod(0o755)
        live.mkdir()
        pki.issue(live / "..first", days=40)
        swapped(Path("..first"), live)
        settings = load_settings({f"ASR_{key.upper()}": str(path) for key, path in tls(live).items()})
        files = mounts.given(settings, (UNPRIVILEGED, UNPRIVILEGED))
        options = [f"--env={variable(key)}={file.path}" for key, file in files.items()]
        options += [f"--volume={mount}" for mount in {mount for file in files.values() for mount in file.mounts}]
        options += ["--network=none", "--read-only", "--tmpfs=/tmp", *WRITABLE]
        container = docker("run", "--detach", *options, image).strip()
        try:

            def log() -> str:
                docker("kill", "--signal=HUP", container)  # from its first moment on
                return run(["docker", "logs", container], cwd=base, environment=dict(os.environ)).stdout

            until(lambda: "read again: the certificate" in log())
            pki.issue(live / "..second", days=80)
            swapped(Path("..second"), live)
            end = f"{datetime.now(timezone.utc) + timedelta(days=80):%Y-%m-%d}"
            until(lambda: f"valid until {end}" in log())
            assert json.loads(docker("inspect", container))[0]["RestartCount"] == 0
        finally:
            docker("rm", "--force", container)


def test_a_profile_for_another_stack_is_named(image: str) -> None:
    result = run_image(image, *WRITABLE, "--env", "ASR_PROFILE=atlas-800-a2")
    assert result.returncode == 1
    assert "atlas-800-a2" in result.stderr
    assert "cpu stack" in result.stderr


@pytest.mark.usefixtures("up")
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6: ::1 cannot be listened on")
def test_localhost_is_the_host_s_own_over_both_families(host: Host) -> None:
    of_its_own = {"ASR_PORT": str(free_port()), "ASR_HOST": "localhost"}
    result = host.make("up", **of_its_own)
    try:
        assert result.returncode == 0, result.stdout
        for place in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{place}:{of_its_own['ASR_PORT']}/health/ready", timeout=60).status_code == 200
    finally:
        host.make("down", **of_its_own)


@pytest.mark.usefixtures("up")
def test_a_port_that_is_taken_is_named(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        result = host.make("up", ASR_PORT=str(port))
    assert result.returncode != 0
    assert str(port) in result.stdout
    assert "Traceback" not in result.stdout
    assert not docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project=qwen3-asr-{port}")


@pytest.mark.usefixtures("up")
def test_a_container_that_ends_at_once_is_stopped_and_its_words_are_shown(host: Host, image: str) -> None:
    port = str(free_port())
    last = 'CMD ["python3", "-c", "raise SystemExit(\'no luck today\')"]'
    broken = layered(image, "qwen3-asr-kit-test/broken:1", instructions=last, files={})
    result = host.make("up", ASR_PORT=port, ASR_IMAGE=broken)
    assert result.returncode != 0
    assert "before it was ready" in result.stdout
    assert "no luck today" in result.stdout
    assert "Traceback" not in result.stdout
    assert not docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project=qwen3-asr-{port}")
    host.make("down", ASR_PORT=port)


def test_down_drains_and_leaves_nothing(host: Host, container: dict[str, Any]) -> None:
    with subprocess.Popen(["docker", "wait", container["Id"]], stdout=subprocess.PIPE, text=True) as waiting:
        result = host.make("down")
        assert result.returncode == 0, result.stdout
        output, _ = waiting.communicate(timeout=60)
    assert output.strip() == "0"
    assert host.containers() == []
    networks = docker("network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project=qwen3-asr-{host.port}")
    assert networks == ""
    assert docker("volume", "ls", "--quiet", "--filter", f"name=qwen3-asr-{host.port}") == ""
    assert "No server" in host.make("down").stdout

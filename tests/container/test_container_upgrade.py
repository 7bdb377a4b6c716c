"""Day two of `make up`, with a real engine: what runs gives way only to what becomes ready, and one step leads back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine import Host, docker, layered, run

from env.field import variable
from runtime.ops.deploy.compose import SERVES_AGAIN
from runtime.ops.deploy.image import CLONE_LABEL, NAME, VERSION_LABEL

BATCH = variable("max_batch")
STABLE = "qwen3-asr-kit-test/upgrade:stable"  # as a registry's tag that moves on


@pytest.fixture(scope="module", autouse=True)
def up(host: Host, built: str) -> Iterator[str]:
    """What `make up` printed when it started the server; in the end there are no more images than before."""
    assert built
    before = images()
    result = host.make("up", **{BATCH: "3"})
    assert result.returncode == 0, result.stdout
    yield result.stdout
    host.make("down")
    docker("rmi", *(images() - before))


def images() -> set[str]:
    """The names of all images that there are."""
    return {*docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()} - {"<none>:<none>"}


def served(host: Host) -> dict[str, Any]:
    """The one container, which answers."""
    assert len(host.containers()) == 1
    container = host.container("asr")
    assert httpx.get(f"http://127.0.0.1:{host.port}/health/ready", timeout=60).status_code == 200
    return container


def batch(container: dict[str, Any]) -> str:
    """The setting that tells the releases of these tests apart."""
    lines: list[str] = container["Config"]["Env"]
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{BATCH}="))


def newer(base: str, name: str, *instructions: str, version: str = "0.1.0", clone: str = "") -> str:
    """The id of another image of the kit on `base`."""
    labels = f'LABEL {VERSION_LABEL}="{version}" {CLONE_LABEL}="{clone}" name="{name}"'
    layered(base, name, instructions="\n".join([labels, *instructions]), files={})
    return docker("image", "inspect", "--format", "{{.Id}}", name)


def test_up_says_what_starts(up: str, host: Host) -> None:
    assert f"qwen3-asr-{host.port}: 0.1.0 (" in up
    assert up.partition(" starts\n")[1]


def test_a_setting_that_is_wrong_leaves_what_runs_as_it_was(host: Host) -> None:
    before = served(host)
    for target in ("restart", "up"):
        result = host.make(target, ASR_MODEL="weights/mistyped")
        assert result.returncode != 0
        assert "not started, and nothing changed: ASR-D30" in result.stdout
    assert served(host)["Id"] == before["Id"]


def test_what_does_not_become_ready_gives_way_to_what_served(host: Host) -> None:
    before = served(host)
    broken = "qwen3-asr-kit-test/upgrade:broken"
    newer(before["Image"], broken, 'CMD ["python3", "-c", "raise SystemExit(\'no luck today\')"]', version="0.2.0")
    result = host.make("restart", ASR_IMAGE=broken, **{BATCH: "5"})
    assert f"Error {SERVES_AGAIN}\n" in result.stdout
    for part in ("→ 0.2.0 (", f"other settings: {BATCH}", "no luck today", "serves again", "make up"):
        assert part in result.stdout
    after = served(host)
    assert (after["Image"], batch(after)) == (before["Image"], "3")
    assert after["Config"] | {"Hostname": "", "Labels": ""} == before["Config"] | {"Hostname": "", "Labels": ""}
    assert after["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_what_docker_does_not_start_gives_way_too(host: Host) -> None:
    before = served(host)
    result = host.make("up", ASR_CONTAINER_CPUS="1024")
    assert f"Error {SERVES_AGAIN}\n" in result.stdout
    assert "Traceback" not in result.stdout
    after = served(host)
    assert (after["Image"], batch(after), after["HostConfig"]["NanoCpus"]) == (before["Image"], "3", 0)


def test_rollback_leads_back_step_by_step_each_with_its_settings(host: Host) -> None:
    first = served(host)
    releases = [(first["Image"], "3")]
    for version, setting in (("0.2.0", "4"), ("0.3.0", "5")):
        releases.append((newer(first["Image"], STABLE, version=version), setting))
        result = host.make("up", ASR_IMAGE=STABLE, **{BATCH: setting})
        assert result.returncode == 0, result.stdout
        assert f"→ {version} (" in result.stdout
        container = served(host)
        assert (container["Image"], batch(container)) == releases[-1]
    for release in reversed(releases[:-1]):
        result = host.make("rollback")
        assert result.returncode == 0, result.stdout
        container = served(host)
        assert (container["Image"], batch(container)) == release
    result = host.make("rollback")
    assert result.returncode != 0
    assert f"no other image has been ready on port {host.port}" in result.stdout
    assert served(host)["Id"] == container["Id"]


def test_of_this_clones_images_the_last_three_stay_and_what_is_in_use(host: Host) -> None:
    ask = "from runtime.ops.deploy import image; print(image.clone())"
    told = run([".venv/bin/python", "-c", ask], cwd=host.clone, environment=host.environment)
    name = f"{NAME}:{host.port}"
    for number in range(5):
        newer(host.container("asr")["Image"], f"{name}-{number}", clone=told.stdout.strip())
    elsewhere = f"qwen3-asr-kit-test/upgrade:{host.port}"
    docker("tag", f"{name}-1", elsewhere)
    before = images()
    result = host.make("up", **{BATCH: "3"})
    assert result.returncode == 0, result.stdout
    assert " stays\n" in result.stdout
    assert before - images() == {f"{name}-0"}


def test_clean_leaves_a_server_that_runs_its_files(host: Host) -> None:
    result = host.make("clean")
    assert result.returncode != 0
    assert f"qwen3-asr-{host.port} runs, which writes to out → ASR_PORT={host.port} make down" in result.stdout
    assert host.make("ps").returncode == 0


def test_down_finds_containers_whose_files_are_gone(host: Host) -> None:
    Path(host.clone, "out", f"compose-{host.port}.json").unlink()
    result = host.make("down")
    assert result.returncode == 0, result.stdout
    assert "docker stop " in result.stdout
    assert host.containers() == []

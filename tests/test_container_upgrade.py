"""Day two of `make up`, with a real engine: what runs is replaced only by what becomes ready, and one step leads back."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from engine import Host, docker, layered

from env.field import variable
from runtime.ops.lifecycle.image import CLONE_LABEL, VERSION_LABEL
from runtime.ops.lifecycle.up import SERVES_AGAIN

BATCH = variable("max_batch")


@pytest.fixture(scope="module")
def image(host: Host, built: str) -> str:
    """The image that was built, by the name that it keeps."""
    assert built
    return next(name for name in names() if "cpu-" in name)


@pytest.fixture(scope="module", autouse=True)
def up(host: Host, built: str) -> Iterator[str]:
    """What `make up` printed when it started the server."""
    assert built
    result = host.make("up", **{BATCH: "3"})
    assert result.returncode == 0, result.stdout
    yield result.stdout
    host.make("down")


def served(host: Host) -> dict[str, Any]:
    """The container, which answers."""
    container = host.container("asr")
    assert container["State"]["Running"]
    assert httpx.get(f"http://127.0.0.1:{host.port}/health/ready", timeout=60).status_code == 200
    return container


def batch(container: dict[str, Any]) -> str:
    """The setting that tells the releases of these tests apart."""
    return next(line.partition("=")[2] for line in container["Config"]["Env"] if line.startswith(f"{BATCH}="))


def newer(host: Host, tag: str, *instructions: str) -> str:
    """An image of the kit in another version, as a registry has it."""
    text = "\n".join([f'LABEL {VERSION_LABEL}="{tag}" {CLONE_LABEL}=""', *instructions])
    return layered(host.container("asr")["Image"], f"qwen3-asr-kit-test/upgrade:{tag}", instructions=text, files={})


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
    broken = newer(host, "0.2.0", 'CMD ["python3", "-c", "raise SystemExit(\'no luck today\')"]')
    result = host.make("restart", ASR_IMAGE=broken, **{BATCH: "5"})
    assert f"Error {SERVES_AGAIN}\n" in result.stdout
    for part in ("→ 0.2.0 (", f"other settings: {BATCH}", "no luck today", "serves again", "make up"):
        assert part in result.stdout
    after = served(host)
    assert (after["Image"], batch(after)) == (before["Image"], "3")
    assert after["Config"] | {"Hostname": "", "Labels": ""} == before["Config"] | {"Hostname": "", "Labels": ""}
    assert after["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert len(host.containers()) == 1

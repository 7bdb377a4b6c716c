"""The offline handoff: a bundle made here, installed and started where there is no network and an empty engine."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine import Host, free_port, run, unavailable

from runtime import demo
from runtime.demo import Clip

OWN = {"ASR_MODEL": "weights/own", "ASR_HUB_REPO": "somebody/own"}


@dataclass(frozen=True)
class OfflineHost:
    """A network of its own that leads nowhere, with an engine of its own that has no images."""

    engine: int  # dockerd's pid, whose network this is
    socket: Path

    def run(self, *command: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        environment = {key: text for key, text in os.environ.items() if not key.startswith(("ASR_", "PIP_", "MAKE"))}
        words = ["nsenter", f"--net=/proc/{self.engine}/ns/net", *command]
        return run(words, cwd=cwd, environment={**environment, "DOCKER_HOST": f"unix://{self.socket}", **changes})


@pytest.fixture(scope="module")
def bundle(host: Host, built: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the image and of weights that were copied by hand, as one tar, unpacked."""
    assert built
    out = tmp_path_factory.mktemp("bundle")
    key = tmp_path_factory.mktemp("key") / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], cwd=out, environment=host.environment)
    shutil.copytree(demo.CHECKPOINT, host.clone / OWN["ASR_MODEL"])
    for task in (["verify-weights", "--write-lock"], ["bundle", "--output", str(out), "--tar"]):
        command = [str(host.clone / ".venv" / "bin" / "invoke"), *task]
        result = run(command, cwd=host.clone, environment={**host.environment, **OWN, "ASR_BUNDLE_KEY": str(key)})
        assert result.returncode == 0, result.stdout
    assert "./install.sh --signers FILE" in result.stdout
    (archive,) = out.iterdir()
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(out, filter="data")
    archive.unlink()
    (out / "signers").write_text(f"release@example.com {key.with_suffix('.pub').read_text()}")
    return out / archive.stem


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfflineHost]:
    """The host without internet."""
    if os.geteuid() or not all(map(shutil.which, ("unshare", "nsenter", "ip", "dockerd"))):
        unavailable("a network without a way out needs root, unshare, nsenter, ip and dockerd")
    folder = tmp_path_factory.mktemp("offline")
    places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid", "--host": "docker.sock"}
    options = [f"{option}={'unix://' * (option == '--host')}{folder / name}" for option, name in places.items()]
    script = 'ip link set lo up && exec dockerd "$@"'
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *options], stderr=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stderr
        log = []
        for line in engine.stderr:
            log.append(line)
            if "API listen on" in line:
                break
        else:
            pytest.fail("dockerd did not start: " + "".join(log[-10:]))
        drain = subprocess.Popen(["cat"], stdin=engine.stderr, stdout=subprocess.DEVNULL)
        yield OfflineHost(engine.pid, folder / "docker.sock")
        engine.terminate()
        engine.wait()
        drain.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_bundle_holds_all_of_it(bundle: Path) -> None:
    names = {path.name for path in bundle.iterdir()}
    sums = {"SHA256SUMS", "SHA256SUMS.sig"}
    assert names == {"image.tar", "kit.tar", "weights", "wheels", "settings.env", "install.sh", *sums}
    summed = {line.split("  ")[1] for line in (bundle / "SHA256SUMS").read_text("utf-8").splitlines()}
    there = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert summed == there - sums


def test_it_is_installed_serves_is_upgraded_and_goes_without_a_network(
    bundle: Path, offline: OfflineHost, tmp_path: Path, speech: list[Clip]
) -> None:
    reach = "import socket; socket.create_connection(('192.0.2.1', 80), 3)"
    assert "unreachable" in offline.run("python3", "-c", reach, cwd=tmp_path).stdout
    install = (str(bundle / "install.sh"), "--signers", str(bundle.parent / "signers"))
    result = offline.run(*install, cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert "Signed by release@example.com" in result.stdout
    kit = tmp_path / "qwen3-asr-ascend"
    own = tmp_path / "own.yaml"
    own.write_text("services:\n  asr:\n    cap_add: [SYS_NICE]\n")
    with (kit / ".env").open("a") as file:
        file.write(f"ASR_PORT={free_port()}\nASR_COMPOSE_FILE={own}\n")
    result = offline.run("make", "up", cwd=kit)
    assert result.returncode == 0, result.stdout
    assert "ASR-D14" in result.stdout
    assert "Starting: loading weights/own" in result.stdout
    assert speech[0].text in result.stdout
    (container,) = offline.run("docker", "ps", "--quiet", cwd=kit).stdout.split()
    rights = offline.run(
        "docker", "inspect", "--format", "{{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}}", container, cwd=kit
    )
    assert rights.stdout.strip() == "[ALL] [SYS_NICE]"
    clip = f"runtime/demo/clips/{speech[0].path.name}"
    heard = offline.run("docker", "exec", container, "invoke", "transcribe", clip, cwd=kit).stdout
    assert heard.splitlines()[-1] == speech[0].text
    settings = (kit / ".env").read_text("utf-8")
    assert offline.run("make", "down", cwd=kit).returncode == 0
    assert offline.run("docker", "ps", "--all", "--quiet", cwd=kit).stdout == ""
    (log,) = (kit / "out" / "logs").glob(f"container-*-{container}.log")
    assert "[info] stopped, " in log.read_text("utf-8").splitlines()[-1]

    again = offline.run(*install, cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    assert "Upgraded from " in again.stdout
    assert sorted((kit / ".env").read_text("utf-8").splitlines()) == sorted(settings.splitlines())
    assert log.exists()
    assert offline.run("make", "up", cwd=kit).returncode == 0

    refused = offline.run("make", "uninstall", cwd=kit)
    assert "make uninstall YES=1" in refused.stdout
    assert offline.run("docker", "ps", "--quiet", cwd=kit).stdout
    gone = offline.run("make", "uninstall", "YES=1", cwd=kit)
    assert gone.returncode == 0, gone.stdout
    for words in (("ps", "--all"), ("images", "--all"), ("volume", "ls")):
        assert offline.run("docker", *words, "--quiet", cwd=kit).stdout == ""
    assert "qwen3-asr" not in offline.run("docker", "network", "ls", cwd=kit).stdout
    assert not {".venv", "out", ".installed"} & {path.name for path in kit.iterdir()}
    assert {"weights", ".env", "Makefile"} <= {path.name for path in kit.iterdir()}


def test_a_damaged_bundle_is_not_installed(bundle: Path, offline: OfflineHost, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged, copy_function=os.link)
    kit = damaged / "kit.tar"
    content = bytearray(kit.read_bytes())
    content[len(content) // 2] ^= 1
    kit.unlink()
    kit.write_bytes(content)
    result = offline.run(str(damaged / "install.sh"), cwd=tmp_path)
    assert result.returncode == 1
    assert "kit.tar: FAILED" in result.stdout
    assert "the bundle is damaged → copy it again" in result.stdout
    assert not (tmp_path / "qwen3-asr-ascend").exists()


def test_a_bundle_that_is_there_is_not_overwritten(host: Host, bundle: Path) -> None:
    invoke = str(host.clone / ".venv" / "bin" / "invoke")
    command = [invoke, "bundle", "--output", str(bundle.parent)]
    result = run(command, cwd=host.clone, environment=host.environment)
    assert result.returncode == 1
    assert "is there already" in result.stdout

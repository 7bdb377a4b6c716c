"""`make uninstall`: what it lists, asks, removes and keeps. Docker is a stand-in; test_bundle.py has a real one."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from tree import bare_environment, clone_into

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.ops.deploy import uninstall
from runtime.ops.deploy.releases import Release

# Of this clone: a container on port 8000, what is left of port 8001, and images. Of another: a container on port 8002,
# and the image whose name both give.
DOCKER = """\
echo "$*" >> {log}
case "$*" in
info*) {info} ;;
'ps --all'*working_dir*) printf 'asr-8000\\tqwen3-asr-8000\\n' ;;
'ps --all'*qwen3-asr-8000*) echo asr-8000 ;;
'ps --all'*qwen3-asr-8002*) echo of-another ;;
'network ls'*qwen3-asr-8000*) echo net-8000 ;;
'volume ls'*qwen3-asr-800[123]*) echo volume-of-a-port ;;
images*qwen3-asr.clone*) echo 'qwen3-asr-ascend:0.1.0-cpu-abc 1234'; echo '<none>:<none> 5678' ;;
'image inspect'*qwen3-asr-ascend:loaded* | 'image inspect'*' asr:served') echo '{{"qwen3-asr.stack": "cpu"}}' ;;
'image inspect'*qwen3-asr-ascend:[0-9]* | 'image inspect'*' asr:chosen')
    echo '{{"qwen3-asr.stack": "cpu", "qwen3-asr.clone": "another"}}' ;;
'image inspect'*prom/prometheus*) echo '{{}}' ;;
'image inspect'*) exit 1 ;;
'image rm 5678') echo 'image is being used by a stopped container' >&2; exit 1 ;;
esac
"""


@dataclass(frozen=True)
class Clone:
    """A clone that has been used."""

    path: Path
    environment: dict[str, str]
    log: Path

    def uninstall(self, *flags: str) -> "subprocess.CompletedProcess[str]":
        """Run the task, with nobody to ask."""
        return subprocess.run(
            self.command(*flags),
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def command(self, *flags: str) -> list[str]:
        """What `make uninstall` runs, with this Python in the place of the clone's."""
        return [sys.executable, "-m", "invoke", "container.uninstall", *flags]

    def asked(self) -> list[str]:
        """What docker was told to change."""
        return [line for line in self.log.read_text().splitlines() if " rm " in line or line.startswith(("stop", "rm"))]

    def there(self) -> set[str]:
        """Those of the files below that are there."""
        names = ("out", ".venv", ".loaded-images", "weights", ".env", "docker/certificates/house.crt", "Makefile")
        return {name for name in names if (self.path / name).exists()}


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    path = clone_into(tmp_path / "clone")
    for name in ("out/compose-8000.json", "out/server-8001/x", "out/server-8002/x", ".venv/bin/python", "weights/w"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("x")
    (path / ".env").write_text("ASR_PORT=8000\n")
    # Two of them are the other clone's build, of which one was chosen by name.
    served = {"qwen3-asr-ascend:0.1.0-cpu": {}, "asr:served": {}, "asr:chosen": {"ASR_IMAGE": "asr:chosen"}}
    write_releases(path / "out/releases-8001.json", served)
    (path / "out/releases-8002.json").write_text("{")
    (path / ".loaded-images").write_text("qwen3-asr-ascend:loaded\nqwen3-asr-ascend:loaded\nqwen3-asr-ascend:gone\n")
    (path / "docker/certificates/house.crt").write_text("mine")
    folder, log = tmp_path / "bin", tmp_path / "docker.log"
    folder.mkdir()
    write_docker(folder, log, "true")
    return Clone(path, bare_environment(PATH=f"{folder}:{os.environ['PATH']}"), log)


def write_releases(path: Path, served: dict[str, dict[str, str]]) -> None:
    """Put on record that images served, by name, with these settings."""
    files = ["", json.dumps({"services": {"asr": {"image": "any"}}})]
    path.write_text(json.dumps([asdict(Release(name, "", "", files, given)) for name, given in served.items()]))


def write_docker(folder: Path, log: Path, info: str) -> None:
    (folder / "docker").write_text("#!/bin/sh\n" + DOCKER.format(log=log, info=info))
    (folder / "docker").chmod(0o755)


def test_nobody_to_ask_is_refused_and_nothing_is_touched(clone: Clone) -> None:
    before = clone.there()
    result = clone.uninstall()
    assert result.returncode == 2
    assert "nobody can be asked, and nothing was removed → make uninstall YES=1" in result.stderr
    assert "Traceback" not in result.stderr
    assert clone.asked() == []
    assert clone.there() == before


def test_all_of_the_kit_goes_and_what_is_valuable_stays(clone: Clone) -> None:
    result = clone.uninstall("--yes")
    assert clone.there() == {"weights", ".env", "docker/certificates/house.crt", "Makefile"}
    assert clone.asked() == [
        "stop asr-8000",
        "rm asr-8000",
        "network rm net-8000",
        "volume rm volume-of-a-port",
        "image rm qwen3-asr-ascend:0.1.0-cpu-abc",
        "image rm 5678",
        "image rm qwen3-asr-ascend:loaded",
        "image rm asr:served",
        "image rm asr:chosen",
    ]
    kept = result.stdout.partition("Keeps:\n")[2].partition("Removed:")[0]
    for name in ("weights", ".env", "docker/certificates/house.crt"):
        assert f"  {clone.path / name}\n" in kept
    assert "  image prom/prometheus" in kept
    assert f"  {clone.path}, the kit itself\n" in kept
    # What could not be removed did not stop the rest.
    assert result.returncode == 1
    assert "Not removed: image 5678: docker image rm 5678: image is being used by a stopped container" in result.stderr
    assert "1 of 11 could not be removed" in result.stderr


def test_ports_and_images_are_on_record_where_the_output_is(clone: Clone, tmp_path: Path) -> None:
    out = tmp_path / "output"
    (out / "server-8003").mkdir(parents=True)
    write_releases(out / "releases-8003.json", {"asr:served": {}})
    with (clone.path / ".env").open("a") as file:
        file.write(f"ASR_OUT_DIR={out}\n")
    clone.uninstall("--yes")
    asked = clone.asked()
    assert "volume rm volume-of-a-port" in asked
    assert "image rm asr:served" in asked
    assert "image rm asr:chosen" not in asked
    assert out.exists()


def test_weights_and_settings_go_only_if_told(clone: Clone) -> None:
    (clone.path / "out").rename(clone.path.parent / "large-disk")
    (clone.path / "out").symlink_to(clone.path.parent / "large-disk")
    clone.uninstall("--yes", "--everything")
    assert clone.there() == {"docker/certificates/house.crt", "Makefile"}
    assert (clone.path.parent / "large-disk/server-8001/x").exists()


def test_where_docker_cannot_be_asked_what_may_still_run_keeps_its_files(clone: Clone, tmp_path: Path) -> None:
    write_docker(tmp_path / "bin", clone.log, "echo 'Cannot connect' >&2; exit 1")
    result = clone.uninstall("--yes", "--everything")
    assert result.returncode == 1
    assert "Not removed: what is in Docker: docker: the engine cannot be reached: Cannot connect" in result.stderr
    assert "Not removed: out: out: is left for what still runs" in result.stderr
    assert "Not removed: weights: weights: is left for what still runs" in result.stderr
    # With the list of loaded images, by which the next uninstall finds them.
    assert clone.there() >= {"out", ".venv", "weights", ".env", ".loaded-images"}


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\x04", 1), ("y\n", 1)], ids=["no", "end", "yes"])
def test_somebody_is_asked(clone: Clone, answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    command = clone.command()
    with subprocess.Popen(
        command, cwd=clone.path, env=clone.environment, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        os.write(ours, answer.encode())
        output, _ = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert b"Remove all this? [y/N]" in output
    assert process.returncode == code
    assert ("out" in clone.there()) == (answer != "y\n")
    assert (b"nothing was removed" in output) == (answer != "y\n")


def test_a_service_of_systemd_is_its_operators_and_keeps_its_files(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uninstall, "UNITS", tmp_path)
    unit = tmp_path / "qwen3-asr.service"
    unit.write_text(f"[Service]\nExecStart={PROJECT}/.venv/bin/python -m invoke serve\n")
    (tmp_path / "qwen3-asr-elsewhere.service").write_text("[Service]\nExecStart=/opt/other/.venv/bin/python\n")
    (part,) = (part for part in uninstall.find(settings, everything=False) if "service" in part.name)
    assert (part.name, part.runs) == (str(unit), True)
    with pytest.raises(KitError, match=rf"sudo systemctl disable --now qwen3-asr.service && sudo rm {unit}"):
        part.remove()

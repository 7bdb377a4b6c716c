"""What is on record of a port's releases, what an image is called, and what keeps `make clean` from removing both."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hosting import Fake, faking

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime import version
from runtime.ops.deploy import compose, image, override, releases
from runtime.ops.deploy.releases import Release
from runtime.ops.process import state

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a command: a shell script that comes first on PATH."""
    return faking(tmp_path / "bin", monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a port of its own."""
    return load_settings({"ASR_OUT_DIR": str(tmp_path / "out"), "ASR_PORT": "8123"})


def labelled(**labels: str) -> str:
    """A docker whose every image has these labels, and whose id is its name."""
    return f"""case "$4" in *Labels*) echo '{json.dumps(labels)}' ;; *Id*) echo "$5" ;; esac"""


def release(name: str, **service: Any) -> Release:
    """A release of an image with this name and id."""
    described = {"services": {"asr": {"image": name, "environment": {}, "volumes": [], **service}}}
    return Release(name, name, name, ["services: {}", json.dumps(described)], {})


@pytest.mark.parametrize(
    ("labels", "tag", "title"),
    [
        ({image.REVISION_LABEL: COMMIT}, "0.1.0-cpu-0123456789ab", "0.2.0 (0123456789ab)"),
        ({image.REVISION_LABEL: f"{COMMIT}-dirty"}, "0.1.0-cpu-0123456789ab-dirty", "0.2.0 (0123456789ab-dirty)"),
        ({image.REVISION_LABEL: "", image.CONTEXT_LABEL: "f" * 64}, f"0.1.0-cpu-{'f' * 12}", f"0.2.0 ({'f' * 12})"),
    ],
)
def test_an_image_is_called_by_version_and_commit(labels: dict[str, str], tag: str, title: str, fake: Fake) -> None:
    fake("docker", labelled(**{**labels, image.VERSION_LABEL: "0.2.0"}))
    assert image.release_name(load_settings({})) == f"{image.NAME}:{tag.replace('0.1.0', version.version())}"
    assert image.title("whatever") == title


def test_an_image_of_somebody_elses_making_is_called_as_the_operator_does(fake: Fake) -> None:
    fake("docker", labelled())
    assert image.release_name(load_settings({"ASR_IMAGE": "mirror.example/asr:1"})) == "mirror.example/asr:1"
    assert image.title("mirror.example/asr:1") == "mirror.example/asr:1"


def test_three_releases_are_on_record_each_with_its_last_settings(settings: Settings, fake: Fake) -> None:
    fake("docker", labelled())
    for name in ("a", "b", "c", "d"):
        releases.keep(settings, release(name))
    releases.keep(settings, release("c", shm_size="2g"))
    assert [(known.image, known.service.get("shm_size")) for known in releases.read(settings)] == [
        ("b", None),
        ("d", None),
        ("c", "2g"),
    ]
    assert releases.before(settings).image == "d"
    (path,) = (override.server_directory(settings).parent).glob("releases-*")
    assert path.stat().st_mode & 0o777 == 0o600


def test_where_the_last_start_never_became_ready_the_last_that_did_is_gone_back_to(
    settings: Settings, fake: Fake
) -> None:
    fake("docker", labelled())
    releases.keep(settings, release("a"), release("b"))
    override.write_host_file(settings)
    assert releases.before(settings).image == "b"


def test_what_cannot_be_gone_back_to_is_named(settings: Settings, tmp_path: Path, fake: Fake) -> None:
    fake("docker", labelled())
    with pytest.raises(KitError, match="no other image has been ready on port 8123"):
        releases.before(settings)
    releases.keep(settings, release("a", volumes=[f"{tmp_path}/gone:/kit/keys:ro"]), release("b"))
    with pytest.raises(KitError, match=r"/gone: is not there, and a had it mounted"):
        releases.before(settings)
    fake("docker", "exit 1")
    with pytest.raises(KitError, match="a: served before, and is no longer on this host"):
        releases.before(settings)


def test_a_record_that_cannot_be_understood_is_told_and_left(
    settings: Settings, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("docker", labelled())
    assert releases.read(settings) == []
    releases.keep(settings, release("a"))
    path = override.server_directory(settings).parent / "releases-8123.json"
    (entry,) = json.loads(path.read_text(encoding="utf-8"))
    for text in ("{", "[1]", '[{"image": "a"}]', json.dumps([{**entry, "of_a_newer_kit": 1}])):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(KitError, match=rf"is no record .* → mv {path} {path}\.old"):
            releases.before(settings)
        releases.keep(settings, release("b"))
        assert path.read_text(encoding="utf-8") == text
        assert f"Not on record for make rollback: {path}: is no record" in capsys.readouterr().err


def test_what_is_too_old_is_left_where_a_record_cannot_be_read_or_docker_keeps_it(
    settings: Settings, tmp_path: Path, fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    removed = tmp_path / "removed"
    fake("docker", f"[ $1 = rmi ] && echo $2 >>{removed} && exit 1\n{labelled(**{image.CONTEXT_LABEL: 'f' * 64})}")
    other = override.server_directory(settings).parent / "releases-8124.json"
    other.parent.mkdir()
    other.write_text("[1]", encoding="utf-8")
    for name in ("a", "b", "c", "d"):
        releases.keep(settings, release(name))
    assert not removed.exists()
    assert f"No image that is too old is removed: {other}: is no record" in capfd.readouterr().err
    other.unlink()
    releases.keep(settings, release("e"))
    assert removed.read_text(encoding="utf-8") == "b\n"
    assert "Not removed: docker rmi b: ended with exit code 1" in capfd.readouterr().err
    assert [known.image for known in releases.read(settings)] == ["c", "d", "e"]


def test_files_that_compose_refuses_leave_what_runs_described(
    settings: Settings, fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    fake("docker", 'case "$*" in *config*) exit 15 ;; "compose version"*) echo 2 ;; *Labels*) echo "{}" ;; esac')
    written = override.write_host_file(settings)
    written.write_text("as it was", encoding="utf-8")
    wanted = settings.model_copy(update={"image": "an/image:1"})
    fake(
        "docker",
        """case "$*" in *config*) exit 15 ;; "compose version"*) echo 2 ;; *Labels*) echo '{"a": "b"}' ;; esac""",
    )
    with pytest.raises(KitError, match="exit code 15"):
        compose.up(wanted, on_stage=print, say=print)
    assert written.read_text(encoding="utf-8") == "as it was"
    assert "config --quiet" in capfd.readouterr().err


def test_clean_refuses_while_a_server_runs(tmp_path: Path, fake: Fake) -> None:
    fake("docker", "echo qwen3-asr-8124")
    clone = tmp_path / "kit"
    clone.mkdir()
    shutil.copy(PROJECT / "Makefile", clone)
    files = state.state_files(load_settings({"ASR_OUT_DIR": str(clone / "out"), "ASR_PORT": "8125"}))

    def clean() -> str:
        done = subprocess.run(["make", "clean"], cwd=clone, capture_output=True, text=True, check=False, env=os.environ)
        assert (done.returncode == 0) != files.lock.exists()
        return done.stderr

    with state.open_lock(files) as descriptor:
        assert state.try_lock(descriptor)
        told = clean()
        assert "qwen3-asr-8124 runs, which writes to out → ASR_PORT=8124 make down" in told
        assert "out/run/server-8125.lock is held by a server → ASR_PORT=8125 .venv/bin/invoke stop" in told
        fake("docker", "exit 1")
        assert "8124" not in clean()
    assert clean() == ""


def test_clean_refuses_where_docker_cannot_tell_what_runs(tmp_path: Path, fake: Fake) -> None:
    fake("docker", "exit 1")
    clone = tmp_path / "kit"
    deployed = clone / "out" / "compose-8126.json"
    deployed.parent.mkdir(parents=True)
    deployed.touch()
    shutil.copy(PROJECT / "Makefile", clone)
    clean = ["make", "clean"]
    refused = subprocess.run(clean, cwd=clone, capture_output=True, text=True, check=False, env=os.environ)
    assert refused.returncode != 0
    assert "out/compose-8126.json runs is not known" in refused.stderr
    assert "if there is no such server: rm out/compose-8126.json" in refused.stderr
    assert deployed.exists()
    fake("docker", "exit 0")
    subprocess.run(clean, cwd=clone, capture_output=True, check=True, env=os.environ)
    assert not deployed.exists()

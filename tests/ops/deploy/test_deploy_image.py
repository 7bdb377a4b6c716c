"""What an image is built from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hosting import A2, faking
from tree import clone_into

from env.errors import KitError
from env.sources import PROJECT, load_settings
from env.stacks import load_stack
from runtime import version
from runtime.host.docker import DockerError
from runtime.ops.deploy import image
from runtime.server import serve
from runtime.weights import lockfile


def test_a_build_gets_everything_from_the_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*image.MIRRORS, *image.PROXIES):
        monkeypatch.delenv(name, raising=False)
    mirror = {"PIP_INDEX_URL": "https://mirror.example/simple"}
    command = image.build_command(load_settings({"ASR_PROFILE": A2}), mirror)
    assert f"BASE_IMAGE={load_stack('npu').image(A2)}" in command
    assert "STACK=npu" in command
    assert command[command.index("--target") + 1] == "npu"
    assert command[command.index("--tag") + 1] == f"qwen3-asr-ascend:{version.version()}-{A2}"
    assert command[command.index("PIP_INDEX_URL") - 1] == "--build-arg"
    assert not any("mirror.example" in word for word in command)


def test_wheels_on_loopback_are_fetched_past_any_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    script = f'if [ "$1" = build ]; then echo "$NO_PROXY $no_proxy $*" > {told}; fi'
    faking(tmp_path / "bin", monkeypatch)("docker", script)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".example.com")
    monkeypatch.delenv("no_proxy", raising=False)
    image.build(load_settings({}))
    words = told.read_text(encoding="utf-8").split()
    assert words[:2] == [".example.com,127.0.0.1", "127.0.0.1"]
    assert {"http_proxy", "NO_PROXY", "no_proxy"} <= set(words)


def test_the_training_recipe_is_in_no_image() -> None:
    names = {str(path.relative_to(PROJECT)) for path in image._context()}
    assert {"tasks.py", "runtime/demo/__init__.py", "env/locks/cpu.txt"} <= names
    assert not [name for name in names if name.startswith(("runtime/demo_recipe", "tests"))]


DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@pytest.mark.parametrize(
    ("known", "name", "pinned"),
    [
        ([f"registry.example:5000/cann@{DIGEST}"], "registry.example:5000/cann:8.5", DIGEST),
        ([f"mirror.example/python@{OTHER}", f"python@{DIGEST}"], "python:3.11", DIGEST),
        ([f"docker.io/library/python@{DIGEST}"], "python:3.11", DIGEST),
        ([], "built-here:1", ""),
        (None, "not-here:1", ""),
    ],
)
def test_an_image_is_pinned_by_what_its_registry_calls_it(
    known: list[str] | None, name: str, pinned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "exit 1" if known is None else f"echo '{json.dumps(known)}'"
    faking(tmp_path / "bin", monkeypatch)("docker", script)
    assert image.pinned(name) == (f"{name}@{pinned}" if pinned else "")
    assert image.pinned(f"{name}@{OTHER}") == f"{name}@{OTHER}"
    command = image.build_command(load_settings({"ASR_BASE_IMAGE": name}), {})
    assert f"BASE_DIGEST={pinned}" in command


def test_a_base_that_is_not_here_is_pulled_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As an engine does: after the pull it knows the digest."""
    here = tmp_path / "here"
    known = json.dumps([f"registry.example/base@{DIGEST}"])
    script = f"""
case "$1 $2 $4" in
  "pull "*) touch {here};;
  "image inspect {{{{json .RepoDigests}}}}") [ -e {here} ] && echo '{known}';;
  "image inspect "*) [ -e {here} ] && echo null;;
esac"""
    faking(tmp_path / "bin", monkeypatch)("docker", script)
    settings = load_settings({"ASR_BASE_IMAGE": "registry.example/base:1"})
    for pulls in (1, 0):
        image.build(settings)
        shown = capfd.readouterr().err
        assert shown.count("$ docker pull registry.example/base:1") == pulls
        assert f"--build-arg BASE_DIGEST={DIGEST}" in shown


@pytest.mark.parametrize(
    ("variables", "fails", "subject", "advice", "not_said"),
    [
        ({}, "pull", "docker pull base.example/b:1: ", "ASR_BASE_IMAGE=", "PIP_INDEX_URL"),
        ({"ASR_IMAGE": "x.example/asr:1"}, "pull", "docker pull x.example/asr:1: ", "docker login", "PIP_INDEX_URL"),
        ({}, "build", "docker build ", "PIP_INDEX_URL", "ASR_BASE_IMAGE"),
    ],
)
def test_a_failed_pull_is_not_called_a_build(
    variables: dict[str, str],
    fails: str,
    subject: str,
    advice: str,
    not_said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = f'[ $1 = {fails} ] && echo "Error response from daemon: denied" >&2 && exit 1; [ $1 != image ]'
    faking(tmp_path / "bin", monkeypatch)("docker", script)
    with pytest.raises(DockerError) as caught:
        image.ensure(load_settings({"ASR_BASE_IMAGE": "base.example/b:1", **variables}))
    told = str(caught.value)
    assert told.startswith(subject)
    assert advice in told
    assert not_said not in told


def test_pulling_says_how_to_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = json.dumps([f"registry.example/base@{DIGEST}"])
    faking(tmp_path / "bin", monkeypatch)("docker", f"[ $1 = image ] && echo '{known}'; true")
    for setting in ("ASR_BASE_IMAGE", "ASR_IMAGE"):
        variables = {**os.environ, "ASR_PROFILE": "cpu", setting: "registry.example/base:1"}
        words = [sys.executable, "-m", "invoke", "container.pull"]
        done = subprocess.run(words, cwd=PROJECT, env=variables, capture_output=True, text=True, check=True)
        assert f" {setting}=registry.example/base:1@{DIGEST}\n" in done.stdout
        assert load_settings({setting: done.stdout.strip().partition(f"{setting}=")[2]})


def test_weights_that_were_fetched_make_no_other_revision(tmp_path: Path) -> None:
    """The README's order: fetch-weights, which records what it fetched in the clone, then make up."""
    folder = clone_into(tmp_path)

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    def revision() -> str:
        script = "from runtime.ops.deploy import image; print(image.revision())"
        done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "a clone")
    commit = git("rev-parse", "HEAD")
    entry = lockfile.LockedModel("modelscope", files={"config.json": lockfile.LockedFile(2, "0" * 64)})
    (folder / "weights").mkdir()
    lockfile.write(folder / "weights" / "weights.lock", {"Qwen/Qwen3-ASR-1.7B": entry})
    assert git("status", "--porcelain") == "?? weights/"
    assert revision() == commit
    for path in ("runtime/new.py", "docker/Dockerfile"):
        kept = (folder / path).read_text(encoding="utf-8") if (folder / path).exists() else None
        (folder / path).write_text("# other\n", encoding="utf-8")
        assert revision() == f"{commit}-dirty"
        (folder / path).unlink() if kept is None else (folder / path).write_text(kept, encoding="utf-8")


def test_the_system_below_is_a_setting() -> None:
    base = image.base_image(load_settings({"ASR_PROFILE": A2, "ASR_BASE_OS": "openeuler"}))
    assert base == load_stack("npu").image(A2, "openeuler")
    assert "openeuler" in base


def test_a_mirrors_password_does_not_get_into_an_image() -> None:
    with pytest.raises(KitError, match="password") as caught:
        image.build_command(load_settings({}), {"PIP_INDEX_URL": "https://me:pass-word@mirror.example/simple"})
    assert "pass-word" not in str(caught.value)


def test_a_profile_without_a_base_image_is_refused() -> None:
    with pytest.raises(KitError, match="cpu"):
        image.base_image(load_settings({"ASR_STACK": "npu"}))


@pytest.mark.parametrize(
    ("there", "variables", "words"),
    [
        (
            "vllm",
            {"ASR_PROFILE": A2},
            r"vllm stack, but ASR_STACK is npu \(env/profiles/.*-a2\.env\) → export ASR_STACK=vllm",
        ),
        ("npu", {"ASR_PROFILE": A2, "ASR_STACK": "vllm"}, r"vllm \(environment\) → export ASR_STACK=npu"),
        ("cpu", {"ASR_PROFILE": A2}, r"the cpu stack, but .* → export ASR_PROFILE=cpu"),
        ("cpu", {"ASR_STACK": "vllm"}, r"the cpu stack, but .* → export ASR_STACK=cpu"),
    ],
)
def test_an_image_with_another_stack_is_named_with_the_cure(
    there: str, variables: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faking(tmp_path / "bin", monkeypatch)("docker", f'echo \'{{"{image.STACK_LABEL}": "{there}"}}\'')
    with pytest.raises(KitError, match=words):
        image.check_stack(load_settings({"ASR_IMAGE": "mirror.example/asr:1", **variables}))


def test_a_server_on_another_stack_says_the_same() -> None:
    with pytest.raises(KitError, match=r"is npu \(env/profiles/.*-a2\.env\), but this is the cpu .* ASR_PROFILE=cpu"):
        serve.check_stack(load_settings({"ASR_PROFILE": A2}))
    with pytest.raises(KitError, match=r"is vllm \(environment\), but this is the cpu stack → export ASR_STACK=cpu"):
        serve.check_stack(load_settings({"ASR_STACK": "vllm"}))

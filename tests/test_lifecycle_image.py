"""What an image is built from."""

from pathlib import Path

import pytest
from hosting import A2, faking

from env.loading import load_settings
from env.stacks import load_stack
from runtime.errors import KitError
from runtime.ops.lifecycle import image
from runtime.server import preflight


def test_a_build_gets_everything_from_the_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*image.MIRRORS, *image.PROXIES):
        monkeypatch.delenv(name, raising=False)
    mirror = {"PIP_INDEX_URL": "https://mirror.example/simple"}
    command = image.build_command(load_settings({"ASR_PROFILE": A2}), mirror)
    assert f"BASE_IMAGE={load_stack('npu').image(A2)}" in command
    assert "STACK=npu" in command
    assert command[command.index("--target") + 1] == "npu"
    assert command[command.index("--tag") + 1] == f"qwen3-asr-ascend:{image.version()}-{A2}"
    assert command[command.index("PIP_INDEX_URL") - 1] == "--build-arg"
    assert not any("mirror.example" in word for word in command)


def test_wheels_on_loopback_are_fetched_past_any_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    faking(tmp_path / "bin", monkeypatch)("docker", f'[ "$1" = build ] && echo "$NO_PROXY $no_proxy $*" > {told}')
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".example.com")
    monkeypatch.delenv("no_proxy", raising=False)
    image.build(load_settings({}))
    words = told.read_text(encoding="utf-8").split()
    assert words[:2] == [".example.com,127.0.0.1", "127.0.0.1"]
    assert {"http_proxy", "NO_PROXY", "no_proxy"} <= set(words)


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
        preflight.check_stack(load_settings({"ASR_PROFILE": A2}))
    with pytest.raises(KitError, match=r"is vllm \(environment\), but this is the cpu stack → export ASR_STACK=cpu"):
        preflight.check_stack(load_settings({"ASR_STACK": "vllm"}))

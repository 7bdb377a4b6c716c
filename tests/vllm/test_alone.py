"""The kit in vLLM's own Python, as in the image of the stack vllm: one environment for both, without qwen-asr."""

import json
import subprocess
from pathlib import Path

from tree import bare_environment

from env.sources import PROJECT

from .program import START


def test_smoke_in_the_python_of_vllm(python: Path, tmp_path: Path) -> None:
    absent = "import importlib.util, sys; sys.exit(importlib.util.find_spec('qwen_asr') is not None)"
    assert subprocess.run([python, "-c", absent], cwd=tmp_path, check=False).returncode == 0
    result = subprocess.run(
        [python, "-m", "invoke", "smoke"],
        cwd=PROJECT,
        env=bare_environment(ASR_PROFILE="cpu", ASR_DEVICE="cpu", ASR_ENGINE="vllm", ASR_OUT_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
        timeout=START,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))["passed"]

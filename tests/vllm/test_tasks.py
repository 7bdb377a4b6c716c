"""Tasks as an operator types them, with a vLLM that runs already."""

import json
from pathlib import Path

import pytest
from invoking import invoke

from runtime.demo import Clip

from .program import Program


@pytest.fixture(scope="module")
def elsewhere(program: Program) -> dict[str, str]:
    """The settings with which a vLLM is used that somebody else has started."""
    (server,) = program.get("/v1/info").json()["engine"]["servers"]
    return {"ASR_ENGINE": "vllm", "ASR_VLLM_URL": server["url"]}


def test_smoke_of_the_server(program: Program, tmp_path: Path) -> None:
    result = invoke("smoke", "--url", program.url, ASR_OUT_DIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))["passed"]


def test_smoke_of_the_engine(elsewhere: dict[str, str], tmp_path: Path) -> None:
    result = invoke("smoke", ASR_OUT_DIR=str(tmp_path), **elsewhere)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))["passed"]


def test_transcribe(elsewhere: dict[str, str], speech: list[Clip]) -> None:
    result = invoke("transcribe", *(clip.path for clip in speech), **elsewhere)
    assert result.returncode == 0, result.stderr
    for clip in speech:
        assert clip.text in result.stdout

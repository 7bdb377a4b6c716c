"""What tests of a real vLLM share. Those that end or kill a vLLM have their own; the others share one, which is started
when the first of them wants it: no more than two run at a time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from env.sources import PROJECT
from runtime.transcriber import Transcriber

from .program import Program, serving

PYTHON = PROJECT / ".vllm" / "bin" / "python"
LIMITS = {"segment_seconds": 8.0, "max_new_tokens": 64}


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter that has vLLM."""
    if not PYTHON.exists():
        pytest.fail("there is no .vllm/bin/python: `make test-vllm` makes it")
    return PYTHON


@pytest.fixture(scope="session")
def program(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """`invoke serve`, ready, whose segments are short, so that long audio has several."""
    variables = {f"ASR_{name.upper()}": str(value) for name, value in LIMITS.items()}
    with serving(python, tmp_path_factory.mktemp("served"), **variables) as running:
        running.log.wait("ready on")
        running.vllms()
        yield running


@pytest.fixture(scope="session")
def measure(transcriber: Transcriber) -> Transcriber:
    """The transformers engine within the same limits: what it makes of audio is what vLLM shall make of it."""
    return replace(transcriber, settings=transcriber.settings.model_copy(update=LIMITS))

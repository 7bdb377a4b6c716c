"""Tasks as an operator types them, for tests."""

import os
import subprocess
import sys
from pathlib import Path

from env.sources import PROJECT

INVOKE = Path(sys.executable).parent / "invoke"


def invoke(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a task in a process of its own, with only these ASR_ variables."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
    return subprocess.run(
        [INVOKE, *map(str, arguments)],
        cwd=PROJECT,
        env={**environment, "ASR_PROFILE": "cpu", "ASR_DEVICE": "cpu", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def assert_refused(result: "subprocess.CompletedProcess[str]", *words: str, code: int = 1) -> None:
    """The task ended with `code`, words that help and no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr

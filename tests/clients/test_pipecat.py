"""Pipecat's services for OpenAI in a pipeline: segments over HTTP, and realtime sessions."""

import pytest
from serving import Served

from .conftest import Recordings, Uses, run_python


@pytest.fixture(scope="module")
def uses(kit: Served, recordings: Recordings) -> Uses:
    """What came of each."""
    return run_python("pipecat_services.py", kit, recordings)


@pytest.mark.parametrize(
    "use",
    [
        "segments",
        "segments_with_options",
        "whisper",
        "keywords",
        "realtime",
        "realtime_with_options",
        "realtime_by_server",
    ],
)
def test_turns(uses: Uses, recordings: Recordings, use: str) -> None:
    assert tuple(uses[use]) == recordings.turns

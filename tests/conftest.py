"""What tests share: the demo model, loaded once, and its clips."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env.loading import load_settings
from env.settings import Settings
from runtime.measure.smoke import Clip, bundled_clips
from runtime.transcriber import Transcriber, open_transcriber

PROJECT = Path(__file__).resolve().parent.parent
REFERENCE = PROJECT.parent / "shared" / "reference"


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The cpu profile, whatever the environment of the tests says."""
    return load_settings({"ASR_DEVICE": "cpu"})


@pytest.fixture(scope="session")
def transcriber(settings: Settings) -> Iterator[Transcriber]:
    """The demo model on the CPU."""
    with open_transcriber(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    """The bundled clips, speech and silence."""
    return bundled_clips()


@pytest.fixture(scope="session")
def speech(clips: list[Clip]) -> list[Clip]:
    """The bundled clips in which somebody speaks, without hotwords."""
    return [clip for clip in clips if clip.language and not clip.context]


@pytest.fixture
def reference() -> Path:
    """The real model's tokenizer, configurations and clips, which are no part of the project."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the real tokenizer, configurations and clips are not at ../shared/{REFERENCE.name}")
    return REFERENCE


def read_json(path: Path) -> Any:
    """A JSON file's content."""
    return json.loads(path.read_text(encoding="utf-8"))

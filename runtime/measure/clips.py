"""The clips that come with the demo model, and what is said in them."""

import json
from dataclasses import dataclass
from pathlib import Path

from runtime.demo import CLIPS

MANIFEST = "clips.json"


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it; `language` None: nothing."""

    path: Path
    language: str | None
    text: str
    context: str = ""


def bundled_clips() -> list[Clip]:
    """The clips that come with the demo model."""
    entries = json.loads((CLIPS / MANIFEST).read_text(encoding="utf-8"))
    return [Clip(CLIPS / entry.pop("file"), **entry) for entry in entries]

"""The embedded demo model: a stand-in of the true architecture, its clips, its held-out set and the recipe of all."""

import json
from dataclasses import dataclass
from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
CLIPS = Path(__file__).parent / "clips"
HELD_OUT_SET = Path(__file__).parent / "heldout" / "said.jsonl"  # a manifest, beside its recordings

CLIPS_MANIFEST = "clips.json"


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it; `language` None: nothing."""

    path: Path
    language: str | None
    text: str
    context: str = ""


def bundled_clips() -> list[Clip]:
    """The clips that come with the demo model."""
    entries = json.loads((CLIPS / CLIPS_MANIFEST).read_text(encoding="utf-8"))
    return [Clip(CLIPS / entry.pop("file"), **entry) for entry in entries]

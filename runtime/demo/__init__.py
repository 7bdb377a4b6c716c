"""The embedded demo model: a stand-in of the true architecture, its clips, its held-out set and the recipe of all."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
CLIPS = Path(__file__).parent / "clips"
HELD_OUT_SET = Path(__file__).parent / "heldout" / "said.jsonl"  # a manifest, beside its recordings

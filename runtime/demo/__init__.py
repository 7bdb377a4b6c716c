"""The embedded demo model: a stand-in of the true architecture, its clips and the recipe that trains it."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
CLIPS = Path(__file__).parent / "clips"

"""The real tokenizer, configurations and clips, which lie beside the project where a test may read them."""

import json
from pathlib import Path
from typing import Any

from env.sources import PROJECT

REFERENCE = PROJECT.parent / "shared" / "reference"


def read_json(path: Path) -> Any:
    """A JSON file's content."""
    return json.loads(path.read_text(encoding="utf-8"))

"""The kit's version."""

import re

from env.sources import PROJECT


def version() -> str:
    """The kit's version, of pyproject.toml."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert found
    return found[1]

"""Control characters as text that shows them, so that what others wrote gives no orders to a terminal."""

import re

# All but tab and newline; of Unicode's those that break lines or turn the direction of what follows.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""The text with control characters as Python writes them: a form feed as \x0c."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def escaped_json(text: str) -> str:
    """JSON with control characters as JSON writes them, which it need not beyond U+001F: some readers of lines take
    others, such as U+2028, for the end of one."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

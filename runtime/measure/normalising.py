"""Texts as they are compared: what is no error, such as case and punctuation, taken away, language by language."""


def normalise(text: str, language: str | None) -> str:
    """The text without what is no error in this language (an English name, None for unknown)."""
    return text

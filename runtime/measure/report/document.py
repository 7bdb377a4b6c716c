"""A report as its reader sees it, before it becomes Markdown or HTML: sections of paragraphs, tables and pictures.

Both forms are made from this, so that neither says what the other does not.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from env.translation import Bilingual, Language, Translator

Tone = Literal["pass", "fail", "open", "npu", "simulated", "cpu", "unknown", "none"]


HAN = "\u4e00-\u9fff\u3002\uff00-\uff5e\u201c\u201d"  # Chinese characters, and their punctuation
PUNCTUATION = re.compile(rf"((?<=[{HAN}])[,:;!?]|[,:;!?](?= ?[{HAN}])) ?")
BRACKETS = re.compile(rf" ?(?<=[{HAN}])\(([^()]*)\)|\(([^()]*[{HAN}][^()]*)\)")
FULL_WIDTH = 0xFEE0  # from a sign of ASCII to the same as wide as a Chinese character


@dataclass(frozen=True)
class Say(Translator):
    """Says everything in one language, with the punctuation that it is printed with."""

    def words(self, text: Bilingual) -> str:
        """A text that is there in both languages."""
        return self.typeset(text[self.language])

    def joined(self, texts: Iterable[str]) -> str:
        """Several findings in one line; empty ones are left out."""
        return ("; " if self.language == "en" else "\uff1b").join(filter(None, texts))

    def typeset(self, text: str) -> str:
        """A text with Chinese punctuation beside Chinese characters, if that is the language. Not for what was heard
        or printed, which stays as it is."""
        if self.language != "zh":
            return text
        text = BRACKETS.sub(lambda found: f"\uff08{found[1] or found[2]}\uff09", text)
        return PUNCTUATION.sub(lambda found: chr(ord(found[1]) + FULL_WIDTH), text)


@dataclass(frozen=True)
class Code:
    """What is typed, or stands in a file, letter by letter."""

    text: str


@dataclass(frozen=True)
class Mark:
    """A word that is also told by its look."""

    text: str
    tone: Tone


Cell = str | Code | Mark


@dataclass(frozen=True)
class Paragraph:
    """A few sentences; `tone` makes a notice of them."""

    text: str
    tone: Tone | None = None


@dataclass(frozen=True)
class Items:
    """A list."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as there are headings; the columns from `figures` on hold numbers (None: none do)."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    figures: int | None = None


@dataclass(frozen=True)
class CodeBlock:
    """Lines to be typed, or as they were printed."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A plot as SVG; `name` is its file's, `words` say what it shows."""

    name: str
    svg: str
    words: str


Block = Paragraph | Items | Table | CodeBlock | Picture


@dataclass(frozen=True)
class Section:
    """A chapter; `key` is what links lead to."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Banner:
    """What a reader must see before anything else: what it ran on."""

    tone: Tone
    title: str
    text: str


@dataclass(frozen=True)
class ReportDocument:
    """The whole report in one language; `facts` are what stands under its title."""

    language: Language
    title: str
    facts: tuple[tuple[str, str], ...]
    banner: Banner
    sections: tuple[Section, ...]


def kind(block: Block) -> str:
    """The block's kind, for the templates."""
    return type(block).__name__.lower()

"""From the model's raw output to a transcript: language, text, segments and what went wrong on the way."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.languages import LANGUAGES, UNSPACED
from runtime.model.prompt import ASR_TEXT

# A unit of 1 to 20 characters, 20 times in a row or more, is a decoder that ran in circles (the bounds of qwen-asr
# 0.0.6, inference/utils.py). One of them is kept.
_REPETITION = re.compile(r"(.{1,20}?)\1{19,}", re.DOTALL)

# What the model writes of its own: `language X<asr_text>` before what was said, and now and then again within it, in
# whole or in part (vLLM issue 35767). What somebody says looks alike only without the tag, and then there is a space
# before it, where the model writes at once behind a word or its stop. Two exceptions: there are words that end in
# "language", and Chinese has no spaces; there it is the model only if it names a language without spaces, too.
_NAME = r"[^\W\d_]+"
_KNOWN = "|".join(["None", *LANGUAGES])
_KNOWN_UNSPACED = "|".join(["None", *sorted(UNSPACED)])
_WIDE = "\u0e00-\u0e7f\u2e80-\u9fff\uff00-\uff60"  # Thai; Chinese, Japanese and their stops
_PREFIXES = ("meta", "inter", "para", "proto", "sub", "pseudo", "micro", "macro", "super", "multi", "cross", "trans")
_BEHIND_WORD = rf"(?<=[\w.,;:!?…])(?<![{_WIDE}])" + "".join(f"(?i:(?<!{prefix}))" for prefix in _PREFIXES)
_UNTAGGED = rf"(?:{_BEHIND_WORD}language +({_KNOWN})|(?<=[{_WIDE}])language +({_KNOWN_UNSPACED}))"
_START = re.compile(rf"(?i:(?:(?<!\s)\s*language(?:\s+({_NAME}))?\s*)?{ASR_TEXT})|{_UNTAGGED}")
_HEADER = re.compile(rf"\s*language\s+({_NAME})", re.IGNORECASE)
_HEADER_ALONE = re.compile(rf"\s*language(?:\s+({_KNOWN})\b|(?:\s+{_NAME})?$)", re.IGNORECASE)
# The same at the end, where the model stopped within it; or on a line of its own, as nobody's speech is written.
_DANGLING = re.compile(
    rf"(?<!\s)\s*\nlanguage +(?:{_KNOWN})$|{_BEHIND_WORD}language +[A-Z][a-z]*$|"
    r"(?<=[.,;:!?…。，、；：！？])language$|<asr[a-z_]*$"
)


def _beginnings(word: str) -> str:
    return "|".join(word[:length] for length in range(len(word), 0, -1))


_OPEN = re.compile(
    rf"(?<!\s)\s*(?:language\s+(?:{_NAME})?\s*|{_beginnings('language')})?(?:{_beginnings(ASR_TEXT)})?$", re.IGNORECASE
)


@dataclass(frozen=True)
class Hypothesis:
    """The text and language of one segment; `language` is None where nobody speaks."""

    language: str | None
    text: str
    repeated: int = 0  # characters dropped because the decoder ran in circles


@dataclass(frozen=True)
class Span:
    """An interval in seconds from the start of the audio."""

    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A stretch of the audio, in seconds from its start, with its hypothesis and how it was decoded.

    `avg_logprob` is the mean log-probability of its tokens, None where the engine does not know it. Of a `timed`
    request, `speech` holds the spans of speech, empty where no voice was found, and `token_ends` the length of the
    text, in characters, after each token.
    """

    start: float
    end: float
    hypothesis: Hypothesis
    tokens: tuple[int, ...] = ()
    truncated: bool = False  # the token limit cut the text off
    avg_logprob: float | None = field(default=None, compare=False)  # it varies with what is decoded together
    speech: tuple[Span, ...] = ()
    token_ends: tuple[int, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """The transcript of one file, `seconds` long on a player's clock. `prompt_tokens` counts all input tokens, audio
    included; `warnings` name the parts of the request that had no effect."""

    source: str
    seconds: float
    segments: tuple[Segment, ...]
    prompt_tokens: int = 0
    audio_tokens: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The segments' texts, joined as their script requires: with a space, or without in Chinese and the like."""
        return join_texts(segment.hypothesis.text for segment in self.segments)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages spoken, in order of first appearance; empty for silence."""
        return tuple(dict.fromkeys(s.hypothesis.language for s in self.segments if s.hypothesis.language))

    @property
    def language(self) -> str | None:
        """The languages spoken, with commas between them; None for silence."""
        return ",".join(self.languages) or None

    @property
    def tokens(self) -> int:
        """Number of tokens decoded, end tokens left out."""
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    def truncated(self) -> bool:
        """Whether any segment hit the token limit, so that text is missing."""
        return any(segment.truncated for segment in self.segments)

    @property
    def repeated(self) -> int:
        """Characters dropped because the decoder repeated itself, over all segments."""
        return sum(segment.hypothesis.repeated for segment in self.segments)


def join_texts(texts: Iterable[str]) -> str:
    """Join texts as their script requires: with a space between, or without in Chinese and the like."""
    whole = ""
    for text in texts:
        parted = whole and text and not (is_unspaced(whole[-1]) or is_unspaced(text[0]))
        whole += f" {text}" if parted else text
    return whole


def parse(raw: str, *, forced: str | None = None) -> Hypothesis:
    """Parse `language X<asr_text>text`, the model's raw output; with a forced language it begins with the text.

    Where the model starts anew within it, the texts are joined, and the language is that of the first. Without a tag,
    all but a header is text. `language None` means that nobody speaks.
    """
    texts: list[str] = []
    names: list[str | None] = [None]
    end = 0
    for start in _START.finditer(raw):
        texts.append(raw[end : start.start()])
        names.append(start[1] or start[2] or start[3])
        end = start.end()
    texts.append(raw[end:])
    tagged = ASR_TEXT in raw
    if not forced and (header := (_HEADER if tagged else _HEADER_ALONE).match(texts[0])):
        # Before a tag nothing else is said; without one, what comes behind the header is.
        names[0], texts[0] = header[1], "" if tagged else texts[0][header.end() :]
    texts[-1] = _DANGLING.sub("", texts[-1].rstrip())
    texts = [text.strip() for text in texts]
    whole = join_texts(texts)
    text = _REPETITION.sub(r"\1", whole)
    language = forced if text else None
    if not forced:
        spoken = [name for name, said in zip(names, texts, strict=True) if said and name] or list(filter(None, names))
        language = spoken[0].capitalize() if spoken else None
    return Hypothesis(None if language == "None" else language, text, len(whole) - len(text))


def parse_partial(raw: str, *, forced: str | None = None) -> str:
    """The text in output that still grows, without an end that may become a part of the model's own tags."""
    return parse(_OPEN.sub("", raw), forced=forced).text


def is_unspaced(character: str) -> bool:
    """Whether the character belongs to a script, or its punctuation, that is written without spaces."""
    name = unicodedata.name(character, "")
    wide = unicodedata.east_asian_width(character) in "WF" and not name.startswith("HANGUL")
    return wide or name.startswith("THAI")

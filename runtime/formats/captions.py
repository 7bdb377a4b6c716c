"""A transcript's text as captions: short pieces that begin and end with the speech.

Where in a segment there is speech is known, but not when each word is said. So the text is spread over the speech by
its length, the pauses falling where the text has a stop or changes its script, and then cut as subtitles are.
"""

import bisect
import itertools
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from runtime.transcript import Segment, Span, Transcript, is_unspaced

# Broadcasters' guides to subtitles: two lines of 42 characters, of which a Chinese one takes two, for up to 7 s.
MOST_COLUMNS = 42
MAX_CAPTION_SECONDS = 7.0  # seconds
MIN_CAPTION_SECONDS = 1.0  # seconds that a caption stays, where there is room before the next
CAPTION_PAUSE = 0.5  # seconds of silence at which a caption ends

# How long it takes to say a character, in letters of an alphabet, of which some 15 are said in a second.
SYLLABLE, KANA, DIGIT, SIGN = 3.0, 2.0, 3.0, 0.2
# How many letters further a place may be for a caption to end there: where a sentence, a clause or a script does.
SENTENCE_GAIN, CLAUSE_GAIN, SCRIPT_GAIN = 20.0, 10.0, 60.0
PAUSE_SEARCH_LETTERS = 100.0  # letters around the likeliest place of a pause in which its place is looked for, some 6 s
CONTEXT_CHARACTERS = 8  # characters beside a place that are looked at

SENTENCES = tuple(".!?…。！？؟।۔")
CLAUSES = tuple(",;:—–，、；：،؛")
CLOSING = "\"'”’»)]）」』》"  # may stand behind a stop
BEFORE_CONSONANT = "เแโใไ"  # Thai vowels that are written before the consonant they belong to


@dataclass(frozen=True)
class Caption:
    """Some of a segment's text, from character `first` up to `last`, in one line or two; `start` and `end` in seconds.

    `is_estimated` where these come from the text's length, or no voice was found; else a voice begins and ends there.
    """

    segment: Segment
    first: int
    last: int
    start: float
    end: float
    lines: tuple[str, ...]
    is_estimated: bool

    @property
    def text(self) -> str:
        """The caption's text on one line, without line breaks."""
        return " ".join(self.segment.hypothesis.text[self.first : self.last].split())

    @property
    def tokens(self) -> tuple[int, ...]:
        """The segment's tokens that its text was decoded from; those of the header, if any, are none of them."""
        tokens = zip(self.segment.tokens, self.segment.token_ends, strict=False)
        return tuple(token for token, end in tokens if self.first < end <= self.last)


def captions(transcript: Transcript) -> list[Caption]:
    """All captions, in order; none lasts into the next."""
    found = [caption for segment in transcript.segments for caption in _segment_captions(segment)]
    limits = [*(caption.start for caption in found[1:]), transcript.seconds]
    return [
        replace(caption, end=max(caption.start, min(max(caption.end, caption.start + MIN_CAPTION_SECONDS), limit)))
        for caption, limit in zip(found, limits, strict=False)
    ]


@dataclass(frozen=True)
class _Text:
    """A text in units, words or characters, that are not broken.

    `bounds[n]` is where unit n begins, in characters, and `spoken[n]` how much is said before it, in letters; both have
    one more for the end. From the beginning of the text, unit n begins at column `left[n]` and ends, without the space
    behind it, at column `right[n]`.
    """

    whole: str
    bounds: tuple[int, ...]
    spoken: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def units(self) -> int:
        return len(self.left)

    def part(self, first: int, last: int) -> str:
        return " ".join(self.whole[self.bounds[first] : self.bounds[last]].split())

    def width(self, first: int, last: int) -> int:
        """Columns of the units from `first` up to `last`."""
        return self.right[last - 1] - self.left[first]

    def stop(self, place: int) -> float:
        """How well a caption may end before this unit, by punctuation."""
        before = self._before(place).rstrip().rstrip(CLOSING)
        return SENTENCE_GAIN if before.endswith(SENTENCES) else CLAUSE_GAIN if before.endswith(CLAUSES) else 0.0

    def pause(self, place: int) -> float:
        """How well a pause fits before this unit: also where another script begins, and perhaps another language."""
        before = next((script for letter in reversed(self._before(place)) if (script := _script(letter))), "")
        after = next(
            (script for letter in self.whole[self.bounds[place] :][:CONTEXT_CHARACTERS] if (script := _script(letter))),
            "",
        )
        return SCRIPT_GAIN if before and after and before != after else self.stop(place)

    def _before(self, place: int) -> str:
        return self.whole[max(0, self.bounds[place] - CONTEXT_CHARACTERS) : self.bounds[place]]


@dataclass(frozen=True)
class _Speech:
    """What is said without a long pause."""

    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        return sum(span.end - span.start for span in self.spans)

    def time(self, share: float, *, ends: bool) -> float:
        """When this share of it has been said. At a short pause, its beginning if something `ends` there, else its
        end."""
        lengths = itertools.accumulate((span.end - span.start for span in self.spans), initial=0.0)
        said = list(lengths)
        at = min(max(share, 0.0), 1.0) * said[-1]
        number = (bisect.bisect_left(said, at) if ends else bisect.bisect_right(said, at)) - 1
        number = min(max(number, 0), len(self.spans) - 1)
        return min(self.spans[number].start + at - said[number], self.spans[number].end)


@dataclass(frozen=True)
class _Piece:
    """Units of a text from `first` up to `last`, and when they are said."""

    first: int
    last: int
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def _segment_captions(segment: Segment) -> Iterator[Caption]:
    if not segment.hypothesis.text.strip():
        return
    text = _units(segment.hypothesis.text)
    speech = _split_at_pauses(segment.speech or (Span(segment.start, segment.end),))
    places = _align(text, speech)
    pieces = [
        piece
        for said, (first, last) in zip(speech, itertools.pairwise(places), strict=True)
        for piece in _cut(text, first, last, said)
    ]
    pieces = _merged(text, pieces)
    for piece in pieces:
        yield Caption(
            segment,
            text.bounds[piece.first],
            text.bounds[piece.last],
            piece.start,
            min(piece.end, piece.start + MAX_CAPTION_SECONDS),
            _lines(text, piece.first, piece.last) or (text.part(piece.first, piece.last),),
            is_estimated=len(pieces) > 1 or not segment.speech,
        )


def _units(whole: str) -> _Text:
    """A text where it may be broken: between words, between characters that are written without spaces, and within what
    would not fit into a line."""
    bounds, spoken, left, right = [0], [0.0], [0], []
    said, column, solid = 0.0, 0, 0  # so far; `solid` is the column behind the last character that is no space
    for place, character in enumerate(whole):
        width = _width(character)
        overflows = column + width - left[-1] > MOST_COLUMNS and not character.isspace() and not _is_mark(character)
        if place and (overflows or _may_break(whole[place - 1], character)):
            bounds.append(place)
            spoken.append(said)
            right.append(solid)
            left.append(column)
        said += _letters(character)
        column += width
        solid = solid if character.isspace() else column
    return _Text(whole, (*bounds, len(whole)), (*spoken, said), tuple(left), (*right, solid))


def _may_break(before: str, after: str) -> bool:
    if after.isspace() or _joins(after):
        return False
    if before.isspace():
        return True
    opens = unicodedata.category(before) in ("Ps", "Pi") or before in BEFORE_CONSONANT
    return not opens and (is_unspaced(before) or is_unspaced(after))


def _joins(character: str) -> bool:
    """Whether it belongs to the character before it: a mark, a stop, what closes."""
    return _is_mark(character) or unicodedata.category(character) in ("Lm", "Pe", "Pf", "Po")


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _letters(character: str) -> float:
    """How long it takes to say a character."""
    kind = unicodedata.category(character)[0]
    if kind == "N":
        return DIGIT
    if kind != "L":
        return 0.0 if kind in "MZC" else SIGN
    return {"HAN": SYLLABLE, "HANGUL": SYLLABLE, "KANA": KANA}.get(_script(character), 1.0)


def _script(character: str) -> str:
    """The script of a letter, empty for what is none. Chinese characters are as good as kana where scripts change."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").partition(" ")[0]
    return {"CJK": "HAN", "HIRAGANA": "KANA", "KATAKANA": "KANA"}.get(name, name)


def _width(character: str) -> int:
    """Columns of a character, as terminals count: two of a Chinese one, none of a mark."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _split_at_pauses(spans: Sequence[Span]) -> list[_Speech]:
    """Spans grouped into stretches of speech, separated by pauses of CAPTION_PAUSE or longer."""
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span.start - groups[-1][-1].end < CAPTION_PAUSE:
            groups[-1].append(span)
        else:
            groups.append([span])
    return [_Speech(tuple(group)) for group in groups]


def _align(text: _Text, speech: Sequence[_Speech]) -> list[int]:
    """The unit with which each stretch of speech begins, and the end. Each stretch gets as much of the text as it is
    long, as far as pauses fall where they fit (dynamic programming, over the places near each pause)."""
    rate = text.spoken[-1] / (sum(said.seconds for said in speech) or 1.0)  # letters in a second
    ways: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}  # to each place: what it costs, and the places before
    due = 0.0
    for number, said in enumerate(speech, start=1):
        letters = said.seconds * rate
        due += letters
        first = min(bisect.bisect_left(text.spoken, due - PAUSE_SEARCH_LETTERS), text.units)
        last = min(bisect.bisect_right(text.spoken, due + PAUSE_SEARCH_LETTERS), text.units)
        further: dict[int, tuple[float, list[int]]] = {}
        for place in range(first, last + 1) if number < len(speech) else [text.units]:
            gain = text.pause(place) if 0 < place < text.units else 0.0
            costs = [
                (cost + abs(text.spoken[place] - text.spoken[before] - letters) - gain * (before < place), way)
                for before, (cost, way) in ways.items()
                if before <= place
            ]
            cost, way = min(costs, key=itemgetter(0))
            further[place] = (cost, [*way, place])
        ways = further
    return ways[text.units][1]


def _cut(text: _Text, first: int, last: int, speech: _Speech) -> Iterator[_Piece]:
    """The units from `first` up to `last`, all that is said in a stretch of speech, in pieces that fit a caption; they
    end at stops and, for want of them, are of like length."""
    origin, length = text.spoken[first], (text.spoken[last] - text.spoken[first]) or 1.0

    def piece(first: int, last: int) -> _Piece:
        start = speech.time((text.spoken[first] - origin) / length, ends=False)
        return _Piece(first, last, start, speech.time((text.spoken[last] - origin) / length, ends=True))

    def fits(first: int, last: int) -> bool:
        return _lines(text, first, last) is not None and piece(first, last).seconds <= MAX_CAPTION_SECONDS

    while first < last:
        end = most = _furthest(first, last, fits)
        if most < last:
            middle = (text.spoken[first] + text.spoken[last]) / 2
            target = middle if fits(most, last) else text.spoken[most]
            least = first + (most - first + 1) // 3
            end = max(range(max(least, first + 1), most + 1), key=lambda n: text.stop(n) - abs(text.spoken[n] - target))
        yield piece(first, end)
        first = end


def _furthest(first: int, last: int, fits: Callable[[int, int], bool]) -> int:
    """How many units from `first` on fit; one at least."""
    end = first + 1
    while end < last and fits(first, end + 1):
        end += 1
    return end


def _lines(text: _Text, first: int, last: int) -> tuple[str, ...] | None:
    """Units in one line or two, as even as may be but rather ending at a stop; None where they do not fit."""
    whole = text.width(first, last)
    if whole <= MOST_COLUMNS:
        return (text.part(first, last),)
    best: tuple[float, int] | None = None
    for place in range(first + 1, last) if whole <= 2 * MOST_COLUMNS + 1 else ():
        upper, lower = text.width(first, place), text.width(place, last)
        if max(upper, lower) <= MOST_COLUMNS:
            best = max(best or (-math.inf, 0), (text.stop(place) - abs(upper - lower), place))
    return best and (text.part(first, best[1]), text.part(best[1], last))


def _merged(text: _Text, pieces: Sequence[_Piece]) -> list[_Piece]:
    """Pieces without those that would only flicker: one that has no room to stay for a second goes with the one before
    or after, if they fit together and are in one script."""
    merged: list[_Piece] = []
    limits = [*(piece.start for piece in pieces[1:]), math.inf]
    for piece, limit in zip(pieces, limits, strict=True):
        before = merged[-1] if merged else None
        if before and min(piece.start - before.start, max(piece.end, limit) - piece.start) < MIN_CAPTION_SECONDS:
            both = _Piece(before.first, piece.last, before.start, piece.end)
            fits = both.seconds <= MAX_CAPTION_SECONDS and _lines(text, both.first, both.last) is not None
            if fits and text.pause(piece.first) < SCRIPT_GAIN:
                merged[-1] = both
                continue
        merged.append(piece)
    return merged

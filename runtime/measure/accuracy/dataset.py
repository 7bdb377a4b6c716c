"""Accuracy: how much of what is said in a data set is heard, by language, length and speaker."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env.errors import KitError
from runtime.transcriber import Source

LONGEST = 1 << 20  # bytes of a line; a transcript of hours stays below
# First bytes → the encoding that they tell.
MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

LINES, TABLES = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")

# Field → its names, the kit's own first.
FIELDS = {
    "audio": ("audio", "audio_filepath", "audio_path", "path", "wav", "file_name", "file", "source"),
    "text": ("text", "sentence", "transcript", "transcription", "reference", "txt", "target"),
    "language": ("language", "lang", "locale", "source_lang"),
    "speaker": ("speaker", "speaker_id", "spk", "client_id"),
    "id": ("id", "key", "utt_id", "utterance_id"),
}
DAMAGE = re.compile("[\0\ufffd\ud800-\udfff]")  # in no text that was read in its own encoding
DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True)
class Item:
    """An utterance with its reference. `name` is unique in its data set, `language` the English name (None: not given),
    `speaker` empty where not given. An empty `text` says that nobody speaks."""

    name: str
    source: Source
    text: str
    language: str | None = None
    speaker: str = ""


@dataclass(frozen=True)
class Refused:
    """An entry that cannot be used, counted but not fatal: where it stands (`file:line` or a file), and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """`name` as shown, such as `LibriSpeech test-clean`; `layout` (manifest, librispeech, aishell, fleurs,
    common-voice, demo); `digest` changes with its entries, so that a run is resumed on the same data alone; `plain`
    texts are compared as they are (`count(…, plain=True)`), others are normalised first."""

    name: str
    layout: str
    digest: str
    items: tuple[Item, ...]
    refused: tuple[Refused, ...] = ()
    plain: bool = False


@dataclass(frozen=True)
class ManifestEntry:
    """`where` it stands (`file:line`), a `name`, where its audio should be, its reference, and its language by any
    name, code or tag, and speaker, empty where not given."""

    where: str
    name: str
    audio: Path
    text: str
    language: str = ""
    speaker: str = ""


class UnusableError(Exception):
    """An entry that cannot be used; the message says why."""


Listed = ManifestEntry | Refused


@dataclass(frozen=True)
class ManifestLine:
    """A line without its end; `where` is `file:line`, from 1; `fault` says why it cannot be used, empty if it can."""

    where: str
    text: str
    fault: str = ""


def lines(path: Path) -> Iterator[ManifestLine]:
    """The lines of a file, one after another. Raises KitError where it cannot be read or is not UTF-8."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LONGEST + 1):
                number += 1
                if number == 1:
                    _refuse_marked(path, raw)
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if len(raw) > LONGEST and not raw.endswith(b"\n"):
                    while (more := file.readline(LONGEST)) and not more.endswith(b"\n"):
                        pass
                    yield ManifestLine(f"{path}:{number}", "", f"is longer than {LONGEST} bytes")
                else:
                    yield ManifestLine(f"{path}:{number}", _decoded(path, number, raw).rstrip("\r\n"))
    except OSError as error:
        raise KitError(str(path), f"cannot be read: {error.strerror}") from None


def _refuse_marked(path: Path, start: bytes) -> None:
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            raise KitError(str(path), f"is in {encoding}, expected UTF-8", _convert(path, encoding))


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte 0x{raw[error.start]:02x} in line {number}"
        raise KitError(str(path), reason, "if it is GB18030 or GBK: " + _convert(path, "GB18030")) from None


def _convert(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {path} > {path.stem}-utf8{path.suffix}"


@dataclass(frozen=True)
class _EntryRow:
    """An entry as it is written; `fault` says why it cannot be used, empty if it can."""

    where: str
    fields: Mapping[str, Any]
    fault: str = ""


def entries(path: Path, *, base: Path | None = None) -> Iterator[Listed]:
    """What a list says, in order; audio is relative to `base`, the list's directory unless given.

    Raises KitError where the file cannot be read, is not UTF-8, or is no list of utterances at all.
    """
    for row in _table(path) if path.suffix.lower() in TABLES else _objects(path):
        try:
            yield Refused(row.where, row.fault) if row.fault else _entry(row, base or path.parent)
        except UnusableError as error:
            yield Refused(row.where, str(error))


def _objects(path: Path) -> Iterator[_EntryRow]:
    written = (line for line in lines(path) if line.text.strip() or line.fault)
    for number, line in enumerate(written):
        if number == 0 and line.text.lstrip().startswith("["):
            advice = f"jq -c '.[]' {path} > {path.stem}.jsonl"
            raise KitError(str(path), "is a JSON array, expected an object in each line", advice)
        yield _object(line)


def _object(line: ManifestLine) -> _EntryRow:
    if line.fault:
        return _EntryRow(line.where, {}, line.fault)
    try:
        content = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        return _EntryRow(line.where, {}, f"is no JSON: {error}")
    return (
        _EntryRow(line.where, content) if isinstance(content, dict) else _EntryRow(line.where, {}, "is no JSON object")
    )


def _table(path: Path) -> Iterator[_EntryRow]:
    """The rows by the names in the header. One that spans lines is refused: most often a quote was left open, and would
    swallow the rows after it. An empty field is one that is not given."""
    rows = lines(path)
    head = next(rows, None)
    if head is None:
        return
    delimiter = _delimiter(path, head.text)
    header = _split(head.text, delimiter)
    faults: dict[str, str] = {}
    reader = csv.reader(
        _texts(rows, faults),
        delimiter=delimiter,
        # Tools that write tabs between fields, as Common Voice, take quotes for what they are.
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        skipinitialspace=True,
        strict=True,
    )
    while True:
        begun = reader.line_num + 2  # the header is line 1
        where = f"{path}:{begun}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield _EntryRow(where, {}, f"is no row of a table: {error} (read to line {reader.line_num + 1})")
            continue
        if row is None:
            return
        if where in faults:
            yield _EntryRow(where, {}, faults[where])
        elif reader.line_num + 1 > begun:
            yield _EntryRow(where, {}, f"goes on to line {reader.line_num + 1}: is a quote left open?")
        elif row and len(row) != len(header):
            yield _EntryRow(where, {}, f"has {len(row)} fields, the header {len(header)}")
        elif row:
            yield _EntryRow(where, {name: field for name, field in zip(header, row, strict=True) if field})


def _texts(rows: Iterator[ManifestLine], faults: dict[str, str]) -> Iterator[str]:
    """The lines as csv wants them, which on Python 3.10 breaks off at a NUL; those with a fault are left empty."""
    for line in rows:
        if line.fault:
            faults[line.where] = line.fault
        yield line.text.replace("\0", "\ufffd") + "\n"


def _delimiter(path: Path, header: str) -> str:
    """What parts the fields: that by which the header has audio and text."""
    for delimiter in DELIMITERS:
        names = set(_split(header, delimiter))
        if all(names.intersection(FIELDS[field]) for field in ("audio", "text")):
            return delimiter
    wanted = " and ".join(f"{field} (or {', '.join(FIELDS[field][1:])})" for field in ("audio", "text"))
    raise KitError(
        str(path), f"begins with {header[:60]!r}, which is no header", f"name the columns, at least {wanted}"
    )


def _split(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').casefold() for name in header.split(delimiter)]


def _entry(row: _EntryRow, base: Path) -> ManifestEntry:
    if (offset := str(row.fields.get("offset") or "")).strip("0."):
        raise UnusableError(f"offset {offset}: a part of a file cannot be taken, cut it out first")
    audio, text = _field(row, "audio"), _field(row, "text")
    if not audio:
        raise UnusableError(f"has no audio, by none of the names {', '.join(FIELDS['audio'])}")
    if "://" in audio:
        raise UnusableError(f"{audio} is a URL, expected a file: fetch it first")
    if text is None:
        advice = 'where nobody speaks, "text": "" in a .jsonl says so'
        raise UnusableError(f"has no text, by none of the names {', '.join(FIELDS['text'])}; {advice}")
    name = _field(row, "id") or audio
    return ManifestEntry(
        row.where, name, base / audio, text, _field(row, "language") or "", _field(row, "speaker") or ""
    )


def _field(row: _EntryRow, field: str) -> str | None:
    """The value of a field by the kit's own name, else by whichever other it has; None if by none."""
    own, *others = FIELDS[field]
    given = {name: row.fields[name] for name in (own, *others) if row.fields.get(name) is not None}
    if own not in given and len(set(map(repr, given.values()))) > 1:
        raise UnusableError(f"says different things in {' and '.join(given)}: which is meant, call {own}")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UnusableError(f"{name} is no text: {value!r:.40}")
        if found := DAMAGE.search(str(value)):
            raise UnusableError(f"{name} has U+{ord(found[0]):04X} in it, as a wrong encoding leaves behind")
        return str(value).strip()
    return None

"""From a path to a data set of what can be used, and what cannot, with the reason."""

import hashlib
import json
import stat
from pathlib import Path

from env.errors import KitError, UsageError
from runtime import languages
from runtime.languages import UnknownLanguageError
from runtime.measure.accuracy import DataSet, Item, Refused, layouts, manifest
from runtime.measure.accuracy.entry import Entry, UnusableError
from runtime.measure.accuracy.layouts import LAYOUTS, Found


def read(path: Path, *, language: str | None = None, split: str = "") -> DataSet:
    """The data set at a path: a manifest, or a layout of `runtime.measure.accuracy.layouts`.

    `language`, by any name, is that of entries which do not say theirs. The digest is of names, references, languages,
    speakers and sizes of the audio files: a copy of a data set has the same.

    Raises UsageError for a language, split or path that is not there, KitError for a file or directory that is no data
    set, or one of which nothing can be used.
    """
    spoken = languages.resolve(language)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise UsageError(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return _gathered(path, layouts.find(path, split) or _manifest(path, split), spoken)
    except OSError as error:
        raise KitError(str(error.filename or path), f"cannot be read: {error.strerror}") from None


def _manifest(path: Path, split: str) -> Found:
    if path.is_dir():
        known = "; ".join(f"{layout.title} ({layout.known_by})" for layout in LAYOUTS)
        advice = f"give a manifest ({', '.join(manifest.LINES + manifest.TABLES)})"
        raise KitError(str(path), f"is no data set that is known: {known}", advice)
    if path.suffix.lower() not in manifest.LINES + manifest.TABLES:
        expected = ", ".join(manifest.LINES + manifest.TABLES)
        raise KitError(str(path), f"is no manifest by its ending, expected {expected}, or a data set's directory")
    if split:
        raise UsageError("--split", f"{path} is a manifest, which has no splits", "leave it out")
    return Found(path.stem, "manifest", manifest.entries(path))


def _gathered(path: Path, found: Found, language: str | None) -> DataSet:
    items, refused = [], []
    digest = hashlib.sha256()
    seen: dict[str, str] = {}  # names and audio files → where they stand
    for entry in found.entries:
        if isinstance(entry, Refused):
            refused.append(entry)
            continue
        try:
            item = Item(entry.name, entry.audio, entry.text, _language(entry) or language, entry.speaker)
            size = _size(entry.audio)
            _refuse_second(entry, seen)
        except UnusableError as error:
            refused.append(Refused(entry.where, str(error)))
            continue
        items.append(item)
        digest.update(json.dumps([item.name, item.text, item.language, item.speaker, size]).encode())
    if not items:
        _refuse_whole(path, refused)
    return DataSet(found.name, found.layout, digest.hexdigest(), tuple(items), tuple(refused))


def _language(entry: Entry) -> str | None:
    try:
        return languages.resolve(entry.language)
    except UnknownLanguageError as error:
        raise UnusableError(f"language {error}") from None


def _size(audio: Path) -> int:
    """Bytes of an audio file."""
    try:
        status = audio.stat()
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise UnusableError(f"{audio}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UnusableError(f"{audio}: is a directory" if stat.S_ISDIR(status.st_mode) else f"{audio}: is no file")
    return status.st_size


def _refuse_second(entry: Entry, seen: dict[str, str]) -> None:
    marks = {f"audio {entry.audio.resolve()}": entry.where, f"name {entry.name}": entry.where}
    for mark in marks:
        if mark in seen:
            raise UnusableError(f"has the {mark}, as {seen[mark]}")
    seen |= marks


def _refuse_whole(path: Path, refused: list[Refused]) -> None:
    if not refused:
        raise KitError(str(path), "lists no utterances")
    first = f"{refused[0].where}: {refused[0].reason}"
    advice = "audio is looked for beside the manifest, unless its path is absolute" if "No such file" in first else ""
    raise KitError(str(path), f"none of its {len(refused)} entries can be used, the first: {first}", advice)

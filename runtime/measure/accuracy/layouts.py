"""Common data sets as they lie on a disk once their archives are unpacked.

- LibriSpeech (openslr.org/12): SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with .flac beside it.
- AISHELL-1 (openslr.org/33): wav/SPLIT/SPEAKER/*.wav and transcript/aishell_transcript_v0.8.txt.
- FLEURS (google/fleurs, its directory data): LANGUAGE/SPLIT.tsv and LANGUAGE/audio/SPLIT/*.wav.
- Common Voice: LOCALE/SPLIT.tsv and LOCALE/clips/*.mp3.

A path may be the data set or one of its splits; of FLEURS and Common Voice a language, or a directory of languages,
which are then one data set.
"""

import hashlib
import json
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from env.errors import KitError, UsageError
from runtime import languages
from runtime.languages import UnknownLanguageError
from runtime.measure.accuracy import dataset
from runtime.measure.accuracy.dataset import DataSet, Item, Listed, ManifestEntry, Refused, UnusableError, lines

Splits = dict[str, list[Path]]  # a split → the directories or tables that hold it

USUAL = "test"  # the split that is taken unless another is asked for
AISHELL_TRANSCRIPT = Path("transcript/aishell_transcript_v0.8.txt")
FLEURS_COLUMNS = 7  # id, file, transcript as written, transcript normalised, its letters, samples, gender; no header
FLEURS_TABLES = ("train", "dev", "test")
VOICE_TABLES = ("train", "dev", "test", "validated", "invalidated", "other")


@dataclass(frozen=True)
class DataSetLayout:
    """A data set's layout: how it is known, what splits are at a path, and what one of their directories or tables
    lists."""

    name: str
    title: str
    known_by: str
    splits: Callable[[Path], Splits]
    entries: Callable[[Path], Iterator[Listed]]


@dataclass(frozen=True)
class FoundDataSet:
    """A data set on a disk: its name as shown, its layout, and what it lists, read as one goes on."""

    name: str
    layout: str
    entries: Iterator[Listed]


def find(path: Path, split: str = "") -> FoundDataSet | None:
    """The data set at a path, by what is there; None where it has no layout of LAYOUTS.

    Raises UsageError where the split is not there, or one must be chosen, KitError where an archive is still packed.
    """
    for layout in LAYOUTS:
        if splits := layout.splits(path):
            chosen = _chosen(path, list(splits), split)
            places = splits[chosen]
            languages = "" if len(places) > 1 or places[0].is_dir() else f" {places[0].parent.name}"
            entries = chain.from_iterable(map(layout.entries, places))
            return FoundDataSet(f"{layout.title}{languages} {chosen}", layout.name, entries)
    return None


def _chosen(path: Path, splits: Sequence[str], split: str) -> str:
    if split in splits:
        return split
    if split:
        raise UsageError("--split", f"{split!r} is none of {path}, which has {', '.join(splits)}")
    if len(splits) > 1 and USUAL not in splits:
        raise UsageError("--split", f"is needed: {path} has {', '.join(splits)}", f"--split {splits[-1]}")
    return USUAL if USUAL in splits else splits[0]


def _librispeech(path: Path) -> Splits:
    if any(path.glob("*/*/*.trans.txt")):
        return {path.name: [path]}
    root = path / "LibriSpeech" if (path / "LibriSpeech").is_dir() else path
    return {split.name: [split] for split in _directories(root) if any(split.glob("*/*/*.trans.txt"))}


def _librispeech_entries(split: Path) -> Iterator[Listed]:
    for transcript in sorted(split.glob("*/*/*.trans.txt")):
        for line in lines(transcript):
            name, _, text = line.text.strip().partition(" ")
            if line.fault or (name and not text):
                yield Refused(line.where, line.fault or "has no text")
            elif name:
                speaker = name.partition("-")[0]
                yield ManifestEntry(line.where, name, transcript.parent / f"{name}.flac", text, "English", speaker)


def _aishell(path: Path) -> Splits:
    for root in (path, path / "data_aishell"):
        if (root / AISHELL_TRANSCRIPT).is_file():
            if not (splits := _directories(root / "wav")):
                advice = f"cd {root / 'wav'} && for f in *.tar.gz; do tar xf $f; done"
                raise KitError(str(root), "has no directories in wav: its archives are still packed", advice)
            return {split.name: [split] for split in splits}
    return {path.name: [path]} if (path.parent.parent / AISHELL_TRANSCRIPT).is_file() and path.is_dir() else {}


def _aishell_entries(split: Path) -> Iterator[Listed]:
    transcript = split.parent.parent / AISHELL_TRANSCRIPT
    said: dict[str, ManifestEntry] = {}
    for line in lines(transcript):
        name, *words = line.text.split() or [""]
        said[name] = ManifestEntry(line.where, name, Path(), "".join(words), "Chinese")
    for audio in sorted(split.glob("*/*.wav")):
        entry = said.get(audio.stem)
        if entry and entry.text:
            yield replace(entry, audio=audio, speaker=audio.parent.name)
        else:
            yield Refused(str(audio), f"has no text in {transcript}")


def _fleurs(path: Path) -> Splits:
    return _tables(path, FLEURS_TABLES, _is_fleurs)


def _is_fleurs(table: Path) -> bool:
    audio = table.parent / "audio"
    return (audio / table.stem).is_dir() or (audio / f"{table.stem}.tar.gz").is_file()


def _fleurs_entries(table: Path) -> Iterator[Listed]:
    language, split = table.parent.name, table.stem
    audio = table.parent / "audio" / split
    if not audio.is_dir() and (packed := audio.with_name(f"{split}.tar.gz")).is_file():
        raise KitError(str(packed), "is still packed", f"tar xf {packed} -C {packed.parent}")
    for line in lines(table):
        columns = line.text.split("\t")
        if line.fault or len(columns) != FLEURS_COLUMNS:
            yield Refused(line.where, line.fault or f"has {len(columns)} fields, expected {FLEURS_COLUMNS}")
        elif not columns[2].strip():
            yield Refused(line.where, "has no text")
        else:
            name = f"{language}/{Path(columns[1]).stem}"
            yield ManifestEntry(line.where, name, audio / columns[1], columns[2], language)


def _common_voice(path: Path) -> Splits:
    return _tables(path, VOICE_TABLES, _is_common_voice)


def _is_common_voice(table: Path) -> bool:
    head = next(lines(table), None)
    return head is not None and head.text.startswith("client_id\t") and (table.parent / "clips").is_dir()


def _common_voice_entries(table: Path) -> Iterator[Listed]:
    for entry in dataset.entries(table, base=table.parent / "clips"):
        if isinstance(entry, Refused):
            yield entry
        else:
            yield replace(entry, name=entry.audio.stem, language=entry.language or table.parent.name)


def _tables(path: Path, names: Sequence[str], fits: Callable[[Path], bool]) -> Splits:
    """The tables of these names that fit: the path itself, or in it, or in one of its directories."""
    directories = [path, *_directories(path)] if path.is_dir() else []
    inside = [directory / f"{name}.tsv" for directory in directories for name in names]
    splits: Splits = {}
    for table in inside or [path]:
        if table.stem in names and table.suffix == ".tsv" and table.is_file() and fits(table):
            splits.setdefault(table.stem, []).append(table)
    return splits


def _directories(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


LAYOUTS = (
    DataSetLayout("librispeech", "LibriSpeech", "*/*/*.trans.txt", _librispeech, _librispeech_entries),
    DataSetLayout("aishell", "AISHELL-1", f"wav and {AISHELL_TRANSCRIPT}", _aishell, _aishell_entries),
    DataSetLayout("fleurs", "FLEURS", "audio and test.tsv", _fleurs, _fleurs_entries),
    DataSetLayout("common-voice", "Common Voice", "clips and test.tsv", _common_voice, _common_voice_entries),
)


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
        return _gathered(path, find(path, split) or _manifest(path, split), spoken)
    except OSError as error:
        raise KitError(str(error.filename or path), f"cannot be read: {error.strerror}") from None


def _manifest(path: Path, split: str) -> FoundDataSet:
    if path.is_dir():
        known = "; ".join(f"{layout.title} ({layout.known_by})" for layout in LAYOUTS)
        advice = f"give a manifest ({', '.join(dataset.LINES + dataset.TABLES)})"
        raise KitError(str(path), f"is no data set that is known: {known}", advice)
    if path.suffix.lower() not in dataset.LINES + dataset.TABLES:
        expected = ", ".join(dataset.LINES + dataset.TABLES)
        raise KitError(str(path), f"is no manifest by its ending, expected {expected}, or a data set's directory")
    if split:
        raise UsageError("--split", f"{path} is a manifest, which has no splits", "leave it out")
    return FoundDataSet(path.stem, "manifest", dataset.entries(path))


def _gathered(path: Path, found: FoundDataSet, language: str | None) -> DataSet:
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


def _language(entry: ManifestEntry) -> str | None:
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


def _refuse_second(entry: ManifestEntry, seen: dict[str, str]) -> None:
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

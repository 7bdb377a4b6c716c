"""Whatever the bytes are, they become audio or an error that says why, soon; and nothing is lost without a word."""

import struct
from functools import cache

import pytest
from audio_files import RECIPES, ffmpeg, speechlike
from broken_audio import HUGE, Chance, cut, exaggerate, flip, shuffle

from runtime.audio import Audio, AudioError, Limits, load

LIMITS = Limits(longest_seconds=60.0)
SECONDS = 0.4
ROUNDS = 56  # of each format: about 2,000 files
# Formats in which any cut is noticed; in the others a cut between two frames or packets leaves a whole file.
TELLING = sorted(RECIPES.keys() - {"bare.mp3", "adts.aac", "dolby.ac3", "dolby.eac3", "camera.ts", "film.mpg"})


@cache
def small(name: str) -> bytes:
    if name == "voice.amr":
        return ffmpeg(speechlike(SECONDS, 8000), 8000, container="amr", codec="libopencore_amrnb")
    return RECIPES[name](speechlike(SECONDS, 48_000), 48_000)


def loaded(file: bytes) -> Audio | AudioError:
    try:
        return load(file, limits=LIMITS, name="upload")
    except AudioError as error:
        return error


def resize(file: bytes, chance: Chance) -> bytes:
    """An extreme where four letters name a chunk, a box or a list, before or behind them."""
    broken = bytearray(file)
    names = [at for at in range(4, min(len(file), 4096) - 8) if file[at : at + 4].isalpha()]
    at = chance.choice(names or [4])
    struct.pack_into(chance.choice("<>") + "I", broken, at + chance.choice((-4, 4)), chance.choice(HUGE))
    return bytes(broken)


def double(file: bytes, chance: Chance) -> bytes:
    """From one name to another once more: chunks, boxes, pages, tags."""
    names = [at for at in range(len(file) - 4) if file[at : at + 4].isalnum()] or [0]
    start, end = sorted(chance.choices(names, k=2))
    return file[:end] + file[start:end] + file[end:]


BREAKS = (cut, flip, exaggerate, shuffle, resize, double)


@pytest.mark.parametrize("name", [*RECIPES, "voice.amr"])
def test_broken_files_become_audio_or_an_error(name: str) -> None:
    chance = Chance(name)
    for number in range(ROUNDS):
        file = BREAKS[number % len(BREAKS)](small(name), chance)
        outcome = loaded(file)
        if isinstance(outcome, AudioError):
            assert outcome.subject == "upload"
            assert len(str(outcome)) < 1000
        else:
            assert 0.1 <= outcome.seconds <= 61


@pytest.mark.parametrize("name", [*TELLING, "voice.amr"])
def test_no_cut_file_comes_in_as_a_whole_one(name: str) -> None:
    file = small(name)
    whole = load(file, limits=LIMITS)
    chance = Chance(name)
    for place in [len(file) // 2, *(chance.randrange(1, len(file)) for _ in range(12))]:
        outcome = loaded(file[:place])
        if isinstance(outcome, Audio):
            missing = len(whole.samples) - len(outcome.samples)
            assert missing <= 50, f"{missing} samples are missing where {len(file) - place} bytes are"

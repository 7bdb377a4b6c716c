"""Files that call themselves audio and are not, or not quite: what strangers, bad discs and attackers send."""

import gzip
import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle

import numpy as np
from audio_files import RECIPES, ffmpeg

from runtime.audio import SAMPLE_RATE, Limits, load
from runtime.demo import bundled_clips

Chance = random.Random
Break = Callable[[bytes, Chance], bytes]

QUARTER = 900  # seconds of silence in a bomb
SECONDS = 1.0  # of speech in each file that is broken
HUGE = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFF0000, 0xDEADBEEF)


@cache
def recording(name: str) -> bytes:
    """The first second of a bundled clip in one of the formats of RECIPES."""
    samples = load(bundled_clips()[0].path, limits=Limits()).samples[: int(SECONDS * SAMPLE_RATE)]
    stereo = np.repeat(samples[:, np.newaxis], 3 * 2, axis=1).reshape(-1, 2)  # 48 kHz, roughly
    return RECIPES[name](stereo, 48_000)


def cut(file: bytes, chance: Chance) -> bytes:
    """Its beginning, or its end."""
    place = chance.randrange(len(file))
    return file[:place] if chance.random() < 0.7 else file[place:]


def flip(file: bytes, chance: Chance) -> bytes:
    """A few wrong bits, anywhere or in the header."""
    broken = bytearray(file)
    for _ in range(chance.choice((1, 1, 4, 64))):
        broken[chance.randrange(chance.choice((len(file), min(len(file), 256))))] ^= 1 << chance.randrange(8)
    return bytes(broken)


def exaggerate(file: bytes, chance: Chance) -> bytes:
    """Sizes, rates, counts in the header that nothing can have."""
    broken = bytearray(file)
    for _ in range(chance.choice((1, 2, 8))):
        order = chance.choice("<>")
        struct.pack_into(f"{order}I", broken, chance.randrange(min(len(file), 512) - 4), chance.choice(HUGE))
    return bytes(broken)


def shuffle(file: bytes, chance: Chance) -> bytes:
    """A stretch of it twice, missing, of zeros or of noise."""
    start = chance.randrange(len(file))
    stretch = file[start : start + chance.randrange(1, 4096)]
    replaced = chance.choice((b"", stretch * 2, bytes(len(stretch)), chance.randbytes(len(stretch))))
    return file[:start] + replaced + file[start + len(stretch) :]


def wrap(file: bytes, chance: Chance) -> bytes:
    """A file within another, before another, or packed."""
    other = recording(chance.choice(list(RECIPES)))
    place = chance.randrange(len(other))
    wrapped = io.BytesIO()
    with zipfile.ZipFile(wrapped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", file)
    return chance.choice(
        (
            file + other,
            other[:place] + file + other[place:],
            file + wrapped.getvalue(),
            wrapped.getvalue() + file,
            gzip.compress(file, 1),
            struct.pack(">I4s", len(file) + 8, b"mdat") + file,
            struct.pack("<4sI4s4sI", b"RIFF", len(file) + 12, b"WAVE", b"data", len(file)) + file,
            b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" + file,
            b"<html><script>alert(1)</script>" + file,
            b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + file,
        )
    )


def lie(_: bytes, chance: Chance) -> bytes:
    """A wav header made up from nothing, with hardly any sound behind it."""
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        chance.choice(HUGE),
        b"WAVE",
        b"fmt ",
        chance.choice((16, 16, 16, 40, 0xFFFFFFFF)),
        chance.choice((1, 1, 3, 2, 6, 7, 17, 49, 85, 0xFFFE, 0)),
        chance.choice((0, 1, 2, 9, 255, 65535)),
        chance.choice((0, 1, 16_000, 48_000, 2**31 - 1, 2**32 - 1)),
        chance.choice(HUGE),
        chance.choice((0, 1, 2, 4, 65535)),
        chance.choice((0, 1, 8, 16, 24, 32, 64, 65535)),
        b"data",
        chance.choice(HUGE),
    )
    return header + chance.randbytes(chance.choice((0, 1, 1000, 40_000)))


def pretend(_: bytes, chance: Chance) -> bytes:
    """No audio at all."""
    return chance.choice(
        (
            b"",
            b"\0",
            bytes(100_000),
            chance.randbytes(chance.randrange(1, 50_000)),
            "语音识别\n".encode() * 1000,
            "UTF-16".encode("utf-16") * 500,
            b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" * 50,
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x06" + bytes(500),
            b"\x7fELF\x02\x01\x01" + bytes(5000),
            b'{"file": "/etc/passwd"}',
            b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>",
            b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
            b"ffconcat version 1.0\nfile /etc/hostname\n",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
            b"<smil><audio src='file:///etc/hostname'/></smil>",
            b"RIFF" * 5000,
            b"OggS" * 5000,
            b"\xff\xfb\x90\x00" * 5000,
            b"\xff\xf1\x50\x80\x00\x1f\xfc" * 5000,
            b"\x1a\x45\xdf\xa3" * 5000,
            struct.pack(">I4s", 8, b"free") * 5000,
            struct.pack(">I4s", 8, b"moov") * 5000,
        )
    )


BREAKS: dict[str, Break] = {
    function.__name__: function for function in (cut, flip, exaggerate, shuffle, wrap, lie, pretend)
}


def broken(count: int, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many files with what was done to them; the same ones for the same seed."""
    chance = Chance(seed)
    for _, (kind, name) in zip(range(count), cycle((kind, name) for name in RECIPES for kind in BREAKS), strict=False):
        yield f"{kind} {name}", BREAKS[kind](recording(name), chance)


@cache
def bombs() -> dict[str, bytes]:
    """A quarter of an hour of silence, or many megabytes of zeros, in a few thousand bytes."""
    silence = np.zeros((QUARTER * 8000, 1), dtype=np.float32)
    zeros = gzip.compress(bytes(32 << 20), 9)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("silence.wav", zeros)
    flac = ffmpeg(silence, 8000, container="flac", codec="flac")
    return {
        "flac": flac,
        "flac that keeps its length to itself": flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:],
        "opus": ffmpeg(silence, 8000, container="ogg", codec="libopus"),
        "webm": ffmpeg(silence, 8000, container="webm", codec="libopus", piped=True),
        "gzip": zeros,
        "gzip in zip": packed.getvalue(),
        "channels": ffmpeg(np.zeros((48_000, 8), np.float32), 48_000, container="flac", codec="flac"),
    }

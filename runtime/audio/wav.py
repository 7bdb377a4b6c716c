"""WAV and its relatives: RIFX (big-endian), RF64 and BW64 (over 4 GB) and Sony's Wave64.

Recorders write sizes that count the header, that a crash or a pipe left behind, or none. What counts is the sound that
is there. Where FFmpeg would take a header at its word and leave sound out, it is given another header.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from runtime.audio import SAMPLE_RATE
from runtime.audio.frames import is_frame_row
from runtime.audio.spans import DamagedError, cut, is_foreign, is_zero, joined_stretches, read_at

MAGIC = re.compile(rb"(RIFF|RIFX|RF64|BW64)....WAVE|riff\x2e\x91\xcf\x11", re.DOTALL)
WAVE64 = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # how the GUID of every chunk but the first ends
MOST_CHUNKS = 10_000
# Recorders that count the header as sound declare as many bytes too many as stand before it, but not more than these.
HEADER = 1024
KIND = re.compile(rb"[ -~]{4}")
# Chunks that may stand behind the sound even if they are cut short themselves; a few of many.
KNOWN = {b"data", b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"fact", b"cue ", b"smpl", b"JUNK", b"junk", b"_PMX"}

EXTENSIBLE, PCM, FLOAT = 0xFFFE, 1, 3
# What is behind the declared sound is looked at, in codings of which samples can be told from other bytes.
COMPARED = {(PCM, 1), (PCM, 2), (PCM, 3), (PCM, 4), (FLOAT, 4), (FLOAT, 8)}
COMPARED_BLOCKS = 1000
MOST_COMPARED = 64  # bytes in a block: 8 channels of 8 bytes
PLACES = 8  # behind the declared sound that are looked at
FEWEST_COMPARED = 256  # samples; fewer are heard as a click at most
UNEVEN = 70  # chi-squared of 16 equally frequent levels, 15 degrees of freedom: random bytes are beyond once in 2e8
ROUGH = 55  # mean step of the upper byte of samples: 85 where bytes are random, below 40 in noise that is not clipped
LOUDEST = 2.0**16  # floats beyond are none
BLOCKS = {1, 2, 3, 6, 7, 17, EXTENSIBLE}  # codes of PCM and ADPCM, whose blocks are all of one size
# Codes of AU (Sun's audio file format) by WAV's format code and bytes a sample: what is big-endian in RIFX.
AU = {(1, 2): 3, (1, 3): 4, (1, 4): 5, (3, 4): 6, (3, 8): 7}
UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class Chunk:
    """`length` bytes from `start` on. Of sound, the length that is there, or `declared` where some of it is missing."""

    kind: bytes
    start: int
    length: int
    declared: int


@dataclass(frozen=True)
class SampleLayout:
    """Where the sound lies: stretches of start and length in bytes, of the coding in the fmt chunk.

    `straight`: FFmpeg finds just this sound by itself.
    """

    coding: bytes
    stretches: tuple[tuple[int, int], ...]
    big_endian: bool
    straight: bool


def sound(file: IO[bytes], size: int) -> IO[bytes]:
    """What FFmpeg shall read: the file itself, or its sound behind another header. Raises DamagedError."""
    layout = _layout(file, size)
    if layout.straight or len(layout.coding) < 16:
        return file
    return joined_stretches(file, layout.stretches, header=_header(layout))


def wav_bytes(samples: npt.NDArray[np.float32], *, rate: int = SAMPLE_RATE, floats: bool = False) -> bytes:
    """Mono samples of shape (n,) within ±1, at `rate` Hz, as a WAV file of 16-bit integers; with `floats` of 32-bit
    floats, which loses nothing."""
    if floats:
        content, code, width = samples.astype("<f4").tobytes(), FLOAT, 4
    else:
        content, code, width = np.rint(samples.clip(-1, 1) * 32767).astype("<i2").tobytes(), PCM, 2
    coding = struct.pack("<HHIIHH", code, 1, rate, rate * width, width, 8 * width)
    return _riff(coding, len(content)) + content


def _header(layout: SampleLayout) -> bytes:
    """A header for sound of unknown size: AU where samples are big-endian, else WAV."""
    order = ">" if layout.big_endian else "<"
    code, channels, rate, second, block, bits = struct.unpack(f"{order}HHIIHH", layout.coding[:16])
    rest = layout.coding[16:]
    if layout.big_endian:
        if code == EXTENSIBLE and len(rest) >= 10:
            (code,) = struct.unpack(">8xH", rest[:10])
        width = block // max(1, channels)
        if (code, width) in AU:
            return struct.pack(">4sIIIII", b".snd", 24, UNKNOWN, AU[code, width], rate, channels)
        rest = b""
    coding = struct.pack("<HHIIHH", code, channels, rate, second, block, bits) + rest
    return _riff(coding)


def _riff(coding: bytes, length: int | None = None) -> bytes:
    """What stands before `length` bytes of sound, of the coding in the fmt chunk; None: nobody knows how many."""
    fmt = struct.pack("<4sI", b"fmt ", len(coding)) + coding + bytes(len(coding) % 2)
    whole = UNKNOWN if length is None else 4 + len(fmt) + 8 + length
    data = struct.pack("<4sI", b"data", UNKNOWN if length is None else length)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + fmt + data


def _layout(file: IO[bytes], size: int) -> SampleLayout:
    magic = read_at(file, 0, 4)
    order = ">" if magic == b"RIFX" else "<"
    coding, block = b"", 1
    stretches: list[tuple[int, int]] = []
    after = 0  # where the sound so far ends
    straight = order == "<"
    for number, chunk in enumerate(_chunks(file, size, order, wide=magic == b"riff")):
        if number == MOST_CHUNKS:
            raise DamagedError(f"is damaged: it has more than {MOST_CHUNKS} chunks")
        if chunk.kind == b"fmt ":
            content = read_at(file, chunk.start, min(chunk.length, 4096))
            if coding and content != coding:  # another recording, of another kind
                break
            straight = straight and not stretches
            coding = content
            code, _, block = struct.unpack(f"{order}H10sH", coding[:14].ljust(14, b"\0"))
            block = max(1, block) if code in BLOCKS else 1
        elif chunk.kind == b"data":
            there = size - chunk.start
            if chunk.length > there + min(chunk.start - after, HEADER):
                raise cut("its data chunk", chunk.start, chunk.length, size)
            straight = straight and not stretches and chunk.length == chunk.declared
            length = min(chunk.length, there)
            after = chunk.start + length
            stretches.append((chunk.start, length - length % block))
        straight = straight and chunk.start % 2 == 0  # FFmpeg wants chunks filled up to an even place
    if not stretches:
        raise DamagedError("is cut short: it ends before its data chunk")
    return SampleLayout(coding, tuple(stretches), order == ">", straight)


def _chunks(file: IO[bytes], size: int, order: str, *, wide: bool) -> Iterator[Chunk]:
    """The chunks, and those of wav files behind the first one. `wide`: Wave64, with GUIDs and sizes of 64 bits."""
    start = 40 if wide else 12
    coding, real_size = b"", None
    while kind := _kind(file, start, wide=wide):
        header = read_at(file, start, 24 if wide else 16)
        start += 24 if wide else 8
        if kind in (b"RIFF", b"RIFX") and header[8:12] == b"WAVE":
            yield Chunk(kind, start, 4, 4)
            start += 4
            continue
        (length,) = struct.unpack("<16xQ", header) if wide else struct.unpack(f"{order}4xI", header[:8])
        length = max(0, length - 24) if wide else length
        if kind == b"ds64":
            (real_size,) = struct.unpack("<8xQ", read_at(file, start, 16).ljust(16, b"\0"))
        if kind == b"data" and length == UNKNOWN and real_size is not None:
            length = real_size  # RF64: the data chunk's own field is too narrow
        declared = length
        if kind == b"fmt ":
            coding = read_at(file, start, min(length, 64))
        if kind == b"data":
            length = _sound(file, size, start, declared, coding, order, wide=wide)
        yield Chunk(kind, start, length, declared)
        start = _following(file, start, length, wide=wide)


def _kind(file: IO[bytes], start: int, *, wide: bool) -> bytes:
    """Of the chunk that begins at `start`; empty if none does."""
    header = read_at(file, start, 24 if wide else 8)
    begins = header[4:16] == WAVE64 and len(header) == 24 if wide else KIND.match(header) and len(header) == 8
    return header[:4] if begins else b""


def _following(file: IO[bytes], start: int, length: int, *, wide: bool) -> int:
    """Where a chunk that follows one would begin. Not all writers fill up to an even place."""
    end = start + length
    if wide:
        return end + -length % 8
    if length % 2 and (_kind(file, end + 1, wide=False) or not _kind(file, end, wide=False)):
        return end + 1
    return end


def _sound(file: IO[bytes], size: int, start: int, declared: int, coding: bytes, order: str, *, wide: bool) -> int:
    """How many bytes of sound stand at `start`, where so many are declared; `declared` itself if the file is cut short.

    Who writes to a pipe cannot know the size: 0, 0x7FFFF000 (sox, espeak-ng) or 0xFFFFFFFF (ffmpeg) stand there, less a
    header or a fraction of a block. A recorder that crashed leaves the size of its latest update.
    """
    there = size - start
    if declared > there:
        return there if declared >> 16 in (0x7FFF, 0xFFFF) or declared >> 62 else declared
    end = start + declared
    following = _following(file, start, declared, wide=wide)
    if following >= size or _is_chunk_chain(file, size, following, order, wide=wide) or is_foreign(file, end, size):
        return declared
    if declared == 0:
        return there
    return declared if is_zero(file, end, size) or _is_noise(file, start, end, size, coding, order) else there


def _is_noise(file: IO[bytes], start: int, end: int, size: int, coding: bytes, order: str) -> bool:
    """Whether the bytes from `end` on are no samples by their look, wherever one looks, while those before are.

    Frames of mp3, and random bytes as floats, can be told for certain. Integers that look like random bytes may also be
    white noise, which is a sound: raises DamagedError.
    """
    if len(coding) < 16:
        return False
    code, channels, block = struct.unpack(f"{order}HH8xH", coding[:14])
    code = struct.unpack(f"{order}H", coding[24:26])[0] if code == EXTENSIBLE and len(coding) >= 26 else code
    width = block // max(1, channels)
    if (code, width) not in COMPARED or width * channels != block or block > MOST_COMPARED:
        return False
    if is_frame_row(file, end):
        return True
    end -= (end - start) % block
    stretch = COMPARED_BLOCKS * block
    last = max(0, (size - end) // block - COMPARED_BLOCKS)  # in blocks, as the places
    places = sorted({end + last * number // (PLACES - 1) * block for number in range(PLACES)})
    looks_random = _is_random_floats if code == FLOAT else _is_random_integers

    def is_random(place: int) -> bool:
        data = read_at(file, place, stretch)
        return looks_random(data[: len(data) // block * block], width, order)

    if not all(map(is_random, places)) or is_random(max(start, end - stretch)):
        return False
    if code != FLOAT:
        raise DamagedError(
            f"is damaged: behind its data chunk stand {size - end} bytes, from byte {end} on, which may be white noise "
            "or no sound"
        )
    return True


def _is_random_floats(data: bytes, width: int, order: str) -> bool:
    """Random bytes are infinite, no number or beyond LOUDEST in more than a third; damage hits few samples."""
    with np.errstate(invalid="ignore"):
        levels = np.abs(np.frombuffer(data, f"{order}f{width}").astype(np.float64))
    return bool(len(levels) and np.mean(~(levels <= LOUDEST)) > 0.1)


def _is_random_integers(data: bytes, width: int, order: str) -> bool:
    """Each sample is far from the last, and all levels are equally frequent, which they are in hardly any sound."""
    levels = np.frombuffer(data, np.uint8)[(width - 1 if order == "<" else 0) :: width]
    if len(levels) < FEWEST_COMPARED:
        return False
    steps = np.abs(np.diff((levels if width == 1 else levels ^ 0x80).astype(np.float64)))
    expected = len(levels) / 16
    uneven = float(((np.bincount(levels >> 4, minlength=16) - expected) ** 2 / expected).sum())
    return bool(steps.mean() > ROUGH and uneven < UNEVEN)


def _is_chunk_chain(file: IO[bytes], size: int, start: int, order: str, *, wide: bool) -> bool:
    """Whether at `start` a chunk begins and others follow, up to the end, a chunk that is known or foreign bytes."""
    for number in range(MOST_CHUNKS):
        if start >= size:
            return True
        kind = _kind(file, start, wide=wide)
        if not kind:
            return number > 0 and is_foreign(file, start, size)
        if kind in KNOWN or wide:
            return True
        (length,) = struct.unpack(f"{order}4xI", read_at(file, start, 8))
        if start + 8 + length > size:
            return False
        start = _following(file, start + 8, length, wide=False)
    return False

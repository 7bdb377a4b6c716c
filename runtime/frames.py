"""Files that are nothing but a row of frames, each of which tells its own length: mp3, ADTS, AC-3 and E-AC-3."""

import re
from typing import IO

from runtime.endings import WINDOW, Blocks, DamagedError, OverlongError, cut, packets_of, read_at

# Bit rates in kbit/s by index 1 to 14, ISO/IEC 11172-3 and 13818-3, layer III.
MPEG1_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2_BIT_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
AC3_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
FRAME_HEADER = 6  # bytes that tell a frame's length
FLAC = b"fLaC"
SYNC = re.compile(rb"\xff(?:[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]|[\xf0\xf1\xf8\xf9])|\x0b\x77")
# Seconds of the shortest frame, by what `_kind` returns: mp3 at 48 or 24 kHz, ADTS at 96 kHz, E-AC-3 of one block.
SHORTEST = {b"\xff\xe2": 1152 / 48_000, b"\xff\xf0": 1024 / 96_000, b"\x0b\x77": 256 / 48_000}
MOST_SYNCS = 100_000  # that are tried; in half a gigabyte of noise there are about as many


def frame_length(header: bytes) -> int:
    """Bytes in the mp3, ADTS or (E-)AC-3 frame that begins with these bytes, 6 or more; 0 if they begin none."""
    if len(header) >= FRAME_HEADER and header[:2] == b"\x0b\x77":
        return _ac3_length(header)
    if len(header) < FRAME_HEADER or header[0] != 0xFF:
        return 0
    if header[1] & 0xF6 == 0xF0 and header[2] >> 2 & 15 < 13:  # ADTS with a sample rate from the table
        length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        return length if length > FRAME_HEADER else 0
    version, bit_rate, sample_rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if header[1] & 0xE6 != 0xE2 or version == 1 or bit_rate in (0, 15) or sample_rate == 3:
        return 0
    hertz = (44_100, 48_000, 32_000)[sample_rate] >> {3: 0, 2: 1, 0: 2}[version]
    kilobits = (MPEG1_BIT_RATES if version == 3 else MPEG2_BIT_RATES)[bit_rate - 1]
    return (144 if version == 3 else 72) * kilobits * 1000 // hertz + (header[2] >> 1 & 1)


def _ac3_length(header: bytes) -> int:
    """ETSI TS 102 366, sections 4.4.1 and E.1.3.1."""
    version, sample_rate, code = header[5] >> 3, header[4] >> 6, header[4] & 63
    if 10 < version <= 16:
        return 2 * (((header[2] & 7) << 8 | header[3]) + 1)
    if version > 16 or sample_rate == 3 or code >> 1 >= len(AC3_BIT_RATES):
        return 0
    kilobits = AC3_BIT_RATES[code >> 1]
    return 2 * (kilobits * 2, kilobits * 320 // 147 + (code & 1), kilobits * 3)[sample_rate]


def last_frame(data: bytes) -> int:
    """Where in `data` a frame begins that ends with it; the length of `data` if there is none."""
    for match in SYNC.finditer(data):
        start = match.start()
        if frame_length(data[start : start + FRAME_HEADER]) == len(data) - start:
            return start
    return len(data)


def end(file: IO[bytes], size: int, longest_seconds: float) -> int:
    """Where the last frame ends; the size of a file of anything else.

    Frame must follow frame, and the last be complete; tags may stand before and between them. Raises DamagedError, and
    OverlongError where there are more frames than so many seconds can hold.
    """
    start = _after_tag(file, 0)
    if read_at(file, start, len(FLAC)) == FLAC:  # the frames of which look like those of ADTS where it is silent
        return size
    if not frame_length(read_at(file, start, FRAME_HEADER)):
        first = _next_frame(file, start, b"", most=1 << 16)
        if first is None:
            return size
        start = first
    kind = _kind(read_at(file, start, FRAME_HEADER))
    declared = _declared_frames(read_at(file, start, 200))
    frames, last = 0, start
    most = longest_seconds / SHORTEST[kind]
    blocks, tags = Blocks(file), packets_of("tags", size)
    while start < size:
        header = blocks.at(start, FRAME_HEADER)
        length = frame_length(header) if _kind(header) == kind else 0
        if length:
            frames += 1
            last = start + length
            if frames > most:
                raise OverlongError(frames * SHORTEST[kind])
        else:
            next(tags)
            length = _after_tag(file, start) - start
        if not length and len(header) < FRAME_HEADER and header[0] == kind[0]:
            length = FRAME_HEADER
        if start + length > size:
            raise cut("its last frame", start, length, size)
        if not length:
            resumes = _next_frame(file, start, kind, most=size)
            if resumes is None:  # a tag or padding ends the file
                break
            raise DamagedError(f"is damaged: no frame begins at byte {start}, the next one only at byte {resumes}")
        start += length
    if frames < declared:
        raise DamagedError(f"is cut short: it declares {declared} frames, {frames} are there")
    return last


def _kind(header: bytes) -> bytes:
    """What is the same in the frames of all files of a format, but not in those of another."""
    if header[:1] != b"\xff" or len(header) < 2:
        return header[:2]
    return b"\xff\xf0" if header[1] & 0xF6 == 0xF0 else b"\xff\xe2"


def _after_tag(file: IO[bytes], start: int) -> int:
    """Where the ID3 tag at `start` ends: `start` itself if there is none. ID3 counts in 7 bits a byte."""
    header = read_at(file, start, 10)
    if header[:3] != b"ID3" or len(header) < 10:
        return start
    return start + 10 + sum((byte & 0x7F) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))


def _next_frame(file: IO[bytes], start: int, kind: bytes, *, most: int) -> int | None:
    """Where, from `start` on and at most `most` bytes later, three frames of one kind, or of this one, follow each
    other."""
    stop = start + most
    tried = 0
    while start < stop:
        window = read_at(file, start, WINDOW)
        for match in SYNC.finditer(window):
            if kind in (b"", _kind(match[0])) and is_frame_row(file, start + match.start()):
                return start + match.start()
            tried += 1
            if tried == MOST_SYNCS:
                raise DamagedError(f"is damaged: after byte {start} no frame follows another")
        if len(window) < 3:
            return None
        start += len(window) - 2  # a sync may lie across two windows
    return None


def is_frame_row(file: IO[bytes], start: int) -> bool:
    """Whether three frames of one kind follow each other from `start` on."""
    kinds = set()
    for _ in range(3):
        header = read_at(file, start, FRAME_HEADER)
        length = frame_length(header)
        if not length:
            return False
        ac3 = header[1] == 0x77
        kinds.add((header[1], header[5] >> 3 if ac3 else header[2] >> 2 & 3))
        start += length
    return len(kinds) == 1


def _declared_frames(first: bytes) -> int:
    """How many frames the encoder says in the first one (Xing or LAME tag) that the file has; 0 if it does not say."""
    tag = re.search(rb"(?:Xing|Info)\0\0\0[\x00-\x0f](....)", first, re.DOTALL)
    return int.from_bytes(tag[1], "big") if tag and tag[0][7] & 1 else 0

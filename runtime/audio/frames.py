"""Files that are nothing but a row of frames, each of which tells its own length: mp3, ADTS, AC-3 and E-AC-3."""

import re
from typing import IO

from runtime.audio.spans import (
    WINDOW,
    Blocks,
    DamagedError,
    OverlongError,
    cut,
    find,
    is_foreign,
    packets_of,
    read_at,
    zeros_end,
)

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

FLV_TAGS = {8, 9, 18}  # sound, picture, script data
FLV_HEADER = 11  # bytes of a tag before its data; behind it stand 4 with its size


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


def flv_end(file: IO[bytes], size: int) -> int:
    """Flash Video: tag must follow tag, and the last be whole."""
    start = int.from_bytes(read_at(file, 5, 4), "big") + 4
    tags = packets_of("tags", size)
    while start < size:
        next(tags)
        header = read_at(file, start, FLV_HEADER)
        kind, length = header[0] & 0x1F, int.from_bytes(header[1:4], "big")
        if kind not in FLV_TAGS or header[8:11].strip(b"\0"):
            if is_foreign(file, start, size):
                break
            raise DamagedError(f"is damaged: no tag begins at byte {start}")
        end = start + FLV_HEADER + length
        if len(header) < FLV_HEADER or end > size or 0 < size - end < 4:
            raise cut("its last tag", start, FLV_HEADER + length + 4, size)
        start = end + 4
    return min(start, size)


# Packets have 188 bytes, 192 with a time before each (Blu-ray, camcorders), 204 with checksums behind. Recorders may
# join within one.
TS = re.compile(rb".{0,203}?(?=G(?:(?:.{187}G){4}|(?:.{191}G){4}|(?:.{203}G){4}))", re.DOTALL)
TS_SIZES = (188, 192, 204)


def ts_end(file: IO[bytes], size: int) -> int:
    """MPEG transport stream: each packet begins with the letter G, and the last is whole.

    Whether packets are missing at the end it does not tell.
    """
    head = read_at(file, 0, 2048)
    match = TS.match(head)
    first = match.end() if match else 0
    packet = next(length for length in TS_SIZES if head[first : first + 5 * length : length] == b"GGGGG")
    start = first
    while start < size:
        window = read_at(file, start, packet * 1000)
        marks = window[::packet]
        lost = len(marks) - len(marks.lstrip(b"G"))
        if marks.strip(b"G"):
            at = start + packet * lost
            if is_foreign(file, at, size):
                return at
            raise DamagedError(f"is damaged: no packet begins at byte {at}")
        # Of 192 bytes the first 4 stand before the mark.
        missing = -(len(window) + (4 if packet == 192 else 0)) % packet
        if missing:
            raise cut("its last packet", start + len(window) - len(window) % packet, packet, size)
        start += len(window)
    return size


PS_END, PS_PACK = 0xB9, 0xBA  # the last byte of start codes; packets have higher ones


def ps_end(file: IO[bytes], size: int) -> int:
    """MPEG program stream: pack headers and packets must follow each other; zeros may stand between them.

    Whether packets are missing at the end it does not tell.
    """
    start = 0
    blocks, packets = Blocks(file), packets_of("packets", size)
    while start < size:
        next(packets)
        header = blocks.at(start, 14)
        if header[:3] == b"\0\0\1" and len(header) > 3 and header[3] >= PS_END:
            length = 6 + int.from_bytes(header[4:6], "big")
            if header[3] == PS_END:
                length = 4
            elif header[3] == PS_PACK:  # of MPEG-2, or of MPEG-1
                length = 14 + (header[-1] & 7) if header[4:5] >= b"\x40" else 12
            if start + length > size:
                raise cut("its last packet", start, length, size)
            start += length
            continue
        following = zeros_end(file, start, size)  # two of the zeros belong to the next start code
        if following < size and (following < start + 3 or read_at(file, following, 1) != b"\1"):
            if is_foreign(file, start, size) and find(file, b"\0\0\1\xba", start, size) is None:
                return start
            raise DamagedError(f"is damaged: no packet begins at byte {start}")
        start = following if following == size else following - 2
    return size


# Bytes of a frame by its type (bits 3 to 6 of the first byte), 0 for none: 3GPP TS 26.101 and 26.201, as stored by
# RFC 4867, section 5.3.
AMR = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}
AMR_FRAME = 0.02  # seconds


def amr_end(file: IO[bytes], size: int, longest_seconds: float) -> int:
    """AMR, narrow-band and wide-band, as phones record it. Raises OverlongError beyond so many seconds."""
    magic = next((magic for magic in AMR if read_at(file, 0, len(magic)) == magic), None)
    if magic is None:
        return size
    lengths = bytes(0 if first & 0x83 else AMR[magic][first >> 3 & 15] for first in range(256))  # those bits are 0
    plain = b"\0" + lengths[1:]  # what begins with a zero may as well be padding
    start = len(magic)
    frames = 0
    doubtful = size  # where the latest frame begins that may as well be an atom or padding
    while start < size:
        window = read_at(file, start, WINDOW)
        at = length = 0
        while at < len(window):
            while at < len(window) and (length := plain[window[at]]):
                at += length
                frames += 1
            if length and start + at <= size:
                break
            if length:  # the frame that ends behind the file
                at -= length
            here = start + at
            length = lengths[window[at]]
            if not window[at]:
                doubtful = here
            padding = not window[at : at + 16].strip(b"\0")
            if padding or not length or here + length > size:
                foreign = next((place for place in (here, doubtful) if is_foreign(file, place, size)), None)
                if foreign is not None:
                    return foreign
            if not length:
                raise DamagedError(f"is damaged: no frame begins at byte {here}")
            if here + length > size:
                raise cut("its last frame", here, length, size)
            at += length
            frames += 1
        if frames * AMR_FRAME > longest_seconds:
            raise OverlongError(frames * AMR_FRAME)
        start += at
    return size

"""Files that are a row of packets without a table: FLV, MPEG transport and program streams, AMR.

Each function returns where the last packet ends. Raises DamagedError where one is missing or cut.
"""

import re
from typing import IO

from runtime.endings import (
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

FLV_TAGS = {8, 9, 18}  # sound, picture, script data
FLV_HEADER = 11  # bytes of a tag before its data; behind it stand 4 with its size


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

"""Files that are a row of packets without a table: FLV, MPEG transport and program streams, AMR."""

import re
from typing import IO

from runtime.endings import WINDOW, cut, find, is_foreign, read

FLV_TAGS = {8, 9, 18}  # sound, picture, script data
FLV_HEADER = 11  # bytes of a tag before its data; behind it stand 4 with its size


def flv_fault(file: IO[bytes], size: int) -> str:
    """Flash Video: tag must follow tag, and the last be whole."""
    start = int.from_bytes(read(file, 5, 4), "big") + 4
    while start < size:
        header = read(file, start, FLV_HEADER)
        kind, length = header[0] & 0x1F, int.from_bytes(header[1:4], "big")
        if kind not in FLV_TAGS or header[8:11].strip(b"\0"):
            if is_foreign(file, start, size):
                break
            return f"is damaged: no tag begins at byte {start}"
        end = start + FLV_HEADER + length
        if len(header) < FLV_HEADER or end > size or 0 < size - end < 4:
            return cut("its last tag", start, FLV_HEADER + length + 4, size)
        start = end + 4
    return ""


# Packets have 188 bytes, 192 with a time before each (Blu-ray, camcorders), 204 with checksums behind. Recorders may
# join within one.
TS = re.compile(rb".{0,203}?(?=G(?:(?:.{187}G){4}|(?:.{191}G){4}|(?:.{203}G){4}))", re.DOTALL)
TS_SIZES = (188, 192, 204)


def ts_fault(file: IO[bytes], size: int) -> str:
    """MPEG transport stream: each packet begins with the letter G, and the last is whole.

    Whether packets are missing at the end it does not tell.
    """
    head = read(file, 0, 2048)
    match = TS.match(head)
    first = match.end() if match else 0
    packet = next(length for length in TS_SIZES if head[first : first + 5 * length : length] == b"GGGGG")
    start = first
    while start < size:
        window = read(file, start, packet * 1000)
        marks = window[::packet]
        lost = len(marks) - len(marks.lstrip(b"G"))
        if marks.strip(b"G"):
            at = start + packet * lost
            return "" if is_foreign(file, at, size) else f"is damaged: no packet begins at byte {at}"
        # Of 192 bytes the first 4 stand before the mark.
        missing = -(len(window) + (4 if packet == 192 else 0)) % packet
        if missing:
            return cut("its last packet", start + len(window) - len(window) % packet, packet, size)
        start += len(window)
    return ""


def ps_fault(file: IO[bytes], size: int) -> str:
    """MPEG program stream: pack headers and packets must follow each other; zeros may stand between them.

    Whether packets are missing at the end it does not tell.
    """
    start = 0
    while start < size:
        header = read(file, start, 14)
        if header[:3] != b"\0\0\1" or len(header) < 4 or header[3] < 0xB9:
            following = find(file, b"\0\0\1", start, size)
            if following is None:
                following = size
            between = min(following - start, WINDOW)
            if read(file, start, between).strip(b"\0") and not is_foreign(file, start, size):
                return f"is damaged: no packet begins at byte {start}"
            start = max(following, start + 1)
            continue
        if header[3] == 0xB9:
            length = 4
        elif header[3] == 0xBA:
            length = 14 + (header[13] & 7) if header[4] >> 6 == 1 and len(header) == 14 else 12
        else:
            length = 6 + int.from_bytes(header[4:6], "big")
        if start + length > size:
            return cut("its last packet", start, length, size)
        start += length
    return ""


# Bytes of a frame by its type (bits 3 to 6 of the first byte): 3GPP TS 26.101 and 26.201, as stored by RFC 4867.
AMR = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1),
}


def amr_end(file: IO[bytes], size: int) -> int:
    """Where the last frame of an AMR file ends or should end."""
    magic = next((magic for magic in AMR if read(file, 0, len(magic)) == magic), b"")
    if not magic:
        return size
    lengths = AMR[magic]
    start = len(magic)
    while start < size:
        window = read(file, start, WINDOW)
        at = 0
        while at < len(window):
            first = window[at]
            if first & 0x83 or (first == 0 and is_foreign(file, start + at, size)):  # these bits are always 0
                return start + at
            at += lengths[first >> 3 & 15]
        start += at
    return start


def amr_fault(file: IO[bytes], size: int) -> str:
    """AMR as phones record it: frame must follow frame, and the last be whole."""
    end = amr_end(file, size)
    if end > size:
        return f"is cut short: its last frame should end at byte {end}, {size} bytes are there"
    return "" if end == size or is_foreign(file, end, size) else f"is damaged: no frame begins at byte {end}"

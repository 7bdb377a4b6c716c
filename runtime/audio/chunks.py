"""Files made of chunks that tell their sizes: AIFF, CAF, AU, AVI and ASF (wma, wmv).

Each function returns where the file ends as far as its sound goes. Raises DamagedError where some of it is missing.
"""

import re
import struct
from typing import IO

from runtime.audio.spans import DamagedError, cut, packets_of, read_at

# Stand where a writer to a pipe did not know the size, less a header: 0x7F000000 (sox), 0x7FFFFFFF, 0xFFFFFFFF.
STREAMED = {0x7F, 0xFF}
MOST_CHUNKS = 10_000


def aiff_end(file: IO[bytes], size: int) -> int:
    """AIFF and AIFF-C: FORM, then chunks, of which SSND holds the sound."""
    start = 12
    for _ in range(MOST_CHUNKS):
        header = read_at(file, start, 8)
        if len(header) < 8:
            break
        kind, length = struct.unpack(">4sI", header)
        start += 8
        if kind == b"SSND" and start + length > size and length >> 24 not in STREAMED:
            raise cut("its SSND chunk", start, length, size)
        if kind == b"SSND":
            return size
        start += length + length % 2
    raise DamagedError("is cut short: it ends before its SSND chunk")


def caf_end(file: IO[bytes], size: int) -> int:
    """Apple's Core Audio Format: a data chunk of unknown size is the last one."""
    start = 8
    for _ in range(MOST_CHUNKS):
        header = read_at(file, start, 12)
        if len(header) < 12:
            break
        kind, length = struct.unpack(">4sq", header)
        start += 12
        if kind == b"data" and start + length > size:
            raise cut("its data chunk", start, length, size)
        if kind == b"data":
            return size
        start += max(0, length)
    raise DamagedError("is cut short: it ends before its data chunk")


def au_end(file: IO[bytes], size: int) -> int:
    """Sun's AU: a header, then nothing but sound."""
    start, length = struct.unpack(">4xII", read_at(file, 0, 12).ljust(12, b"\0"))
    if length >> 24 in STREAMED:
        return size
    if start + length > size:
        raise cut("its sound", start, length, size)
    return int(start + length)


AVI_CHUNK = re.compile(rb"[ -~]{4}")


def avi_end(file: IO[bytes], size: int) -> int:
    """AVI: RIFF lists, the first of type AVI, those beyond 1 GB of type AVIX; in them, chunk must follow chunk."""
    start = end = 0
    parts = packets_of("chunks", size)
    while start < size:
        next(parts)
        header = read_at(file, start, 12)
        kind, length = struct.unpack("<4sI4x", header.ljust(12, b"\0"))
        if start >= end and not (kind == b"RIFF" and header[8:11] == b"AVI"):
            break  # anything may stand behind the lists
        if not AVI_CHUNK.fullmatch(kind):
            raise DamagedError(f"is damaged: no chunk begins at byte {start}")
        # 0 or nearly all bits: the recorder could not finish the list.
        unknown = kind in (b"RIFF", b"LIST") and (length == 0 or length >> 24 in STREAMED)
        if not unknown and start + 8 + length > size:
            raise cut(f"its {kind.decode()} chunk", start, 8 + length, size)
        if kind == b"RIFF":
            end = size if unknown else start + 8 + length
        inside = kind == b"RIFF" or (kind == b"LIST" and header[8:12] in (b"movi", b"rec "))
        start += 12 if inside else 8 + length + length % 2
    return min(start, size)


ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_INDEX = bytes.fromhex("90080033b1e5cf1189f400a0c90349cb")
ASF_STREAM_END = b"$E"  # begins what stands behind the last packet of a live stream
ASF_DATA_HEADER = 50  # bytes before the first packet
ASF_BROADCAST = 1  # flag: sizes and times are not known


def asf_end(file: IO[bytes], size: int) -> int:
    """Advanced Systems Format: objects, of which one holds all packets, which are of one size."""
    start = 0
    properties, found = bytes(96), False
    for _ in range(MOST_CHUNKS):
        header = read_at(file, start, 24)
        (length,) = struct.unpack("<16xQ", header.ljust(24, b"\0"))
        if header.startswith(ASF_HEADER):
            top = file.read(min(length, 1 << 20))
            at = top.find(ASF_PROPERTIES)
            properties = top[at : at + 96].ljust(96, b"\0") if at >= 0 else properties
        elif header.startswith(ASF_DATA):
            found = True
            flags, packet = struct.unpack("<88xII", properties)
            if flags & ASF_BROADCAST:
                rest = (size - start - ASF_DATA_HEADER) % packet if packet else 0
                if rest and read_at(file, size - rest, 2) != ASF_STREAM_END:
                    raise cut("its last packet", size - rest, packet, size)
                break
            if start + length > size:
                raise cut("its data object", start, length, size)
        elif header[:16] == ASF_INDEX[: len(header)] and header and start + length > size:
            raise cut("its index", start, length, size)
        if len(header) < 24 or length < 24:
            break
        start += length
    if not found:
        raise DamagedError("is cut short: it ends before its data object")
    return size

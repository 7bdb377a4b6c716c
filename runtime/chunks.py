"""Files made of chunks that tell their sizes: AIFF, CAF, AU, AVI and ASF (wma, wmv). Their sound must fit into them."""

import struct
from typing import IO

from runtime.endings import cut, read

# Stand where a writer to a pipe did not know the size, less a header: 0x7F000000 (sox), 0x7FFFFFFF, 0xFFFFFFFF.
STREAMED = {0x7F, 0xFF}
MOST_CHUNKS = 10_000


def aiff_fault(file: IO[bytes], size: int) -> str:
    """AIFF and AIFF-C: FORM, then chunks, of which SSND holds the sound."""
    start = 12
    for _ in range(MOST_CHUNKS):
        header = read(file, start, 8)
        if len(header) < 8:
            break
        kind, length = struct.unpack(">4sI", header)
        start += 8
        if kind == b"SSND":
            whole = start + length <= size or length >> 24 in STREAMED
            return "" if whole else cut("its SSND chunk", start, length, size)
        start += length + length % 2
    return "is cut short: it ends before its SSND chunk"


def caf_fault(file: IO[bytes], size: int) -> str:
    """Apple's Core Audio Format: a data chunk of unknown size is the last one."""
    start = 8
    for _ in range(MOST_CHUNKS):
        header = read(file, start, 12)
        if len(header) < 12:
            break
        kind, length = struct.unpack(">4sq", header)
        start += 12
        if kind == b"data":
            return "" if length < 0 or start + length <= size else cut("its data chunk", start, length, size)
        start += max(0, length)
    return "is cut short: it ends before its data chunk"


def au_end(file: IO[bytes], size: int) -> int:
    """Where the sound of an AU file ends, as far as it tells."""
    start, length = struct.unpack(">4xII", read(file, 0, 12).ljust(12, b"\0"))
    return size if length == 0 or length >> 24 in STREAMED else start + length


def au_fault(file: IO[bytes], size: int) -> str:
    """Sun's AU: a header, then nothing but sound."""
    end = au_end(file, size)
    return "" if end <= size else f"is cut short: its sound should end at byte {end}, {size} bytes are there"


def avi_fault(file: IO[bytes], size: int) -> str:
    """AVI: RIFF lists follow each other, the first of type AVI, those beyond 1 GB of type AVIX."""
    start = 0
    for _ in range(MOST_CHUNKS):
        header = read(file, start, 12)
        if len(header) < 12 or header[:4] != b"RIFF" or header[8:11] != b"AVI":
            break
        (length,) = struct.unpack("<4xI4x", header)
        if length == 0 or length >> 24 in STREAMED:  # the recorder could not finish
            break
        if start + 8 + length > size:
            return cut("its RIFF list", start, 8 + length, size)
        start += 8 + length + length % 2
    return ""


ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_BROADCAST = 1  # flag: sizes and times are not known


def asf_fault(file: IO[bytes], size: int) -> str:
    """Advanced Systems Format: objects of which one holds all packets, which are of one size."""
    start = 0
    properties = b""
    for _ in range(MOST_CHUNKS):
        header = read(file, start, 24)
        if len(header) < 24:
            break
        (length,) = struct.unpack("<16xQ", header)
        if header.startswith(ASF_HEADER):
            top = file.read(min(length, 1 << 20))
            at = top.find(ASF_PROPERTIES)
            properties = top[at : at + 104] if at >= 0 else b""
        elif header.startswith(ASF_DATA):
            flags, packet = struct.unpack("<88xII", properties[:96]) if len(properties) >= 96 else (0, 0)
            if flags & ASF_BROADCAST:
                rest = (size - start - 50) % packet if packet else 0
                return "" if not rest else cut("its last packet", size - rest, packet, size)
            return "" if start + length <= size else cut("its data object", start, length, size)
        if length < 24:
            break
        start += length
    return "is cut short: it ends before its data object"

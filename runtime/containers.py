"""Whether a media file is whole. FFmpeg decodes what it finds and keeps quiet about what is missing.

Each check walks the bookkeeping of one container: sizes, sequence numbers and checksums, never the sound itself.
FLAC has none that could be walked; its frames carry their position, which shows at decoding.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import IO

Check = Callable[[IO[bytes], int], str]


def fault(file: IO[bytes]) -> str:
    """What is missing or damaged in a seekable wav, mp4, webm, ogg, mp3 or ADTS file, in words; empty if nothing is.

    Files of any other kind are not judged. The file is left at its start.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    check = next((check for pattern, check in CHECKS if re.match(pattern, head, re.DOTALL)), _check_frames)
    found = check(file, size)
    file.seek(0)
    return found


def _cut(what: str, start: int, length: int, size: int) -> str:
    return f"is cut short: {what} at byte {start} should hold {length} bytes, {max(size - start, 0)} are there"


def _check_wav(file: IO[bytes], size: int) -> str:
    """RIFF and RF64: the data chunk must fit into the file."""
    start, real_size = 12, None
    while start + 8 <= size:
        file.seek(start)
        kind, length = struct.unpack("<4sI", file.read(8))
        start += 8
        if kind == b"ds64" and start + 16 <= size:
            (real_size,) = struct.unpack("<8xQ", file.read(16))  # RF64: the data chunk's own field is too narrow
        if kind == b"data":
            if length == 0xFFFFFFFF and real_size is not None:
                length = real_size
            # Who writes to a pipe cannot know the size: 0, 0x7FFFF000 (sox, espeak-ng) or 0xFFFFFFFF (ffmpeg) stand
            # there, less a header or a fraction of a block.
            streamed = length == 0 or length >> 16 in (0x7FFF, 0xFFFF) or length == 2**64 - 1
            return "" if streamed or start + length <= size else _cut("its data chunk", start, length, size)
        start += length + length % 2
    return "is cut short: it ends before its data chunk"


def _check_mp4(file: IO[bytes], size: int) -> str:
    """The outermost boxes must fill the file."""
    start = 0
    while start < size:
        file.seek(start)
        header = file.read(16).ljust(16, b"\0")
        length, kind, long_length = struct.unpack(">I4sQ", header)
        if length == 1:
            length = long_length
        if length == 0:  # to the end of the file; padding with zeros looks the same
            return ""
        if length < 8 or not (kind.isascii() and kind.decode().isprintable()):
            return f"is damaged: there is no box at byte {start}"
        if start + length > size:
            return _cut(f"its {kind.decode()} box", start, length, size)
        start += length
    return ""


# Element IDs: RFC 9559, section 5. A recorder that streams cannot know the sizes of Segment and Cluster in advance, so
# their children are walked as one flat row.
EBML_PARENTS = {0x18538067: "Segment", 0x1F43B675: "Cluster"}
EBML_HEADERS = {0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
EBML_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
EBML_ANYWHERE = {0xEC, 0xBF}  # void and checksum


def _check_ebml(file: IO[bytes], size: int) -> str:
    """Matroska and WebM: every element must be known and fit into the file."""
    start = 0
    while start < size:
        file.seek(start)
        element, id_width = _number(file, keep_marker=True)
        length, length_width = _number(file, keep_marker=False)
        header = id_width + length_width
        if element in EBML_PARENTS:
            unknown = length == 2 ** (7 * length_width) - 1
            if not unknown and start + header + length > size:
                return _cut(f"its {EBML_PARENTS[element]}", start + header, length, size)
            start += header
        elif element in EBML_HEADERS | EBML_CLUSTER | EBML_ANYWHERE:
            start += header + length
            if start > size:
                return _cut("an element", start - length, length, size)
        elif start + header >= size:
            return f"is cut short: an element begins at byte {start}, {size - start} bytes before the end"
        else:
            return f"is damaged: there is no Matroska element at byte {start}"
    return ""


def _number(file: IO[bytes], *, keep_marker: bool) -> tuple[int, int]:
    """A number of EBML's variable width (RFC 8794, section 4) and how many bytes it takes."""
    first = (file.read(1) or b"\0")[0]
    width = 9 - first.bit_length()
    value = int.from_bytes(bytes([first]) + file.read(width - 1), "big")
    return (value if keep_marker else value & (1 << 7 * width) - 1), width


MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32 (RFC 3533, section 6): zlib's, but bit for bit mirrored and without inversion."""
    mirrored = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _check_ogg(file: IO[bytes], size: int) -> str:
    """Every page must be there, in order and intact, and the last packet complete.

    The end-of-stream flag is not asked for: Android's recorder, and with it many voice messages, never sets it.
    """
    start = 0
    following: dict[int, int] = {}  # stream → number of its next page
    unfinished: dict[int, bool] = {}  # stream → whether its last packet goes on in its next page
    while start < size:
        file.seek(start)
        header = file.read(27)
        if header[:4] != b"OggS"[: len(header)]:
            return f"is damaged: there is no Ogg page at byte {start}"
        lacing = file.read(header[26]) if len(header) == 27 else b""
        length = 27 + sum(lacing) + len(lacing)
        body = file.read(sum(lacing))
        page = header + lacing + body
        if len(page) < length or len(header) < 27 or len(lacing) < header[26]:
            return f"is cut short: its last Ogg page, at byte {start}, is incomplete"
        flags, stream, number, checksum = struct.unpack("<5xB8xIII", header[:26])
        if checksum != _ogg_checksum(header[:22] + bytes(4) + page[26:]):
            return f"is damaged: the Ogg page at byte {start} does not match its checksum"
        begins = flags & 2
        if not begins and number != following.get(stream, number):
            return f"is damaged: Ogg pages are missing before byte {start}"
        following[stream] = (number + 1) % 2**32
        unfinished[stream] = lacing[-1:] == b"\xff"
        start += length
    return "is cut short: its last packet is incomplete" if any(unfinished.values()) else ""


# Bit rates in kbit/s by index 1 to 14, ISO/IEC 11172-3 and 13818-3, layer III.
MPEG1_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2_BIT_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
FRAME_HEADER = 6  # bytes that tell a frame's length
FLAC = b"fLaC"
SYNC = re.compile(rb"\xff[\xe2-\xff]")


def frame_length(header: bytes) -> int:
    """Bytes in the mp3 or ADTS frame that begins with these bytes, 6 or more; 0 if they begin none."""
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


def last_frame(data: bytes) -> int:
    """Where in `data` a frame begins that ends with it; the length of `data` if there is none."""
    for match in SYNC.finditer(data):
        start = match.start()
        if frame_length(data[start : start + FRAME_HEADER]) == len(data) - start:
            return start
    return len(data)


def _check_frames(file: IO[bytes], size: int) -> str:
    """mp3 and ADTS: frame must follow frame, and the last be complete; tags may stand before, between and after."""
    start = _after_tag(file, 0)
    if _read(file, start, len(FLAC)) == FLAC:  # the frames of which look like those of ADTS where it is silent
        return ""
    if not frame_length(_read(file, start, FRAME_HEADER)):
        first = _next_frame(file, start, most=1 << 16)
        if first is None:
            return ""
        start = first
    declared = _declared_frames(_read(file, start, 200))
    frames = 0
    while start < size:
        header = _read(file, start, FRAME_HEADER)
        length = frame_length(header) or _after_tag(file, start) - start
        if not length and len(header) < FRAME_HEADER and header[0] == 0xFF:
            length = FRAME_HEADER
        if start + length > size:
            return _cut("its last frame", start, length, size)
        if not length:
            resumes = _next_frame(file, start, most=size)
            if resumes is None:  # a tag or padding ends the file
                break
            return f"is damaged: no frame begins at byte {start}, the next one only at byte {resumes}"
        frames += header[0] == 0xFF
        start += length
    return f"is cut short: it declares {declared} frames, {frames} are there" if frames < declared else ""


def _read(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _after_tag(file: IO[bytes], start: int) -> int:
    """Where the ID3 tag at `start` ends: `start` itself if there is none. ID3 counts in 7 bits a byte."""
    header = _read(file, start, 10)
    if header[:3] != b"ID3" or len(header) < 10:
        return start
    return start + 10 + sum((byte & 0x7F) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))


def _next_frame(file: IO[bytes], start: int, *, most: int) -> int | None:
    """Where, from `start` on and at most `most` bytes later, three frames of one kind follow each other."""
    stop = start + most
    while start < stop:
        window = _read(file, start, 1 << 16)
        for match in SYNC.finditer(window):
            if _chained(file, start + match.start()):
                return start + match.start()
        if len(window) < 2:
            return None
        start += len(window) - 1  # a sync may lie across two windows
    return None


def _chained(file: IO[bytes], start: int) -> bool:
    kinds = set()
    for _ in range(3):
        header = _read(file, start, FRAME_HEADER)
        length = frame_length(header)
        if not length:
            return False
        kinds.add((header[1], header[2] >> 2 & 3))
        start += length
    return len(kinds) == 1


def _declared_frames(first: bytes) -> int:
    """How many frames the encoder says in the first one (Xing or LAME tag) that the file has; 0 if it does not say."""
    tag = re.search(rb"(?:Xing|Info)\0\0\0[\x00-\x0f](....)", first, re.DOTALL)
    return int.from_bytes(tag[1], "big") if tag and tag[0][7] & 1 else 0


CHECKS: tuple[tuple[bytes, Check], ...] = (
    (rb"(RIFF|RF64)....WAVE", _check_wav),
    (rb"OggS", _check_ogg),
    (rb"\x1a\x45\xdf\xa3", _check_ebml),
    (rb"....(ftyp|moov|mdat|free|skip|wide)", _check_mp4),
)

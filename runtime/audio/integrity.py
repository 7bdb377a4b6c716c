"""Whether a media file is whole, and where its sound ends. FFmpeg decodes what it finds and keeps quiet about what is
missing.

Each check walks the bookkeeping of one container: sizes, sequence numbers and checksums, never the sound itself.
FLAC has none that could be walked; its frames carry their position, which shows at decoding.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import IO

from runtime.audio import chunks, frames, wav
from runtime.audio import frames as packets
from runtime.audio.spans import DamagedError, cut, find, is_foreign, joined_stretches, packets_of, read_at

# Where the sound of a file of so many bytes ends. Raises DamagedError.
Check = Callable[[IO[bytes], int], int]

HEAD = 2048  # bytes that tell what a file is


def sound(file: IO[bytes], *, longest_seconds: float) -> IO[bytes]:
    """What FFmpeg shall read of a seekable file, at its start: the file itself, or as much of it as is its own.

    Raises `DamagedError` of runtime.audio.spans where something is missing, and `OverlongError` where the frames alone
    show that it lasts longer than `longest_seconds`; of others the decoded sound tells. Files of a kind that is not in
    CHECKS, and has no frames like those of mp3, are not judged.
    """
    size = file.seek(0, io.SEEK_END)
    head = read_at(file, 0, HEAD)
    if wav.MAGIC.match(head):
        whole = wav.sound(file, size)
    else:
        check = next((check for pattern, check in CHECKS if re.match(pattern, head, re.DOTALL)), None)
        if check:
            end = check(file, size)
        elif head.startswith(b"#!AMR"):
            end = packets.amr_end(file, size, longest_seconds)
        else:
            end = frames.end(file, size, longest_seconds)
        whole = file if end >= size else joined_stretches(file, ((0, end),))
    file.seek(0)
    return whole


def is_in_parts(file: IO[bytes]) -> bool:
    """Whether an mp4 is made of fragments or an Ogg file of streams behind each other: their clocks may start anywhere.

    Of a file that `sound` has judged; it is left at its start.
    """
    size = file.seek(0, io.SEEK_END)
    head = read_at(file, 0, HEAD)
    found = head.startswith(b"OggS") and _is_chained_ogg(file, size)
    found = found or bool(re.match(MP4, head, re.DOTALL) and _is_fragmented(file, size))
    file.seek(0)
    return found


MP4 = rb"....(ftyp|moov|mdat|free|skip|wide)"
# Boxes without which sound is missing; in a file of fragments the recording went on behind any of the others.
MP4_MEDIA = {b"moov", b"moof", b"mdat"}
MP4_FRAGMENTS = MP4_MEDIA | {b"styp", b"sidx", b"prft", b"emsg", b"mfra"}


def _mp4_end(file: IO[bytes], size: int) -> int:
    """The outermost boxes must be whole; behind them, once the sound and its table are there, anything may stand."""
    start = 0
    seen: set[bytes] = set()
    boxes = packets_of("boxes", size)
    while start < size:
        next(boxes)
        header = read_at(file, start, 16)
        length, kind, long_length = struct.unpack(">I4sQ", header.ljust(16, b"\0"))
        length = long_length if length == 1 else length
        if length == 0 and kind == b"mdat":  # to the end of the file
            length = size - start
        if not 8 <= length <= size - start or not (kind.isascii() and kind.decode().isprintable()):
            fragmented = b"moof" in seen
            if length >= 8 and kind in (MP4_FRAGMENTS if fragmented else MP4_MEDIA):
                raise cut(f"its {kind.decode()} box", start, length, size)
            if not {b"moov", b"mdat"} <= seen or (fragmented and not _fragments_end(file, start, size, seen)):
                raise DamagedError(f"is damaged: there is no box at byte {start}")
            return start
        seen.add(kind)
        start += length
    if b"moov" not in seen:
        raise DamagedError("is cut short: its moov box is missing")
    return size


def _fragments_end(file: IO[bytes], start: int, size: int, seen: set[bytes]) -> bool:
    """Whether the last fragment stands before `start`, where no box begins."""
    if any(find(file, kind, start, size) is not None for kind in (b"moof", b"mdat")):
        return False
    return b"mfra" in seen or (size - start >= 4 and is_foreign(file, start, size))


# Element IDs: RFC 9559, section 5. A recorder that streams cannot know the sizes of Segment and Cluster in advance, so
# their children are walked as one flat row.
EBML_HEADER, EBML_SEGMENT = 0x1A45DFA3, 0x18538067
EBML_PARENTS = {EBML_SEGMENT: "Segment", 0x1F43B675: "Cluster"}
EBML_HEADERS = {EBML_HEADER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
EBML_CLUSTER_ID = b"\x1f\x43\xb6\x75"
EBML_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
MOST_RECORDINGS = 10_000  # of a browser, one behind the other: 4 hours of 1.5 s each
EBML_ANYWHERE = {0xEC, 0xBF}  # void and checksum


def _ebml_end(file: IO[bytes], size: int) -> int:
    """Matroska and WebM: every element must be known and fit into the file; anything may stand behind a Segment that
    tells its size."""
    start, end = 0, size
    sized = False  # whether the Segment tells its size, so that everything behind it is foreign
    first_codecs: set[bytes] | None = None
    elements, recordings = packets_of("elements", size), 0
    while start < size:
        next(elements)
        file.seek(start)
        element, id_width = _number(file, keep_marker=True)
        length, length_width = _number(file, keep_marker=False)
        header = id_width + length_width
        if element in EBML_PARENTS:
            unknown = length == 2 ** (7 * length_width) - 1
            if not unknown and start + header + length > size:
                raise cut(f"its {EBML_PARENTS[element]}", start + header, length, size)
            start += header
            if element == EBML_SEGMENT:
                sized, end = not unknown, start + length
        elif sized and start >= end and element != EBML_HEADER:
            return start
        elif element == EBML_HEADER and start:
            recordings += 1
            if recordings > MOST_RECORDINGS:
                raise DamagedError(f"is damaged: more than {MOST_RECORDINGS} recordings follow each other in it")
            codecs = _codecs(file, start)
            first_codecs = _codecs(file, 0) if first_codecs is None else first_codecs
            if codecs != first_codecs:  # another recording, of another kind
                return start
            start += header + length
        elif element in EBML_HEADERS | EBML_CLUSTER | EBML_ANYWHERE:
            start += header + length
            if start > size:
                raise cut("an element", start - length, length, size)
        elif is_foreign(file, start, size) and find(file, EBML_CLUSTER_ID, start, size) is None:
            return start
        elif start + header >= size:
            raise DamagedError(f"is cut short: an element begins at byte {start}, {size - start} bytes before the end")
        else:
            raise DamagedError(f"is damaged: there is no Matroska element at byte {start}")
    return size


def _codecs(file: IO[bytes], start: int) -> set[bytes]:
    """The codecs (element 0x86) named near the start of a Matroska file."""
    return set(re.findall(rb"\x86[\x80-\xff]([AV]_[0-9A-Z/_]+)", read_at(file, start, 1 << 16)))


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


def _ogg_end(file: IO[bytes], size: int) -> int:
    """Every page must be there, in order and intact, and the last packet complete.

    Not every file sets the end-of-stream flag: Android's recorder, and with it many voice messages, never do.
    """
    start = 0
    coding: set[bytes] = set()  # how the first packets of the streams begin, which names their codecs
    going_on: set[int] = set()  # streams whose last page has not come
    following: dict[int, int] = {}  # stream → number of its next page
    unfinished: dict[int, bool] = {}  # stream → whether its last packet goes on in its next page
    numbered = packets_of("pages", size)
    while start < size:
        next(numbered)
        file.seek(start)
        header = file.read(27)
        if header[:4] != b"OggS"[: len(header)]:
            over = not going_on or is_foreign(file, start, size)
            if over and not any(unfinished.values()) and find(file, b"OggS", start, size) is None:
                return start
            raise DamagedError(f"is damaged: there is no Ogg page at byte {start}")
        lacing = file.read(header[26]) if len(header) == 27 else b""
        length = 27 + sum(lacing) + len(lacing)
        body = file.read(sum(lacing))
        page = header + lacing + body
        if len(page) < length or len(header) < 27 or len(lacing) < header[26]:
            raise DamagedError(f"is cut short: its last Ogg page, at byte {start}, is incomplete")
        flags, stream, number, checksum = struct.unpack("<5xB8xIII", header[:26])
        if checksum != _ogg_checksum(header[:22] + bytes(4) + page[26:]):
            raise DamagedError(f"is damaged: the Ogg page at byte {start} does not match its checksum")
        begins = bool(flags & 2)
        if not begins and number != following.get(stream, number):
            raise DamagedError(f"is damaged: Ogg pages are missing before byte {start}")
        if begins and not going_on and coding and body[:7] not in coding:  # another recording, of another kind
            return start
        coding |= {body[:7]} if begins else set()
        following[stream] = (number + 1) % 2**32
        unfinished[stream] = lacing[-1:] == b"\xff"
        if flags & 4:
            going_on.discard(stream)
        else:
            going_on.add(stream)
        start += length
    if any(unfinished.values()):
        raise DamagedError("is cut short: its last packet is incomplete")
    return size


def _is_fragmented(file: IO[bytes], size: int) -> bool:
    """Whether an mp4 file is made of fragments, as live streams are."""
    start = 0
    while start + 8 <= size:
        length, kind, long_length = struct.unpack(">I4sQ", read_at(file, start, 16).ljust(16, b"\0"))
        if kind == b"moof":
            return True
        length = long_length if length == 1 else length
        if length < 8:
            break
        start += length
    return False


def _is_chained_ogg(file: IO[bytes], size: int) -> bool:
    """Whether an Ogg file is made of parts that follow each other, each with a clock of its own."""
    start, sound = 0, False
    while start + 27 <= size:
        header = read_at(file, start, 27)
        begins = bool(header[5] & 2)
        if sound and begins:
            return True
        sound = not begins
        start += 27 + header[26] + sum(file.read(header[26]))
    return False


CHECKS: tuple[tuple[bytes, Check], ...] = (
    (rb"OggS", _ogg_end),
    (rb"\x1a\x45\xdf\xa3", _ebml_end),
    (MP4, _mp4_end),
    (rb"FORM....AIF[FC]", chunks.aiff_end),
    (rb"caff", chunks.caf_end),
    (rb"\.snd", chunks.au_end),
    (rb"RIFF....AVI ", chunks.avi_end),
    (chunks.ASF_HEADER, chunks.asf_end),
    (rb"FLV\x01", packets.flv_end),
    (rb"\x00\x00\x01\xba", packets.ps_end),
    (packets.TS.pattern, packets.ts_end),
)

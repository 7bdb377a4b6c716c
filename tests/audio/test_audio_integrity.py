"""What real recorders and editors leave in files must pass; what is missing or damaged must be found."""

import io
import re
import struct
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from audio_files import RECIPES, ffmpeg, made, speechlike

from runtime.audio import AudioError, Limits, TooLongError, load
from runtime.audio.frames import frame_length
from runtime.audio.integrity import sound
from runtime.audio.spans import DamagedError

LIMITS = Limits()
SECONDS = 1.5


NOISE = b"\1" + np.random.default_rng(0).bytes(3000)
# What programs, phones and disks leave behind the end of a file.
TAILS = {
    "id3v1": b"TAG" + bytes(125),
    "id3v2": b"ID3\3\0\0\0\0\0\12" + b"TIT2" + bytes(6),
    "ape": b"APETAGEX" + struct.pack("<IIII8x", 2000, 45, 1, 1 << 31) + struct.pack("<II", 4, 0) + b"Title\0abcd",
    "zeros": bytes(3000),
    "many zeros": bytes(100_000),
    "text": b"made by some program, version 1.2\n",
    "atom": b"\0\0\0\x20sefd" + bytes(range(24)),
    "broken atom": b"\0\1\0\0sefd" + bytes(range(24)),
    "phone": b"SEFH\x6b\0\0\0\1\0\0\0" + bytes(range(40)) + b"SEFT",
    "zip": b"PK\3\4" + bytes(range(256)),
}
# Formats whose end is marked, so that anything else behind it is none of theirs.
MARKED = sorted(RECIPES.keys() - {"browser.webm", "film.flv", "camera.ts", "film.mpg"})


@cache
def whole(name: str) -> npt.NDArray[np.float32]:
    """The samples of that file of RECIPES."""
    return load(made(name), limits=LIMITS).samples


def seconds(file: bytes) -> float:
    return load(file, limits=LIMITS).seconds


def refusal(file: bytes) -> str:
    with pytest.raises(AudioError) as caught:
        load(file, limits=LIMITS)
    return caught.value.reason


def damage(file: bytes) -> str:
    """What is found in this process, where a test can set a limit lower."""
    with pytest.raises(DamagedError) as caught:
        sound(io.BytesIO(file), longest_seconds=LIMITS.longest_seconds)
    return str(caught.value)


def frames(file: bytes) -> list[bytes]:
    """An mp3 or ADTS file without tags in its frames."""
    start, found = 0, []
    while start < len(file):
        length = frame_length(file[start:])
        assert length
        found.append(file[start : start + length])
        start += length
    return found


def pages(file: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    return [b"OggS" + rest for rest in file.split(b"OggS")[1:]]


def sealed(page: bytes) -> bytes:
    """An Ogg page with the right checksum, computed bit by bit as RFC 3533 describes it."""
    checksum = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return page[:22] + struct.pack("<I", checksum) + page[26:]


def test_a_judged_file_is_left_at_its_start() -> None:
    for name in ("16 bit.wav", "ffmpeg.opus", "ffmpeg.mp3", "aac.m4a", "opus.webm"):
        file = io.BytesIO(made(name))
        assert sound(file, longest_seconds=LIMITS.longest_seconds) is file
        assert file.tell() == 0


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("name", RECIPES)
def test_foreign_bytes_behind_the_end_are_not_heard(name: str, tail: bytes) -> None:
    np.testing.assert_array_equal(load(made(name) + tail, limits=LIMITS).samples, whole(name))


@pytest.mark.parametrize("name", MARKED)
def test_other_files_and_noise_behind_the_end_are_not_heard(name: str) -> None:
    others = [other for other in ("ffmpeg.opus", "aac.m4a", "film.mkv", "bare.mp3", "16 bit.wav") if other != name]
    tails = [made(other) for other in others if load_kind(other) != load_kind(name)]
    if name in ("16 bit.wav", "over 4 GB.wav", "libsndfile.w64"):
        assert "which may be white noise or no sound" in refusal(made(name) + NOISE)
    else:
        tails.append(NOISE)
    for tail in tails:
        np.testing.assert_array_equal(load(made(name) + tail, limits=LIMITS).samples, whole(name))


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {*MARKED, "camera.ts", "film.mpg"}))
def test_noise_is_damage_where_more_sound_may_be_due(name: str) -> None:
    assert "is damaged" in refusal(made(name) + NOISE)


@pytest.mark.parametrize("name", ["browser.webm", "film.flv", "ffmpeg.opus", "fragments.mp4"])
def test_zeros_that_a_stopped_download_leaves_are_no_padding(name: str) -> None:
    half = len(made(name)) // 2
    said = refusal(made(name)[:half] + bytes(len(made(name)) - half))
    assert "is damaged" in said or "cut short" in said


def load_kind(name: str) -> str:
    """Files of one kind are joined when they follow each other."""
    kind = name.rpartition(".")[2]
    return {"opus": "ogg", "w64": "wav"}.get(kind, kind)


def test_a_wav_may_hold_other_chunks_around_its_data() -> None:
    file = made("16 bit.wav")
    odd = b"junk" + struct.pack("<I", 3) + b"abc\0"
    assert seconds(file[:12] + odd + file[12:] + odd) == SECONDS
    assert "before its data chunk" in refusal(file[:30])


def test_a_large_wav_declares_its_size_elsewhere() -> None:
    file = made("over 4 GB.wav")
    assert file[:4] == b"RF64"
    assert "data chunk" in refusal(file[:-300])


# Ogg


def test_ogg_need_not_mark_its_last_page() -> None:
    """Android's recorder never does, and so many voice messages do not."""
    *before, last = pages(made("ffmpeg.opus"))
    assert last[5] & 4
    unmarked = sealed(last[:5] + bytes([last[5] & ~4]) + last[6:])
    assert seconds(b"".join(before) + unmarked) == pytest.approx(SECONDS, abs=0.05)


def test_ogg_streams_may_follow_each_other() -> None:
    assert seconds(made("ffmpeg.opus") * 2) == pytest.approx(2 * SECONDS, abs=0.1)


def test_ogg_pages_must_all_be_there() -> None:
    parts = pages(made("ffmpeg.opus"))
    assert len(parts) > 3
    assert "missing before byte" in refusal(b"".join(parts[:2] + parts[3:]))


def test_the_last_packet_in_ogg_must_be_complete() -> None:
    *before, last = pages(made("ffmpeg.opus"))
    beginning = sealed(last[:5] + b"\0" + last[6:26] + b"\1\xff" + bytes(255))
    assert "last packet is incomplete" in refusal(b"".join(before) + beginning)


def test_what_is_no_page_damages_ogg_that_has_not_ended() -> None:
    *before, last = pages(made("ffmpeg.opus"))
    unmarked = b"".join(before) + sealed(last[:5] + bytes([last[5] & ~4]) + last[6:])
    assert "no Ogg page" in refusal(unmarked + NOISE)
    assert "no Ogg page" in refusal(made("ffmpeg.opus") + b"something else" + made("ffmpeg.opus"))
    assert seconds(unmarked + b"TAG" + bytes(125)) == pytest.approx(SECONDS, abs=0.05)


# mp3 and ADTS


@pytest.mark.parametrize(
    "tail",
    [
        b"TAG" + bytes(125),
        (b"TAG" + bytes(125))[:100],
        TAILS["ape"],
        b"LYRICSBEGIN" + b"x" * 200 + b"000213LYRICS200" + b"TAG" + bytes(125),
        bytes(3000),
        b"ID3\3\0\0\0\0\0\12" + b"TIT2" + bytes(6),
    ],
    ids=["id3v1", "cut id3v1", "ape", "lyrics", "padding", "id3v2"],
)
@pytest.mark.parametrize("name", ["bare.mp3", "ffmpeg.mp3", "adts.aac"])
def test_tags_and_padding_may_follow_the_last_frame(name: str, tail: bytes) -> None:
    assert seconds(made(name) + tail) == pytest.approx(seconds(made(name)), abs=0.02)


@pytest.mark.parametrize("name", ["bare.mp3", "adts.aac"])
@pytest.mark.parametrize("size", [0, 120, 900])
def test_tags_may_stand_before_and_between(name: str, size: int) -> None:
    tag = b"ID3\3\0\0\0\0" + bytes([size >> 7, size & 127]) + b"x" * size
    assert seconds(tag + tag + made(name) + tag + made(name)) == pytest.approx(2 * seconds(made(name)), abs=0.01)


@pytest.mark.parametrize("name", ["bare.mp3", "adts.aac"])
def test_a_recorder_may_join_a_stream_within_a_frame(name: str) -> None:
    parts = frames(made(name))
    joined = parts[9][-50:] + b"".join(parts[10:])
    assert 0.7 * SECONDS < seconds(joined) < SECONDS


@pytest.mark.parametrize("name", ["bare.mp3", "adts.aac"])
def test_a_piece_taken_out_is_found(name: str) -> None:
    file = made(name)
    assert "no frame begins at byte" in refusal(file[:9000] + file[9500:])


def test_mp3_must_have_as_many_frames_as_it_declares() -> None:
    file = made("libsndfile.mp3")
    parts = frames(file[file.index(b"\xff\xfb") :])
    assert b"Info" in parts[0] or b"Xing" in parts[0]
    assert "declares" in refusal(b"".join(parts[:-4]))


def test_low_rates_have_frames_of_their_own_lengths() -> None:
    """MPEG-1, 2 and 2.5, by an independent encoder: every frame must be found."""
    for rate in (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000):
        file = ffmpeg(speechlike(1.0, rate), rate, container="mp3", codec="libmp3lame", piped=True, id3v2_version="0")
        assert b"".join(frames(file)) == file


# mp4


def test_mp4_may_be_padded_with_zeros() -> None:
    assert seconds(made("aac.m4a") + bytes(100)) == seconds(made("aac.m4a"))


def test_the_last_mp4_box_may_run_to_the_end() -> None:
    file = bytearray(made("for the web.m4a"))
    at = file.index(b"mdat") - 4
    file[at : at + 4] = bytes(4)
    assert seconds(bytes(file)) == seconds(made("for the web.m4a"))


def test_what_is_no_box_damages_mp4_before_its_sound_is_whole() -> None:
    file = made("aac.m4a")
    at = file.index(b"mdat") - 4
    assert "no box at byte" in refusal(file[:at] + b"\0\0\0\20\1\2\3\4some junk" + file[at:])
    assert "moov box is missing" in refusal(file[: file.index(b"moov") - 4])


def test_what_is_no_box_damages_mp4_where_fragments_follow() -> None:
    file = made("fragments.mp4")
    at = file.rindex(b"moof") - 4
    assert "no box at byte" in refusal(file[:at] + bytes(8) + file[at:])
    assert "no box at byte" in refusal(file[:at] + NOISE)
    assert "no box at byte" in refusal(file[:at] + file[at : at + 3])


# WebM


def of_unknown_size(file: bytes) -> bytes:
    """As Chrome records: neither Segment nor Cluster says how long it is."""

    def unknown(match: re.Match[bytes]) -> bytes:
        width = 9 - match[2][0].bit_length()
        return match[1] + ((1 << 7 * width + 1) - 1).to_bytes(width, "big") + match[2][width:]

    return re.sub(rb"(\x18\x53\x80\x67|\x1f\x43\xb6\x75)(.{8})", unknown, file, flags=re.DOTALL)


def test_webm_may_not_know_its_sizes() -> None:
    file = of_unknown_size(made("browser.webm"))
    assert file != made("browser.webm")
    assert seconds(file) == pytest.approx(SECONDS, abs=0.05)
    assert "an element" in refusal(file[:-5])
    middle = len(file) // 2
    assert "no Matroska element" in refusal(file[:middle] + bytes(1000) + file[middle + 1000 :])


# Formats of chunks


def test_an_aiff_or_caf_from_a_pipe_does_not_know_its_size() -> None:
    aiff, caf = bytearray(made("libsndfile.aiff")), bytearray(made("libsndfile.caf"))
    struct.pack_into(">I", aiff, aiff.index(b"SSND") + 4, 0x7F000008)
    struct.pack_into(">q", caf, caf.index(b"data") + 4, -1)
    assert seconds(bytes(aiff)) == seconds(bytes(caf)) == SECONDS


def test_an_au_from_a_pipe_does_not_know_its_size() -> None:
    file = bytearray(made("libsndfile.au"))
    struct.pack_into(">I", file, 8, 0xFFFFFFFF)
    assert seconds(bytes(file)) == SECONDS


@pytest.mark.parametrize(("container", "codec"), [("avi", "libmp3lame"), ("asf", "wmav2"), ("flv", "aac")])
def test_a_recorder_that_cannot_go_back_writes_no_sizes(container: str, codec: str) -> None:
    file = ffmpeg(speechlike(SECONDS, 48_000), 48_000, container=container, codec=codec, piped=True)
    assert seconds(file) == pytest.approx(SECONDS, abs=0.1)
    assert "cut short" in refusal(file[:-500])


# AMR


@cache
def amr(container: str) -> bytes:
    """As phones record it: FFmpeg's encoder wants 8 kHz."""
    return ffmpeg(speechlike(SECONDS, 8000), 8000, container=container, codec="libopencore_amrnb")


@pytest.mark.parametrize("container", ["amr", "3gp"])
def test_phones_record_amr(container: str) -> None:
    assert seconds(amr(container)) == pytest.approx(SECONDS, abs=0.05)
    for lacking in (1, 7, 100):
        assert "cut short" in refusal(amr(container)[:-lacking])


def test_wideband_amr_is_read() -> None:
    speech = b"\x44" + np.random.default_rng(0).bytes(60)  # 23.85 kbit/s
    file = b"#!AMR-WB\n" + (speech * 3 + b"\x7c") * 20  # and lost frames
    assert seconds(file) == pytest.approx(80 * 0.02, abs=0.03)
    assert "cut short" in refusal((file + speech)[:-1])


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_foreign_bytes_behind_amr_are_not_heard(tail: bytes) -> None:
    alone = load(amr("amr"), limits=LIMITS).samples
    np.testing.assert_array_equal(load(amr("amr") + tail, limits=LIMITS).samples, alone)


def test_noise_damages_amr() -> None:
    assert "no frame begins" in refusal(amr("amr") + b"\xff" + NOISE)


# MPEG streams


def test_a_transport_stream_may_be_joined_within_a_packet() -> None:
    assert seconds(made("camera.ts")[100:]) > 0.8 * SECONDS


def test_camcorders_write_a_time_before_each_packet() -> None:
    file = made("camera.ts")
    timed = b"".join(struct.pack(">I", at) + file[at : at + 188] for at in range(0, len(file), 188))
    assert seconds(timed) == seconds(file)
    assert "cut short" in refusal(timed[:-3])


@pytest.mark.parametrize("name", ["camera.ts", "film.mpg"])
def test_noise_damages_an_mpeg_stream(name: str) -> None:
    assert "no packet begins" in refusal(made(name) + NOISE)


# Walks that end


FLV_TAG = b"\x08" + bytes(10) + b"\0\0\0\x0b"
PACK = b"\0\0\1\xba\x44" + bytes(9)
EBML = b"\x1a\x45\xdf\xa3\x80"
TINY = {
    "flv": (b"FLV\1\5\0\0\0\x09\0\0\0\0", FLV_TAG, "tags"),
    "mp4": (b"\0\0\0\x08ftyp", b"\0\0\0\x08free", "boxes"),
    "avi": (b"RIFF" + bytes(4) + b"AVI ", b"JUNK" + bytes(4), "chunks"),
    "program stream": (PACK, b"\0\0\1\xb9", "packets"),
    "program stream with zeros": (PACK, b"\0\0\0\1\xb9", "packets"),
    "webm": (EBML + b"\x18\x53\x80\x67\xff", b"\xec\x80", "elements"),
}


@pytest.mark.parametrize(("head", "packet", "what"), TINY.values(), ids=TINY)
def test_more_packets_than_any_recorder_writes_are_refused(
    head: bytes, packet: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.audio.spans.MOST_PACKETS", 20_000)
    assert f"more than 20000 {what}" in damage(head + packet * 20_001)


def test_more_tags_and_recordings_than_anybody_joins_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.audio.spans.MOST_PACKETS", 20_000)
    assert "more than 20000 tags" in damage(made("bare.mp3") + (b"ID3\3" + bytes(6)) * 20_001)
    assert "more than 10000 recordings" in refusal(EBML * 10_002)


@pytest.mark.parametrize(
    ("head", "frame", "most"),
    [
        (b"#!AMR\n", b"\x7c", 720_000),
        (b"#!AMR-WB\n", b"\x7c", 720_000),
        (b"", b"\xff\xf1\x50\x80\x00\xff\xfc", 1_350_000),
    ],
    ids=["amr", "amr-wb", "adts"],
)
def test_more_frames_than_the_longest_audio_has_are_refused_unread(head: bytes, frame: bytes, most: int) -> None:
    with pytest.raises(TooLongError, match=r"lasts 144\d\d\.\d s, the limit is 14400 s"):
        load(head + frame * (most + 100), limits=LIMITS)


def test_long_recordings_are_not_refused_by_their_number_of_packets() -> None:
    """4 hours of AMR, 4 of flv in tags of 23 ms, 2 of a transport stream of 1 Mbit/s."""
    video = b"G\1\0\x10" + bytes(184)
    for file in (b"#!AMR\n" + b"\x7c" * 720_000, TINY["flv"][0] + FLV_TAG * 620_000, video * 600_000):
        opened = io.BytesIO(file)
        assert sound(opened, longest_seconds=LIMITS.longest_seconds) is opened


def test_a_program_stream_may_be_padded_with_many_zeros_but_hides_nothing_behind_them() -> None:
    file = made("film.mpg")
    at = file.index(b"\0\0\1\xba", len(file) // 2)
    padded = file[:at] + bytes(100_000) + file[at:]
    np.testing.assert_array_equal(load(padded, limits=LIMITS).samples, whole("film.mpg"))
    assert "no packet begins" in refusal(file[:at] + bytes(100_000) + b"lost" + file[at:])

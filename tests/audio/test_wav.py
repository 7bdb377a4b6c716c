"""All the sound in a wav file and its relatives must come in, whatever its header says, or the file be refused."""

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from audio_files import ffmpeg, made, sndfile, speechlike, wav

from runtime.audio import SAMPLE_RATE, AudioError, Limits, load
from runtime.audio.wav import wav_bytes

LIMITS = Limits()
INTEGERS = np.round(speechlike(1.0, SAMPLE_RATE)[:, 0] * 32767).astype("<i2")
SOUND = INTEGERS.tobytes()
CODING = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
LIST = b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + struct.pack("<I", 4) + b"abc\0"


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """A chunk that declares `size` or its real one, filled up to an even place."""
    return kind + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def riff(*chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WAVE" + b"".join(chunks)


def samples(file: bytes) -> npt.NDArray[np.float32]:
    return load(file, limits=LIMITS).samples


def refusal(file: bytes) -> str:
    with pytest.raises(AudioError) as caught:
        load(file, limits=LIMITS)
    return caught.value.reason


def expect(file: bytes, integers: npt.NDArray[np.int16]) -> None:
    np.testing.assert_array_equal(samples(file), integers / np.float32(32768))


FORMAT = chunk(b"fmt ", CODING)


@pytest.mark.parametrize("more", [1, 8, 16, 36, 44])
@pytest.mark.parametrize("before", [b"", LIST])
def test_a_size_may_count_the_header(more: int, before: bytes) -> None:
    expect(riff(FORMAT, before, chunk(b"data", SOUND, len(SOUND) + more)), INTEGERS)


def test_a_size_beyond_the_header_is_a_loss() -> None:
    assert "cut short: its data chunk at byte 44" in refusal(riff(FORMAT, chunk(b"data", SOUND, len(SOUND) + 45)))
    assert "cut short" in refusal(riff(FORMAT, chunk(b"data", SOUND, 2 * len(SOUND))))
    large = riff(chunk(b"JUNK", bytes(50_000)), FORMAT, chunk(b"data", SOUND, len(SOUND) + 20_000))
    assert "cut short" in refusal(large)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFD3])
def test_an_unknown_size_means_all_that_follows(size: int) -> None:
    expect(riff(FORMAT, chunk(b"data", SOUND, size)), INTEGERS)
    quiet = np.concatenate([np.zeros(5000, "<i2"), INTEGERS])
    expect(riff(FORMAT, chunk(b"data", quiet.tobytes(), size)), quiet)


@pytest.mark.parametrize("size", [2, 1000, len(SOUND) // 2, len(SOUND) - 2])
def test_sound_behind_a_stale_size_belongs_to_it(size: int) -> None:
    """A recorder that crashed had updated its header before."""
    expect(riff(FORMAT, chunk(b"data", SOUND, size)), INTEGERS)


TAILS = {
    "list": LIST,
    "chunks": LIST + chunk(b"ABCD", b"odd") + LIST,
    "odd": chunk(b"ABCD", b"odd"),
    "odd and tag": chunk(b"ABCD", b"odd") + b"TAG" + bytes(125),
    "cut list": LIST[:12],
    "id3v1": b"TAG" + bytes(125),
    "id3v2": b"ID3\3\0\0\0\0\0\12" + b"TIT2" + bytes(6),
    "ape": b"APETAGEX" + bytes(24),
    "zeros": bytes(3000),
    "many zeros": bytes(100_000),
    "text": b"recorded by some program, 2024-05-01\n",
    "json": b'{"device": "x", "gain": 3}',
    "zip": b"PK\3\4" + bytes(range(256)),
    "xml": b"<?xml version='1.0'?><x/>",
}
FILES = ["ffmpeg.opus", "aac.m4a", "ffmpeg.mp3", "opus.webm", "ffmpeg.flac", "libsndfile.aiff"]


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_what_is_no_sound_may_follow_the_data(tail: bytes) -> None:
    expect(riff(FORMAT, chunk(b"data", SOUND)) + tail, INTEGERS)


@pytest.mark.parametrize(
    "name", ["ffmpeg.opus", "aac.m4a", "ffmpeg.mp3", "opus.webm", "ffmpeg.flac", "libsndfile.aiff"]
)
def test_another_file_may_follow_the_data(name: str) -> None:
    expect(riff(FORMAT, chunk(b"data", SOUND)) + made(name), INTEGERS)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_bytes_that_are_no_samples_are_not_heard(subtype: str, endian: str) -> None:
    sound = speechlike(1.0, SAMPLE_RATE, 2)
    whole = io.BytesIO()
    soundfile.write(whole, sound, SAMPLE_RATE, format="WAV", subtype=subtype, endian=endian)
    file = whole.getvalue()
    np.testing.assert_array_equal(samples(file + made("bare.mp3")), samples(file))
    noise = np.random.default_rng(0).bytes(20_000)
    if subtype in ("FLOAT", "DOUBLE"):
        np.testing.assert_array_equal(samples(file + noise), samples(file))
    else:  # it may as well be white noise at full scale
        assert "which may be white noise or no sound" in refusal(file + noise)


RNG = np.random.default_rng(0)
LOUD = {
    "clipped noise": np.clip(RNG.normal(0, 0.9, 20_000), -1, 1),
    "square wave": np.tile([-1.0, 1.0], 10_000),
    "noise, then speech": np.concatenate([RNG.uniform(-1, 1, 4000), speechlike(1.0, SAMPLE_RATE)[:, 0]]),
}


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("behind", LOUD.values(), ids=LOUD)
def test_loud_sound_behind_a_stale_size_is_heard(behind: npt.NDArray[np.float64], subtype: str) -> None:
    tone = 0.5 * np.sin(np.arange(16_000) / 5)
    file = bytearray(wav(np.concatenate([tone, behind]), subtype=subtype))
    whole = samples(bytes(file))
    at = file.index(b"data") + 4
    stale = struct.unpack_from("<I", file, at)[0] // (len(tone) + len(behind)) * len(tone)
    struct.pack_into("<I", file, at, stale)
    np.testing.assert_array_equal(samples(bytes(file)), whole)


def test_a_few_floats_that_are_no_numbers_hide_no_sound() -> None:
    file = bytearray(wav(speechlike(1.0, SAMPLE_RATE), subtype="FLOAT"))
    at = file.index(b"data") + 4
    struct.pack_into("<I", file, at, 20_000)
    struct.pack_into("<f", file, at + 4 + 20_400, np.nan)
    assert "not a number" in refusal(bytes(file))


def test_several_data_chunks_are_one_sound() -> None:
    third = len(SOUND) // 3 & ~1
    parts = [SOUND[:third], SOUND[third : 2 * third], SOUND[2 * third :]]
    expect(riff(FORMAT, *(chunk(b"data", part) for part in parts)), INTEGERS)
    expect(riff(FORMAT, chunk(b"data", parts[0]), LIST, *(chunk(b"data", part) for part in parts[1:])), INTEGERS)
    cut = riff(FORMAT, *(chunk(b"data", part) for part in parts[:2]), chunk(b"data", parts[2][:-1000], len(parts[2])))
    assert "its data chunk" in refusal(cut)
    stale = riff(FORMAT, chunk(b"data", parts[0]), chunk(b"data", parts[1] + parts[2], 20))
    expect(stale, INTEGERS)


def test_half_a_sample_at_the_end_of_a_data_chunk_shifts_nothing() -> None:
    odd = chunk(b"data", SOUND[:1001])
    expect(riff(FORMAT, odd, chunk(b"data", SOUND[1000:])), INTEGERS)


def test_wav_files_of_one_kind_may_be_joined() -> None:
    file = riff(FORMAT, chunk(b"data", SOUND), LIST)
    expect(file + file, np.concatenate([INTEGERS, INTEGERS]))
    assert "its data chunk" in refusal(file + riff(FORMAT, chunk(b"data", SOUND))[:-1000])


def test_a_wav_file_of_another_kind_behind_is_foreign() -> None:
    expect(riff(FORMAT, chunk(b"data", SOUND)) + wav(speechlike(1.0, 48_000, 2), 48_000), INTEGERS)


def test_padding_may_be_missing() -> None:
    odd = b"note" + struct.pack("<I", 3) + b"abc"
    expect(riff(odd, FORMAT, chunk(b"data", SOUND)), INTEGERS)
    expect(riff(odd + b"\0", FORMAT, chunk(b"data", SOUND)), INTEGERS)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "PCM_U8", "ULAW", "ALAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_rifx_is_big_endian(subtype: str, channels: int) -> None:
    sound = speechlike(0.5, SAMPLE_RATE, channels)
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, format="WAV", subtype=subtype, endian="BIG")
    assert file.getvalue()[:4] == b"RIFX"
    np.testing.assert_array_equal(samples(file.getvalue()), samples(wav(sound, subtype=subtype)))
    assert "its data chunk" in refusal(file.getvalue()[:-500])


@pytest.mark.parametrize("container", ["RF64", "W64"])
def test_wide_relatives_are_read_by_what_is_there(container: str) -> None:
    file = sndfile(INTEGERS, SAMPLE_RATE, container=container, subtype="PCM_16")
    expect(file, INTEGERS)
    assert "its data chunk" in refusal(file[:-500])
    expect(file[:-8], INTEGERS[:-4])  # less than the header has
    expect(file + b"TAG" + bytes(125), INTEGERS)


def test_bw64_is_rf64() -> None:
    file = sndfile(INTEGERS, SAMPLE_RATE, container="RF64", subtype="PCM_16")
    expect(b"BW64" + file[4:], INTEGERS)


@pytest.mark.parametrize("size", [0, 24, 24 + 1000, 2**64 - 1])
def test_wave64_from_a_recorder_that_did_not_finish(size: int) -> None:
    file = bytearray(sndfile(INTEGERS, SAMPLE_RATE, container="W64", subtype="PCM_16"))
    at = file.index(b"data\xf3\xac") + 16
    struct.pack_into("<Q", file, at, size)
    expect(bytes(file), INTEGERS)


def test_rf64_with_a_stale_size() -> None:
    file = bytearray(sndfile(INTEGERS, SAMPLE_RATE, container="RF64", subtype="PCM_16"))
    at = file.index(b"ds64") + 16
    struct.pack_into("<Q", file, at, 2000)
    expect(bytes(file), INTEGERS)


@pytest.mark.parametrize("codec", ["adpcm_ms", "adpcm_ima_wav", "pcm_mulaw", "pcm_alaw", "libmp3lame", "pcm_f64le"])
def test_other_codings_are_joined_and_completed_too(codec: str) -> None:
    file = ffmpeg(speechlike(1.0, 16_000), 16_000, container="wav", codec=codec)
    whole = samples(file)
    at = file.index(b"data") + 4
    (length,) = struct.unpack_from("<I", file, at)
    stale = file[:at] + struct.pack("<I", length // 2 & ~1) + file[at + 4 : at + 4 + length]
    np.testing.assert_array_equal(samples(stale), whole)


def test_more_chunks_than_any_recorder_writes_are_refused() -> None:
    assert "more than 10000 chunks" in refusal(riff(*[b"RIFF\0\0\0\0WAVE"] * 10_001))
    assert "more than 10000 chunks" in refusal(riff(*[chunk(b"JUNK", b"")] * 10_001, FORMAT, chunk(b"data", SOUND)))


@pytest.mark.parametrize(("rate", "count"), [(8000, 4000), (SAMPLE_RATE, 1601), (SAMPLE_RATE, 0)])
def test_libsndfile_reads_what_the_kit_writes(rate: int, count: int) -> None:
    sound = speechlike(1.0, rate)[:count, 0]
    for file, precision in ((wav_bytes(sound, rate=rate), 0.6 / 32767), (wav_bytes(sound, rate=rate, floats=True), 0)):
        read, found = soundfile.read(io.BytesIO(file), dtype="float32")
        assert (found, read.shape) == (rate, (count,))
        assert np.abs(read * (32768 / 32767 if precision else 1) - sound).max(initial=0) <= precision
    assert samples(wav_bytes(np.array([2, -2] * SAMPLE_RATE, np.float32))).max() == pytest.approx(1, abs=1e-4)

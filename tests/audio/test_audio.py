"""Sound of every kind must come in unchanged."""

import io
import struct
import tracemalloc
import wave
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
import pytest
import soxr
from audio_files import LOSSLESS, RECIPES, ffmpeg, made, sndfile, speechlike, wav, with_subtitles
from scipy import signal

from runtime.audio import SAMPLE_RATE, Audio, AudioError, Limits, load
from runtime.audio.decode import from_samples

LIMITS = Limits()
SECONDS = 1.5


@pytest.mark.parametrize("name", RECIPES)
def test_every_format_comes_in_whole(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(made(name))
    from_path = load(tmp_path / name, limits=LIMITS)
    from_bytes = load(made(name), limits=LIMITS, name=name)
    np.testing.assert_array_equal(from_path.samples, from_bytes.samples)
    assert (from_path.source, from_bytes.source) == (str(tmp_path / name), name)

    heard, expected = from_path.samples, soxr.resample(speechlike(SECONDS, 48_000, 2).mean(axis=1), 48_000, 16_000)
    assert heard.dtype == np.float32
    # FFmpeg's encoder for wma puts a whole frame in front.
    spare = 0 if name in LOSSLESS else 0.1 if "wm" in name else 0.05
    assert from_path.seconds == pytest.approx(SECONDS, abs=spare)
    # A codec may add a few milliseconds in front, and changes the waveform a little.
    similarity = signal.correlate(heard, expected, mode="full") / np.linalg.norm(heard) / np.linalg.norm(expected)
    assert similarity.max() > (0.9999 if name in LOSSLESS else 0.95)


def test_subtitles_are_passed_over() -> None:
    assert load(with_subtitles(speechlike(SECONDS, 16_000), 16_000), limits=LIMITS).seconds == pytest.approx(
        SECONDS, abs=0.05
    )


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_pieces_resample_like_the_whole(rate: int, container: str) -> None:
    samples = np.round(speechlike(1.3, rate) * 32767).astype(np.int16)
    audio = load(sndfile(samples, rate, container=container, subtype="PCM_16"), limits=LIMITS)
    whole = soxr.resample(samples[:, 0].astype(np.float32) / 32768, rate, SAMPLE_RATE, quality="HQ")
    np.testing.assert_allclose(audio.samples, whole, atol=1e-6)


def test_16_khz_mono_stays_as_it_is() -> None:
    integers = np.arange(-32768, 32768, dtype=np.int16)
    np.testing.assert_array_equal(load(wav(integers), limits=LIMITS).samples, integers / np.float32(32768))


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-31), ("FLOAT", 0), ("DOUBLE", 0)],
)
def test_every_sample_type_is_scaled_exactly(subtype: str, step: float) -> None:
    # libsndfile reads integers from an int32 array by their upper bits.
    integers = np.random.default_rng(1).integers(-(2**31), 2**31, 4000).astype(np.int32)
    exact = integers / 2**31
    audio = load(wav(exact if not step else integers, subtype=subtype), limits=LIMITS)
    expected = np.floor(exact / step) * step if step else exact
    np.testing.assert_array_equal(audio.samples, expected.astype(np.float32))


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_become_their_plain_mean(channels: int) -> None:
    samples = np.round(speechlike(0.5, SAMPLE_RATE, channels) * 32767).astype(np.int16)
    mean = (samples / np.float32(32768)).mean(axis=1)
    for container in ("WAV", "FLAC"):
        file = sndfile(samples, SAMPLE_RATE, container=container, subtype="PCM_16")
        np.testing.assert_allclose(load(file, limits=LIMITS).samples, mean, atol=1e-7)


def test_a_peak_over_full_scale_becomes_full_scale() -> None:
    loud = speechlike(1.0, SAMPLE_RATE) * 6
    audio = load(wav(loud, subtype="FLOAT"), limits=LIMITS)
    np.testing.assert_allclose(audio.samples, loud[:, 0] / 3, rtol=1e-6)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_does_not_know_its_size(size: int) -> None:
    file = bytearray(wav(speechlike(1.0, SAMPLE_RATE)))
    file[40:44] = struct.pack("<I", size)
    assert load(bytes(file), limits=LIMITS).seconds == 1.0


# What else people send in these containers; FFmpeg has encoders for it, or libsndfile.
CODECS = [
    *(("wav", codec) for codec in ("adpcm_ms", "adpcm_ima_wav", "adpcm_yamaha", "g726", "libmp3lame", "pcm_alaw")),
    *(("mov", codec) for codec in ("pcm_s16be", "pcm_s24le", "adpcm_ima_qt", "alac", "ac3", "libmp3lame")),
    *(("mp4", codec) for codec in ("libopus", "flac", "libmp3lame", "eac3")),
    *(("matroska", codec) for codec in ("flac", "libmp3lame", "mp2", "ac3", "pcm_s16le", "alac")),
    *(("avi", codec) for codec in ("pcm_s16le", "ac3", "mp2", "aac", "adpcm_ms", "wmav2")),
    *(("flv", codec) for codec in ("libmp3lame", "nellymoser", "adpcm_swf", "pcm_mulaw")),
    *(("mpegts", codec) for codec in ("mp2", "libmp3lame", "ac3", "eac3", "libopus")),
    *(("vob", codec) for codec in ("ac3", "mp2", "pcm_s16be")),
    *(("asf", codec) for codec in ("wmav1", "libmp3lame", "pcm_s16le")),
    *(("aiff", codec) for codec in ("pcm_s24be", "pcm_mulaw", "adpcm_ima_qt")),
    *(("caf", codec) for codec in ("pcm_mulaw", "pcm_f32be")),
    *(("au", codec) for codec in ("pcm_mulaw", "pcm_alaw", "pcm_f32be")),
    *(("w64", codec) for codec in ("pcm_mulaw", "adpcm_ms")),
    ("ogg", "flac"),
]
RATES = {"nellymoser": 16_000, "adpcm_swf": 22_050, "g726": 8_000}  # of encoders that want one


@pytest.mark.parametrize(("container", "codec"), CODECS)
def test_every_codec_is_heard(container: str, codec: str) -> None:
    rate = 8_000 if (container, codec) == ("flv", "pcm_mulaw") else RATES.get(codec, 48_000)
    file = ffmpeg(speechlike(SECONDS, rate), rate, container=container, codec=codec)
    assert -0.02 < load(file, limits=LIMITS).seconds - SECONDS < 0.2  # of adpcm_swf a block lasts that long


def test_tags_in_another_encoding_do_no_harm() -> None:
    title = "你好，世界".encode("gbk")
    tag = b"INFOINAM" + struct.pack("<I", len(title)) + title
    file = wav(speechlike(1.0, SAMPLE_RATE)) + b"LIST" + struct.pack("<I", len(tag)) + tag
    assert load(file, limits=LIMITS).seconds == 1.0


def test_hours_take_little_more_memory_than_their_samples(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        for _ in range(60):
            file.writeframes(bytes(48_000 * 2 * 2))
    tracemalloc.start()
    audio = load(tmp_path / "long.wav", limits=LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert audio.seconds == 60
    assert peak < 1.25 * audio.samples.nbytes + 1_000_000


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float16", "float32", "float64"])
def test_arrays_are_scaled_by_their_type(dtype: str) -> None:
    sound = speechlike(0.5, SAMPLE_RATE)[:, 0]
    scale, offset = {"u": (127, 128), "i": (np.iinfo(dtype).max if dtype[0] == "i" else 1, 0), "f": (1, 0)}[dtype[0]]
    audio = from_samples((sound * scale + offset).astype(dtype), SAMPLE_RATE, source="array", limits=LIMITS)
    np.testing.assert_allclose(audio.samples, sound, atol=0.02)


def test_an_array_gives_what_the_file_gives() -> None:
    samples = np.round(speechlike(0.7, 44_100, 2) * 32767).astype(np.int16)
    np.testing.assert_array_equal(
        from_samples(samples, 44_100, source="array", limits=LIMITS).samples,
        load(wav(samples, 44_100), limits=LIMITS).samples,
    )


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.zeros((2, SAMPLE_RATE), np.float32), SAMPLE_RATE, "16000 channels"),
        (np.zeros((SAMPLE_RATE, 9), np.float32), SAMPLE_RATE, "9 channels"),
        (np.zeros((SAMPLE_RATE, 0), np.float32), SAMPLE_RATE, "0 channels"),
        (np.zeros((1, SAMPLE_RATE, 1), np.float32), SAMPLE_RATE, "shape"),
        (np.zeros(SAMPLE_RATE, np.int64), SAMPLE_RATE, "int64"),
        (np.zeros(SAMPLE_RATE, np.complex64), SAMPLE_RATE, "complex64"),
        (np.zeros(SAMPLE_RATE, bool), SAMPLE_RATE, "bool"),
        (np.zeros(SAMPLE_RATE, np.float32), 0, "0 Hz"),
        (np.zeros(0, np.float32), SAMPLE_RATE, "0.000 s"),
        (np.full(SAMPLE_RATE, np.nan), 48_000, "NaN"),
        (np.full(SAMPLE_RATE, -np.inf), SAMPLE_RATE, "infinite"),
        (np.full((SAMPLE_RATE, 2), 1e300), SAMPLE_RATE, "infinite"),
    ],
)
def test_unusable_arrays_are_refused(samples: np.ndarray[Any, Any], rate: int, reason: str) -> None:
    with pytest.raises(AudioError, match=rf"^array: .*{reason}"):
        from_samples(samples, rate, source="array", limits=LIMITS)


def test_an_open_file_is_read_from_its_start_and_stays_open() -> None:
    with SpooledTemporaryFile(max_size=1000) as file:
        file.write(made("ffmpeg.mp3"))
        for _ in range(2):
            audio = load(file, limits=LIMITS, name="upload")
            np.testing.assert_array_equal(audio.samples, load(made("ffmpeg.mp3"), limits=LIMITS).samples)
            assert audio.source == "upload"
        assert not file.closed


def test_silence_in_flac_is_not_taken_for_another_format() -> None:
    """Its frames begin like those of ADTS."""
    silence = ffmpeg(np.zeros((8000 * 120, 1), np.float32), 8000, container="flac", codec="flac")
    assert load(silence, limits=LIMITS).seconds == 120
    assert load(b"ID3\x04\0\0\0\0\0\x05hello" + silence, limits=LIMITS).seconds == 120


def test_what_the_codec_adds_at_the_end_is_not_held_against_the_file() -> None:
    assert load(made("adts.aac"), limits=Limits(longest_seconds=SECONDS)).seconds > SECONDS


def test_audio_counts_its_seconds() -> None:
    assert Audio(np.zeros(8000, np.float32), "x").seconds == 0.5
    assert isinstance(load(io.BytesIO(made("16 bit.wav")).read(), limits=LIMITS), Audio)

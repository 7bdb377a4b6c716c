"""Sound of every kind must come in unchanged, and every broken file be refused with its name and the reason."""

import io
import os
import struct
import tracemalloc
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from audio_files import LOSSLESS, RECIPES, made, silent_film, sndfile, speechlike
from scipy import signal

from env.settings import Settings
from runtime.audio import SAMPLE_RATE, Audio, AudioError, Limits, from_samples, load

LIMITS = Limits()
SECONDS = 1.5


def refusal(source: str | Path | bytes, limits: Limits = LIMITS) -> str:
    """What the error says that `source` gives."""
    with pytest.raises(AudioError) as caught:
        load(source, limits=limits, name="upload")
    assert caught.value.subject == ("upload" if isinstance(source, bytes) else str(source))
    return str(caught.value)


def wav(samples: np.ndarray[Any, Any], rate: int = SAMPLE_RATE, subtype: str = "PCM_16") -> bytes:
    return sndfile(samples, rate, container="WAV", subtype=subtype)


# What comes in


@pytest.mark.parametrize("name", RECIPES)
def test_every_format_comes_in_whole(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(made(name))
    from_path = load(tmp_path / name, limits=LIMITS)
    from_bytes = load(made(name), limits=LIMITS, name=name)
    np.testing.assert_array_equal(from_path.samples, from_bytes.samples)
    assert (from_path.source, from_bytes.source) == (str(tmp_path / name), name)

    heard, expected = from_path.samples, soxr.resample(speechlike(SECONDS, 48_000, 2).mean(axis=1), 48_000, 16_000)
    assert heard.dtype == np.float32
    assert from_path.seconds == pytest.approx(SECONDS, abs=0 if name in LOSSLESS else 0.05)
    # A codec may add a few milliseconds in front, and changes the waveform a little.
    similarity = signal.correlate(heard, expected, mode="full") / np.linalg.norm(heard) / np.linalg.norm(expected)
    assert similarity.max() > (0.9999 if name in LOSSLESS else 0.95)


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


# Arrays


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


# What is refused


@pytest.mark.parametrize("name", RECIPES)
def test_half_a_file_is_refused(name: str) -> None:
    # One byte more than half: where frames have one size, half of an mp3 may be an mp3.
    said = refusal(made(name)[: len(made(name)) // 2 + 1])
    assert "cut short" in said or "is damaged" in said


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("lacking", [1, 7, 100])
def test_a_file_without_its_last_bytes_is_refused(name: str, lacking: int) -> None:
    said = refusal(made(name)[:-lacking])
    assert "cut short" in said or "is damaged" in said


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"16 bit.wav", "float.wav", "over 4 GB.wav"}))
def test_a_hole_in_the_middle_is_refused(name: str) -> None:
    """All but wav, which has no structure that a hole could break."""
    middle = len(made(name)) // 2
    said = refusal(made(name)[:middle] + bytes(2000) + made(name)[middle + 2000 :])
    assert "is damaged" in said or "cut short" in said


@pytest.mark.parametrize("name", ["libsndfile.flac", "piped.flac", "vorbis.ogg", "ffmpeg.opus"])
def test_a_single_wrong_bit_is_refused_where_there_are_checksums(name: str) -> None:
    for place in range(len(made(name)) // 4, len(made(name)), len(made(name)) // 20):
        file = bytearray(made(name))
        file[place] ^= 4
        assert "damaged" in refusal(bytes(file))


@pytest.mark.parametrize(
    "file",
    [
        b"This is no sound, whatever its name says.\n" * 50,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        bytes(5000),
        b"\xff",
        np.random.default_rng(0).bytes(20_000),
        "UTF-16".encode("utf-16") * 500,
    ],
)
def test_what_is_no_audio_is_refused(file: bytes, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(file)
    assert "holds no audio" in refusal(tmp_path / "speech.wav")
    assert "holds no audio" in refusal(file)


@pytest.mark.parametrize("container", ["AIFF", "CAF", "AU"])
def test_formats_that_nobody_judged_whole_are_refused(container: str) -> None:
    file = sndfile(speechlike(1.0, SAMPLE_RATE), SAMPLE_RATE, container=container, subtype="PCM_16")
    said = refusal(file)
    assert "holds no audio that can be read" in said
    assert "readable are wav, flac" in said


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert "is empty" in refusal(tmp_path / "empty.wav")
    assert "is empty" in refusal(b"")


def test_a_film_without_sound_is_refused() -> None:
    assert "no audio track" in refusal(silent_film(1.0))


def test_an_unknown_coding_is_refused() -> None:
    assert "unknown coding" in refusal(made("opus.webm").replace(b"A_OPUS", b"A_SPUO"))


def test_a_file_without_samples_is_refused() -> None:
    assert "lasts 0.000 s" in refusal(wav(np.zeros(0, np.int16)))


def test_missing_and_special_paths_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "No such file" in refusal(tmp_path / "missing.wav")
    assert "No such file" in refusal(str(tmp_path / "missing.wav"))
    assert "is a directory" in refusal(tmp_path)
    assert "is not a regular file" in refusal(tmp_path / "fifo")
    assert "File name too long" in refusal(str(tmp_path / ("x" * 300)))
    assert "null byte" in refusal("a\0b.wav")


@contextmanager
def without_privileges() -> Iterator[None]:
    """As a user who is not root, who may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(made("16 bit.wav"))
    path.chmod(0)
    with without_privileges():
        assert "Permission denied" in refusal(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("subtype", "rate"), [("FLOAT", 16_000), ("DOUBLE", 44_100)])
def test_samples_that_are_no_numbers_are_refused(bad: float, subtype: str, rate: int) -> None:
    samples = speechlike(1.0, rate, 2)
    samples[rate // 2, 1] = bad
    assert "not a number" in refusal(wav(samples, rate, subtype))


def test_nine_channels_are_refused() -> None:
    assert "9 channels" in refusal(wav(np.zeros((SAMPLE_RATE, 9), np.int16)))


def test_too_short_a_clip_is_refused_with_its_length() -> None:
    said = refusal(wav(speechlike(0.05, SAMPLE_RATE)))
    assert "0.050 s" in said
    assert "0.1 s" in said


@pytest.mark.parametrize("name", RECIPES)
def test_too_long_a_file_is_refused_with_its_length(name: str) -> None:
    said = refusal(made(name), Limits(longest_seconds=1.0))
    assert "lasts 1." in said
    assert "limit is 1 s" in said


def test_ten_hours_are_refused_unread(tmp_path: Path) -> None:
    header = bytearray(wav(np.zeros(0, np.int16)))
    size = 10 * 3600 * SAMPLE_RATE * 2
    header[40:44] = struct.pack("<I", size)
    with (tmp_path / "night.wav").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)  # takes no space
    tracemalloc.start()
    said = refusal(tmp_path / "night.wav")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert "lasts 36000.0 s, the limit is 14400 s" in said
    assert "ASR_MAX_AUDIO_SECONDS" in said
    assert "max_audio_seconds" in Settings.model_fields


def test_what_the_codec_adds_at_the_end_is_not_held_against_the_file() -> None:
    assert load(made("adts.aac"), limits=Limits(longest_seconds=SECONDS)).seconds > SECONDS


def test_audio_counts_its_seconds() -> None:
    assert Audio(np.zeros(8000, np.float32), "x").seconds == 0.5
    assert isinstance(load(io.BytesIO(made("16 bit.wav")).read(), limits=LIMITS), Audio)

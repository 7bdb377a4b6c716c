"""Every broken file must be refused with its name and the reason."""

import os
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from audio_files import RECIPES, made, silent_film, sndfile, speechlike, wav

from env.settings import Settings
from runtime.audio import SAMPLE_RATE, AudioError, Limits, load

LIMITS = Limits()


def refusal(source: str | Path | bytes, limits: Limits = LIMITS) -> str:
    """What the error says that `source` gives."""
    with pytest.raises(AudioError) as caught:
        load(source, limits=limits, name="upload")
    assert caught.value.subject == ("upload" if isinstance(source, bytes) else str(source))
    return str(caught.value)


@pytest.mark.parametrize("name", RECIPES)
def test_half_a_file_is_refused(name: str) -> None:
    # One byte more than half: where frames have one size, half of an mp3 may be an mp3.
    said = refusal(made(name)[: len(made(name)) // 2 + 1])
    assert "cut short" in said or "is damaged" in said


# Nothing but samples: no structure that a hole could break, and recorders that count the header promise some too many.
PLAIN = {"16 bit.wav", "float.wav", "over 4 GB.wav", "libsndfile.w64", "libsndfile.aiff", "libsndfile.au"}
PLAIN |= {"libsndfile.caf"}


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_a_file_without_its_last_samples_is_refused(name: str) -> None:
    assert "cut short" in refusal(made(name)[:-200])


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - PLAIN))
@pytest.mark.parametrize("lacking", [1, 7, 100])
def test_a_file_without_its_last_bytes_is_refused(name: str, lacking: int) -> None:
    said = refusal(made(name)[:-lacking])
    assert "cut short" in said or "is damaged" in said


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - PLAIN))
def test_a_hole_in_the_middle_is_refused(name: str) -> None:
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


@pytest.mark.parametrize("container", ["VOC", "PAF", "SVX", "IRCAM"])
def test_formats_that_nobody_judges_whole_are_refused(container: str) -> None:
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


def test_integers_of_64_bits_are_refused() -> None:
    coding = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, 8 * SAMPLE_RATE, 8, 64)
    head = b"RIFF" + struct.pack("<I", 36 + 80_000) + b"WAVEfmt " + struct.pack("<I", 16) + coding
    assert "samples of 64 bits" in refusal(head + b"data" + struct.pack("<I", 80_000) + bytes(range(250)) * 320)


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

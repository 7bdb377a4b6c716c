"""Sound must be found at the times at which a player plays it."""

import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from audio_files import RECIPES, clicks, heard_clicks, made, sndfile, speechlike, timed

from runtime.audio import SAMPLE_RATE, Audio, Limits, TooLongError, load
from runtime.audio.timeline import Timeline

LIMITS = Limits()
RATE = 48_000
TIMES = [0.5, 1.0, 2.5]
SOUND = clicks(3.2, RATE, TIMES)
SYNC = 0.04  # seconds
CODECS = {
    "mp4": "aac",
    "mov": "pcm_s16le",
    "webm": "libopus",
    "matroska": "aac",
    "flv": "aac",
    "mpegts": "aac",
    "mpeg": "mp2",
    "asf": "wmav2",
}
LIVE = sorted(CODECS.keys() - {"mp4", "mov"})  # which may start at any time


def late(seconds: float) -> Callable[[float], float]:
    return lambda time: time + seconds


def paused(seconds: float, *, at: float = 1.7) -> Callable[[float], float]:
    return lambda time: time + seconds if time >= at else time


def load_timed(container: str, when: Callable[[float], float], *, video: float = 0.0, **options: str) -> Audio:
    file = timed(SOUND, RATE, when, container=container, codec=CODECS[container], video=video, **options)
    return load(file, limits=LIMITS)


@pytest.mark.parametrize("name", RECIPES)
def test_whole_tracks_keep_their_samples_and_need_no_correction(name: str) -> None:
    audio = load(RECIPES[name](clicks(3.2, RATE, TIMES), RATE), limits=LIMITS)
    # What an encoder puts in front, and most formats cannot tell, is at most two frames.
    assert heard_clicks(audio) == pytest.approx(TIMES, abs=0.05)
    if not name.endswith((".wma", ".wmv")):  # the decoder swallows the first packet
        assert audio.seconds == len(audio.samples) / SAMPLE_RATE
        assert audio.time_at(20_000) == 20_000 / SAMPLE_RATE


@pytest.mark.parametrize("container", CODECS)
def test_a_sound_track_that_begins_after_the_picture_is_late(container: str) -> None:
    audio = load_timed(container, late(4.94), video=9.0)
    assert heard_clicks(audio) == pytest.approx([time + 4.94 for time in TIMES], abs=SYNC)
    assert audio.seconds == pytest.approx(3.2 + 4.94, abs=0.06)
    assert not audio.samples[: int(4.9 * SAMPLE_RATE)].any()


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_an_empty_edit_delays_a_sound_track_alone(container: str) -> None:
    audio = load_timed(container, late(4.94))
    assert heard_clicks(audio) == pytest.approx([time + 4.94 for time in TIMES], abs=SYNC)


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_an_edit_that_cuts_the_start_is_heeded(container: str) -> None:
    audio = load_timed(container, late(-0.75))
    assert heard_clicks(audio) == pytest.approx([time - 0.75 for time in TIMES[1:]], abs=SYNC)


def test_fragments_of_a_live_stream_start_at_0() -> None:
    """The clock of the stream goes on in them, while they play from their own start."""
    audio = load_timed("mp4", late(40_000), movflags="frag_keyframe+empty_moov+default_base_moof")
    assert heard_clicks(audio) == pytest.approx(TIMES, abs=SYNC)


@pytest.mark.parametrize("container", LIVE)
@pytest.mark.parametrize("start", [0.75, 40_000])
def test_live_streams_start_at_0_wherever_their_clock_is(container: str, start: float) -> None:
    audio = load_timed(container, late(start))
    assert heard_clicks(audio) == pytest.approx(TIMES, abs=0.05)
    assert audio.seconds == pytest.approx(3.2, abs=0.06)


@pytest.mark.parametrize("container", sorted(CODECS.keys() - {"mov"}))
def test_a_pause_between_packets_is_silence(container: str) -> None:
    audio = load_timed(container, paused(8.0))
    assert heard_clicks(audio) == pytest.approx([0.5, 1.0, 10.5], abs=0.05)
    assert audio.seconds == pytest.approx(11.2, abs=0.06)
    assert not audio.samples[2 * SAMPLE_RATE : 9 * SAMPLE_RATE].any()


@pytest.mark.parametrize("container", ["mp4", "webm", "flv", "asf"])
def test_a_pause_may_be_long(container: str) -> None:
    audio = load_timed(container, paused(30.0))
    assert heard_clicks(audio) == pytest.approx([0.5, 1.0, 32.5], abs=0.05)


def test_an_avi_tells_when_its_sound_starts() -> None:
    file = bytearray(RECIPES["film.avi"](SOUND, RATE))
    at = file.index(b"auds") + 20  # dwScale, dwRate, dwStart of the stream's header
    scale, rate = struct.unpack_from("<II", file, at)
    struct.pack_into("<I", file, at + 8, round(3.0 * rate / scale))
    assert heard_clicks(load(bytes(file), limits=LIMITS)) == pytest.approx([3.5, 4.0, 5.5], abs=SYNC)


@pytest.mark.parametrize("name", ["ffmpeg.opus", "vorbis.ogg", "browser.webm", "camera.ts", "film.mpg"])
def test_a_part_follows_at_once_whatever_its_clock_shows(name: str) -> None:
    """Recordings joined with `cat` play one after the other."""
    part = RECIPES[name](SOUND, RATE)
    alone = load(part, limits=LIMITS)
    audio = load(part + part, limits=LIMITS)
    first = heard_clicks(alone)
    assert heard_clicks(audio) == pytest.approx([*first, *(time + alone.seconds for time in first)], abs=SYNC)
    assert audio.seconds == pytest.approx(2 * alone.seconds, abs=0.05)


@pytest.mark.parametrize(("container", "codec"), [("mpegts", "aac"), ("ogg", "libopus")])
def test_the_clock_of_a_later_part_may_be_far_ahead(container: str, codec: str) -> None:
    parts = [timed(SOUND, RATE, late(start), container=container, codec=codec) for start in (0.0, 20_000.0)]
    audio = load(b"".join(parts), limits=LIMITS)
    assert heard_clicks(audio) == pytest.approx([*TIMES, *(time + 3.2 for time in TIMES)], abs=0.05)


@pytest.mark.parametrize("container", ["mpegts", "mpeg"])
@pytest.mark.parametrize("video", [0.0, 19.0])
def test_a_long_pause_in_an_mpeg_stream_is_silence(container: str, video: float) -> None:
    audio = load_timed(container, paused(15.0), video=video)
    assert heard_clicks(audio) == pytest.approx([0.5, 1.0, 17.5], abs=0.05)
    assert audio.seconds == pytest.approx(18.2, abs=0.06)


def test_a_clock_that_jumps_with_the_picture_begins_a_new_part() -> None:
    first = timed(SOUND, RATE, late(0.0), container="mpegts", codec="aac", video=3.2)
    later = timed(SOUND, RATE, late(0.0), container="mpegts", codec="aac", video=3.2, output_ts_offset="60")
    audio = load(first + later, limits=LIMITS)
    assert heard_clicks(audio) == pytest.approx([*TIMES, *(time + 3.2 for time in TIMES)], abs=0.08)
    assert audio.seconds == pytest.approx(6.4, abs=0.12)


def test_a_pause_in_ogg_that_is_no_new_part_is_silence() -> None:
    audio = load(timed(SOUND, RATE, paused(20.0, at=2.0), container="ogg", codec="libopus"), limits=LIMITS)
    assert heard_clicks(audio)[-1] == pytest.approx(22.5, abs=SYNC)


@pytest.mark.parametrize("container", ["webm", "flv"])
def test_a_pause_beyond_the_limit_is_refused_before_it_takes_memory(container: str) -> None:
    file = timed(SOUND, RATE, paused(36_000), container=container, codec=CODECS[container], live="1")
    tracemalloc.start()
    with pytest.raises(TooLongError, match=r"lasts 3600\d\.\d s"):
        load(file, limits=LIMITS)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_a_stuck_clock_loses_no_sound() -> None:
    file = timed(SOUND, RATE, lambda time: min(time, 1.5), container="flv", codec="aac")
    audio = load(file, limits=LIMITS)
    assert heard_clicks(audio) == pytest.approx(TIMES, abs=0.05)


def test_a_clock_that_drifts_is_followed_without_a_gap() -> None:
    sound = clicks(40.0, RATE, [5.0, 20.0, 39.0])
    for speed in (1.01, 0.99):
        audio = load(timed(sound, RATE, speed.__mul__, container="webm", codec="libopus"), limits=LIMITS)
        assert heard_clicks(audio) == pytest.approx([5.0 * speed, 20.0 * speed, 39.0 * speed], abs=SYNC)
        assert len(audio.samples) == pytest.approx(40 * SAMPLE_RATE, abs=SAMPLE_RATE / 20)
        assert audio.seconds == pytest.approx(40 * speed, abs=SYNC)
        times = [audio.time_at(sample) for sample in range(0, len(audio.samples), 50)]
        assert times == sorted(times)


def test_jitter_cuts_no_holes_into_words() -> None:
    """Times of arrival, as RTMP servers record them, are up to some tens of milliseconds off."""
    shaken = np.random.default_rng(0).uniform(-0.04, 0.04, 1000)
    sound = speechlike(10.0, RATE)
    file = timed(sound, RATE, lambda t: max(0.0, t + shaken[round(t * 50)]), container="matroska", codec="pcm_s16le")
    plain = timed(sound, RATE, lambda t: t, container="matroska", codec="pcm_s16le")
    np.testing.assert_array_equal(load(file, limits=LIMITS).samples, load(plain, limits=LIMITS).samples)


def test_frames_without_times_follow_each_other() -> None:
    timeline = Timeline()
    assert [timeline.place(time, 0.02) for time in (0.0, None, None, 0.06)] == [0.0] * 4
    assert timeline.place(5.08, 0.02) == pytest.approx(5.0)
    assert timeline.seconds == pytest.approx(5.1)
    assert not timeline.clock.times


def test_rounded_times_add_up_to_nothing() -> None:
    timeline = Timeline()
    for number in range(100_000):  # short Vorbis blocks in WebM, whose clock counts milliseconds
        assert timeline.place(int(number * 64 / 48) / 1000, 64 / 48_000) == 0
    assert not timeline.clock.times
    assert timeline.place(timeline.seconds + 1.0, 0.02) == pytest.approx(1.0)


def test_formats_without_a_clock_are_taken_by_their_samples() -> None:
    audio = load(sndfile(SOUND, RATE, container="WAV", subtype="PCM_16"), limits=LIMITS)
    assert audio.time_at(len(audio.samples)) == audio.seconds == 3.2
    alone = load(made("adts.aac"), limits=LIMITS).seconds
    assert load(made("adts.aac") * 3, limits=LIMITS).seconds == pytest.approx(3 * alone, abs=0.001)

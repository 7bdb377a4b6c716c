"""The bytes of a media file → 16 kHz mono float32, whole or refused: what helper processes do for `runtime.audio`.

PyAV decodes (its wheels bring FFmpeg along), soxr resamples, both piece by piece: hours of audio take little more
memory than a minute. What the samples become on the way (mean of the channels, soxr HQ, division by a peak over 1) is
what qwen-asr 0.0.6 does in `inference/utils.py`, so that the model hears the same.
"""

import contextlib
import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from operator import itemgetter
from typing import IO, Any, cast

import av
import av.subtitles.codeccontext  # which PyAV itself imports at the first subtitles, when a helper can open nothing
import numpy as np
import numpy.typing as npt
import soxr
from av.audio.stream import AudioStream
from av.container import InputContainer

from runtime.audio import FORMATS, SAMPLE_RATE, Audio, AudioError, Limits, Samples, TooLongError, frames, integrity
from runtime.audio.spans import DamagedError, OverlongError
from runtime.audio.timeline import JUMP, Timeline
from runtime.audio.wav import wav_bytes

MOST_CHANNELS = 8

# FFmpeg's names. No other demuxer may open a file: some (hls, concat) would follow the names of further files in it.
DEMUXERS = {
    *("wav", "w64", "aiff", "caf", "au", "flac", "ogg", "mp3", "aac", "ac3", "eac3", "amr", "mov", "matroska"),
    *("flv", "avi", "asf", "mpegts", "mpeg"),
}
# For the others FFmpeg guesses the duration from the bit rate, or takes the header's word, which may be stale.
DECLARED = {"wav", "w64", "flac", "ogg", "mov", "matroska"}
# What has time stamps of its own. In all others one frame follows another, and FFmpeg counts them.
CLOCKED = {"ogg", "mov", "matroska", "flv", "avi", "asf", "mpegts", "mpeg"}

LOOKED_FOR = "60000000"  # microseconds in which the first sound must come where nothing announces it (mpeg, flv)
TIMES_MAY_JUMP = 0x0200  # FFmpeg's AVFMT_TS_DISCONT

# What stands for silence, and the distance from there to full scale.
INTEGERS = {"uint8": (128, 2**7), "int8": (0, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}
UNREAD = {"s64", "s64p"}  # FFmpeg's names of what PyAV makes no arrays of

PIECE = 1 << 20  # bytes
CODEC_PADDING = 0.25  # seconds; what encoders add to fill their last frame does not count against the limit


def decode(
    file: IO[bytes], into: IO[bytes], arguments: Mapping[str, Any], earn: Callable[[float], None]
) -> dict[str, int]:
    """Write the sound of a media file: `samples` float32, then `corrections` positions and as many times of the clock,
    float64.

    `earn` is told of CPU seconds that the sound so far is worth. Raises AudioError and TooLongError.
    """
    name: str = arguments["name"]
    limits = Limits(arguments["longest_seconds"], arguments["shortest_seconds"])
    worth: float = arguments["cpu_per_second"]
    try:
        file.seek(0)
        if not file.read(1):
            raise AudioError(name, "is empty (0 bytes)")
        own = integrity.sound(file, longest_seconds=limits.longest_seconds + CODEC_PADDING)
        in_parts = integrity.is_in_parts(own)
        with _opened(own, name) as container:
            track = _track(container, name)
            timeline = _timeline(container, limits, in_parts=in_parts)
            pieces = _decode(container, track, timeline, name, limits)
            samples = _write(pieces, into, name, limits, on_minute=lambda: earn(60 * worth))
        clock = timeline.clock
        into.write(clock.positions.tobytes() + clock.times.tobytes())
        return {"samples": samples, "corrections": len(clock.times)}
    except OverlongError as error:
        raise _too_long(error.seconds, name, limits) from error
    except DamagedError as error:
        advice = "fetch or record it again, or save what is left with `ffmpeg -i FILE rest.wav`"
        raise AudioError(name, str(error), advice) from error
    except OSError as error:
        raise AudioError(name, f"cannot be read: {error.strerror}") from error


def from_samples(samples: npt.NDArray[Any], rate: int, *, source: str, limits: Limits) -> Audio:
    """Audio from samples of shape (n,) or (n, channels), integers or floats, at `rate` Hz.

    Raises AudioError like `load`, and for an array of another shape or type.
    """
    if rate < 1:
        raise AudioError(source, f"has a sample rate of {rate} Hz, expected 1 or more")
    if samples.ndim not in (1, 2):
        raise AudioError(source, f"has the shape {samples.shape}, expected (samples,) or (samples, channels)")
    _refuse_longer(len(samples) / rate, source, limits)
    channels = samples if samples.ndim == 2 else samples[:, np.newaxis]
    into = io.BytesIO()
    _write([(rate, _mono(channels, source))], into, source, limits)
    return Audio(np.frombuffer(into.getbuffer(), np.float32), source)


def _opened(file: IO[bytes], name: str) -> InputContainer:
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "", "analyzeduration": LOOKED_FOR}
    try:
        return av.open(file, mode="r", options=options, metadata_errors="replace")
    except MemoryError:  # FFmpeg's too
        raise
    except av.FFmpegError as error:
        raise AudioError(name, "holds no audio that can be read", f"readable are {FORMATS}") from error


def _kind(container: InputContainer) -> str:
    """FFmpeg's first name of its format."""
    return container.format.name.partition(",")[0]


def _track(container: InputContainer, name: str) -> AudioStream:
    """The sound that players choose."""
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream) or stream.time_base is None:
        raise AudioError(name, "has no audio track")
    if stream.codec_context is None:
        raise AudioError(name, "holds audio of an unknown coding", f"readable are {FORMATS}")
    if stream.codec_context.name == "flac":
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return stream


def _timeline(container: InputContainer, limits: Limits, *, in_parts: bool) -> Timeline:
    """Players start at the earliest time stamp; in mp4 at 0, but for pieces of a live stream, whose clock goes on."""
    start = (container.start_time or 0) / av.time_base
    if _kind(container) == "mov":
        return Timeline(start if in_parts else 0.0)
    if _kind(container) == "ogg":
        return Timeline(start, longest_pause=JUMP if in_parts else math.inf)
    may_jump = bool(container.format.flags & TIMES_MAY_JUMP)
    # Sound alone does not show whether it pauses; what is longer than all it may last is no pause.
    return Timeline(start, longest_pause=limits.longest_seconds if may_jump else math.inf)


def _decode(
    container: InputContainer, track: AudioStream, timeline: Timeline, name: str, limits: Limits
) -> Iterator[tuple[int, Samples]]:
    """The sound of a track piece by piece, with the silence of its gaps: rate in Hz, mono samples."""
    kind = _kind(container)
    unit = track.time_base or Fraction(0)
    length = float(track.duration * unit) if track.duration else (container.duration or 0) / av.time_base
    length -= max(0.0, timeline.zero)  # live streams, which start late, declare when they end
    if kind in DECLARED and not timeline.may_jump:
        _refuse_longer(length, name, limits)
    total = track.duration or 0  # in flac, samples
    decoded, end = 0, 0
    try:
        for packet in _packets(container, track, timeline):
            if packet.pts is not None and packet.duration:
                end = packet.pts + packet.duration
            for frame in _frames(packet, kind):
                decoded += frame.samples
                time = float(frame.pts * unit) if frame.pts is not None and kind in CLOCKED else None
                silence = timeline.place(time, frame.samples / frame.sample_rate)
                if timeline.seconds > limits.longest_seconds:
                    _refuse_longer(max(timeline.seconds, length), name, limits)
                yield from _silence(silence, frame.sample_rate)
                yield frame.sample_rate, _mono(_channels(frame, name), name)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        if kind != "flac" or not 0 < total <= decoded:  # what stands behind the last frame is none of its sound
            raise AudioError(name, f"is damaged: decoding fails after {timeline.seconds:.2f} s") from error
    # FFmpeg leaves out damaged flac frames in silence; the header's total and the last frame's position tell.
    expected = max(total, end)
    if kind == "flac" and decoded < expected:
        raise AudioError(name, f"is damaged or cut short: {decoded} of {expected} samples can be decoded")


def _packets(container: InputContainer, track: AudioStream, timeline: Timeline) -> Iterator["av.Packet[AudioStream]"]:
    """The packets of the track. Where clocks may jump, the timeline learns the times of the picture as well."""
    if not timeline.may_jump:
        yield from container.demux(track)
        return
    for packet in container.demux(track, *container.streams.video):
        if packet.stream_index == track.index:
            yield cast("av.Packet[AudioStream]", packet)
        elif packet.dts is not None and packet.time_base is not None:
            timeline.pass_beside(float(packet.dts * packet.time_base))


def _silence(seconds: float, rate: int) -> Iterator[tuple[int, Samples]]:
    """Zeros, a second at a time."""
    left = round(seconds * rate)
    while left > 0:
        yield rate, np.zeros(min(left, rate), np.float32)
        left -= rate


def _frames(packet: "av.Packet[AudioStream]", kind: str) -> list[av.AudioFrame]:
    try:
        return packet.decode()
    except MemoryError:
        raise
    except av.FFmpegError:
        data = bytes(packet)
        if kind != "mp3" or frames.frame_length(data):
            raise
    # Tags and padding stand here, which `containers` has allowed; FFmpeg hands the frame behind them out with them.
    start = frames.last_frame(data)
    return packet.stream.codec_context.decode(av.Packet(data[start:])) if start < len(data) else []


def _channels(frame: av.AudioFrame, name: str) -> npt.NDArray[Any]:
    """The frame's samples as (n, channels)."""
    if frame.format.name in UNREAD:
        raise AudioError(name, "has samples of 64 bits, expected floats or integers of 8 to 32 bits")
    samples = frame.to_ndarray()
    return samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)


def _mono(samples: npt.NDArray[Any], name: str) -> Samples:
    """The plain mean of the channels of (n, channels), scaled so that full scale is ±1."""
    if not 1 <= samples.shape[1] <= MOST_CHANNELS:
        raise AudioError(name, f"has {samples.shape[1]} channels, expected 1 to {MOST_CHANNELS}")
    if samples.dtype.name not in INTEGERS and samples.dtype.kind != "f":
        raise AudioError(name, f"has samples of type {samples.dtype}, expected floats or one of {', '.join(INTEGERS)}")
    silence, full_scale = INTEGERS.get(samples.dtype.name, (0, 1))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused in the end
        scaled = (samples.astype(np.float32) - np.float32(silence)) / np.float32(full_scale)
        mono: Samples = scaled[:, 0] if scaled.shape[1] == 1 else scaled.mean(axis=1)
    return mono


def _resample(pieces: Iterable[tuple[int, Samples]]) -> Iterator[Samples]:
    """The pieces at 16 kHz, as if each stretch of one rate had been resampled at once."""
    for rate, stretch in itertools.groupby(pieces, key=itemgetter(0)):
        if rate == SAMPLE_RATE:
            yield from (samples for _, samples in stretch)
            continue
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for _, samples in stretch:
            yield resampler.resample_chunk(samples)
        yield resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _write(
    pieces: Iterable[tuple[int, Samples]],
    into: IO[bytes],
    name: str,
    limits: Limits,
    *,
    on_minute: Callable[[], None] = lambda: None,
) -> int:
    """Write the samples, at 16 kHz and within ±1, to an empty file; returns how many there are."""
    count, minutes, peak = 0, 1, np.float32(0)
    for samples in _resample(pieces):
        into.write(samples.tobytes())
        count += len(samples)
        if len(samples):
            peak = np.maximum(peak, np.abs(samples).max())  # NaN where one of them is
        if count > minutes * 60 * SAMPLE_RATE:
            minutes += 1
            on_minute()
    seconds = count / SAMPLE_RATE
    if not seconds or seconds < limits.shortest_seconds:
        raise AudioError(name, f"lasts {seconds:.3f} s, the minimum is {limits.shortest_seconds:g} s")
    if not math.isfinite(peak):
        raise AudioError(name, "holds samples that are infinite or not a number (NaN)")
    if peak > 1:
        _divide(into, peak)
    return count


def _divide(file: IO[bytes], divisor: np.float32) -> None:
    """Divide all samples in a file; it is left at its end."""
    start = file.seek(0)
    while piece := file.read(PIECE):
        file.seek(start)
        start += file.write((np.frombuffer(piece, np.float32) / divisor).tobytes())


def _refuse_longer(seconds: float, name: str, limits: Limits) -> None:
    if seconds > limits.longest_seconds + CODEC_PADDING:
        raise _too_long(seconds, name, limits)


def _too_long(seconds: float, name: str, limits: Limits) -> TooLongError:
    reason = f"lasts {seconds:.1f} s, the limit is {limits.longest_seconds:g} s"
    return TooLongError(name, reason, "cut it, or set ASR_MAX_AUDIO_SECONDS")


def try_out() -> None:
    """Decode what is sound and what is none, so that everything is loaded that is loaded at its first use."""
    arguments = {"name": "", "longest_seconds": 1.0, "shortest_seconds": 0.1, "cpu_per_second": 0.0}
    for content in (wav_bytes(np.zeros(4000, np.float32), rate=8000), b"RIFF"):
        with contextlib.suppress(AudioError):
            decode(io.BytesIO(content), io.BytesIO(), arguments, lambda _: None)

"""Any audio that comes in → 16 kHz mono float32, whole or refused.

PyAV decodes (its wheels bring FFmpeg along), soxr resamples, both piece by piece: hours of audio take little more
memory than the result. What the samples become on the way (mean of the channels, soxr HQ, division by a peak over 1)
is what qwen-asr 0.0.6 does in `inference/utils.py`, so that the model hears the same.
"""

import io
import itertools
import math
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import av
import numpy as np
import numpy.typing as npt
import soxr
from av.audio.stream import AudioStream

from runtime import containers, fetch
from runtime.errors import KitError

SAMPLE_RATE = 16_000  # Hz, what the feature extractor takes
MOST_CHANNELS = 8

# FFmpeg's names. No other demuxer may open a file: some (hls, concat) would follow the names of further files in it.
DEMUXERS = {"wav", "flac", "ogg", "mp3", "aac", "mov", "matroska"}
FORMATS = "wav, flac, ogg (opus, vorbis), mp3, aac, m4a, mp4 and webm"
# For mp3 and aac FFmpeg guesses the duration from the bit rate.
GUESSED = {"mp3", "aac"}

# What stands for silence, and the distance from there to full scale.
INTEGERS = {"uint8": (128, 2**7), "int8": (0, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}

FETCHED_IN_MEMORY = 1 << 20  # bytes of what a URL answers; the rest is in a file without a name
CODEC_PADDING = 0.25  # seconds; what encoders add to fill their last frame does not count against the limit

Samples = npt.NDArray[np.float32]


class AudioError(KitError):
    """Audio that cannot be used, with the reason."""


class TooLongError(AudioError):
    """Audio that lasts longer than it may."""


@dataclass(frozen=True)
class Limits:
    """What is accepted. Seconds and bytes; the last three are for URLs."""

    longest_seconds: float = 4 * 3600.0
    shortest_seconds: float = 0.1
    url_seconds: float = 60.0
    url_bytes: int = 512 << 20
    allow_private_urls: bool = False


@dataclass(frozen=True, eq=False)
class Audio:
    """`samples` are 16 kHz mono float32 of shape (n,), within ±1; `source` is the name to show to people."""

    samples: Samples
    source: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / SAMPLE_RATE


def load(source: str | Path | bytes | IO[bytes], *, limits: Limits, name: str = "audio") -> Audio:
    """Audio from a path, an http(s) URL, an open seekable file or the bytes of one, which errors call `name`.

    Any sample rate, 1 to 8 channels, in one of FORMATS; of a video, the sound track that players choose. An open file
    is read from its start and stays open. Raises AudioError for what is missing, unreadable, damaged, cut short or too
    short, TooLongError for what is too long, and what `fetched` raises for a URL that cannot be had.
    """
    if isinstance(source, str) and "://" in source:
        with SpooledTemporaryFile(max_size=FETCHED_IN_MEMORY) as body:
            fetched(source, body, limits=limits)
            return _load(body, fetch.shown(source), limits)
    if isinstance(source, bytes):
        return _load(io.BytesIO(source), name, limits)
    if not isinstance(source, str | Path):
        return _load(source, name, limits)
    with _open(Path(source), str(source)) as file:
        return _load(file, str(source), limits)


def fetched(url: str, into: IO[bytes], *, limits: Limits) -> None:
    """Fetch what is at an http(s) URL, within the limits, into a file. Raises `runtime.fetch.FetchError`, and
    `runtime.fetch.StorageError` where the file takes no more."""
    fetch.fetch(
        url,
        into,
        seconds=limits.url_seconds,
        most_bytes=limits.url_bytes,
        permitted=fetch.anywhere if limits.allow_private_urls else fetch.is_public,
    )


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
    return _collect([(rate, _mono(channels, source))], source, limits)


def _open(path: Path, name: str) -> IO[bytes]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise AudioError(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise AudioError(name, "is a directory" if stat.S_ISDIR(mode) else "is not a regular file")


def _load(file: IO[bytes], name: str, limits: Limits) -> Audio:
    try:
        file.seek(0)
        if not file.read(1):
            raise AudioError(name, "is empty (0 bytes)")
        if fault := containers.fault(file):
            advice = "fetch or record it again, or save what is left with `ffmpeg -i FILE rest.wav`"
            raise AudioError(name, fault, advice)
        return _collect(_decode(file, name, limits), name, limits)
    except OSError as error:
        raise AudioError(name, f"cannot be read: {error.strerror}") from error


def _decode(file: IO[bytes], name: str, limits: Limits) -> Iterator[tuple[int, Samples]]:
    """The sound in a file piece by piece: rate in Hz, mono samples."""
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": ""}
    try:
        container = av.open(file, mode="r", options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        raise AudioError(name, "holds no audio that can be read", f"readable are {FORMATS}") from error
    with container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream) or stream.time_base is None:
            raise AudioError(name, "has no audio track")
        if stream.codec_context is None:
            raise AudioError(name, "holds audio of an unknown coding", f"readable are {FORMATS}")
        kind = container.format.name
        length = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        if kind not in GUESSED:
            _refuse_longer(length, name, limits)
        if stream.codec_context.name == "flac":
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        decoded, seconds, end = 0, 0.0, 0
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.duration:
                    end = packet.pts + packet.duration
                for frame in _frames(packet, kind):
                    decoded += frame.samples
                    seconds += frame.samples / frame.sample_rate
                    if seconds > limits.longest_seconds:
                        _refuse_longer(max(seconds, length), name, limits)
                    yield frame.sample_rate, _mono(_channels(frame), name)
        except av.FFmpegError as error:
            raise AudioError(name, f"is damaged: decoding fails after {seconds:.2f} s") from error
        # FFmpeg leaves out damaged flac frames in silence; the header's total and the last frame's position tell.
        expected = max(stream.duration or 0, end)
        if kind == "flac" and decoded < expected:
            raise AudioError(name, f"is damaged or cut short: {decoded} of {expected} samples can be decoded")


def _frames(packet: "av.Packet[AudioStream]", kind: str) -> list[av.AudioFrame]:
    try:
        return packet.decode()
    except av.FFmpegError:
        data = bytes(packet)
        if kind != "mp3" or containers.frame_length(data):
            raise
    # Tags and padding stand here, which `containers` has allowed; FFmpeg hands the frame behind them out with them.
    start = containers.last_frame(data)
    return packet.stream.codec_context.decode(av.Packet(data[start:])) if start < len(data) else []


def _channels(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """The frame's samples as (n, channels)."""
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


def _collect(pieces: Iterable[tuple[int, Samples]], name: str, limits: Limits) -> Audio:
    collected = bytearray()  # grows in place, where joining a list of arrays would need all of it twice
    for samples in _resample(pieces):
        collected += samples.tobytes()
    samples = np.frombuffer(collected, dtype=np.float32)
    seconds = len(samples) / SAMPLE_RATE
    if not seconds or seconds < limits.shortest_seconds:
        raise AudioError(name, f"lasts {seconds:.3f} s, the minimum is {limits.shortest_seconds:g} s")
    peak = max(float(samples.max()), -float(samples.min()))
    if not math.isfinite(peak):
        raise AudioError(name, "holds samples that are infinite or not a number (NaN)")
    if peak > 1:
        samples /= np.float32(peak)
    return Audio(samples, name)


def _refuse_longer(seconds: float, name: str, limits: Limits) -> None:
    if seconds > limits.longest_seconds + CODEC_PADDING:
        reason = f"lasts {seconds:.1f} s, the limit is {limits.longest_seconds:g} s"
        raise TooLongError(name, reason, "cut it, or set ASR_MAX_AUDIO_SECONDS")

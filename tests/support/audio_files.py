"""Media files made on the spot, in every format the kit reads, and the ways in which they break."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from runtime.audio import SAMPLE_RATE, Audio

Array = npt.NDArray[Any]

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class Pipe:
    """What a recorder writes to that cannot go back: no seeking."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> int:
        self.written += data
        return len(data)


def speechlike(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> npt.NDArray[np.float32]:
    """Noise through the bands of speech, swelling about four times a second: shape (n, channels), peak 0.5."""
    rng = np.random.default_rng(seed)
    length = round(seconds * rate)
    frequency = np.fft.rfftfreq(length, 1 / rate)
    shape = np.exp(-(((frequency - 900) / 700) ** 2))
    spectrum = np.fft.rfft(rng.standard_normal((channels, length))) * shape
    time = np.arange(length) / rate
    samples = np.fft.irfft(spectrum, length) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    return np.ascontiguousarray((samples / np.abs(samples).max() / 2).T.astype(np.float32))


def clicks(seconds: float, rate: int, times: Sequence[float]) -> npt.NDArray[np.float32]:
    """Silence with a short tone of 2 kHz at each of these times: shape (n, 1)."""
    samples = np.zeros(round(seconds * rate), np.float32)
    tone = 0.7 * np.sin(2 * np.pi * 2000 * np.arange(round(0.03 * rate)) / rate)
    for time in times:
        start = round(time * rate)
        samples[start : start + len(tone)] = tone
    return samples[:, np.newaxis]


def heard_clicks(audio: Audio) -> list[float]:
    """When those tones are heard, in seconds on the player's clock."""
    loud = np.flatnonzero(np.abs(audio.samples) > 0.25 * np.abs(audio.samples).max())
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-(10**6)) > 0.1 * SAMPLE_RATE)]
    return [audio.time_at(int(start)) for start in starts]


def sndfile(samples: Array, rate: int, *, container: str, subtype: str) -> bytes:
    """A file written by libsndfile; samples of shape (n, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def wav(samples: Array, rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    """A wav file written by libsndfile."""
    return sndfile(samples, rate, container="WAV", subtype=subtype)


def ffmpeg(
    samples: Array,
    rate: int,
    *,
    container: str,
    codec: str,
    video: bool = False,
    piped: bool = False,
    **options: str,
) -> bytes:
    """A file written by FFmpeg: samples of shape (n, channels), with a moving picture beside them if `video`.

    `piped` writes it as a recorder does that cannot go back and fill in sizes.
    """
    if piped:
        pipe = Pipe()
        _write(pipe, samples, rate, container, codec, video, options)
        return bytes(pipe.written)
    with TemporaryDirectory() as folder:  # "faststart" reads again what it has written, by its name
        path = Path(folder) / "file"
        _write(str(path), samples, rate, container, codec, video, options)
        return path.read_bytes()


def _write(
    file: Any, samples: Array, rate: int, container: str, codec: str, video: bool, options: dict[str, str]
) -> None:
    with av.open(file, mode="w", format=container, options=options) as out:
        sound = _add_sound(out, samples, rate, codec)
        if video:
            _add_picture(out, len(samples) / rate)
        out.mux(_packets(sound, samples, rate))


def _add_sound(out: OutputContainer, samples: Array, rate: int, codec: str) -> AudioStream:
    sound = out.add_stream(codec, rate=rate, layout=LAYOUTS[samples.shape[1]])
    assert isinstance(sound, AudioStream)
    if codec in ("wmav1", "wmav2"):  # know no default
        sound.bit_rate = 128_000
    return sound


def _packets(sound: AudioStream, samples: Array, rate: int) -> list["av.Packet[AudioStream]"]:
    integers = np.round(samples * 32767).astype(np.int16).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(integers, format="s16", layout=LAYOUTS[samples.shape[1]])
    frame.sample_rate, frame.pts = rate, 0
    return [*sound.encode(frame), *sound.encode()]


def timed(
    samples: Array,
    rate: int,
    when: Callable[[float], float],
    *,
    container: str,
    codec: str,
    video: float = 0.0,
    **options: str,
) -> bytes:
    """A file whose sound packets carry the times that `when` gives for those they would have, in seconds.

    Beside them, a picture that starts at 0 and lasts `video` seconds; `output_ts_offset` delays both.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with av.open(str(path), mode="w", format=container, options=options) as out:
            sound = _add_sound(out, samples, rate, codec)
            packets: list[av.Packet[Any]] = _picture(out, video) if video else []
            for packet in _packets(sound, samples, rate):
                assert packet.pts is not None
                assert packet.time_base is not None
                moved = when(float(packet.pts * packet.time_base))
                packet.pts = packet.dts = round(Fraction(moved) / packet.time_base)
                packets.append(packet)
            out.mux(sorted(packets, key=_decoding_time))  # as recorders do, which cannot wait
        return path.read_bytes()


PICTURES = {"webm": "libvpx", "flv": "flv", "asf": "wmv2", "mpeg": "mpeg2video"}


def _decoding_time(packet: "av.Packet[Any]") -> Fraction:
    assert packet.dts is not None
    assert packet.time_base is not None
    return packet.dts * packet.time_base


def _add_picture(out: OutputContainer, seconds: float) -> None:
    out.mux(_picture(out, seconds))


def _picture(out: OutputContainer, seconds: float) -> list["av.Packet[VideoStream]"]:
    picture = out.add_stream(PICTURES.get(out.format.name, "mpeg4"), rate=10)
    assert isinstance(picture, VideoStream)
    picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
    packets = []
    for number in range(int(seconds * 10)):
        image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 9 % 256, dtype=np.uint8))
        image.pts, image.time_base = number, Fraction(1, 10)
        packets += picture.encode(image)
    return packets + picture.encode(None)


def silent_film(seconds: float) -> bytes:
    """An mp4 without a sound track."""
    file = io.BytesIO()
    with av.open(file, mode="w", format="mp4") as out:
        _add_picture(out, seconds)
    return file.getvalue()


def with_subtitles(samples: Array, rate: int) -> bytes:
    """A Matroska file of sound and subtitles."""
    file = io.BytesIO()
    with av.open(file, mode="w", format="matroska") as out:
        sound = _add_sound(out, samples, rate, "aac")
        line = av.Packet(b"Hello")
        line.stream, line.time_base = out.add_mux_stream("subrip"), Fraction(1, 1000)
        line.pts = line.dts = 0
        line.duration = 500
        out.mux([line, *_packets(sound, samples, rate)])
    return file.getvalue()


RECIPES: dict[str, Callable[[Array, int], bytes]] = {
    "16 bit.wav": partial(sndfile, container="WAV", subtype="PCM_16"),
    "float.wav": partial(sndfile, container="WAV", subtype="FLOAT"),
    "over 4 GB.wav": partial(sndfile, container="RF64", subtype="PCM_24"),
    "libsndfile.flac": partial(sndfile, container="FLAC", subtype="PCM_24"),
    "ffmpeg.flac": partial(ffmpeg, container="flac", codec="flac"),
    "piped.flac": partial(ffmpeg, container="flac", codec="flac", piped=True),
    "vorbis.ogg": partial(sndfile, container="OGG", subtype="VORBIS"),
    "libsndfile.opus": partial(sndfile, container="OGG", subtype="OPUS"),
    "ffmpeg.opus": partial(ffmpeg, container="ogg", codec="libopus"),
    "libsndfile.mp3": partial(sndfile, container="MP3", subtype="MPEG_LAYER_III"),
    "ffmpeg.mp3": partial(ffmpeg, container="mp3", codec="libmp3lame"),
    "bare.mp3": partial(ffmpeg, container="mp3", codec="libmp3lame", piped=True, id3v2_version="0"),
    "aac.m4a": partial(ffmpeg, container="ipod", codec="aac"),
    "for the web.m4a": partial(ffmpeg, container="ipod", codec="aac", movflags="faststart"),
    "fragments.mp4": partial(ffmpeg, container="mp4", codec="aac", movflags="frag_keyframe+empty_moov"),
    "adts.aac": partial(ffmpeg, container="adts", codec="aac"),
    "opus.webm": partial(ffmpeg, container="webm", codec="libopus"),
    "browser.webm": partial(ffmpeg, container="webm", codec="libopus", piped=True),
    "film.mp4": partial(ffmpeg, container="mp4", codec="aac", video=True),
    "film.webm": partial(ffmpeg, container="webm", codec="libopus", video=True),
    "libsndfile.aiff": partial(sndfile, container="AIFF", subtype="PCM_16"),
    "libsndfile.caf": partial(sndfile, container="CAF", subtype="PCM_24"),
    "libsndfile.au": partial(sndfile, container="AU", subtype="PCM_16"),
    "libsndfile.w64": partial(sndfile, container="W64", subtype="PCM_16"),
    "alac.mov": partial(ffmpeg, container="mov", codec="alac"),
    "phone.3gp": partial(ffmpeg, container="3gp", codec="aac"),
    "film.mkv": partial(ffmpeg, container="matroska", codec="aac", video=True),
    "film.avi": partial(ffmpeg, container="avi", codec="libmp3lame", video=True),
    "film.flv": partial(ffmpeg, container="flv", codec="aac", video=True),
    "film.wmv": partial(ffmpeg, container="asf", codec="wmav2", video=True),
    "windows.wma": partial(ffmpeg, container="asf", codec="wmav2"),
    "camera.ts": partial(ffmpeg, container="mpegts", codec="aac", video=True),
    "film.mpg": partial(ffmpeg, container="mpeg", codec="mp2", video=True),
    "dolby.ac3": partial(ffmpeg, container="ac3", codec="ac3"),
    "dolby.eac3": partial(ffmpeg, container="eac3", codec="eac3"),
}
EXACT = (".wav", ".flac", ".aiff", ".caf", ".au", ".w64", "alac.mov")
LOSSLESS = {name for name in RECIPES if name.endswith(EXACT)}


@cache
def made(name: str, seconds: float = 1.5) -> bytes:
    """A file of that name in RECIPES: the same stereo sound at 48 kHz in each."""
    return RECIPES[name](speechlike(seconds, 48_000, 2), 48_000)

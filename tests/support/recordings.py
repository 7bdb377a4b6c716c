"""Bundled clips put together to longer recordings."""

from collections.abc import Iterable

import numpy as np
from audio_files import sndfile

from runtime.audio import SAMPLE_RATE, Samples
from runtime.demo import Clip
from runtime.transcriber import Request, Transcriber


def joined(clips: Iterable[Clip], transcriber: Transcriber) -> bytes:
    """The clips one after the other as a WAV file, 0.6 s of silence after each."""
    pause = np.zeros(int(0.6 * SAMPLE_RATE), dtype=np.float32)
    pieces = [part for clip in clips for part in (transcriber.prepare(Request(clip.path)).audio.samples, pause)]
    return wav(np.concatenate(pieces))


def wav(samples: Samples) -> bytes:
    """Samples of shape (n,) at 16 kHz as a WAV file, none of them rounded."""
    return sndfile(samples[:, np.newaxis], SAMPLE_RATE, container="WAV", subtype="FLOAT")

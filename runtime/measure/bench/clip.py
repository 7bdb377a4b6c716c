"""The clip that the benchmark hears."""

from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from runtime import audio
from runtime.audio import Limits
from runtime.demo import bundled_clips
from runtime.engines import Utterance
from runtime.transcriber import Prepared, Request, Transcriber
from runtime.weights import catalog
from runtime.weights.catalog import place

OFFICIAL = "asr_zh.wav"  # of env/weights.toml; the first validation timed it
SECONDS = 4.2  # its length


def chosen(settings: Settings, wanted: Path | None = None) -> Path:
    """The clip wanted, else the official one of 4.2 s if it was fetched, else the bundled one of about its length."""
    if wanted:
        return wanted
    official = place(settings, catalog.load()).clips / OFFICIAL
    if official.is_file():
        return official
    spoken = [clip.path for clip in bundled_clips() if clip.language]
    return min(spoken, key=lambda path: abs(audio.load(path, limits=Limits()).seconds - SECONDS))


def only(prepared: Prepared) -> Utterance:
    """The one utterance of a clip. Raises KitError where it is silent, or so long that it is cut into several."""
    source = prepared.audio.source
    if not prepared.spoken:
        raise KitError(source, "is silent, and the model is not asked about silence", "give a --clip with speech")
    if len(prepared.cuts) > 1:
        reason = f"is cut into {len(prepared.cuts)} segments, and this is measured of one"
        raise KitError(source, reason, "give a shorter --clip, or raise ASR_SEGMENT_SECONDS")
    return prepared.spoken[0]


def utterance(transcriber: Transcriber, path: Path) -> Utterance:
    """The one utterance of a file. Raises KitError like `only`, and where the file cannot be used."""
    return only(transcriber.prepare(Request(path)))

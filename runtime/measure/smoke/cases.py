"""Which clips: the demo model's own, which hears nothing else, or the official ones for any other model."""

from dataclasses import dataclass
from pathlib import Path

from env.settings import DEMO, Settings
from runtime.demo import Clip, bundled_clips
from runtime.measure.smoke.record import Verdict
from runtime.weights import catalog
from runtime.weights import clips as official_clips
from runtime.weights.catalog import place, shown


@dataclass(frozen=True)
class Cases:
    """`judged` are clips whose words are compared, `missing` what is said of those that are not there, `sounds` what
    the checks beyond the clips hear, one clip or more."""

    judged: tuple[Clip, ...]
    missing: tuple[Verdict, ...]
    sounds: tuple[Clip, ...]


def cases(settings: Settings, model: str) -> Cases:
    """The clips for a model, by the name that the settings or a server give it. Fetches official ones that are not
    there, which fails in words."""
    if model == DEMO:
        clips = tuple(bundled_clips())
        return Cases(clips, (), clips)
    known = catalog.load()
    return official(known.clips, place(settings, known).clips)


def official(clips: tuple[catalog.Clip, ...], directory: Path) -> Cases:
    """The official clips. Without them, the checks hear bundled speech, of which they do not compare the words with
    anything but itself."""
    fault = official_clips.fetch_clips(clips, directory)
    absent = official_clips.missing_clips(clips, directory) if fault else []
    judged = tuple(Clip(directory / clip.name, clip.language, clip.text) for clip in clips if clip not in absent)
    missing = tuple(_missing(clip, directory, fault) for clip in absent)
    speech = (clip for clip in bundled_clips() if clip.language and not clip.context)
    return Cases(judged, missing, judged or tuple(speech))


def _missing(clip: catalog.Clip, directory: Path, fault: str) -> Verdict:
    where = f"fetch {clip.url} and put it into {shown(directory)} ({clip.record}), or invoke fetch-weights"
    return Verdict(
        clip.name, 0.0, clip.language, None, clip.text, "", 1.0, 0.0, f"is not there, and not to be had: {fault}", where
    )

"""The smoke test of any other model than the demo: by the official clips, or with words about how to have them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.faults import Status
from hub.server import REPO, serving
from invoke import Context, Exit
from smoke_runs import failures, smoked

from runtime.demo import CHECKPOINT, Clip
from runtime.measure import records
from runtime.measure.records import here
from runtime.measure.smoke.backends import ModelBackend
from runtime.measure.smoke.record import SMOKE, Smoke
from runtime.measure.smoke.run import official
from runtime.tasks import model as tasks
from runtime.transcriber import Transcriber
from runtime.weights import catalog
from runtime.weights.lockfile import LockedFile, digest


@pytest.fixture
def model(transcriber: Transcriber) -> ModelBackend:
    """The demo model in this process."""
    return ModelBackend(transcriber, here(transcriber.settings, transcriber.device))


@pytest.fixture
def known(speech: list[Clip]) -> Iterator[tuple[catalog.RemoteClip, ...]]:
    """Two clips on a stand-in for the internet, of which it has one."""
    here = {clip.language: clip for clip in speech}
    with serving({"asr_en.wav": here["English"].path.read_bytes()}) as hub:
        hub.faults = [Status("asr_zh", times=9, status=404)]
        yield tuple(
            catalog.RemoteClip(
                name, f"{hub.url}/{REPO}/{name}", sums(clip.path), str(clip.language), f"{clip.text.capitalize()}."
            )
            for name, clip in (("asr_en.wav", here["English"]), ("asr_zh.wav", here["Chinese"]))
        )


def sums(path: Path) -> LockedFile:
    """A file's record."""
    return digest(path, size=path.stat().st_size).record


def test_official_clips_are_fetched_and_judged_by_error_rate(
    model: ModelBackend, known: tuple[catalog.RemoteClip, ...], tmp_path: Path
) -> None:
    found = smoked(model, official(known[:1], tmp_path))
    assert failures(found) == []
    assert [verdict.error_rate for verdict in found.verdicts] == [0]
    assert {check.check: check.found for check in found.checks}["context"] == "the text stays"
    assert sums(tmp_path / "asr_en.wav") == known[0].record


def test_official_clips_that_are_not_to_be_had_fail_in_words(
    model: ModelBackend, known: tuple[catalog.RemoteClip, ...], tmp_path: Path
) -> None:
    (tmp_path / "asr_zh.wav").write_bytes(b"<html>")
    found = smoked(model, official(known[1:], tmp_path))
    (verdict,) = found.verdicts
    assert re.search(r"is not there, and not to be had: .*404", verdict.fault)
    assert all(words in verdict.advice for words in (known[1].url, known[1].record.sha256, str(tmp_path)))
    assert failures(found) == ["asr_zh.wav"]
    (both, only) = (official(known, tmp_path), known[0].name)
    assert [clip.path.name for clip in both.judged] == [clip.path.name for clip in both.sounds] == [only]
    assert [missing.clip for missing in both.missing] == ["asr_zh.wav"]


def test_any_other_model_is_judged_by_the_official_clips(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(reference / "clips", tmp_path / "clips")
    shutil.copytree(CHECKPOINT, tmp_path / "model")
    for name, value in {"ASR_MODEL": tmp_path / "model", "ASR_DEVICE": "cpu", "ASR_OUT_DIR": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(Exit, match="failed, as said above") as ended:
        tasks.smoke(Context())
    assert ended.value.code == 1
    record = records.read(tmp_path / "smoke.json", Smoke, SMOKE)
    assert not record.passed
    assert [(verdict.clip, verdict.expected_language) for verdict in record.verdicts] == [
        ("asr_en.wav", "English"),
        ("asr_zh.wav", "Chinese"),
    ]
    said = capsys.readouterr().out
    for verdict in record.verdicts:
        assert "error rate" in verdict.fault  # it hears nothing but its own vocabulary
        assert verdict.advice.startswith("invoke verify-weights, invoke versions; the same again: invoke transcribe ")
        assert f"{verdict.clip}: {verdict.fault} → {verdict.advice}" in said

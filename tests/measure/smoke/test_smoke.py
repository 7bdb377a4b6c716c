"""The smoke test in this process: what passes, what fails and says so, and which clips it takes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from serving import HeldDecoding, HeldEngine
from simulated_npu import on_npu
from smoke_runs import failures, smoked

from env.settings import DEMO
from env.sources import load_settings
from runtime.demo import Clip
from runtime.engines import Engine, EngineError, Utterance
from runtime.measure import records
from runtime.measure.records import Where, here
from runtime.measure.smoke import record
from runtime.measure.smoke.backends import ModelBackend, SmokeRequest
from runtime.measure.smoke.record import CHECKS, SMOKE, Smoke
from runtime.measure.smoke.run import Cases, cases, run, steps
from runtime.transcriber import Transcriber, open_transcriber

AGAIN = "the same again: invoke transcribe runtime/demo/clips/"


@pytest.fixture
def model(transcriber: Transcriber) -> ModelBackend:
    """The demo model in this process."""
    return ModelBackend(transcriber, here(transcriber.settings, transcriber.device))


def few(clips: list[Clip], *names: str) -> Cases:
    """Some of the bundled clips."""
    chosen = tuple(clip for name in names for clip in clips if clip.path.stem == name)
    return Cases(chosen, (), chosen)


def test_all_that_there_is_to_check_is_checked_and_kept(model: ModelBackend, tmp_path: Path) -> None:
    which = cases(model.transcriber.settings, DEMO)
    found = smoked(model, which)
    assert found.passed
    assert [check.check for check in found.checks] == list(CHECKS)
    assert [(verdict.clip, verdict.text) for verdict in found.verdicts] == [(c.path.name, c.text) for c in which.judged]
    assert all(0 < verdict.rtf < 60 and verdict.seconds > 1 for verdict in found.verdicts)
    said = {check.check: check.found for check in found.checks}
    assert said["context"] == "sarah → sara"
    assert said["other-language"] == "Chinese"
    assert said["batch"] == f"{len(which.sounds)} of {len(which.sounds)} as alone"
    records.write(tmp_path / "smoke.json", found)
    assert records.read(tmp_path / "smoke.json", Smoke, SMOKE) == found


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"text": "cheese"}, r"error rate 200%, at most 10% expected"),
        ({"language": "Chinese"}, r"language English, expected Chinese"),
        ({"language": None, "text": ""}, r"language English, expected None; error rate 100%"),
        ({"path": Path("missing.wav")}, r"missing\.wav.*: No such file"),
    ],
)
def test_a_clip_that_says_something_else_fails(
    model: ModelBackend, clips: list[Clip], changes: dict[str, object], fault: str
) -> None:
    good = few(clips, "english-2")
    found = smoked(model, replace(good, judged=(replace(good.judged[0], **changes),)))  # type: ignore[arg-type]
    assert not found.passed
    (verdict,) = found.verdicts
    assert re.search(fault, verdict.fault)
    assert verdict.advice.startswith("invoke versions")
    assert "invoke transcribe" in verdict.advice
    assert all(check.passed for check in found.checks)


def written_for(form: str, change: Callable[[str], str]) -> Callable[[SmokeRequest, str], str]:
    """What is written in one format becomes something else."""
    return lambda ask, written: change(written) if ask.form == form else written


WRONG_ANSWERS: dict[str, tuple[Callable[[SmokeRequest, str], str], list[str], str]] = {
    "half the text": (written_for("text", lambda said: said[: len(said) // 2]), ["text"], "error rate of"),
    "no length": (
        written_for("verbose_json", lambda said: said.replace("duration", "d")),
        ["verbose_json"],
        "duration: Field required",
    ),
    "no json": (written_for("verbose_json", lambda _: "<html>"), ["verbose_json"], "Invalid JSON"),
    "late cue": (
        written_for("srt", lambda said: said.replace("00:00:0", "00:01:0")),
        ["srt"],
        "cue 1 is from 60.720 to 61.776 s",
    ),
    "cue without number": (written_for("srt", lambda said: said[2:]), ["srt"], "instead of its number"),
    "no cue": (written_for("srt", lambda _: ""), ["srt"], "instead of"),
    "cue without times": (written_for("srt", lambda said: said.replace(",", ".")), ["srt"], "instead of a cue's times"),
    "no head": (written_for("vtt", lambda said: said.replace("WEBVTT", "vtt")), ["vtt"], "instead of WEBVTT"),
    "talk in silence": (
        lambda ask, said: said.replace('"text": ""', '"text": "Ascend"') if isinstance(ask.source, bytes) else said,
        ["silence"],
        "text in silence: 'Ascend'",
    ),
}


@dataclass(frozen=True)
class Altered:
    """A model whose questions or answers are changed on the way."""

    model: ModelBackend
    answer: Callable[[SmokeRequest, str], str] = lambda _, written: written
    question: Callable[[SmokeRequest], SmokeRequest] = lambda ask: ask
    asked: list[SmokeRequest] = field(default_factory=list)

    @property
    def where(self) -> Where:
        return self.model.where

    @property
    def suspects(self) -> str:
        return self.model.suspects

    def hear(self, ask: SmokeRequest) -> str:
        self.asked.append(ask)
        return self.answer(ask, self.model.hear(self.question(ask)))

    def again(self, ask: SmokeRequest) -> str:
        return self.model.again(ask)


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
def test_each_check_fails_where_it_should(model: ModelBackend, clips: list[Clip], wrong: str) -> None:
    answer, failing, fault = WRONG_ANSWERS[wrong]
    found = smoked(Altered(model, answer), few(clips, "english-2"))
    assert failures(found) == failing
    (failed,) = found.failed
    assert fault in failed.fault
    assert failed.advice.startswith("invoke versions")


def test_what_is_accepted_and_ignored_is_noticed(model: ModelBackend, clips: list[Clip]) -> None:
    deaf = Altered(model, question=lambda ask: replace(ask, language=None, context=""))
    found = smoked(deaf, few(clips, "english-2", "english-hotword"))
    assert failures(found) == ["other-language", "context", "english-hotword.wav"]
    faults = {check.check: check for check in found.checks if not check.passed}
    assert faults["other-language"].fault == "language English, although Chinese was forced"
    assert faults["other-language"].advice.endswith(f"{AGAIN}english-2.wav --language Chinese --format json")
    assert "'sara' as context does not bring its spelling" in faults["context"].fault


def test_an_answer_that_changes_in_a_batch_is_noticed(model: ModelBackend, clips: list[Clip]) -> None:
    def mixed_up(ask: SmokeRequest, written: str) -> str:
        """The second clip is asked for once alone, and then in the batch."""
        return written.replace("飞机", "飞") if heard.asked.count(ask) > 1 else written

    heard = Altered(model, mixed_up)
    found = smoked(heard, few(clips, "english-2", "chinese-2"))
    assert failures(found) == ["batch"]
    assert "chinese-2.wav: '飞商店' instead of '飞机商店'" in next(found.failed).fault


class BrokenEngine(HeldEngine):
    """Fails at whatever it is given."""

    def __init__(self, real: Engine, failure: Exception) -> None:
        super().__init__(real)
        self._failure = failure

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[HeldDecoding]:
        decodings = super().submit(utterances)
        for decoding in decodings:
            decoding.tell(self._failure)
        return decodings


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (TypeError("unexpected keyword argument 'multimodal_config'"), "TypeError: unexpected keyword argument"),
        (EngineError("the engine", "has failed"), "the engine: has failed"),
    ],
)
def test_an_engine_that_fails_is_a_verdict(
    model: ModelBackend, clips: list[Clip], failure: Exception, words: str
) -> None:
    broken = replace(model.transcriber, engine=BrokenEngine(model.transcriber.engine, failure))
    found = smoked(ModelBackend(broken, model.where), few(clips, "english-2"))
    assert found.head.complete
    assert set(failures(found)) == {*CHECKS, "english-2.wav"} - {"silence"}
    assert all(words in failed.fault and "invoke versions" in failed.advice for failed in found.failed)


def test_ctrl_c_keeps_what_was_found(model: ModelBackend, clips: list[Clip]) -> None:
    which = few(clips, "english-2")
    found = smoked(model, which, interrupted_after=2)
    assert found.head.ended == f"interrupted after 2 of {len(steps(model, which))} steps"
    assert (found.passed, len(found.verdicts), len(found.checks)) == (False, 1, 1)


def test_a_harmful_context_is_noticed(model: ModelBackend, clips: list[Clip]) -> None:
    def talkative(ask: SmokeRequest, written: str) -> str:
        return written.replace("bread", "Ascend") if ask.context and not isinstance(ask.source, bytes) else written

    found = smoked(Altered(model, talkative), few(clips, "english-2"))
    assert failures(found) == ["context"]
    assert next(found.failed).fault == "Ascend is in the text, which only the context holds"


@on_npu
def test_the_record_tells_the_simulated_npu_from_a_real_one() -> None:
    from runtime.demo import bundled_clips

    settings = load_settings({"ASR_DEVICE": "npu:0", "ASR_DTYPE": "bfloat16"})
    with open_transcriber(settings) as opened:
        model = ModelBackend(opened, here(settings, opened.device))
        first, clip, *_ = steps(model, few(bundled_clips(), "english-2"))
        found = run([first, clip], model, records.RunClock(), on_outcome=lambda _: None)
    assert found.passed
    assert found.head.where.silicon == "simulated NPU"
    assert record.ran_on(found.head.where).startswith("On the simulated NPU, no real one: npu:0 (")
    assert model.suspects == "invoke versions, ASR_DTYPE=float32 invoke smoke"

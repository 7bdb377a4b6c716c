"""A data set through the model: what is counted, what cannot be used, and what the exit code says."""

import itertools
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import jiwer
import numpy as np
import pytest
from accurate import measured, write_manifest
from invoke import Context, Exit, Program
from reference import read_json
from serving import served

from env.settings import Settings
from runtime.audio import SAMPLE_RATE, Audio, Limits
from runtime.demo import Clip
from runtime.measure.accuracy import backends, published
from runtime.measure.accuracy.backends import SECONDS, ahead
from runtime.measure.accuracy.dataset import DataSet, Item
from runtime.measure.accuracy.journal import UtteranceOutcome
from runtime.measure.accuracy.layouts import read
from runtime.measure.accuracy.run import RunObserver, RunOptions, picked, run
from runtime.tasks.evidence import accuracy
from runtime.transcriber import Source, Transcriber
from tasks import namespace


@pytest.fixture
def manifest(clips: list[Clip], tmp_path: Path) -> Callable[..., Path]:
    """Writes a manifest, see `write_manifest`."""
    return partial(write_manifest, tmp_path, clips)


def test_it_gives_the_numbers_of_the_models_card(transcriber: Transcriber, tmp_path: Path) -> None:
    """What its maker's arithmetic makes of the same texts."""
    whole = published.data_set()
    data = replace(whole, items=picked(whole.items, 24))
    record, heard = measured(data, transcriber, tmp_path)
    texts = {outcome.name: outcome.text for outcome in heard}
    rates = {rate.name: rate for rate in record.score.languages}
    assert set(rates) == {"English", "Chinese"}
    for language, measure in (("English", jiwer.wer), ("Chinese", jiwer.cer)):
        items = [item for item in data.items if item.language == language]
        said, found = [item.text for item in items], [texts[item.name] for item in items]
        assert rates[language].rate == pytest.approx(measure(said, found))
        assert rates[language].exact == sum(map(str.__eq__, said, found))
    right = sum(outcome.language == item.language for outcome, item in zip(heard, data.items, strict=True))
    assert record.score.identified
    assert record.score.identified.right == right
    assert record.head.complete
    assert record.plain


def test_what_cannot_be_used_is_counted(
    manifest: Callable[..., Path], transcriber: Transcriber, tmp_path: Path
) -> None:
    (tmp_path / "cut.wav").write_bytes(b"RIFF cut")
    path = manifest(
        '{"audio": "cut.wav", "text": "station train purple", "language": "en"}',
        '{"audio": "absent.wav", "text": "one", "language": "en"}',
        "no JSON",
    )
    data = read(path)
    record, _ = measured(data, transcriber, tmp_path / "out")
    assert [each.name for each in record.failed] == ["cut.wav"]
    assert str(tmp_path / "cut.wav") in record.failed[0].reason
    assert len(record.refused) == 2
    words = next(rate for rate in record.score.overall if rate.unit == "words")
    assert (words.failed, words.rate) == (1, 0.0)
    assert words.with_failed == pytest.approx(3 / (words.length + 3))
    assert (record.score.silences, record.score.silent) == (1, 1)

    shutil.copy(tmp_path / "0-english-1.wav", tmp_path / "cut.wav")
    again, heard = measured(replace(read(path), digest=data.digest), transcriber, tmp_path / "out")
    assert [outcome.name for outcome in heard] == ["cut.wav"]  # failures are tried again, all else is known
    assert (again.kept, again.failed) == (record.done - 1, ())


def test_sound_is_read_ahead_but_not_without_bounds() -> None:
    minute, count, consumed = np.zeros(60 * SAMPLE_RATE, dtype=np.float32), itertools.count(1), 0

    def read_one(name: Source) -> Audio:
        assert next(count) - consumed <= SECONDS / 60 + 2, "more is held than may be"
        return Audio(minute, str(name))

    with ahead([str(number) for number in range(40)], read_one) as sounds:
        for number, sound in enumerate(itertools.islice(sounds, 30)):
            assert sound.load(limits=Limits()).source == str(number)
            consumed += 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_a_server_hears_the_same(manifest: Callable[..., Path], transcriber: Transcriber, tmp_path: Path) -> None:
    (tmp_path / "cut.wav").write_bytes(b"RIFF cut")
    data = read(manifest('{"audio": "cut.wav", "text": "one", "language": "en"}'))
    here, _ = measured(data, transcriber, tmp_path / "here")
    with served(transcriber) as server:
        opened = backends.over_http(server.url, transcriber.settings)
        there = run(RunOptions(data, data.items), opened, tmp_path / "there", RunObserver())
    assert there.score == here.score
    assert there.head.where.url == server.url
    assert [each.name for each in there.failed] == ["cut.wav"]
    assert "400" in there.failed[0].reason


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        ({}, {"ASR_MODEL": "weights/model"}, "expected a data set to measure weights/model with"),
        ({}, {"url": "http://127.0.0.1:9"}, "expected a data set to measure a server with"),
        ({"split": "test"}, {}, "--split"),
        ({"data": ["", "a", "b"]}, {}, "expected one data set"),
        ({"data": ["", "absent.jsonl"]}, {}, "absent.jsonl"),
        ({"fail_if_above": "0.05"}, {}, "expected an error rate such as 5%"),
        ({"lang": "fr"}, {}, "neither en nor zh"),
        ({"limit": -1}, {}, "--limit"),
    ],
)
def test_wrong_usage(
    words: dict[str, object], variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("ASR_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        if name.startswith("ASR_"):
            monkeypatch.setenv(name, value)
        else:
            words = {**words, name: value}
    with pytest.raises(Exit) as caught:
        accuracy(Context(), **{"data": [""], **words})
    assert (caught.value.code, told in str(caught.value)) == (2, True), caught.value


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("a.jsonl b.jsonl", "expected one data set"),
        ("--limit 3 absent.jsonl", "absent.jsonl"),
        ("absent.jsonl --limit 3", "absent.jsonl"),
        ("--lang fr", "neither en nor zh"),
    ],
)
def test_the_data_set_stands_where_one_likes(typed: str, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    Program(namespace=namespace).run(["invoke", "accuracy", *typed.split()], exit=False)
    assert told in capfd.readouterr().err


def test_languages_can_be_given(speech: list[Clip], transcriber: Transcriber, tmp_path: Path) -> None:
    items = tuple(Item(clip.path.name, clip.path, clip.text, "Chinese") for clip in speech)
    data = DataSet("said to be Chinese", "manifest", "", items)
    heard: list[UtteranceOutcome] = []
    opened = nullcontext(backends.of(transcriber))
    record = run(RunOptions(data, items, forced=True), opened, tmp_path, RunObserver(heard=heard.append))
    assert {outcome.language for outcome in heard} == {"Chinese"}
    assert record.score.identified is None


def test_the_exit_code_says_what_is_not_good(
    manifest: Callable[..., Path], transcriber: Transcriber, tmp_path: Path, settings: Settings
) -> None:
    from runtime.measure.accuracy.page import judge, write

    data = read(manifest('{"audio": "0-noise.wav", "text": "twice"}'))
    record, _ = measured(data, transcriber, tmp_path / "out")
    assert judge(replace(record, refused=()), 0.0) == []
    assert "1 entries cannot be used" in judge(record, None)[0]
    wrong = replace(data, items=tuple(replace(item, text=f"{item.text} 五 five") for item in data.items))
    bad, _ = measured(replace(wrong, digest="wrong"), transcriber, tmp_path / "out")
    assert [fault for fault in judge(replace(bad, refused=()), 0.05) if "at most 5.00% is allowed" in fault]
    written = list(write(bad, RunOptions(wrong, wrong.items), settings, tmp_path / "out" / "said", "zh"))
    assert {path.name for path in written} == {"accuracy.json", "accuracy.md", "worst.html"}
    assert read_json(written[0])["head"]["form"] == "accuracy"
    assert "错误率" in written[1].read_text(encoding="utf-8")

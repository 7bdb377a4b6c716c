"""A run cut short by a kill, by Ctrl-C or by its server goes on where it ended, and never on another's outcomes."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from accurate import measured, write_manifest
from invoke import Context
from invoking import INVOKE
from serving import PATIENCE, decoded, held, served

from env.errors import KitError
from env.sources import PROJECT
from runtime.demo import Clip
from runtime.measure import records
from runtime.measure.accuracy import backends, journal
from runtime.measure.accuracy.journal import UtteranceOutcome
from runtime.measure.accuracy.layouts import read
from runtime.measure.accuracy.run import ACCURACY, Accuracy, RunObserver, RunOptions, run
from runtime.tasks.evidence import accuracy
from runtime.transcriber import Transcriber


@pytest.fixture
def manifest(clips: list[Clip], tmp_path: Path) -> Callable[..., Path]:
    """Writes a manifest, see `write_manifest`."""
    return partial(write_manifest, tmp_path, clips)


def test_a_torn_line_is_done_again(manifest: Callable[..., Path], transcriber: Transcriber, tmp_path: Path) -> None:
    data = read(manifest())
    told: list[str] = []
    whole, _ = measured(data, transcriber, tmp_path / "out")
    kept = Path(whole.journal)
    kept.write_bytes(kept.read_bytes()[:-30])
    again, heard = measured(data, transcriber, tmp_path / "out", says=told.append)
    assert [outcome.name for outcome in heard] == [data.items[-1].name]
    assert again.score == whole.score
    assert any("1 lines cannot be read" in words for words in told)
    assert measured(data, transcriber, tmp_path / "out")[1] == []


def test_other_settings_have_a_journal_of_their_own(
    manifest: Callable[..., Path], transcriber: Transcriber, tmp_path: Path
) -> None:
    data = read(manifest())
    told: list[str] = []
    before, _ = measured(data, transcriber, tmp_path / "out")
    content = Path(before.journal).read_text(encoding="utf-8")
    other = replace(transcriber, settings=transcriber.settings.model_copy(update={"max_new_tokens": 2}))
    after, heard = measured(data, other, tmp_path / "out", says=told.append)
    assert len(heard) == len(data.items)
    assert after.score.truncated > 0
    assert after.journal != before.journal
    assert Path(before.journal).read_text(encoding="utf-8") == content
    assert any(Path(before.journal).name in words and "tokens per segment" in words for words in told)
    again, heard = measured(data, transcriber, tmp_path / "out")
    assert (again.kept, heard, again.score) == (len(data.items), [], before.score)


def test_beginning_anew_puts_aside_what_was_there(tmp_path: Path) -> None:
    for number, fresh in enumerate((False, True, True)):
        with journal.opened(tmp_path, {"data": "x"}, fresh=fresh) as book:
            assert book.outcomes == {}
            book.add(UtteranceOutcome("a", str(number)))
    texts = [json.loads(path.read_text().splitlines()[1])["text"] for path in sorted(tmp_path.iterdir())]
    assert texts == ["2", "0", "1"]


def test_two_runs_never_write_one_journal(tmp_path: Path) -> None:
    with (
        journal.opened(tmp_path, {"data": "x"}),
        pytest.raises(KitError, match="another run writes it"),
        journal.opened(tmp_path, {"data": "x"}),
    ):
        pass


def test_a_server_that_dies_midway_loses_nothing(
    manifest: Callable[..., Path], transcriber: Transcriber, tmp_path: Path
) -> None:
    data = read(manifest())
    still, engine = held(transcriber)
    dead, heard = threading.Event(), []
    with served(still) as server:

        def die() -> None:
            engine.next().tell(decoded("one"))
            assert dead.wait(PATIENCE)
            server.http_server.call(server.service.cancel_all)

        dying = threading.Thread(target=die)
        dying.start()

        def note(outcome: UtteranceOutcome) -> None:
            heard.append(outcome.name)
            if outcome.text == "one":
                dead.set()

        opened = backends.over_http(server.url, transcriber.settings)
        record = run(RunOptions(data, data.items), opened, tmp_path / "out", RunObserver(heard=note))
        dying.join()
    assert record.head.ended.startswith(f"stopped ({server.url}: answered 503")
    assert 0 < record.done == len(heard) < len(data.items)
    with served(transcriber) as server:
        opened = backends.over_http(server.url, transcriber.settings)
        again = run(RunOptions(data, data.items), opened, tmp_path / "out", RunObserver())
    assert (again.kept, again.done) == (record.done, len(data.items))
    assert again.head.complete


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[[Path], tuple["subprocess.Popen[str]", "subprocess.Popen[str]"]]]:
    """Starts `invoke accuracy`, and what follows its journal, once it has said where that is."""
    processes: list[subprocess.Popen[str]] = []

    def begin(path: Path) -> tuple["subprocess.Popen[str]", "subprocess.Popen[str]"]:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
        variables |= {"ASR_PROFILE": "cpu", "ASR_DEVICE": "cpu", "ASR_OUT_DIR": str(tmp_path / "out")}
        variables |= {"ASR_MAX_BATCH": "1"}
        command = [str(INVOKE), "accuracy", str(path)]
        task = subprocess.Popen(
            command, cwd=PROJECT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(task)
        assert task.stdout
        told = next(line for line in task.stdout if ".jsonl" in line)
        place = next(word.strip(",") for word in told.split() if ".jsonl" in word)
        follower = subprocess.Popen(["tail", "-n", "+2", "-f", place], stdout=subprocess.PIPE, text=True)
        processes.append(follower)
        return task, follower

    yield begin
    for process in processes:
        with process:
            process.kill()


def test_killed_interrupted_and_whole_at_last(
    manifest: Callable[..., Path],
    begun: Callable[[Path], tuple["subprocess.Popen[str]", "subprocess.Popen[str]"]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = manifest(times=6)
    items = len(read(path).items)
    result = tmp_path / "out" / "accuracy" / "accuracy.json"

    task, follower = begun(path)
    assert follower.stdout
    first = [follower.stdout.readline() for _ in range(3)]
    task.kill()
    task.wait(PATIENCE)
    assert not result.exists()

    task, follower = begun(path)
    assert follower.stdout
    known = [follower.stdout.readline() for _ in range(3 + 3)]
    task.send_signal(signal.SIGINT)
    _, errors = task.communicate(timeout=PATIENCE)
    assert (task.returncode, "Traceback" in errors) == (130, False), errors
    assert "the same command goes on from there" in errors
    assert known[:3] == first
    partial = records.read(result, Accuracy, ACCURACY)
    assert partial.head.ended.startswith("interrupted after")
    assert partial.kept >= 3
    assert partial.kept < partial.done < items
    assert "NOT WHOLE" in (tmp_path / "out" / "accuracy" / "accuracy.md").read_text(encoding="utf-8")

    monkeypatch.setenv("ASR_DEVICE", "cpu")
    monkeypatch.setenv("ASR_OUT_DIR", str(tmp_path / "out"))
    accuracy(Context(), ["", str(path)])  # ends without an Exit, which is exit code 0
    printed = capfd.readouterr().out
    whole = records.read(result, Accuracy, ACCURACY)
    assert whole.head.complete
    assert whole.kept >= partial.done
    assert whole.done == items
    assert [rate.rate for rate in whole.score.overall] == [0.0, 0.0]  # the clips are heard right, once each
    assert "Error rates" in printed
    assert f"{items} of {items} utterances" in printed
    names = [json.loads(line).get("name") for line in Path(whole.journal).read_text(encoding="utf-8").splitlines()[1:]]
    assert sorted(names) == sorted(item.name for item in read(path).items)

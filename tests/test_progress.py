"""What is shown of long tasks off a terminal; tests of single tasks show the rest."""

import time

import pytest

from runtime import progress
from runtime.progress import progress_bar, stage_kind, status_line


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_bar_tells_amounts_and_time_left_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "BAR_LINE_INTERVAL", 0)
    with progress_bar("Transcribing", 2, unit="files") as bar:
        bar.expect(2)
        bar.advance(4)
    assert lines(capsys) == ["Transcribing: 0 of 4 files", "Transcribing: 4 of 4 files, about 0 s left"]
    monkeypatch.setattr(progress, "BAR_LINE_INTERVAL", 3600)
    with progress_bar("Transcribing", 2, unit="files") as bar:
        bar.advance(1)
    assert lines(capsys) == []


def test_a_kind_of_stage_is_told_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with status_line("Loading demo") as line:
        for stage in ("reading, 1 %", "reading, 50 %", "", "warming up", "reading, 60 %"):
            line.show(stage)
    assert lines(capsys) == ["Loading demo: reading, 1 %", "Loading demo: warming up"]
    monkeypatch.setattr(progress, "STAGE_LINE_INTERVAL", 0)
    with status_line() as line:
        for stage in ("latency: 1 of 10", "latency: 2 of 10", "latency: 2 of 10"):
            line.show(stage)
    line.show("too late")
    assert lines(capsys) == ["latency: 1 of 10", "latency: 2 of 10"]


def test_what_is_short_is_told_on_no_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with status_line("Examining") as line:
        line.step("disk")
        line.step("memory")
    assert lines(capsys) == []
    monkeypatch.setattr(progress, "STAGE_DELAY", 0.05)
    with status_line("Examining") as line:
        time.sleep(0.5)
        line.step("disk")
        time.sleep(0.5)
    assert lines(capsys) == ["Examining …", "Examining: disk"]


@pytest.mark.parametrize("animated", [True, False])
def test_a_terminal_has_one_line_that_changes(
    animated: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with status_line("Starting", announce=False, animated=animated) as line:
        assert capsys.readouterr().err == ""
        line.show("loading [weights]")
        line.show("")
        line.step("ready")
    shown = capsys.readouterr().err
    assert "Starting: loading [weights]" in shown
    assert "Starting: ready" in shown


def test_a_kind_of_stage_has_no_amounts() -> None:
    assert stage_kind("loading weights, 50 %") == stage_kind("loading weights, 7%") == "loading weights"
    assert stage_kind("throughput: batch of 8, 1 of 5") == stage_kind("throughput: batch of 8, 4 of 5")
    assert stage_kind("throughput: batch of 8, 1 of 5") != stage_kind("throughput: batch of 4, 1 of 5")

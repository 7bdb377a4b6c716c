"""`invoke transcribe` in a shell: pipes, terminals in other encodings, full disks, short options. Real processes."""

import contextlib
import os
import pty
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from invoking import INVOKE, assert_refused, invoke

from env.sources import PROJECT
from runtime.demo import Clip

FULL = Path("/dev/full")
NO_SPACE = "standard output: cannot be written: No space left on device"
# A terminal without UTF-8 on every system, also where no other locale is installed.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def shell(script: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a script of bash, in which $INVOKE is the command."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
    return subprocess.run(
        ["bash", "-c", script],
        cwd=PROJECT,
        env={**environment, "INVOKE": str(INVOKE), "ASR_PROFILE": "cpu", "ASR_DEVICE": "cpu", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=300,
    )


def quoted(clip: Clip) -> str:
    return shlex.quote(str(clip.path))


def terminal(*words: str | Path) -> str:
    """What a task writes on a terminal, to both of its streams."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
    with subprocess.Popen(
        [INVOKE, *words],
        cwd=PROJECT,
        env={**environment, "ASR_PROFILE": "cpu", "ASR_DEVICE": "cpu", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        written = bytearray()
        with contextlib.suppress(OSError):  # EIO is a terminal's end
            while piece := os.read(ours, 4096):
                written += piece
        os.close(ours)
    return written.decode().replace("\r\n", "\n")


def test_names_give_no_orders_to_a_terminal(speech: list[Clip], tmp_path: Path) -> None:
    order = "\x1b[2J\u202e"
    clip = tmp_path / f"a{order}.wav"
    clip.write_bytes(speech[0].path.read_bytes())
    missing = tmp_path / f"none{order}.wav"
    shown = terminal("transcribe", clip, missing).replace("\n", "")  # where rich has broken a line
    assert order not in shown
    assert r"a\x1b[2J\u202e.wav <==" in shown
    assert r"none\x1b[2J\u202e.wav: " in shown
    piped = invoke("transcribe", clip, missing)
    assert f"a{order}.wav <==\n{speech[0].text}\n" in piped.stdout
    assert f"none{order}.wav: " in piped.stderr


# Pipes


def test_audio_comes_from_standard_input(speech: list[Clip]) -> None:
    one, two = quoted(speech[0]), quoted(speech[1])
    result = shell(f"cat {one} | $INVOKE transcribe - {two}")
    assert result.returncode == 0, result.stderr
    expected = f"==> stdin <==\n{speech[0].text}\n==> {speech[1].path} <==\n{speech[1].text}\n"
    assert result.stdout.decode() == expected


def test_audio_comes_through_pipes(speech: list[Clip], tmp_path: Path) -> None:
    one, two = quoted(speech[0]), quoted(speech[1])
    piped = f"mkfifo $FOLDER/pipe; cat {one} > $FOLDER/pipe & "
    script = f"{piped} $INVOKE transcribe $FOLDER/pipe /dev/stdin <(cat {one}) -o $FOLDER/out < {two}"
    result = shell(script, FOLDER=str(tmp_path))
    assert result.returncode == 0, result.stderr
    written = {path.name: path.read_text(encoding="utf-8").strip() for path in (tmp_path / "out").iterdir()}
    assert (written["pipe.txt"], written["stdin.txt"]) == (speech[0].text, speech[1].text)
    assert sorted(written.values()) == sorted([speech[0].text, speech[1].text, speech[0].text])


def test_what_comes_through_a_pipe_is_refused_as_a_file_would_be(speech: list[Clip]) -> None:
    """And the next file is transcribed."""
    files = f"- <(echo text) <(cat /dev/zero) /dev/zero {quoted(speech[0])}"
    result = shell(f"cat /dev/zero | $INVOKE transcribe {files}", ASR_UPLOAD_MAX_MIB="1")
    assert result.returncode == 1
    assert result.stdout.decode() == f"==> {speech[0].path} <==\n{speech[0].text}\n"
    for words in (
        r"stdin: holds more than 1 MiB, .* → ASR_UPLOAD_MAX_MIB",
        r"/dev/fd/\d+: holds no audio that can be read",
        r"/dev/fd/\d+: holds more than 1 MiB",
        r"/dev/zero: is not a regular file",
        r"transcribe: 4 of 5 failed",
    ):
        assert re.search(f"^{words}", result.stderr.decode(), re.MULTILINE), result.stderr


@pytest.mark.parametrize("files", ["- -", "- /dev/stdin"])
def test_standard_input_is_named_once(files: str) -> None:
    result = shell(f"echo | $INVOKE transcribe {files}")
    assert result.returncode == 2
    assert result.stderr.decode().startswith(f"{files}: standard input can be read once"), result.stderr


def test_nothing_is_awaited_from_a_terminal_or_a_closed_input() -> None:
    master, terminal = pty.openpty()
    try:
        result = subprocess.run(
            [INVOKE, "transcribe", "-"], cwd=PROJECT, stdin=terminal, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert result.returncode == 2
    assert result.stderr.decode().startswith("-: standard input is a terminal"), result.stderr
    assert b"-: standard input is closed" in shell("$INVOKE transcribe - <&-").stderr


# Terminals


def test_what_a_terminal_cannot_show_is_told(clips: list[Clip]) -> None:
    chinese = next(clip for clip in clips if clip.language == "Chinese")
    english = next(clip for clip in clips if clip.language == "English")
    result = shell(f"$INVOKE transcribe {quoted(chinese)} {quoted(english)}", **ASCII)
    shown = chinese.text.encode("ascii", "replace").decode()
    assert result.returncode == 0, result.stderr
    expected = f"==> {chinese.path} <==\n{shown}\n==> {english.path} <==\n{english.text}\n"
    assert result.stdout.decode() == expected
    assert f"{chinese.path}: {shown.count('?')} characters are not in ascii, and shown as ?" in result.stderr.decode()
    assert str(english.path) not in result.stderr.decode()


@pytest.mark.parametrize("task", ["--list", "transcribe --help", "config", "status --json"])
def test_every_task_prints_on_any_terminal(task: str) -> None:
    result = shell(f"$INVOKE {task}", **ASCII)
    assert result.stdout
    assert b"Traceback" not in result.stderr


def test_files_are_read_and_written_in_utf_8_whatever_the_terminal_has(clips: list[Clip], tmp_path: Path) -> None:
    chinese = next(clip for clip in clips if clip.language == "Chinese")
    warned = {**ASCII, "PYTHONWARNDEFAULTENCODING": "1"}
    result = shell(f"$INVOKE transcribe {quoted(chinese)} -o $FOLDER -f json", **warned, FOLDER=str(tmp_path))
    assert result.returncode == 0, result.stderr
    (written,) = tmp_path.iterdir()
    assert chinese.text in written.read_text(encoding="utf-8")
    told = result.stderr.decode() + shell("$INVOKE doctor --quick", **warned).stderr.decode()
    assert re.findall(rf"^{PROJECT}/(?:env|runtime|tasks)\b.*EncodingWarning", told, re.MULTILINE) == []


def test_a_file_whose_name_is_no_utf_8_is_transcribed(speech: list[Clip], tmp_path: Path) -> None:
    named = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    Path(os.fsdecode(named)).write_bytes(speech[0].path.read_bytes())
    script = f"$INVOKE transcribe $FOLDER/caf*.wav {quoted(speech[1])} -o $FOLDER/$'o\\xff'"
    result = shell(script, FOLDER=str(tmp_path))
    assert result.returncode == 0, result.stderr
    written = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\xff/caf\xe9.txt"))
    assert written.read_text(encoding="utf-8") == speech[0].text + "\n"
    assert b"caf?.wav" in result.stdout


# Full disks


@needs_full
def test_a_full_disk_fails_each_file_in_a_line(speech: list[Clip]) -> None:
    result = shell(f"$INVOKE transcribe {quoted(speech[0])} {quoted(speech[1])} > /dev/full")
    told = result.stderr.decode().splitlines()
    assert result.returncode == 1
    assert [line.partition(" → ")[0] for line in told if NO_SPACE in line] == [
        f"{clip.path}: {NO_SPACE}" for clip in speech[:2]
    ]
    assert told[-1] == "transcribe: 2 of 2 failed"
    assert not re.search("Traceback|Exception", result.stderr.decode())


@needs_full
def test_a_full_disk_behind_standard_error_loses_no_transcript(speech: list[Clip]) -> None:
    result = shell(f"$INVOKE transcribe absent.wav {quoted(speech[0])} 2> /dev/full")
    assert result.returncode == 1
    assert result.stdout.decode() == f"==> {speech[0].path} <==\n{speech[0].text}\n"


@needs_full
@pytest.mark.parametrize("task", ["--list", "config", "status"])
def test_every_task_says_in_one_line_that_the_disk_is_full(task: str) -> None:
    result = shell(f"$INVOKE {task} > /dev/full", ASR_PORT="1")
    assert result.returncode == (3 if task.startswith("status") else 1)  # 3: its own, for no server
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith(NO_SPACE)


def test_a_reader_that_hangs_up_ends_the_batch_quietly(speech: list[Clip]) -> None:
    result = shell(f"$INVOKE transcribe {quoted(speech[0])} {quoted(speech[1])} | read -r first; echo $PIPESTATUS")
    assert result.stdout == b"0\n", result.stderr
    assert b"Traceback" not in result.stderr


def test_a_closed_output_is_said(speech: list[Clip]) -> None:
    result = shell(f"$INVOKE transcribe {quoted(speech[0])} >&-")
    assert result.returncode == 1
    assert f"{speech[0].path}: standard output: is closed" in result.stderr.decode()
    assert b"Traceback" not in shell("$INVOKE status >&-").stderr


# Options


def test_short_options_are_those_that_people_try(speech: list[Clip], tmp_path: Path) -> None:
    result = invoke("transcribe", speech[0].path, "-f", "srt", "-o", tmp_path, "-l", speech[0].language or "")
    assert result.returncode == 0, result.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".srt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *((["transcribe", "a.wav", "-c", "hotwords"], "'-c'"), (["transcribe", "a.wav", "-u", "out"], "'-u'")),
        *((["smoke", "-f", "json"], "'-f'"), (["smoke", "-u", "http://127.0.0.1:9"], "'-u'"), (["up", "-x"], "'up'")),
        (["config", "-l"], "'-l'"),
        (["load", "--clients", "many"], "--clients: 'many', expected a whole number → invoke load --help"),
        (["soak", "--minutes", "1m"], "--minutes: '1m', expected a number"),
        (["transcribe", "a.wav", "--", "b.wav"], "-- b.wav: no task takes anything behind --"),
        (["transcribe", "a.wav", "--output"], "needed value and was not given one"),
        (["transcribe", "--language", "en"], "'files' → invoke transcribe --help"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(arguments: list[str], words: str) -> None:
    result = invoke(*arguments)
    assert_refused(result, words, code=2)
    assert len(result.stderr.splitlines()) == 1


def test_no_task_has_an_option_that_invoke_made_up() -> None:
    tasks = re.findall(r"^  ([a-z.-]+)  ", invoke("--list").stdout, re.MULTILINE)
    assert "bench" in tasks
    for task in ("bench", "accuracy", "clear-cache"):
        assert not re.search(r"^ +-\w\b", invoke(task, "--help").stdout, re.MULTILINE)


@pytest.mark.parametrize("option", ["--context", "--language", "--format"])
def test_an_option_that_is_no_utf_8_is_wrong_usage(option: str, speech: list[Clip]) -> None:
    result = shell(f"$INVOKE transcribe {quoted(speech[0])} {option} $'\\xff'")
    (line,) = result.stderr.decode().splitlines()
    assert (result.returncode, line.partition(":")[0]) == (2, option)


def test_a_url_that_is_none_fails_alone(speech: list[Clip], tmp_path: Path) -> None:
    result = invoke("transcribe", "http://[half", speech[0].path, "--output", tmp_path)
    assert_refused(result, "malformed", "1 of 2 failed")
    assert len(list(tmp_path.iterdir())) == 1

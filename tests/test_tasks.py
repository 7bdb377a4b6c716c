"""The tasks as an operator types them: real processes, real files, exit codes."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audio_files import Array, ffmpeg
from invoke import Exit, MockContext
from invoking import INVOKE, assert_refused, invoke
from reference import read_json

from env.settings import Settings
from env.sources import PROJECT
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.demo import Clip
from runtime.tasks import develop


def listed(*arguments: str) -> dict[str, str]:
    """The help of each task in what `invoke --list` prints, by name."""
    return dict(re.findall(r"^  ([a-z.-]+)(.*)$", invoke("--list", *arguments).stdout, re.MULTILINE))


def test_every_task_is_listed_with_a_line_of_help() -> None:
    tasks = listed()
    assert {"config", "versions", "smoke", "transcribe", "container.up"} <= tasks.keys()
    assert all(text.strip() for text in tasks.values())


def test_what_developers_do_is_listed_apart() -> None:
    tasks = listed("dev")
    assert {
        ".lock",
        ".readme",
        ".train-demo",
        ".random-weights",
        ".host-cost",
        ".first-validation",
        ".queue-memory",
    } <= tasks.keys()
    assert all(text.strip() for text in tasks.values())
    assert not [name for name in listed() if name.startswith("dev") or f".{name}" in tasks]
    assert "settings and versions" in invoke("dev.readme", "--help").stdout


@pytest.mark.parametrize(("task", "folder"), [("host-cost", "tests/support"), ("train-demo", "runtime/demo_recipe")])
def test_what_an_image_lacks_is_named(task: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(develop, "PROJECT", tmp_path)
    with pytest.raises(Exit, match=f"invoke dev.{task}: needs {folder}, .* → in a clone"):
        getattr(develop, task.replace("-", "_"))(MockContext())


def test_a_reader_who_has_seen_enough_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [INVOKE, "status", "--json"], cwd=PROJECT, stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (["vllm"], "needs numpy, which is not installed → ASR_VLLM_ALONE=true make up"),
        (
            ["transcribe", "talk.wav"],
            "which is not installed → python env/install.py cpu, or npu; in a container: make up",
        ),
    ],
)
def test_a_host_without_torch_is_told_where_a_task_runs(task: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "hidden = ('torch', 'numpy', 'transformers', 'soundfile', 'av', 'httpx', 'fastapi')\n"
        "PathFinder.find_spec = lambda name, *more: None if name in hidden else find(name, *more)\n",
        encoding="utf-8",
    )
    assert_refused(invoke(*task, PYTHONPATH=str(tmp_path)), f"invoke {task[0]}: needs ", words)


def test_config_says_where_each_value_comes_from() -> None:
    shown = invoke("config", ASR_PROFILE="atlas-300i-duo", ASR_MAX_BATCH="3", TASK_QUEUE_ENABLE="0").stdout
    assert re.search(r"ASR_MAX_BATCH\s+3\s+utterances\s+environment", shown)
    assert re.search(r"ASR_DTYPE\s+float16\s+env/profiles/atlas-300i-duo.env", shown)
    assert re.search(r"ASR_TASK_QUEUE_ENABLE\s+0\s+environment, TASK_QUEUE_ENABLE", shown)
    assert re.search(r"ASR_MAX_AUDIO_SECONDS\s+14400\s+s\s+default", shown)
    assert set(re.findall(r"ASR_\w+", shown)) >= {f"ASR_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("variable", "value", "hint"),
    [
        ("ASR_MAX_BACH", "3", "ASR_MAX_BATCH"),
        ("ASR_PROFILE", "atlas", "atlas-800-a2"),
        ("ASR_DTYPE", "int8", "bfloat16, float16, float32"),
        ("ASR_MAX_BATCH", "0", "1 to 256"),
    ],
)
def test_a_wrong_setting_is_wrong_usage(variable: str, value: str, hint: str) -> None:
    assert_refused(invoke("config", **{variable: value}), variable, hint, code=2)


def test_versions_of_this_environment_are_the_pinned_ones() -> None:
    result = invoke("versions")
    assert result.returncode == 0, result.stdout
    assert re.search(r"transformers\s+4\.57\.6\s+4\.57\.6\s+same", result.stdout)


def test_versions_that_matter_are_an_error() -> None:
    assert_refused(invoke("versions", "--stack", "npu"), "not the pinned stack")
    assert_refused(invoke("versions", "--stack", "gpu"), "choose from: npu, vllm, vllm-cpu, cpu")


def test_smoke_passes_and_writes_what_it_saw(tmp_path: Path, clips: list[Clip]) -> None:
    result = invoke("smoke", ASR_OUT_DIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    record = read_json(tmp_path / "smoke.json")
    assert record["passed"]
    assert (record["head"]["where"]["silicon"], record["head"]["command"]) == ("CPU", "invoke smoke")
    assert result.stdout.startswith("On a CPU, no NPU: cpu (")
    assert [entry["text"] for entry in record["verdicts"]] == [clip.text for clip in clips]
    for clip in clips:
        assert re.search(rf"{re.escape(clip.path.name)}.*pass", result.stdout)
    for check in ("format srt", "forced language", "context", "silence", "batch"):
        assert re.search(rf"^{check} .*pass", result.stdout, re.MULTILINE)
    assert "\r" not in result.stdout + result.stderr


def test_smoke_fails_where_a_clip_fails(tmp_path: Path) -> None:
    result = invoke("smoke", ASR_OUT_DIR=str(tmp_path), ASR_MAX_NEW_TOKENS="4")
    assert_refused(result, " failed, as said above")
    assert re.search(r"english-1\.wav: the text was cut off.* → raise ASR_MAX_NEW_TOKENS", result.stdout)
    assert not read_json(tmp_path / "smoke.json")["passed"]


def test_transcribe_prints_many(speech: list[Clip]) -> None:
    result = invoke("transcribe", speech[0].path, speech[1].path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(f"==> {clip.path} <==\n{clip.text}\n" for clip in speech[:2])


@pytest.mark.parametrize(("form", "extension"), [("json", "json"), ("srt", "srt"), ("vtt", "vtt"), ("text", "txt")])
def test_transcribe_writes_files(form: str, extension: str, speech: list[Clip], tmp_path: Path) -> None:
    clip = speech[0]
    result = invoke("transcribe", clip.path, "--format", form, "--output", tmp_path / "new")
    assert result.returncode == 0, result.stderr
    (written,) = (tmp_path / "new").iterdir()
    assert written.name == f"{clip.path.stem}.{extension}"
    assert clip.text in " ".join(written.read_text(encoding="utf-8").split())


def test_language_and_context_reach_the_model(clips: list[Clip]) -> None:
    named = next(clip for clip in clips if clip.context and clip.language == "Chinese")
    result = invoke("transcribe", "--language", "中文", "--context", named.context, "--format", "json", named.path)
    assert json.loads(result.stdout)["text"] == named.text
    assert json.loads(result.stdout)["language"] == "Chinese"


def test_one_bad_file_does_not_stop_the_rest(speech: list[Clip], tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    result = invoke("transcribe", tmp_path / "empty.wav", speech[0].path, "--output", tmp_path / "out")
    assert_refused(result, str(tmp_path / "empty.wav"), "is empty (0 bytes)", "1 of 2 failed")
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"{speech[0].path.stem}.txt"]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def nan_wav() -> bytes:
    import numpy as np
    from audio_files import sndfile

    samples: Array = np.full((16_000, 1), np.nan, dtype=np.float32)
    return sndfile(samples, 16_000, container="WAV", subtype="FLOAT")


def tone(**form: str) -> bytes:
    from audio_files import speechlike

    return ffmpeg(speechlike(2.0, 48_000), 48_000, container=form["container"], codec=form["codec"])


def short_wav() -> bytes:
    from audio_files import sndfile, speechlike

    return sndfile(speechlike(0.05, 16_000), 16_000, container="WAV", subtype="PCM_16")


BAD_FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "text": ("notes.wav", lambda: b"these are no samples\n" * 50, "no audio that can be read"),
    "short": ("short.wav", short_wav, "lasts 0.050 s, the minimum is 0.1 s"),
    "nan": ("nan.wav", nan_wav, "not a number (NaN)"),
    "mp3": ("cut.mp3", lambda: cut(tone(container="mp3", codec="libmp3lame")), "cut.mp3"),
    "m4a": ("cut.m4a", lambda: cut(tone(container="mp4", codec="aac")), "cut.m4a"),
    "webm": ("cut.webm", lambda: cut(tone(container="webm", codec="libopus")), "cut.webm"),
    "flac": ("cut.flac", lambda: cut(tone(container="flac", codec="flac")), "cut.flac"),
    "ogg": ("cut.ogg", lambda: cut(tone(container="ogg", codec="libopus")), "cut.ogg"),
}


def test_each_bad_file_is_named_with_its_reason(tmp_path: Path) -> None:
    for name, make, _ in BAD_FILES.values():
        (tmp_path / name).write_bytes(make())
    (tmp_path / "folder").mkdir()
    names = [tmp_path / name for name, _, _ in BAD_FILES.values()] + [tmp_path / "folder", tmp_path / "missing.wav"]
    result = invoke("transcribe", *names, "--output", tmp_path / "out")
    assert_refused(result, f"{len(names)} of {len(names)} failed", "is a directory", "No such file")
    for name, _, reason in BAD_FILES.values():
        (line,) = [line for line in result.stderr.splitlines() if str(tmp_path / name) in line]
        assert reason in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "doc"], ["'doc'", "text, json, verbose_json, srt, vtt"]),
        (["--language", "Klingon"], ["Klingon"]),
        (["--language", "French"], ["this checkpoint knows only English, Chinese"]),
        (["--context", "<|im_end|>"], ["<|im_end|>"]),
        (["--format", "srt", "{other}"], ["--output"]),
        (["--output", "{clip}"], ["is a file, expected a directory"]),
        (["{clip}", "--output", "{folder}"], ["would overwrite each other"]),
    ],
)
def test_wrong_usage(arguments: list[str], words: list[str], speech: list[Clip], tmp_path: Path) -> None:
    places = {"clip": speech[0].path, "other": speech[1].path, "folder": tmp_path}
    result = invoke("transcribe", speech[0].path, *(argument.format(**places) for argument in arguments))
    assert_refused(result, *words, code=2)


def test_flags_are_no_files() -> None:
    shown = invoke("transcribe", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--language" in shown.stdout
    result = invoke("transcribe", "talk.wav", "--languge", "zh")
    assert_refused(result, "--languge", code=result.returncode or -1)


def test_nothing_to_transcribe_is_wrong_usage() -> None:
    result = invoke("transcribe", "--language", "en")
    assert result.returncode != 0
    assert "'files'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "no such directory"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors absent"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "another architecture: bert"),
    ],
)
def test_a_bad_checkpoint(damage: Callable[[Path], object], reason: str, speech: list[Clip], tmp_path: Path) -> None:
    checkpoint = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "checkpoint")
    damage(checkpoint)
    result = invoke("transcribe", speech[0].path, ASR_MODEL=str(checkpoint))
    assert_refused(result, str(checkpoint), reason)


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []
        thread = threading.Thread(target=lambda: held.append(listener.accept()[0]), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        for connection in held:
            connection.close()


def test_a_url_that_hangs(silent_server: int) -> None:
    url = f"http://127.0.0.1:{silent_server}/talk.wav"
    result = invoke("transcribe", url, ASR_ALLOW_PRIVATE_URLS="true", ASR_URL_TIMEOUT_SECONDS="1")
    assert_refused(result, url, "1 s")


def test_a_private_url_is_refused_unless_allowed() -> None:
    assert_refused(invoke("transcribe", "http://127.0.0.1:9/talk.wav"), "127.0.0.1", "ASR_ALLOW_PRIVATE_URLS")

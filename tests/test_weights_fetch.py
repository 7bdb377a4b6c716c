"""`invoke fetch-weights`: what is in place before, after, and when it is cut off."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT
from hub.checkpoint import files
from hub.faults import Corrupt, Cut, Hold, Say, Status
from hub.orders import KINDS, NAME, QUICK, SHARD, held, known, needed, order, run, sha256, target
from hub.server import COMMIT, REPO, Hub, serving

from env.loading import load_settings
from env.settings import Settings
from runtime.errors import KitError, UsageError
from runtime.ops.weights import fetch as fetching
from runtime.ops.weights import lock
from runtime.ops.weights.clips import fetch_clips
from runtime.ops.weights.facts import Clip, Facts, Model, load
from runtime.ops.weights.hubs import source
from runtime.ops.weights.hubs.answers import PIECE
from runtime.ops.weights.manifest import Record
from runtime.ops.weights.places import place, usage

INVOKE = Path(sys.executable).parent / "invoke"
SECRET = "tell-nobody-4711"


def refusal(settings: Settings, hub: Hub, *, facts: Facts | None = None) -> KitError:
    with pytest.raises(KitError) as caught:
        run(settings, hub, facts=facts)
    return caught.value


def lock_of(folder: Path) -> lock.Entry:
    return lock.read(folder / "weights.lock")[REPO]


# What is there already


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_complete_is_not_asked_for_again(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, kind), hub)
        hub.requests, written = [], (tmp_path / "weights.lock").read_text()
        run(order(tmp_path, hub, kind), hub)
    assert hub.requests == []
    assert "is complete" in capsys.readouterr().out
    assert (tmp_path / "weights.lock").read_text() == written


def test_what_is_there_and_right_is_kept(tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
        (target(tmp_path) / SHARD).write_bytes(bytes(len(hub.files[SHARD])))
        (target(tmp_path) / "vocab.json").unlink()
        (target(tmp_path) / "notes.md").write_text("mine")
        hub.requests = []
        run(order(tmp_path, hub, "modelscope"), hub)
        fetched = [asked.path.rpartition("=")[2] for asked in hub.requests if "FilePath" in asked.path]
    assert sorted(fetched) == sorted([SHARD, "vocab.json"])
    assert held(target(tmp_path)) == {**needed(hub.files), "notes.md": b"mine"}


def test_weights_copied_by_hand_are_compared_with_the_hub(tmp_path: Path) -> None:
    target(tmp_path).mkdir(parents=True)
    with serving(files()) as hub:
        for name, content in needed(hub.files).items():
            (target(tmp_path) / name).write_bytes(content)
        run(order(tmp_path, hub, "huggingface"), hub)
        assert [asked.path for asked in hub.requests] == [f"/api/models/{REPO}?blobs=True"]
    assert held(target(tmp_path)) == needed(hub.files)
    assert lock_of(tmp_path).commit == COMMIT


def test_a_linked_directory_stays_a_link(tmp_path: Path) -> None:
    target(tmp_path).parent.mkdir()
    (tmp_path / "disk").mkdir()
    target(tmp_path).symlink_to(tmp_path / "disk" / NAME)
    with serving(files()) as hub:
        run(order(tmp_path, hub, "http"), hub)
    assert target(tmp_path).is_symlink()
    assert held(tmp_path / "disk" / NAME) == needed(hub.files)


# What the weights must be


@pytest.mark.parametrize("kind", ["modelscope", "huggingface", "git-lfs"])
def test_a_hub_that_changed_is_refused_with_both_sums(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, kind), hub)
        before = dict(hub.files)
        hub.files.update(files(seed=1))
        (target(tmp_path) / "vocab.json").unlink()
        error = refusal(order(tmp_path, hub, kind, ASR_HUB_REVISION="main" if kind != "modelscope" else "master"), hub)
    for name in (SHARD, "config.json") if kind != "huggingface" else (SHARD,):
        assert sha256(before[name]) in error.reason
        assert sha256(hub.files[name]) in error.reason
    assert f"delete the tables of {REPO}" in error.advice
    assert (target(tmp_path) / SHARD).read_bytes() == before[SHARD]


def test_small_files_that_changed_show_before_the_large_ones_are_fetched(tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, "huggingface"), hub)
        shutil.rmtree(target(tmp_path))
        hub.files["config.json"] += b" "
        hub.requests = []
        error = refusal(order(tmp_path, hub, "huggingface"), hub)
        assert hub.starts(SHARD) == []
    assert "config.json" in error.reason


def test_a_file_of_the_lock_that_the_hub_lost(tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
        (target(tmp_path) / "vocab.json").unlink()
        del hub.files["vocab.json"]
        error = refusal(order(tmp_path, hub, "modelscope"), hub)
    assert "vocab.json" in error.reason
    assert "found none" in error.reason


def test_deleting_the_entry_accepts_other_weights(tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
        hub.files.update(files(seed=1))
        lock.write(tmp_path / "weights.lock", {"tests/Other": lock_of(tmp_path)})
        run(order(tmp_path, hub, "modelscope"), hub)
    assert held(target(tmp_path)) == needed(hub.files)
    assert set(lock.read(tmp_path / "weights.lock")) == {REPO, "tests/Other"}


def test_a_hub_that_does_not_have_what_the_kit_knows(tmp_path: Path) -> None:
    with serving(files()) as hub:
        facts = known(files(seed=1))
        error = refusal(order(tmp_path, hub, "modelscope"), hub, facts=facts)
        assert "env/weights.toml" in error.reason
        assert sha256(hub.files[SHARD]) in error.reason
        assert "ASR_HUB_REVISION=master" in error.advice
        run(order(tmp_path, hub, "modelscope", ASR_HUB_REVISION="master"), hub, facts=facts)
        assert held(target(tmp_path)) == needed(hub.files)
        shutil.rmtree(target(tmp_path))
        run(order(tmp_path, hub, "modelscope"), hub, facts=facts)
    assert held(target(tmp_path)) == needed(hub.files)


def test_shards_that_do_not_fit_their_index_are_not_put_in_place(tmp_path: Path) -> None:
    contents = files()
    contents["model.safetensors.index.json"] = contents["model.safetensors.index.json"].replace(b"layer.1", b"layer.2")
    with serving(contents) as hub:
        error = refusal(order(tmp_path, hub, "modelscope"), hub)
    assert "layer.2" in error.reason
    assert not target(tmp_path).exists()
    assert not (tmp_path / "weights.lock").exists()


def test_a_lock_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "weights.lock").write_text("[models\n")
    with serving(files()) as hub:
        error = refusal(order(tmp_path, hub, "modelscope"), hub)
    assert error.subject == str(tmp_path / "weights.lock")
    assert "restore it" in error.advice


# Cut off


def test_a_failure_leaves_the_old_weights_untouched(tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
        before = held(target(tmp_path))
        (tmp_path / "weights.lock").unlink()
        hub.files.update(files(seed=1))
        hub.faults = [Corrupt(SHARD, times=9)]
        refusal(order(tmp_path, hub, "modelscope"), hub)
        assert held(target(tmp_path)) == before
        hub.faults = []
        run(order(tmp_path, hub, "modelscope"), hub)
    assert held(target(tmp_path)) == needed(hub.files)


def test_a_replacement_that_was_cut_off_is_ended(tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
        (target(tmp_path) / "notes.md").write_text("mine")
        former = tmp_path / "weights" / ".fetching" / NAME / "former"
        former.parent.mkdir()
        target(tmp_path).rename(former)
        hub.requests = []
        run(order(tmp_path, hub, "modelscope"), hub)
        assert hub.starts("FilePath") == []
    assert held(target(tmp_path)) == {**needed(hub.files), "notes.md": b"mine"}


@pytest.fixture
def held_hub() -> Iterator[tuple[Hub, Hold]]:
    """A hub that breaks off in the first shard and, when it is asked to go on, falls silent: the first bytes are
    written then."""
    with serving(files(), token=SECRET) as hub:
        hold = Hold(SHARD, after=200_000)
        hub.faults = [Cut(SHARD, after=150_000), hold]
        yield hub, hold


@pytest.fixture
def process(held_hub: tuple[Hub, Hold], tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`invoke fetch-weights`, waiting for that hub."""
    hub, hold = held_hub
    settings = {
        "ASR_MODEL": str(target(tmp_path)),
        "ASR_WEIGHTS_LOCK": str(tmp_path / "weights.lock"),
        "ASR_HUB": "modelscope",
        "ASR_HUB_ENDPOINT": hub.url,
        "ASR_HUB_REPO": REPO,
        "ASR_HUB_TOKEN": SECRET,
        # Nowhere: the official clips are not for tests.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
    with subprocess.Popen(
        [INVOKE, "fetch-weights"],
        cwd=PROJECT,
        env={**environment, **settings, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert hold.reached.wait(60)
            yield running
        finally:
            running.kill()


def test_ctrl_c_is_one_line_and_the_next_run_goes_on(
    process: "subprocess.Popen[str]", held_hub: tuple[Hub, Hold], tmp_path: Path
) -> None:
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    broken, interrupted = errors.splitlines()
    assert broken.startswith(SHARD)
    assert interrupted == "fetch-weights: interrupted; what was fetched is kept → invoke fetch-weights"
    assert SECRET not in output + errors
    go_on(held_hub, tmp_path)


def test_a_killed_run_leaves_nothing_that_looks_complete(
    process: "subprocess.Popen[str]", held_hub: tuple[Hub, Hold], tmp_path: Path
) -> None:
    assert SECRET.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    process.kill()
    process.wait(60)
    go_on(held_hub, tmp_path)


def go_on(held_hub: tuple[Hub, Hold], folder: Path) -> None:
    """The model is not there; another run fetches what the first did not."""
    hub, hold = held_hub
    assert not target(folder).exists()
    assert not (folder / "weights.lock").exists()
    (part,) = (folder / "weights" / ".fetching" / NAME / "parts").glob(f"{SHARD}*")
    size = part.stat().st_size
    assert size >= 150_000 - PIECE
    hold.release.set()
    hub.requests = []
    run(order(folder, hub, "modelscope", ASR_HUB_TOKEN=SECRET), hub)
    assert hub.starts(SHARD) == [size]
    assert held(target(folder)) == needed(hub.files)
    assert [path.name for path in (folder / "weights" / ".fetching").iterdir()] == ["lock"]


def test_the_second_of_two_fetches_says_so(held_hub: tuple[Hub, Hold], tmp_path: Path) -> None:
    hub, hold = held_hub
    settings = order(tmp_path, hub, "modelscope", ASR_HUB_TOKEN=SECRET)
    first = threading.Thread(target=run, args=(settings, hub))
    first.start()
    try:
        assert hold.reached.wait(60)
        error = refusal(settings, hub)
    finally:
        hold.release.set()
        first.join()
    assert "another fetch-weights is at work" in error.reason
    assert held(target(tmp_path)) == needed(hub.files)


# How far it is


def test_without_a_terminal_there_is_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runtime.ops.weights.meter.LINE_EVERY", 0)
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Fetching: 500\.\d kB of 500\.\d kB, .*/s, 0 s left", lines[-1])
    assert len(lines) >= len(needed(hub.files))


def test_on_a_terminal_there_is_a_bar_with_total_and_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
    shown = capsys.readouterr().err
    assert "Fetching" in shown
    assert re.search(r"/500\.\d kB", shown)


# Room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_no_room_is_told_before_anything_is_fetched(small_disk: Path) -> None:
    with serving(files()) as hub:
        error = refusal(order(small_disk, hub, "modelscope"), hub)
        assert hub.starts("FilePath") == []
    assert "needs 500." in error.reason
    assert "are free" in error.reason


def test_a_disk_that_fills_up_is_told_and_the_next_run_goes_on(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MARGIN", 0)
    filler = small_disk / "filler"
    with serving(files()) as hub:
        hold = Hold(SHARD, after=200_000)
        hub.faults = [Cut(SHARD, after=150_000), hold]

        def fill() -> None:
            hold.reached.wait(60)
            with filler.open("wb", buffering=0) as file:
                while shutil.disk_usage(small_disk).free:
                    file.write(bytes(shutil.disk_usage(small_disk).free))
            hold.release.set()

        other = threading.Thread(target=fill)
        other.start()
        error = refusal(order(small_disk, hub, "modelscope"), hub)
        other.join()
        assert "No space left on device" in error.reason
        assert not target(small_disk).exists()
        filler.unlink()
        hub.requests = []
        run(order(small_disk, hub, "modelscope"), hub)
        (start,) = hub.starts(SHARD)
    assert start >= 150_000 - PIECE
    assert held(target(small_disk)) == needed(hub.files)


def test_a_directory_that_is_a_disk_of_its_own_cannot_be_replaced(small_disk: Path) -> None:
    with serving(files()) as hub:
        error = refusal(order(small_disk, hub, "modelscope", ASR_MODEL=str(small_disk)), hub)
    assert "file system of its own" in error.reason
    assert str(small_disk.parent) in error.advice


def test_a_file_in_the_way(tmp_path: Path) -> None:
    target(tmp_path).parent.mkdir()
    target(tmp_path).touch()
    with serving(files()) as hub:
        assert "expected a directory" in refusal(order(tmp_path, hub, "modelscope"), hub).reason


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "weights").touch()
    with serving(files()) as hub:
        assert "cannot be made: " in refusal(order(tmp_path, hub, "modelscope"), hub).reason


# Which weights, and from where


@pytest.mark.parametrize(
    ("variables", "directory", "repo"),
    [
        ({}, "weights/Qwen3-ASR-1.7B", "Qwen/Qwen3-ASR-1.7B"),
        ({"ASR_PROFILE": "atlas-800-a2"}, "weights/Qwen3-ASR-1.7B", "Qwen/Qwen3-ASR-1.7B"),
        ({"ASR_HUB_REPO": "Qwen/Qwen3-ASR-0.6B"}, "weights/Qwen3-ASR-0.6B", "Qwen/Qwen3-ASR-0.6B"),
        ({"ASR_MODEL": "weights/Qwen3-ASR-0.6B"}, "weights/Qwen3-ASR-0.6B", "Qwen/Qwen3-ASR-0.6B"),
        ({"ASR_MODEL": "/data/asr"}, "/data/asr", "Qwen/Qwen3-ASR-1.7B"),
        ({"ASR_MODEL": "/data/asr", "ASR_HUB_REPO": "me/mine"}, "/data/asr", "me/mine"),
    ],
)
def test_the_place_follows_from_the_settings(variables: dict[str, str], directory: str, repo: str) -> None:
    spot = place(load_settings(variables), load())
    assert (spot.directory, spot.repo) == (PROJECT / directory, repo)
    assert spot.clips == spot.directory.parent / "clips"


def test_a_directory_that_has_another_models_name_is_refused() -> None:
    settings = load_settings({"ASR_MODEL": "weights/Qwen3-ASR-0.6B", "ASR_HUB_REPO": "Qwen/Qwen3-ASR-1.7B"})
    with pytest.raises(UsageError, match=r"ASR_HUB_REPO=Qwen/Qwen3-ASR-0\.6B"):
        place(settings, load())


def test_the_end_tells_how_to_use_the_weights() -> None:
    settings = load_settings({})
    hint = usage(settings, place(settings, load()))
    assert "ASR_MODEL=weights/Qwen3-ASR-1.7B invoke smoke" in hint
    assert "ASR_PROFILE=atlas-300i-duo or atlas-800-a2 or atlas-800-a3" in hint
    settings = load_settings({"ASR_PROFILE": "atlas-800-a2"})
    assert "ASR_MODEL names them already" in usage(settings, place(settings, load()))


REPO_17 = "Qwen/Qwen3-ASR-1.7B"


@pytest.mark.parametrize(
    ("variables", "entry", "revision"),
    [
        ({"ASR_HUB": "huggingface"}, None, "7278e1e70fe206f11671096ffdd38061171dd6e5"),
        ({"ASR_HUB": "git-lfs", "ASR_HUB_ENDPOINT": "https://example.org/"}, None, ""),
        ({"ASR_HUB": "huggingface"}, lock.Entry("huggingface", revision="main", commit="abc"), "abc"),
        (
            {"ASR_HUB": "huggingface"},
            lock.Entry("modelscope", revision="v9"),
            "7278e1e70fe206f11671096ffdd38061171dd6e5",
        ),
        ({"ASR_HUB": "huggingface", "ASR_HUB_REVISION": "v2"}, lock.Entry("huggingface", revision="main"), "v2"),
    ],
)
def test_the_revision_is_the_one_asked_for_or_recorded_or_pinned(
    variables: dict[str, str], entry: lock.Entry | None, revision: str
) -> None:
    found = source(load_settings(variables), load(), REPO_17, entry)
    assert found.revision == revision
    assert not found.endpoint.endswith("/")


def test_the_pinned_revision_is_fetched_and_recorded(tmp_path: Path) -> None:
    with serving(files()) as hub:
        facts = Facts(models={REPO: Model({"modelscope": COMMIT}, known(hub.files).models[REPO].files)})
        run(order(tmp_path, hub, "modelscope"), hub, facts=facts)
        assert all(f"Revision={COMMIT}" in asked.path for asked in hub.requests)
    assert lock_of(tmp_path).revision == COMMIT


def test_the_facts_are_whole() -> None:
    facts = load()
    for repo, model in facts.models.items():
        assert repo.startswith("Qwen/")
        assert {"huggingface", "modelscope"} == set(model.revisions)
        assert {"config.json", "vocab.json", "merges.txt"} < set(model.files)
    assert {clip.name for clip in facts.clips} == {"asr_en.wav", "asr_zh.wav"}


def test_the_facts_are_those_of_the_real_files(reference: Path) -> None:
    facts = load()
    real = {path.name: path.read_bytes() for path in (reference / "tokenizer").iterdir()}
    for repo, model in facts.models.items():
        real["config.json"] = (reference / "configs" / repo.partition("/")[2] / "config.json").read_bytes()
        for name, content in real.items():
            assert model.files[name] == Record(len(content), sha256(content))
    for clip in facts.clips:
        content = (reference / "clips" / clip.name).read_bytes()
        assert clip.record == Record(len(content), sha256(content))


# The official clips


def clip_of(hub: Hub, content: bytes) -> Clip:
    return Clip("talk.wav", f"{hub.url}/{REPO}/talk.wav", Record(len(content), sha256(content)))


def test_clips_come_along_once(tmp_path: Path) -> None:
    sound = bytes(range(256)) * 40
    with serving({"talk.wav": sound}) as hub:
        for _ in range(2):
            assert fetch_clips((clip_of(hub, sound),), tmp_path / "clips", patience=QUICK)
        assert len(hub.requests) == 1
    assert held(tmp_path / "clips") == {"talk.wav": sound}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Status("talk", times=9, status=404), "404"),
        (Status("talk", times=9, status=503), "503"),
        (Corrupt("talk", times=9), "expected sha256"),
        (Say("talk", times=9, body=b"<html>"), "holds 6 bytes"),
    ],
)
def test_clips_that_cannot_be_had_are_a_warning(
    fault: Status, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = bytes(range(256)) * 40
    with serving({"talk.wav": sound}) as hub:
        hub.faults = [fault]
        assert not fetch_clips((clip_of(hub, sound),), tmp_path / "clips", patience=QUICK)
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "clips" / "talk.wav").exists()

"""`invoke fetch-weights`: what is in place before and after, what the weights must be, whether there is room."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.copies import cut, flip
from hub.faults import Cut, Hold
from hub.orders import (
    KINDS,
    NAME,
    SHARD,
    address,
    every_hub,
    held,
    known,
    lock_of,
    needed,
    order,
    refusal,
    run,
    sha256,
    target,
)
from hub.server import COMMIT, REPO, serving

from env.errors import KitError
from runtime.weights import fetch as fetching
from runtime.weights import lockfile
from runtime.weights.hubs.http import PIECE
from runtime.weights.verify import require

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


@every_hub
def test_what_verification_refuses_is_fetched_again(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(files()) as hub:
        settings = order(tmp_path, hub, kind)
        run(settings, hub)
        for name in (SHARD, "vocab.json"):
            flip(target(tmp_path) / name)
        with pytest.raises(KitError, match=f"{SHARD}: changed.*invoke fetch-weights"):
            require(settings)
        hub.requests = []
        run(settings, hub)
        assert hub.starts(address(kind, SHARD, hub)) == [0]
        assert not hub.starts(address(kind, SHARD.replace("1-of", "2-of"), hub))
        assert require(settings).verified
    assert held(target(tmp_path)) == needed(hub.files)
    assert f"{SHARD}: changed: sha256" in capsys.readouterr().err


def test_what_is_skipped_is_summed_once_with_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runtime.progress.BAR_LINE_INTERVAL", 0)  # a line for each piece that was read
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
        for damage in (lambda _: None, flip):
            damage(target(tmp_path) / SHARD)
            capsys.readouterr()
            run(order(tmp_path, hub, "modelscope"), hub)
            lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Checking what is there")]
            assert len(lines) == len(needed(hub.files))
            assert re.search(r": 500\.\d kB of 500\.\d kB, ", lines[-1])


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
    assert "contradicts weights.lock" in error.reason
    assert f"for those of weights.lock ({kind} {hub.url}" in error.advice
    assert f"delete the tables of {REPO}" in error.advice
    assert (target(tmp_path) / SHARD).read_bytes() == before[SHARD]


@pytest.mark.parametrize("change", [flip, cut])
def test_a_mirror_that_contradicts_the_lock_is_no_hub_at_fault(change: Callable[[Path], None], tmp_path: Path) -> None:
    with serving(files()) as hub:
        settings = order(tmp_path, hub, "http")
        run(settings, hub)
        change(target(tmp_path) / SHARD)
        hub.files[SHARD] = (target(tmp_path) / SHARD).read_bytes()
        (target(tmp_path) / SHARD).unlink()
        error = refusal(settings, hub)
    assert error.subject.startswith(f"{SHARD} of {REPO} on http ({hub.url})")
    assert error.reason.startswith("contradicts weights.lock: ")
    assert f"copy {SHARD} there again" in error.advice
    assert "ASR_HUB_REVISION" not in error.advice


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
        lockfile.write(tmp_path / "weights.lock", {"tests/Other": lock_of(tmp_path)})
        run(order(tmp_path, hub, "modelscope"), hub)
    assert held(target(tmp_path)) == needed(hub.files)
    assert set(lockfile.read(tmp_path / "weights.lock")) == {REPO, "tests/Other"}


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


# How far it is


def test_without_a_terminal_there_is_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runtime.progress.BAR_LINE_INTERVAL", 0)
    with serving(files()) as hub:
        run(order(tmp_path, hub, "modelscope"), hub)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Fetching: 500\.\d kB of 500\.\d kB, .*/s, about 0 s left", lines[-1])
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

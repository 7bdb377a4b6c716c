"""What weights.lock says, by hand and by itself; and weights that are whole by their own index."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hub.checkpoint import SHARDS, files, shard
from hub.copies import cut, flip, put, settings
from hub.orders import SHARD, known, needed, sha256, target
from hub.server import REPO

from env.errors import KitError
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.model.checkpoint import INDEX, CheckpointError, check_whole
from runtime.weights import lockfile
from runtime.weights.catalog import ModelLocation
from runtime.weights.lockfile import LockedFile, LockedModel
from runtime.weights.verify import record_by_hand, state, verify_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model's directory, and a lock that says what is in it."""
    return put(tmp_path)


# Weights that were copied by hand


def by_hand(folder: Path) -> ModelLocation:
    return ModelLocation(target(folder), REPO, folder / "weights.lock")


def test_weights_copied_by_hand_are_recorded_as_found(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights.lock").unlink()
    (weights / "README.md").touch()
    verify_weights(settings(tmp_path), write_lock=True)
    assert "trusted as they were found" in capsys.readouterr().out
    entry = lockfile.read(tmp_path / "weights.lock")[REPO]
    assert entry.hub == lockfile.BY_HAND
    assert {name: record.sha256 for name, record in entry.files.items()} == {
        name: sha256(content) for name, content in needed(files()).items()
    }
    assert state(settings(tmp_path), full=True).verified


def test_what_is_recorded_is_not_recorded_again(weights: Path, tmp_path: Path) -> None:
    flip(weights / SHARD)
    with pytest.raises(KitError, match="already → delete its tables"):
        verify_weights(settings(tmp_path), write_lock=True)


def test_weights_that_are_not_whole_are_not_recorded(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.lock").unlink()
    cut(weights / SHARD)
    with pytest.raises(CheckpointError, match="its header says"):
        verify_weights(settings(tmp_path), write_lock=True)
    assert not (tmp_path / "weights.lock").exists()


def test_weights_that_are_not_the_known_ones_are_not_recorded(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.lock").unlink()
    flip(weights / SHARD)
    trusted = known(files()).models[REPO].files
    with pytest.raises(KitError) as caught:
        record_by_hand(by_hand(tmp_path), trusted=trusted)
    assert trusted[SHARD].sha256 in caught.value.reason
    assert "ASR_HUB_REPO" in caught.value.advice


# Shards and their index


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / SHARDS[1]).unlink(), f"{SHARDS[1]} absent"),
        (lambda folder: (folder / SHARDS[1]).write_bytes(shard({"other": b"1" * 200_000})), "names 1 tensors"),
        (lambda folder: (folder / SHARDS[1]).write_bytes(shard({"layer.1": b"1"})), "counts 500000 bytes of tensors"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": 1}}'), "not what it should be"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": []}'), "not what it should be"),
    ],
)
def test_shards_must_be_what_the_index_says(damage: Callable[[Path], object], words: str, weights: Path) -> None:
    check_whole(weights)
    damage(weights)
    with pytest.raises(CheckpointError, match=words):
        check_whole(weights)


def test_a_single_file_needs_no_index() -> None:
    check_whole(DEMO_CHECKPOINT)


# The lock


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = {
        'me/"odd"': LockedModel(
            "http", 'http://host/\\"', "v1", "", "2026-01-01T00:00:00+00:00", {"ü.json": LockedFile(1, "a" * 64)}
        ),
        REPO: LockedModel("modelscope", files={"b.json": LockedFile(2, "b" * 64), "a.json": LockedFile(3, "c" * 64)}),
    }
    lockfile.write(tmp_path / "weights.lock", entries)
    assert lockfile.read(tmp_path / "weights.lock") == entries
    text = (tmp_path / "weights.lock").read_text()
    assert text.startswith("# ")
    assert text.index('"a.json" = { size = 3,') < text.index('"b.json" = { size = 2,')


def test_no_lock_is_an_empty_one(tmp_path: Path) -> None:
    assert lockfile.read(tmp_path / "weights.lock") == {}


def test_a_lock_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="cannot be read: Is a directory"):
        lockfile.read(tmp_path)

"""Are the weights what weights.lock says: for operators, and for a server before it loads them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.copies import cut, flip, put, settings
from hub.orders import SHARD, needed, target
from hub.server import REPO

from env.errors import KitError
from env.sources import PROJECT, load_settings
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.weights.verify import require, state, verify_weights

INVOKE = Path(sys.executable).parent / "invoke"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model's directory, and a lock that says what is in it."""
    return put(tmp_path)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


# State, which never raises


@pytest.mark.parametrize("full", [True, False])
def test_weights_that_are_what_they_must_be(full: bool, weights: Path, tmp_path: Path) -> None:
    counted: list[int] = []
    found = state(settings(tmp_path), full=full, on_bytes=counted.append)
    assert (found.directory, found.faults, found.verified) == (weights, (), True)
    assert found.bytes == sum(map(len, needed(files()).values()))
    assert sum(counted) == (found.bytes if full else 0)


@pytest.mark.parametrize(
    ("damage", "fault", "quick"),
    [
        (Path.unlink, "missing", True),
        (cut, "truncated: ", True),
        (grow, "changed: ", True),
        (replace_by_directory, "is no file", True),
        (flip, "changed: sha256 ", False),
    ],
)
def test_each_fault_is_named(
    damage: Callable[[Path], None], fault: str, quick: bool, weights: Path, tmp_path: Path
) -> None:
    damage(weights / SHARD)
    for full in (True, False):
        found = state(settings(tmp_path), full=full)
        if full or quick:
            (line,) = found.faults
            assert line.startswith(f"{SHARD}: {fault}")
            assert not found.verified
            assert "invoke fetch-weights" in found.advice
        else:
            assert found.verified


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(weights: Path, tmp_path: Path) -> None:
    (weights / SHARD).chmod(0)
    (line,) = state(settings(tmp_path), full=True).faults
    assert line == f"{SHARD}: cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("damage", "fault", "advice"),
    [
        (lambda folder: shutil.rmtree(target(folder)), "no such directory", "invoke fetch-weights"),
        (lambda folder: replace_by_file(target(folder)), "is a file, not a directory", "invoke fetch-weights"),
        (lambda folder: (folder / "weights.lock").unlink(), "no such file", "invoke verify-weights --write-lock"),
        (lambda folder: (folder / "weights.lock").write_text(""), f"has no {REPO}", "--write-lock"),
        (lambda folder: (folder / "weights.lock").write_text("{}"), "no TOML", "restore it"),
        (lambda folder: (folder / "weights.lock").write_text("models = 1"), "has no tables", "restore it"),
        (lambda folder: (folder / "weights.lock").write_text(f'[models."{REPO}"]\nhub="x"'), "has no files", "delete"),
        (lambda folder: (folder / "weights.lock").write_text(f'models."{REPO}".files.a = 1'), "file's record", ""),
    ],
)
def test_what_makes_a_comparison_impossible(
    damage: Callable[[Path], object], fault: str, advice: str, weights: Path, tmp_path: Path
) -> None:
    assert weights.is_dir()
    damage(tmp_path)
    found = state(settings(tmp_path), full=True)
    (line,) = found.faults
    assert fault in line
    assert advice in found.advice
    assert not found.verified


def test_the_demo_model_needs_no_lock(tmp_path: Path) -> None:
    found = state(load_settings({"ASR_WEIGHTS_LOCK": str(tmp_path / "none")}), full=True)
    assert (found.directory, found.faults, found.verified) == (DEMO_CHECKPOINT, (), True)
    assert found.bytes > 5_000_000


# What a server asks


def test_a_server_starts_on_verified_weights(weights: Path, tmp_path: Path) -> None:
    assert require(settings(tmp_path)).directory == weights


def test_a_server_does_not_start_on_others(weights: Path, tmp_path: Path) -> None:
    flip(weights / SHARD)
    (weights / "vocab.json").unlink()
    with pytest.raises(KitError) as caught:
        require(settings(tmp_path))
    assert f"{SHARD}: changed" in caught.value.reason
    assert "vocab.json: missing" in caught.value.reason
    assert "invoke fetch-weights" in caught.value.advice
    assert "ASR_ALLOW_UNVERIFIED_WEIGHTS=true" in caught.value.advice


def test_a_server_starts_on_others_if_told_to(weights: Path, tmp_path: Path) -> None:
    flip(weights / SHARD)
    found = require(settings(tmp_path, ASR_ALLOW_UNVERIFIED_WEIGHTS="true"))
    assert found.faults


# The table


def test_the_table_names_every_file(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (weights / "notes.md").touch()
    (weights / "cache").mkdir()
    verify_weights(settings(tmp_path), write_lock=False)
    shown = capsys.readouterr()
    for name in needed(files()):
        assert any(line.startswith(name) and line.rstrip().endswith("same") for line in shown.out.splitlines())
    assert "cache/, notes.md" in shown.err


def test_the_table_shows_what_is_wrong(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(weights / SHARD)
    cut(weights / "merges.txt")
    (weights / "vocab.json").unlink()
    with pytest.raises(KitError) as caught:
        verify_weights(settings(tmp_path), write_lock=False)
    lines = capsys.readouterr().out.splitlines()
    for name, mark in {SHARD: "CHANGED", "merges.txt": "TRUNCATED", "vocab.json": "MISSING"}.items():
        assert any(line.startswith(name) and mark in line for line in lines)
        assert name in caught.value.reason


def test_verifying_without_a_lock_tells_what_to_do(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.lock").unlink()
    with pytest.raises(KitError, match="--write-lock") as caught:
        verify_weights(settings(tmp_path), write_lock=False)
    assert caught.value.subject == str(weights)


def test_the_tasks_answer_in_words(weights: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
    variables = {"ASR_MODEL": str(weights), "ASR_WEIGHTS_LOCK": str(tmp_path / "weights.lock"), "ASR_HUB_REPO": REPO}

    def verified() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [INVOKE, "verify-weights"],
            cwd=PROJECT,
            env={**environment, **variables, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    done = verified()
    assert (done.returncode, done.stderr) == (0, "")
    flip(weights / SHARD)
    done = verified()
    assert done.returncode == 1
    assert f"{SHARD}: changed" in done.stderr
    assert "Traceback" not in done.stderr


# On a host


def test_nothing_heavy_is_imported() -> None:
    """The host has no torch, numpy, soundfile, av or jiwer, and the clients are slow to import."""
    modules = [f"runtime.weights.{name}" for name in ("fetch", "verify", "lockfile", "clips")]
    heavy = ["torch", "numpy", "soundfile", "av", "jiwer", "huggingface_hub", "modelscope", "modelscope_hub", "dulwich"]
    script = f"import sys, {', '.join(modules)}, runtime.tasks.model; print(*(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

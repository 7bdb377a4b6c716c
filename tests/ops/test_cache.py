"""Clearing caches: what goes, what stays, what is refused."""

import os
import socket
from pathlib import Path

import pytest
from engine import free_port
from simulated_npu import on_npu

from env.errors import KitError, UsageError
from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime.host import local_client
from runtime.ops import cache
from runtime.ops import cache as cann_log
from runtime.ops.process import state
from runtime.server import serve
from runtime.weights.catalog import ModelLocation

MIB = 2**20


def make_settings(folder: Path, **variables: str | Path) -> Settings:
    """Settings whose directories are all in `folder`."""
    own = {
        "ASR_DEVICE": "cpu",
        "ASR_PORT": str(free_port()),
        "ASR_OUT_DIR": folder / "out",
        "ASR_OP_CACHE_DIR": folder / "operators",
        "ASR_MODEL": folder / "weights" / "Qwen3-ASR-1.7B",
    }
    return load_settings({key: str(value) for key, value in {**own, **variables}.items()})


def put(path: Path, size: int = MIB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def test_operators_are_removed_and_nothing_that_links_lead_to(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    kept = put(tmp_path / "elsewhere" / "kept.bin")
    put(tmp_path / "operators" / "kernel_cache" / "op.o")
    put(tmp_path / "operators" / "op.json", MIB // 2)
    (tmp_path / "operators" / "folder").symlink_to(kept.parent)
    (tmp_path / "operators" / "kernel_cache" / "file").symlink_to(kept)
    told = cache.clear_operators(settings, dry_run=True)
    assert 1.5 * MIB <= told.size < 1.6 * MIB
    assert "1.5 MiB would be freed, 4 files" in str(told)
    assert (tmp_path / "operators" / "kernel_cache" / "op.o").exists()
    freed = cache.clear_operators(settings, dry_run=False)
    assert (freed.size, freed.files) == (told.size, told.files)
    assert "1.5 MiB freed" in str(freed)
    assert list((tmp_path / "operators").iterdir()) == []
    assert kept.stat().st_size == MIB
    assert cache.clear_operators(settings, dry_run=False).size == 0


def test_operators_that_were_never_compiled(tmp_path: Path) -> None:
    assert cache.clear_operators(make_settings(tmp_path), dry_run=False).files == 0
    with pytest.raises(UsageError, match="ASR_OP_CACHE_DIR: is not set"):
        cache.clear_operators(load_settings({}), dry_run=True)


@pytest.mark.parametrize("directory", ["/", "/usr", PROJECT, PROJECT / "runtime" / "demo", Path.home(), PROJECT.parent])
def test_directories_that_hold_more_are_refused(directory: str | Path, tmp_path: Path) -> None:
    for named in (Path(directory), tmp_path / "link"):
        settings = make_settings(tmp_path, ASR_OP_CACHE_DIR=named)
        if named.name == "link":
            named.symlink_to(directory)
        with pytest.raises(UsageError, match="holds more than compiled operators"):
            cache.clear_operators(settings, dry_run=True)


@pytest.mark.parametrize("name", ["out", "weights", "weights/Qwen3-ASR-1.7B"])
def test_output_and_weights_are_no_operators(name: str, tmp_path: Path) -> None:
    kept = put(tmp_path / name / "kept.bin")
    with pytest.raises(UsageError, match="holds more than compiled operators"):
        cache.clear_operators(make_settings(tmp_path, ASR_OP_CACHE_DIR=tmp_path / name), dry_run=False)
    assert kept.exists()


def test_operators_in_a_file(tmp_path: Path) -> None:
    put(tmp_path / "operators")
    with pytest.raises(UsageError, match="is a file, expected a directory"):
        cache.clear_operators(make_settings(tmp_path), dry_run=False)


def test_operators_of_a_running_server_stay(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    kept = put(tmp_path / "operators" / "op.o")
    with state.open_lock(state.state_files(settings)) as lock:
        state.try_lock(lock)
        with pytest.raises(KitError, match=f"may be in use by the server on port {settings.port}"):
            cache.clear_operators(settings, dry_run=False)
        assert cache.clear_operators(settings, dry_run=True).size == MIB
    with (
        socket.create_server(("127.0.0.1", settings.port)),
        pytest.raises(KitError, match=f"port {settings.port}: pid {os.getpid()} "),
    ):
        cache.clear_operators(settings, dry_run=False)
    assert kept.exists()
    assert cache.clear_operators(settings, dry_run=False).size == MIB


def test_what_interrupted_fetches_left_is_removed(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    weights = tmp_path / "weights"
    model = put(weights / "Qwen3-ASR-1.7B" / "model.safetensors")
    fetching = weights / ".fetching"
    put(fetching / "Qwen3-ASR-1.7B" / "parts" / "model.safetensors.0123.9", 2 * MIB)
    (fetching / "Qwen3-ASR-1.7B" / "ready").mkdir()
    (fetching / "Qwen3-ASR-1.7B" / "ready" / model.name).hardlink_to(model)
    put(fetching / "Qwen3-ASR-0.6B" / "client" / "blob")
    lock = put(fetching / "lock", 0)
    told = cache.clear_downloads(settings, dry_run=True)
    assert (told.size, told.files) == (3 * MIB, 3)  # the second name of a file that stays counts for nothing
    assert cache.clear_downloads(settings, dry_run=False).size == 3 * MIB
    assert list(fetching.iterdir()) == [lock]
    assert model.exists()
    assert cache.clear_downloads(settings, dry_run=False).size == 0


def test_weights_that_were_to_be_replaced_come_back(tmp_path: Path) -> None:
    former = tmp_path / "weights" / ".fetching" / "{}" / "former"
    for name in ("Qwen3-ASR-1.7B", "Qwen3-ASR-0.6B"):
        put(Path(str(former).format(name)) / "model.safetensors")
    cache.clear_downloads(make_settings(tmp_path), dry_run=False)
    for name in ("Qwen3-ASR-1.7B", "Qwen3-ASR-0.6B"):
        assert (tmp_path / "weights" / name / "model.safetensors").stat().st_size == MIB
    assert not list((tmp_path / "weights" / ".fetching").glob("Qwen*"))


def test_downloads_where_a_fetch_is_at_work(tmp_path: Path) -> None:
    from runtime.weights.staging import workshop

    settings = make_settings(tmp_path)
    directory = tmp_path / "weights" / "Qwen3-ASR-1.7B"
    part = put(directory.parent / ".fetching" / directory.name / "parts" / "part")
    with (
        workshop(ModelLocation(directory, "Qwen/Qwen3-ASR-1.7B", tmp_path / "weights.lock")),
        pytest.raises(KitError, match="another fetch-weights is at work"),
    ):
        cache.clear_downloads(settings, dry_run=False)
    assert part.exists()


def test_clients_keep_only_what_is_outside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(tmp_path)
    kept = put(tmp_path / "weights" / "Qwen3-ASR-1.7B" / "model.safetensors")
    caches = [put(kept.parent / name / "part.incomplete") for name in (".cache/huggingface", "._____temp")]
    assert cache.clear_downloads(settings, dry_run=False).size == 0
    monkeypatch.setattr(cache, "PROJECT", tmp_path)
    assert cache.clear_downloads(settings, dry_run=True).size == 2 * MIB
    assert cache.clear_downloads(settings, dry_run=False).size == 2 * MIB
    assert kept.exists()
    assert not [path for path in caches if path.exists()]


def test_nothing_was_downloaded(tmp_path: Path) -> None:
    freed = cache.clear_downloads(make_settings(tmp_path), dry_run=False)
    assert (freed.size, freed.files) == (0, 0)
    assert not (tmp_path / "weights").exists()


def test_the_logs_of_cann_are_removed_and_no_others(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    out = tmp_path / "out"
    mine = put(out / "cann-log" / "debug" / "plog" / "plog-7_20260101.log")
    theirs = put(out / "server-8000" / "cann-log" / "run" / "device-0" / "device-9_20260101.log")
    kept = [put(out / "server-8000" / "asr.log"), put(out / "logs" / "server.log"), put(tmp_path / "else" / "x.log")]
    (out / "server-8001").mkdir()
    (out / "server-8001" / "cann-log").symlink_to(tmp_path / "else")
    told = cache.clear_cann_log(settings, dry_run=True)
    assert (told.size, told.files, mine.exists()) == (2 * MIB, 2, True)
    assert cache.clear_cann_log(settings, dry_run=False).size == 2 * MIB
    assert not mine.exists()
    assert not theirs.exists()
    assert all(path.exists() for path in kept)
    assert cache.clear_cann_log(settings, dry_run=False).files == 0
    assert cache.clear_cann_log(make_settings(tmp_path / "fresh"), dry_run=False).files == 0


def test_a_start_leaves_the_newest_logs_of_cann(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cann_log, "MOST", 2 * MIB)
    settings = make_settings(tmp_path, ASR_MODEL="demo")
    folder = tmp_path / "out" / "cann-log" / "debug" / "plog"
    files = [put(folder / f"plog-{number}_1.log") for number in (9, 1, 5)]
    for age, path in enumerate(files):
        os.utime(path, (1_000_000 + age, 1_000_000 + age))
    serve.check(settings, on_bytes=lambda _: None)
    assert [path.exists() for path in files] == [False, True, True]
    serve.check(settings, on_bytes=lambda _: None)
    assert [path.exists() for path in files] == [False, True, True]


def test_the_cache_of_this_process(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert "cpu: 0.0 MiB would be freed" in cache.clear_device(settings, dry_run=True)
    told = cache.clear_device(settings, dry_run=False)
    assert told.startswith("cpu: 0.0 MiB freed; ")
    assert f"(this process, as no server runs on port {settings.port})" in told


def test_the_cache_of_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(tmp_path)
    with state.open_lock(state.state_files(settings)) as lock:
        state.try_lock(lock)
        with pytest.raises(KitError, match=f"the server on port {settings.port}: does not answer.*invoke status"):
            cache.clear_device(settings, dry_run=False)
    monkeypatch.setitem(local_client.call_server.__kwdefaults__ or {}, "timeout", 0.1)
    with (
        socket.create_server(("127.0.0.1", settings.port)),
        pytest.raises(KitError, match=f"{settings.port}/admin/cache: does not answer: timed out"),
    ):
        cache.clear_device(settings, dry_run=False)


@on_npu
def test_the_cache_of_an_npu() -> None:
    import torch

    settings = load_settings({"ASR_DEVICE": "npu", "ASR_PORT": "1"})
    cache.clear_device(settings, dry_run=False)  # of what other tests left in this process
    block = torch.zeros(2**20, device="npu:0")
    assert "npu:0: 0.0 MiB would be freed" in cache.clear_device(settings, dry_run=True)
    del block
    would = cache.clear_device(settings, dry_run=True)
    assert "npu:0: 4.0 MiB would be freed; 4.0 MiB reserved before, then 0.0 MiB" in would
    did = cache.clear_device(settings, dry_run=False)
    assert "npu:0: 4.0 MiB freed; 4.0 MiB reserved before, now 0.0 MiB" in did
    assert "npu:0: 0.0 MiB would be freed" in cache.clear_device(settings, dry_run=True)

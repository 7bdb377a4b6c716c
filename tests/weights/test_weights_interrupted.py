"""`invoke fetch-weights`, cut off: by a failure, by Ctrl-C, by SIGKILL, by a second one."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.faults import Corrupt, Cut, Hold
from hub.orders import NAME, SHARD, held, needed, order, refusal, run, target
from hub.server import REPO, Hub, serving

from env.sources import PROJECT
from runtime.weights.hubs.http import PIECE

INVOKE = Path(sys.executable).parent / "invoke"
SECRET = "tell-nobody-4711"


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

"""The four ways to a hub, with the real clients against a real server on the loopback."""

from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.faults import Corrupt, Cut, IgnoreRange, Status
from hub.orders import QUICK, SHARD, address, every_hub, held, needed, order, refusal, run, sha256, target
from hub.server import COMMIT, REPO, serving

from runtime.weights import lockfile
from runtime.weights.hubs.http import PIECE

LISTING = {"modelscope": "/repo/files", "huggingface": "/api/models/", "git-lfs": "/info/refs", "http": "config.json"}


@every_hub
def test_a_repository_is_fetched_whole(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, kind), hub)
    assert held(target(tmp_path)) == needed(hub.files)
    entry = lockfile.read(tmp_path / "weights.lock")[REPO]
    assert (entry.hub, entry.endpoint) == (kind, hub.url)
    assert {name: record.sha256 for name, record in entry.files.items()} == {
        name: sha256(content) for name, content in needed(hub.files).items()
    }
    assert hub.starts(address(kind, SHARD, hub)) == [0]
    if kind != "http":
        assert "README.md" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "revision", "commit"),
    [("modelscope", "master", ""), ("huggingface", "main", COMMIT), ("git-lfs", "v1", None), ("git-lfs", "main", None)],
)
def test_a_revision_may_be_asked_for(kind: str, revision: str, commit: str | None, tmp_path: Path) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, kind, ASR_HUB_REVISION=revision), hub)
    entry = lockfile.read(tmp_path / "weights.lock")[REPO]
    assert entry.revision == revision
    assert entry.commit == commit or (commit is None and len(entry.commit) == 40)


@every_hub
def test_a_cut_connection_costs_what_was_not_written(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Cut(address(kind, SHARD, hub), after=200_000)]
        run(order(tmp_path, hub, kind), hub)
        first, second = hub.starts(address(kind, SHARD, hub))
    assert first == 0
    assert 200_000 - PIECE < second <= 200_000
    assert held(target(tmp_path)) == needed(hub.files)


@every_hub
def test_the_next_run_goes_on_where_the_last_ended(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        where = address(kind, SHARD, hub)
        hub.faults = [Cut(where, times=1, after=150_000), Status(where, times=9, status=503)]
        error = refusal(order(tmp_path, hub, kind), hub)
        assert "503" in error.reason
        assert not target(tmp_path).exists()
        (part,) = (tmp_path / "weights" / ".fetching").glob(f"*/parts/{SHARD}*")
        size = part.stat().st_size
        assert 150_000 - PIECE < size <= 150_000
        hub.faults, hub.requests = [], []
        run(order(tmp_path, hub, kind), hub)
        assert hub.starts(where) == [size]
        assert hub.starts("vocab.json") == []
    assert held(target(tmp_path)) == needed(hub.files)


def test_whoever_comes_further_has_all_attempts_again(tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Cut(SHARD, after=position) for position in range(50_000, 300_000, 50_000)]
        run(order(tmp_path, hub, "huggingface"), hub)
        assert len(hub.starts(SHARD)) == 6 > QUICK.attempts
    assert held(target(tmp_path)) == needed(hub.files)


@every_hub
def test_a_hub_that_cannot_go_on_begins_again(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        where = address(kind, SHARD, hub)
        hub.faults = [Cut(where, after=200_000), IgnoreRange(where)]
        run(order(tmp_path, hub, kind), hub)
    assert held(target(tmp_path)) == needed(hub.files)


@every_hub
def test_wrong_bytes_are_fetched_once_more(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Corrupt(address(kind, SHARD, hub))]
        run(order(tmp_path, hub, kind), hub)
        assert hub.starts(address(kind, SHARD, hub)) == [0, 0]
    assert held(target(tmp_path)) == needed(hub.files)


@every_hub
def test_bytes_that_stay_wrong_are_refused_with_both_sums(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Corrupt(address(kind, SHARD, hub), times=9)]
        error = refusal(order(tmp_path, hub, kind), hub)
    wrong = hub.files[SHARD][:-1] + bytes([hub.files[SHARD][-1] ^ 1])
    assert SHARD in error.subject
    assert sha256(wrong) in error.reason
    assert sha256(hub.files[SHARD]) in error.reason
    assert not target(tmp_path).exists()


@every_hub
def test_bytes_that_are_wrong_in_two_ways_were_changed_on_the_way(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        where = address(kind, SHARD, hub)
        hub.faults = [Corrupt(where), Corrupt(where, bit=1)]
        error = refusal(order(tmp_path, hub, kind), hub)
        run(order(tmp_path, hub, kind), hub)
    assert "something on the way changes it" in error.reason
    assert error.reason.count("sha256 ") == 3
    assert "proxy" in error.advice


def test_wrong_bytes_after_a_beginning_that_was_kept_are_fetched_twice_more(tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Cut(SHARD, times=1, after=150_000), Status(SHARD, times=9, status=503)]
        refusal(order(tmp_path, hub, "modelscope"), hub)
        hub.faults, hub.requests = [Corrupt(SHARD), Corrupt(SHARD)], []
        run(order(tmp_path, hub, "modelscope"), hub)
        assert [start > 0 for start in hub.starts(SHARD)] == [True, False, False]
    assert held(target(tmp_path)) == needed(hub.files)


def test_a_small_file_is_checked_by_the_sum_that_git_has_of_it(tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Corrupt("/vocab.json", times=9)]
        error = refusal(order(tmp_path, hub, "huggingface"), hub)
    assert "vocab.json" in error.subject
    assert "git's sum" in error.reason


@every_hub
@pytest.mark.parametrize(
    ("where", "moment"), [("listing", "0"), ("file", "0"), ("file", "Sat, 01 Jan 2000 00:00:00 GMT")]
)
def test_a_hub_that_asks_to_wait_is_asked_again(kind: str, where: str, moment: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        match = LISTING[kind] if where == "listing" else address(kind, SHARD, hub)
        hub.faults = [Status(match, times=2, status=429, headers={"Retry_After": moment})]
        run(order(tmp_path, hub, kind), hub)
        assert hub.faults[0].times == 0
    assert held(target(tmp_path)) == needed(hub.files)


def test_a_hub_that_asks_to_wait_too_long_is_told(tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Status(SHARD, status=429, headers={"Retry_After": "86400"})]
        error = refusal(order(tmp_path, hub, "huggingface"), hub)
    assert "429" in error.reason
    assert "86400 s" in error.reason


@every_hub
def test_a_hub_that_has_trouble_is_asked_again(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Status(address(kind, SHARD, hub), times=2, status=502)]
        run(order(tmp_path, hub, kind), hub)
    assert held(target(tmp_path)) == needed(hub.files)


@every_hub
def test_trouble_that_does_not_end_is_told(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Status(address(kind, SHARD, hub), times=99, status=503)]
        error = refusal(order(tmp_path, hub, kind), hub)
    assert "503" in error.reason
    assert "3 times in a row" in error.reason
    assert not target(tmp_path).exists()


@every_hub
def test_clients_write_nothing_at_home(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("HOME", "HF_HOME", "MODELSCOPE_HOME", "MODELSCOPE_CACHE"):
        monkeypatch.setenv(variable, str(home))
    with serving(files()) as hub:
        run(order(tmp_path, hub, kind), hub)
    assert list(home.iterdir()) == []

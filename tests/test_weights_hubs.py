"""The four ways to a hub, with the real clients against a real server on the loopback."""

from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.faults import Corrupt, Cut, IgnoreRange, Redirect, Say, Status
from hub.orders import KINDS, QUICK, SHARD, address, held, known, needed, order, run, sha256, target
from hub.server import COMMIT, REPO, serving

from runtime.errors import KitError, UsageError
from runtime.ops.weights import lock
from runtime.ops.weights.facts import Facts
from runtime.ops.weights.hubs.answers import PIECE

every_hub = pytest.mark.parametrize("kind", KINDS)
LISTING = {"modelscope": "/repo/files", "huggingface": "/api/models/", "git-lfs": "/info/refs", "http": "config.json"}
SECRET = "tell-nobody-4711"


def refusal(*arguments: object, **named: object) -> KitError:
    with pytest.raises(KitError) as caught:
        run(*arguments, **named)  # type: ignore[arg-type]
    return caught.value


@every_hub
def test_a_repository_is_fetched_whole(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(files()) as hub:
        run(order(tmp_path, hub, kind), hub)
    assert held(target(tmp_path)) == needed(hub.files)
    entry = lock.read(tmp_path / "weights.lock")[REPO]
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
    entry = lock.read(tmp_path / "weights.lock")[REPO]
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


def test_a_small_file_is_checked_by_the_sum_that_git_has_of_it(tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Corrupt("/vocab.json", times=9)]
        error = refusal(order(tmp_path, hub, "huggingface"), hub)
    assert "vocab.json" in error.subject
    assert "git's sum" in error.reason


@every_hub
def test_a_token_opens_the_hub_and_shows_nowhere(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(files(), token=SECRET) as hub:
        hub.faults = [Cut(address(kind, SHARD, hub), after=100_000), Status(address(kind, SHARD, hub), status=503)]
        run(order(tmp_path, hub, kind, ASR_HUB_TOKEN=SECRET), hub)
    assert held(target(tmp_path)) == needed(hub.files)
    assert SECRET not in "".join(capfd.readouterr())
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@every_hub
def test_no_token_and_a_wrong_one(kind: str, tmp_path: Path) -> None:
    with serving(files(), token=SECRET) as hub:
        error = refusal(order(tmp_path, hub, kind), hub)
        assert "(401)" in error.reason
        assert "set ASR_HUB_TOKEN" in error.advice
        error = refusal(order(tmp_path, hub, kind, ASR_HUB_TOKEN="wrong-" + SECRET), hub)
        assert "(403)" in error.reason
        assert "check ASR_HUB_TOKEN" in error.advice
        assert SECRET not in str(error)


@every_hub
def test_a_repository_that_is_not_there(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        settings = order(tmp_path, hub, kind, ASR_HUB_REPO="tests/Other")
        model = known(hub.files).models[REPO]
        error = refusal(settings, hub, facts=Facts(models={"tests/Other": model} if kind == "http" else {}))
    assert "tests/Other" in error.subject
    assert "(404)" in error.reason
    assert "ASR_HUB_REPO" in error.advice


@pytest.mark.parametrize("kind", ["modelscope", "huggingface", "git-lfs"])
def test_a_revision_that_is_not_there(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        error = refusal(order(tmp_path, hub, kind, ASR_HUB_REVISION="nowhere"), hub)
    assert "revision nowhere" in error.reason
    assert "ASR_HUB_REVISION" in error.advice


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
def test_another_host_does_not_get_the_token(kind: str, tmp_path: Path) -> None:
    with serving(files()) as other, serving(files(), token=SECRET) as hub:
        elsewhere = f"{other.url.replace('127.0.0.1', 'localhost')}/public/{sha256(hub.files[SHARD])}"
        hub.faults = [Redirect(address(kind, SHARD, hub), to=elsewhere)]
        run(order(tmp_path, hub, kind, ASR_HUB_TOKEN=SECRET), hub)
        (asked,) = other.requests
        (first,) = (asked for asked in hub.requests if address(kind, SHARD, hub) in asked.path)
    assert "authorization" in first.headers
    assert SECRET not in str(asked.headers)
    assert not {"authorization", "cookie"} & asked.headers.keys()


def test_a_store_elsewhere_does_not_get_the_token_of_git(tmp_path: Path) -> None:
    with serving(files()) as other, serving(files(), token=SECRET) as hub:
        hub.store = other.url
        run(order(tmp_path, hub, "git-lfs", ASR_HUB_TOKEN=SECRET), hub)
        assert len(other.requests) == 2
        assert not any("authorization" in asked.headers for asked in other.requests)
    assert held(target(tmp_path)) == needed(hub.files)


@pytest.mark.parametrize("kind", ["modelscope", "huggingface"])
def test_a_list_that_says_another_size_is_told(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.listed = {SHARD: {"size": 5, "Size": 5}}
        error = refusal(order(tmp_path, hub, kind), hub)
    assert f"holds {len(hub.files[SHARD])} bytes, but the list of files says 5" in error.reason


@every_hub
@pytest.mark.parametrize("name", ["../evil.json", "a/../../evil.json", "/evil.json", "evil\n.json"])
def test_a_name_that_leads_elsewhere_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    if kind == "git-lfs" and name != "../evil.json":
        pytest.skip("git's trees have names, not paths")
    hostile = {**files(), name: b"{}"}
    facts = Facts()
    if kind == "http":
        facts = known(files())
        facts.models[REPO].files[name] = facts.models[REPO].files["config.json"]  # type: ignore[index]
    with serving(hostile) as hub:
        error = refusal(order(tmp_path, hub, kind), hub, facts=facts)
    assert repr(name) in error.reason
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", ["modelscope", "huggingface", "git-lfs"])
@pytest.mark.parametrize("body", [b"<html>Please sign in</html>", b"[]", b'{"Data": 1, "siblings": 1}', b""])
def test_a_page_that_is_no_hub(kind: str, body: bytes, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Say("/", times=99, body=body)]
        error = refusal(order(tmp_path, hub, kind), hub)
    assert hub.url in error.subject
    assert error.advice


@every_hub
def test_a_page_in_place_of_a_file(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.faults = [Say(address(kind, SHARD, hub), times=99, body=b"<html>Please sign in</html>")]
        error = refusal(order(tmp_path, hub, kind), hub)
    assert f"holds 27 bytes, but the list of files says {len(hub.files[SHARD])}" in error.reason


@every_hub
def test_nobody_answers(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        pass
    error = refusal(order(tmp_path, hub, kind), hub)
    assert "Connection refused" in error.reason


@every_hub
def test_https_that_is_none(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        settings = order(tmp_path, hub, kind, ASR_HUB_ENDPOINT=hub.url.replace("http:", "https:"))
        error = refusal(settings, hub)
    assert "no trusted connection" in error.reason
    assert "REQUESTS_CA_BUNDLE" in error.advice


def test_an_offline_client_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import configure_http_backend

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    configure_http_backend()
    try:
        with serving(files()) as hub:
            assert refusal(order(tmp_path, hub, "huggingface"), hub).subject == "HF_HUB_OFFLINE"
    finally:
        monkeypatch.undo()
        configure_http_backend()


@pytest.mark.parametrize(("kind", "package"), [("git-lfs", "dulwich"), ("modelscope", "modelscope-hub")])
def test_a_client_that_is_missing(kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.ops.weights.hubs.find_spec", lambda _: None)
    with serving(files()) as hub:
        assert refusal(order(tmp_path, hub, kind), hub).subject == package


@pytest.mark.parametrize("kind", ["modelscope", "huggingface"])
def test_a_repository_without_a_checkpoint(kind: str, tmp_path: Path) -> None:
    with serving({"README.md": b"# Nothing here"}) as hub:
        assert "lists no file of a checkpoint" in refusal(order(tmp_path, hub, kind), hub).reason


@pytest.mark.parametrize("kind", ["git-lfs", "http"])
def test_a_mirror_needs_an_address(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub, pytest.raises(UsageError, match="ASR_HUB_ENDPOINT"):
        run(order(tmp_path, hub, kind, ASR_HUB_ENDPOINT=""), hub)


def test_a_password_in_the_address_is_refused_unseen(tmp_path: Path) -> None:
    with serving(files()) as hub, pytest.raises(UsageError, match="ASR_HUB_TOKEN") as caught:
        run(order(tmp_path, hub, "http", ASR_HUB_ENDPOINT=f"http://me:{SECRET}@127.0.0.1"), hub)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "line\n", "秘密"])
def test_a_token_that_cannot_be_one(token: str, tmp_path: Path) -> None:
    with serving(files()) as hub, pytest.raises(UsageError, match="ASR_HUB_TOKEN") as caught:
        run(order(tmp_path, hub, "modelscope", ASR_HUB_TOKEN=token), hub)
    assert token not in str(caught.value)


def test_plain_files_that_nobody_knows(tmp_path: Path) -> None:
    with serving(files()) as hub:
        error = refusal(order(tmp_path, hub, "http"), hub, facts=Facts())
    assert "weights.lock" in error.advice


@every_hub
def test_clients_write_nothing_at_home(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("HOME", "HF_HOME", "MODELSCOPE_HOME", "MODELSCOPE_CACHE"):
        monkeypatch.setenv(variable, str(home))
    with serving(files()) as hub:
        run(order(tmp_path, hub, kind), hub)
    assert list(home.iterdir()) == []

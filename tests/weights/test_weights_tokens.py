"""The token of a hub: it opens what it is for, and shows nowhere else."""

from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.faults import Cut, Redirect, Status
from hub.orders import SHARD, address, every_hub, held, needed, order, refusal, run, sha256, target
from hub.server import serving

from env.errors import UsageError

SECRET = "tell-nobody-4711"


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


def test_a_password_in_the_address_is_refused_unseen(tmp_path: Path) -> None:
    with serving(files()) as hub, pytest.raises(UsageError, match="ASR_HUB_TOKEN") as caught:
        run(order(tmp_path, hub, "http", ASR_HUB_ENDPOINT=f"http://me:{SECRET}@127.0.0.1"), hub)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "line\n", "秘密"])
def test_a_token_that_cannot_be_one(token: str, tmp_path: Path) -> None:
    with serving(files()) as hub, pytest.raises(UsageError, match="ASR_HUB_TOKEN") as caught:
        run(order(tmp_path, hub, "modelscope", ASR_HUB_TOKEN=token), hub)
    assert token not in str(caught.value)

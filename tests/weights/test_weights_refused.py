"""Hubs that do not have what is asked for, or are none."""

import socket
import threading
import time
from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.faults import Say
from hub.orders import SHARD, address, every_hub, known, order, refusal, run
from hub.server import REPO, serving

from env.errors import KitError, UsageError
from env.sources import load_settings
from runtime.weights.catalog import Catalog
from runtime.weights.fetch import fetch
from runtime.weights.hubs import http
from runtime.weights.transfer import Patience


def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@every_hub
def test_a_repository_that_is_not_there(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        settings = order(tmp_path, hub, kind, ASR_HUB_REPO="tests/Other")
        model = known(hub.files).models[REPO]
        error = refusal(settings, hub, facts=Catalog(models={"tests/Other": model} if kind == "http" else {}))
    assert "tests/Other" in error.subject
    assert "(404)" in error.reason
    assert "ASR_HUB_REPO" in error.advice


@pytest.mark.parametrize("kind", ["modelscope", "huggingface", "git-lfs"])
def test_a_revision_that_is_not_there(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        error = refusal(order(tmp_path, hub, kind, ASR_HUB_REVISION="nowhere"), hub)
    assert "revision nowhere" in error.reason
    assert "ASR_HUB_REVISION" in error.advice


@pytest.mark.parametrize("kind", ["modelscope", "huggingface"])
def test_a_list_that_says_another_size_is_told(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        hub.listed = {SHARD: {"size": 5, "Size": 5}}
        error = refusal(order(tmp_path, hub, kind), hub)
    assert f"holds {len(hub.files[SHARD])} bytes, but the hub's own list of files says 5" in error.reason


@every_hub
@pytest.mark.parametrize("name", ["../evil.json", "a/../../evil.json", "/evil.json", "evil\n.json"])
def test_a_name_that_leads_elsewhere_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    if kind == "git-lfs" and name != "../evil.json":
        pytest.skip("git's trees have names, not paths")
    hostile = {**files(), name: b"{}"}
    facts = Catalog()
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
    if kind == "http":
        assert f"contradicts env/weights.toml: holds 27 bytes, expected {len(hub.files[SHARD])}" in error.reason
    else:
        assert f"holds 27 bytes, but the hub's own list of files says {len(hub.files[SHARD])}" in error.reason


@every_hub
def test_nobody_answers(kind: str, tmp_path: Path) -> None:
    with serving(files()) as hub:
        pass
    error = refusal(order(tmp_path, hub, kind), hub)
    assert "Connection refused" in error.reason


@every_hub
def test_a_name_that_does_not_resolve_fails_within_seconds(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_proxies(monkeypatch)
    with serving(files()) as hub:
        facts = known(hub.files) if kind == "http" else Catalog()
    settings = order(tmp_path, hub, kind, ASR_HUB_ENDPOINT="http://hub.invalid")  # RFC 6761: a name that nobody has
    begun = time.monotonic()
    with pytest.raises(KitError, match=r"the name of hub\.invalid cannot be resolved: .*ASR_HUB_ENDPOINT"):
        fetch(settings, facts=facts)
    assert time.monotonic() - begun < 10


def test_a_name_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_proxies(monkeypatch)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60))
    monkeypatch.setattr(http, "NAME_TIMEOUT", 0.3)
    settings = load_settings(
        {"ASR_MODEL": str(tmp_path / "weights" / "Tiny"), "ASR_HUB_ENDPOINT": "http://hub.example"}
    )
    try:
        with pytest.raises(KitError, match=r"no answer of the name server, for 0\.3 s"):
            fetch(settings, facts=Catalog())
    finally:
        over.set()


def test_a_proxy_whose_name_does_not_resolve_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_proxies(monkeypatch)
    monkeypatch.setenv("http_proxy", "proxy.invalid:3128")
    settings = load_settings(
        {"ASR_MODEL": str(tmp_path / "weights" / "Tiny"), "ASR_HUB_ENDPOINT": "http://hub.example"}
    )
    with pytest.raises(KitError, match=r"the name of the proxy proxy\.invalid cannot be resolved: .*HTTPS_PROXY"):
        fetch(settings, facts=Catalog())


def test_a_store_whose_name_does_not_resolve_is_given_up_within_seconds(tmp_path: Path) -> None:
    """Where the hub sends its clients, which is seen only when the first file is fetched. A file that was on its way
    has all of the patience."""
    long = Patience(attempts=1_000_000, first=0.01, most=0.01, unresolved=0.5)
    with serving(files()) as hub:
        hub.store = "http://store.invalid"
        begun = time.monotonic()
        with pytest.raises(KitError, match=r"the name store\.invalid cannot be resolved: "):
            fetch(order(tmp_path, hub, "git-lfs"), facts=Catalog(), patience=long)
        assert time.monotonic() - begun < 10


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
    monkeypatch.setattr("runtime.weights.hubs.find_spec", lambda _: None)
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


def test_plain_files_that_nobody_knows(tmp_path: Path) -> None:
    with serving(files()) as hub:
        error = refusal(order(tmp_path, hub, "http"), hub, facts=Catalog())
    assert "weights.lock" in error.advice

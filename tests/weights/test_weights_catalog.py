"""Which weights are meant, where they come from and go to, and the clips beside them."""

from pathlib import Path

import pytest
from hub.checkpoint import files
from hub.faults import Corrupt, Say, Status
from hub.orders import QUICK, held, known, lock_of, order, run, sha256
from hub.server import COMMIT, REPO, Hub, serving

from env.errors import UsageError
from env.sources import PROJECT, load_settings
from runtime.weights import lockfile
from runtime.weights.catalog import Catalog, PublishedModel, RemoteClip, load, place, usage
from runtime.weights.clips import fetch_clips
from runtime.weights.hubs import source
from runtime.weights.lockfile import LockedFile

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
        ({"ASR_HUB": "huggingface"}, lockfile.LockedModel("huggingface", revision="main", commit="abc"), "abc"),
        (
            {"ASR_HUB": "huggingface"},
            lockfile.LockedModel("modelscope", revision="v9"),
            "7278e1e70fe206f11671096ffdd38061171dd6e5",
        ),
        (
            {"ASR_HUB": "huggingface", "ASR_HUB_REVISION": "v2"},
            lockfile.LockedModel("huggingface", revision="main"),
            "v2",
        ),
    ],
)
def test_the_revision_is_the_one_asked_for_or_recorded_or_pinned(
    variables: dict[str, str], entry: lockfile.LockedModel | None, revision: str
) -> None:
    found = source(load_settings(variables), load(), REPO_17, entry)
    assert found.revision == revision
    assert not found.endpoint.endswith("/")


def test_the_pinned_revision_is_fetched_and_recorded(tmp_path: Path) -> None:
    with serving(files()) as hub:
        facts = Catalog(models={REPO: PublishedModel({"modelscope": COMMIT}, known(hub.files).models[REPO].files)})
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
            assert model.files[name] == LockedFile(len(content), sha256(content))
    for clip in facts.clips:
        content = (reference / "clips" / clip.name).read_bytes()
        assert clip.record == LockedFile(len(content), sha256(content))


# The official clips


def clip_of(hub: Hub, content: bytes) -> RemoteClip:
    return RemoteClip("talk.wav", f"{hub.url}/{REPO}/talk.wav", LockedFile(len(content), sha256(content)))


def test_clips_come_along_once(tmp_path: Path) -> None:
    sound = bytes(range(256)) * 40
    with serving({"talk.wav": sound}) as hub:
        for _ in range(2):
            assert not fetch_clips((clip_of(hub, sound),), tmp_path / "clips", patience=QUICK)
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
def test_why_clips_cannot_be_had_is_said(fault: Status, words: str, tmp_path: Path) -> None:
    sound = bytes(range(256)) * 40
    with serving({"talk.wav": sound}) as hub:
        hub.faults = [fault]
        assert words in fetch_clips((clip_of(hub, sound),), tmp_path / "clips", patience=QUICK)
    assert not (tmp_path / "clips" / "talk.wav").exists()

"""The server in front of a vLLM, for which a stand-in answers: what clients, Prometheus and operators are told."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from fronting import hold, in_front_of
from prometheus_text import read, value
from pydantic import SecretStr
from realtime_client import realtime_session, spoken
from recordings import joined
from serving import Served, served
from vllm_server import LONGEST, StandIn, vllm_server

from env.errors import KitError
from env.sources import load_settings
from runtime.demo import CHECKPOINT, Clip
from runtime.formats import FORMATS
from runtime.model.checkpoint import CheckpointError
from runtime.ops import cache, transcribe
from runtime.ops.process import status as present
from runtime.ops.process.status import status
from runtime.server import serve
from runtime.transcriber import Transcriber, open_transcriber

CLIENTS = 40  # more than the engine transformers would be given at once, with the usual ASR_MAX_BATCH


@pytest.fixture(scope="module")
def stand_in(transcriber: Transcriber) -> Iterator[StandIn]:
    """A vLLM."""
    with vllm_server(transcriber) as running:
        yield running


@pytest.fixture(scope="module")
def front(stand_in: StandIn) -> Iterator[Transcriber]:
    """The engine vllm."""
    with open_transcriber(in_front_of(stand_in)) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(front: Transcriber) -> Iterator[Served]:
    """The server in front of it."""
    with served(front) as running:
        yield running


@pytest.fixture(scope="module")
def talk(clips: list[Clip], transcriber: Transcriber) -> bytes:
    """All clips in one file."""
    return joined(clips, transcriber)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_that_of_the_other_engine(
    server: Served, transcriber: Transcriber, talk: bytes, form: Any
) -> None:
    answer = server.post(files={"file": ("talk.wav", talk)}, data={"response_format": form})
    heard = transcriber.transcribe(talk, timed=FORMATS[form].timed)
    # vLLM is not asked for log-probabilities.
    segments = tuple(replace(segment, avg_logprob=None) for segment in heard.segments)
    assert answer.text == FORMATS[form].write(replace(heard, segments=segments))
    assert len(heard.segments) > 3


def test_languages_and_hotwords_come_to_the_model(server: Served, transcriber: Transcriber, clips: list[Clip]) -> None:
    for clip in clips:
        file = {"file": clip.path.read_bytes()}
        assert server.post(files=file, data={"prompt": clip.context}).json()["text"] == clip.text
        forced = server.post(files=file, data={"language": "zh"}).json()
        expected = transcriber.transcribe(clip.path, language="zh")
        assert (forced["text"], forced["language"]) == (expected.text, expected.language)


def test_a_stream_grows_to_the_text(client: openai.OpenAI, stand_in: StandIn, speech: list[Clip]) -> None:
    held = stand_in.fault("hold", after=6)
    events = client.audio.transcriptions.create(file=speech[0].path, model="demo", stream=True)
    first = next(iter(events))
    assert first.type == "transcript.text.delta"
    held.release.set()
    *deltas, done = list(events)
    assert done.type == "transcript.text.done"
    assert first.delta + "".join(event.delta for event in deltas if event.type == first.type) == done.text
    assert done.text == speech[0].text != first.delta


def test_as_many_are_decoded_at_once_as_it_takes(server: Served, stand_in: StandIn, speech: list[Clip]) -> None:
    held = hold(stand_in, CLIENTS)
    audio = min(speech, key=lambda clip: clip.path.stat().st_size).path.read_bytes()
    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = []
        for fault in held:
            asked.append(pool.submit(server.post, files={"file": audio}))
            assert fault.reached.wait(LONGEST)
        assert value(read(server.url), "asr_vllm_utterances", server=stand_in.url) == CLIENTS
        assert server.get("/v1/info").json()["engine"]["servers"][0]["decoding"] == CLIENTS
        for fault in held:
            fault.release.set()
        assert {future.result().status_code for future in asked} == {200}


def test_what_the_limit_of_tokens_cut_is_reported(front: Transcriber, speech: list[Clip]) -> None:
    with served(front, max_new_tokens=5) as server:
        told = server.post(files={"file": speech[0].path.read_bytes()}).json()
    assert (told["truncated"], told["tokens"]) == (True, 5)
    assert speech[0].text.startswith(told["text"])


def test_a_realtime_session(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    with realtime_session(server) as talk:
        talk.set(format={"rate": 16000})
        talk.append(spoken(transcriber, speech[:1]))
        assert talk.wait("conversation.item.input_audio_transcription.completed")["transcript"] == speech[0].text


def test_info_names_the_engine_and_its_servers(server: Served, stand_in: StandIn) -> None:
    told = server.get("/v1/info").json()
    known = {"name": stand_in.url, "url": stand_in.url, "decoding": 0, "trouble": ""}
    assert told["engine"] == {"name": "vllm", "servers": [known]}
    assert (told["device"]["silicon"], told["device"]["memory"]) == ("unknown", None)
    assert "vLLM 0.18.0" in told["device"]["description"]
    assert told["queue"]["engine"] == {"waiting": 0, "decoding": 0, "most_together": 64, "failed": ""}


def test_info_of_the_other_engine(transcriber: Transcriber) -> None:
    with served(transcriber) as server:
        assert server.get("/v1/info").json()["engine"] == {"name": "transformers", "servers": []}
        assert not [name for name, _ in read(server.url) if name.startswith("asr_vllm")]


def test_metrics_name_each_server_and_no_memory_that_is_not_known(server: Served, stand_in: StandIn) -> None:
    found = read(server.url)
    assert value(found, "asr_vllm_up", server=stand_in.url) == 1
    assert value(found, "asr_vllm_utterances", server=stand_in.url) == 0
    assert not [name for name, _ in found if name == "asr_device_memory_bytes"]
    (info,) = [dict(labels) for name, labels in found if name == "asr_info"]
    assert (info["engine"], info["model"]) == ("vllm", "demo")


def test_what_operators_are_told(front: Transcriber, stand_in: StandIn, speech: list[Clip]) -> None:
    with served(front, admin_key=SecretStr("operators-own-key")) as server:
        settings = server.service.settings.model_copy(update={"port": server.http_server.port})
        found = status(settings)
        assert found.document()["engine"] == {
            "name": "vllm",
            "servers": [{"name": stand_in.url, "url": stand_in.url, "decoding": 0, "trouble": ""}],
        }
        assert f"engine   vllm\n         {stand_in.url}: 0 being decoded\ndevice   " in present.format_status(found)
        for dry_run in (True, False):
            with pytest.raises(KitError, match="vllm has the model in processes of its own"):
                cache.clear_device(settings, dry_run=dry_run)
        assert server.post(files={"file": speech[0].path.read_bytes()}).json()["text"] == speech[0].text
    assert "nothing to free" in cache.clear_device(in_front_of(stand_in, ASR_PORT="1"), dry_run=False)


def test_files_are_transcribed_by_it(
    stand_in: StandIn, speech: list[Clip], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    order = transcribe.TranscribeOptions((str(speech[0].path), str(broken)), "", "", "text", None)
    assert transcribe.transcribe_files(order, in_front_of(stand_in)) == 1
    told = capfd.readouterr()
    assert speech[0].text in told.out
    (failure,) = [line for line in told.err.splitlines() if "broken.wav" in line]
    assert failure.startswith(str(broken))


def test_what_is_waited_for_is_said(stand_in: StandIn, speech: list[Clip], capfd: pytest.CaptureFixture[str]) -> None:
    absent = StandIn(stand_in.transcriber, port=1)
    settings = in_front_of(absent).model_copy(update={"vllm_start_seconds": 1})
    with pytest.raises(KitError, match=f"{absent.url}: takes no connection"):
        transcribe.transcribe_files(
            transcribe.TranscribeOptions((str(speech[0].path),), "", "", "text", None), settings
        )
    told = capfd.readouterr().err
    assert f"Loading demo: {absent.url}" in told


def test_only_the_small_files_are_needed_where_others_have_the_weights(stand_in: StandIn, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in CHECKPOINT.iterdir():
        if path.suffix != ".safetensors":
            (model / path.name).symlink_to(path)
    variables = {"ASR_MODEL": str(model), "ASR_OUT_DIR": str(tmp_path / "out")}
    hashed: list[int] = []
    serve.check(in_front_of(stand_in, **variables), on_bytes=hashed.append)
    assert not hashed
    with pytest.raises(KitError, match="unverified weights"):
        serve.check(load_settings({"ASR_ENGINE": "vllm", **variables}), on_bytes=hashed.append)
    (model / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"vocab\.json absent"):
        serve.check(in_front_of(stand_in, **variables), on_bytes=hashed.append)

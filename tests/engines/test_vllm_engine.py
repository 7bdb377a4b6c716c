"""The vLLM engine as its callers meet it, with a stand-in for the server: transcripts, streams, what is sent."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest
from fronting import connected
from vllm_server import LONGEST, StandIn, vllm_server

from env.errors import KitError
from runtime.audio import load
from runtime.demo import Clip
from runtime.engines import Event, Observer, Utterance
from runtime.transcriber import Request, Transcriber, limits
from runtime.transcript import Transcript


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[StandIn]:
    with vllm_server(transcriber) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def remote(server: StandIn) -> Iterator[Transcriber]:
    with connected(server) as opened:
        yield opened


@pytest.fixture
def utterance(remote: Transcriber, speech: list[Clip]) -> Utterance:
    samples = load(speech[0].path, limits=limits(remote.settings)).samples
    return Utterance(samples, remote.prompt_builder.build(), 64)


def requests(clips: list[Clip]) -> list[Request]:
    return [Request(clip.path, context=clip.context) for clip in clips]


def test_the_transcripts_are_those_of_the_other_engine(
    remote: Transcriber, transcriber: Transcriber, clips: list[Clip]
) -> None:
    expected = [transcriber.transcribe(clip.path, context=clip.context) for clip in clips]
    assert list(remote.transcribe_all(requests(clips))) == expected
    assert [expected[k].text for k in range(len(clips))] == [clip.text for clip in clips]


def test_language_and_context_are_in_the_prompt(remote: Transcriber, server: StandIn, speech: list[Clip]) -> None:
    remote.transcribe(speech[0].path, language="Chinese", context="万 爸爸")
    prompt = server.heard[-1]["prompt"]
    assert prompt == remote.prompt_builder.build(context="万 爸爸", language="Chinese")
    assert "万 爸爸" in prompt
    assert prompt.endswith("language Chinese<asr_text>")


def test_a_cut_answer_says_so(server: StandIn, speech: list[Clip]) -> None:
    with connected(server, ASR_MAX_NEW_TOKENS="4") as opened:
        transcript = opened.transcribe(speech[0].path)
    assert [segment.truncated for segment in transcript.segments] == [True]
    assert len(transcript.segments[0].tokens) == 4


@pytest.mark.parametrize("together", [1, 3, 64])
def test_tokens_come_one_by_one_however_many_a_chunk_has(
    remote: Transcriber, transcriber: Transcriber, server: StandIn, utterance: Utterance, together: int
) -> None:
    server.together = together
    received: list[Event] = []
    (decoding,) = remote.engine.submit([utterance])
    decoding.add_listener(received.append)
    result = decoding.result()
    server.together = 1
    assert result == transcriber.engine.submit([utterance])[0].result()
    assert list(decoding) == list(result.tokens)
    assert received == [*result.tokens, result]


def test_the_first_tokens_are_there_while_others_are_to_come(
    remote: Transcriber, server: StandIn, utterance: Utterance
) -> None:
    fault = server.fault("hold", after=3)
    (decoding,) = remote.engine.submit([utterance])
    tokens = iter(decoding)
    first = [next(tokens) for _ in range(3)]
    assert remote.engine.status().decoding == 1
    fault.release.set()
    assert [*first, *tokens] == list(decoding.result().tokens)


def test_what_ends_a_line_elsewhere_ends_no_event(server: StandIn, remote: Transcriber, utterance: Utterance) -> None:
    """JSON holds U+2028 and its like as they are."""
    expected = remote.engine.submit([utterance])[0].result()
    server.garnish = "\u2028\u2029\u0085"
    try:
        assert remote.engine.submit([utterance])[0].result() == expected
    finally:
        server.garnish = ""


def test_cancelling_hangs_up(remote: Transcriber, server: StandIn, utterance: Utterance) -> None:
    fault = server.fault("hold")
    (decoding,) = remote.engine.submit([utterance])
    assert fault.reached.wait(LONGEST)
    decoding.cancel()
    with pytest.raises(CancelledError):
        decoding.result()
    assert fault.hung_up.wait(LONGEST)
    assert remote.engine.status().servers[0].trouble == ""


def test_a_long_file_does_not_keep_a_short_clip_waiting(
    server: StandIn, utterance: Utterance, transcriber: Transcriber
) -> None:
    order: list[str] = []
    with connected(server, ASR_VLLM_MAX_SEQS="1") as opened:
        fault = server.fault("hold")
        long = opened.engine.submit([utterance] * 4)
        (short,) = opened.engine.submit([utterance])
        assert fault.reached.wait(LONGEST)
        status = opened.engine.status()
        assert (status.waiting, status.decoding, status.most_together) == (4, 1, 1)
        for stream in (*long, short):
            name = "short" if stream is short else "long"
            stream.add_listener(lambda event, name=name: None if isinstance(event, int) else order.append(name))  # type: ignore[misc]
        fault.release.set()
        expected = transcriber.engine.submit([utterance])[0].result()
        assert [stream.result() for stream in (*long, short)] == [expected] * 5
    assert order.index("short") <= 2


def test_what_waits_leaves_the_queue_when_it_is_cancelled(server: StandIn, utterance: Utterance) -> None:
    with connected(server, ASR_VLLM_MAX_SEQS="1") as opened:
        fault = server.fault("hold")
        first, gone = opened.engine.submit([utterance] * 2)
        assert fault.reached.wait(LONGEST)
        gone.cancel()
        assert opened.engine.status().waiting == 0
        before = len(server.heard)
        fault.release.set()
        assert first.result().tokens
    assert len(server.heard) == before


def test_whoever_gives_up_at_any_moment_leaves_nothing(server: StandIn, utterance: Utterance) -> None:
    with connected(server) as opened:
        for _ in range(100):
            (stream,) = opened.engine.submit([utterance])
            stream.cancel()
        opened.engine.stop()
        status = opened.engine.status()
        assert (status.waiting, status.decoding, status.failed) == (0, 0, "")


def test_draining_finishes_and_stopping_at_once_does_not(server: StandIn, utterance: Utterance) -> None:
    with connected(server, ASR_VLLM_MAX_SEQS="1") as opened:
        drained = opened.engine.submit([utterance] * 3)
    assert [bool(stream.result().tokens) for stream in drained] == [True] * 3
    with connected(server, ASR_VLLM_MAX_SEQS="1") as opened:
        fault = server.fault("hold")
        given_up = opened.engine.submit([utterance] * 2)
        assert fault.reached.wait(LONGEST)
        opened.engine.stop(drain=False)
    assert fault.hung_up.wait(LONGEST)
    for stream in given_up:
        with pytest.raises(CancelledError):
            stream.result()
    with pytest.raises(RuntimeError, match="stopped"):
        opened.engine.submit([utterance])
    opened.engine.stop()


def test_a_fault_of_the_utterance_is_its_own_and_shows_no_samples(
    remote: Transcriber, server: StandIn, utterance: Utterance, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    given = f"data={{'text': '<|audio_pad|>', 'audio': [{np.array_repr(utterance.samples)}]}}"
    server.fault("refuse", status=400, message=f"Failed to apply\nQwen3ASRProcessor on {given} with kwargs={{}}")
    with pytest.raises(KitError) as caught:
        remote.engine.submit([utterance])[0].result()
    assert caught.value.reason == "answers 400: Failed to apply Qwen3ASRProcessor on …"
    assert remote.engine.submit([utterance])[0].result().tokens
    assert "array" not in caplog.text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("1 validation error: {'type': 'x', 'input': {'data': 'UklGRg'}}", r"1 validation error: \{'type': 'x', …$"),
        ("exceeds model's maximum context length (4096).", r"length \(4096\)\. → lower ASR_SEGMENT_SECONDS"),
        ("w" * 1000, f"{'w' * 200} …$"),
    ],
)
def test_of_what_a_vllm_says_as_much_is_told_as_helps(
    remote: Transcriber, server: StandIn, utterance: Utterance, message: str, shown: str
) -> None:
    server.fault("refuse", status=400, message=message)
    with pytest.raises(KitError, match=f"answers 400: .*{shown}"):
        remote.engine.submit([utterance])[0].result()


@pytest.mark.parametrize(("given", "sent"), [(1, 320), (161, 320), (320, 320), (479, 320), (16_159, 16_000)])
def test_what_is_sent_is_whole_frames(remote: Transcriber, server: StandIn, given: int, sent: int) -> None:
    samples = np.linspace(-0.1, 0.1, given, dtype=np.float32)
    remote.engine.submit([Utterance(samples, remote.prompt_builder.build(), 8)])[0].result()
    received = server.heard[-1]["samples"]
    assert len(received) == sent
    assert np.array_equal(received[:given], samples[:sent])
    assert not received[given:].any()


def test_observers_hear_each_utterance_and_token(server: StandIn, utterance: Utterance) -> None:
    received: list[str] = []

    class EventRecorder(Observer):
        def batch_started(self, waits: Sequence[float], audio_seconds: float) -> None:
            assert min(waits) >= 0 < audio_seconds == utterance.seconds
            received.append("batch started")

        def prefill_done(self, seconds: float) -> None:
            assert seconds > 0
            received.append("prefill done")

        def decode_step(self, seconds: float) -> None:
            assert seconds > 0
            received.append("decode step")

    server.together = 2
    with connected(server, observers=[EventRecorder()]) as opened:
        decoded = opened.engine.submit([utterance])[0].result()
    server.together = 1
    assert received == ["batch started", "prefill done", *["decode step"] * len(decoded.tokens)]  # one more for the end


def test_a_file_that_fails_does_not_harm_the_others(remote: Transcriber, server: StandIn, speech: list[Clip]) -> None:
    server.fault("refuse", status=400, message="no")
    outcomes = list(remote.transcribe_all(requests(speech)))
    assert sum(isinstance(outcome, Transcript) for outcome in outcomes) == len(speech) - 1


def test_the_device_is_one_of_which_nothing_is_known(remote: Transcriber, server: StandIn) -> None:
    device = remote.device
    assert (device.name, device.silicon, device.is_npu) == ("elsewhere", "unknown", False)
    assert device.description() == f"vLLM 0.18.0 at {server.url}"
    assert not device.reports_memory
    assert device.empty_cache() == 0
    with pytest.raises(KitError, match="not known"):
        device.memory()
    with pytest.raises(KitError, match="ASR_ENGINE=transformers"):
        _ = remote.loaded

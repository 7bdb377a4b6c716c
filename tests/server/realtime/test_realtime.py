"""Realtime sessions that go well: with the official client, and event by event."""

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jiwer
import numpy as np
import openai
import pytest
from realtime_client import PAUSE, TRANSCRIPTION, CountingEngine, pcm, realtime_session, spoken
from serving import Served, held, served

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.transcriber import Request, Transcriber

SESSION = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"model": "demo"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
            },
            "noise_reduction": None,
        }
    },
}


def test_the_official_client_hears_what_is_said(
    client: openai.OpenAI, transcriber: Transcriber, speech: list[Clip]
) -> None:
    said = [speech[0], speech[-1]]
    sound = pcm(spoken(transcriber, said), rate=24_000)
    deltas: dict[str, str] = {}
    started: list[str] = []
    transcripts: list[str] = []
    languages: list[list[str]] = []
    with client.realtime.connect(model="demo", extra_query={"intent": "transcription"}) as connection:
        created = connection.recv()
        assert created.type == "session.created"
        connection.session.update(session=SESSION)  # type: ignore[arg-type]
        for start in range(0, len(sound), 4800):
            connection.input_audio_buffer.append(audio=base64.b64encode(sound[start : start + 4800]).decode())
        while len(transcripts) < len(said):
            event = connection.recv()
            assert event.type != "error", event
            if event.type == "session.updated":
                assert event.session.type == "transcription"
            elif event.type == "input_audio_buffer.speech_started":
                started.append(event.item_id)
            elif event.type == "conversation.item.input_audio_transcription.delta":
                deltas[event.item_id] = deltas.get(event.item_id, "") + (event.delta or "")
            elif event.type == "conversation.item.input_audio_transcription.completed":
                assert event.item_id == started[len(transcripts)]
                assert deltas[event.item_id] == event.transcript
                assert event.usage.type == "duration"
                transcripts.append(event.transcript)
                languages.append([language.code for language in event.languages or []])
    assert transcripts == [clip.text for clip in said]
    assert languages == [["en"], ["zh"]]


def test_words_are_told_while_somebody_speaks(transcriber: Transcriber, speech: list[Clip]) -> None:
    clip = transcriber.prepare(Request(speech[0].path)).audio.samples
    silent, engine = held(transcriber)

    def decode() -> None:
        decoding = engine.next()
        (heard,) = transcriber.engine.submit([decoding.utterance])
        decoding.tell(heard.result())

    with served(silent) as server, realtime_session(server) as talk:
        talk.set(format={"rate": 16000}, turn_detection=None)
        for piece in np.array_split(clip, len(clip) // SAMPLE_RATE):
            talk.append(piece)
            decode()
        before = talk.wait(f"{TRANSCRIPTION}.delta")["delta"]
        assert 0 < len(before) < len(speech[0].text)
        assert not talk.of_type("input_audio_buffer.committed")
        talk.send("input_audio_buffer.commit")
        decode()
        done = talk.wait(f"{TRANSCRIPTION}.completed")
        assert done["transcript"] == talk.transcript_of(done["item_id"]) == speech[0].text


def test_events_come_in_order_and_with_their_times(
    server: Served, transcriber: Transcriber, speech: list[Clip]
) -> None:
    sound = spoken(transcriber, speech[:1])
    with realtime_session(server) as talk:
        talk.append(sound, rate=24_000)
        done = talk.wait(f"{TRANSCRIPTION}.completed")
        kinds = [event["type"].rpartition(".")[2] for event in talk.events if "delta" not in event]
        expected = ["created", "speech_started", "speech_stopped", "committed", "added", "done", "completed"]
        assert kinds == expected
        (start,), (stop,) = (
            talk.of_type(f"input_audio_buffer.{kind}") for kind in ("speech_started", "speech_stopped")
        )
        assert abs(start["audio_start_ms"] - 1000 * PAUSE) < 300
        assert abs(stop["audio_end_ms"] - 1000 * (len(sound) / SAMPLE_RATE - PAUSE)) < 600
        lasted = (stop["audio_end_ms"] - start["audio_start_ms"]) / 1000
        assert done["usage"]["seconds"] == pytest.approx(lasted, abs=0.01)
        assert len({event["event_id"] for event in talk.events}) == len(talk.events)


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_a_client_commits_itself(server: Served, transcriber: Transcriber, speech: list[Clip], rate: int) -> None:
    with realtime_session(server, query="?model=demo&intent=transcription") as talk:
        session = talk.set(format={"type": "audio/pcm", "rate": rate}, turn_detection=None)
        assert session["audio"]["input"]["format"]["rate"] == rate
        assert session["audio"]["input"]["turn_detection"] is None
        before = None
        for clip in (speech[0], speech[-1]):
            talk.append(transcriber.prepare(Request(clip.path)).audio.samples, rate=rate, most=20)
            talk.send("input_audio_buffer.commit")
            committed = talk.wait("input_audio_buffer.committed")
            assert committed["previous_item_id"] == before
            done = talk.wait(f"{TRANSCRIPTION}.completed")
            assert (done["item_id"], done["transcript"]) == (committed["item_id"], clip.text)
            before = committed["item_id"]
        assert not talk.of_type("input_audio_buffer.speech_started")


def test_a_language_and_a_context(server: Served, transcriber: Transcriber, clips: list[Clip]) -> None:
    clip = next(clip for clip in clips if clip.context)
    with realtime_session(server) as talk:
        transcription = {"language": "en", "prompt": clip.context}
        session = talk.set(transcription=transcription, turn_detection=None, format={"rate": 16000})
        assert session["audio"]["input"]["transcription"].items() >= transcription.items()
        talk.append(transcriber.prepare(Request(clip.path)).audio.samples)
        talk.send("input_audio_buffer.commit")
        done = talk.wait(f"{TRANSCRIPTION}.completed")
        assert done["transcript"] == clip.text
        assert done["languages"] == [{"code": "en"}]


def test_what_is_cleared_is_not_heard(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    sound = spoken(transcriber, speech[:1])
    with realtime_session(server) as talk:
        talk.set(format={"rate": 16000})
        talk.append(sound[: 3 * SAMPLE_RATE])
        talk.wait("input_audio_buffer.speech_started")
        talk.send("input_audio_buffer.clear")
        talk.wait("input_audio_buffer.cleared")
        talk.append(sound)
        done = talk.wait(f"{TRANSCRIPTION}.completed")
        assert done["transcript"] == speech[0].text
        _, start = talk.of_type("input_audio_buffer.speech_started")
        assert start["audio_start_ms"] >= 3000
        assert done["item_id"] == start["item_id"]


def test_a_session_cut_short_by_commit_goes_on(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    sound = spoken(transcriber, speech[:1])
    end = len(sound) - int(0.9 * SAMPLE_RATE)
    with realtime_session(server) as talk:
        talk.set(format={"rate": 16000})
        for _ in range(2):
            talk.append(sound[:end])
            talk.send("input_audio_buffer.commit")
            assert talk.wait(f"{TRANSCRIPTION}.completed")["transcript"] == speech[0].text
        assert not talk.of_type("input_audio_buffer.speech_stopped")


def test_several_sessions_at_once(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    def hear(clip: Clip) -> str:
        with realtime_session(server) as talk:
            talk.append(spoken(transcriber, [clip]), rate=24_000)
            transcript: str = talk.wait(f"{TRANSCRIPTION}.completed")["transcript"]
            return transcript

    with ThreadPoolExecutor(len(speech)) as pool:
        heard = list(pool.map(hear, speech))
    assert jiwer.cer([clip.text for clip in speech], heard) < 0.1  # a first word may be told before it is clear


def test_speech_without_a_pause_is_cut_between_words(
    server: Served, transcriber: Transcriber, speech: list[Clip]
) -> None:
    clip = next(clip for clip in speech if clip.path.stem == "chinese-1")
    samples = transcriber.prepare(Request(clip.path)).audio.samples
    with realtime_session(server) as talk:
        talk.set(format={"rate": 16000}, turn_detection=None)
        for piece in np.array_split(np.tile(samples[3200:-3200], 5), 25):
            talk.append(piece, most=1)
            talk.set()
        talk.send("input_audio_buffer.commit")
        done = talk.wait(f"{TRANSCRIPTION}.completed")
        assert jiwer.cer(clip.text * 5, done["transcript"]) < 0.05
        assert talk.transcript_of(done["item_id"]) == done["transcript"]


def test_half_an_hour_without_a_pause_costs_the_same_from_first_to_last(
    transcriber: Transcriber, speech: list[Clip]
) -> None:
    engine = CountingEngine(transcriber.engine)
    clip = transcriber.prepare(Request(speech[0].path)).audio.samples[3200:-6400]
    five_minutes = np.resize(clip, 300 * SAMPLE_RATE)
    costs = []
    with served(replace(transcriber, engine=engine)) as server, realtime_session(server) as talk:
        talk.set(format={"rate": 16000}, turn_detection=None)
        for _ in range(6):
            before = sum(utterance.seconds for utterance in engine.given)
            talk.append(five_minutes, most=20)
            talk.set()
            costs.append((sum(utterance.seconds for utterance in engine.given) - before) / 300)
        talk.send("input_audio_buffer.commit")
        done = talk.wait(f"{TRANSCRIPTION}.completed")
    assert max(costs) < 8
    assert max(costs) < 1.1 * min(costs)
    assert max(utterance.seconds for utterance in engine.given) < 12.5
    assert done["usage"]["seconds"] == 1800
    assert done["transcript"] == talk.transcript_of(done["item_id"])
    assert len(talk.of_type(f"{TRANSCRIPTION}.delta")) > 1000

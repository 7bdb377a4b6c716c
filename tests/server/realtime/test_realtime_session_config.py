"""What clients send to set a realtime session up: honoured, taken with a warning, or in the words of the beta API."""

import base64
import io
from typing import Any

import av
import numpy as np
import pytest
from realtime_client import TRANSCRIPTION, RealtimeClient, Samples, pcm, realtime_session, spoken
from serving import PATIENCE, Served

from runtime.demo import Clip
from runtime.server.realtime import turn
from runtime.server.realtime.session_config import SessionConfig
from runtime.transcriber import Request, Transcriber

VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
PCM = {"type": "audio/pcm", "rate": 24000}
LOGPROBS = ["item.input_audio_transcription.logprobs"]
# What clients send as they are, each in the version that was current in November 2026.
CLIENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "OpenAI's guide to realtime transcription": (
        {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": PCM,
                    "noise_reduction": {"type": "near_field"},
                    "transcription": {"prompt": "", "language": "en"},
                    "turn_detection": VAD,
                }
            },
            "include": LOGPROBS,
        },
        ["session.audio.input.noise_reduction", "session.include"],
    ),
    "LiveKit": (
        {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": PCM,
                    "transcription": {"model": "demo", "language": "en", "keywords": ["sara"]},
                    "turn_detection": {**VAD, "prefix_padding_ms": 600, "silence_duration_ms": 350},
                    "noise_reduction": {"type": "far_field"},
                }
            },
        },
        ["session.audio.input.noise_reduction"],
    ),
    "Pipecat": (
        {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": PCM,
                    "transcription": {"model": "demo", "language": "en", "delay": "low"},
                    "turn_detection": None,
                }
            },
        },
        ["session.audio.input.transcription.delay"],
    ),
    "OpenAI's agents": (
        {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": PCM,
                    "transcription": {"model": "demo"},
                    "turn_detection": {"type": "semantic_vad"},
                }
            },
        },
        ["session.audio.input.turn_detection"],
    ),
}


def update(
    talk: RealtimeClient, session: dict[str, Any], kind: str = "session.update"
) -> tuple[dict[str, Any], list[str]]:
    """The input as it is now set, and the warnings, up to what they say of a field."""
    talk.send(kind, session=session)
    answer = talk.wait(kind.replace("update", "updated"))
    told = answer["session"]
    return told.get("audio", {}).get("input", told), answer.get("warnings", [])


def places(warnings: list[str]) -> list[str]:
    """The fields that warnings are about."""
    return [warning.partition(":")[0] for warning in warnings]


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_work_as_they_are(server: Served, client: str) -> None:
    session, ineffective = CLIENTS[client]
    with realtime_session(server, query="?intent=transcription") as talk:
        told, warnings = update(talk, session)
        assert places(warnings) == ineffective
        asked = session["audio"]["input"]
        assert told["format"] == PCM
        assert told["noise_reduction"] is None
        wanted = {name: value for name, value in asked["transcription"].items() if name != "delay"}
        assert told["transcription"].items() >= wanted.items()
        if asked["turn_detection"] is None:
            assert told["turn_detection"] is None
        else:
            assert told["turn_detection"].items() >= {**VAD, **asked["turn_detection"], "type": "server_vad"}.items()


def test_what_asks_for_nothing_is_not_warned_of(server: Served) -> None:
    with realtime_session(server) as talk:
        created = talk.of_type("session.created")[0]["session"]
        told, warnings = update(talk, created)  # sent back as it came
        assert (told, warnings) == (created["audio"]["input"], [])
        nothing = {
            "tools": [],
            "instructions": "",
            "tracing": None,
            "include": None,
            "output_modalities": ["text"],
            "audio": {"input": {"turn_detection": {"create_response": False, "idle_timeout_ms": None}}},
        }
        assert update(talk, nothing) == (told, [])


def test_fields_without_effect_are_named_and_the_rest_holds(server: Served) -> None:
    given = {"create_response": True, "interrupt_response": True, "idle_timeout_ms": 5000, "threshold": 0.7}
    with realtime_session(server) as talk:
        session = {"tracing": "auto", "x" * 200: 1, "audio": {"input": {"turn_detection": given}}}
        told, warnings = update(talk, session)
        assert told["turn_detection"] == {
            **VAD,
            "threshold": 0.7,
            "create_response": False,
            "interrupt_response": False,
            "idle_timeout_ms": None,
        }
        vad = "session.audio.input.turn_detection"
        names = [f"{vad}.{name}" for name in ("create_response", "interrupt_response", "idle_timeout_ms")]
        assert places(warnings) == ["session.tracing", f"session.{'x' * 80}…", *names]


def test_null_stands_for_the_default(server: Served) -> None:
    with realtime_session(server) as talk:
        defaults = talk.of_type("session.created")[0]["session"]["audio"]["input"]
        transcription = {"language": "en", "prompt": "sara", "keywords": ["hello"]}
        changed = talk.set(format={"rate": 16000}, transcription=transcription, turn_detection={"threshold": 0.9})
        assert changed != defaults
        nulls = {"format": None, "transcription": None, "turn_detection": {"threshold": None}}
        assert talk.set(**nulls)["audio"]["input"] == defaults
        assert talk.set(turn_detection=None)["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(("eagerness", "silence"), [("low", 1000), ("medium", 500), ("auto", 500), ("high", 300)])
def test_semantic_vad_becomes_patience(server: Served, eagerness: str, silence: int) -> None:
    with realtime_session(server) as talk:
        wanted = {"type": "semantic_vad", "eagerness": eagerness}
        told, (warning,) = update(talk, {"audio": {"input": {"turn_detection": wanted}}})
        assert told["turn_detection"]["silence_duration_ms"] == silence
        assert f"server_vad with silence_duration_ms {silence}" in warning


def test_keywords_and_the_only_language_tell_what_to_expect(
    server: Served, transcriber: Transcriber, clips: list[Clip]
) -> None:
    clip = next(clip for clip in clips if clip.context)
    with realtime_session(server) as talk:
        transcription = {"languages": ["en"], "keywords": [clip.context], "prompt": ""}
        told, warnings = update(
            talk,
            {"audio": {"input": {"transcription": transcription, "turn_detection": None, "format": {"rate": 16000}}}},
        )
        assert (told["transcription"]["keywords"], warnings) == ([clip.context], [])
        assert commit(talk, transcriber.prepare(Request(clip.path)).audio.samples) == clip.text
        told, (warning,) = update(talk, {"audio": {"input": {"transcription": {"languages": ["en", "en-GB"]}}}})
        assert warning.startswith("session.audio.input.transcription.languages: has no effect, as one language")
        told, warnings = update(talk, {"audio": {"input": {"transcription": {"language": "en-US"}}}})
        assert ([told["transcription"][name] for name in ("language", "languages")], warnings) == (["en-US", None], [])


def commit(talk: RealtimeClient, samples: Samples) -> str:
    """The transcript of samples at 16 kHz, committed by the client."""
    talk.append(samples)
    talk.send("input_audio_buffer.commit")
    transcript: str = talk.wait(f"{TRANSCRIPTION}.completed")["transcript"]
    return transcript


@pytest.mark.parametrize(("model", "detected"), [("gpt-live-transcribe", False), ("demo", True)])
def test_models_without_turn_detection_get_none_unless_it_is_asked_for(model: str, detected: bool) -> None:
    def after(**wanted: Any) -> bool:
        return SessionConfig().updated({"audio": {"input": wanted}}).config.audio.input.turn_detection is not None

    assert after(transcription={"model": model}) is detected
    assert after(transcription={"model": model}, turn_detection=VAD)


def test_the_beta_api_is_understood(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    """As LiveKit, OpenAI's agents and others sent it until 2025."""
    session = {
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "demo", "prompt": "", "language": "en"},
        "input_audio_noise_reduction": {"type": "near_field"},
        "turn_detection": {"type": "server_vad", "threshold": 0.5, "create_response": True},
        "modalities": ["text"],
    }
    with realtime_session(server) as talk:
        told, warnings = update(talk, session, "transcription_session.update")
        assert (told["input_audio_format"], told["sample_rate"]) == ("pcm16", 24000)
        assert told["turn_detection"]["threshold"] == 0.5
        assert told["input_audio_transcription"]["language"] == "en"
        assert places(warnings) == [
            "session.audio.input.noise_reduction",
            "session.audio.input.turn_detection.create_response",
        ]
        told, _ = update(talk, {"turn_detection": None})  # a field of the beta API in the event of today
        assert told["turn_detection"] is None
        assert told["transcription"]["language"] == "en"
        samples = spoken(transcriber, speech[:1])
        talk.append(samples, rate=24_000)
        talk.send("input_audio_buffer.commit")
        assert talk.wait(f"{TRANSCRIPTION}.completed")["transcript"] == speech[0].text


# As Alibaba's examples for Qwen-ASR-Realtime and its SDK (dashscope 1.25, OmniRealtimeConversation) send it.
ALIBABA: dict[str, tuple[dict[str, Any], list[str]]] = {
    "example": (
        {
            "modalities": ["text"],
            "input_audio_format": "pcm",
            "sample_rate": 16000,
            "input_audio_transcription": {"language": "en"},
            "turn_detection": {"type": "server_vad", "threshold": 0.2, "silence_duration_ms": 800},
        },
        [],
    ),
    "without a rate": ({"input_audio_format": "pcm"}, []),
    "before there was sample_rate": ({"input_audio_format": "pcm", "input_sample_rate": 16000}, []),
    "rate alone": ({"sample_rate": 16000, "audio": None}, []),
    "preset of low latency": (
        {
            "input_audio_format": "pcm",
            "sample_rate": 16000,
            "turn_detection": {"type": "server_vad", "threshold": 0.0, "silence_duration_ms": 400},
        },
        ["session.audio.input.turn_detection.threshold"],
    ),
    "SDK": (
        {
            "modalities": ["text"],
            "voice": None,
            "input_audio_format": "pcm",
            "output_audio_format": "pcm16",
            "input_audio_transcription": {"language": "en"},
            "turn_detection": {**VAD, "threshold": 0.2, "silence_duration_ms": 800},
            "sample_rate": 16000,
        },
        ["session.output_audio_format"],
    ),
    "SDK with a format of its own": (
        {
            "modalities": ["text"],
            "voice": None,
            "audio": {"input": {"format": {"type": "pcm", "sample_rate": 16000}}},
            "input_audio_transcription": {"model": None},
            "turn_detection": VAD,
        },
        [],
    ),
}


@pytest.mark.parametrize("client", ALIBABA)
def test_alibabas_requests_are_heard_at_their_rate(
    server: Served, transcriber: Transcriber, speech: list[Clip], client: str
) -> None:
    session, ineffective = ALIBABA[client]
    with realtime_session(server) as talk:
        told, warnings = update(talk, session)
        assert told["format"] == {"type": "audio/pcm", "rate": 16000}
        assert places(warnings) == ineffective
        talk.append(spoken(transcriber, speech[:1]))
        talk.send("session.finish", event_id="event_finish")
        talk.wait("session.finished")
        assert [event["transcript"] for event in talk.of_type(f"{TRANSCRIPTION}.completed")] == [speech[0].text]
        assert talk.wait_closed().code == 1000


def test_a_session_without_speech_finishes_at_once(server: Served) -> None:
    with realtime_session(server) as talk:
        talk.send("session.finish")
        assert talk.next()["type"] == "session.finished"
        assert talk.wait_closed().code == 1000
    assert server.server_state.wait_idle(PATIENCE)


def test_a_corpus_tells_what_to_expect(server: Served, transcriber: Transcriber, clips: list[Clip]) -> None:
    clip = next(clip for clip in clips if clip.context)
    with realtime_session(server) as talk:
        wanted = {"language": "en", "corpus": {"text": clip.context}}
        session = {"input_audio_format": "pcm", "input_audio_transcription": wanted, "turn_detection": None}
        told, warnings = update(talk, session)
        assert (told["transcription"]["corpus"], warnings) == ({"text": clip.context}, [])
        assert commit(talk, transcriber.prepare(Request(clip.path)).audio.samples) == clip.text


def test_vllms_requests_are_heard_as_vllm_does(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    with realtime_session(server) as talk:
        talk.send("session.update", model="demo")
        updated = talk.wait("session.updated")
        assert places(updated["warnings"]) == ["session"]
        told = updated["session"]["audio"]["input"]
        assert (told["format"], told["turn_detection"]) == ({"type": "audio/pcm", "rate": 16000}, None)
        talk.append(spoken(transcriber, speech[:1]))
        talk.send("input_audio_buffer.commit", final=True)
        assert talk.wait(f"{TRANSCRIPTION}.completed")["transcript"] == speech[0].text


def test_telephone_audio(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    """G.711 has 4 kHz of sound, and the demo model learnt on 8: of its words, most are the same."""
    samples = spoken(transcriber, speech[:1])
    encoded = {"audio/pcmu": as_g711(samples, "pcm_mulaw"), "audio/pcma": as_g711(samples, "pcm_alaw")}
    with realtime_session(server) as talk:
        talk.set(format={"type": "audio/pcm", "rate": 8000}, turn_detection=None)
        sound = pcm(samples, rate=8000)
        transcripts = [told(talk, sound)]
        for name, data in encoded.items():
            assert talk.set(format={"type": name})["audio"]["input"]["format"] == {"type": name, "rate": 8000}
            transcripts.append(told(talk, data))
        assert transcripts[0] == transcripts[1] == transcripts[2] != ""
        assert talk.set(format={"type": "audio/pcm"})["audio"]["input"]["format"] == PCM


def told(talk: RealtimeClient, sound: bytes) -> str:
    """The transcript of bytes in the session's format."""
    for start in range(0, len(sound), 4098):
        talk.send("input_audio_buffer.append", audio=base64.b64encode(sound[start : start + 4098]).decode())
    talk.send("input_audio_buffer.commit")
    transcript: str = talk.wait(f"{TRANSCRIPTION}.completed")["transcript"]
    return transcript


def as_g711(samples: Samples, codec: str) -> bytes:
    """What a telephone line would carry, by FFmpeg."""
    source = np.frombuffer(pcm(samples, rate=8000), dtype="<i2")
    file = io.BytesIO()
    with av.open(file, "w", format="mulaw" if codec == "pcm_mulaw" else "alaw") as container:
        stream = container.add_stream(codec, rate=8000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(source.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(("law", "form"), [("audio/pcmu", "mulaw"), ("audio/pcma", "alaw")])
def test_all_codes_of_g711_are_those_of_ffmpeg(law: str, form: str) -> None:
    codes = bytes(range(256))
    with av.open(io.BytesIO(codes), "r", format=form, options={"sample_rate": "8000"}) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    assert np.array_equal(np.frombuffer(turn.decode_g711(codes, law), dtype="<i2"), np.concatenate(frames))


def test_there_is_no_answer_to_stop(server: Served) -> None:
    with realtime_session(server) as talk:
        talk.send("response.cancel", response_id="resp_1")
        talk.send("output_audio_buffer.clear")
        talk.set()
        assert [event["type"] for event in talk.events] == ["session.created", "session.updated"]


def test_an_address_may_say_more(server: Served) -> None:
    with realtime_session(server, query="?intent=transcription&api-version=2025-04-01&model=demo") as talk:
        assert talk.of_type("session.created")[0]["warnings"] == ["api-version: has no effect"]

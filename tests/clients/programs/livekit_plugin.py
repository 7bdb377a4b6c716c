"""LiveKit's plugin for OpenAI, outside a room: python livekit_plugin.py SERVER KEY FOLDER"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import soundfile
from livekit import rtc
from livekit.agents import APIConnectOptions
from livekit.agents.inference import VAD
from livekit.agents.stt import SpeechEventType, StreamAdapter
from livekit.agents.utils import http_context
from livekit.plugins.openai import STT
from uses import report

SERVER, KEY, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
WHERE = {"base_url": f"{SERVER}/v1", "api_key": KEY}
ONCE = APIConnectOptions(max_retry=0, timeout=30)
RATE = 24_000
TURNS = [(FOLDER / f"turn-{number}-{RATE}.pcm").read_bytes() for number in (1, 2)]


def _frames(pcm: bytes, rate: int) -> Iterator[rtc.AudioFrame]:
    """10 ms each, as a room brings them."""
    size = 2 * rate // 100
    for start in range(0, len(pcm) - size + 1, size):
        yield rtc.AudioFrame(pcm[start : start + size], rate, 1, size // 2)


async def _recognized(file: str, **options: Any) -> Any:
    samples, rate = soundfile.read(FOLDER / file, dtype="int16")
    event = await STT(**WHERE, **options).recognize(list(_frames(samples.tobytes(), rate)), conn_options=ONCE)
    (heard,) = event.alternatives
    return {"text": heard.text, "language": heard.language}


async def _streamed(stt: Any, *, begin: Callable[[], None] = lambda: None, answered: bool = False) -> Any:
    """What is told of two turns; of the first one before the second is begun, where each is to be `answered`."""
    events: list[dict[str, str]] = []
    said = [TURNS[:1], TURNS[1:]] if answered else [TURNS]
    async with http_context.open(), stt, stt.stream(conn_options=ONCE) as stream:
        begin()
        awaited = 0
        for turns in said:
            for frame in _frames(b"".join(turns), RATE):
                stream.push_frame(frame)
            awaited += len(turns)
            while [event["type"] for event in events].count(SpeechEventType.FINAL_TRANSCRIPT) < awaited:
                event = await anext(stream)
                best = event.alternatives[0] if event.alternatives else None
                told = {"text": best.text, "language": best.language} if best else {}
                events.append({"type": event.type, **told})
    return events


async def recognize() -> Any:
    return await _recognized("english.wav")


async def whisper() -> Any:
    return await _recognized("english.wav", model="whisper-1", temperature=0.2)


async def language() -> Any:
    return await _recognized("chinese.wav", model="whisper-1", language="en")


async def detected_language() -> Any:
    return await _recognized("chinese.wav", model="whisper-1", detect_language=True)


async def languages_and_keywords() -> Any:
    return await _recognized("hotword.wav", model="gpt-transcribe", language=["en"], keywords=["sara"])


async def prompt() -> Any:
    return await _recognized("hotword.wav", prompt=(FOLDER / "hotword.txt").read_text(encoding="utf-8"))


async def by_vad() -> Any:
    """As an agent uses it without realtime: cut by LiveKit's own VAD."""
    return await _streamed(StreamAdapter(stt=STT(**WHERE), vad=VAD()))


async def realtime() -> Any:
    return await _streamed(STT(**WHERE, use_realtime=True))


async def realtime_with_options() -> Any:
    turns = {"type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 200, "silence_duration_ms": 400}
    stt = STT(**WHERE, use_realtime=True, detect_language=True, turn_detection=turns, noise_reduction_type="near_field")
    return await _streamed(stt)


async def realtime_semantic() -> Any:
    turns = {"type": "semantic_vad", "eagerness": "auto"}
    return await _streamed(STT(**WHERE, use_realtime=True, language="en", turn_detection=turns))


async def realtime_by_keywords() -> Any:
    return await _streamed(STT(**WHERE, model="gpt-transcribe", use_realtime=True, keywords=["station"]))


async def realtime_by_client() -> Any:
    """A model without turns of its own: LiveKit's VAD commits, which it does while somebody speaks."""
    return await _streamed(STT(**WHERE, model="gpt-realtime-whisper"), answered=True)


async def realtime_updated() -> Any:
    """Another language and a prompt while the stream is open, before somebody speaks."""
    stt = STT(**WHERE, use_realtime=True, language="zh")
    return await _streamed(stt, begin=lambda: stt.update_options(language="en", prompt="station"))


report(
    recognize,
    whisper,
    language,
    detected_language,
    languages_and_keywords,
    prompt,
    by_vad,
    realtime,
    realtime_with_options,
    realtime_semantic,
    realtime_by_keywords,
    realtime_by_client,
    realtime_updated,
)

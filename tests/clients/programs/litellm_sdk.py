"""LiteLLM's SDK, which its proxy calls likewise: python litellm_sdk.py SERVER KEY FOLDER"""

import base64
import sys
from pathlib import Path
from typing import Any

import litellm
from uses import report

SERVER, KEY, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
WHERE = {"api_base": f"{SERVER}/v1", "api_key": KEY, "max_retries": 0}
SPOKEN = {
    "type": "input_audio",
    "input_audio": {"data": base64.b64encode((FOLDER / "english.wav").read_bytes()).decode(), "format": "wav"},
}
QUESTION = {"type": "text", "text": "What is said in this recording?"}


async def _heard(file: str, model: str = "openai/whisper-1", **options: Any) -> Any:
    with (FOLDER / file).open("rb") as audio:
        answer = await litellm.atranscription(model=model, file=audio, **WHERE, **options)
    return answer.model_dump()


async def plain() -> Any:
    with (FOLDER / "english.wav").open("rb") as audio:
        return litellm.transcription(model="openai/whisper-1", file=audio, **WHERE).model_dump()


async def asynchronous() -> Any:
    return await _heard("english.wav")


async def mp3() -> Any:
    return await _heard("ffmpeg.mp3")


async def language() -> Any:
    return await _heard("chinese.wav", language="en")


async def prompt() -> Any:
    return await _heard("hotword.wav", prompt=(FOLDER / "hotword.txt").read_text(encoding="utf-8"))


async def verbose_json() -> Any:
    return await _heard(
        "talk.wav", response_format="verbose_json", timestamp_granularities=["segment"], temperature=0.2
    )


async def text() -> Any:
    return await _heard("english.wav", response_format="text")


async def srt() -> Any:
    return await _heard("english.wav", response_format="srt")


async def newer_model() -> Any:
    return await _heard("english.wav", "openai/gpt-4o-transcribe", response_format="json", include=["logprobs"])


async def stream() -> Any:
    with (FOLDER / "talk.wav").open("rb") as audio:
        answer = await litellm.atranscription(model="openai/gpt-transcribe", file=audio, stream=True, **WHERE)
    return [event.model_dump() async for event in answer]


async def as_vllm() -> Any:
    """The provider for servers that speak like vLLM's; the model's name is the server's own."""
    return await _heard("english.wav", "hosted_vllm/demo")


async def as_any_server() -> Any:
    """With what LiteLLM hands on although its reference for transcriptions does not name it."""
    return await _heard("english.wav", user="me", drop_params=True)


async def chat() -> Any:
    messages = [{"role": "user", "content": [QUESTION, SPOKEN]}]
    answer = await litellm.acompletion(model="openai/qwen3-asr", messages=messages, **WHERE)
    return answer.model_dump()


async def chat_stream() -> Any:
    messages = [{"role": "user", "content": [SPOKEN]}]
    answer = await litellm.acompletion(
        model="openai/whisper-1",
        messages=messages,
        max_tokens=256,
        temperature=0.01,
        stream=True,
        stream_options={"include_usage": True},
        **WHERE,
    )
    return [chunk.model_dump() async for chunk in answer]


report(
    plain,
    asynchronous,
    mp3,
    language,
    prompt,
    verbose_json,
    text,
    srt,
    newer_model,
    stream,
    as_vllm,
    as_any_server,
    chat,
    chat_stream,
)

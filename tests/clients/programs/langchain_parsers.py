"""LangChain: its parsers of audio and its chat model: python langchain_parsers.py SERVER KEY FOLDER"""

import base64
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
from langchain_community.document_loaders.blob_loaders import Blob
from langchain_community.document_loaders.generic import GenericLoader
from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydub import AudioSegment
from uses import report

SERVER, KEY, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
WHERE = {"base_url": f"{SERVER}/v1", "api_key": KEY}
DATA = base64.b64encode((FOLDER / "english.wav").read_bytes()).decode()
SPOKEN = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}

AudioSegment.converter = imageio_ffmpeg.get_ffmpeg_exe()


async def _parsed(file: str, **options: Any) -> Any:
    parser = OpenAIWhisperParser(**WHERE, **options)
    return [document.page_content for document in parser.lazy_parse(Blob.from_path(FOLDER / file))]


async def parser() -> Any:
    return await _parsed("english.wav")


async def parser_in_a_language() -> Any:
    return await _parsed("chinese.wav", language="en", temperature=0, response_format="verbose_json")


async def parser_of_subtitles() -> Any:
    return await _parsed("english.wav", response_format="srt")


async def loader() -> Any:
    """A folder of recordings, as its documentation loads one."""
    loading = GenericLoader.from_filesystem(FOLDER, glob="english.wav", parser=OpenAIWhisperParser(**WHERE))
    return [document.page_content for document in loading.load()]


async def chat() -> Any:
    model = ChatOpenAI(model="qwen3-asr", max_retries=0, **WHERE)
    text = {"type": "text", "text": "What is said in this recording?"}
    answer = await model.ainvoke([HumanMessage(content=[text, SPOKEN])])
    return answer.model_dump()


async def chat_with_options() -> Any:
    """With LangChain's own block for audio, and what many of its users set."""
    model = ChatOpenAI(model="whisper-1", temperature=0, max_tokens=256, seed=1, max_retries=0, **WHERE)
    block = {"type": "audio", "base64": DATA, "mime_type": "audio/wav"}
    messages = [SystemMessage("You transcribe."), HumanMessage(content=[block])]
    return (await model.ainvoke(messages)).model_dump()


async def chat_stream() -> Any:
    model = ChatOpenAI(model="whisper-1", stream_usage=True, max_retries=0, **WHERE)
    return [chunk.model_dump() async for chunk in model.astream([HumanMessage(content=[SPOKEN])])]


report(parser, parser_in_a_language, parser_of_subtitles, loader, chat, chat_with_options, chat_stream)

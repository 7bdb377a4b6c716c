"""Pipecat's services for OpenAI, in a pipeline behind its VAD: python pipecat_services.py SERVER KEY FOLDER"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import EndFrame, ErrorFrame, Frame, InputAudioRawFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService, OpenAISTTService
from pipecat.transcriptions.language import Language
from pipecat.workers.runner import WorkerRunner
from uses import report

SERVER, KEY, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
HTTP = {"base_url": f"{SERVER}/v1", "api_key": KEY}
REALTIME = {"base_url": f"{SERVER.replace('http', 'ws', 1)}/v1/realtime", "api_key": KEY}
RATE = 16_000
FRAME = 2 * RATE // 50  # bytes in 20 ms


async def _spoken(service: Any, *, vad: bool = True) -> list[str]:
    """What is told of two turns, which are cut by Pipecat's VAD or the server's."""
    texts: list[str] = []
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    before = [VADProcessor(vad_analyzer=SileroVADAnalyzer())] if vad else []
    worker = PipelineWorker(
        Pipeline([*before, service]),
        params=PipelineParams(audio_in_sample_rate=RATE),
        cancel_on_idle_timeout=False,
        enable_rtvi=False,
    )
    worker.set_reached_downstream_filter((TranscriptionFrame,))
    worker.set_reached_upstream_filter((ErrorFrame,))

    async def heard(_: Any, frame: Frame) -> None:
        texts.append(frame.text)
        if len(texts) == 2 and not over.done():
            over.set_result(None)

    async def failed(_: Any, frame: Frame) -> None:
        if not over.done():
            over.set_exception(RuntimeError(frame.error))

    async def speak(_: Any, __: Frame) -> None:
        sound = b"".join((FOLDER / f"turn-{number}-{RATE}.pcm").read_bytes() for number in (1, 2))
        for start in range(0, len(sound), FRAME):
            await worker.queue_frame(InputAudioRawFrame(sound[start : start + FRAME], RATE, 1))

    worker.add_event_handler("on_frame_reached_downstream", heard)
    worker.add_event_handler("on_frame_reached_upstream", failed)
    worker.add_event_handler("on_pipeline_started", speak)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.ensure_future(runner.run())
    try:
        await over
    finally:
        await worker.queue_frame(EndFrame())
        await running
    return texts


async def segments() -> Any:
    return await _spoken(OpenAISTTService(**HTTP))


async def segments_with_options() -> Any:
    settings = OpenAISTTService.Settings(
        model="gpt-4o-transcribe", language=Language.EN_US, prompt="station", temperature=0.2
    )
    return await _spoken(OpenAISTTService(**HTTP, settings=settings, include_prob_metrics=True))


async def whisper() -> Any:
    settings = OpenAISTTService.Settings(model="whisper-1")
    return await _spoken(OpenAISTTService(**HTTP, settings=settings, include_prob_metrics=True))


async def keywords() -> Any:
    settings = OpenAISTTService.Settings(model="gpt-transcribe", keywords=["station", "train"])
    return await _spoken(OpenAISTTService(**HTTP, settings=settings))


async def realtime() -> Any:
    return await _spoken(OpenAIRealtimeSTTService(**REALTIME))


async def realtime_with_options() -> Any:
    settings = OpenAIRealtimeSTTService.Settings(
        model="gpt-4o-transcribe", language=Language.EN_GB, prompt="station", noise_reduction="far_field"
    )
    return await _spoken(OpenAIRealtimeSTTService(**REALTIME, settings=settings))


async def realtime_by_server() -> Any:
    settings = OpenAIRealtimeSTTService.Settings(model="gpt-4o-transcribe", noise_reduction="near_field")
    turns = {"type": "server_vad"}
    service = OpenAIRealtimeSTTService(**REALTIME, settings=settings, turn_detection=turns)
    return await _spoken(service, vad=False)


report(segments, segments_with_options, whisper, keywords, realtime, realtime_with_options, realtime_by_server)

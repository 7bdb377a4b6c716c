"""From audio to transcript with the demo model: seams, silence, languages, context, limits, memory."""

import contextlib
import gc
import itertools
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from fronting import until
from simulated_npu import on_npu, stand_in

from env.settings import Settings
from env.sources import load_settings
from runtime.audio import SAMPLE_RATE, Audio, AudioError, load
from runtime.audio import segment as segments
from runtime.demo import Clip
from runtime.demo_recipe.synthesis import HOTWORDS
from runtime.engines import Utterance
from runtime.engines.transformers import TransformersEngine
from runtime.languages import UnknownLanguageError
from runtime.model.device import OutOfMemoryError
from runtime.transcriber import FailedRequest, Request, Transcriber, limits, open_transcriber
from runtime.transcript import Transcript

PAUSE = np.zeros(int(0.6 * SAMPLE_RATE), dtype=np.float32)


def sound(clip: Clip, settings: Settings) -> Audio:
    return load(clip.path, limits=limits(settings))


def with_settings(transcriber: Transcriber, **changes: object) -> Transcriber:
    return Transcriber(transcriber.settings.model_copy(update=changes), transcriber.engine)


def test_every_clip(transcriber: Transcriber, clips: list[Clip]) -> None:
    for clip in clips:
        transcript = transcriber.transcribe(clip.path, context=clip.context)
        assert (transcript.text, transcript.language) == (clip.text, clip.language)
        assert not transcript.truncated
        assert transcript.repeated == 0


@pytest.mark.parametrize("name", ["english-1.wav", "english-2.wav", "chinese-1.wav", "chinese-3.wav"])
def test_long_audio_loses_and_doubles_nothing_at_its_seams(
    transcriber: Transcriber, speech: list[Clip], name: str
) -> None:
    clip = next(clip for clip in speech if clip.path.name == name)
    spoken = np.concatenate([sound(clip, transcriber.settings).samples, PAUSE])
    long = Audio(np.tile(spoken, 12), "long")
    transcript = with_settings(transcriber, segment_seconds=1.2 * len(spoken) / SAMPLE_RATE).transcribe(long)
    assert "".join(transcript.text.split()) == "".join(clip.text.split()) * 12
    assert [segment.hypothesis.text for segment in transcript.segments] == [clip.text] * 12
    assert transcript.segments[0].start == 0
    assert transcript.segments[-1].end == long.seconds
    for before, after in itertools.pairwise(transcript.segments):
        assert before.end == after.start


def test_languages_are_listed_where_segments_differ(transcriber: Transcriber, speech: list[Clip]) -> None:
    pieces = [piece for clip in speech for piece in (sound(clip, transcriber.settings).samples, PAUSE)]
    transcript = transcriber.transcribe(Audio(np.concatenate(pieces), "both"))
    assert transcript.languages == ("English", "Chinese")
    assert transcript.language == "English,Chinese"
    assert all(segment.end - segment.start <= transcriber.settings.segment_seconds for segment in transcript.segments)


def test_the_text_is_the_segments_texts_one_by_one(transcriber: Transcriber, speech: list[Clip]) -> None:
    pieces = [piece for clip in speech for piece in (sound(clip, transcriber.settings).samples, PAUSE)]
    long = np.concatenate(pieces)
    whole = transcriber.transcribe(Audio(long, "long"))
    cuts = segments.split(long, longest=transcriber.settings.segment_seconds)
    alone = [transcriber.transcribe(Audio(cut.samples, "cut")).text for cut in cuts]
    assert [segment.hypothesis.text for segment in whole.segments] == alone


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silence_is_nothing_even_with_hotwords(transcriber: Transcriber, level: float) -> None:
    noise = np.random.default_rng(3).standard_normal(3 * SAMPLE_RATE).astype(np.float32) * np.float32(level)
    transcript = transcriber.transcribe(Audio(noise, "silence"), context="jon, sara, stephen")
    assert (transcript.text, transcript.language, transcript.tokens) == ("", None, 0)
    assert transcript.seconds == 3


def test_a_hotword_decides_the_spelling(transcriber: Transcriber, clips: list[Clip]) -> None:
    named = [clip for clip in clips if clip.context]
    assert {clip.language for clip in named} == set(HOTWORDS)
    for clip in named:
        with_context = transcriber.transcribe(clip.path, context=clip.context).text
        without = transcriber.transcribe(clip.path).text
        assert with_context == clip.text
        assert without != with_context


@pytest.mark.parametrize("name", ["en", "English", "英语"])
def test_a_forced_language_is_the_results_language(transcriber: Transcriber, speech: list[Clip], name: str) -> None:
    clip = next(clip for clip in speech if clip.language == "English")
    transcript = transcriber.transcribe(clip.path, language=name)
    assert (transcript.text, transcript.language) == (clip.text, "English")
    assert transcript.tokens < transcriber.transcribe(clip.path).tokens


def test_an_unknown_language_is_refused(transcriber: Transcriber, speech: list[Clip]) -> None:
    with pytest.raises(UnknownLanguageError):
        transcriber.transcribe(speech[0].path, language="Klingon")


def test_hitting_the_token_limit_is_reported(transcriber: Transcriber, speech: list[Clip]) -> None:
    clip = max(speech, key=lambda clip: len(clip.text))
    short = with_settings(transcriber, max_new_tokens=5).transcribe(clip.path)
    assert short.truncated
    assert short.tokens == 5
    assert clip.text.startswith(short.text)


def test_many_files_come_back_in_order_and_a_bad_one_stays_in_its_place(
    transcriber: Transcriber, speech: list[Clip], tmp_path: Path
) -> None:
    requests = [Request(clip.path) for clip in speech]
    requests.insert(1, Request(tmp_path / "missing.wav"))
    requests.insert(3, Request(speech[0].path, language="Klingon"))
    read: list[float] = []
    done: list[float] = []
    outcomes = list(transcriber.transcribe_all(requests, on_audio=read.append, on_segment=done.append))
    texts = [outcome.text for outcome in outcomes if isinstance(outcome, Transcript)]
    assert texts == [clip.text for clip in speech]
    failures = {k: outcome.error for k, outcome in enumerate(outcomes) if isinstance(outcome, FailedRequest)}
    assert isinstance(failures[1], AudioError)
    assert isinstance(failures[3], UnknownLanguageError)
    assert sum(read) == pytest.approx(sum(done))


def test_together_and_alone_give_the_same(transcriber: Transcriber, speech: list[Clip]) -> None:
    outcomes = transcriber.transcribe_all(Request(clip.path) for clip in speech)
    together = [outcome.text for outcome in outcomes if isinstance(outcome, Transcript)]
    assert together == [transcriber.transcribe(clip.path).text for clip in speech]


def utterance(transcriber: Transcriber, clip: Clip, tokens: int = 64) -> Utterance:
    prompt_builder = transcriber.prompt_builder
    return Utterance(sound(clip, transcriber.settings).samples, prompt_builder.build(), tokens)


def test_tokens_stream_and_end_in_the_result(transcriber: Transcriber, speech: list[Clip]) -> None:
    (stream,) = transcriber.engine.submit([utterance(transcriber, speech[0])])
    tokens = tuple(stream)
    decoded = stream.result()
    assert decoded.tokens == tokens
    assert decoded.text.endswith(speech[0].text)


def test_each_utterance_has_its_own_limit(transcriber: Transcriber, speech: list[Clip]) -> None:
    clip = speech[0]
    long, short = transcriber.engine.submit([utterance(transcriber, clip), utterance(transcriber, clip, tokens=4)])
    assert not long.result().truncated
    assert short.result().truncated
    assert short.result().tokens == long.result().tokens[:4]


def test_an_utterance_that_cannot_be_decoded_fails_alone(transcriber: Transcriber, speech: list[Clip]) -> None:
    good = utterance(transcriber, speech[0])
    broken = Utterance(good.samples[:0], good.prompt, good.max_new_tokens)
    fine, faulty, fine_too = transcriber.engine.submit([good, broken, good])
    with pytest.raises((ValueError, RuntimeError)):
        faulty.result()
    assert fine.result() == fine_too.result()
    assert fine.result().text.endswith(speech[0].text)


def test_a_cancelled_utterance_leaves_its_batch_mates_alone(transcriber: Transcriber, speech: list[Clip]) -> None:
    with_engine = TransformersEngine(transcriber.loaded, max_batch=8)
    one, other = with_engine.submit([utterance(transcriber, speech[0]), utterance(transcriber, speech[1])])
    one.cancel()
    assert with_engine.status().waiting == 1
    with_engine.start()
    with pytest.raises(CancelledError):
        one.result()
    assert other.result().text.endswith(speech[1].text)
    with_engine.stop()


def test_stopping_decodes_what_was_accepted(transcriber: Transcriber, speech: list[Clip]) -> None:
    engine = TransformersEngine(transcriber.loaded, max_batch=1)
    streams = engine.submit([utterance(transcriber, clip) for clip in speech])
    engine.start()
    engine.stop()
    assert all(stream.result().text.endswith(clip.text) for stream, clip in zip(streams, speech, strict=True))
    with pytest.raises(RuntimeError, match="has stopped"):
        engine.submit([utterance(transcriber, speech[0])])


def test_stopping_without_draining_cancels(transcriber: Transcriber, speech: list[Clip]) -> None:
    engine = TransformersEngine(transcriber.loaded, max_batch=1)
    streams = engine.submit([utterance(transcriber, clip) for clip in speech])
    engine.start()
    engine.stop(drain=False)
    with pytest.raises(CancelledError):
        streams[-1].result()


NPU = {"ASR_DEVICE": "npu:0", "ASR_DTYPE": "bfloat16", "ASR_MAX_BATCH": "8"}


@on_npu
def test_on_the_simulated_npu_in_bf16_the_text_is_the_cpus() -> None:
    from runtime.demo import bundled_clips

    with open_transcriber(load_settings(NPU)) as transcriber:
        assert transcriber.device.name == "npu:0"
        assert {str(weight.device) for weight in transcriber.loaded.model.parameters()} == {"npu:0"}
        for clip in bundled_clips():
            transcript = transcriber.transcribe(clip.path, context=clip.context)
            assert (transcript.text, transcript.language) == (clip.text, clip.language)


@on_npu
def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    from runtime.demo import bundled_clips

    simulation = stand_in().simulation
    with open_transcriber(load_settings(NPU)) as transcriber:
        clips = [clip for clip in bundled_clips() if clip.language and not clip.context]
        device = transcriber.device
        alone = []
        for clip in clips:
            device.reset_peak()
            transcriber.transcribe(clip.path)
            alone.append(device.memory().peak)
        device.reset_peak()
        together = list(transcriber.transcribe_all(Request(clip.path) for clip in clips))
        assert device.memory().peak > max(alone)
        enough_for_one = (max(alone) + device.memory().peak) // 2
        with simulation.limit_memory(enough_for_one):
            limited = list(transcriber.transcribe_all(Request(clip.path) for clip in clips))
        assert [outcome.text for outcome in limited if isinstance(outcome, Transcript)] == [
            outcome.text for outcome in together if isinstance(outcome, Transcript)
        ]
        assert len(limited) == len(clips)
        with simulation.limit_memory(enough_for_one):
            streams = transcriber.engine.submit([utterance(transcriber, clip) for clip in clips])
            tokens = [tuple(stream) for stream in streams]
        assert tokens == [stream.result().tokens for stream in streams]


@on_npu
def test_a_clip_that_does_not_fit_alone_is_told_with_the_sizes() -> None:
    from runtime.demo import bundled_clips

    clip = bundled_clips()[0]
    with open_transcriber(load_settings(NPU)) as transcriber:
        just_the_weights = transcriber.device.memory().used + 2**14
        with stand_in().simulation.limit_memory(just_the_weights):
            (outcome,) = transcriber.transcribe_all([Request(clip.path)])
        assert isinstance(outcome, FailedRequest)
        assert clip.path.name in str(outcome.error)
        assert "does not fit" in str(outcome.error)
        assert "MiB" in str(outcome.error)
        assert "ASR_SEGMENT_SECONDS" in str(outcome.error)
        assert isinstance(outcome.error.__cause__, OutOfMemoryError)
        assert transcriber.transcribe(clip.path).text == clip.text


@on_npu
def test_weights_that_do_not_fit_are_told_with_their_size() -> None:
    with (
        stand_in().simulation.limit_memory(2**20),
        pytest.raises(OutOfMemoryError, match=r"no room for \d+ MiB of weights .*npu-smi info"),
        open_transcriber(load_settings(NPU)),
    ):
        pass


def test_audio_is_given_back_once_it_is_transcribed(transcriber: Transcriber, speech: list[Clip]) -> None:
    def held() -> int:
        """Files of the kernel's in which this process has samples."""
        found = 0
        for place in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # another thread has closed it
                found += "memfd:samples" in str(place.readlink())
        return found

    gc.collect()
    before = held()
    transcriber.transcribe(speech[0].path)
    until(lambda: held() <= before)

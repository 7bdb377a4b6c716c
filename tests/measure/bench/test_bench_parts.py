"""What the benchmark measures in this process: loading, latency and its split, throughput, memory, long audio."""

import statistics
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_files import sndfile
from benchmarks import PLAN, absences, figures

from env.errors import KitError
from env.sources import load_settings
from runtime.audio import SAMPLE_RATE
from runtime.demo import CHECKPOINT, Clip
from runtime.measure.bench import in_process, resources
from runtime.measure.bench.in_process import chosen
from runtime.measure.bench.record import Bench, Found
from runtime.measure.bench.resources import opened
from runtime.model import device
from runtime.transcriber import Transcriber


def with_settings(transcriber: Transcriber, **changes: Any) -> Transcriber:
    return replace(transcriber, settings=transcriber.settings.model_copy(update=changes))


def file_of(path: Path, samples: "np.ndarray[Any, Any]") -> Path:
    path.write_bytes(sndfile(samples[:, np.newaxis], SAMPLE_RATE, container="WAV", subtype="FLOAT"))
    return path


def interrupted(found: list[Found]) -> Transcriber:
    """The transcriber that was held when Ctrl-C ended what was done with it."""
    with suppress(KeyboardInterrupt), opened(load_settings({"ASR_DEVICE": "cpu"}), found) as transcriber:
        assert "memory/unloaded" not in figures(found)
        raise KeyboardInterrupt
    return transcriber


def test_loading_is_measured_and_unloading_even_if_interrupted() -> None:
    found: list[Found] = []
    transcriber = interrupted(found)
    weights = list(transcriber.loaded.model.parameters())
    assert weights
    assert all(weight.is_meta for weight in weights)  # they take no memory
    measured = figures(found)
    assert measured["memory/weights"].samples == ((CHECKPOINT / "model.safetensors").stat().st_size,)
    assert set(measured) == {
        "loading/seconds",
        "loading/first",
        *(f"memory/{host}{when}" for host in ("", "host-") for when in ("before", "loaded", "unloaded")),
        "memory/weights",
        "memory/device-total",
    }
    assert not absences(found)


def test_the_clip_is_the_official_one_where_it_is_and_else_one_of_its_length(tmp_path: Path, clips: list[Clip]) -> None:
    settings = load_settings({"ASR_MODEL": str(tmp_path / "Qwen3-ASR-1.7B")})
    assert chosen(settings).name == "chinese-hotword.wav"  # of 4.0 s
    official = tmp_path / "clips" / "asr_zh.wav"
    official.parent.mkdir()
    official.touch()
    assert chosen(settings) == official
    assert chosen(settings, clips[0].path) == clips[0].path


def test_latency_is_that_of_the_clip_and_its_stages_are_the_engines(
    transcriber: Transcriber, speech: list[Clip]
) -> None:
    told: list[str] = []
    path = speech[0].path
    found = list(in_process.measure_latency(Bench(transcriber, replace(PLAN, clip=path), told.append)))
    measured = figures(found)
    assert not absences(found)
    assert {(len(one.samples), one.spread.count, one.warmups) for one in measured.values()} == {(3, 3, 1)}
    names = ("total", "rtf", "first-token", "rest", "split", "token", "count", *in_process.STAGES)
    assert {f"latency/{name}" for name in names} == set(measured)
    transcript = transcriber.transcribe(path)
    assert measured["latency/count"].samples == (transcript.tokens,) * 3
    total, rtf = measured["latency/total"].samples, measured["latency/rtf"].samples
    assert rtf == pytest.approx([seconds / transcript.seconds for seconds in total])
    rows = zip(*(measured[f"latency/{name}"].samples for name in in_process.STAGES), strict=True)
    assert measured["latency/split"].samples == pytest.approx([sum(one) for one in rows])
    # As many steps as tokens: the first token is the prefill's, and the one that ends the text takes one, too.
    per_token = [seconds / transcript.tokens for seconds in measured["latency/tokens"].samples]
    assert measured["latency/token"].samples == pytest.approx(per_token)
    assert told == [f"latency: {number} of 4" for number in range(1, 5)]


def test_the_split_hears_what_the_whole_hears(transcriber: Transcriber, speech: list[Clip]) -> None:
    for clip in speech:
        transcript, parted = transcriber.transcribe(clip.path), in_process.split(transcriber, clip.path.read_bytes())
        assert (parted.text, parted.count, parted.steps) == (transcript.text, transcript.tokens, transcript.tokens)


def test_an_answer_that_is_cut_off_is_said(transcriber: Transcriber, speech: list[Clip]) -> None:
    bench = Bench(with_settings(transcriber, max_new_tokens=3), replace(PLAN, clip=speech[0].path))
    parts = (in_process.measure_latency, in_process.measure_throughput, resources.measure_long_audio)
    found = [one for part in parts for one in part(bench)]
    assert tuple(absences(found)) == ("latency/whole-text", "throughput/whole-text", "long/whole-text")
    assert all("ASR_MAX_NEW_TOKENS=3" in one.reason for one in absences(found).values())
    assert set(figures(found)["latency/count"].samples) == {3}
    assert "long/seconds@0.1" in figures(found)


def test_a_clip_of_silence_is_refused(transcriber: Transcriber, tmp_path: Path) -> None:
    silence = file_of(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE, dtype=np.float32))
    bench = Bench(transcriber, replace(PLAN, clip=silence))
    for part in (in_process.measure_latency, in_process.measure_throughput, resources.measure_memory):
        with pytest.raises(KitError, match=r"silence\.wav: is silent.*--clip"):
            list(part(bench))


def test_a_clip_of_several_segments_has_no_split(transcriber: Transcriber, speech: list[Clip]) -> None:
    bench = Bench(with_settings(transcriber, segment_seconds=1.5), replace(PLAN, clip=speech[0].path))
    found = list(in_process.measure_latency(bench))
    assert set(figures(found)) == {"latency/total", "latency/rtf"}
    assert "segments" in absences(found)["latency/split"].reason
    with pytest.raises(KitError, match="ASR_SEGMENT_SECONDS"):
        list(in_process.measure_throughput(bench))


def test_throughput_of_batches_beyond_the_setting(transcriber: Transcriber, speech: list[Clip]) -> None:
    bench = Bench(with_settings(transcriber, max_batch=1), replace(PLAN, clip=speech[1].path))
    found = list(in_process.measure_throughput(bench))
    measured = figures(found)
    assert not absences(found)
    seconds = transcriber.transcribe(speech[1].path).seconds
    names = ("seconds", "speed", "efficiency")
    assert set(measured) == {f"throughput/{name}@{size}" for name in names for size in (1, 2)}
    for size in (1, 2):
        taken, speeds, shares = (measured[f"throughput/{name}@{size}"].samples for name in names)
        assert speeds == pytest.approx([size * seconds / one for one in taken])
        alone = statistics.median(measured["throughput/speed@1"].samples)
        assert shares == pytest.approx([speed / size / alone for speed in speeds])
    assert {(one.spread.count, one.warmups) for one in measured.values()} == {(3, 1)}


def test_without_batch_1_there_is_no_efficiency(transcriber: Transcriber) -> None:
    found = list(in_process.measure_throughput(Bench(transcriber, replace(PLAN, batches=(2,), runs=1, warmups=0))))
    assert set(figures(found)) == {"throughput/seconds@2", "throughput/speed@2"}
    assert "batch 1" in absences(found)["throughput/efficiency"].reason


def test_memory_of_the_process(transcriber: Transcriber) -> None:
    found = list(resources.measure_memory(Bench(transcriber, PLAN)))
    measured = figures(found)
    assert not absences(found)
    places = [("batch-memory", 1), ("batch-memory", 2), ("length-memory", 2), ("length-memory", 4)]
    assert set(measured) == {f"{part}/{where}@{at}" for part, at in places for where in ("device", "host")}
    for part, at in places:
        assert measured[f"{part}/device@{at}"].samples == pytest.approx(measured[f"{part}/host@{at}"].samples, rel=0.01)


def test_a_kernel_that_keeps_the_peak(
    transcriber: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clear_refs").mkdir()  # which cannot be written
    monkeypatch.setattr(device, "PROCESS", tmp_path)
    found = list(resources.measure_memory(Bench(transcriber, replace(PLAN, batches=(1,), lengths=()))))
    assert not figures(found)
    assert set(absences(found)) == {"batch-memory/device@1", "batch-memory/host@1"}
    assert "/proc/self/clear_refs" in absences(found)["batch-memory/host@1"].reason


def test_long_audio(transcriber: Transcriber) -> None:
    told: list[str] = []
    limited = with_settings(transcriber, max_audio_seconds=10.0, segment_seconds=4.0)
    found = list(resources.measure_long_audio(Bench(limited, replace(PLAN, minutes=(0.1, 1)), told.append)))
    measured = figures(found)
    assert set(measured) == {"long/seconds@0.1", "long/rtf@0.1", "long/speed@0.1"}
    taken = measured["long/seconds@0.1"].samples
    assert len(taken) == 3
    assert measured["long/rtf@0.1"].samples == pytest.approx([seconds / 6 for seconds in taken])
    assert measured["long/speed@0.1"].samples == pytest.approx([6 / seconds for seconds in taken])
    assert told[-1] == "long audio: 6 of 6 s"
    assert set(absences(found)) == {"long@1"}
    assert "ASR_MAX_AUDIO_SECONDS=10" in absences(found)["long@1"].reason

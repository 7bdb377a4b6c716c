"""The benchmark's parts on the simulated NPU: its memory comes back, and its end is no failure."""

from dataclasses import replace

from benchmarks import PLAN, absences, figures
from simulated_npu import on_npu, stand_in

from env.sources import load_settings
from runtime.measure.bench import in_process, resources
from runtime.measure.bench.record import Bench, Found
from runtime.measure.bench.resources import opened

NPU = {"ASR_DEVICE": "npu:0"}


@on_npu
def test_unloading_gives_all_memory_back_while_the_transcriber_is_still_held() -> None:
    found: list[Found] = []
    with opened(load_settings(NPU), found) as transcriber:
        held = transcriber.device.memory().used
    measured = figures(found)
    (before,), (loaded,) = measured["memory/before"].samples, measured["memory/loaded"].samples
    assert measured["memory/unloaded"].samples == (before,) == (transcriber.device.memory().used,)
    assert held >= loaded > before
    assert measured["memory/device-total"].samples[0] > loaded


@on_npu
def test_what_does_not_fit_is_absent_and_so_is_what_is_larger() -> None:
    with opened(load_settings(NPU), []) as transcriber:
        bench = Bench(transcriber, replace(PLAN, batches=(2, 8), lengths=(2.0, 20.0)))
        peaks = {key: one.samples[0] for key, one in figures(resources.measure_memory(bench)).items()}
        held = transcriber.device.memory().used
        assert held < peaks["batch-memory/device@2"] < peaks["batch-memory/device@8"]
        assert held < peaks["length-memory/device@2"] < peaks["length-memory/device@20"]
        small = Bench(transcriber, replace(PLAN, batches=(16, 8, 2, 1), lengths=(2.0, 20.0)))
        enough_for_two = int(peaks["batch-memory/device@2"] + peaks["batch-memory/device@8"]) // 2
        with stand_in().simulation.limit_memory(enough_for_two):
            found = list(in_process.measure_throughput(small))
            held_then = transcriber.device.memory().used
        assert set(figures(found)) == {
            f"throughput/{name}@{size}" for name in ("seconds", "speed", "efficiency") for size in (1, 2)
        }
        assert list(absences(found)) == ["throughput@8", "throughput@16"]
        assert "out of memory: NPU out of memory" in absences(found)["throughput@8"].reason
        assert "npu-smi" in absences(found)["throughput@8"].advice
        assert "8 failed" in absences(found)["throughput@16"].reason
        assert held_then == held
        short = (peaks["length-memory/device@2"] + peaks["length-memory/device@20"]) / 2
        with stand_in().simulation.limit_memory(int(short)):
            found = list(resources.measure_memory(replace(small, plan=replace(small.plan, batches=(1,)))))
        assert "length-memory/device@2" in figures(found)
        assert list(absences(found)) == ["length-memory@20"]
        assert figures(in_process.measure_latency(bench))["latency/count"].samples[0] > 0


@on_npu
def test_a_clip_that_does_not_fit_at_all() -> None:
    found: list[Found] = []
    with opened(load_settings(NPU), found) as transcriber:
        weights_alone = transcriber.device.memory().used + 2**14
        with stand_in().simulation.limit_memory(weights_alone):
            parts = (in_process.measure_latency, in_process.measure_throughput, resources.measure_memory)
            missing = absences(one for part in parts for one in part(Bench(transcriber, PLAN)))
    assert "does not fit" in missing["latency"].reason
    assert "out of memory" in missing["throughput@1"].reason
    assert "batch-memory@1" in missing
    assert "memory/unloaded" in figures(found)


@on_npu
def test_the_split_launches_what_the_engine_launches() -> None:
    simulation = stand_in().simulation
    with opened(load_settings(NPU), []) as transcriber:
        from runtime.measure.bench.in_process import chosen

        file = chosen(transcriber.settings).read_bytes()
        costs = []
        for work in (transcriber.transcribe, lambda file: in_process.split(transcriber, file)):
            with simulation.measured() as spent:
                work(file)
            costs.append(spent())
    whole, parted = costs
    assert parted.launches == whole.launches
    assert 0 < parted.synchronisations - whole.synchronisations <= len(in_process.STAGES)

"""A report on the demo model from small records, for the tests of what is made of one."""

from contextlib import nullcontext
from pathlib import Path

from env.settings import Settings
from runtime.demo import Clip
from runtime.measure import records
from runtime.measure.accuracy import backends
from runtime.measure.accuracy.dataset import DataSet, Item
from runtime.measure.accuracy.run import RunObserver, RunOptions
from runtime.measure.accuracy.run import run as score
from runtime.measure.bench.record import Benchmark
from runtime.measure.records import RunClock, here
from runtime.measure.report import run
from runtime.measure.report.record import Report
from runtime.measure.smoke.backends import ModelBackend
from runtime.measure.smoke.run import Cases, steps
from runtime.measure.smoke.run import run as smoke
from runtime.transcriber import Transcriber


def keep(out: Path, bench: Benchmark, transcriber: Transcriber, clips: list[Clip]) -> None:
    """Write the records of a small smoke test, benchmark and data set, as the tasks do."""
    model = ModelBackend(transcriber, here(transcriber.settings, transcriber.device))
    cases = Cases(tuple(clips), (), tuple(clips))
    records.write(out / "smoke.json", smoke(steps(model, cases), model, RunClock(), on_outcome=lambda _: None))
    records.write(out / "bench" / "bench.json", bench)
    items = tuple(Item(clip.path.name, clip.path, clip.text, clip.language) for clip in clips if not clip.context)
    ask = RunOptions(DataSet("bundled clips", "manifest", "0" * 64, items), items)
    record = score(ask, nullcontext(backends.of(transcriber)), out / "accuracy" / "clips", RunObserver())
    records.write(out / "accuracy" / "accuracy.json", record)


def made(out: Path, settings: Settings) -> Report:
    """A report of what is kept there."""
    return run.make(settings.model_copy(update={"out_dir": out}), fresh=False)

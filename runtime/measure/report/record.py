"""The report as a file: facts of the day, the records that it rests on, and the verdicts."""

from dataclasses import dataclass
from typing import Literal

from env.reference import SettingRow
from env.stacks import PackageDifference
from env.translation import Bilingual
from runtime.host.npu_smi import NpuSmiReport as NpuSmi
from runtime.measure.accuracy.run import Accuracy
from runtime.measure.bench.record import Benchmark
from runtime.measure.records import Form, Head
from runtime.measure.smoke.record import Smoke
from runtime.ops.doctor.findings import Finding

FORM = Form("report", 2)

Status = Literal["pass", "fail", "not run"]
Name = Literal["smoke", "bench", "accuracy"]


@dataclass(frozen=True)
class File:
    """A file of the weights: bytes, and their sum in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ReportWeights:
    """Which weights, and where they came from; `recorded`: weights.lock says so. Empty texts are not known."""

    model: str
    recorded: bool
    repo: str = ""
    hub: str = ""
    endpoint: str = ""
    revision: str = ""
    commit: str = ""
    date: str = ""
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Image:
    """The image, by what can be seen of it from where the report is made. `id` is its own digest, `digests` are those
    that a registry knows it by."""

    place: Literal["container", "host"]
    name: str = ""
    id: str = ""
    digests: tuple[str, ...] = ()
    base: str = ""
    stack: str = ""
    version: str = ""
    commit: str = ""
    written: str = ""


@dataclass(frozen=True)
class HostFacts:
    """The host and what is installed. `device_fault` says why no device could be opened, empty if one could;
    `smi_fault` why npu-smi tells nothing. `smi_after` is what it tells when all is done."""

    stack: str
    packages: tuple[PackageDifference, ...]
    findings: tuple[Finding, ...]
    driver: str
    cann: str
    weights: ReportWeights
    image: Image
    settings: tuple[SettingRow, ...]
    device_fault: str = ""
    smi: NpuSmi | None = None
    smi_fault: str = ""
    smi_after: NpuSmi | None = None


@dataclass(frozen=True)
class FigureSource:
    """Where a part's figures are from. `used` is how: taken from the file that was there, measured for this report, or
    not there at all; `notes` say why, `advice` is the next command. `failed`: its run did not come to its end. `left`
    are ids of processes that it left."""

    name: Name
    path: str
    used: Literal["taken", "measured", "missing"]
    notes: tuple[Bilingual, ...] = ()
    advice: str = ""
    failed: bool = False
    left: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReportVerdict:
    """One question that the report answers."""

    question: str
    status: Status
    reason: Bilingual


@dataclass(frozen=True)
class Report:
    """The whole report. A part that is not there has a source that says why; `verdicts` are in the order of reading."""

    head: Head
    facts: HostFacts
    sources: tuple[FigureSource, ...]
    smoke: Smoke | None
    bench: Benchmark | None
    accuracy: Accuracy | None
    verdicts: tuple[ReportVerdict, ...]

    def source(self, name: Name) -> FigureSource:
        """Where a part is from."""
        return next(source for source in self.sources if source.name == name)

    @property
    def measured(self) -> bool:
        """Whether anything was measured at all."""
        return any((self.smoke, self.bench, self.accuracy))

"""What a check finds, and what it is given to look at."""

from dataclasses import dataclass
from typing import Literal

from env.settings import DEMO, Settings
from runtime.host.probe import Host

Status = Literal["pass", "warn", "fail"]
Place = Literal["host", "container"]


@dataclass(frozen=True)
class Finding:
    """What one check found: `evidence` is the value, `fix` what to type, empty where nothing is to be done."""

    code: str
    title: str
    status: Status
    evidence: str
    fix: str


@dataclass(frozen=True)
class CheckResult:
    """A finding before it gets its check's code and title."""

    status: Status
    evidence: str
    fix: str = ""


@dataclass(frozen=True)
class Examination:
    """What is examined: a host, as these settings will use it. `quick` leaves out what takes more than a moment."""

    host: Host
    settings: Settings
    quick: bool
    place: Place

    @property
    def front(self) -> bool:
        """Whether servers elsewhere decode (ASR_VLLM_URL), so that this host needs neither an NPU nor weights."""
        return self.settings.engine_name == "vllm" and self.settings.vllm_url is not None

    @property
    def wants_npu(self) -> bool:
        """Whether the settings are for an NPU."""
        return not self.front and (self.settings.stack != "cpu" or self.settings.device.startswith("npu"))

    @property
    def wants_weights(self) -> bool:
        """Whether the settings are for the weights of a real model, not for the demo's."""
        return not self.front and self.settings.model != DEMO


def worst(outcomes: list[CheckResult]) -> Status:
    """The status of several things that are reported as one."""
    found = {outcome.status for outcome in outcomes}
    return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

"""Which profile a host gets where the operator names none: the one that fits its NPUs."""

from env.field import variable
from env.settings import Settings
from env.sources import load_settings, operator_environment, profile_names
from runtime.host.npu_host import MANAGER, refusal
from runtime.host.npu_smi import NpuSmiError, profile_for, report
from runtime.host.probe import Host
from runtime.ops.doctor.npu import signs

NO_NPU = "cpu"


def host_settings() -> Settings:
    """The settings, with the profile that fits this host if ASR_PROFILE is not set. Raises as `load_settings` and
    `detect` do."""
    environment = operator_environment()
    if environment.get(variable("profile")):
        return load_settings()
    return load_settings({**environment, variable("profile"): detect(Host())})


def detect(host: Host) -> str:
    """The profile for the NPUs that npu-smi lists; cpu for a host without an NPU.

    Raises NpuSmiError where there are NPUs, but npu-smi fails, or no profile is known to fit them all; KitError where
    their driver is not loaded.
    """
    if host.state(MANAGER).kind == "missing":
        if found := signs(host):
            raise refusal(found, loaded=False)
        return NO_NPU
    chips = report(host).chips
    fitting = profile_for(chips)
    if not fitting:
        names = ", ".join(dict.fromkeys(chip.name for chip in chips)) or "none"
        choice = ", ".join(name for name in profile_names() if name != NO_NPU)
        raise NpuSmiError(
            "ASR_PROFILE", f"no profile is known to fit this host's chips: {names}", f"set it to: {choice}"
        )
    return fitting

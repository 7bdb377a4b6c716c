"""The NPUs, as npu-smi tells them: which, how healthy, how much of their memory is free."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from env.errors import KitError
from env.stacks import load_stack
from runtime.host import npu_host
from runtime.host.npu_host import NPU_SMI
from runtime.host.npu_smi import Chip, ChipProcess, NpuSmiError, find_npu_smi, npu_numbers, profile_for, read_report
from runtime.host.probe import NOT_RECORDED, CommandResult, Host
from runtime.ops.deploy.override import NPU_DEVICES, NPU_MOUNTS, user
from runtime.ops.doctor import docker, weights
from runtime.ops.doctor.docker import cann_version
from runtime.ops.doctor.findings import CheckResult, Examination, Status, worst

ELSEWHERE = "the servers of ASR_VLLM_URL have the model"
LOST = (
    "lspci -d 19e5: shows whether it is on the bus; if it is: install the driver again, or reboot; if not: power off "
    "and on, then the vendor's support"
)
GOOD, BAD = {"OK"}, {"Alarm", "Critical"}  # Warning, UNKNOWN and NA lie between

# MB beyond the weights: CANN's own context, activations, the cache of keys and values. The validated run held 3,930 MB
# for one clip, with 4,400 MB of safetensors on disk; batches take more.
MARGIN = 2048

# The first two numbers of the HDKs, oldest first, by the beginning of CANN's version; the longest counts.
# 8.5: https://www.hiascend.com/document/detail/en/canncommercial/850/releasenote/releasenote_0000.html
# The others: "CANN and Ascend HDK Version Compatibility" in
# https://www.hiascend.com/document/detail/en/CANNCommunityEdition/910/softwareinst/releasenote/9.1.1/release-notes_en.md
DRIVERS = {
    "8.5": ("25.0", "25.2", "25.3", "25.5"),
    "8.5.2": ("25.0", "25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
    "9.0": ("25.0", "25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
    "9.1": ("25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
}

INSTALLED = "/etc/ascend_install.info"
DEFAULT_FOLDER = "/usr/local/Ascend"
READ_AND_WRITE = 0o6
INSTALL = "install the driver of your NPU: https://www.hiascend.com/hardware/firmware-drivers"


def presence(case: Examination) -> CheckResult:
    """There is an NPU where the settings want one, of the kind that the profile is for; and none that they ignore."""
    nodes = case.host.matches("/dev/davinci[0-9]*")
    chips = known_chips(case) if nodes or case.wants_npu or find_npu_smi(case.host) else ()
    profile, fits = case.settings.profile, profile_for(chips)
    if npu_host.is_default_demo(case.settings) and (seen := signs(case.host) or nodes[:1]):
        told = npu_host.demo_refused(seen, loaded=case.host.state(npu_host.NPU_MANAGER).there)
        return CheckResult(
            "fail", f"{told.subject} {told.reason}", f"export ASR_PROFILE={fits}" if fits else told.advice
        )
    if not chips and not nodes:
        if not case.wants_npu:
            what = "the model" if case.wants_weights else "the demo model"
            runs = ELSEWHERE if case.front else f"{what} runs on the CPU"
            return CheckResult("pass", f"no NPU: {runs}")
        advice = "install the NPU driver, or export ASR_PROFILE=cpu to run on the CPU"
        evidence = f"profile {profile} is for an NPU, and there is none: no /dev/davinciN, {_why_not(case)}"
        return CheckResult("fail", evidence, advice)
    named = _names(chips) or f"{len(nodes)} device nodes ({_why_not(case)})"
    if case.front:
        return CheckResult("pass", f"{named}, not used: {ELSEWHERE}")
    if not case.wants_npu:
        advice = f"export ASR_PROFILE={fits}" if fits else "export ASR_PROFILE=…, see env/profiles"
        return CheckResult("warn", f"{named}, which profile {profile} does not use", advice)
    if fits and fits != profile and case.settings.stack != "cpu":
        return CheckResult("fail", f"{named}, but profile {profile} is for another kind", f"export ASR_PROFILE={fits}")
    if chips and not fits:
        return CheckResult("warn", f"{named}: no profile is for it; {profile} may not fit")
    return CheckResult("pass", f"{named}, profile {profile}")


def smi(case: Examination) -> CheckResult:
    """npu-smi runs and lists the chips."""
    found = find_npu_smi(case.host)
    made = [path for path in NPU_SMI if case.host.state(path).kind == "empty directory"]
    if made:
        advice = f"sudo rmdir {' '.join(made)}, then install the driver again"
        return CheckResult("fail", f"{', '.join(made)}: empty directory, as Docker makes of a missing mount", advice)
    try:
        told = read_report(case.host)
    except NpuSmiError as error:
        return CheckResult("warn" if NOT_RECORDED in error.reason else "fail", error.reason, error.advice)
    evidence = f"{told.version} in {found or 'a record'}: {_names(told.chips) or 'no chips'}"
    if told.notes:
        return CheckResult("warn", f"{evidence}; {' '.join(told.notes)}", "install the driver again")
    return CheckResult("pass", evidence)


def health(case: Examination) -> CheckResult | None:
    """The NPUs that are used are healthy; others only warn."""
    chips = known_chips(case)
    if not chips:
        return None
    used = used_nodes(case)
    absent = sorted(set(used) - {chip.node for chip in chips})
    outcomes = [CheckResult("fail", f"npu-smi lists no NPU {node}", LOST) for node in absent]
    for chip in chips:
        if chip.health not in GOOD:
            fatal = chip.health in BAD and chip.node in used
            evidence = f"NPU {chip.node}: {chip.health}"
            evidence += "" if chip.temperature is None else f" at {chip.temperature} °C"
            outcomes.append(CheckResult("fail" if fatal else "warn", evidence, _repair(chip)))
    if outcomes:
        found = together(outcomes)
        return replace(found, fix=_instead(case, chips) + found.fix) if found.status == "fail" else found
    hottest = max((chip.temperature or 0 for chip in chips), default=0)
    return CheckResult("pass", f"{len(chips)} OK, the hottest at {hottest} °C")


def _repair(chip: Chip) -> str:
    """What to do about a chip that is not well, in the order of what it costs."""
    where = f"-i {chip.npu} -c {chip.chip}"
    codes = f"npu-smi info -t health {where} names the error codes"
    if chip.health not in {*BAD, "Warning"}:
        return f"sudo {codes}; if it does not either: reboot"
    watch = "" if chip.health in BAD else f"; a hot one: npu-smi info -t temp {where}, check fans and air"
    reset = f"sudo npu-smi set -t reset {where}, which may reset its neighbours too"
    return (
        f"{codes}{watch}; once nothing uses the NPUs: {reset}; if it comes back: the vendor's support, with the codes"
    )


def _instead(case: Examination, chips: Iterable[Chip]) -> str:
    """How to serve meanwhile: with the NPUs of ASR_NPUS that are well, and others that are and have room; empty where
    there are none."""
    used, least = used_nodes(case), needed(case)
    well = [chip for chip in chips if chip.health in GOOD]
    kept = [chip.node for chip in well if chip.node in used]
    spare = [c.node for c in well if c.node not in used and (held := c.main_memory) and held.free >= least]
    nodes = ",".join(map(str, sorted([*kept, *sorted(spare)][: len(used)])))
    if not nodes:
        return ""
    where = "on the host, " if case.place == "container" else ""
    return f"to serve meanwhile: {where}export ASR_NPUS={nodes}, then make up; "


def memory(case: Examination) -> CheckResult | None:
    """The NPUs that are used have room for the model; who holds the memory, if not."""
    used = [chip for chip in known_chips(case) if chip.node in used_nodes(case)]
    if not used or case.settings.engine_name == "vllm":  # whose share has a check of its own
        return None
    least = needed(case)
    return together([room(case, chip, least) for chip in used])


def used_nodes(case: Examination) -> list[int]:
    """The N of the /dev/davinciN that are used: those of ASR_NPUS, in a container all that it has."""
    if case.place == "container":
        nodes = case.host.matches("/dev/davinci[0-9]*")
        return sorted(int(text) for path in nodes if (text := path.removeprefix("/dev/davinci")).isdecimal())
    try:
        return npu_numbers(case.settings.npus)
    except KitError:  # told by the check of the settings
        return []


def room(case: Examination, chip: Chip, least: int) -> CheckResult:
    """Whether a chip has `least` MB free, or the kit itself holds them; who does, if not."""
    held = chip.main_memory
    if held is None:
        return CheckResult("warn", f"NPU {chip.node}: npu-smi does not tell its memory", "npu-smi info -t memory")
    evidence = f"NPU {chip.node}: {held.free} of {held.total} MB free"
    if held.free >= least:
        return CheckResult("pass", f"{evidence}, {least} needed" if least else evidence)
    holding = holders(case, chip)
    named = ", ".join(_describe(case, process) for process in holding) or "no process that npu-smi shows"
    evidence = f"{evidence}, {least} needed; held by {named}"
    # In a container npu-smi shows that container's processes only.
    if (case.place == "container" and holding) or any(docker.owner(case.host, p.pid, ours=True) for p in holding):
        return CheckResult("pass", evidence)
    free = [other.node for other in known_chips(case) if (spare := other.main_memory) and spare.free >= least]
    if case.place == "host" and free:
        return CheckResult("fail", evidence, f"stop them, or export ASR_NPUS={free[0]}, which has room")
    return CheckResult("fail", evidence, "stop them")


def holders(case: Examination, chip: Chip) -> list[ChipProcess]:
    """The processes that npu-smi shows on a chip. Raises NpuSmiError where it fails."""
    return [
        process for process in read_report(case.host).processes if (process.npu, process.chip) == (chip.npu, chip.chip)
    ]


def _describe(case: Examination, process: ChipProcess) -> str:
    container = docker.owner(case.host, process.pid)
    where = f", container {container}" if container else ""
    return f"{process.name or 'a process'} (pid {process.pid}{where}: {process.memory} MB)"


def needed(case: Examination) -> int:
    """MB that the model takes on the device; 0 for the demo model, which takes next to nothing."""
    if not case.wants_weights:
        return 0
    size = weights.size(case)  # of 16-bit numbers
    return MARGIN + size * (2 if case.settings.dtype == "float32" else 1) // 2**20


def known_chips(case: Examination) -> tuple[Chip, ...]:
    """The chips; none where npu-smi fails, which is told by its own check."""
    try:
        return read_report(case.host).chips
    except NpuSmiError:
        return ()


def _why_not(case: Examination) -> str:
    """Why npu-smi does not tell the chips."""
    try:
        return f"npu-smi lists {len(read_report(case.host).chips)} chips"
    except NpuSmiError as error:
        return f"{error.subject}: {error.reason}"


def signs(host: Host) -> list[str]:
    """What says that a host has NPUs, whether or not their driver is loaded."""
    return host.ask(
        "npu-signs", lambda: CommandResult("".join(f"{sign}\n" for sign in npu_host.find_signs()))
    ).output.splitlines()


def _names(chips: Iterable[Chip]) -> str:
    """Such as `8 × 910B4`."""
    names = [chip.name for chip in chips]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))


def together(outcomes: list[CheckResult]) -> CheckResult:
    """Several as one: what is wrong, or all."""
    status = worst(outcomes)
    shown = [outcome for outcome in outcomes if outcome.status != "pass"] or outcomes
    fixes = dict.fromkeys(outcome.fix for outcome in shown if outcome.fix)
    return CheckResult(status, "; ".join(outcome.evidence for outcome in shown), "; ".join(fixes))


def accepted(cann: str) -> tuple[str, ...]:
    """The HDKs that are listed for a CANN, such as ("25.0", "25.2"); empty if that CANN is not listed."""
    keys = [key for key in DRIVERS if f"{cann}.".startswith(f"{key}.")]
    return DRIVERS[max(keys, key=len)] if keys else ()


def judge(cann: str, driver: str) -> Literal["listed", "too old", "not listed"]:
    """Whether a driver goes with a CANN. One that is newer than all that are listed may, but nobody says so."""
    listed = accepted(cann)
    if listed and _series(driver) < _series(listed[0]):
        return "too old"
    return "listed" if _series(driver) in map(_series, listed) else "not listed"


def _series(version: str) -> tuple[int, ...]:
    """25.0.rc1.1 → (25, 0)"""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def driver(case: Examination) -> CheckResult:
    """The driver is installed, and completely."""
    folder, version = _folder(case.host), driver_version(case.host)
    if not version:
        return CheckResult("fail", f"{folder}/driver/version.info is not there or tells no version", INSTALL)
    installed = _fields(case.host.text(INSTALLED))
    where = f"{version} in {folder}"
    if case.place == "host" and installed and installed.get("Driver_Install_Status", "complete") != "complete":
        return CheckResult("warn", f"{where}, which {INSTALLED} does not call complete", "install the driver again")
    if case.place == "host" and folder != DEFAULT_FOLDER and not case.host.state(f"{DEFAULT_FOLDER}/driver").there:
        advice = f"sudo mkdir -p {DEFAULT_FOLDER} && sudo ln -s {folder}/driver {DEFAULT_FOLDER}/driver"
        return CheckResult("warn", f"{where}; containers look in {DEFAULT_FOLDER}/driver", advice)
    return CheckResult("pass", where)


def firmware(case: Examination) -> CheckResult:
    """The firmware is one that the driver accepts."""
    folder = _folder(case.host)
    version = _fields(case.host.text(f"{folder}/firmware/version.info")).get("Version", "")
    if not version:
        return CheckResult("warn", f"{folder}/firmware/version.info is not there or tells no version", INSTALL)
    accepted = _fields(case.host.text(f"{folder}/driver/version.info")).get("compatible_version_fw", "")
    ranges = re.findall(r"\[([\d.]+),([\d.]+)\]", accepted)
    if ranges and not any(_numbers(least) <= _numbers(version)[:3] <= _numbers(most) for least, most in ranges):
        advice = "install firmware and driver of the same HDK, first the firmware, then reboot"
        return CheckResult("fail", f"{version}; the driver accepts {accepted}", advice)
    return CheckResult("pass", version)


def driver_and_cann(case: Examination) -> CheckResult | None:
    """The driver is one that CANN goes with: the CANN in the container, or the one that the stack's image has."""
    cann = cann_version(case.host) if case.place == "container" else load_stack(case.settings.stack).cann
    version = driver_version(case.host)
    if not cann or not version:
        return None
    together = f"driver {version}, CANN {cann}"
    listed = ", ".join(f"{series}.X" for series in accepted(cann))
    if not listed:
        return CheckResult("warn", f"{together}: the kit does not know which drivers that CANN goes with")
    verdict = judge(cann, version)
    if verdict == "listed":
        return CheckResult("pass", together)
    advice = f"install a driver of {listed}: https://www.hiascend.com/hardware/firmware-drivers"
    if verdict == "too old":
        return CheckResult("fail", f"{together}, which wants a driver of {listed}", advice)
    return CheckResult("warn", f"{together}, whose release notes list drivers of {listed} only", advice)


def device_nodes(case: Examination) -> CheckResult:
    """The NPUs' device nodes are there and open to the user that the container runs as."""
    nodes = [f"/dev/davinci{number}" for number in used_nodes(case)]
    states = {path: case.host.state(path) for path in (*nodes, *NPU_DEVICES)}
    missing = [path for path, state in states.items() if state.kind not in ("device", "file")]
    have = [path for path in case.host.matches("/dev/davinci[0-9]*") if path not in missing]
    if missing or not nodes:
        listed = ", ".join(path.removeprefix("/dev/") for path in have) or "no /dev/davinciN"
        advice = "export ASR_NPUS=…, from those that are there" if have else "is the driver loaded? lsmod | grep drv_"
        if case.place == "container":
            advice = "start the container with its devices: make up"
        return CheckResult("fail", f"{', '.join(missing) or '/dev/davinciN'} missing; there is {listed}", advice)
    groups = {state.gid for state in states.values()}
    modes = ", ".join(sorted({f"{state.mode:o}" for state in states.values()}))
    owned = ", ".join(_group(case.host, gid) for gid in sorted(groups))
    evidence = f"{', '.join(path.removeprefix('/dev/') for path in states)}: mode {modes}, group {owned}"
    uid, gids = _who(case, groups)
    closed = [path for path, state in states.items() if not _open(state.mode, state.uid == uid, state.gid in gids)]
    if closed:
        advice = "start the container with: make up"
        if case.place == "host":
            advice = f"export ASR_UID={states[closed[0]].uid}"
        who = f"user {uid} with groups {', '.join(map(str, sorted(gids)))}"
        return CheckResult("fail", f"{evidence}; closed to {who}: {', '.join(closed)}", advice)
    return CheckResult("pass", evidence)


def mounts(case: Examination) -> CheckResult:
    """What the container mounts of the driver is there, and is no empty directory that Docker made."""
    states = {path: case.host.state(path) for path in NPU_MOUNTS}
    made = [path for path, state in states.items() if state.kind == "empty directory"]
    if made:
        advice = f"sudo rmdir {' '.join(made)}, then install the driver again"
        return CheckResult("fail", f"{', '.join(made)}: empty directory, as Docker makes of a missing mount", advice)
    missing = [path for path, state in states.items() if not state.there]
    if any(state.there for path, state in states.items() if path.endswith("/npu-smi")):
        missing = [path for path in missing if not path.endswith("/npu-smi")]
    if missing:
        status: Status = "fail" if any("/driver/" in path for path in missing) else "warn"
        return CheckResult(status, f"missing: {', '.join(missing)}", INSTALL)
    return CheckResult("pass", ", ".join(path for path, state in states.items() if state.there))


def driver_version(host: Host) -> str:
    """The driver's version; empty if it cannot be told."""
    return _fields(host.text(f"{_folder(host)}/driver/version.info")).get("Version", "")


def _folder(host: Host) -> str:
    """Where driver and firmware are installed."""
    named = _fields(host.text(INSTALLED)).get("Driver_Install_Path_Param", "").rstrip("/")
    return named if named and host.text(f"{named}/driver/version.info") else DEFAULT_FOLDER


def _fields(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _group(host: Host, gid: int) -> str:
    """The group's name and number."""
    lines = (line.split(":") for line in host.text("/etc/group").splitlines())
    return next((f"{line[0]} ({gid})" for line in lines if len(line) > 2 and line[2] == str(gid)), str(gid))


def _who(case: Examination, groups: set[int]) -> tuple[int, set[int]]:
    """User and groups that open the nodes: the container's, which `make up` adds the nodes' own `groups` to."""
    uid, gid = user(case.settings)
    if case.place == "host":
        return uid, {gid, *groups}
    own = case.host.ask(
        "user", lambda: CommandResult(f"{os.geteuid()} {os.getegid()} {' '.join(map(str, os.getgroups()))}")
    )
    ids = [int(word) for word in own.output.split()] or [uid, gid]
    return ids[0], set(ids[1:])


def _open(mode: int, own: bool, grouped: bool) -> bool:
    """Whether a node can be read and written. Root counts as any user: the container has no capabilities."""
    shift = 6 if own else 3 if grouped else 0
    return mode >> shift & READ_AND_WRITE == READ_AND_WRITE

"""The NPUs, as npu-smi tells them: which, how healthy, how much of their memory is free."""

from collections.abc import Iterable
from dataclasses import replace

from env.errors import KitError
from runtime.host import npu_host
from runtime.host.npu_host import NPU_SMI
from runtime.host.npu_smi import Chip, NpuSmiError, Process, _command, numbers, profile_for, report
from runtime.host.probe import NOT_RECORDED, Answer, Host
from runtime.ops.doctor import engine, model
from runtime.ops.doctor.findings import Case, Outcome, worst

ELSEWHERE = "the servers of ASR_VLLM_URL have the model"
LOST = (
    "lspci -d 19e5: shows whether it is on the bus; if it is: install the driver again, or reboot; if not: power off "
    "and on, then the vendor's support"
)
GOOD, BAD = {"OK"}, {"Alarm", "Critical"}  # Warning, UNKNOWN and NA lie between

# MB beyond the weights: CANN's own context, activations, the cache of keys and values. The validated run held 3,930 MB
# for one clip, with 4,400 MB of safetensors on disk; batches take more.
MARGIN = 2048



def presence(case: Case) -> Outcome:
    """There is an NPU where the settings want one, of the kind that the profile is for; and none that they ignore."""
    nodes = case.host.matches("/dev/davinci[0-9]*")
    chips = known_chips(case) if nodes or case.wants_npu or _command(case.host) else ()
    profile, fits = case.settings.profile, profile_for(chips)
    if npu_host.is_unasked_demo(case.settings) and (seen := signs(case.host) or nodes[:1]):
        told = npu_host.refusal(seen, loaded=case.host.state(npu_host.MANAGER).there)
        return Outcome("fail", f"{told.subject} {told.reason}", f"export ASR_PROFILE={fits}" if fits else told.advice)
    if not chips and not nodes:
        if not case.wants_npu:
            what = "the model" if case.wants_weights else "the demo model"
            runs = ELSEWHERE if case.front else f"{what} runs on the CPU"
            return Outcome("pass", f"no NPU: {runs}")
        advice = "install the NPU driver, or export ASR_PROFILE=cpu to run on the CPU"
        evidence = f"profile {profile} is for an NPU, and there is none: no /dev/davinciN, {_why_not(case)}"
        return Outcome("fail", evidence, advice)
    named = _names(chips) or f"{len(nodes)} device nodes ({_why_not(case)})"
    if case.front:
        return Outcome("pass", f"{named}, not used: {ELSEWHERE}")
    if not case.wants_npu:
        advice = f"export ASR_PROFILE={fits}" if fits else "export ASR_PROFILE=…, see env/profiles"
        return Outcome("warn", f"{named}, which profile {profile} does not use", advice)
    if fits and fits != profile and case.settings.stack != "cpu":
        return Outcome("fail", f"{named}, but profile {profile} is for another kind", f"export ASR_PROFILE={fits}")
    if chips and not fits:
        return Outcome("warn", f"{named}: no profile is for it; {profile} may not fit")
    return Outcome("pass", f"{named}, profile {profile}")


def smi(case: Case) -> Outcome:
    """npu-smi runs and lists the chips."""
    found = _command(case.host)
    made = [path for path in NPU_SMI if case.host.state(path).kind == "empty directory"]
    if made:
        advice = f"sudo rmdir {' '.join(made)}, then install the driver again"
        return Outcome("fail", f"{', '.join(made)}: empty directory, as Docker makes of a missing mount", advice)
    try:
        told = report(case.host)
    except NpuSmiError as error:
        return Outcome("warn" if NOT_RECORDED in error.reason else "fail", error.reason, error.advice)
    evidence = f"{told.version} in {found or 'a record'}: {_names(told.chips) or 'no chips'}"
    if told.notes:
        return Outcome("warn", f"{evidence}; {' '.join(told.notes)}", "install the driver again")
    return Outcome("pass", evidence)


def health(case: Case) -> Outcome | None:
    """The NPUs that are used are healthy; others only warn."""
    chips = known_chips(case)
    if not chips:
        return None
    used = used_nodes(case)
    absent = sorted(set(used) - {chip.node for chip in chips})
    outcomes = [Outcome("fail", f"npu-smi lists no NPU {node}", LOST) for node in absent]
    for chip in chips:
        if chip.health not in GOOD:
            fatal = chip.health in BAD and chip.node in used
            evidence = f"NPU {chip.node}: {chip.health}"
            evidence += "" if chip.temperature is None else f" at {chip.temperature} °C"
            outcomes.append(Outcome("fail" if fatal else "warn", evidence, _repair(chip)))
    if outcomes:
        found = together(outcomes)
        return replace(found, fix=_instead(case, chips) + found.fix) if found.status == "fail" else found
    hottest = max((chip.temperature or 0 for chip in chips), default=0)
    return Outcome("pass", f"{len(chips)} OK, the hottest at {hottest} °C")


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


def _instead(case: Case, chips: Iterable[Chip]) -> str:
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


def memory(case: Case) -> Outcome | None:
    """The NPUs that are used have room for the model; who holds the memory, if not."""
    used = [chip for chip in known_chips(case) if chip.node in used_nodes(case)]
    if not used or case.settings.engine_name == "vllm":  # whose share has a check of its own
        return None
    least = needed(case)
    return together([room(case, chip, least) for chip in used])


def used_nodes(case: Case) -> list[int]:
    """The N of the /dev/davinciN that are used: those of ASR_NPUS, in a container all that it has."""
    if case.place == "container":
        nodes = case.host.matches("/dev/davinci[0-9]*")
        return sorted(int(text) for path in nodes if (text := path.removeprefix("/dev/davinci")).isdecimal())
    try:
        return numbers(case.settings.npus)
    except KitError:  # told by the check of the settings
        return []


def room(case: Case, chip: Chip, least: int) -> Outcome:
    """Whether a chip has `least` MB free, or the kit itself holds them; who does, if not."""
    held = chip.main_memory
    if held is None:
        return Outcome("warn", f"NPU {chip.node}: npu-smi does not tell its memory", "npu-smi info -t memory")
    evidence = f"NPU {chip.node}: {held.free} of {held.total} MB free"
    if held.free >= least:
        return Outcome("pass", f"{evidence}, {least} needed" if least else evidence)
    holding = holders(case, chip)
    named = ", ".join(_describe(case, process) for process in holding) or "no process that npu-smi shows"
    evidence = f"{evidence}, {least} needed; held by {named}"
    # In a container npu-smi shows that container's processes only.
    if (case.place == "container" and holding) or any(engine.owner(case.host, p.pid, ours=True) for p in holding):
        return Outcome("pass", evidence)
    free = [other.node for other in known_chips(case) if (spare := other.main_memory) and spare.free >= least]
    if case.place == "host" and free:
        return Outcome("fail", evidence, f"stop them, or export ASR_NPUS={free[0]}, which has room")
    return Outcome("fail", evidence, "stop them")


def holders(case: Case, chip: Chip) -> list[Process]:
    """The processes that npu-smi shows on a chip. Raises NpuSmiError where it fails."""
    return [process for process in report(case.host).processes if (process.npu, process.chip) == (chip.npu, chip.chip)]


def _describe(case: Case, process: Process) -> str:
    container = engine.owner(case.host, process.pid)
    where = f", container {container}" if container else ""
    return f"{process.name or 'a process'} (pid {process.pid}{where}: {process.memory} MB)"


def needed(case: Case) -> int:
    """MB that the model takes on the device; 0 for the demo model, which takes next to nothing."""
    if not case.wants_weights:
        return 0
    size = model.size(case)  # of 16-bit numbers
    return MARGIN + size * (2 if case.settings.dtype == "float32" else 1) // 2**20


def known_chips(case: Case) -> tuple[Chip, ...]:
    """The chips; none where npu-smi fails, which is told by its own check."""
    try:
        return report(case.host).chips
    except NpuSmiError:
        return ()


def _why_not(case: Case) -> str:
    """Why npu-smi does not tell the chips."""
    try:
        return f"npu-smi lists {len(report(case.host).chips)} chips"
    except NpuSmiError as error:
        return f"{error.subject}: {error.reason}"




def signs(host: Host) -> list[str]:
    """What says that a host has NPUs, whether or not their driver is loaded."""
    return host.ask("npu-signs", lambda: Answer("".join(f"{sign}\n" for sign in npu_host.signs()))).output.splitlines()




def _names(chips: Iterable[Chip]) -> str:
    """Such as `8 × 910B4`."""
    names = [chip.name for chip in chips]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))


def together(outcomes: list[Outcome]) -> Outcome:
    """Several as one: what is wrong, or all."""
    status = worst(outcomes)
    shown = [outcome for outcome in outcomes if outcome.status != "pass"] or outcomes
    fixes = dict.fromkeys(outcome.fix for outcome in shown if outcome.fix)
    return Outcome(status, "; ".join(outcome.evidence for outcome in shown), "; ".join(fixes))

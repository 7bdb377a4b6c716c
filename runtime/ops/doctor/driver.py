"""The driver: its version and firmware, its device nodes, and what of it a container needs."""

import os
import re

from env.stacks import load_stack
from runtime.host.probe import Answer, Host
from runtime.ops.doctor import compatibility
from runtime.ops.doctor.container import cann_version
from runtime.ops.doctor.findings import Case, Outcome, Status
from runtime.ops.doctor.npu import used_nodes
from runtime.ops.lifecycle.host import NPU_DEVICES, NPU_MOUNTS, user

INSTALLED = "/etc/ascend_install.info"
DEFAULT_FOLDER = "/usr/local/Ascend"
READ_AND_WRITE = 0o6
INSTALL = "install the driver of your NPU: https://www.hiascend.com/hardware/firmware-drivers"


def driver(case: Case) -> Outcome:
    """The driver is installed, and completely."""
    folder, version = _folder(case.host), driver_version(case.host)
    if not version:
        return Outcome("fail", f"{folder}/driver/version.info is not there or tells no version", INSTALL)
    installed = _fields(case.host.text(INSTALLED))
    where = f"{version} in {folder}"
    if case.place == "host" and installed and installed.get("Driver_Install_Status", "complete") != "complete":
        return Outcome("warn", f"{where}, which {INSTALLED} does not call complete", "install the driver again")
    if case.place == "host" and folder != DEFAULT_FOLDER and not case.host.state(f"{DEFAULT_FOLDER}/driver").there:
        advice = f"sudo mkdir -p {DEFAULT_FOLDER} && sudo ln -s {folder}/driver {DEFAULT_FOLDER}/driver"
        return Outcome("warn", f"{where}; containers look in {DEFAULT_FOLDER}/driver", advice)
    return Outcome("pass", where)


def firmware(case: Case) -> Outcome:
    """The firmware is one that the driver accepts."""
    folder = _folder(case.host)
    version = _fields(case.host.text(f"{folder}/firmware/version.info")).get("Version", "")
    if not version:
        return Outcome("warn", f"{folder}/firmware/version.info is not there or tells no version", INSTALL)
    accepted = _fields(case.host.text(f"{folder}/driver/version.info")).get("compatible_version_fw", "")
    ranges = re.findall(r"\[([\d.]+),([\d.]+)\]", accepted)
    if ranges and not any(_numbers(least) <= _numbers(version)[:3] <= _numbers(most) for least, most in ranges):
        advice = "install firmware and driver of the same HDK, first the firmware, then reboot"
        return Outcome("fail", f"{version}; the driver accepts {accepted}", advice)
    return Outcome("pass", version)


def driver_and_cann(case: Case) -> Outcome | None:
    """The driver is one that CANN goes with: the CANN in the container, or the one that the stack's image has."""
    cann = cann_version(case.host) if case.place == "container" else load_stack(case.settings.stack).cann
    version = driver_version(case.host)
    if not cann or not version:
        return None
    together = f"driver {version}, CANN {cann}"
    listed = ", ".join(f"{series}.X" for series in compatibility.accepted(cann))
    if not listed:
        return Outcome("warn", f"{together}: the kit does not know which drivers that CANN goes with")
    verdict = compatibility.judge(cann, version)
    if verdict == "listed":
        return Outcome("pass", together)
    advice = f"install a driver of {listed}: https://www.hiascend.com/hardware/firmware-drivers"
    if verdict == "too old":
        return Outcome("fail", f"{together}, which wants a driver of {listed}", advice)
    return Outcome("warn", f"{together}, whose release notes list drivers of {listed} only", advice)


def device_nodes(case: Case) -> Outcome:
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
        return Outcome("fail", f"{', '.join(missing) or '/dev/davinciN'} missing; there is {listed}", advice)
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
        return Outcome("fail", f"{evidence}; closed to {who}: {', '.join(closed)}", advice)
    return Outcome("pass", evidence)


def mounts(case: Case) -> Outcome:
    """What the container mounts of the driver is there, and is no empty directory that Docker made."""
    states = {path: case.host.state(path) for path in NPU_MOUNTS}
    made = [path for path, state in states.items() if state.kind == "empty directory"]
    if made:
        advice = f"sudo rmdir {' '.join(made)}, then install the driver again"
        return Outcome("fail", f"{', '.join(made)}: empty directory, as Docker makes of a missing mount", advice)
    missing = [path for path, state in states.items() if not state.there]
    if any(state.there for path, state in states.items() if path.endswith("/npu-smi")):
        missing = [path for path in missing if not path.endswith("/npu-smi")]
    if missing:
        status: Status = "fail" if any("/driver/" in path for path in missing) else "warn"
        return Outcome(status, f"missing: {', '.join(missing)}", INSTALL)
    return Outcome("pass", ", ".join(path for path, state in states.items() if state.there))


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


def _who(case: Case, groups: set[int]) -> tuple[int, set[int]]:
    """User and groups that open the nodes: the container's, which `make up` adds the nodes' own `groups` to."""
    uid, gid = user(case.settings)
    if case.place == "host":
        return uid, {gid, *groups}
    own = case.host.ask("user", lambda: Answer(f"{os.geteuid()} {os.getegid()} {' '.join(map(str, os.getgroups()))}"))
    ids = [int(word) for word in own.output.split()] or [uid, gid]
    return ids[0], set(ids[1:])


def _open(mode: int, own: bool, grouped: bool) -> bool:
    """Whether a node can be read and written. Root counts as any user: the container has no capabilities."""
    shift = 6 if own else 3 if grouped else 0
    return mode >> shift & READ_AND_WRITE == READ_AND_WRITE

"""Inside the kit's container: CANN, the packages, torch_npu, and whether the NPU calculates."""

import json
import platform
import re
import sys
from typing import Any

from env.sources import exports
from env.stacks import compare, installed_version, load_stack
from runtime.host.probe import NOT_RECORDED, Answer, Host
from runtime.ops.doctor.findings import Case, Outcome

# Where CANN is: from 8.5 in cann-<version>, before in ascend-toolkit/<version>. The file is the one that Huawei's
# installation guide tells to look into.
FOLDERS = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest")
INFO = "ascend_toolkit_install.info"
FIRST_USE = 180.0  # seconds; importing torch_npu takes about ten, the first operator is compiled


def cann(case: Case) -> Outcome:
    """CANN is there, in the version that the stack is pinned to, or in one that will do."""
    version, stack = cann_version(case.host), load_stack(case.settings.stack)
    if not version:
        return Outcome("fail", f"no {INFO} under {' or '.join(FOLDERS)}", "use an image of the kit: make up")
    if why := stack.cann_alternatives.get(version):
        return Outcome("pass", f"{version} in the place of {stack.cann}: {why}")
    if stack.cann and version != stack.cann:
        same = version.split(".")[:2] == stack.cann.split(".")[:2]
        evidence = f"{version}, the {stack.name} stack is pinned to {stack.cann}"
        return Outcome("warn" if same else "fail", evidence, "build the image again: make build")
    return Outcome("pass", version)


def packages(case: Case) -> Outcome:
    """The packages are those of the pinned stack."""
    stack = case.settings.stack
    answer = case.host.ask("packages", lambda: _packages(stack))
    if answer.fault:
        return Outcome("warn", answer.fault)
    found = dict(line.split(" ", 1) for line in answer.output.splitlines() if " " in line)
    rows = compare(
        stack,
        installed=lambda name: found.get(name, ""),
        python=found.get("python", ""),
        machine=found.get("machine", ""),
    )
    wrong, other = (
        "; ".join(
            f"{row.name} {row.installed or 'missing'} (pinned: {row.pinned or 'none'})"
            for row in rows
            if row.severity == s
        )
        for s in ("matters", "harmless")
    )
    if wrong or other:
        return Outcome("fail" if wrong else "warn", wrong or other, f"invoke versions --stack {stack}")
    return Outcome("pass", f"{len(rows)} of the {stack} stack, as pinned")


def torch_npu(case: Case) -> Outcome:
    """torch_npu can be imported and opens the NPU."""
    answer, told = _trial(case)
    if answer.fault == NOT_RECORDED:
        return Outcome("warn", NOT_RECORDED)
    if "device" in told:
        return Outcome("pass", f"torch_npu {told['torch_npu']} opens {told['device']} ({told['description']})")
    if "reason" in told:
        return Outcome("fail", told["reason"], told["advice"] or "invoke versions, then npu-smi info")
    return Outcome("fail", f"importing torch_npu: {answer.fault or 'no answer'}", "invoke versions, then npu-smi info")


def calculation(case: Case) -> Outcome | None:
    """The NPU multiplies matrices, and gets what the CPU gets."""
    answer, told = _trial(case)
    if "device" not in told:
        return None
    advice = f"npu-smi info -t health -i {told['device'].partition(':')[2]}, then look into /root/ascend/log"
    if "error" not in told:
        return Outcome("fail", f"the first operator on {told['device']}: {answer.fault or 'no answer'}", advice)
    evidence = f"{told['dtype']} on {told['device']}, off the CPU's result by {told['error']:.1e}"
    if told["error"] <= told["tolerance"]:
        return Outcome("pass", evidence)
    return Outcome("fail", f"{evidence}, at most {told['tolerance']:.0e} expected", advice)


def cann_version(host: Host) -> str:
    """CANN's version; empty if there is none."""
    folders = [*FOLDERS, *reversed(host.matches("/usr/local/Ascend/cann-*"))]
    for folder in folders:
        for machine in host.matches(f"{folder}/*-linux"):
            if found := re.search(r"^version=(\S+)$", host.text(f"{machine}/{INFO}"), re.MULTILINE):
                return found[1]
    return ""


def _packages(stack: str) -> Answer:
    """Python, machine and the versions of what the stack names, a line each."""
    wanted = load_stack(stack)
    names = sorted({*(pin.name for pin in wanted.pins), *wanted.absent})
    lines = [f"python {'.'.join(platform.python_version_tuple()[:2])}", f"machine {platform.machine()}"]
    lines += [f"{name} {version}" for name in names if (version := installed_version(name))]
    return Answer("\n".join(lines) + "\n")


def _trial(case: Case) -> tuple[Answer, dict[str, Any]]:
    """What runtime.ops.doctor.trial says, in a process of its own: native code may end it."""
    told = case.settings
    wanted = "npu" if told.device in ("auto", "cpu") else told.device
    command = [sys.executable, "-m", "runtime.ops.doctor.trial", wanted, told.dtype, json.dumps(exports(told))]
    answer = case.host.run("trial", command, seconds=FIRST_USE)
    found: dict[str, Any] = {}
    for line in answer.output.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return answer, found

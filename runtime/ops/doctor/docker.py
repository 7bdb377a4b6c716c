"""Docker on the host: the engine, compose, Ascend's runtime, and the kit's own containers."""

import json
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from env.errors import KitError
from env.settings import Settings
from env.sources import exports, operator_environment
from env.stacks import compare, installed_version, load_stack
from runtime.host.probe import NOT_FOUND, NOT_RECORDED, CommandResult, Host
from runtime.ops.deploy import own_compose
from runtime.ops.deploy.image import STACK_LABEL
from runtime.ops.deploy.override import RUNTIME
from runtime.ops.doctor.findings import CheckResult, Examination, Status, worst
from runtime.redaction import known_secrets, redact

LOOPING = re.compile(r"Restarting|Dead|.*\(unhealthy\)")
FAILED = re.compile(r"Exited \((?!0\))")
OLDEST_COMPOSE = (1, 29)
DAEMON = "/etc/docker/daemon.json"
UNCONFINED = "every device and every right of the host, by privileged: true; "

# Where CANN is: from 8.5 in cann-<version>, before in ascend-toolkit/<version>. The file is the one that Huawei's
# installation guide tells to look into.
FOLDERS = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest")
INFO = "ascend_toolkit_install.info"
FIRST_USE = 180.0  # seconds; importing torch_npu takes about ten, the first operator is compiled


@dataclass(frozen=True)
class DockerContainer:
    """A container of this host. `ours`: made from an image of the kit."""

    id: str
    name: str
    ports: str  # as docker ps shows them: 127.0.0.1:8000->8000/tcp
    status: str  # likewise: Up 3 minutes (healthy), Restarting (1) 5 seconds ago, Exited (1) 2 hours ago
    ours: bool

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.status.startswith("Up")

    @property
    def trouble(self) -> Status:
        """fail where it ends again and again, or runs and does not answer; warn where it has ended by itself."""
        if LOOPING.match(self.status):
            return "fail"
        return "warn" if FAILED.match(self.status) else "pass"

    def publishes(self, port: int) -> bool:
        """Whether a port of the host leads to it."""
        return bool(self.addresses(port))

    def addresses(self, port: int) -> list[str]:
        """The host's addresses whose port leads to it."""
        return re.findall(rf"(\S+):{port}->", self.ports)


def docker_engine(case: Examination) -> CheckResult:
    """Docker's engine answers."""
    answer = case.host.run("docker-info", ["docker", "info", "--format", "{{json .}}"])
    if answer.fault == NOT_RECORDED:
        return CheckResult("warn", NOT_RECORDED)
    if answer.fault == NOT_FOUND:
        return CheckResult(_missing(case), "not installed", "install your distribution's docker.io or docker-engine")
    if answer.fault:
        denied = "permission denied" in answer.fault.lower()
        advice = "sudo usermod -aG docker $USER, then log in again" if denied else "sudo systemctl start docker"
        return CheckResult(_missing(case), f"cannot be reached: {answer.fault}", advice)
    told = info(case.host)
    return CheckResult("pass", f"{told.get('ServerVersion')}, data in {told.get('DockerRootDir')}")


def compose(case: Examination) -> CheckResult:
    """Compose is there: v2 as a plugin, or v1 from 1.29."""
    new = case.host.run("compose-v2", ["docker", "compose", "version", "--short"])
    if not new.fault:
        return CheckResult("pass", f"docker compose {new.output.strip()}")
    old = case.host.run("compose-v1", ["docker-compose", "version", "--short"])
    version = old.output.strip()
    if not old.fault and _numbers(version)[:2] >= OLDEST_COMPOSE:
        return CheckResult("pass", f"docker-compose {version}")
    if old.fault == NOT_RECORDED:
        return CheckResult("warn", NOT_RECORDED)
    evidence = "neither docker compose nor docker-compose answers"
    if not old.fault:
        evidence = f"docker-compose {version} is older than 1.29"
    return CheckResult(_missing(case), evidence, "install your distribution's docker-compose-plugin or docker-compose")


def own_file(case: Examination) -> CheckResult | None:
    """Compose can merge the operator's own file, if one is set, with the kit's."""
    own = own_compose.path(case.settings)
    if not own:
        return None
    case.host.text(str(own))  # so that a support bundle has it
    answer = case.host.ask("own-compose-file", lambda: _read_own_file(case.settings))
    if answer.fault:
        return CheckResult("warn" if answer.fault == NOT_RECORDED else "fail", answer.fault)
    found = answer.output.strip()
    if found.startswith(UNCONFINED):
        return CheckResult("warn", found, "take privileged out: docker/HARDENING.md has what is narrower")
    return CheckResult("pass", found)


def _read_own_file(settings: Settings) -> CommandResult:
    try:
        found = own_compose.read(settings)
    except KitError as error:
        return CommandResult("", str(error))
    # Before a table folds its lines, behind which no secret would be recognised.
    shown = redact(str(found), known_secrets(settings, operator_environment()))
    return CommandResult(f"{UNCONFINED if found and found.privileged else ''}{shown}")


def ascend_runtime(case: Examination) -> CheckResult:
    """Ascend's runtime for Docker, where it is installed, is one that the engine knows."""
    told, configured = info(case.host), _daemon(case.host)
    known: Mapping[str, Any] = told.get("Runtimes") or {}
    if not told and not configured:
        return CheckResult("pass", "not installed: containers get devices and mounts one by one")
    if told and RUNTIME in (configured.get("runtimes") or {}) and RUNTIME not in known:
        return CheckResult("warn", f"in {DAEMON}, but not known to the engine", "sudo systemctl restart docker")
    if RUNTIME not in known and RUNTIME not in (configured.get("runtimes") or {}):
        return CheckResult("pass", "not installed: containers get devices and mounts one by one")
    path = str((known.get(RUNTIME) or configured["runtimes"][RUNTIME]).get("path", ""))
    if path.startswith("/") and not case.host.state(path).there:
        advice = f"install ascend-docker-runtime again, or take it out of {DAEMON}"
        return CheckResult("fail", f"{path} is not there", advice)
    default = told.get("DefaultRuntime") == RUNTIME
    return CheckResult("pass", f"installed ({path})" + (", the default" if default else ""))


def servers(case: Examination) -> CheckResult | None:
    """The kit's own containers run, and answer."""
    ours = [container for container in containers(case.host) if container.ours]
    if not ours:
        return None
    outcomes = [
        CheckResult(server.trouble, f"{server.name}: {server.status}", f"docker logs --tail 50 {server.name}")
        for server in ours
    ]
    told = [outcome for outcome in outcomes if outcome.status != "pass"]
    fix = "; ".join(outcome.fix for outcome in told)
    return CheckResult(worst(outcomes), "; ".join(outcome.evidence for outcome in told or outcomes), fix)


def containers(host: Host) -> list[DockerContainer]:
    """All containers, those that have ended too; none where docker cannot tell."""
    if not info(host):
        return []
    answer = host.run("docker-ps", ["docker", "ps", "--all", "--no-trunc", "--format", "{{json .}}"])
    return [
        DockerContainer(
            id=str(entry.get("ID", "")),
            name=str(entry.get("Names", "")),
            ports=str(entry.get("Ports", "")),
            status=str(entry.get("Status", "")),
            ours=f"{STACK_LABEL}=" in str(entry.get("Labels", "")),
        )
        for entry in map(_object, answer.output.splitlines())
        if entry
    ]


def owner(host: Host, pid: int, *, ours: bool = False) -> str:
    """The name of the container that a process of the host runs in, empty if in none; with `ours`, only the kit's."""
    groups = host.text(f"/proc/{pid}/cgroup")
    found = (c.name for c in containers(host) if c.running and c.id and c.id in groups and (c.ours or not ours))
    return next(found, "")


def info(host: Host) -> dict[str, Any]:
    """What `docker info` tells; empty where it cannot."""
    answer = host.run("docker-info", ["docker", "info", "--format", "{{json .}}"])
    return {} if answer.fault else _object(answer.output)


def _daemon(host: Host) -> dict[str, Any]:
    return _object(host.text(DAEMON))


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty where the text is none."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _missing(case: Examination) -> Status:
    """How bad it is that containers cannot be started: not at all for who only tries the demo model."""
    return "fail" if case.quick or case.wants_npu else "warn"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def cann(case: Examination) -> CheckResult:
    """CANN is there, in the version that the stack is pinned to, or in one that will do."""
    version, stack = cann_version(case.host), load_stack(case.settings.stack)
    if not version:
        return CheckResult("fail", f"no {INFO} under {' or '.join(FOLDERS)}", "use an image of the kit: make up")
    if why := stack.cann_alternatives.get(version):
        return CheckResult("pass", f"{version} in the place of {stack.cann}: {why}")
    if stack.cann and version != stack.cann:
        same = version.split(".")[:2] == stack.cann.split(".")[:2]
        evidence = f"{version}, the {stack.name} stack is pinned to {stack.cann}"
        return CheckResult("warn" if same else "fail", evidence, "build the image again: make build")
    return CheckResult("pass", version)


def packages(case: Examination) -> CheckResult:
    """The packages are those of the pinned stack."""
    stack = case.settings.stack
    answer = case.host.ask("packages", lambda: _packages(stack))
    if answer.fault:
        return CheckResult("warn", answer.fault)
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
        return CheckResult("fail" if wrong else "warn", wrong or other, f"invoke versions --stack {stack}")
    return CheckResult("pass", f"{len(rows)} of the {stack} stack, as pinned")


def torch_npu(case: Examination) -> CheckResult:
    """torch_npu can be imported and opens the NPU."""
    answer, told = _trial(case)
    if answer.fault == NOT_RECORDED:
        return CheckResult("warn", NOT_RECORDED)
    if "device" in told:
        return CheckResult("pass", f"torch_npu {told['torch_npu']} opens {told['device']} ({told['description']})")
    if "reason" in told:
        return CheckResult("fail", told["reason"], told["advice"] or "invoke versions, then npu-smi info")
    return CheckResult(
        "fail", f"importing torch_npu: {answer.fault or 'no answer'}", "invoke versions, then npu-smi info"
    )


def calculation(case: Examination) -> CheckResult | None:
    """The NPU multiplies matrices, and gets what the CPU gets."""
    answer, told = _trial(case)
    if "device" not in told:
        return None
    advice = f"npu-smi info -t health -i {told['device'].partition(':')[2]}, then look into /root/ascend/log"
    if "error" not in told:
        return CheckResult("fail", f"the first operator on {told['device']}: {answer.fault or 'no answer'}", advice)
    evidence = f"{told['dtype']} on {told['device']}, off the CPU's result by {told['error']:.1e}"
    if told["error"] <= told["tolerance"]:
        return CheckResult("pass", evidence)
    return CheckResult("fail", f"{evidence}, at most {told['tolerance']:.0e} expected", advice)


def cann_version(host: Host) -> str:
    """CANN's version; empty if there is none."""
    folders = [*FOLDERS, *reversed(host.matches("/usr/local/Ascend/cann-*"))]
    for folder in folders:
        for machine in host.matches(f"{folder}/*-linux"):
            if found := re.search(r"^version=(\S+)$", host.text(f"{machine}/{INFO}"), re.MULTILINE):
                return found[1]
    return ""


def _packages(stack: str) -> CommandResult:
    """Python, machine and the versions of what the stack names, a line each."""
    wanted = load_stack(stack)
    names = sorted({*(pin.name for pin in wanted.pins), *wanted.absent})
    lines = [f"python {'.'.join(platform.python_version_tuple()[:2])}", f"machine {platform.machine()}"]
    lines += [f"{name} {version}" for name in names if (version := installed_version(name))]
    return CommandResult("\n".join(lines) + "\n")


def _trial(case: Examination) -> tuple[CommandResult, dict[str, Any]]:
    """What runtime.ops.doctor.npu_trial says, in a process of its own: native code may end it."""
    told = case.settings
    wanted = "npu" if told.device in ("auto", "cpu") else told.device
    command = [sys.executable, "-m", "runtime.ops.doctor.npu_trial", wanted, told.dtype, json.dumps(exports(told))]
    answer = case.host.run("trial", command, seconds=FIRST_USE)
    found: dict[str, Any] = {}
    for line in answer.output.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return answer, found

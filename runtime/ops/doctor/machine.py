"""The machine: architecture, system, memory, disk, port, certificate."""

import platform
import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from env.errors import KitError
from env.field import variable
from env.settings import Settings
from env.sources import under_project
from runtime.host.npu_smi import npu_numbers
from runtime.host.probe import NOT_RECORDED, CommandResult, Host
from runtime.host.processes import find_listener
from runtime.host.tls import read_tls
from runtime.ops import exposure
from runtime.ops.deploy.image import image_name
from runtime.ops.doctor import docker, weights
from runtime.ops.doctor.findings import CheckResult, Examination, Status, worst
from runtime.ops.doctor.npu import used_nodes
from runtime.urls import is_loopback

ARCHITECTURES = ("aarch64", "x86_64")
GIB = 2**30

# GiB that must be free. Estimates: the demo model needs the CPU stack's libraries; the real one passes through the
# host's memory on its way to the NPU.
LEAST_MEMORY = {"demo": 2, "weights": 8}
# GiB, with room for the layers of a build; the cpu stack was measured at 1.4, the others are guesses from the size of
# their base images.
IMAGE_SIZE = {"cpu": 5, "npu": 25, "vllm": 40}
OUT_SIZE = 1

DAY = 24 * 3600  # seconds
WARN_DAYS, FAIL_DAYS = 30, 7  # that a certificate has left

DISK = re.compile(r"\s(\d+)\s+\d+%\s+/")  # df -Pk: available blocks of 1,024 bytes, use, mount point


def architecture(case: Examination) -> CheckResult:
    """The processor is one that there are images and wheels for."""
    machine = _uname(case.host)[-1]
    if not machine:
        return CheckResult("warn", NOT_RECORDED)
    if machine not in ARCHITECTURES:
        return CheckResult("fail", f"{machine}; there are images for {' and '.join(ARCHITECTURES)}")
    return CheckResult("pass", machine)


def system(case: Examination) -> CheckResult:
    """The operating system and its kernel. Always passes: the driver decides what it runs on."""
    release = dict(line.partition("=")[::2] for line in case.host.text("/etc/os-release").splitlines())
    name = release.get("PRETTY_NAME", "").strip("\"'") or "unknown system"
    return CheckResult("pass", f"{name}, Linux {_uname(case.host)[1] or 'of unknown version'}")


def memory(case: Examination) -> CheckResult:
    """The host's memory has room to load the model."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", case.host.text("/proc/meminfo"), re.MULTILINE))
    if "MemAvailable" not in found or "MemTotal" not in found:
        return CheckResult("warn", NOT_RECORDED if not case.host.live else "/proc/meminfo does not tell")
    free, total = (int(found[name]) / 2**20 for name in ("MemAvailable", "MemTotal"))
    least = LEAST_MEMORY["weights" if case.wants_weights else "demo"]
    evidence = f"{free:.1f} of {total:.1f} GiB available"
    if free < least:
        return CheckResult("warn", f"{evidence}, {least} wanted", "ps -eo pid,rss,args --sort -rss | head")
    return CheckResult("pass", evidence)


def disk(case: Examination) -> CheckResult:
    """The disks have room where weights, image and reports go."""
    outcomes = [_room(case, *place) for place in _places(case)]
    status = worst(outcomes)
    advice = "make room, or set ASR_MODEL, ASR_OUT_DIR or docker's data-root to a larger disk; see docker system df"
    return CheckResult(status, "; ".join(outcome.evidence for outcome in outcomes), "" if status == "pass" else advice)


def port(case: Examination) -> CheckResult:
    """The server's port is free, or the kit's own container has it."""
    number = case.settings.port
    another = f"export {variable('port')}=…, or stop it"
    for container in docker.containers(case.host):
        if container.running and container.publishes(number):
            if container.ours:
                return CheckResult("pass", f"{number}: the kit's container {container.name} has it")
            return CheckResult("fail", f"{number}: container {container.name} has it", another)
    answer = case.host.ask("port", lambda: CommandResult(find_listener(case.settings.host, number)))
    if answer.fault:
        return CheckResult("warn", answer.fault)
    if answer.output:
        return CheckResult("fail", f"{number}: taken by {answer.output.strip()}", another)
    return CheckResult("pass", f"{number} is free")


def access(case: Examination) -> CheckResult | None:
    """Where others than this machine reach the server, it asks for a key."""
    told = case.settings
    if told.vllm_alone:  # whose key is a matter of its own
        return None
    found = [] if is_loopback(told.host) else [f"ASR_HOST={told.host}"]
    for container in docker.containers(case.host):
        if container.running and container.ours:
            found += [
                f"container {container.name} publishes {address.strip('[]')}"
                for address in container.addresses(told.port)
                if not is_loopback(address.strip("[]"))
            ]
    if not found:
        return None
    evidence = f"open to others: {', '.join(found)}"
    if exposure.has_key(told):
        return CheckResult("pass", f"{evidence}; callers need a key")
    return CheckResult(
        "warn", f"{evidence}; no key is set, so whoever reaches port {told.port} may use it", exposure.ADVICE
    )


def certificate(case: Examination) -> CheckResult | None:
    """The server can answer https with the certificate that is set, if one is."""
    told = case.settings
    if not (told.tls_cert_file or told.tls_key_file):
        return None
    answer = case.host.ask("certificate", lambda: _tried(told))
    if answer.fault == NOT_RECORDED:
        return CheckResult("warn", NOT_RECORDED)
    return CheckResult("fail", answer.fault) if answer.fault else CheckResult("pass", answer.output.strip())


def _tried(told: Settings) -> CommandResult:
    try:
        read_tls(told)
    except KitError as error:
        return CommandResult("", str(error))
    return CommandResult(f"{told.tls_cert_file} can be used")


def certificate_expiry(case: Examination) -> CheckResult | None:
    """The certificate does not expire within 30 days."""
    if not (case.settings.tls_cert_file and case.settings.tls_key_file):
        return None
    answer = case.host.ask("certificate-expiry", lambda: _expiry(case.settings))
    if answer.fault:  # certificate() tells why
        return None
    left, _, end = answer.output.strip().partition(" ")
    days = float(left)
    advice = "renew it: the server reads new files by itself, see runtime/server/README.md"
    if days <= 0:
        return CheckResult("fail", f"expired on {end}", advice)
    status: Status = "fail" if days <= FAIL_DAYS else "warn" if days <= WARN_DAYS else "pass"
    return CheckResult(status, f"valid until {end}, {days:.0f} days more", "" if status == "pass" else advice)


def _expiry(told: Settings) -> CommandResult:
    """The days that are left, and when the certificate expires."""
    try:
        found = read_tls(told, at_any_time=True)
    except KitError as error:
        return CommandResult("", str(error))
    assert found
    end = datetime.fromtimestamp(found.expires, timezone.utc)
    return CommandResult(f"{(found.expires - time.time()) / DAY:.2f} {end:%Y-%m-%d %H:%M} UTC\n")


def settings(case: Examination) -> CheckResult:
    """The settings do not contradict each other."""
    told = case.settings
    if case.place == "host":
        try:
            npu_numbers(told.npus)
        except KitError as error:
            return CheckResult("fail", f"{error.subject}: {error.reason}", f"export {error.subject}={error.advice}")
    if told.profile == "atlas-300i-duo" and told.dtype == "bfloat16":
        return CheckResult("fail", "ASR_DTYPE=bfloat16, which the 310P does not have", "export ASR_DTYPE=float16")
    index, count = int(told.device.partition(":")[2] or 0), len(used_nodes(case))
    if told.device.startswith("npu:") and index >= count:
        reason = f"ASR_DEVICE={told.device}, counted from 0, but the container has {count} NPUs (ASR_NPUS={told.npus})"
        return CheckResult("fail", reason, "export ASR_DEVICE=npu")
    if told.stack != "cpu" and told.device == "cpu":
        return CheckResult(
            "warn", f"ASR_DEVICE=cpu, although profile {told.profile} is for an NPU", "export ASR_DEVICE=npu"
        )
    npus = f", NPUs {told.npus}" if case.wants_npu and case.place == "host" else ""
    return CheckResult("pass", f"profile {told.profile}, stack {told.stack}, device {told.device}, {told.dtype}{npus}")


def hostname(host: Host) -> str:
    """The host's name."""
    return platform.node() if host.live else host.text("/etc/hostname").strip() or str(host.root)


def _uname(host: Host) -> list[str]:
    """Name of the kernel, its release, the processor; empty texts where they are not known."""
    found = host.run("uname", ["uname", "-srm"]).output.split()
    return found if len(found) == 3 else ["", "", ""]


def _places(case: Examination) -> Iterator[tuple[str, str, float, Status]]:
    """What goes where, the GiB that it will take, and how bad it is if these are not there."""
    yield "out", str(under_project(case.settings.out_dir)), OUT_SIZE, "warn"
    if case.wants_weights:
        yield "weights", str(under_project(case.settings.model)), weights.missing(case) / GIB, "fail"
    data = docker.info(case.host).get("DockerRootDir")
    if case.place == "host" and data:
        image = case.host.run("image", ["docker", "image", "inspect", "--format", "{{.Id}}", image_name(case.settings)])
        yield "image", str(data), IMAGE_SIZE[case.settings.stack] if image.fault else 0, "warn"


def _room(case: Examination, what: str, path: str, least: float, otherwise: Status) -> CheckResult:
    answer = case.host.run(f"disk-{what}", ["df", "-Pk", str(_existing(path))])
    found = DISK.search(answer.output)
    if answer.fault or not found:
        return CheckResult("warn", f"{what}: {answer.fault or 'df does not tell'}")
    free = int(found[1]) / 2**20
    if free < least:
        return CheckResult(otherwise, f"{what}: {free:.1f} GiB free, {least:.1f} wanted")
    return CheckResult("pass", f"{what}: {free:.1f} GiB free")


def _existing(path: str) -> Path:
    """The path, or the nearest directory above it that exists."""
    return next(place for place in (Path(path), *Path(path).parents) if place.exists())

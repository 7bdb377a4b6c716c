"""`invoke doctor`: why the kit does not run on a host, and what to type about it."""

from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from runtime.host.probe import Host
from runtime.ops.doctor.checks import CHECKS, Check
from runtime.ops.doctor.findings import CheckResult, Examination, Finding, Place, Status

__all__ = ["Finding", "Status", "examine", "examine_host"]

MARKS = ("/.dockerenv", "/run/.containerenv")  # of Docker and podman
CONTAINED = ("docker", "kubepods", "containerd", "libpod", "lxc")


def examine(settings: Settings, *, root: Path = Path("/"), quick: bool = False) -> list[Finding]:
    """Make every check that applies to this host, or to the one whose files are under `root`.

    `quick` makes those that take no more than a moment: no checksums, no hub, nothing on the NPU. Raises UsageError for
    a root that is no directory.
    """
    return examine_host(settings, Host(root), quick=quick)


def examine_host(settings: Settings, host: Host, *, quick: bool = False) -> list[Finding]:
    """The same for a `Host`, which afterwards holds all that was looked at, and tells of each check that begins."""
    case = Examination(host, settings, quick, _place(host))
    outcomes = [(check, _outcome(check, case)) for check in CHECKS if check.applies(case)]
    return [
        Finding(check.code, check.title, outcome.status, outcome.evidence, outcome.fix)
        for check, outcome in outcomes
        if outcome
    ]


def _outcome(check: Check, case: Examination) -> CheckResult | None:
    case.host.subject = f"{check.code} {check.title}"
    case.host.wait_for("")
    try:
        return check.examine(case)
    except KitError as error:
        return CheckResult("fail", f"{error.subject}: {error.reason}", error.advice)


def _place(host: Host) -> Place:
    """In a container that has no docker of its own: the kit's. Any other is a host, whatever it runs in."""
    groups = host.text("/proc/1/cgroup")
    contained = any(host.state(mark).kind == "file" for mark in MARKS) or any(word in groups for word in CONTAINED)
    docker = host.run("docker-info", ["docker", "info", "--format", "{{json .}}"])
    return "container" if contained and (docker.fault in ("not found", "not recorded")) else "host"

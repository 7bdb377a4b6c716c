"""Complete requirements for each stack and machine, resolved from env/stacks.toml by uv.

A lock is all that `pip install --no-deps -r <lock>` needs. Packages of `[unresolved]` are written in as pinned, the
rest is what uv finds for each Python of the stack, from wheels alone, so that nothing is built on an operator's host.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from env.stacks import Pin, Stack, StackError, facts, load_stack, stack_names

LOCKS = Path(__file__).resolve().parent / "locks"
MACHINES = ("x86_64", "aarch64")
# glibc 2.31 or newer: Debian 11, Ubuntu 20.04, openEuler 22.03. vLLM's wheels ask for it.
PLATFORM = "manylinux_2_31"
GENERATED = "# generated from env/stacks.toml by invoke lock"
ELSEWHERE = "# what the package index lacks: "  # env/install.py reads the pip options that follow

Versions = dict[str, str]


def write_locks() -> Iterator[Path]:
    """Resolve and write every lock, yielding each path when it is there. Needs the package index.

    Versions that nothing asks to change stay as the present lock has them; delete a lock to get the newest.
    Raises StackError where uv is missing or finds no solution.
    """
    # A stack that stands beside another comes after it: it builds on the other's lock.
    for name in sorted(stack_names(), key=lambda name: bool(load_stack(name).beside)):
        for machine in MACHINES:
            stack = load_stack(name)
            found = {python: _resolve(stack, python=python, machine=machine) for python in stack.python}
            path = lock_path(name, machine)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_render(stack, machine, found), encoding="utf-8")
            yield path


def lock_path(stack: str, machine: str) -> Path:
    """Where the lock of a stack for a machine (`x86_64`, `aarch64`) is."""
    return LOCKS / f"{stack}-{machine}.txt"


def digest(stack: str, machine: str) -> str:
    """sha256 of all that a lock is made from; it is in the lock's header, so that a stale lock can be told."""
    wanted = load_stack(stack)
    unresolved = facts()["unresolved"]
    source = {
        "python": wanted.python,
        "pins": [
            {key: value for key, value in asdict(pin).items() if key not in ("why", "match")}
            for pin in wanted.pins
            if any(pin.holds(python=python, machine=machine) for python in wanted.python)
        ],
        "without": wanted.without,
        "unresolved": {pin.name: unresolved[pin.name] for pin in wanted.pins if pin.name in unresolved},
        "indexes": facts()["indexes"],
        "beside": digest(wanted.beside, machine) if wanted.beside else "",
    }
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()


def locked(stack: str, *, python: str, machine: str) -> Versions:
    """What a lock holds for one Python, by canonical name."""
    environment = {"python_version": python, "platform_machine": machine, "sys_platform": "linux"}
    versions: Versions = {}
    for line in lock_path(stack, machine).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                (specifier,) = requirement.specifier
                versions[canonicalize_name(requirement.name)] = specifier.version
    return versions


def _resolve(stack: Stack, *, python: str, machine: str) -> Versions:
    """The lock's packages for one Python: first those that are not left to uv, then what uv finds."""
    at = (python, machine)
    unresolved: dict[str, list[str]] = facts()["unresolved"]
    pins = stack.pins_for(python=python, machine=machine)
    resolved = [pin for pin in pins if pin.name not in unresolved]
    as_pinned = {pin.name: pin.version for pin in pins if pin.name in unresolved and not pin.image}
    wanted = [_requirement(pin) for pin in resolved] + [need for name in as_pinned for need in unresolved[name]]
    image = [_requirement(pin) for pin in resolved if pin.image]
    dropped = [*unresolved, *stack.without]
    present = locked(stack.name, python=python, machine=machine) if lock_path(stack.name, machine).exists() else {}
    there = _beneath(stack, python=python, machine=machine)
    found = _compile(wanted, at, dropped=dropped, fixed=there, present=present)
    if image:
        there = _compile(image, at, dropped=dropped, fixed=found, present={})
    return {**as_pinned, **{name: version for name, version in found.items() if name not in there}}


def _beneath(stack: Stack, *, python: str, machine: str) -> Versions:
    """What the stack that this one stands beside has, and all that that one stands beside in turn."""
    if not stack.beside:
        return {}
    below = _beneath(load_stack(stack.beside), python=python, machine=machine)
    return {**below, **locked(stack.beside, python=python, machine=machine)}


def _compile(
    wanted: Iterable[str], at: tuple[str, str], *, dropped: Iterable[str], fixed: Versions, present: Versions
) -> Versions:
    """What uv resolves `wanted` to: `dropped` packages left out, `fixed` versions imposed, `present` ones preferred."""
    python, machine = at
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.txt" for name in ("wanted", "dropped", "fixed", "present")}
        files["wanted"].write_text("\n".join(wanted), encoding="utf-8")
        files["dropped"].write_text("\n".join(dropped), encoding="utf-8")
        for name, versions in (("fixed", fixed), ("present", present)):
            files[name].write_text("\n".join(f"{key}=={value}" for key, value in versions.items()), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "uv", "pip", "compile", str(files["wanted"])),
            *("--excludes", str(files["dropped"])),
            *("--constraints", str(files["fixed"])),
            *("--output-file", str(files["present"])),  # uv keeps to the versions it finds in there
            *("--python-version", python),
            *("--python-platform", f"{machine}-{PLATFORM}"),
            *("--only-binary", ":all:"),
            *("--no-header", "--no-annotate", "--no-config", "--quiet"),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            reason = f"cannot be resolved for Python {python} on {machine}:\n{result.stderr.strip()}"
            advice = f"pip install uv=={facts()['uv']}" if "No module named uv" in result.stderr else ""
            raise StackError("env/stacks.toml", reason, advice)
        return dict(line.split("==") for line in files["present"].read_text(encoding="utf-8").splitlines())


def _render(stack: Stack, machine: str, found: dict[str, Versions]) -> str:
    """The lock's text. A package that only some Pythons have, or in another version, gets a marker."""
    lines = [
        GENERATED,
        f"# stack {stack.name}, {machine}, Python {', '.join(stack.python)}, pins sha256:{digest(stack.name, machine)}",
        *_header(stack, machine),
        "",
    ]
    for name in dict.fromkeys(name for versions in found.values() for name in versions):
        pythons: dict[str, list[str]] = {}
        for python, versions in found.items():
            if name in versions:
                pythons.setdefault(versions[name], []).append(f"python_version == '{python}'")
        for version, markers in pythons.items():
            everywhere = len(markers) == len(found)
            lines.append(f"{name}=={version}" + ("" if everywhere else f" ; {' or '.join(markers)}"))
    return "\n".join(lines) + "\n"


def _header(stack: Stack, machine: str) -> Iterator[str]:
    """Where to find what the package index lacks, and what is not in the lock."""
    pins = [pin for pin in stack.pins if any(pin.holds(python=python, machine=machine) for python in stack.python)]
    options = [f"--extra-index-url {facts()['indexes'][pin.index]}" for pin in pins if pin.index and not pin.image]
    options += [f"--find-links {pin.wheel}" for pin in pins if pin.wheel]
    if options:
        yield ELSEWHERE + " ".join(options)
    brought = [pin.name for pin in pins if pin.image]
    if brought:
        yield f"# in the image {next(iter(stack.images.values()))} and therefore not here: {', '.join(brought)}"
        yield f"# with all they require, of which this was not resolved: {', '.join(stack.without)}"
    if stack.beside:
        yield f"# beside the lock of {stack.beside}, whose packages are not repeated"


def _requirement(pin: Pin) -> str:
    """The pin as the package index has it, without the local part of the version, which names a build."""
    return f"{pin.name}=={Version(pin.version).public}"

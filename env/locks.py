"""The locks, one for each stack, made by uv: what goes together on every Python and machine that the stack is for.

A lock is a file of requirements with the hashes of all their wheels, which pip takes as it is. What the package index
lacks, such as the CPU build of torch, is in there without hashes; env/install.py has pip install that apart.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement as Need
from packaging.utils import canonicalize_name
from packaging.version import Version

from env.install import (
    IMAGE_HAS,
    IMAGE_HEADER,
    INDEX_TORCH_NPU_HEADER,
    LOCKS,
    MACHINES,
    SOURCES_HEADER,
    Requirement,
    parse_lock,
    read_lock,
)
from env.stacks import Pin, Stack, StackError, load_stack, read_stacks, stack_names, tomllib

# glibc 2.31 or newer: Debian 11, Ubuntu 20.04, openEuler 22.03. vLLM's wheels ask for it.
WHEEL_PLATFORM = "manylinux_2_31"
UV_UNREACHABLE = "Failed to fetch"  # in uv's words, of what it could not get from the index
GENERATED = "# generated from env/stacks.toml by invoke dev.lock"


class IndexUnreachableError(StackError):
    """The package index, or the mirror that is set, does not answer."""


@dataclass(frozen=True)
class Target:
    """A Python (`3.11`) on a machine (`aarch64`), on which a lock is installed."""

    python: str
    machine: str


def write_locks() -> Iterator[Path]:
    """Resolve and write every lock, yielding each path when it is there. Needs the package index.

    Versions that nothing asks to change stay as the present lock has them; delete a lock to get the newest.
    Raises StackError where uv is missing, finds no solution, or a package has no wheel for one of the targets.
    """
    for name in sorted(stack_names(), key=lambda name: len(_beneath(load_stack(name)))):
        stack = load_stack(name)
        path = lock_path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(_render(stack, [*_unresolved(stack), *_resolved(stack)]), encoding="utf-8")
        yield path


def targets(stack: Stack) -> list[Target]:
    """The Pythons and machines that a stack is for."""
    return [Target(python, machine) for python in stack.python for machine in MACHINES]


def lock_path(stack: str) -> Path:
    """The path of a stack's lock, which need not exist."""
    return LOCKS / f"{stack}.txt"


def locked(stack: str, *, python: str, machine: str) -> dict[str, str]:
    """The versions that a lock has for one Python and machine, by canonical name."""
    return {
        canonicalize_name(requirement.name): requirement.version
        for requirement in read_lock(lock_path(stack), python, machine)
    }


def digest(stack: str) -> str:
    """sha256 of all that a lock is made from; it is in the lock's header, so that a stale lock can be told."""
    wanted = load_stack(stack)
    unresolved = read_stacks()["unresolved"]
    source = {
        "python": wanted.python,
        "pins": [
            {key: value for key, value in asdict(pin).items() if key not in ("why", "match")} for pin in wanted.pins
        ],
        "alternatives": {other.name: other.version for other in wanted.alternatives if other.setting},
        "unresolved": {pin.name: unresolved[pin.name] for pin in wanted.pins if pin.name in unresolved}
        | {name: [] for name in _left_out(wanted)},
        "indexes": read_stacks()["indexes"],
        "beneath": [digest(name) for name in _beneath(wanted)[-1:]],
    }
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()


def wheel_hashes(versions: dict[str, str], target: Target) -> dict[str, set[str]]:
    """The hashes (`sha256:…`), by package, of those wheels in the package index that the target can use.

    Raises StackError where uv is missing, or one of the packages has no such wheel.
    """
    if not versions:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pylock.toml"
        platform = ("--python-version", target.python, "--python-platform", f"{target.machine}-{WHEEL_PLATFORM}")
        wanted = [f"{name}=={version}" for name, version in versions.items()]
        _uv(wanted, *platform, "--no-deps", "--format", "pylock.toml", "--output-file", str(file))
        packages = tomllib.loads(file.read_text(encoding="utf-8"))["packages"]
    return {
        package["name"]: {f"sha256:{wheel['hashes']['sha256']}" for wheel in package["wheels"]} for package in packages
    }


def _beneath(stack: Stack) -> list[str]:
    """The stacks whose versions this one keeps to: what it stands beside or agrees with, at last, and what those do."""
    below = stack.beside or stack.agrees
    return [*_beneath(load_stack(below)), below] if below else []


def _unresolved(stack: Stack) -> list[Requirement]:
    """The pins that are taken as they are; with hashes, where the package index has them. In the order of the pins:
    torch comes first, so that a missing one fails at once."""
    pins = [pin for pin in stack.pins if pin.name in read_stacks()["unresolved"] and not pin.image]
    elsewhere = [Requirement(pin.name, pin.version, pin.when) for pin in pins if pin.index or pin.wheel]
    indexed = _compile([_requirement(pin) for pin in pins if not pin.index and not pin.wheel], stack, "--no-deps")
    names = [pin.name for pin in pins]
    return sorted([*elsewhere, *indexed], key=lambda one: names.index(one.name))


def _resolved(stack: Stack) -> list[Requirement]:
    """What the other pins take, and what the unresolved ones need, without what the image has or is beneath."""
    unresolved: dict[str, list[str]] = read_stacks()["unresolved"]
    pins = [pin for pin in stack.pins if pin.name not in unresolved]
    needs = [need for pin in stack.pins if not pin.image for need in unresolved.get(pin.name, ())]
    wanted = [*(_requirement(pin) for pin in pins if not pin.image), *dict.fromkeys(needs)]
    beneath = [one for name in _beneath(stack) for one in parse_lock(lock_path(name).read_text(encoding="utf-8"))]
    with tempfile.TemporaryDirectory() as folder:
        lists = {
            "excludes": [*unresolved, *_left_out(stack)],
            "constraints": [*(_requirement(pin) for pin in pins if pin.image), *map(_line, beneath)],
        }
        for name, lines in lists.items():
            Path(folder, name).write_text("\n".join(lines), encoding="utf-8")
        found = _compile(wanted, stack, *(word for name in lists for word in (f"--{name}", f"{folder}/{name}")))
    there = {target: {pin.name for pin in pins if pin.image} for target in targets(stack)}
    for target, names in there.items() if stack.beside else ():
        names.update(one.name for one in beneath if one.applies(target.python, target.machine))
    return [
        one
        for one in found
        if any(one.applies(at.python, at.machine) and one.name not in names for at, names in there.items())
    ]


def _left_out(stack: Stack) -> list[str]:
    """What resolved packages ask for and is meant to be unmet."""
    needs = [
        need for package, needs in stack.unmet.items() if package not in read_stacks()["unresolved"] for need in needs
    ]
    pinned = {pin.name for pin in stack.pins}
    return sorted({canonicalize_name(Need(need).name) for need in needs} - pinned)


def _requirement(pin: Pin) -> str:
    """The pin as the package index has it, without the local part of the version, which names a build."""
    return _line(Requirement(pin.name, Version(pin.version).public, pin.when))


def _line(requirement: Requirement) -> str:
    return f"{requirement.name}=={requirement.version}" + (f" ; {requirement.marker}" if requirement.marker else "")


def _compile(wanted: list[str], stack: Stack, *options: str) -> list[Requirement]:
    """What uv makes of `wanted` for every Python from the stack's oldest on, and every machine.

    Of all hashes only those of wheels that one of the targets can use are kept: pip shall take neither a source archive
    nor what is built for another system.
    """
    if not wanted:
        return []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        if (present := lock_path(stack.name)).exists():  # uv keeps to the versions it finds in its output
            output.write_text(present.read_text(encoding="utf-8"), encoding="utf-8")
        universal = ("--universal", "--python-version", stack.python[0], "--generate-hashes", "--no-annotate")
        _uv(wanted, *universal, "--no-header", *options, "--output-file", str(output))
        found = parse_lock(output.read_text(encoding="utf-8"))
    usable: dict[tuple[str, str], set[str]] = {}
    for target in targets(stack):
        versions = {one.name: one.version for one in found if one.applies(target.python, target.machine)}
        for name, hashes in wheel_hashes(versions, target).items():
            usable.setdefault((name, versions[name]), set()).update(hashes)
    return [
        replace(one, hashes=tuple(value for value in one.hashes if value in usable[one.name, one.version]))
        for one in found
        if (one.name, one.version) in usable
    ]


def _uv(wanted: Iterable[str], *options: str) -> None:
    """Run `uv pip compile` for wheels alone, so that nothing is built on an operator's host."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--only-binary", ":all:", "--no-config", "--quiet"]
    result = subprocess.run(
        [*command, *options],
        input="\n".join(wanted),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if UV_UNREACHABLE in result.stderr:
        reason = f"does not answer:\n{result.stderr.strip()}"
        raise IndexUnreachableError("the package index", reason, "set UV_DEFAULT_INDEX to a mirror")
    if result.returncode:
        advice = "python env/install.py cpu dev" if "No module named uv" in result.stderr else ""
        raise StackError("env/stacks.toml", f"cannot be resolved:\n{result.stderr.strip()}", advice)


def _render(stack: Stack, requirements: Iterable[Requirement]) -> str:
    """The lock's text: its header, then the requirements, each with its marker and hashes."""
    lines = [
        GENERATED,
        f"# stack {stack.name}, Python {', '.join(stack.python)}, pins sha256:{digest(stack.name)}",
        *_header(stack),
        "",
    ]
    lines += [" \\\n    ".join([_line(one), *(f"--hash={value}" for value in one.hashes)]) for one in requirements]
    return "\n".join(lines) + "\n"


def _header(stack: Stack) -> Iterator[str]:
    """Where to find what the package index lacks, and what is not in the lock."""
    pins = [pin for pin in stack.pins if not pin.image]
    options = [f"--extra-index-url {read_stacks()['indexes'][pin.index]}" for pin in pins if pin.index]
    options += [f"--find-links {pin.wheel}" for pin in pins if pin.wheel]
    if options:
        yield SOURCES_HEADER + " ".join(options)
        yield "# of which no hash is known; pip takes all with hashes or none, so env/install.py runs it twice"
    for other in stack.alternatives:
        if other.setting:
            (found,) = _compile([f"{other.name}=={other.version}"], stack, "--no-deps")
            yield INDEX_TORCH_NPU_HEADER + found.line()
    brought = dict.fromkeys(pin.name for pin in stack.pins if pin.image)
    if brought:
        yield f"{IMAGE_HEADER}{next(iter(stack.images.values()))}{IMAGE_HAS}{', '.join(brought)}"
    if stack.beside:
        yield f"# beside the lock of {stack.beside}, whose packages are not repeated"
    if stack.agrees:
        yield f"# what the lock of {stack.agrees} has, and those that it stands beside, is here in the same version"

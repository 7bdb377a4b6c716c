"""uv, which resolves the locks: what goes together, and what the package index's wheels look like."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from env.install import ABOVE, BENEATH, ELSEWHERE, INSTEAD, LOCKS, read_lock
from env.stacks import Pin, Stack, StackError, facts, load_stack, stack_names, tomllib

# glibc 2.31 or newer: Debian 11, Ubuntu 20.04, openEuler 22.03. vLLM's wheels ask for it.
PLATFORM = "manylinux_2_31"
UNREACHABLE = "Failed to fetch"  # in uv's words, of what it could not get from the index

Versions = dict[str, str]  # by package

MACHINES = ("x86_64", "aarch64")
GENERATED = "# generated from env/stacks.toml by invoke lock"

Hashes = dict[tuple[str, str], set[str]]  # by package and version


class IndexUnreachableError(StackError):
    """The package index does not answer."""


@dataclass(frozen=True)
class Target:
    """What a lock is for: a Python (`3.11`) on a machine (`aarch64`)."""

    python: str
    machine: str


def resolve(
    wanted: Iterable[str], target: Target, *, dropped: Iterable[str], fixed: Versions, present: Versions
) -> Versions:
    """All that `wanted` takes: `dropped` packages left out, `fixed` versions imposed, `present` ones preferred.

    Raises StackError where uv is missing or finds no solution.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.txt" for name in ("dropped", "fixed", "present")}
        files["dropped"].write_text("\n".join(dropped), encoding="utf-8")
        for name, versions in (("fixed", fixed), ("present", present)):
            files[name].write_text("\n".join(_exactly(versions)), encoding="utf-8")
        _uv(
            wanted,
            target,
            *("--excludes", str(files["dropped"])),
            *("--constraints", str(files["fixed"])),
            *("--output-file", str(files["present"])),  # uv keeps to the versions it finds in there
            *("--no-header", "--no-annotate"),
        )
        return dict(line.split("==") for line in files["present"].read_text(encoding="utf-8").splitlines())


def wheel_hashes(versions: Versions, target: Target) -> dict[str, tuple[str, ...]]:
    """The hashes (`sha256:…`), by package, of those wheels in the package index that the target can use.

    Raises StackError where uv is missing, or one of the packages has no such wheel.
    """
    if not versions:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pylock.toml"
        _uv(_exactly(versions), target, "--no-deps", *("--format", "pylock.toml"), *("--output-file", str(file)))
        packages = tomllib.loads(file.read_text(encoding="utf-8"))["packages"]
    return {
        package["name"]: tuple(sorted(f"sha256:{wheel['hashes']['sha256']}" for wheel in package["wheels"]))
        for package in packages
    }


def _exactly(versions: Versions) -> list[str]:
    return [f"{name}=={version}" for name, version in versions.items()]


def _uv(wanted: Iterable[str], target: Target, *options: str) -> None:
    """Run `uv pip compile` for wheels alone, so that nothing is built on an operator's host."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "-"),
        *("--python-version", target.python),
        *("--python-platform", f"{target.machine}-{PLATFORM}"),
        *("--only-binary", ":all:"),
        *("--no-config", "--quiet"),
        *options,
    ]
    result = subprocess.run(
        command, input="\n".join(wanted), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if UNREACHABLE in result.stderr:
        reason = f"does not answer:\n{result.stderr.strip()}"
        raise IndexUnreachableError("the package index", reason, "set UV_DEFAULT_INDEX to a mirror")
    if result.returncode:
        reason = f"cannot be resolved for Python {target.python} on {target.machine}:\n{result.stderr.strip()}"
        advice = "python env/install.py cpu dev" if "No module named uv" in result.stderr else ""
        raise StackError("env/stacks.toml", reason, advice)


def write_locks() -> Iterator[Path]:
    """Resolve and write every lock, yielding each path when it is there. Needs the package index.

    Versions that nothing asks to change stay as the present lock has them; delete a lock to get the newest.
    Raises StackError where uv is missing or finds no solution.
    """
    for name in sorted(stack_names(), key=lambda name: len(_beneath(load_stack(name)))):
        for machine in MACHINES:
            stack = load_stack(name)
            found = {python: _resolve(stack, Target(python, machine)) for python in stack.python}
            path = lock_path(name, machine)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_render(stack, machine, found, _hashes(stack, machine, found)), encoding="utf-8")
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
        "alternatives": {other.name: other.version for other in wanted.alternatives if other.setting},
        "unresolved": {pin.name: unresolved[pin.name] for pin in wanted.pins if pin.name in unresolved}
        | {name: [] for name in _left_out(wanted)},
        "indexes": facts()["indexes"],
        "beneath": [digest(name, machine) for name in _beneath(wanted)[-1:]],
    }
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()


def locked(stack: str, *, python: str, machine: str) -> Versions:
    """What a lock holds for one Python, by canonical name."""
    return {
        canonicalize_name(requirement.name): requirement.version
        for requirement in read_lock(lock_path(stack, machine), python)
    }


def _beneath(stack: Stack) -> list[str]:
    """The stacks whose versions this one keeps to: what it stands beside or agrees with, at last, and what those do."""
    below = stack.beside or stack.agrees
    return [*_beneath(load_stack(below)), below] if below else []


def _resolve(stack: Stack, target: Target) -> Versions:
    """The lock's packages for one Python: first those that are not left to the resolver, then what it finds."""
    python, machine = target.python, target.machine
    unresolved: dict[str, list[str]] = facts()["unresolved"]
    pins = stack.pins_for(python=python, machine=machine)
    resolved = [pin for pin in pins if pin.name not in unresolved]
    as_pinned = {pin.name: pin.version for pin in pins if pin.name in unresolved and not pin.image}
    wanted = [_requirement(pin) for pin in resolved if not pin.image]
    wanted += [need for name in as_pinned for need in unresolved[name]]
    image = {pin.name: Version(pin.version).public for pin in resolved if pin.image}
    present = locked(stack.name, python=python, machine=machine) if lock_path(stack.name, machine).exists() else {}
    beneath: Versions = {}
    for name in _beneath(stack):
        beneath |= locked(name, python=python, machine=machine)
    found = resolve(wanted, target, dropped=[*unresolved, *_left_out(stack)], fixed=beneath | image, present=present)
    there = {**(beneath if stack.beside else {}), **image}
    return {**as_pinned, **{name: version for name, version in found.items() if name not in there}}


def _left_out(stack: Stack) -> list[str]:
    """What resolved packages ask for and is meant to be unmet."""
    needs = [need for package, needs in stack.unmet.items() if package not in facts()["unresolved"] for need in needs]
    pinned = {pin.name for pin in stack.pins}
    return sorted({canonicalize_name(Requirement(need).name) for need in needs} - pinned)


def _hashes(stack: Stack, machine: str, found: dict[str, Versions]) -> Hashes:
    """What the package index says of all that comes from it."""
    known: Hashes = {}
    for python, versions in found.items():
        pins = stack.pins_for(python=python, machine=machine)
        elsewhere = {pin.name for pin in pins if pin.index or pin.wheel}
        indexed = {name: version for name, version in versions.items() if name not in elsewhere}
        chosen = {other.name: other.version for other in stack.alternatives if other.setting}
        for packages in (indexed, chosen):
            for name, values in wheel_hashes(packages, Target(python, machine)).items():
                known.setdefault((name, packages[name]), set()).update(values)
    return known


def _render(stack: Stack, machine: str, found: dict[str, Versions], hashes: Hashes) -> str:
    """The lock's text. A package that only some Pythons have, or in another version, gets a marker."""
    lines = [
        GENERATED,
        f"# stack {stack.name}, {machine}, Python {', '.join(stack.python)}, pins sha256:{digest(stack.name, machine)}",
        *_header(stack, machine, hashes),
        "",
    ]
    for name in dict.fromkeys(name for versions in found.values() for name in versions):
        pythons: dict[str, list[str]] = {}
        for python, versions in found.items():
            if name in versions:
                pythons.setdefault(versions[name], []).append(f"python_version == '{python}'")
        for version, markers in pythons.items():
            everywhere = len(markers) == len(found)
            line = f"{name}=={version}" + ("" if everywhere else f" ; {' or '.join(markers)}")
            lines.append(" \\\n    ".join([line, *_options(hashes, name, version)]))
    return "\n".join(lines) + "\n"


def _options(hashes: Hashes, name: str, version: str) -> list[str]:
    return [f"--hash={value}" for value in sorted(hashes.get((name, version), ()))]


def _header(stack: Stack, machine: str, hashes: Hashes) -> Iterator[str]:
    """Where to find what the package index lacks, and what is not in the lock."""
    pins = [pin for pin in stack.pins if any(pin.holds(python=python, machine=machine) for python in stack.python)]
    options = [f"--extra-index-url {facts()['indexes'][pin.index]}" for pin in pins if pin.index and not pin.image]
    options += [f"--find-links {pin.wheel}" for pin in pins if pin.wheel]
    if options:
        yield ELSEWHERE + " ".join(options)
        yield "# of which no hash is known; pip takes all with hashes or none, so env/install.py runs it twice"
    for other in stack.alternatives:
        if other.setting:
            hashed = _options(hashes, other.name, other.version)
            yield INSTEAD + " ".join([f"{other.name}=={other.version}", *hashed])
    brought = [pin.name for pin in pins if pin.image]
    if brought:
        yield f"{ABOVE}{next(iter(stack.images.values()))}{BENEATH}{', '.join(brought)}"
    if stack.beside:
        yield f"# beside the lock of {stack.beside}, whose packages are not repeated"
    if stack.agrees:
        yield f"# what the lock of {stack.agrees} has, and those that it stands beside, is here in the same version"


def _requirement(pin: Pin) -> str:
    """The pin as the package index has it, without the local part of the version, which names a build."""
    return f"{pin.name}=={Version(pin.version).public}"

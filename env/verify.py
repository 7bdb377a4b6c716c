"""Is a stack installed whole, and does it load? python env/verify.py npu

Two questions: does every package find what it asks for (`pip check`, apart from what env/stacks.toml lists as `unmet`),
and can every pinned package be imported. Runs where an image is built, without an NPU.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # Python put env/ there

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from env.errors import KitError
from env.install import InstallError, find_lock, read_lock, this_python
from env.sources import PROJECT
from env.stacks import Stack, installed_version, load_stack, stack_names

ALL_IMPORTED = "all imported"

# Each name is printed before it is imported, so that the last one printed is the one that failed. qwen_asr is imported
# as the kit does it: its own __init__ would ask for packages that are left out.
IMPORT_SCRIPT = f"""
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    if name == "qwen_asr":
        importlib.import_module("runtime.model.load").backend()
    else:
        importlib.import_module(name)
print("{ALL_IMPORTED}")
"""


# pip's words: pip/_internal/commands/check.py.
NOTHING_BROKEN = "No broken requirements found."
NOT_INSTALLED = re.compile(r"(?P<package>\S+) \S+ requires (?P<need>[^,]+), which is not installed\.")
WRONG_VERSION = re.compile(r"(?P<package>\S+) \S+ has requirement (?P<need>.+), but you have \S+ \S+\.")
WRONG_PLATFORM = re.compile(r"(?P<package>\S+) \S+ is not supported on this platform")


def modules_of(package: str) -> list[str]:
    """The public modules of an installed package, such as `attr` and `attrs`.

    They are read from the list of its files, down to the first package in a namespace (`google.protobuf`); from
    top_level.txt where the files are elsewhere, as in an editable installation.
    """
    distribution = importlib.metadata.distribution(package)
    found = set()
    for file in distribution.files or ():
        *folders, name = file.parts
        stem = name.split(".")[0]
        if name == "__init__.py":
            found.add(".".join(folders))
        elif not folders and any(name == stem + suffix for suffix in all_suffixes()):
            found.add(stem)
    outer = {name for name in found if not any(name.startswith(f"{other}.") for other in found)}
    top_level = (distribution.read_text("top_level.txt") or "").split()
    return sorted(filter(_is_public, outer)) or sorted(filter(_is_public, top_level))


def failed_imports(modules: list[str]) -> Iterator[tuple[str, str]]:
    """Import the modules in that order; yields each that fails, with the last line of its error.

    In a process of its own, since a library may end the process that loads it; in one for all, until one fails.
    """
    environment = {**os.environ, AUTOLOAD: "0"}
    while modules:
        result = subprocess.run(
            [sys.executable, "-c", IMPORT_SCRIPT, *modules],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        printed = [line for line in result.stdout.splitlines() if line in (*modules, ALL_IMPORTED)]
        if printed[-1:] == [ALL_IMPORTED]:
            return
        last = printed[-1] if printed else modules[0]
        yield last, _reason(result)
        modules = modules[modules.index(last) + 1 :]


def _reason(result: "subprocess.CompletedProcess[str]") -> str:
    if result.returncode < 0:
        return f"ended Python by {signal.Signals(-result.returncode).name}"
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended Python with exit code {result.returncode}"


def _is_public(module: str) -> bool:
    parts = module.split(".")
    return parts[0] not in ("test", "tests") and all(part.isidentifier() and part[0] != "_" for part in parts)


# torch_npu registers itself as soon as torch is imported, and brings torch down with it where CANN is missing. The kit
# imports it by hand, to say what is wrong.
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


@dataclass(frozen=True)
class PipProblem:
    """A line of `pip check`: `package` asks for `need`. Empty where pip does not say."""

    text: str
    package: str = ""
    need: str = ""

    def needed(self) -> str:
        """The name of the package that is asked for."""
        return canonicalize_name(Requirement(self.need).name) if self.need else ""

    def is_expected(self, package: str, need: str) -> bool:
        """Whether this is what an entry of `unmet`, a package and its need, describes."""
        if not self.need:
            return False
        this, that = Requirement(self.need), Requirement(need)
        return (self.package, self.needed(), this.specifier) == (package, canonicalize_name(that.name), that.specifier)


@dataclass(frozen=True)
class PipVerdict:
    """What `pip check` means for a stack.

    `expected`: listed in env/stacks.toml as unmet. `stale`: listed there, but no package asks for it any more.
    `foreign`: between packages that the stack's lock does not have, and so older than its installation; above the
    Python of an image also what the image's packages ask for, as they run beneath, where nothing has changed. `faults`:
    all else.
    """

    faults: list[str]
    expected: list[str]
    stale: list[str]
    foreign: list[str]


def main(arguments: list[str]) -> int:
    """Check a stack, print the result, and return the exit code."""
    parser = argparse.ArgumentParser(prog="env/verify.py", description="Is a stack installed whole, and does it load?")
    parser.add_argument("stack", choices=stack_names())
    stack = load_stack(parser.parse_args(arguments).stack)
    try:
        verdict = classify(stack, pip_check())
    except (KitError, InstallError) as error:
        print(f"env/verify.py: {error}", file=sys.stderr)
        return 1
    pinned = [pin.name for pin in stack.pins_for(python=this_python(), machine=platform.machine())]
    installed = [name for name in pinned if installed_version(name)]
    modules = [module for name in installed for module in modules_of(name)]
    faults = [f"{name} is not installed" for name in pinned if name not in installed] + verdict.faults
    faults += [f"import {module}: {reason}" for module, reason in failed_imports(modules)]
    for text in verdict.foreign:
        print(f"left alone, not of this stack: {text}")
    for text in verdict.stale:
        print(f"env/stacks.toml lists as unmet what is not: {text}")
    if faults:
        print(f"{stack.name}: {len(faults)} wrong", *faults, sep="\n  ", file=sys.stderr)
        return 1
    imported = f"{len(modules)} modules of {len(pinned)} pinned packages imported"
    print(f"{stack.name}: {imported}, {len(verdict.expected)} requirements unmet as listed")
    return 0


def pip_check() -> list[PipProblem]:
    """Run `pip check`: packages that are missing or in a wrong version. Raises KitError where there is no pip."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    lines = [line for line in result.stdout.splitlines() if line and line != NOTHING_BROKEN]
    if result.returncode and not lines:
        raise KitError("pip check", result.stderr.strip(), "give this Python a pip")
    return [read_problem(line) for line in lines]


def read_problem(line: str) -> PipProblem:
    """Parse a line of `pip check`. Of a missing package pip prints the name alone; the metadata has the version."""
    if match := WRONG_VERSION.fullmatch(line):
        return PipProblem(line, canonicalize_name(match["package"]), match["need"])
    if match := WRONG_PLATFORM.fullmatch(line):
        return PipProblem(line, canonicalize_name(match["package"]))
    if match := NOT_INSTALLED.fullmatch(line):
        for text in importlib.metadata.requires(match["package"]) or ():
            need = Requirement(text)
            if applies(text) and canonicalize_name(need.name) == canonicalize_name(match["need"]):
                return PipProblem(line, canonicalize_name(match["package"]), f"{need.name}{need.specifier}")
    return PipProblem(line)


def applies(need: str) -> bool:
    """Whether a requirement's marker, if it has one, holds on this Python and machine."""
    marker = Requirement(need).marker
    return not marker or marker.evaluate({"extra": ""})


def classify(stack: Stack, problems: list[PipProblem]) -> PipVerdict:
    """Sort the problems of `pip check`. Raises InstallError where the stack is not for this Python or machine."""
    locked = read_lock(find_lock(stack.name), this_python(), platform.machine())
    ours = {canonicalize_name(requirement.name) for requirement in locked}
    above = any(pin.image for pin in stack.pins)
    entries = [(package, need) for package, needs in stack.unmet.items() for need in needs if applies(need)]
    faults, expected, foreign = [], [], []
    for problem in problems:
        if any(problem.is_expected(*entry) for entry in entries):
            expected.append(problem.text)
        elif problem.package and problem.package not in ours and (above or problem.needed() not in ours):
            foreign.append(problem.text)
        else:
            faults.append(problem.text)
    met = [entry for entry in entries if not any(problem.is_expected(*entry) for problem in problems)]
    stale = [f"{package}: {need}" for package, need in met if package in ours]
    return PipVerdict(faults, expected, stale, foreign)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Install stacks into the Python that runs this: python env/install.py cpu dev

Uses the standard library alone, because it runs before anything is installed. What is installed comes from the locks in
env/locks; what is there already in the locked version is left alone, so that a second run returns at once.

pip verifies each file of the package index by the lock's hashes. Of what comes from elsewhere, such as the CPU build of
torch, no hash is known. pip's verification is all or nothing, so that goes in a run of its own.

TORCH_INDEX is a mirror of PyTorch's index of CPU wheels. All of pip's own variables count too: PIP_INDEX_URL for a
mirror of the package index, PIP_FIND_LINKS for a directory of wheels. ASR_TORCH_NPU=index takes torch-npu from the
package index.
"""

import importlib.metadata
import os
import platform
import re
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path

LOCKS = Path(__file__).resolve().parent / "locks"
MACHINES = ("x86_64", "aarch64")
SOURCES_HEADER = "# what the package index lacks: "
IMAGE_HEADER = "# above the Python of the image "  # docker/install-stack knows these words
IMAGE_HAS = ", which has: "
INDEX_TORCH_NPU_HEADER = "# with ASR_TORCH_NPU=index instead: "
TORCH_NPU = ("wheel", "index")  # as env/settings.py has them
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.*?))?(?P<hashes>(?: +--hash=\S+)*)")
# A marker's words, and what they are on the machines that the locks are for.
OPERATORS = {"==": eq, "!=": ne, "<=": le, ">=": ge, "<": lt, ">": gt}
MARKER_VERSIONS = ("python_version", "python_full_version")
MARKER_PLATFORM = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
MARKER_NAMES = "|".join(["platform_machine", *MARKER_VERSIONS, *MARKER_PLATFORM])
MARKER_COMPARISON = re.compile(rf"\b(?P<name>{MARKER_NAMES}) (?P<operator>[=!<>]=|[<>]) '(?P<value>[^']+)'")
NEWEST_PATCH = 99  # stands for the newest patch release of a Python
NO_DISTRIBUTION = "No matching distribution found"
HASH_MISMATCH = "DO NOT MATCH THE HASHES"
# How pip names a package in its output: from an index, from a directory of wheels (by its path), or there already.
PIP_FOUND = r"^(?:Collecting|Processing|Requirement already satisfied:) (?:\S*/)?([^=\s]+?)(?:-\d\S*)?[=\s]"
INDEX_ADVICE = (
    "If this host does not reach the package index, set PIP_INDEX_URL to a mirror (and TORCH_INDEX to one of PyTorch's "
    "CPU wheels), or PIP_FIND_LINKS to a directory of wheels. Then run the same command again."
)
HASH_ADVICE = (
    "A file is not the one that the lock was made with: where it comes from (PIP_INDEX_URL, PIP_FIND_LINKS) has built "
    "it anew, or is not to be trusted. Name another source, then run the same command again."
)


class InstallError(Exception):
    """Why a stack cannot be installed, and what to do."""


@dataclass(frozen=True)
class Requirement:
    """A package of a lock. `marker` says where it is installed, everywhere if empty; `hashes` are those of its wheels,
    such as `sha256:…`, none where they are not known."""

    name: str
    version: str
    marker: str = ""
    hashes: tuple[str, ...] = ()

    def applies(self, python: str, machine: str) -> bool:
        """Whether the marker is true of CPython (`3.11`) on Linux on that machine (`aarch64`).

        Raises InstallError for a marker that is not made of comparisons, `and`, `or` and parentheses alone.
        """
        truth = MARKER_COMPARISON.sub(lambda match: str(is_true(match, python, machine)), self.marker)
        if not re.fullmatch(r"(?:True|False|and|or|[() ])*", truth):
            raise InstallError(f"the lock has a marker that is not understood: {self.marker}")
        return not truth or bool(eval(truth))  # nothing but what the line above lets pass

    def line(self) -> str:
        """As pip reads it in a file of requirements, without the marker."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={value}" for value in self.hashes)])


def main(stacks: list[str]) -> int:
    """Install the stacks; returns the exit code."""
    try:
        locks = [find_lock(stack) for stack in stacks]
        if not locks:
            raise InstallError(f"name a stack: {', '.join(known_stacks())}")
        for lock in locks:
            check_image(lock)
        missing = [wanted for wanted in merge_locks(locks) if not is_installed(wanted)]
        if missing:
            began = time.monotonic()
            install(missing, locks)
            print(f"Installed {', '.join(lock.stem for lock in locks)} in {time.monotonic() - began:.0f} s.")
        return 0
    except InstallError as error:
        print(f"env/install.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nenv/install.py: interrupted; run it again to go on", file=sys.stderr)
        return 130


def find_lock(stack: str) -> Path:
    """The stack's lock for this machine. Raises InstallError if there is none, or none for this Python."""
    machine = platform.machine()
    if stack not in known_stacks():
        raise InstallError(f"there is no stack {stack!r}; choose from: {', '.join(known_stacks())}")
    lock = LOCKS / f"{stack}.txt"
    if platform.system() != "Linux" or machine not in MACHINES:
        raise InstallError(f"the {stack} stack is for Linux on x86_64 or aarch64, not {platform.system()} on {machine}")
    wanted = re.findall(r"\d+\.\d+", header(lock, r"# stack .* Python (.*), pins "))
    if this_python() not in wanted:
        here = f"this is {this_python()}: {sys.executable}"
        raise InstallError(f"the {stack} stack needs Python {' or '.join(wanted)}; {here}")
    return lock


def check_image(lock: Path) -> None:
    """Raises InstallError where the lock is for an environment above an image's Python, and this is not one."""
    image = header(lock, f"{IMAGE_HEADER}(.*){IMAGE_HAS}")
    packages = header(lock, f"{IMAGE_HEADER}.*{IMAGE_HAS}(.*)").split(", ")
    absent = [name for name in packages if name and not version_of(name)]
    if absent:
        raise InstallError(
            f"{lock.stem} goes above the Python of an image like {image}; here is no {', '.join(absent)}"
        )


def this_python() -> str:
    """Version of the Python that runs this, such as `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def known_stacks() -> list[str]:
    """Names of the stacks that have a lock, sorted."""
    return sorted(path.stem for path in LOCKS.glob("*.txt"))


def header(lock: Path, pattern: str) -> str:
    """What the pattern's group matches in the lock's comments; empty if nothing."""
    found = re.search(f"^{pattern}", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def read_lock(lock: Path, python: str, machine: str) -> list[Requirement]:
    """What a lock has for one Python (`3.11`) and machine (`aarch64`)."""
    found = parse_lock(lock.read_text(encoding="utf-8"))
    return [requirement for requirement in found if requirement.applies(python, machine)]


def parse_lock(text: str) -> list[Requirement]:
    """All that a lock's text states, whatever Python and machine it is for."""
    matches = map(REQUIREMENT.fullmatch, text.replace("\\\n", "").splitlines())
    return [
        Requirement(
            match["name"], match["version"], match["marker"] or "", tuple(re.findall(r"--hash=(\S+)", match["hashes"]))
        )
        for match in matches
        if match
    ]


def is_true(comparison: "re.Match[str]", python: str, machine: str) -> bool:
    """Whether a comparison of a marker is true. Of a Python such as `3.11` the newest patch release counts."""
    name, value = comparison["name"], comparison["value"]
    compare = OPERATORS[comparison["operator"]]
    if name not in MARKER_VERSIONS:
        return bool(compare({**MARKER_PLATFORM, "platform_machine": machine}[name], value))
    here, there = (tuple(map(int, re.findall(r"\d+", re.split(r"[^\d.]", text)[0]))) for text in (python, value))
    if value.endswith(".*"):
        here = here[: len(there)]
    elif name == "python_full_version":
        here = (*here, NEWEST_PATCH)
    return bool(compare(here, there))


def merge_locks(locks: list[Path]) -> list[Requirement]:
    """What the locks hold for this Python and machine, with the torch-npu that ASR_TORCH_NPU chooses.

    Raises InstallError for a value that this cannot have, and where the locks cannot be in one Python.
    """
    choice = os.environ.get("ASR_TORCH_NPU", "")
    if choice and choice not in TORCH_NPU:
        raise InstallError(f"ASR_TORCH_NPU: {choice!r} is not allowed, expected {' or '.join(TORCH_NPU)}")
    found: dict[str, Requirement] = {}
    for lock in locks:
        chosen = parse_lock(header(lock, f"{INDEX_TORCH_NPU_HEADER}(.*)")) if choice == "index" else []
        replacements = {requirement.name: requirement for requirement in chosen}
        for locked in read_lock(lock, this_python(), platform.machine()):
            wanted = replacements.get(locked.name, locked)
            there = found.setdefault(wanted.name, wanted)
            if there.version != wanted.version:
                both = f"{there.name} {there.version} and {wanted.version}"
                raise InstallError(f"{' and '.join(lock.stem for lock in locks)} cannot be in one Python: {both}")
    return list(found.values())


def is_installed(wanted: Requirement) -> bool:
    """Whether the package is there in that very version. Leading zeros, as in 2026.01.05, mean nothing in a version."""
    return re.sub(r"(?<![\w+])0+(?=\d)", "", version_of(wanted.name).lower()) == wanted.version


def version_of(name: str) -> str:
    """The version of a package, in whatever form; empty where it is not installed, or the installation was cut off."""
    try:
        return importlib.metadata.version(name) or ""
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return ""


def install(missing: list[Requirement], locks: list[Path]) -> None:
    """Let pip install what is missing. Raises InstallError with pip's own words if it cannot.

    What the package index lacks, such as the CPU build of torch, may still be in a mirror or a directory of wheels that
    pip is configured with. Only if it is not, pip is sent to where the lock says it is.
    """
    sources = " ".join(header(lock, f"{SOURCES_HEADER}(.*)") for lock in locks).split()  # options of pip
    mirror = os.environ.get("TORCH_INDEX", "")
    if mirror and "--extra-index-url" in sources:
        sources[sources.index("--extra-index-url") + 1] = mirror
    unverified = [wanted for wanted in missing if not wanted.hashes]
    errors = run_pip(unverified, sources if mirror else [])
    if NO_DISTRIBUTION in errors and sources and not mirror:
        print(f"Not in the package index; looking in {' '.join(sources[1::2])}")
        errors = run_pip(unverified, sources)
    errors = errors or run_pip([wanted for wanted in missing if wanted.hashes], ["--require-hashes"])
    if errors:
        advice = HASH_ADVICE if HASH_MISMATCH in errors else INDEX_ADVICE
        raise InstallError(f"pip could not install {', '.join(lock.stem for lock in locks)}:\n{errors}\n{advice}")


def run_pip(wanted: list[Requirement], options: list[str]) -> str:
    """Run pip, showing how far it is; returns its error output if it failed, else an empty text."""
    if not wanted:
        return ""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-color", "--progress-bar", "off"]
    # Whatever an index offers instead of a wheel would be built here, and so run: all that the locks name has wheels.
    command += ["--only-binary", ":all:", *options]
    if sys.prefix != sys.base_prefix:
        # In a virtual environment Python compiles what it imports when it first does, a fraction of all there is. An
        # image's files may be read-only later, so there pip compiles them.
        command.append("--no-compile")
    progress = PipProgress(len(wanted))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(requirement.line() for requirement in wanted), encoding="utf-8")
        with (
            subprocess.Popen([*command, "--requirement", str(file)], stdout=subprocess.PIPE, stderr=errors) as pip,
            selectors.DefaultSelector() as ready,
        ):
            assert pip.stdout is not None
            ready.register(pip.stdout, selectors.EVENT_READ)
            text = b"start"
            while text:
                text = os.read(pip.stdout.fileno(), 65536) if ready.select(timeout=1) else b" "
                progress.follow(text.decode(errors="replace"))
        progress.end()
        errors.seek(0)
        return (errors.read().strip() or f"pip ended with exit code {pip.returncode}") if pip.returncode else ""


class PipProgress:
    """How far pip is, told from its output: one line rewritten on a terminal, elsewhere a plain line now and then."""

    def __init__(self, packages: int) -> None:
        self.packages, self.found = packages, 0
        self.all = f"{packages} package{'s' * (packages != 1)}"
        self.stage = f"Fetching {self.all}"
        self.began = self.shown = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.show(self.stage)

    def follow(self, output: str) -> None:
        """Take in what pip wrote since the last call, which may be nothing."""
        new = re.findall(PIP_FOUND, output, re.MULTILINE)
        self.found += len(new)
        stage = self.stage
        if new:
            stage = f"Fetching package {self.found} of {self.packages}: {new[-1]}"
        if "Installing collected packages" in output:
            stage = f"Installing {self.all}"
        now = time.monotonic()
        if self.terminal or now - self.shown > 15 or (stage != self.stage and stage.startswith("Installing")):
            self.show(f"{stage} ({now - self.began:.0f} s)")
        self.stage = stage

    def show(self, text: str) -> None:
        """Print a line: over the last one on a terminal."""
        self.shown = time.monotonic()
        print(f"\r\033[K{text}" if self.terminal else text, end="" if self.terminal else "\n", flush=True)

    def end(self) -> None:
        """Clear the line, so that what comes next starts afresh."""
        if self.terminal:
            print("\r\033[K", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

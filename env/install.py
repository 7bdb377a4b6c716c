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
from pathlib import Path

LOCKS = Path(__file__).resolve().parent / "locks"
ELSEWHERE = "# what the package index lacks: "
ABOVE = "# above the Python of the image "  # docker/install-stack knows these words
BENEATH = ", which has: "
INSTEAD = "# with ASR_TORCH_NPU=index instead: "
TORCH_NPU = ("wheel", "index")  # as env/settings.py has them
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.*?))?(?P<hashes>(?: +--hash=\S+)*)")
MISSING = "No matching distribution found"
MISMATCH = "DO NOT MATCH THE HASHES"
# How pip tells of a package: from an index, from a directory of wheels (by its path), or there already.
FOUND = r"^(?:Collecting|Processing|Requirement already satisfied:) (?:\S*/)?([^=\s]+?)(?:-\d\S*)?[=\s]"
ADVICE = (
    "If this host does not reach the package index, set PIP_INDEX_URL to a mirror (and TORCH_INDEX to one of PyTorch's "
    "CPU wheels), or PIP_FIND_LINKS to a directory of wheels. Then run the same command again."
)
DOUBT = (
    "A file is not the one that the lock was made with: where it comes from (PIP_INDEX_URL, PIP_FIND_LINKS) has built "
    "it anew, or is not to be trusted. Name another source, then run the same command again."
)


class InstallError(Exception):
    """Why a stack cannot be installed, and what to do."""


@dataclass(frozen=True)
class Requirement:
    """A package of a lock. `hashes` are those of its wheels, such as `sha256:…`; none where they are not known."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()

    def line(self) -> str:
        """As in a file of requirements."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={value}" for value in self.hashes)])


def main(stacks: list[str]) -> int:
    """Install the stacks; returns the exit code."""
    try:
        locks = [find_lock(stack) for stack in stacks]
        if not locks:
            raise InstallError(f"name a stack: {', '.join(known_stacks())}")
        for lock in locks:
            check_beneath(lock)
        missing = [wanted for wanted in together(locks) if not is_installed(wanted)]
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
    lock = LOCKS / f"{stack}-{machine}.txt"
    if platform.system() != "Linux" or not lock.exists():
        raise InstallError(f"the {stack} stack is for Linux on x86_64 or aarch64, not {platform.system()} on {machine}")
    wanted = re.findall(r"\d+\.\d+", header(lock, r"# stack .* Python (.*), pins "))
    if this_python() not in wanted:
        here = f"this is {this_python()}: {sys.executable}"
        raise InstallError(f"the {stack} stack needs Python {' or '.join(wanted)}; {here}")
    return lock


def check_beneath(lock: Path) -> None:
    """Raises InstallError where the lock is for an environment above an image's Python, and this is not one."""
    image, beneath = header(lock, f"{ABOVE}(.*){BENEATH}"), header(lock, f"{ABOVE}.*{BENEATH}(.*)")
    absent = [name for name in beneath.split(", ") if name and not version_of(name)]
    if absent:
        raise InstallError(
            f"{lock.stem} goes above the Python of an image like {image}; here is no {', '.join(absent)}"
        )


def this_python() -> str:
    """Such as `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def known_stacks() -> list[str]:
    """The stacks that have a lock."""
    return sorted({path.stem.rpartition("-")[0] for path in LOCKS.glob("*-*.txt")})


def header(lock: Path, pattern: str) -> str:
    """What the pattern's group matches in the lock's comments; empty if nothing."""
    found = re.search(f"^{pattern}", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def read_lock(lock: Path, python: str) -> list[Requirement]:
    """What a lock holds for one Python (`3.11`)."""
    lines = lock.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    return [wanted for line in lines for wanted in parse(line, python)]


def parse(line: str, python: str) -> list[Requirement]:
    """The requirement that a line states, if it does and it counts on that Python; else nothing."""
    match = REQUIREMENT.fullmatch(line)
    if not match or (match["marker"] and f"python_version == '{python}'" not in match["marker"]):
        return []
    return [Requirement(match["name"], match["version"], tuple(re.findall(r"--hash=(\S+)", match["hashes"])))]


def together(locks: list[Path]) -> list[Requirement]:
    """What the locks hold for this Python, with the torch-npu that ASR_TORCH_NPU chooses.

    Raises InstallError for a value that this cannot have, and where the locks cannot be in one Python.
    """
    choice = os.environ.get("ASR_TORCH_NPU", "")
    if choice and choice not in TORCH_NPU:
        raise InstallError(f"ASR_TORCH_NPU: {choice!r} is not allowed, expected {' or '.join(TORCH_NPU)}")
    found: dict[str, Requirement] = {}
    for lock in locks:
        chosen = parse(header(lock, f"{INSTEAD}(.*)"), this_python()) if choice == "index" else []
        instead = {requirement.name: requirement for requirement in chosen}
        for locked in read_lock(lock, this_python()):
            wanted = instead.get(locked.name, locked)
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
    elsewhere = " ".join(header(lock, f"{ELSEWHERE}(.*)") for lock in locks).split()
    mirror = os.environ.get("TORCH_INDEX", "")
    if mirror and "--extra-index-url" in elsewhere:
        elsewhere[elsewhere.index("--extra-index-url") + 1] = mirror
    unverified = [wanted for wanted in missing if not wanted.hashes]
    errors = run_pip(unverified, elsewhere if mirror else [])
    if MISSING in errors and elsewhere and not mirror:
        print(f"Not in the package index; looking in {' '.join(elsewhere[1::2])}")
        errors = run_pip(unverified, elsewhere)
    errors = errors or run_pip([wanted for wanted in missing if wanted.hashes], ["--require-hashes"])
    if errors:
        advice = DOUBT if MISMATCH in errors else ADVICE
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
        self.began = self.told = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.tell(self.stage)

    def follow(self, output: str) -> None:
        """Take in what pip wrote since the last call, which may be nothing."""
        new = re.findall(FOUND, output, re.MULTILINE)
        self.found += len(new)
        stage = self.stage
        if new:
            stage = f"Fetching package {self.found} of {self.packages}: {new[-1]}"
        if "Installing collected packages" in output:
            stage = f"Installing {self.all}"
        now = time.monotonic()
        if self.terminal or now - self.told > 15 or (stage != self.stage and stage.startswith("Installing")):
            self.tell(f"{stage} ({now - self.began:.0f} s)")
        self.stage = stage

    def tell(self, text: str) -> None:
        """Show a line."""
        self.told = time.monotonic()
        print(f"\r\033[K{text}" if self.terminal else text, end="" if self.terminal else "\n", flush=True)

    def end(self) -> None:
        """Clear the line, so that what comes next starts afresh."""
        if self.terminal:
            print("\r\033[K", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

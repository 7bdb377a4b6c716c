"""Install stacks into the Python that runs this: python env/install.py cpu dev

Uses the standard library alone, because it runs before anything is installed. What is installed comes from the locks in
env/locks; a stamp in the Python's prefix makes a second run return at once.

TORCH_INDEX is a mirror of PyTorch's index of CPU wheels. All of pip's own variables count too: PIP_INDEX_URL for a
mirror of the package index, PIP_FIND_LINKS for a directory of wheels.
"""

import hashlib
import json
import os
import platform
import re
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOCKS = Path(__file__).resolve().parent / "locks"
STAMP = Path(sys.prefix) / "qwen3-asr-stacks.json"
ELSEWHERE = "# what the package index lacks: "
MISSING = "No matching distribution found"
# How pip tells of a package: from an index, from a directory of wheels (by its path), or there already.
FOUND = r"^(?:Collecting|Processing|Requirement already satisfied:) (?:\S*/)?([^=\s]+?)(?:-\d\S*)?[=\s]"
ADVICE = (
    "If this host does not reach the package index, set PIP_INDEX_URL to a mirror (and TORCH_INDEX to one of PyTorch's "
    "CPU wheels), or PIP_FIND_LINKS to a directory of wheels. Then run the same command again."
)


class InstallError(Exception):
    """Why a stack cannot be installed, and what to do."""


def main(stacks: list[str]) -> int:
    """Install the stacks; returns the exit code."""
    try:
        locks = [find_lock(stack) for stack in stacks]
        if not locks:
            raise InstallError(f"name a stack: {', '.join(known_stacks())}")
        stamp = {lock.name: hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks}
        if stamp.items() <= read_stamp().items():
            return 0
        # Whatever happens from here on, what is installed is no longer what the stamp says.
        STAMP.unlink(missing_ok=True)
        began = time.monotonic()
        install(locks)
        STAMP.write_text(json.dumps(stamp), encoding="utf-8")
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
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here not in wanted:
        raise InstallError(f"the {stack} stack needs Python {' or '.join(wanted)}; this is {here}: {sys.executable}")
    return lock


def known_stacks() -> list[str]:
    """The stacks that have a lock."""
    return sorted({path.stem.rpartition("-")[0] for path in LOCKS.glob("*-*.txt")})


def header(lock: Path, pattern: str) -> str:
    """What the pattern's group matches in the lock's comments; empty if nothing."""
    found = re.search(f"^{pattern}", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def read_stamp() -> dict[str, str]:
    """What the last run installed; empty if that is not known."""
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def install(locks: list[Path]) -> None:
    """Let pip install the locks. Raises InstallError with pip's own words if it cannot.

    What the package index lacks, such as the CPU build of torch, may still be in a mirror or a directory of wheels that
    pip is configured with. Only if it is not, pip is sent to where the lock says it is.
    """
    elsewhere = " ".join(header(lock, f"{ELSEWHERE}(.*)") for lock in locks).split()
    mirror = os.environ.get("TORCH_INDEX", "")
    if mirror and "--extra-index-url" in elsewhere:
        elsewhere[elsewhere.index("--extra-index-url") + 1] = mirror
    errors = run_pip(locks, elsewhere if mirror else [])
    if MISSING in errors and elsewhere and not mirror:
        print(f"Not in the package index; looking in {' '.join(elsewhere[1::2])}")
        errors = run_pip(locks, elsewhere)
    if errors:
        raise InstallError(f"pip could not install {', '.join(lock.stem for lock in locks)}:\n{errors}\n{ADVICE}")


def run_pip(locks: list[Path], options: list[str]) -> str:
    """Run pip, showing how far it is; returns its error output if it failed, else an empty text."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-color", "--progress-bar", "off", *options]
    for lock in locks:
        command += ["--requirement", str(lock)]
    if sys.prefix != sys.base_prefix:
        # In a virtual environment Python compiles what it imports when it first does, a fraction of all there is. An
        # image's files may be read-only later, so there pip compiles them.
        command.append("--no-compile")
    progress = Progress(sum(count_packages(lock) for lock in locks))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as pip,
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


def count_packages(lock: Path) -> int:
    """How many packages of the lock are for this Python."""
    here = f"python_version == '{sys.version_info.major}.{sys.version_info.minor}'"
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return sum(";" not in line or here in line for line in lines)


class Progress:
    """How far pip is, told from its output: one line rewritten on a terminal, elsewhere a plain line now and then."""

    def __init__(self, packages: int) -> None:
        self.packages, self.found, self.stage = packages, 0, f"Fetching {packages} packages"
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
            stage = f"Installing {self.packages} packages"
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

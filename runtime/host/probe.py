"""A host as the doctor sees it: files, states of paths and answers, nothing else.

On this host (`root` is /) files are read and commands run. With any other root nothing of this host is looked at: files
are those under the root, and answers are those recorded in `commands/<name>.txt` there. What has no record is a fault,
"not recorded". A `Host` keeps all that it saw, so that a support bundle, which is such a root, holds whatever the
doctor needs to come to the same findings.
"""

import contextlib
import errno
import fnmatch
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from env.errors import UsageError
from env.sources import PROJECT
from runtime.host.processes import describe_exit

RECORDS = "commands"
PATHS_RECORD = "paths.txt"  # in RECORDS: a line for each path whose state was asked for
NOT_FOUND = "not found"
NOT_RECORDED = "not recorded"
COMMAND_TIMEOUT = 20.0  # seconds for a command; npu-smi takes about two on eight NPUs
MAX_LINKS = 40  # as Linux
SHOWN_COMMAND_LETTERS = 60  # letters of a command that is waited for

FAULT = re.compile(r"\A# fault: (.*)\n?")
PATH_LINE = re.compile(r"^([a-z ]+?) +([0-7]{3,4}) +(\d+) +(\d+) +(/.*)$", re.MULTILINE)

Kind = Literal["missing", "unreadable", "file", "device", "directory", "empty directory"]


def ignore_wait(_: str) -> None:
    """Nobody wants to know what is waited for."""


@dataclass(frozen=True)
class PathState:
    """What a path is, following links: its permission bits, and its owner and group by number."""

    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0

    @property
    def there(self) -> bool:
        """Whether there is something: Docker makes an empty directory of a mount's source that is not there."""
        return self.kind in ("file", "device", "directory")


@dataclass(frozen=True)
class CommandResult:
    """What a command printed. `fault` says why that is nothing to go by; empty if the command succeeded."""

    output: str
    fault: str = ""

    @property
    def text(self) -> str:
        """As it is recorded."""
        return f"# fault: {self.fault}\n{self.output}" if self.fault else self.output

    @classmethod
    def parse(cls, text: str) -> "CommandResult":
        """From a record."""
        found = FAULT.match(text)
        return cls(text[found.end() :], found[1]) if found else cls(text)


class Host:
    """This host, or another one's files under a root. Raises UsageError where the root is no directory.

    `on_wait` hears what is waited for: of which check (`subject`), and which command or server is asked.
    """

    def __init__(self, root: Path = Path("/"), *, on_wait: Callable[[str], None] = ignore_wait) -> None:
        if not root.is_dir():
            advice = f"unpack it: tar -xzf {root}" if root.is_file() else ""
            raise UsageError("--root", f"{root} is no directory", advice)
        self.root = root.resolve()
        self.live = self.root == Path("/")
        self.texts: dict[str, str] = {}
        self.states: dict[str, PathState] = {} if self.live else self._recorded_states()
        self.answers: dict[str, CommandResult] = {}
        self.subject, self._on_wait = "this host", on_wait

    def wait_for(self, what: str) -> None:
        """The check now waits for this, which may take a while."""
        self._on_wait(f"{self.subject}: {what}" if what else self.subject)

    def text(self, path: str) -> str:
        """The content of a file; empty where it cannot be read."""
        if path not in self.texts:
            try:
                self.texts[path] = self._find(path).read_text(encoding="utf-8", errors="replace")
            except OSError:
                return ""
        return self.texts[path]

    def state(self, path: str) -> PathState:
        """What a path is."""
        if path not in self.states:
            try:
                self.states[path] = _path_state(self._find(path))
            except (FileNotFoundError, NotADirectoryError):
                self.states[path] = PathState("missing")
            except OSError:
                self.states[path] = PathState("unreadable")
        return self.states[path]

    def matches(self, pattern: str) -> list[str]:
        """The paths that match a pattern whose last part may have wildcards, in order of name."""
        folder, _, name = pattern.rpartition("/")
        with contextlib.suppress(OSError):
            for entry in self._find(folder).iterdir():
                if fnmatch.fnmatchcase(entry.name, name):
                    self.state(f"{folder}/{entry.name}")
        known = fnmatch.filter(self.states, pattern)
        return sorted(path for path in known if "/" not in path[len(folder) + 1 :] and self.state(path).there)

    def ask(self, name: str, call: Callable[[], CommandResult]) -> CommandResult:
        """What `call` answers on this host, or what is recorded under `name`; asked once."""
        if name not in self.answers:
            self.answers[name] = call() if self.live else self._recorded(name)
        return self.answers[name]

    def run(self, name: str, command: Sequence[str], *, seconds: float = COMMAND_TIMEOUT) -> CommandResult:
        """What a command answers. One that is not there, fails, or takes longer than `seconds` is a fault."""

        def call() -> CommandResult:
            typed = shlex.join([Path(command[0]).name, *command[1:]])
            self.wait_for(f"{typed[:SHOWN_COMMAND_LETTERS]}, {seconds:g} s at most")
            answer = run_command(command, seconds=seconds)
            self.wait_for("")
            return answer

        return self.ask(name, call)

    def _find(self, path: str) -> Path:
        """Where `path` is under the root: links, absolute ones too, stay inside. Raises OSError if they go round."""
        found, todo, links = self.root, [part for part in path.split("/") if part], 0
        while todo:
            part = todo.pop(0)
            if part in (".", ".."):
                found = found if part == "." or found == self.root else found.parent
                continue
            step = found / part
            if step.is_symlink():
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = str(step.readlink())
                found = self.root if target.startswith("/") else found
                todo[:0] = [part for part in target.split("/") if part]
            else:
                found = step
        return found

    def _recorded(self, name: str) -> CommandResult:
        try:
            text = (self.root / RECORDS / f"{name}.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return CommandResult("", NOT_RECORDED)
        return CommandResult.parse(text)

    def _recorded_states(self) -> dict[str, PathState]:
        with contextlib.suppress(OSError):
            return parse_states((self.root / RECORDS / PATHS_RECORD).read_text(encoding="utf-8", errors="replace"))
        return {}


def states_text(states: dict[str, PathState]) -> str:
    """States as they are recorded: kind, permission bits, owner, group, path."""
    return "".join(f"{s.kind} {s.mode:03o} {s.uid} {s.gid} {path}\n" for path, s in sorted(states.items()))


def parse_states(text: str) -> dict[str, PathState]:
    """States from their record."""
    found = PATH_LINE.findall(text)
    return {path: PathState(kind, int(mode, 8), int(uid), int(gid)) for kind, mode, uid, gid, path in found}


def _path_state(path: Path) -> PathState:
    found = path.stat()
    kind: Kind = "file"
    if stat.S_ISDIR(found.st_mode):
        kind = "directory" if any(path.iterdir()) else "empty directory"
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        kind = "device"
    return PathState(kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def run_command(command: Sequence[str], *, seconds: float) -> CommandResult:
    """Run a command of this host in the project's root, in English, without a terminal."""
    if not shutil.which(command[0]):
        return CommandResult("", NOT_FOUND)
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # The whole group, by its id. A process that hangs in a driver cannot be killed, and is not waited for.
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return CommandResult("", f"no answer within {seconds:g} s")
    if process.returncode == 0:
        return CommandResult(output)
    last = next((line for text in (errors, output) for line in reversed(text.splitlines()) if line.strip()), "")
    ending = describe_exit(process.returncode)
    ending = ending if process.returncode > 0 else f"ended by {ending}"
    return CommandResult(output, f"{ending}{': ' if last else ''}{last.strip()}")

"""The processes of a vLLM that the kit has started: its API server, which leads a session of its own, and the rest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.host.processes import ProcessHandle

PARENT, GROUP = 1, 2  # of the fields after the command's name in /proc/<pid>/stat, see proc(5)
ENGINE = "VLLM::EngineCore"  # how vLLM names the process that has the model


@dataclass(frozen=True)
class Entry:
    """A process among all."""

    process: ProcessHandle
    parent: int
    group: int
    command: str


def vllms(kit: int) -> list[ProcessHandle]:
    """The API servers that the kit with this pid has started."""
    return [entry.process for entry in _entries() if entry.parent == kit and entry.group == entry.process.pid]


def group(leader: ProcessHandle) -> list[Entry]:
    """All that an API server has started, and itself."""
    return [entry for entry in _entries() if entry.group == leader.pid]


def engine_core(leader: ProcessHandle) -> ProcessHandle:
    """The process that has the model."""
    (found,) = (entry.process for entry in group(leader) if entry.command.startswith(ENGINE))
    return found


def _entries() -> Iterator[Entry]:
    """Every process that lives."""
    for directory in Path("/proc").glob("[0-9]*"):
        pid = int(directory.name)
        try:
            process = ProcessHandle.of(pid)
            _, _, fields = (directory / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            command = (directory / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
        except OSError:  # it has ended meanwhile
            continue
        if process.alive:
            words = fields.split()
            yield Entry(process, int(words[PARENT]), int(words[GROUP]), command)

"""The processes of a vLLM that the kit has started: its API server, which leads a session of its own, and the rest."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from runtime.host.processes import ProcessHandle

ENGINE = "VLLM::EngineCore"  # how vLLM names the process that has the model


@dataclass(frozen=True)
class Entry:
    """A process among all."""

    process: ProcessHandle
    parent: int
    group: int
    command: str


def vllms(kit: int) -> list[ProcessHandle]:
    """The API servers that the kit with this pid has started, apart from its helpers, which lead sessions, too."""
    leaders = (entry for entry in _entries() if entry.parent == kit and entry.group == entry.process.pid)
    return [entry.process for entry in leaders if "launcher.py" in entry.command]


def group(leader: ProcessHandle) -> list[Entry]:
    """All that an API server has started, and itself."""
    return [entry for entry in _entries() if entry.group == leader.pid]


def engine_core(leader: ProcessHandle) -> ProcessHandle:
    """The process that has the model."""
    (found,) = (entry.process for entry in group(leader) if entry.command.startswith(ENGINE))
    return found


def _entries() -> Iterator[Entry]:
    """Every process that lives."""
    for found in psutil.process_iter():
        try:
            process = ProcessHandle.of(found.pid)
            entry = Entry(process, found.ppid(), os.getpgid(found.pid), " ".join(found.cmdline()))
        except (OSError, psutil.Error):  # it has ended meanwhile
            continue
        if process.alive:
            yield entry

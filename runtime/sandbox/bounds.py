"""What a call in a helper process may take, and how it fails."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HelperLimits:
    """`memory` is address space in bytes, beyond what a helper starts with; `output` the bytes that it may write.

    `cpu_seconds` of work may be had before a task earns more, as `runtime.sandbox.template.Work.earn` has it; `seconds`
    is how long the call may take once it has its turn, whatever else the machine does.
    """

    memory: int
    output: int
    cpu_seconds: float
    seconds: float


class ExceededError(Exception):
    """A call that went beyond its bounds, or crashed its helper; says so in words that follow a file's name."""


class UnavailableError(OSError):
    """No helper can be had, for want of memory, processes or descriptors; the file is not at fault."""


class CancelledError(Exception):
    """A call that was cancelled."""


class RefusedError(Exception):
    """What a task has raised: the name of the exception's class, and its arguments."""

    def __init__(self, kind: str, arguments: tuple[str, ...]) -> None:
        super().__init__(kind, *arguments)
        self.kind, self.arguments = kind, arguments

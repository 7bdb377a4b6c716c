"""A server's last words: how its end was for those whose requests it had accepted."""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.files import write_whole
from runtime.host.processes import Process


@dataclass(frozen=True)
class Farewell:
    """How many requests were answered while the server drained, and how many were told that it ends."""

    answered: int = 0
    given_up: int = 0

    def __str__(self) -> str:
        return f"{requests(self.answered)} answered" + (f", {self.given_up} given up" if self.given_up else "")

    def write(self, path: Path, server: Process) -> None:
        """Raises KitError where it cannot be written."""
        write_whole(path, json.dumps({"server": asdict(server), **asdict(self)}) + "\n")

    @classmethod
    def read(cls, path: Path, server: Process) -> "Farewell | None":
        """What that server left; None where it left nothing that can be understood."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if Process(**found.pop("server")) == server:
                return cls(**found)
        return None


def requests(count: int) -> str:
    """So many requests, in words."""
    return f"{count} request{'' if count == 1 else 's'}"

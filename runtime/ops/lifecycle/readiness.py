"""Waiting until a container has transcribed, and noticing at once that it never will."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from env.errors import KitError
from runtime.ops.lifecycle import commands
from runtime.ops.lifecycle.commands import SHORT
from runtime.ops.process.health import Health

EVERY = 0.5  # seconds between two looks
TAIL = 25  # lines of the log that are shown of a container that ended
START_PERIOD = 900  # seconds, as of the image's health check: docker/Dockerfile


class NotReadyError(KitError):
    """A container that ended, or that its health check gave up on."""


@dataclass(frozen=True)
class State:
    """A container as Docker sees it. `health` is starting, healthy or unhealthy, or empty where nobody checks it."""

    status: str
    exit_code: int
    restarts: int
    health: str

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "State":
        """As docker inspect describes a container."""
        state = entry["State"]
        health = (state.get("Health") or {}).get("Status", "")
        return cls(state["Status"], state["ExitCode"], entry["RestartCount"], health)


def container_state(container: str) -> State:
    """The state of a container, by name or id. Raises NotReadyError where there is none."""
    found = commands.ask(["docker", "inspect", "--type", "container", container])
    if not found:
        raise NotReadyError(container, "is gone", "make up")
    (entry,) = json.loads(found)
    return State.of(entry)


def await_ready(
    container: str, ask: Callable[[], Health], *, on_stage: Callable[[str], None], limit: float = START_PERIOD
) -> None:
    """Return when what runs in the container says that it is ready, which `ask` finds out; `on_stage` hears how far it
    is.

    Raises NotReadyError with the end of the container's log where it ended or its health check gave up. The health
    check's own start period bounds the wait; where an operator's compose file disables the check, `limit` seconds do.
    """
    until = time.monotonic() + limit
    while True:
        state = container_state(container)
        if state.status not in ("created", "running") or state.restarts:
            # Docker forgets the exit code of a container that it has started again.
            code = f" with exit code {state.exit_code}" if state.status == "exited" else ""
            reason = f"ended{code} before it was ready; the end of its log:\n{tail(container)}"
            raise NotReadyError(container[:SHORT], reason)
        if state.health == "unhealthy" or (not state.health and time.monotonic() > until):
            reason = f"runs but did not get ready; the end of its log:\n{tail(container)}"
            raise NotReadyError(container[:SHORT], reason, "make logs")
        health = ask()
        on_stage(health.stage)
        if health.status == "ready":
            return
        time.sleep(EVERY)


def tail(container: str) -> str:
    """The end of a container's log, both streams."""
    return commands.ask(["sh", "-c", f'docker logs --tail {TAIL} "$0" 2>&1', container])

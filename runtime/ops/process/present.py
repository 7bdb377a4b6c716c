"""A server's status for people."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from runtime.ops.process.farewell import requests
from runtime.ops.process.status import Status


def lines(status: Status) -> str:
    """One fact a line; those that there are."""
    uptime = str(timedelta(seconds=int(status.uptime))) if status.uptime is not None else ""
    memory = f"{_mib(status.memory)} resident" if status.memory else ""
    restarted = status.told.get("engine_restarts", 0)
    restarts = [f"{status.restarts} after crashes"] if status.restarts else []
    facts = {
        "state": status.state,
        "stage": status.stage,
        "reason": status.reason,
        "run by": status.manager,
        "to do": "; ".join(status.commands),
        "url": status.url,
        "pid": f"{status.pid or 'none'}, supervisor {status.supervisor or 'none'}" if status.supervisor else status.pid,
        "uptime": uptime,
        "memory": memory,
        "engine": _engine(status.told.get("engine") or {}),
        "device": _device(status.told.get("device") or {}),
        "queue": _queue(status.told.get("queue") or {}),
        "restarts": ", ".join([*restarts, *([f"{restarted} of the engine alone"] if restarted else [])]),
        "log": status.log,
    }
    shown = [f"{name:<9}{text}" for name, text in facts.items() if text]
    return "\n".join([*shown, *(["last errors"] if status.errors else []), *(f"  {line}" for line in status.errors)])


def _engine(told: Mapping[str, Any]) -> str:
    """Its name, and on lines of their own the servers that decode for it."""
    if not told:
        return ""
    servers = [
        f"{server['name']}: {server['decoding']} being decoded"
        + (f"; {server['trouble']}" if server["trouble"] else "")
        for server in told["servers"]
    ]
    return f"\n{'':<9}".join([told["name"], *servers])


def _device(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    found, memory = f"{told['name']} ({told['description']})", told["memory"]
    if not memory:
        return found
    return f"{found}, {_mib(memory['used'])} used, {_mib(memory['reserved'])} reserved of {_mib(memory['total'])}"


def _queue(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    engine = told["engine"]
    return f"{requests(told['requests'])}; utterances: {engine['waiting']} waiting, {engine['decoding']} being decoded"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"

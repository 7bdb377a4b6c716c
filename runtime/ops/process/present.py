"""A server's status for people."""

from datetime import timedelta

from runtime.ops.process.status import Status


def lines(status: Status) -> str:
    """One fact a line; those that there are."""
    uptime = str(timedelta(seconds=int(status.uptime))) if status.uptime is not None else ""
    memory = f"{status.memory / 2**20:.0f} MiB resident" if status.memory else ""
    facts = {
        "state": status.state,
        "stage": status.stage,
        "reason": status.reason,
        "url": status.url,
        "pid": f"{status.pid or 'none'}, supervisor {status.supervisor or 'none'}" if status.supervisor else status.pid,
        "uptime": uptime,
        "memory": memory,
        "restarts": f"{status.restarts} after crashes" if status.restarts else "",
        "log": status.log,
    }
    shown = [f"{name:<9}{text}" for name, text in facts.items() if text]
    return "\n".join([*shown, *(["last errors"] if status.errors else []), *(f"  {line}" for line in status.errors)])

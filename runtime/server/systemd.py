"""Notify systemd (`Type=notify`) of the status, readiness, liveness and stop, one datagram each, as in sd_notify(3).
Without $NOTIFY_SOCKET, nothing is sent."""

import logging
import os
import socket

from runtime.server.http import HttpServer

NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
NOTIFY_TIMEOUT = 1.0  # seconds that systemd may take to receive

log = logging.getLogger(__name__)


def notify(**fields: str | int) -> None:
    """Send fields such as READY=1. Failure is logged, and changes nothing else."""
    socket_name = os.environ.get(NOTIFY_SOCKET, "")
    if not socket_name:
        return
    text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
    # An abstract address is written with @ in place of its null byte.
    address = f"\0{socket_name[1:]}" if socket_name.startswith("@") else socket_name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(NOTIFY_TIMEOUT)
            connection.sendto(text.encode(), address)
    except OSError as error:
        log.warning("systemd was not told %s: %s", text.partition("=")[0], error)


def notify_stopping(seconds: int) -> None:
    """Tell systemd that the server stops within so many seconds, even if its unit allows less."""
    notify(STOPPING=1, EXTEND_TIMEOUT_USEC=seconds * 1_000_000)


def keep_alive(http_server: HttpServer) -> None:
    """With WatchdogSec, notify systemd twice per period that the event loop runs."""
    microseconds = os.environ.get(WATCHDOG_USEC, "")
    if not microseconds.isdecimal() or os.environ.get(WATCHDOG_PID, str(os.getpid())) != str(os.getpid()):
        return
    period = int(microseconds) / 2_000_000

    def notify_watchdog() -> None:
        notify(WATCHDOG=1)
        http_server.loop.call_later(period, notify_watchdog)

    http_server.call(notify_watchdog)

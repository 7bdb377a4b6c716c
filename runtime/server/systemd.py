"""What a unit of `Type=notify` hears of its server: how far it is, that it is ready, lives, and stops. One datagram
each, as sd_notify(3) describes them; without $NOTIFY_SOCKET nobody is told."""

import logging
import os
import socket

from runtime.server.http import HttpServer

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
TIMEOUT = 1.0  # seconds that systemd may take to receive

log = logging.getLogger(__name__)


def notify(**assignments: str | int) -> None:
    """Tell systemd, such as READY=1. That it cannot be told is logged, and changes nothing else."""
    address = os.environ.get(SOCKET, "")
    if not address:
        return
    text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in assignments.items())
    name = f"\0{address[1:]}" if address.startswith("@") else address  # @ is how an abstract address is written
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.sendto(text.encode(), name)
    except OSError as error:
        log.warning("systemd was not told %s: %s", text.partition("=")[0], error)


def stopping(seconds: int) -> None:
    """Tell systemd that the server ends, within so many seconds: longer than its unit may say."""
    notify(STOPPING=1, EXTEND_TIMEOUT_USEC=seconds * 1_000_000)


def keep_alive(listener: HttpServer) -> None:
    """Where systemd watches this process (WatchdogSec), tell it twice in that time that requests are still read."""
    microseconds = os.environ.get(WATCHDOG, "")
    if not microseconds.isdecimal() or os.environ.get(WATCHDOG_PID, str(os.getpid())) != str(os.getpid()):
        return
    period = int(microseconds) / 2_000_000

    def ping() -> None:
        notify(WATCHDOG=1)
        listener.loop.call_later(period, ping)

    listener.call(ping)

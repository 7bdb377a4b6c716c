"""What a hub may do other than answer. Each fault counts for the requests whose address contains `match`."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.server import Handler

LONGEST = 60.0  # seconds before a test that hangs is failed


@dataclass
class Fault:
    """Happens `times` times, then no more."""

    match: str
    times: int = 1

    def happen(self, handler: "Handler", content: bytes) -> None:
        """Answer instead of the hub, whose answer would have been `content`."""
        raise NotImplementedError


@dataclass
class Status(Fault):
    """The hub answers another status."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)

    def happen(self, handler: "Handler", content: bytes) -> None:  # noqa: ARG002 - it is not sent
        handler.reply(b"{}", self.status, **self.headers)


@dataclass
class Cut(Fault):
    """The connection breaks off when `after` bytes of the file were sent."""

    after: int = 0

    def happen(self, handler: "Handler", content: bytes) -> None:
        handler.send_content(content, until=self.after)


@dataclass
class Hold(Fault):
    """The hub falls silent when `after` bytes of the file were sent: it sets `reached`, and goes on after `release`."""

    after: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def happen(self, handler: "Handler", content: bytes) -> None:
        handler.send_content(content, pause_at=self.after, pause=self._pause)

    def _pause(self) -> None:
        self.reached.set()
        self.release.wait(LONGEST)


@dataclass
class Corrupt(Fault):
    """The file arrives with one `bit` of its last byte turned over."""

    bit: int = 0

    def happen(self, handler: "Handler", content: bytes) -> None:
        handler.send_content(content[:-1] + bytes([content[-1] ^ 1 << self.bit]))


@dataclass
class Redirect(Fault):
    """The hub sends the client elsewhere."""

    to: str = ""

    def happen(self, handler: "Handler", content: bytes) -> None:  # noqa: ARG002 - it is not sent
        handler.reply(b"", 302, Location=self.to)


@dataclass
class IgnoreRange(Fault):
    """The hub sends the whole file, whatever part was asked for."""

    def happen(self, handler: "Handler", content: bytes) -> None:
        handler.start = 0
        handler.send_content(content)


@dataclass
class Say(Fault):
    """The hub answers something that is not a hub's: a page that asks for a password, say."""

    body: bytes = b""

    def happen(self, handler: "Handler", content: bytes) -> None:  # noqa: ARG002 - it is not sent
        handler.reply(self.body)

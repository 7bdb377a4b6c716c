"""The servers that an engine has, and which of them gets the next utterance."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from env.errors import FaultError, KitError
from env.settings import Settings
from runtime import engines
from runtime.engines.stream import Stream
from runtime.engines.vllm.checking import Found
from runtime.engines.vllm.child import Child
from runtime.engines.vllm.flags import Order
from runtime.urls import vllm_servers

log = logging.getLogger("runtime.engines.vllm")

# starting: it has not decoded yet. doubted: something failed; it gets nothing until that is cleared up. lost: it fails.
State = Literal["starting", "ready", "doubted", "lost"]


@dataclass(eq=False)
class Server:
    """A vLLM: one that the kit starts as `order` says, or one that runs elsewhere. All but `child` is the engine's
    loop's to change."""

    name: str
    url: str
    order: Order | None = None
    child: Child | None = None
    state: State = "starting"
    trouble: str = "not asked yet"
    looked_at: bool = False
    refusal: KitError | None = None  # why it cannot be used as it is, or did not start
    found: Found | None = None
    underway: dict[Stream, "asyncio.Task[None]"] = field(default_factory=dict)
    doubt: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def model(self) -> str:
        """The name that its model goes by."""
        assert self.found
        return self.found.model

    @property
    def seconds(self) -> float:
        """Of audio, in hand."""
        return sum(stream.utterance.seconds for stream in self.underway)

    @property
    def decoding(self) -> int:
        """Utterances in hand that somebody waits for."""
        return sum(not stream.ended for stream in tuple(self.underway))

    def told(self) -> engines.Server:
        """What an engine's status says of it."""
        return engines.Server(self.name, self.url, self.decoding, "" if self.state == "ready" else self.trouble)

    def suspect(self, trouble: str) -> None:
        """Give it nothing until it was looked at, which is due at once."""
        if self.state == "ready":
            self.distrust(trouble)
        self.doubt.set()

    def distrust(self, trouble: str) -> None:
        """Give it nothing for now, well as it was."""
        log.warning("%s is given nothing for now: %s", self.name, trouble)
        self.state, self.trouble = "doubted", trouble


def elsewhere(settings: Settings) -> list[Server]:
    """The servers of ASR_VLLM_URL, none if it is not set. Raises UsageError where an address cannot be used."""
    return [Server(url, url) for url in vllm_servers(settings)]


def started(orders: Iterable[Order]) -> list[Server]:
    """The servers that the kit starts."""
    return [Server(order.name, f"http://127.0.0.1:{order.port}", order) for order in orders]


def roomiest(servers: Iterable[Server], *, most: int, without: Iterable[Server] = ()) -> Server | None:
    """The server with the least audio in hand of those that are ready and decode fewer than `most` utterances; one of
    `without` only if there is no other."""
    free = [server for server in servers if server.state == "ready" and len(server.underway) < most]
    avoided = set(without)
    return min(free, key=lambda server: (server in avoided, server.seconds, len(server.underway)), default=None)


def troubles(servers: Iterable[Server]) -> str:
    """What is wrong with each."""
    return "; ".join(f"{server.name}: {server.trouble}" for server in servers)


def none_ready(servers: Sequence[Server], *, seconds: float) -> KitError:
    """What to tell where these are all servers, and none can be used after so many seconds: a FaultError, unless each
    refuses how it is set up."""
    refusals = [server.refusal for server in servers if server.refusal]
    if len(servers) == len(refusals) == 1:
        return refusals[0]
    lasting = len(refusals) == len(servers) and not any(isinstance(error, FaultError) for error in refusals)
    kind = KitError if lasting else FaultError
    if all(server.refusal or server.order for server in servers):
        return kind("vLLM", f"no server is ready: {troubles(servers)}")
    reason = f"no server is ready after {seconds:g} s: {troubles(servers)}"
    return kind("vLLM", reason, "start one there: invoke vllm")


def versions(servers: Iterable[Server]) -> str:
    """Which vLLM it is and, if it is elsewhere, where: the ports of those that the kit starts are others each time."""
    return ", ".join(dict.fromkeys(map(_version, servers)))


def _version(server: Server) -> str:
    known = f"vLLM {server.found.version}" if server.found else "vLLM"
    return known if server.order else f"{known} at {server.url}"


def packages(servers: Iterable[Server]) -> dict[str, str]:
    """Versions of the packages that decode, by distribution; where servers have different ones, all of them."""
    found: dict[str, list[str]] = {}
    for server in servers:
        told = {"vllm": server.found.version} if server.found else {}
        facts = dict(server.child.facts) if server.child else {}
        facts.pop("device", None)
        for name, version in {**facts, **told}.items():
            found.setdefault(name, []).append(version)
    return {name: ", ".join(sorted(set(several))) for name, several in found.items()}


def groups(servers: Iterable[Server]) -> list[int]:
    """The process groups of those that the kit has started."""
    return [pid for server in servers if server.child and (pid := server.child.pid)]


def on_npus(servers: Iterable[Server]) -> bool:
    """Whether those that the kit has started calculate on NPUs, as their launcher told."""
    return any(server.child and server.child.facts.get("device") == "npu" for server in servers)

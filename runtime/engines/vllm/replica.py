"""The servers that an engine has, and which of them gets the next utterance."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import httpx

from env.errors import FaultError, KitError
from env.settings import Settings
from runtime import engines
from runtime.engines.stream import Stream
from runtime.engines.vllm.client import TRIED, Needs, ServerFault, ServerIdentity, UnfitError, examine, healthy
from runtime.engines.vllm.command import LaunchSpec
from runtime.engines.vllm.process import VllmProcess
from runtime.restart_policy import USUAL, Crashes
from runtime.urls import vllm_servers

log = logging.getLogger("runtime.engines.vllm")

# starting: it has not decoded yet. doubted: something failed; it gets nothing until that is cleared up. lost: it fails.
State = Literal["starting", "ready", "doubted", "lost"]

POLL_INTERVAL = 5.0  # seconds between looks at a server that is well
LOOK_AGAIN = 0.5  # seconds before a second look at one that is not, or has not come yet
TOO_MANY = 2  # looks in a row that find it unwell: it is lost
PATIENT = 10  # such looks at a child whose port is closed: most probably it has ended, and is about to say why
AGAIN = 0.5  # seconds until what was cancelled, and goes on, is cancelled again
GRACE = 10.0  # seconds for a child to end; nobody waits for anything that it decodes
LOADING_GRACE = 1.0  # for one that was never ready: while it loads its model, vLLM does not heed SIGTERM


@dataclass(eq=False)
class Replica:
    """A vLLM: one that the kit starts as `order` says, or one that runs elsewhere. All but `child` is the engine's
    loop's to change."""

    name: str
    url: str
    order: LaunchSpec | None = None
    child: VllmProcess | None = None
    state: State = "starting"
    trouble: str = "not asked yet"
    looked_at: bool = False
    refusal: KitError | None = None  # why it cannot be used as it is, or did not start
    found: ServerIdentity | None = None
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

    def told(self) -> engines.EngineServer:
        """What an engine's status says of it."""
        return engines.EngineServer(self.name, self.url, self.decoding, "" if self.state == "ready" else self.trouble)

    def suspect(self, trouble: str) -> None:
        """Give it nothing until it was looked at, which is due at once."""
        if self.state == "ready":
            self.distrust(trouble)
        self.doubt.set()

    def distrust(self, trouble: str) -> None:
        """Give it nothing for now, well as it was."""
        log.warning("%s is given nothing for now: %s", self.name, trouble)
        self.state, self.trouble = "doubted", trouble


def elsewhere(settings: Settings) -> list[Replica]:
    """The servers of ASR_VLLM_URL, none if it is not set. Raises UsageError where an address cannot be used."""
    return [Replica(url, url) for url in vllm_servers(settings)]


def started(orders: Iterable[LaunchSpec]) -> list[Replica]:
    """The servers that the kit starts."""
    return [Replica(order.name, f"http://127.0.0.1:{order.port}", order) for order in orders]


def least_loaded(servers: Iterable[Replica], *, most: int, without: Iterable[Replica] = ()) -> Replica | None:
    """The server with the least audio in hand of those that are ready and decode fewer than `most` utterances; one of
    `without` only if there is no other."""
    free = [server for server in servers if server.state == "ready" and len(server.underway) < most]
    avoided = set(without)
    return min(free, key=lambda server: (server in avoided, server.seconds, len(server.underway)), default=None)


def describe_failures(servers: Iterable[Replica]) -> str:
    """What is wrong with each."""
    return "; ".join(f"{server.name}: {server.trouble}" for server in servers)


def none_ready(servers: Sequence[Replica], *, seconds: float) -> KitError:
    """What to tell where these are all servers, and none can be used after so many seconds: a FaultError, unless each
    refuses how it is set up."""
    refusals = [server.refusal for server in servers if server.refusal]
    if len(servers) == len(refusals) == 1:
        return refusals[0]
    lasting = len(refusals) == len(servers) and not any(isinstance(error, FaultError) for error in refusals)
    kind = KitError if lasting else FaultError
    if all(server.refusal or server.order for server in servers):
        return kind("vLLM", f"no server is ready: {describe_failures(servers)}")
    reason = f"no server is ready after {seconds:g} s: {describe_failures(servers)}"
    return kind("vLLM", reason, "start one there: invoke vllm")


def versions(servers: Iterable[Replica]) -> str:
    """Which vLLM it is and, if it is elsewhere, where: the ports of those that the kit starts are others each time."""
    return ", ".join(dict.fromkeys(map(_version, servers)))


def _version(server: Replica) -> str:
    known = f"vLLM {server.found.version}" if server.found else "vLLM"
    return known if server.order else f"{known} at {server.url}"


def packages(servers: Iterable[Replica]) -> dict[str, str]:
    """Versions of the packages that decode, by distribution; where servers have different ones, all of them."""
    found: dict[str, list[str]] = {}
    for server in servers:
        told = {"vllm": server.found.version} if server.found else {}
        facts = dict(server.child.facts) if server.child else {}
        facts.pop("device", None)
        for name, version in {**facts, **told}.items():
            found.setdefault(name, []).append(version)
    return {name: ", ".join(sorted(set(several))) for name, several in found.items()}


def groups(servers: Iterable[Replica]) -> list[int]:
    """The process groups of those that the kit has started."""
    return [pid for server in servers if server.child and (pid := server.child.pid)]


def on_npus(servers: Iterable[Replica]) -> bool:
    """Whether those that the kit has started calculate on NPUs, as their launcher told."""
    return any(server.child and server.child.facts.get("device") == "npu" for server in servers)


@dataclass
class Monitor:
    """Looks after one server, on the engine's loop, until it is cancelled. `changed` is told when there is news of the
    server and, where it is lost, whether it may still finish what it has begun. `tell` hears how its start goes."""

    server: Replica
    client: httpx.AsyncClient
    needs: Needs
    settings: Settings
    changed: Callable[[], None]
    lost: Callable[[Replica, bool], None]
    tell: Callable[[Replica, str], None]

    async def run(self) -> None:
        """Never returns, unless it is a child that crashes too often."""
        if self.server.order is None:
            await self._follow()
        crashes = Crashes(USUAL)
        while True:
            if await self._raise_child():
                await self._follow()
            await self.end_child()
            pause = crashes.add(time.monotonic())
            if pause is None:
                log.error("%s is given up: it has been started again %s", self.server.name, USUAL)
                return
            await asyncio.sleep(pause)
            log.info("starting %s again, after %g s", self.server.name, pause)

    async def end_child(self) -> None:
        """End the server, if the kit has started it, and everything of its process group."""
        if child := self.server.child:
            await asyncio.to_thread(child.stop, GRACE if child.ready else LOADING_GRACE)

    async def _raise_child(self) -> bool:
        """Start the server; returns whether it runs."""
        server, loop = self.server, asyncio.get_running_loop()
        assert server.order

        def ended(reason: str) -> None:
            loop.call_soon_threadsafe(self._lose, reason)
            loop.call_soon_threadsafe(server.doubt.set)

        server.child = VllmProcess(server.order, tell=partial(self.tell, server), on_end=ended)
        try:
            await asyncio.to_thread(server.child.start, self.settings.vllm_start_seconds)
        except KitError as error:
            if server.found:
                log.warning("%s", error)
            self._lose(_words(error), refusal=error)
            return False
        server.state, server.trouble, server.refusal = "starting", "starting", None
        return True

    async def _follow(self) -> None:
        """Look at the server until it is lost; one that is elsewhere is looked at on and on until it is there."""
        server, unwell = self.server, 0
        while not (server.order and server.state == "lost"):
            server.doubt.clear()
            try:
                await self._look()
                unwell = 0
            except UnfitError as error:
                self._lose(_words(error), refusal=error)
            except ServerFault as error:
                unwell += 1
                most = PATIENT if server.order and error.closed else TOO_MANY
                self._doubt(error, last=unwell >= most)
            pause = POLL_INTERVAL if server.state == "ready" or server.refusal else LOOK_AGAIN
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.doubt.wait(), pause)

    async def _look(self) -> None:
        """See to it that the server is well or, where that was in doubt, the one that is wanted."""
        server = self.server
        if server.state == "ready":
            await healthy(self.client, server.url)
            return
        if server.order:
            self.tell(server, "decoding its first audio")
        found = await examine(self.client, server.url, self.needs)
        if not found.is_tried and server.found != found:
            log.warning("%s is vLLM %s, but the kit was tried with %s", server.name, found.version, TRIED)
        log.info("%s is well: vLLM %s", server.name, found.version)
        server.found, server.state, server.trouble, server.refusal = found, "ready", "", None
        self._tell_change()

    def _doubt(self, error: ServerFault, *, last: bool) -> None:
        """The server is unwell. One that has not come yet may take its time, if it is elsewhere."""
        server = self.server
        if last and (server.state in ("ready", "doubted") or (server.state == "starting" and server.order)):
            self._lose(str(error), finishing=error.closed)
            return
        if server.state == "ready":
            server.distrust(str(error))
        server.trouble = str(error)
        self.tell(server, f"waiting for it: {error}")
        self._tell_change()

    def _lose(self, trouble: str, *, refusal: KitError | None = None, finishing: bool = False) -> None:
        server = self.server
        if server.found and server.state != "lost":
            log.warning("%s is lost: %s", server.name, trouble)
        was_lost = server.state == "lost"
        server.state, server.trouble, server.refusal = "lost", trouble, refusal
        if not was_lost:  # else it was settled then what becomes of what it has
            self.lost(server, finishing)
        self._tell_change()

    def _tell_change(self) -> None:
        self.server.looked_at = True
        self.changed()


async def end(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks until they have ended: before Python 3.12, asyncio.wait_for may swallow it once."""
    left = set(tasks)
    while left:
        cancel(left)
        _, left = await asyncio.wait(left, timeout=AGAIN)


def cancel(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks that have not ended."""
    for task in tasks:
        task.cancel()


def _words(error: KitError) -> str:
    """What is wrong, without the name of the server, which is told beside it."""
    return f"{error.reason} → {error.advice}" if error.advice else error.reason

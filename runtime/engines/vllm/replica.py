"""The vLLM servers of an engine: their state and load, and the monitor that starts, checks and restarts each."""

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
from runtime import engines, vllm_releases
from runtime.engines.stream import Stream
from runtime.engines.vllm.client import (
    IncompatibleServerError,
    Requirements,
    ServerFault,
    ServerIdentity,
    check_compatibility,
    check_health,
)
from runtime.engines.vllm.command import LaunchSpec
from runtime.engines.vllm.process import VllmProcess
from runtime.restart_policy import DEFAULT_POLICY, Crashes

log = logging.getLogger("runtime.engines.vllm")

# starting: it has not decoded yet. suspect: something failed; it gets nothing until that is cleared up. lost: it fails.
State = Literal["starting", "ready", "suspect", "lost"]

POLL_INTERVAL = 5.0  # seconds between health checks of a ready server
RECHECK_INTERVAL = 0.5  # seconds between checks of one that is not ready
MAX_FAILED_CHECKS = 2  # failed checks in a row after which a server is lost
# The same for a process whose port is closed: most probably it has ended, and its exit will give the reason.
MAX_CLOSED_CHECKS = 10
CANCEL_INTERVAL = 0.5  # seconds until a cancelled task that still runs is cancelled again
STOP_GRACE = 10.0  # seconds for a process to end; nobody waits for what it decodes
LOADING_STOP_GRACE = 1.0  # for one that was never ready: while it loads its model, vLLM does not heed SIGTERM


@dataclass(eq=False)
class Replica:
    """A vLLM server: one that the kit starts by `spec`, or a remote one without. Only the engine's event loop
    changes it, except for `process`."""

    name: str
    url: str
    spec: LaunchSpec | None = None
    process: VllmProcess | None = None
    state: State = "starting"
    trouble: str = "not asked yet"
    checked: bool = False
    incompatible: KitError | None = None  # why it cannot be used as it is, or did not start
    identity: ServerIdentity | None = None
    in_flight: dict[Stream, "asyncio.Task[None]"] = field(default_factory=dict)
    recheck: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def model(self) -> str:
        """The name of its model in requests. Only for a server that was ready once."""
        assert self.identity
        return self.identity.model

    @property
    def seconds(self) -> float:
        """Seconds of audio of the utterances in flight."""
        return sum(stream.utterance.seconds for stream in self.in_flight)

    @property
    def decoding(self) -> int:
        """Number of utterances in flight that have no end yet."""
        return sum(not stream.ended for stream in tuple(self.in_flight))

    def status(self) -> engines.EngineServer:
        """Its entry in the engine's status; `trouble` is empty while it is ready."""
        return engines.EngineServer(self.name, self.url, self.decoding, "" if self.state == "ready" else self.trouble)

    def report_failure(self, trouble: str) -> None:
        """Note a failed exchange: the server gets no utterances until a check, which is due at once, finds it well."""
        if self.state == "ready":
            self.mark_suspect(trouble)
        self.recheck.set()

    def mark_suspect(self, trouble: str) -> None:
        """Give a ready server no further utterances for now."""
        log.warning("%s is given nothing for now: %s", self.name, trouble)
        self.state, self.trouble = "suspect", trouble


def local_replicas(specs: Iterable[LaunchSpec]) -> list[Replica]:
    """A replica on loopback for each server that the kit starts."""
    return [Replica(spec.name, f"http://127.0.0.1:{spec.port}", spec) for spec in specs]


def least_loaded(servers: Iterable[Replica], *, most: int, without: Iterable[Replica] = ()) -> Replica | None:
    """The server with the fewest seconds of audio in flight, of those that are ready and decode fewer than `most`
    utterances; one of `without` only if there is no other."""
    free = [server for server in servers if server.state == "ready" and len(server.in_flight) < most]
    avoided = set(without)
    return min(free, key=lambda server: (server in avoided, server.seconds, len(server.in_flight)), default=None)


def describe_failures(servers: Iterable[Replica]) -> str:
    """Name and trouble of each server, for messages."""
    return "; ".join(f"{server.name}: {server.trouble}" for server in servers)


def none_ready(servers: Sequence[Replica], *, seconds: float) -> KitError:
    """The error where no server is ready after so many seconds: a KitError if each is incompatible as set up,
    else a FaultError, after which another start may succeed."""
    incompatible = [server.incompatible for server in servers if server.incompatible]
    if len(servers) == len(incompatible) == 1:
        return incompatible[0]
    lasting = len(incompatible) == len(servers) and not any(isinstance(error, FaultError) for error in incompatible)
    kind = KitError if lasting else FaultError
    if all(server.incompatible or server.spec for server in servers):
        return kind("vLLM", f"no server is ready: {describe_failures(servers)}")
    reason = f"no server is ready after {seconds:g} s: {describe_failures(servers)}"
    return kind("vLLM", reason, "start one there: invoke vllm")


def describe_versions(servers: Iterable[Replica]) -> str:
    """The vLLM version of each server, with the address of a remote one; local ports are left out, as they change."""
    return ", ".join(dict.fromkeys(map(_describe_version, servers)))


def _describe_version(server: Replica) -> str:
    known = f"vLLM {server.identity.version}" if server.identity else "vLLM"
    return known if server.spec else f"{known} at {server.url}"


def package_versions(servers: Iterable[Replica]) -> dict[str, str]:
    """Versions of the packages that decode, by distribution; where servers differ, all of them."""
    found: dict[str, list[str]] = {}
    for server in servers:
        reported = {"vllm": server.identity.version} if server.identity else {}
        facts = dict(server.process.facts) if server.process else {}
        facts.pop("device", None)
        for name, version in {**facts, **reported}.items():
            found.setdefault(name, []).append(version)
    return {name: ", ".join(sorted(set(several))) for name, several in found.items()}


def process_groups(servers: Iterable[Replica]) -> list[int]:
    """Ids of the process groups of the servers that the kit has started."""
    return [pid for server in servers if server.process and (pid := server.process.pid)]


def uses_npus(servers: Iterable[Replica]) -> bool:
    """Whether the servers that the kit has started run on NPUs, as their launcher reported."""
    return any(server.process and server.process.facts.get("device") == "npu" for server in servers)


@dataclass
class Monitor:
    """Starts, checks and restarts one server, on the engine's event loop, until it is cancelled.

    `on_change` is called after each change of its state, `on_lost` when it is lost, with whether it may still finish
    what it has begun, and `on_stage` with each stage of its start, which may take `start_seconds`.
    """

    server: Replica
    client: httpx.AsyncClient
    requirements: Requirements
    start_seconds: float
    on_change: Callable[[], None]
    on_lost: Callable[[Replica, bool], None]
    on_stage: Callable[[Replica, str], None]

    async def run(self) -> None:
        """Monitor the server; returns only where its process has crashed too often."""
        if self.server.spec is None:
            await self._poll()
        crashes = Crashes(DEFAULT_POLICY)
        while True:
            if await self._start_process():
                await self._poll()
            await self.stop_process()
            pause = crashes.add(time.monotonic())
            if pause is None:
                log.error("%s is given up: it has been started again %s", self.server.name, DEFAULT_POLICY)
                return
            await asyncio.sleep(pause)
            log.info("starting %s again, after %g s", self.server.name, pause)

    async def stop_process(self) -> None:
        """Stop the server's process group, if the kit has started one."""
        if process := self.server.process:
            await asyncio.to_thread(process.stop, STOP_GRACE if process.ready else LOADING_STOP_GRACE)

    async def _start_process(self) -> bool:
        """Start the server's process; returns whether it runs."""
        server, loop = self.server, asyncio.get_running_loop()
        assert server.spec

        def ended(reason: str) -> None:
            loop.call_soon_threadsafe(self._mark_lost, reason)
            loop.call_soon_threadsafe(server.recheck.set)

        server.process = VllmProcess(server.spec, on_stage=partial(self.on_stage, server), on_end=ended)
        try:
            await asyncio.to_thread(server.process.start, self.start_seconds)
        except KitError as error:
            if server.identity:
                log.warning("%s", error)
            self._mark_lost(_reason_and_advice(error), incompatible=error)
            return False
        server.state, server.trouble, server.incompatible = "starting", "starting", None
        return True

    async def _poll(self) -> None:
        """Check the server until it is lost; a remote one is checked forever, as it may come back."""
        server, failures = self.server, 0
        while not (server.spec and server.state == "lost"):
            server.recheck.clear()
            try:
                await self._check()
                failures = 0
            except IncompatibleServerError as error:
                self._mark_lost(_reason_and_advice(error), incompatible=error)
            except ServerFault as error:
                failures += 1
                most = MAX_CLOSED_CHECKS if server.spec and error.closed else MAX_FAILED_CHECKS
                self._check_failed(error, last=failures >= most)
            pause = POLL_INTERVAL if server.state == "ready" or server.incompatible else RECHECK_INTERVAL
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.recheck.wait(), pause)

    async def _check(self) -> None:
        """Check a ready server's health, any other's compatibility, after which it is ready."""
        server = self.server
        if server.state == "ready":
            await check_health(self.client, server.url)
            return
        if server.spec:
            self.on_stage(server, "decoding its first audio")
        identity = await check_compatibility(self.client, server.url, self.requirements)
        if vllm_releases.fit(identity.version) != "tested" and server.identity != identity:
            version, tested = identity.version, vllm_releases.TESTED
            log.warning("%s is vLLM %s, but the kit was tried with %s", server.name, version, tested)
        log.info("%s is well: vLLM %s", server.name, identity.version)
        server.identity, server.state, server.trouble, server.incompatible = identity, "ready", "", None
        self._report_change()

    def _check_failed(self, error: ServerFault, *, last: bool) -> None:
        """Note a failed check; the `last` one loses the server, unless it is a remote one that was never ready."""
        server = self.server
        if last and (server.state in ("ready", "suspect") or (server.state == "starting" and server.spec)):
            self._mark_lost(str(error), finishing=error.closed)
            return
        if server.state == "ready":
            server.mark_suspect(str(error))
        server.trouble = str(error)
        self.on_stage(server, f"waiting for it: {error}")
        self._report_change()

    def _mark_lost(self, trouble: str, *, incompatible: KitError | None = None, finishing: bool = False) -> None:
        server = self.server
        if server.identity and server.state != "lost":
            log.warning("%s is lost: %s", server.name, trouble)
        was_lost = server.state == "lost"
        server.state, server.trouble, server.incompatible = "lost", trouble, incompatible
        if not was_lost:  # else `on_lost` was called before
            self.on_lost(server, finishing)
        self._report_change()

    def _report_change(self) -> None:
        self.server.checked = True
        self.on_change()


async def cancel_and_wait(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks until all have ended: before Python 3.12, asyncio.wait_for may swallow a cancellation."""
    left = set(tasks)
    while left:
        cancel_tasks(left)
        _, left = await asyncio.wait(left, timeout=CANCEL_INTERVAL)


def cancel_tasks(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Request cancellation of each task; tasks that have ended ignore it."""
    for task in tasks:
        task.cancel()


def _reason_and_advice(error: KitError) -> str:
    """An error's text without its subject, the server's name, which is shown beside it."""
    return f"{error.reason} → {error.advice}" if error.advice else error.reason

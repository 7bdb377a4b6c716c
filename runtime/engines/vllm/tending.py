"""Looking after a server: is it there, is it well, is it back; and starting again what the kit has started."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import httpx

from env.errors import KitError
from env.settings import Settings
from runtime.engines.vllm.asking import ServerFault
from runtime.engines.vllm.checking import TRIED, Needs, UnfitError, examine, healthy
from runtime.engines.vllm.child import Child
from runtime.engines.vllm.servers import Server
from runtime.restart_policy import USUAL, Crashes

LOOK_EVERY = 5.0  # seconds between looks at a server that is well
LOOK_AGAIN = 0.5  # seconds before a second look at one that is not, or has not come yet
TOO_MANY = 2  # looks in a row that find it unwell: it is lost
PATIENT = 10  # such looks at a child whose port is closed: most probably it has ended, and is about to say why
AGAIN = 0.5  # seconds until what was cancelled, and goes on, is cancelled again
GRACE = 10.0  # seconds for a child to end; nobody waits for anything that it decodes
LOADING_GRACE = 1.0  # for one that was never ready: while it loads its model, vLLM does not heed SIGTERM

log = logging.getLogger("runtime.engines.vllm")


@dataclass
class Tender:
    """Looks after one server, on the engine's loop, until it is cancelled. `changed` is told when there is news of the
    server and, where it is lost, whether it may still finish what it has begun. `tell` hears how its start goes."""

    server: Server
    client: httpx.AsyncClient
    needs: Needs
    settings: Settings
    changed: Callable[[], None]
    lost: Callable[[Server, bool], None]
    tell: Callable[[Server, str], None]

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

        server.child = Child(server.order, tell=partial(self.tell, server), on_end=ended)
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
            pause = LOOK_EVERY if server.state == "ready" or server.refusal else LOOK_AGAIN
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

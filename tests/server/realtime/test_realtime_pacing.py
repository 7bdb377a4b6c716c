"""Sound that comes faster than it is spoken, as from a file, holds up nobody whose sound comes as it is spoken."""

import asyncio

from runtime.server.realtime.pacing import MAX_LEAD_SECONDS, CatchUpLimiter, Pace


def test_a_session_hurries_once_it_is_ahead_of_the_clock() -> None:
    pace = Pace()
    slices = [pace.is_ahead(MAX_LEAD_SECONDS / 4) for _ in range(6)]
    assert slices == [False, False, False, False, True, True]


def test_one_session_that_hurries_is_heard_at_a_time_and_others_at_once() -> None:
    async def meet() -> list[str]:
        hearing, order = CatchUpLimiter(), list[str]()

        async def take(name: str, *, is_ahead: bool) -> None:
            async with hearing.slot(is_ahead=is_ahead):
                order.append(name)

        async with hearing.slot(is_ahead=True):
            waiting = asyncio.create_task(take("another file", is_ahead=True))
            await asyncio.create_task(take("a microphone", is_ahead=False))
            assert not waiting.done()
            order.append("a file")
        await waiting
        return order

    assert asyncio.run(meet()) == ["a microphone", "a file", "another file"]

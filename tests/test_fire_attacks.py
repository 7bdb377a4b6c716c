"""Attacks by one caller: each is refused, and another caller is answered meanwhile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from attacks import SOMEBODY_ELSE, STRIKES
from serving import PATIENCE, TRANSCRIPTIONS, Served, served

from runtime.measure.clips import Clip
from runtime.transcriber import Transcriber

REFUSED = {400, "told", "nothing"}


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """One server for all attacks."""
    with served(transcriber) as running:
        yield running


@pytest.mark.parametrize("attack", STRIKES)
def test_an_attack_costs_its_caller_alone(server: Served, speech: list[Clip], attack: str) -> None:
    strike = STRIKES[attack]()
    transport = httpx.HTTPTransport(local_address=SOMEBODY_ELSE)
    with ThreadPoolExecutor(3) as pool, httpx.Client(transport=transport, timeout=PATIENCE) as client:
        strikes = [pool.submit(strike, server.url) for _ in range(3)]
        for clip in speech[:3]:
            answer = client.post(server.url + TRANSCRIPTIONS, files={"file": clip.path.read_bytes()})
            assert answer.json()["text"] == clip.text
        assert {one.result() for one in strikes} <= REFUSED

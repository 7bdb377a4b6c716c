"""Attacks by one caller: each is refused, and another caller is answered meanwhile."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from attacks import SOMEBODY_ELSE, STRIKES, helpers, voids
from fronting import until
from serving import PATIENCE, TRANSCRIPTIONS, Served, hang_up_after_upload, served
from tree import bare_environment

from env.sources import PROJECT
from runtime.demo import Clip
from runtime.transcriber import Transcriber

# Refused, answered with what is wrong, closed, or left in the middle; idle sessions are too many for one caller.
ENDS = {400, 429, "answered", "closed", "hung up", "nothing"}


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
        assert {one.result() for one in strikes} <= ENDS


def test_what_nobody_waits_for_is_read_no_further(server: Served, tmp_path: Path) -> None:
    file = tmp_path / "slow.webm"
    file.write_bytes(voids())
    connection = hang_up_after_upload(server, Clip(file, None, "", ""))
    until(lambda: any(one.nice() > 0 for one in helpers()))
    connection.close()
    until(lambda: not any(one.nice() > 0 for one in helpers()))
    assert server.server_state.wait_idle(PATIENCE)


def test_the_benchmark_of_attacks_runs_as_the_readme_has_it() -> None:
    command = "python tests/support/attacks.py"
    assert f"`{command}`" in (PROJECT / "runtime" / "server" / "README.md").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *command.split()[1:], "--seconds", "1", "nothing", "forged table"],
        cwd=PROJECT,
        env=bare_environment(ASR_PROFILE="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *_, nothing, forged = done.stdout.splitlines()
    assert nothing.startswith("nothing")
    assert "'nothing': " in nothing
    assert forged.startswith("forged table")
    assert "{400: " in forged

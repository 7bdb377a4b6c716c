"""Every variable names a proxy that is dead: what the kit asks of itself goes past it."""

from pathlib import Path

from invoking import invoke
from proxying import closed_port, dead_proxies

from runtime.demo import Clip


def test_the_kit_reaches_itself_past_every_proxy(speech: list[Clip], tmp_path: Path) -> None:
    port = closed_port()
    variables = {**dead_proxies(), "ASR_PORT": str(port), "ASR_OUT_DIR": str(tmp_path)}
    try:
        for task in (
            *(["start"], ["status"], ["smoke", "--url", f"http://localhost:{port}"], ["clear-cache"]),
            *(["soak", "--minutes", "0.05", "--clients", "1", "--url", f"http://127.0.0.1:{port}"],),
            *(["transcribe", str(speech[0].path)], ["restart"]),
        ):
            result = invoke(*task, **variables)
            assert result.returncode == 0, (task, result.stdout, result.stderr)
    finally:
        stopped = invoke("stop", "--now", **variables)
    assert stopped.returncode == 0, stopped.stderr
    assert invoke("status", **variables).returncode == 3

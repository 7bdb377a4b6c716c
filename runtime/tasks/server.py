"""The server, and a vLLM for a server elsewhere."""

import logging
import os
import signal
import sys

from invoke import Context, Exit, task

from env.errors import KitError
from env.sources import load_settings
from runtime.tasks.foreseeing import foreseeing


@task
@foreseeing
def serve(_: Context) -> None:
    """Run the server in the foreground until it is told to stop: what the container runs."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server handles it
    from runtime.server.serve import serve as run

    settings = load_settings()
    try:
        run(settings)
    except KitError as error:
        logging.getLogger("runtime.server").critical("%s", error)  # in the form of the log that it ends
        raise Exit(code=error.exit_code) from None


@task
@foreseeing
def vllm(_: Context) -> None:
    """Run one vLLM alone, in the foreground, on ASR_HOST:ASR_PORT, for a server elsewhere (its ASR_VLLM_URL).

    In a container: ASR_VLLM_ALONE=true make up.
    """
    from runtime.ops.deploy import standalone
    from runtime.progress import waiting

    try:
        from runtime.engines.vllm import command
        from runtime.server import serve as preflight
        from runtime.transcriber import model_directory
    except ModuleNotFoundError as error:
        reason = f"needs {error.name}, which is not installed"
        advice = "ASR_VLLM_ALONE=true make up runs it in a container; here: python env/install.py cpu"
        raise KitError("invoke vllm", reason, advice) from None
    settings = load_settings().model_copy(update={"engine": "vllm", "vllm_url": None, "vllm_alone": False})
    order = command.lone(settings, model_directory(settings))
    with waiting("Verifying weights"):
        preflight.check(settings, on_bytes=lambda _: None)
    where = f"ASR_VLLM_URL=http://HOST:{order.port} where ASR_MODEL is the same"
    print(f"{order.name} serves {settings.model}, for {where}", flush=True)
    if warning := standalone.warning(settings):
        print(warning, file=sys.stderr)
    os.execve(order.command[0], order.command, dict(order.environment))

"""The server, and a vLLM for a server elsewhere."""

import logging
import os
import sys

from invoke import Context, Exit, task

from env.loading import load_settings
from runtime.errors import KitError
from runtime.tasks.foreseeing import foreseeing


@task
@foreseeing
def serve(_: Context) -> None:
    """Run the server in the foreground until it is told to stop: what the container runs."""
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
    """Run one vLLM alone, in the foreground, on ASR_HOST:ASR_PORT, for a server elsewhere (its ASR_VLLM_URL)."""
    from runtime.engines.vllm import flags
    from runtime.progress import waiting
    from runtime.server import preflight
    from runtime.transcriber import model_directory

    settings = load_settings().model_copy(update={"engine": "vllm", "vllm_url": None})
    order = flags.lone(settings, model_directory(settings))
    with waiting("Verifying weights"):
        preflight.check(settings, on_bytes=lambda _: None)
    print(f"{order.name}, for ASR_VLLM_URL=http://HOST:{order.port} where ASR_MODEL is the same", flush=True)
    if not settings.vllm_key and not settings.host.startswith("127."):
        print(
            f"vllm: asks for no key, and listens on {settings.host} → set ASR_VLLM_KEY on both sides", file=sys.stderr
        )
    os.execve(order.command[0], order.command, dict(order.environment))

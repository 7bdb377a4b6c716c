"""The server, and a vLLM for a server elsewhere."""

import json as json_
import logging
import os
import signal
import sys

from invoke import Context, Exit, task

from env.errors import KitError
from env.settings import Settings
from env.sources import load_settings
from runtime import stdio
from runtime.tasks.errors import INTERRUPTED, handle_errors


@task
@handle_errors
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
@handle_errors
def vllm(_: Context) -> None:
    """Run one vLLM alone, in the foreground, on ASR_HOST:ASR_PORT, for a server elsewhere (its ASR_VLLM_URL).

    In a container: ASR_VLLM_ALONE=true make up.
    """
    from runtime.ops.deploy import standalone
    from runtime.progress import status_line

    try:
        from runtime.engines.vllm import command
        from runtime.server import serve as preflight
        from runtime.transcriber import model_directory
    except ModuleNotFoundError as error:
        reason = f"needs {error.name}, which is not installed"
        advice = "ASR_VLLM_ALONE=true make up runs it in a container; here: python env/install.py cpu"
        raise KitError("invoke vllm", reason, advice) from None
    settings = load_settings().model_copy(update={"engine": "vllm", "vllm_url": None, "vllm_alone": False})
    spec = command.standalone_spec(settings, model_directory(settings))
    with status_line("Verifying weights"):
        preflight.check(settings, on_bytes=lambda _: None)
    where = f"ASR_VLLM_URL=http://HOST:{spec.port} where ASR_MODEL is the same"
    print(f"{spec.name} serves {settings.model}, for {where}", flush=True)
    if warning := standalone.warning(settings):
        print(warning, file=sys.stderr)
    os.execve(spec.command[0], spec.command, dict(spec.environment))


@task
@handle_errors
def start(_: Context) -> None:
    """Start the server in the background and wait until it is ready; does nothing where it is."""
    _start(load_settings())


@task(help={"now": "break off what was accepted; a server that does not end even so is killed"})
@handle_errors
def stop(_: Context, now: bool = False) -> None:
    """Let the server answer what it has accepted (ASR_DRAIN_SECONDS at most), then end it."""
    _stop(load_settings(), now=now)


@task(help={"now": "break off what was accepted; a server that does not end even so is killed"})
@handle_errors
def restart(_: Context, now: bool = False) -> None:
    """Stop, then start: with the settings as they are now."""
    settings = load_settings()
    _stop(settings, now=now, task="restart")
    _start(settings)


@task(help={"json": "print JSON instead of lines"})
@handle_errors
def status(_: Context, json: bool = False) -> None:
    """Print how the server is; exit code 0 if it is ready, 3 if there is none, 1 if there is one that is not ready."""
    from runtime.ops.process import status as present
    from runtime.ops.process.status import status as ask

    found = ask(load_settings())
    text = json_.dumps(found.document(), indent=2, ensure_ascii=False) if json else present.format_status(found)
    print(stdio.for_reading(text, sys.stdout))
    if found.exit_code:
        raise Exit(code=found.exit_code)


@task(help={"follow": "go on with what is added, until the server ends or Ctrl-C", "lines": "so many from the end"})
@handle_errors
def logs(_: Context, follow: bool = False, lines: int = 100) -> None:
    """Print the end of the server's log."""
    from runtime.host import docker
    from runtime.ops.process import foreign, state
    from runtime.ops.process import status as reading

    settings = load_settings()
    files = state.state_files(settings)
    if not state.is_locked(files.lock):
        if container := foreign.find_container(settings):
            return docker.run(container.logs(lines, follow=follow))
        foreign.check_not_foreign(settings, "logs")
    process = state.read_state(files).process if follow else None
    try:
        for line in reading.follow(files.log, process, lines):
            print(stdio.for_reading(line, sys.stdout), flush=follow)
        if follow:
            print("The server does not run." if process is None else "The server has ended.", file=sys.stderr)
    except KeyboardInterrupt:
        print(file=sys.stderr)


@task(
    help={
        "operators": "the compiled operators in ASR_OP_CACHE_DIR, which are compiled again when they are used next",
        "downloads": "what interrupted fetches and the hubs' clients left beside the weights",
        "cann_log": "the logs that CANN wrote, in cann-log under ASR_OUT_DIR",
        "dry_run": "only tell what would be freed",
    }
)
@handle_errors
def clear_cache(
    _: Context, operators: bool = False, downloads: bool = False, cann_log: bool = False, dry_run: bool = False
) -> None:
    """Give back what is kept for later: without options, memory of the device that the server has cached."""
    from runtime.ops import cache

    settings = load_settings()
    if not (operators or downloads or cann_log):
        print(cache.clear_device(settings, dry_run=dry_run))
    if operators:
        print(cache.clear_operators(settings, dry_run=dry_run))
    if downloads:
        print(cache.clear_downloads(settings, dry_run=dry_run))
    if cann_log:
        print(cache.clear_cann_log(settings, dry_run=dry_run))


def _start(settings: Settings) -> None:
    from runtime.ops import exposure
    from runtime.ops.process.control import start as run
    from runtime.progress import status_line

    if warning := exposure.warning(settings):
        print(f"The server {warning}", file=sys.stderr)
    with status_line("Starting", announce=False) as line:
        server = run(settings, on_stage=line.show)
    print(f"{'Runs already, ready' if server.already else 'Ready'}: {server.url}   pid {server.pid}, log {server.log}")


def _stop(settings: Settings, *, now: bool, task: str = "stop") -> None:
    from runtime.ops.process import foreign
    from runtime.ops.process.control import stop as run
    from runtime.progress import status_line

    try:
        with status_line("Stopping"):
            stopped = run(settings, now=now)
    except KeyboardInterrupt:
        raise Exit("stop: interrupted; the server still ends → invoke status", code=INTERRUPTED) from None
    if stopped is None:
        foreign.check_not_foreign(settings, task)
        print(f"No server runs on port {settings.port}.")
    else:
        print(stopped)

"""The container: what `make up`, `make down` and their kin run."""

import os
import sys

from invoke import Context, Exit, task

from env.settings import Settings
from env.sources import load_settings
from runtime.tasks.errors import handle_errors


@task
@handle_errors
def build(_: Context) -> None:
    """Build the image that the settings mean, from its pinned stack."""
    from runtime.host import docker
    from runtime.ops.deploy import image

    docker.check_engine()
    image.build(_settings())


@task
@handle_errors
def pull(_: Context) -> None:
    """Pull the image that ASR_IMAGE names, or the base that the image is built on, and print what pins it."""
    from env.field import variable
    from runtime.host import docker
    from runtime.ops.deploy import image

    docker.check_engine()
    settings = _settings()
    image.pull(settings)
    setting, name = ("image", settings.image) if settings.image else ("base_image", image.base_image(settings))
    if found := image.pinned(name):
        print(f"This very image, in .env or the environment: {variable(setting)}={found}")


@task
@handle_errors
def up(_: Context) -> None:
    """Check the host, have the image, start the server and wait until it is ready; with ASR_MONITORING, watch it.

    With ASR_VLLM_ALONE it is a vLLM, for servers elsewhere.
    """
    _up(_settings())


@task
@handle_errors
def down(_: Context) -> None:
    """Drain the server and remove its container, and those that watch it."""
    from runtime.ops.deploy import compose
    from runtime.ops.process import state

    settings = load_settings()  # without asking for the NPUs, whose driver may be why it shall end
    if not compose.down(settings):
        advice = state.invoke_advice(settings)
        print(
            f"No server in a container on port {settings.port} → {advice}"
            if advice
            else f"No server on port {settings.port}."
        )


@task
@handle_errors
def restart(_: Context) -> None:
    """Start the server anew, as `container.up` does, even where nothing has changed."""
    _up(_settings(), anew=True)


@task
@handle_errors
def rollback(_: Context) -> None:
    """Go back to the image that served before, with the settings that it ran with."""
    from runtime.host import docker
    from runtime.ops.deploy import compose, releases
    from runtime.progress import status_line

    docker.check_engine()
    settings = _settings()
    release = releases.before(settings)
    # Its own compose file is on record, and not what is there by that name now.
    _check_up(releases.settings_of(release, settings).model_copy(update={"compose_file": None}))
    with status_line("Starting", announce=False) as line:
        compose.roll_back(settings, release, on_stage=line.show, say=_say)
    print(f"Ready: {release.title}   `make up` goes forward again, to what this clone and the settings are now")


@task
@handle_errors
def logs(_: Context) -> None:
    """Follow the server's log; Ctrl-C ends it."""
    _compose("logs", "logs", "--follow", "--tail", "200", "asr")


@task
@handle_errors
def ps(_: Context) -> None:
    """Show the server's container, and those that watch it."""
    _compose("ps", "ps")


@task
@handle_errors
def shell(_: Context) -> None:
    """Open a shell in the server's container, with CANN's environment."""
    _compose("shell", "exec", "asr", "/kit/docker/bin/with-cann", "bash")


@task(help={"yes": "do not ask", "everything": "weights and .env too"})
@handle_errors
def uninstall(_: Context, yes: bool = False, everything: bool = False) -> None:
    """Ask, then remove what the kit has put on this host, but not weights and settings."""
    from env.errors import UsageError
    from runtime.host.probe import Host
    from runtime.ops.deploy import uninstall as removal
    from runtime.ops.support_bundle import settings_for

    settings = settings_for(Host())  # even where the NPUs cannot be told
    found = removal.find(settings, everything=everything)
    kept = removal.kept(settings, everything=everything)
    print("\n".join(["Removes:", *(f"  {part.name}" for part in found), "Keeps:", *(f"  {name}" for name in kept)]))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("uninstall", "nobody can be asked, and nothing was removed", "make uninstall YES=1")
        print("Remove all this? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Exit("nothing was removed", code=1)
    failures = removal.remove(found, say=print)
    for failure in failures:
        print(f"Not removed: {failure}", file=sys.stderr)
    if failures:
        raise Exit(f"{len(failures)} of {len(found)} could not be removed", code=1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _up(settings: Settings, *, anew: bool = False) -> None:
    from runtime.ops.deploy import compose, monitoring, mounts, override, standalone
    from runtime.progress import status_line

    _check_up(settings)
    if out_of_reach := override.proxies_out_of_reach(os.environ):
        words = (
            "a proxy on this host's loopback, which no container reaches, so that the server fetches URLs without it"
        )
        advice = "name it by an address that containers reach"
        print(f"{', '.join(out_of_reach)}: {words} → {advice}", file=sys.stderr)
    for warning in mounts.warnings(settings, override.user(settings)):
        print(warning, file=sys.stderr)
    with status_line("Starting", announce=False) as line:
        url = compose.up(settings, on_stage=line.show, say=_say, anew=anew)
    if settings.vllm_alone:
        if warning := standalone.warning(settings):
            print(warning, file=sys.stderr)
        print(f"Ready: {url}   make logs, make down")
        print(f"For servers elsewhere, where ASR_MODEL is the same: {standalone.address(settings)}")
        return
    compose.try_curl(settings)
    if monitoring.wanted(settings):
        for service, address in monitoring.addresses(settings).items():
            print(f"{service.capitalize()}: {address}")
    print(f"Ready: {url}   make logs, make down")


def _check_up(settings: Settings) -> None:
    """Print what the doctor finds amiss at a glance, and an operator's own compose file; go no further where it must
    not."""
    from runtime.host.probe import Host
    from runtime.ops.doctor import checks, examine_host
    from runtime.ops.doctor.checks import OWN_FILE
    from runtime.progress import status_line
    from runtime.tables import console

    with status_line("Examining") as line:
        found = examine_host(settings, Host(on_wait=line.step), quick=True)
    amiss = [finding for finding in found if finding.status != "pass" or finding.code == OWN_FILE]
    if amiss:
        console().print(checks.table(amiss))
    failed = [finding.code for finding in amiss if finding.status == "fail"]
    if failed:
        raise Exit(f"not started, and nothing changed: {', '.join(failed)} → invoke doctor", code=1)


def _compose(target: str, *words: str) -> None:
    """Run a compose command on this clone's server, for a make target."""
    from runtime.host import docker
    from runtime.ops.deploy import compose
    from runtime.ops.deploy.compose_project import own_containers

    docker.check_engine()
    settings = load_settings()
    own_containers(settings, target)
    compose.compose(settings, *words)


def _settings() -> Settings:
    from runtime.ops.deploy.compose import host_settings

    return host_settings()

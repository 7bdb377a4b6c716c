"""The container's life, from the host: image, start, readiness, end."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from env.errors import KitError
from env.field import variable
from env.settings import Settings
from env.sources import PROJECT, load_settings, operator_environment, profile_names
from runtime import demo
from runtime.files import write_whole
from runtime.host import docker, local_client
from runtime.host.docker import START_PERIOD, ContainerState, DockerError, NotReadyError, await_ready
from runtime.host.npu_host import NPU_MANAGER, demo_refused
from runtime.host.npu_smi import NpuSmiError, profile_for, read_report
from runtime.host.probe import Host
from runtime.ops.deploy import container_logs, image, monitoring, override, own_compose, releases, standalone
from runtime.ops.deploy.compose_project import COMPOSE, SERVICE, container_id, filters, own_containers
from runtime.ops.deploy.image import PROXIES
from runtime.ops.deploy.releases import WRITTEN, Release
from runtime.ops.doctor.npu import signs
from runtime.ops.process import state as record
from runtime.urls import ANY_IPV6, local_name, url

CLIP = (demo.CLIPS / "english-1.wav").relative_to(PROJECT)
ONCE_READY = "unless-stopped"  # survives a crash and a reboot of the host; docker/compose.yaml says why not before
OTHER_PORTS = "for a port that is taken: ASR_PORT, or of what watches the server ASR_GRAFANA_PORT, ASR_PROMETHEUS_PORT"
SERVES_AGAIN = 4  # exit code

NO_NPU = "cpu"


class ServesAgainError(KitError):
    """What was started did not become ready, and what served before serves again."""

    exit_code = SERVES_AGAIN


@dataclass(frozen=True)
class RunningRelease:
    """What serves on a port: how to run it again, and the proxies that it was given, which are not on disk."""

    release: Release
    proxies: dict[str, str]


def up(
    settings: Settings,
    *,
    on_stage: Callable[[str], None],
    say: Callable[[str], None],
    root: Path = Path("/"),
    anew: bool = False,
) -> str:
    """Have the server, or with ASR_VLLM_ALONE a vLLM, run and be ready, and what watches it answer; returns its URL.
    Nothing changes where they run already as the settings say, unless the server shall start `anew`. `say` is told from
    what to what it goes.

    Raises KitError where settings contradict each other, an image cannot be had, or another clone of the kit has a
    server on the port: then what runs is as it was. Where
    a container cannot start, or it ends before it is ready, what served before comes back and the error is
    ServesAgainError; where nothing did, the server is stopped, so that it does not start again and again.
    """
    standalone.check(settings)
    docker.check_engine()
    own_containers(settings)
    image.ensure(settings)
    image.check_stack(settings)
    if monitoring.wanted(settings):
        monitoring.prepare(settings)
    before = serving(settings)
    with _on_disk(settings, before.release if before else None) as files:
        with _unless_refused(override.host_file(settings)):
            override.write_host_file(settings, root=root)
            _check_files(settings)
        after = releases.describe(settings, compose_files(settings))
        say(_change(settings, before, after))
        with _falling_back(settings, before, files, after, on_stage):
            command = [*_up_command(before, after), *(["--force-recreate"] if anew else [])]
            with container_logs.kept(settings, container_id(settings)):
                compose(settings, *command, SERVICE, advice=OTHER_PORTS)
            _await(settings, after, on_stage)
    releases.keep(settings, *([before.release] if before else []), after)
    if monitoring.wanted(settings):
        compose(settings, "up", "--detach", "--remove-orphans", advice=OTHER_PORTS)
        monitoring.await_answers(settings, lambda service: container_id(settings, service))
    return url(settings)


def roll_back(
    settings: Settings, release: Release, *, on_stage: Callable[[str], None], say: Callable[[str], None]
) -> None:
    """Have the port's server run as a release did, image and settings. What watches it is left as it is.

    Raises ServesAgainError or another KitError where it does not become ready, as `up` does.
    """
    own_containers(settings)
    before, release = serving(settings), releases.named(release)
    say(_change(settings, before, release))
    with (
        _on_disk(settings, release) as files,
        _on_disk(settings, before.release if before else None) as earlier,
        _falling_back(settings, before, earlier, release, on_stage),
    ):
        _run(settings, files, _up_command(before, release))
        _await(settings, release, on_stage)
    releases.go_back(settings, release)


def down(settings: Settings) -> bool:
    """Drain the server, and remove the containers and their network, which Docker tells by their label; returns False
    where there was none. What Prometheus has recorded is kept, and what `make rollback` goes back to. Raises KitError
    where they are another clone's."""
    docker.check_engine()
    if found := [container.name for container in own_containers(settings)]:
        with container_logs.kept(settings, container_id(settings)):
            docker.run(["docker", "stop", *found])
            docker.run(["docker", "rm", *found])
    if networks := docker.read_output(["docker", "network", "ls", "--format", "{{.Name}}", *filters(settings)]).split():
        docker.run(["docker", "network", "rm", *networks])
    monitoring.remove(settings)
    override.host_file(settings).unlink(missing_ok=True)
    return bool(found)


def serving(settings: Settings) -> RunningRelease | None:
    """What serves on the port, as far as it can be run again: it has become ready, and its files are there. What is not
    on record is described by compose's files as they are now. Raises KitError where they cannot be read."""
    written, container = _text(override.host_file(settings)), container_id(settings)
    found = docker.read_output(["docker", "inspect", "--type", "container", container]) if container else ""
    if not found or written is None:
        return None
    (entry,) = json.loads(found)
    state, image_id, last = ContainerState.of(entry), str(entry["Image"]), None
    with suppress(KitError):  # of which is told when the next release is put on record
        last = next(reversed(releases.read(settings)), None)
    known = last is not None and last.serves(image_id, written)
    if state.status != "running" or not (known or state.health == "healthy"):
        return None
    try:
        release = last if last and known else releases.describe(settings, compose_files(settings), image_id=image_id)
    except (OSError, ValueError, LookupError, TypeError):  # files that somebody has damaged since
        return None
    variables = dict(line.partition("=")[::2] for line in entry["Config"]["Env"] or [])
    proxies = {name: variables[name] for name in PROXIES if name in variables}
    return RunningRelease(releases.named(release), proxies)


def compose(settings: Settings, *words: str, advice: str = "") -> None:
    """Run a compose command on this host's server. Raises DockerError if there never was one, or if it fails: then with
    `advice`."""
    docker.run(_compose(settings, *words), advice=advice)


def compose_files(settings: Settings) -> list[Path]:
    """What compose reads, in the order in which it merges them."""
    return [COMPOSE, override.host_file(settings), *own_compose.files(settings)]


def try_curl(settings: Settings) -> None:
    """Show and run the curl command that an operator can start from. Raises DockerError if it fails."""
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    if settings.tls_cert_file:  # which is for the name that clients use, not for this machine's addresses
        command.append("--insecure")
    if settings.api_key or settings.keys_file:  # a key does not belong into a command line
        command.append(f"{url(settings)}/health/ready")
    else:
        command += ["--form", f"file=@{CLIP}", f"{url(settings)}/v1/audio/transcriptions"]
    if shutil.which("curl"):
        docker.run(command)
        print()


def _compose(settings: Settings, *words: str, files: Sequence[Path] = ()) -> list[str]:
    second = override.host_file(settings)
    if not second.exists():
        advice = record.invoke_advice(settings) or "make up"
        raise DockerError(second.name, "is not there: no server was started on this port", advice)
    options = [
        "--project-name",
        override.project_name(settings),
        *docker.file_options(*(files or compose_files(settings))),
    ]
    if files:
        options += ["--project-directory", str(COMPOSE.parent)]
    if monitoring.wanted(settings):
        options += ["--profile", monitoring.PROFILE]
    return [*docker.compose_command(), *options, *words]


def _text(path: Path) -> str | None:
    """What a file says; None where it is not there. Raises KitError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KitError(str(path), f"cannot be read: {error.strerror}", f"sudo chown $USER {path}") from None


@contextmanager
def _unless_refused(written: Path) -> Iterator[None]:
    """Put a file back as it was where what is done with it fails."""
    text = _text(written)
    try:
        yield
    except KitError:
        if text is None:
            written.unlink(missing_ok=True)
        else:
            write_whole(written, text, mode=0o600)
        raise


def _check_files(settings: Settings) -> None:
    """Raises DockerError, after compose has said why, where it does not take its files."""
    if not docker.read_output(_compose(settings, "config", "--services")):
        docker.run(_compose(settings, "config", "--quiet"))


@contextmanager
def _on_disk(settings: Settings, release: Release | None) -> Iterator[list[Path]]:
    """Write a release's files beside that of the port: a disk that is full later does not keep it from being run.
    Raises KitError where they cannot be written."""
    if not release:
        yield []
        return
    parent = override.host_file(settings).parent
    try:
        folder = tempfile.TemporaryDirectory(prefix=".part-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise KitError(str(parent), f"cannot be written: {error.strerror}") from None
    with folder as name:
        files = [Path(name, f"{place}.yaml") for place in range(len(release.files))]
        for path, text in zip(files, release.files, strict=True):
            write_whole(path, text, mode=0o600)
        yield files


@contextmanager
def _falling_back(
    settings: Settings,
    before: RunningRelease | None,
    files: Sequence[Path],
    after: Release,
    on_stage: Callable[[str], None],
) -> Iterator[None]:
    """Where what is started does not become ready, run what served before again, by its `files`, or stop where nothing
    did."""
    try:
        yield
    except KitError as failed:
        if not before:
            if isinstance(failed, NotReadyError):
                compose(settings, "stop", SERVICE)
            raise
        on_stage(f"{after.title} did not become ready; back to {before.release.title}")
        release = before.release
        try:
            _run(settings, files, _up_command(None, release), environment={**os.environ, **before.proxies})
            _await(settings, release, on_stage)
        except (KitError, OSError) as again:
            with suppress(KitError):  # compose has said why
                compose(settings, "stop", SERVICE)
            why, advice = (again.reason, again.advice) if isinstance(again, KitError) else (str(again), "")
            reason = f"{failed.reason}\n{release.title}, which served before, did not come back: {why}"
            raise NotReadyError(failed.subject, reason, advice) from None
        releases.keep(settings, release)
        reason = f"did not become ready: {failed.reason}\n{release.title} serves again, with the settings that it had"
        raise ServesAgainError(after.title, reason, "correct what the log says, then make up") from None


def _run(
    settings: Settings, files: Sequence[Path], command: Sequence[str], environment: Mapping[str, str] | None = None
) -> None:
    """Have compose run a release by its own files, of which the one that the kit writes becomes that of the port."""
    written = override.host_file(settings)
    try:
        files[WRITTEN].replace(written)
    except OSError as error:
        raise KitError(str(written), f"cannot be replaced: {error.strerror}") from None
    words = _compose(settings, *command, SERVICE, files=[*files[:WRITTEN], written, *files[WRITTEN + 1 :]])
    with container_logs.kept(settings, container_id(settings)):
        docker.run(words, environment=environment, advice=OTHER_PORTS)


def _up_command(before: RunningRelease | None, after: Release) -> list[str]:
    """Compose v1 would end what runs after the time that the new settings allow, not that by which it drains."""
    command, grace = ["up", "--detach", "--remove-orphans"], _grace(before.release) if before else 0
    return [*command, "--timeout", str(grace)] if grace > _grace(after) else command


def _grace(release: Release) -> int:
    return int(str(release.service["stop_grace_period"]).removesuffix("s"))


def _await(settings: Settings, release: Release, on_stage: Callable[[str], None]) -> None:
    """Return when the port's container is ready as the release is; from then on it survives a reboot."""
    container, service = container_id(settings), release.service
    ask = standalone.ask_vllm if "command" in service else local_client.ask_health
    published = str(service["ports"][0]).removesuffix(f"{settings.port}:{settings.port}").rstrip(":").strip("[]")
    scheme = "https" if variable("tls_cert_file") in service["environment"] else "http"
    address = f"{scheme}://{local_name(published or ANY_IPV6)}:{settings.port}"
    start = str(service.get("healthcheck", {}).get("start_period", START_PERIOD))
    await_ready(container, partial(ask, address), on_stage=on_stage, limit=float(start.removesuffix("s")))
    docker.run(["docker", "update", "--restart", ONCE_READY, container])


def _change(settings: Settings, before: RunningRelease | None, after: Release) -> str:
    """From what to what the port's server goes, in a line. Names of settings alone: some are secret."""
    project = override.project_name(settings)
    if not before:
        return f"{project}: {after.title} starts"
    old, new = before.release.service, after.service
    differing = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} - {"environment", "image"}
    variables = old["environment"].items() ^ new["environment"].items()
    names = ", ".join(sorted(differing | {name for name, _ in variables}))
    if before.release.image_id == after.image_id:
        return f"{project}: {after.title} stays" + (f", with other settings: {names}" if names else "")
    return f"{project}: {before.release.title} → {after.title}" + (f", with other settings: {names}" if names else "")


def host_settings() -> Settings:
    """The settings, with the profile that fits this host if ASR_PROFILE is not set. Raises as `load_settings` and
    `detect` do."""
    environment = operator_environment()
    if environment.get(variable("profile")):
        return load_settings()
    return load_settings({**environment, variable("profile"): detect(Host())})


def detect(host: Host) -> str:
    """The profile for the NPUs that npu-smi lists; cpu for a host without an NPU.

    Raises NpuSmiError where there are NPUs, but npu-smi fails, or no profile is known to fit them all; KitError where
    their driver is not loaded.
    """
    if host.state(NPU_MANAGER).kind == "missing":
        if found := signs(host):
            raise demo_refused(found, loaded=False)
        return NO_NPU
    chips = read_report(host).chips
    fitting = profile_for(chips)
    if not fitting:
        names = ", ".join(dict.fromkeys(chip.name for chip in chips)) or "none"
        choice = ", ".join(name for name in profile_names() if name != NO_NPU)
        raise NpuSmiError(
            "ASR_PROFILE", f"no profile is known to fit this host's chips: {names}", f"set it to: {choice}"
        )
    return fitting

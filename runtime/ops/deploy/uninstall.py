"""`make uninstall`: what the kit has put on a host, and its removal.

That is in Docker, found by labels, and in the kit's own directory; docker/UPGRADING.md lists it for people.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from env.errors import KitError
from env.field import variable
from env.settings import Settings
from env.sources import PROJECT, under_project
from runtime.host import docker
from runtime.ops.deploy import image, own_compose, releases
from runtime.ops.deploy.compose_project import DIRECTORY_LABEL, PROJECT_LABEL
from runtime.ops.deploy.releases import Release
from runtime.ops.process import state
from runtime.ops.process.control import stop

OUT = PROJECT / "out"
# In out/: a port on which there was a server.
TRACE = re.compile(r"(?:compose|monitoring|releases|server)-(\d+)(?:\.json)?")
LOADED = PROJECT / ".loaded-images"  # by docker/install.sh, a name a line
UNITS = Path("/etc/systemd/system")  # to which docker/systemd has one copy its unit
# The last one is what this process runs from.
MADE = tuple(PROJECT / name for name in ("out", ".vllm", ".reference", ".clients", LOADED.name, ".installed", ".venv"))
VALUABLE = (PROJECT / "weights", PROJECT / ".env")


@dataclass(frozen=True)
class Removal:
    """Something that can be removed. `remove` raises KitError where it cannot be. What `runs` writes to files."""

    name: str
    remove: Callable[[], object]
    runs: bool = False


def find(settings: Settings, *, everything: bool) -> list[Removal]:
    """What the kit has put on this host, in the order in which it can be removed; with `everything`, weights and
    settings too. Where Docker cannot be asked, that is a part whose removal says why."""
    found = [
        Removal(f"server on port {each.port}, without container", partial(stop, each), True)
        for each in _started(settings)
    ]
    found += _units()
    try:
        docker.check_engine()
        found += _of_docker(settings)
    except KitError as error:
        found.append(Removal("what is in Docker", partial(_refuse, error), True))
    paths = [path for path in (*(VALUABLE if everything else ()), *MADE) if path.exists() or path.is_symlink()]
    return found + [Removal(f"{path.relative_to(PROJECT)}", partial(_remove, path)) for path in paths]


def kept(settings: Settings, *, everything: bool) -> list[str]:
    """What stays: what was there before the kit, what is not to be had again, and what others may use."""
    own = (PROJECT / "docker" / "kubernetes" / "own", *(PROJECT / "docker" / "certificates").glob("*"))
    elsewhere = (settings.out_dir, settings.op_cache_dir, settings.model, settings.weights_lock)
    paths = [
        *(() if everything else VALUABLE),
        *(path for path in own if path.name != "README.md"),
        *(path for each in elsewhere if each and not (path := under_project(each)).is_relative_to(PROJECT)),
        *own_compose.files(settings),
    ]
    below = (image.base_image(settings), settings.prometheus_image, settings.grafana_image)
    return [
        *dict.fromkeys(str(path) for path in paths if path.exists()),
        *(f"image {name}" for name in below if image.labels(name)),
        f"{PROJECT}, the kit itself",
    ]


def remove(found: list[Removal], *, say: Callable[[str], None]) -> list[str]:
    """Remove one after another, whatever becomes of those before; returns what could not be removed, and why. Files
    that something may still write to are left."""
    failures: list[str] = []
    running = False
    for part in found:
        try:
            if running and part.name in (OUT.name, ".venv", LOADED.name, *(path.name for path in VALUABLE)):
                raise KitError(part.name, "is left for what still runs", "stop that, then again")
            part.remove()
            say(f"Removed: {part.name}")
        except KitError as error:
            running = running or part.runs
            failures.append(f"{part.name}: {error}")
    return failures


def _started(settings: Settings) -> Iterator[Settings]:
    """The settings with the port of each server that runs without a container."""
    for path in sorted((under_project(settings.out_dir) / "run").glob("server-*.lock")):
        port = path.stem.partition("-")[2]
        if port.isdigit() and state.is_locked(path):
            yield settings.model_copy(update={"port": int(port)})


def _units() -> Iterator[Removal]:
    """The services of systemd that run from here, which are an operator's own."""
    for path in sorted(UNITS.glob("qwen3-asr*.service")):
        if path.is_file() and str(PROJECT) in path.read_text(encoding="utf-8", errors="replace"):
            advice = f"sudo systemctl disable --now {path.name} && sudo rm {path}"
            yield Removal(str(path), partial(_refuse, KitError(path.name, "is a service of systemd", advice)), True)


def _of_docker(settings: Settings) -> Iterator[Removal]:
    here = [f"label={DIRECTORY_LABEL}={PROJECT / 'docker'}"]
    told = _list(["ps", "--all"], here, f'{{{{.Names}}}}\t{{{{.Label "{PROJECT_LABEL}"}}}}')
    containers = dict(line.partition("\t")[::2] for line in told)
    for name in containers:
        yield Removal(f"container {name}", partial(_remove_container, name), True)
    traces = under_project(settings.out_dir).glob("*")
    ports = {str(settings.port), *(found[1] for path in traces if (found := TRACE.fullmatch(path.name)))}
    for project in sorted({*containers.values(), *(f"qwen3-asr-{port}" for port in ports)}):
        ours = [f"label={PROJECT_LABEL}={project}"]
        if set(_list(["ps", "--all"], ours)) - containers.keys():
            continue  # another clone's, on the same port of the same host
        for kind in ("network", "volume"):
            for name in _list([kind, "ls"], ours, "{{.Name}}"):
                yield Removal(f"{kind} {name}", partial(_docker, kind, "rm", name))
    built = _list(["images"], [f"label={image.CLONE_LABEL}={image.clone()}"], "{{.Repository}}:{{.Tag}} {{.ID}}")
    # An image without a name is removed by its id.
    labelled = [identity if "<none>" in name else name for name, identity in (line.split() for line in built)]
    for name in dict.fromkeys([*labelled, *_named(settings)]):
        yield Removal(f"image {name}", partial(_docker, "image", "rm", name))


def _named(settings: Settings) -> Iterator[str]:
    """The kit's images that bundles brought, that the settings mean, and that served: without those that another clone
    built, as each clone gives the same names, unless they were chosen here."""
    loaded = LOADED.read_text(encoding="utf-8").split() if LOADED.is_file() else []
    served = list(_releases(settings))
    chosen = {*loaded, settings.image, *(each.image for each in served if variable("image") in each.settings)}
    for name in (*loaded, image.image_name(settings), *(each.image for each in served)):
        labels = image.labels(name)
        ours = name in chosen or labels.get(image.CLONE_LABEL, "") in ("", image.clone())
        if labels.get(image.STACK_LABEL) and ours:
            yield name


def _releases(settings: Settings) -> Iterator[Release]:
    """What is on record of every port, as far as it can be read."""
    for path in sorted(under_project(settings.out_dir).glob("releases-*.json")):
        port = path.stem.partition("-")[2]
        with suppress(KitError):
            yield from releases.read(settings.model_copy(update={"port": port}))


def _list(words: list[str], filters: list[str], form: str = "{{.Names}}") -> list[str]:
    options = [word for each in filters for word in ("--filter", each)]
    return docker.read_output(["docker", *words, *options, "--format", form]).splitlines()


def _remove_container(name: str) -> None:
    _docker("update", "--restart", "no", name)
    _docker("stop", name)  # which drains, for as long as the container was given
    _docker("rm", name)


def _docker(*words: str) -> None:
    result = subprocess.run(["docker", *words], capture_output=True, encoding="utf-8", errors="replace", check=False)
    if result.returncode:
        raise KitError(f"docker {' '.join(words)}", result.stderr.strip() or f"exit code {result.returncode}")


def _remove(path: Path) -> None:
    """Remove a file, a directory or a link, of which what it leads to stays. Raises KitError where any of it stays."""
    if path.is_symlink() or path.is_file():
        try:
            path.unlink()
        except OSError as error:
            raise KitError(str(path), str(error.strerror), f"sudo rm {path}") from None
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise KitError(str(path), "cannot be removed whole, as it is not all yours", f"sudo rm -r {path}")


def _refuse(error: KitError) -> None:
    raise error

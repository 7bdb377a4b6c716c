"""What served on a port before: the last images that became ready, each with the settings that it ran with last."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from env.errors import KitError
from env.field import note, variable
from env.settings import Settings
from env.sources import SettingsError, load_settings, operator_environment, under_project
from runtime.files import write_whole
from runtime.host import docker
from runtime.host.docker import read_output, run
from runtime.ops.deploy import image, override
from runtime.ops.deploy.compose_project import SERVICE

KEPT = 3  # releases of a port, and images of this clone
KEPT_TAG = "kept-"  # begins the name that is given to an image whose own means another by now
WRITTEN = 1  # the place among compose's files of the one that the kit writes


@dataclass(frozen=True)
class Release:
    """An image that became ready, and all that it takes to run it again.

    `title` is its version and commit. `files` are the texts of compose's files, in the order in which compose merges
    them; `settings` the variables that the operator had set, by which the host is examined.
    """

    image: str
    image_id: str
    title: str
    files: list[str]
    settings: dict[str, str]

    @property
    def service(self) -> dict[str, Any]:
        """The server, as the kit described it to compose."""
        return dict(json.loads(self.files[WRITTEN])["services"][SERVICE])

    def serves(self, image_id: str, written: str) -> bool:
        """Whether it is what a container of this image is that compose runs by this file."""
        return (self.image_id, self.files[WRITTEN]) == (image_id, written)


def describe(settings: Settings, files: Iterable[Path], *, image_id: str = "") -> Release:
    """The release that compose's `files` describe: with the image that their name means now, and the settings in force,
    or of a container that runs, whose image is known and whose settings nobody recorded."""
    given = {} if image_id else _given(settings)
    found = Release("", image_id, "", [path.read_text(encoding="utf-8") for path in files], given)
    name = str(found.service["image"])
    return replace(found, image=name, image_id=image_id or image.identity(name), title=image.title(image_id or name))


def read(settings: Settings) -> list[Release]:
    """The port's releases, the last one at the end. Raises KitError where their record cannot be read, or not be
    understood, such as that of a newer kit."""
    path = _record(settings)
    try:
        known = [Release(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        if all(release.service for release in known):
            return known
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KitError(str(path), f"cannot be read: {error.strerror}", f"sudo chown $USER {path}") from None
    except (ValueError, TypeError, LookupError):
        pass
    raise KitError(str(path), "is no record of releases that this version of the kit knows", f"mv {path} {path}.old")


def keep(settings: Settings, *served: Release) -> None:
    """Put on record that these became ready, in this order, and remove the images that are too old now. What fails of
    it is printed: they serve all the same."""
    with _printing("Not on record for make rollback"):
        latest = {release.image_id: release for release in served}
        known = [*(entry for entry in read(settings) if entry.image_id not in latest), *latest.values()]
        _write(settings, known[-KEPT:])
        with _printing("No image that is too old is removed"):
            _prune(settings, [entry.image_id for entry in known[:-KEPT]])


def go_back(settings: Settings, release: Release) -> None:
    """Put on record that a release serves again, and that those after it are given up. What fails of it is printed."""
    with _printing("Not on record for make rollback"):
        known = read(settings)
        place = next(place for place, entry in enumerate(known) if entry.image_id == release.image_id)
        _write(settings, [*known[:place], release])


def before(settings: Settings) -> Release:
    """The release to go back to: the one before the last, or the last one where what was started since did not become
    ready. Raises KitError where there is none, or its image is gone."""
    known, deployed = read(settings), override.host_file(settings)
    if known and deployed.exists() and deployed.read_text(encoding="utf-8") != known[-1].files[WRITTEN]:
        known.append(known[-1])
    if len(known) < 2:
        raise KitError("make rollback", f"no other image has been ready on port {settings.port}", "make up")
    release = known[-2]
    if not image.identity(release.image_id):
        raise KitError(release.image, "served before, and is no longer on this host", "git checkout, then make up")
    for mount in release.service["volumes"]:
        source = str(mount).partition(":")[0]
        if source.startswith("/") and not Path(source).exists():  # Docker would make an empty directory of it
            raise KitError(source, f"is not there, and {release.title} had it mounted", "put it back")
    return release


def settings_of(release: Release, present: Settings) -> Settings:
    """The settings that a release ran with, as far as they are still known, by which the host is examined; those of the
    `present` where nobody recorded them, or a value is allowed no more."""
    known = {
        key for name, field in type(present).model_fields.items() for key in (variable(name), note(field, "exports"))
    }
    given = {key: text for key, text in release.settings.items() if key in known}
    try:
        return load_settings(given) if given else present
    except SettingsError:
        return present


def named(release: Release) -> Release:
    """The release with a name that means its very image, which a tag that moved on does not."""
    if image.identity(release.image) == release.image_id:
        return release
    digits = release.image_id.rpartition(":")[2][: docker.SHORT_ID]
    name = f"{image.NAME}:{KEPT_TAG}{digits}"
    image.tag(release.image_id, name)
    described = json.loads(release.files[WRITTEN])
    described["services"][SERVICE]["image"] = name
    files = release.files.copy()
    files[WRITTEN] = json.dumps(described, indent=2) + "\n"
    return replace(release, image=name, files=files)


def _prune(settings: Settings, dropped: list[str]) -> None:
    """Remove the images that fell off the record, and the older ones of this clone: all but the last three, those on
    record for any port, and those that a container uses or that somebody has given another name. Raises KitError where
    a record cannot be read."""
    on_record = _on_record(settings)
    built = _newest_first(
        _lines("docker", "images", "--no-trunc", "--quiet", "--filter", f"label={image.CLONE_LABEL}={image.clone()}")
    )
    containers = _lines("docker", "ps", "--all", "--quiet")
    used = _lines("docker", "inspect", "--format", "{{.Image}}", *containers) if containers else []
    for identity in dict.fromkeys([*built[KEPT:], *dropped]):
        names = image.names(identity)
        ours = image.CONTEXT_LABEL in image.labels(identity) and all(
            name.startswith(image.NAME + ":") for name in names
        )
        if ours and identity not in (*used, *on_record):
            with _printing("Not removed"):  # another image may be built on it
                run(["docker", "rmi", *(names or [identity])])


def _given(settings: Settings) -> dict[str, str]:
    """What the operator set, without what fetches weights, whose token is nobody else's; and the profile in force."""
    environment, found = operator_environment(), {variable("profile"): settings.profile}
    for name, field in type(settings).model_fields.items():
        for key in (note(field, "exports"), variable(name)):
            if key and environment.get(key) and not name.startswith("hub"):
                found[key] = environment[key]
    return found


@contextmanager
def _printing(what: str) -> Iterator[None]:
    """Print what fails on standard error: what is on record matters less than the server."""
    try:
        yield
    except KitError as error:
        print(f"{what}: {error}", file=sys.stderr)


def _record(settings: Settings) -> Path:
    return under_project(settings.out_dir) / f"releases-{settings.port}.json"


def _write(settings: Settings, releases: list[Release]) -> None:
    held = [asdict(named(release)) for release in releases if image.identity(release.image_id)]
    write_whole(_record(settings), json.dumps(held, indent=2) + "\n", mode=0o600)


def _on_record(settings: Settings) -> set[str]:
    found = set()
    for path in under_project(settings.out_dir).glob("releases-*.json"):
        found |= {
            release.image_id for release in read(settings.model_copy(update={"port": path.stem.partition("-")[2]}))
        }
    return found


def _newest_first(identities: list[str]) -> list[str]:
    """`docker images` sorts by whole seconds, in which several small images may be built."""
    if not identities:
        return []
    created = _lines("docker", "image", "inspect", "--format", "{{.Created}} {{.Id}}", *identities)
    by_time = sorted((line.split() for line in created), key=lambda entry: entry[0].rstrip("Z"), reverse=True)
    return [identity for _, identity in by_time]


def _lines(*command: str) -> list[str]:
    return list(dict.fromkeys(read_output(command).splitlines()))

"""What an image holds, written inside it when it is built: python -m runtime.ops.image_manifest > manifest.json"""

import argparse
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from packaging.utils import canonicalize_name

from env.errors import KitError
from env.sources import PROJECT
from runtime.version import version

MANIFEST = PROJECT / "manifest.json"

# Where CANN says its version: Huawei's installation guide, "Installing CANN", which calls the file
# ascend_toolkit_install.info. Since 8.5 it is in cann-<version>, to which `cann` leads.
CANN = ("cann", "ascend-toolkit/latest", "cann-*")
CANN_VERSION = re.compile(r"^version=(\S+)$", re.MULTILINE)

RPM_FIELDS = ("NAME", "EPOCHNUM", "VERSION", "RELEASE", "ARCH", "LICENSE")


class ManifestError(KitError):
    """A manifest that is not there, is none, or cannot be made."""


@dataclass(frozen=True)
class Package:
    """An installed package. `licence` is what the package says, empty where it says nothing; only packages of the
    operating system have an `architecture`, as the distribution names it."""

    name: str
    version: str
    licence: str = ""
    architecture: str = ""


@dataclass(frozen=True)
class Manifest:
    """What an image holds. Empty texts stand for what it does not have or was not told."""

    written: str  # UTC, ISO 8601
    version: str  # of the kit
    commit: str
    stack: str
    base_image: str
    architecture: str  # as the kernel names it: x86_64, aarch64
    os: str  # such as Ubuntu 22.04.5 LTS
    os_id: str  # such as ubuntu
    os_version: str  # such as 22.04
    python: str
    cann: str
    python_packages: tuple[Package, ...]
    os_packages: tuple[Package, ...]
    os_package_kind: Literal["deb", "rpm", ""]
    base_digest: str = ""  # by which a registry has that image, such as sha256:…; older manifests lack it


def collect(
    *, stack: str = "", base_image: str = "", base_digest: str = "", commit: str = "", root: Path = Path("/")
) -> Manifest:
    """The manifest of this Python and of the operating system under `root`. Raises ManifestError where rpm fails."""
    release = dotenv_values(root / "etc" / "os-release", interpolate=False)
    kind, os_packages = _os_packages(root)
    return Manifest(
        written=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=version(),
        commit=commit,
        stack=stack,
        base_image=base_image,
        architecture=platform.machine(),
        os=release.get("PRETTY_NAME") or "",
        os_id=(release.get("ID") or "").lower(),
        os_version=release.get("VERSION_ID") or "",
        python=platform.python_version(),
        cann=cann_version(root),
        python_packages=_by_name(_python_packages()),
        os_packages=_by_name(os_packages),
        os_package_kind=kind,
        base_digest=base_digest,
    )


def read_manifest(path: Path = MANIFEST) -> Manifest:
    """The manifest in a file. Raises ManifestError where there is none."""
    try:
        return parse_manifest(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise ManifestError(str(path), reason, "it is written while an image is built, and is only there") from None


def parse_manifest(text: str, where: str) -> Manifest:
    """The manifest that `text` is. Raises ManifestError that names `where` if it is none."""
    try:
        entries = json.loads(text)
        packages = {
            key: tuple(Package(**package) for package in entries[key]) for key in ("python_packages", "os_packages")
        }
        return Manifest(**{**entries, **packages})
    except (ValueError, TypeError, KeyError) as error:
        raise ManifestError(where, f"is no manifest of the kit: {error}", "build the image again: make build") from None


def cann_version(root: Path = Path("/")) -> str:
    """The version of the CANN under `root`; empty if there is none."""
    for folder in CANN:
        for path in (root / "usr/local/Ascend").glob(f"{folder}/*-linux/ascend_*_install.info"):
            if found := CANN_VERSION.search(path.read_text(encoding="utf-8", errors="replace")):
                return found[1]
    return ""


def _by_name(packages: Iterator[Package]) -> tuple[Package, ...]:
    return tuple(sorted(packages, key=lambda package: (package.name.lower(), package.architecture)))


def _python_packages() -> Iterator[Package]:
    """What this Python imports and, where it stands above another, what that one does: of a package found twice by one
    of them, the one found first."""
    beneath = [
        entry for entry in sys.path if sys.prefix != sys.base_prefix and Path(entry).is_relative_to(sys.base_prefix)
    ]
    told = set()
    for path in (sys.path, beneath):
        seen = set()
        for found in importlib.metadata.distributions(path=path):
            name = _first(found.metadata, "Name")
            # A directory that an interrupted pip left behind has no name.
            if not name or canonicalize_name(name) in seen:
                continue
            seen.add(canonicalize_name(name))
            if (key := (canonicalize_name(name), found.version)) not in told:
                told.add(key)
                yield Package(name, found.version, _licence(found.metadata))


def _licence(metadata: importlib.metadata.PackageMetadata) -> str:
    """An SPDX expression where there is one, else the licence's name. Some put its whole text where that belongs."""
    if expression := _first(metadata, "License-Expression"):
        return expression
    stated = _first(metadata, "License").strip()
    if stated and stated != "UNKNOWN" and "\n" not in stated:
        return stated
    names = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or [] if text.startswith("License")]
    return next((name for name in names if name != "OSI Approved"), "")


def _first(metadata: importlib.metadata.PackageMetadata, field: str) -> str:
    """The field's text; empty if there is none."""
    return next(iter(metadata.get_all(field) or []), "")


def _os_packages(root: Path) -> tuple[Literal["deb", "rpm", ""], Iterator[Package]]:
    status = root / "var/lib/dpkg/status"
    if status.is_file():
        return "deb", _deb_packages(status.read_text(encoding="utf-8"))
    if (root / "var/lib/rpm").is_dir() or (root / "usr/lib/sysimage/rpm").is_dir():
        return "rpm", _rpm_packages(root)
    return "", iter(())


def _deb_packages(status: str) -> Iterator[Package]:
    """What dpkg's database says is installed; a package that was removed stays in there with its configuration."""
    for stanza in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            yield Package(fields["Package"], fields["Version"], architecture=fields["Architecture"])


def _rpm_packages(root: Path) -> Iterator[Package]:
    form = "\t".join(f"%{{{field}}}" for field in RPM_FIELDS) + "\n"
    command = ["rpm", "--root", str(root), "--query", "--all", "--queryformat", form]
    try:
        output = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True).stdout
    except FileNotFoundError:
        raise ManifestError("rpm", "is not on PATH, although this system has rpm packages") from None
    except subprocess.CalledProcessError as error:
        raise ManifestError("rpm --query --all", f"failed: {error.stderr.strip()}") from None
    for line in output.splitlines():
        name, epoch, version, release, architecture, licence = line.split("\t")
        # gpg-pubkey entries are keys that the database keeps, not packages.
        if name != "gpg-pubkey":
            full = f"{version}-{release}" if epoch == "0" else f"{epoch}:{version}-{release}"
            yield Package(name, full, licence, architecture)


def main() -> int:
    """Print the manifest as JSON; exit code 1, with the reason on standard error, where it cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m runtime.ops.image_manifest", description=__doc__)
    parser.add_argument("--stack", default="", help="the stack that is installed")
    parser.add_argument("--base", default="", help="the image that this one is built on")
    parser.add_argument("--base-digest", default="", help="that image's digest, where it is from a registry")
    parser.add_argument("--commit", default="", help="the kit's commit")
    told = parser.parse_args()
    try:
        manifest = collect(stack=told.stack, base_image=told.base, base_digest=told.base_digest, commit=told.commit)
    except KitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(manifest), ensure_ascii=False, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

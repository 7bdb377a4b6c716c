"""`invoke sbom`: a manifest as a software bill of materials in CycloneDX, which scanners and auditors read."""

import subprocess
from collections.abc import Iterator, Mapping

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from env.settings import Settings
from runtime.host.docker import DockerError, check_engine, show
from runtime.ops.deploy.image import NAME, image_name, labels
from runtime.ops.deploy.override import KIT
from runtime.ops.image_manifest import MANIFEST, Manifest, Package, parse_manifest
from runtime.weights.lockfile import LockedModel

# Not the newest, 1.7: what reads a bill of materials lags behind what writes it.
SPECIFICATION = SchemaVersion.V1_6


def image_manifest(settings: Settings) -> Manifest:
    """The manifest in the image that the settings mean.

    Raises DockerError where there is no docker, no such image or nothing in it that can be read, ManifestError where
    what it has is no manifest.
    """
    check_engine()
    image, path = image_name(settings), str(KIT / MANIFEST.name)
    if not labels(image):
        raise DockerError(image, "is not on this host", "make build, or make pull where ASR_IMAGE names it")
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "cat", image, path]
    show(command)
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if result.returncode:
        raise DockerError(image, f"{path} cannot be read: {result.stderr.strip()}", "build it again: make build")
    return parse_manifest(result.stdout, f"{path} in {image}")


def render(manifest: Manifest, *, image: str = "", weights: Mapping[str, LockedModel] | None = None) -> str:
    """The bill of materials as JSON: of the image of that name, or of the environment on its own, and of the weights
    that go with it, by repository."""
    models = (_model(repository, entry) for repository, entry in (weights or {}).items())
    bom = Bom(components=[*_components(manifest), *models])
    bom.metadata.component = _subject(manifest, image)
    bom.register_dependency(bom.metadata.component, bom.components)
    return make_outputter(bom, OutputFormat.JSON, SPECIFICATION).output_as_string(indent=1) + "\n"


def _subject(manifest: Manifest, image: str) -> Component:
    """What the bill is of, with what the manifest says of its making."""
    name, version = _name_and_version(image, manifest)
    facts = {"commit": manifest.commit, "stack": manifest.stack, "base-image": manifest.base_image}
    facts |= {"base-digest": manifest.base_digest}
    facts |= {"architecture": manifest.architecture, "written": manifest.written}
    return Component(
        type=ComponentType.CONTAINER if image else ComponentType.APPLICATION,
        name=name,
        version=version,
        bom_ref=f"{name}:{version}",
        properties=[Property(name=f"{NAME}:{key}", value=value) for key, value in facts.items() if value],
    )


def _name_and_version(image: str, manifest: Manifest) -> tuple[str, str]:
    """`host:5000/asr:1.0@sha256:…` → host:5000/asr, 1.0. Without a tag the kit's version stands in for it."""
    named = image.partition("@")[0] or NAME
    name, _, tag = named.rpartition(":")
    return (name, tag) if name and "/" not in tag else (named, manifest.version)


def _components(manifest: Manifest) -> Iterator[Component]:
    parts = {
        ComponentType.OPERATING_SYSTEM: (manifest.os_id, manifest.os_version),
        ComponentType.PLATFORM: ("python", manifest.python),
        ComponentType.FRAMEWORK: ("cann", manifest.cann),
    }
    for kind, (name, version) in parts.items():
        if name and version:
            yield Component(type=kind, name=name, version=version, bom_ref=f"{kind.value}:{name}")
    for package in manifest.python_packages:
        yield _component(package, PackageURL("pypi", None, package.name, package.version))
    for package in manifest.os_packages:
        yield _component(package, _os_purl(package, manifest))


def _os_purl(package: Package, manifest: Manifest) -> PackageURL:
    """Such as pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12. In one of rpm the epoch stands apart."""
    epoch, version = "", package.version
    if manifest.os_package_kind == "rpm" and ":" in version:
        epoch, _, version = version.partition(":")
    qualifiers = {
        "arch": package.architecture,
        "distro": f"{manifest.os_id}-{manifest.os_version}",
        "epoch": epoch,
    }
    return PackageURL(manifest.os_package_kind, manifest.os_id, package.name, version, qualifiers)


def _component(package: Package, purl: PackageURL) -> Component:
    """A package; its licence as an SPDX id or expression where it is one, else by name."""
    declared = LicenseAcknowledgement.DECLARED
    make = LicenseFactory().make_from_string
    return Component(
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[make(package.licence, license_acknowledgement=declared)] if package.licence else [],
    )


def _model(repository: str, entry: LockedModel) -> Component:
    """Weights, with every file of theirs and its sum."""
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=repository,
        version=entry.commit or entry.revision or None,
        bom_ref=f"model:{repository}",
        properties=[Property(name=f"{NAME}:hub", value=entry.hub)],
        components=[
            Component(
                type=ComponentType.FILE,
                name=name,
                bom_ref=f"model:{repository}/{name}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=record.sha256)],
            )
            for name, record in entry.files.items()
        ],
    )

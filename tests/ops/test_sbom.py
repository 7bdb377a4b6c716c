"""The software bill of materials: valid, complete, and from an image or in words why not."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.validation.json import JsonStrictValidator
from invoke import Context, Exit

import runtime.ops
from env.errors import KitError
from env.settings import Settings
from env.sources import load_settings
from runtime.ops.image_manifest import Manifest, Package, collect
from runtime.ops.sbom import SPECIFICATION, image_manifest, render
from runtime.tasks import kit
from runtime.weights import lockfile
from runtime.weights.lockfile import LockedFile

IMAGE = "registry.example.com:5000/speech/asr:1.2-cpu"


@pytest.fixture(scope="module")
def here() -> Manifest:
    """This Python and this system, as they are."""
    return collect(stack="cpu", base_image="python:3.11-slim", base_digest="sha256:0", commit="0123abc")


@pytest.fixture
def image_settings() -> Settings:
    return load_settings({"ASR_IMAGE": IMAGE})


def components(text: str) -> dict[str, dict[str, Any]]:
    return {entry["bom-ref"]: entry for entry in json.loads(text)["components"]}


def rendered(manifest: Manifest, *packages: Package, **changes: Any) -> dict[str, dict[str, Any]]:
    bare = replace(manifest, python_packages=(), os_packages=packages, **changes)
    text = render(bare)
    assert JsonStrictValidator(SPECIFICATION).validate_str(text) is None
    return components(text)


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, *, inspect: str = "", run: str = "") -> None:
    """A docker whose engine answers, with shell for `docker image inspect` and `docker run`."""
    command = folder / "docker"
    command.write_text(
        f'#!/bin/sh\ncase "$1" in\ninfo) echo 20.10 ;;\nimage) {inspect or "exit 1"} ;;\n'
        f'run) echo "$*" > {folder}/asked; {run or "exit 1"} ;;\nesac\n',
        encoding="utf-8",
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_bill_of_this_environment_is_valid_and_whole(here: Manifest) -> None:
    text = render(here, image=IMAGE)
    assert JsonStrictValidator(SPECIFICATION).validate_str(text) is None
    found = components(text)
    purls = [entry["purl"] for entry in found.values() if "purl" in entry]
    assert len(purls) == len(set(purls)) == len(here.python_packages) + len(here.os_packages)
    content = json.loads(text)
    (root,) = [entry for entry in content["dependencies"] if "dependsOn" in entry]
    assert root["ref"] == content["metadata"]["component"]["bom-ref"]
    assert set(root["dependsOn"]) == set(found)


def test_the_validator_would_find_a_fault(here: Manifest) -> None:
    content = json.loads(render(replace(here, os_packages=())))
    content["components"][0]["licence"] = "MIT"
    assert JsonStrictValidator(SPECIFICATION).validate_str(json.dumps(content)) is not None


@pytest.mark.parametrize(
    ("image", "name", "version"),
    [
        (IMAGE, "registry.example.com:5000/speech/asr", "1.2-cpu"),
        (f"{IMAGE}@sha256:{'0' * 64}", "registry.example.com:5000/speech/asr", "1.2-cpu"),
        ("localhost:5000/asr", "localhost:5000/asr", "{kit}"),
        ("asr", "asr", "{kit}"),
        ("", "qwen3-asr-ascend", "{kit}"),
    ],
)
def test_what_the_bill_is_of(image: str, name: str, version: str, here: Manifest) -> None:
    content = json.loads(render(replace(here, os_packages=()), image=image))
    subject = content["metadata"]["component"]
    assert subject["type"] == ("container" if image else "application")
    assert (subject["name"], subject["version"]) == (name, version.format(kit=here.version))
    facts = {entry["name"]: entry["value"] for entry in subject["properties"]}
    assert facts["qwen3-asr-ascend:commit"] == "0123abc"
    assert facts["qwen3-asr-ascend:base-image"] == "python:3.11-slim"
    assert facts["qwen3-asr-ascend:base-digest"] == "sha256:0"
    assert content["serialNumber"].startswith("urn:uuid:")
    assert content["metadata"]["timestamp"]


def test_python_packages_are_named_as_scanners_know_them(here: Manifest) -> None:
    package = Package("Typing_Extensions", "4.16.0+cpu", "PSF-2.0")
    text = render(replace(here, python_packages=(package,), os_packages=()))
    assert components(text)["pkg:pypi/typing-extensions@4.16.0%2Bcpu"]["version"] == "4.16.0+cpu"


@pytest.mark.parametrize(
    ("kind", "system", "package", "purl"),
    [
        ("deb", ("debian", "12"), Package("tar", "1:1.34+dfsg-1.2", architecture="arm64"),
         "pkg:deb/debian/tar@1:1.34%2Bdfsg-1.2?arch=arm64&distro=debian-12"),
        ("deb", ("ubuntu", "22.04"), Package("libstdc++6", "12.3.0-1ubuntu1", architecture="amd64"),
         "pkg:deb/ubuntu/libstdc%2B%2B6@12.3.0-1ubuntu1?arch=amd64&distro=ubuntu-22.04"),
        ("rpm", ("openeuler", "24.03"), Package("shadow", "2:4.9-8.oe2403", "BSD", "aarch64"),
         "pkg:rpm/openeuler/shadow@4.9-8.oe2403?arch=aarch64&distro=openeuler-24.03&epoch=2"),
    ],
)  # fmt: skip
def test_os_packages_are_named_as_scanners_know_them(
    kind: Any, system: tuple[str, str], package: Package, purl: str, here: Manifest
) -> None:
    found = rendered(here, package, os_package_kind=kind, os_id=system[0], os_version=system[1])
    assert found[purl]["version"] == package.version


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", {"license": {"id": "MIT", "acknowledgement": "declared"}}),
        ("apache-2.0", {"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}),
        ("MIT AND BSD-3-Clause", {"expression": "MIT AND BSD-3-Clause", "acknowledgement": "declared"}),
        ("GPLv2+ and LGPLv2+", {"license": {"name": "GPLv2+ and LGPLv2+", "acknowledgement": "declared"}}),
    ],
)
def test_a_licence_is_spdx_where_it_can_be(licence: str, expected: dict[str, Any], here: Manifest) -> None:
    found = rendered(here, Package("bash", "5.2", licence, "amd64"), Package("dash", "0.5"), os_package_kind="rpm")
    by_name = {entry["name"]: entry for entry in found.values()}
    assert by_name["bash"]["licenses"] == [expected]
    assert "licenses" not in by_name["dash"]


def test_the_system_python_and_cann_are_in_it(here: Manifest) -> None:
    found = {entry["name"]: entry for entry in rendered(here, cann="8.5.1").values()}
    assert (found["cann"]["type"], found["cann"]["version"]) == ("framework", "8.5.1")
    assert (found["python"]["type"], found["python"]["version"]) == ("platform", here.python)
    assert found[here.os_id]["type"] == "operating-system"
    assert "cann" not in {entry["name"] for entry in rendered(here, cann="").values()}


def test_the_weights_are_in_it_file_by_file(here: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "weights.lock"
    files = {"config.json": LockedFile(7, "0a" * 32), "model.safetensors": LockedFile(8, "0b" * 32)}
    lockfile.write(
        path,
        {"Qwen/Qwen3-ASR-1.7B": lockfile.LockedModel("modelscope", revision="master", commit="c0ffee", files=files)},
    )
    text = render(replace(here, python_packages=(), os_packages=()), weights=lockfile.read(path))
    assert JsonStrictValidator(SPECIFICATION).validate_str(text) is None
    (model,) = [entry for entry in components(text).values() if entry["type"] == "machine-learning-model"]
    assert (model["name"], model["version"]) == ("Qwen/Qwen3-ASR-1.7B", "c0ffee")
    sums = {part["name"]: part["hashes"] for part in model["components"]}
    assert sums == {name: [{"alg": "SHA-256", "content": record.sha256}] for name, record in files.items()}


def test_the_manifest_is_read_from_the_image(
    here: Manifest, image_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(asdict(here)), encoding="utf-8")
    fake_docker(tmp_path, monkeypatch, inspect='echo \'{"a": "b"}\'', run=f"cat {tmp_path}/manifest.json")
    assert image_manifest(image_settings) == here
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert asked == f"run --rm --network none --entrypoint cat {IMAGE} /kit/manifest.json\n"


@pytest.mark.parametrize(
    ("inspect", "run", "words"),
    [
        ("exit 1", "exit 1", [IMAGE, "is not on this host", "make build"]),
        ('echo \'{"a": "b"}\'', "echo 'cat: No such file' >&2; exit 1", [IMAGE, "No such file", "make build"]),
        ('echo \'{"a": "b"}\'', "echo hello", [f"/kit/manifest.json in {IMAGE}", "is no manifest"]),
    ],
)
def test_an_image_without_a_manifest_is_told(
    inspect: str,
    run: str,
    words: list[str],
    image_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_docker(tmp_path, monkeypatch, inspect=inspect, run=run)
    with pytest.raises(KitError) as caught:
        image_manifest(image_settings)
    assert all(word in str(caught.value) for word in words)


def test_a_host_without_docker_is_told(
    image_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitError, match="docker: is not installed"):
        image_manifest(image_settings)


def test_the_task_writes_a_file_or_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit.sbom(Context(), output=str(tmp_path / "new" / "sbom.json"), here=True)
    assert capsys.readouterr().out == ""
    kit.sbom(Context(), here=True)
    for text in (capsys.readouterr().out, (tmp_path / "new" / "sbom.json").read_text(encoding="utf-8")):
        assert json.loads(text)["bomFormat"] == "CycloneDX"
        assert any(purl.startswith("pkg:pypi/invoke@") for purl in components(text))


def test_where_the_library_is_missing_the_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "runtime.ops.sbom")
    monkeypatch.delattr(runtime.ops, "sbom")
    for name in [name for name in sys.modules if name.startswith("cyclonedx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cyclonedx", None)
    with pytest.raises(Exit, match=r"needs cyclonedx.*python env/install\.py host"):
        kit.sbom(Context(), here=True)

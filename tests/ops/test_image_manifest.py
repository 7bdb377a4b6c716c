"""What an image says of itself: packages of Python and of the system, CANN, and where there are none."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from env.sources import PROJECT
from runtime.ops.image_manifest import ManifestError, Package, cann_version, collect, read_manifest

# As dpkg writes it: an epoch, a second architecture, and a package that is gone but for its configuration.
DPKG_STATUS = """\
Package: bash
Essential: yes
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b2
Description: GNU Bourne Again SHell
 Bash is an sh-compatible command language interpreter.
Homepage: http://tiswww.case.edu/php/chet/bash/bashtop.html

Package: old-server
Status: deinstall ok config-files
Architecture: all
Version: 1.0

Package: tar
Status: hold ok installed
Architecture: arm64
Version: 1:1.34+dfsg-1.2
"""
RPM_OUTPUT = (
    "bash\t0\t5.1.8\t6.oe2203\taarch64\tGPLv3\n"
    "gpg-pubkey\t0\tb25e7f66\t5e9b4d5f\t(none)\tpubkey\n"
    "shadow\t2\t4.9\t8.oe2203\taarch64\tBSD-3-Clause AND GPL-2.0-or-later\n"
)
INSTALL_INFO = """\
package_name=Ascend-cann-toolkit
version=8.5.1
innerversion=V100R001C25SPC001B210
compatible_version=[V100R001C15],[V100R001C25]
arch=aarch64
os=linux
path=/usr/local/Ascend/cann-8.5.1/aarch64-linux
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system's files: Debian's, without packages."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text(
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n', encoding="utf-8"
    )
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def fake_rpm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    command = write(folder / "bin" / "rpm", f"#!/bin/sh\n{script}")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_python_packages_are_those_that_pip_lists(root: Path) -> None:
    command = [sys.executable, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    found = {package.name: package.version for package in collect(root=root).python_packages}
    assert found == {entry["name"]: entry["version"] for entry in listed}


def test_debian_packages_are_those_that_dpkg_lists() -> None:
    if not shutil.which("dpkg-query"):
        pytest.skip("dpkg-query is not installed")
    form = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    expected = {(name, version, machine) for name, version, machine, status in rows if status == "installed"}
    manifest = collect()
    assert {(found.name, found.version, found.architecture) for found in manifest.os_packages} == expected
    assert manifest.os_package_kind == "deb"
    assert manifest.os_id == platform.freedesktop_os_release()["ID"]


def test_what_dpkg_has_removed_is_not_there(root: Path) -> None:
    write(root / "var/lib/dpkg/status", DPKG_STATUS)
    manifest = collect(root=root)
    assert manifest.os_packages == (
        Package("bash", "5.2.15-2+b2", architecture="amd64"),
        Package("tar", "1:1.34+dfsg-1.2", architecture="arm64"),
    )
    assert (manifest.os, manifest.os_version) == ("Debian GNU/Linux 12 (bookworm)", "12")


def test_rpm_packages_are_those_that_rpm_lists(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "var/lib/rpm").mkdir(parents=True)
    write(root / "rpm.txt", RPM_OUTPUT)
    fake_rpm(root, monkeypatch, f'[ "$2" = "{root}" ] && echo "$*" > {root}/asked && cat {root}/rpm.txt')
    manifest = collect(root=root)
    assert manifest.os_package_kind == "rpm"
    assert manifest.os_packages == (
        Package("bash", "5.1.8-6.oe2203", "GPLv3", "aarch64"),
        Package("shadow", "2:4.9-8.oe2203", "BSD-3-Clause AND GPL-2.0-or-later", "aarch64"),
    )
    assert "%{NAME}\t%{EPOCHNUM}\t" in (root / "asked").read_text(encoding="utf-8")


def test_rpm_that_fails_fails_in_words(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "usr/lib/sysimage/rpm").mkdir(parents=True)
    fake_rpm(root, monkeypatch, "echo 'error: cannot open Packages database' >&2; exit 1")
    with pytest.raises(ManifestError, match="cannot open Packages database"):
        collect(root=root)
    monkeypatch.setenv("PATH", str(root))
    with pytest.raises(ManifestError, match="not on PATH"):
        collect(root=root)


def test_a_system_without_either(tmp_path: Path) -> None:
    manifest = collect(root=tmp_path)
    assert (manifest.os, manifest.os_id, manifest.os_package_kind, manifest.os_packages) == ("", "", "", ())


@pytest.mark.parametrize(
    "path",
    [
        "cann-8.5.1/aarch64-linux/ascend_toolkit_install.info",
        "ascend-toolkit/latest/x86_64-linux/ascend_toolkit_install.info",
        "cann/aarch64-linux/ascend_toolkit_install.info",
    ],
)
def test_cann_is_found_where_each_release_puts_it(path: str, root: Path) -> None:
    assert cann_version(root) == ""
    write(root / "usr/local/Ascend" / path, INSTALL_INFO)
    assert cann_version(root) == "8.5.1"
    assert collect(root=root).cann == "8.5.1"


def test_the_cann_in_use_goes_before_another_beside_it(root: Path) -> None:
    ascend = root / "usr/local/Ascend"
    write(ascend / "cann-8.5.0/aarch64-linux/ascend_toolkit_install.info", INSTALL_INFO.replace("8.5.1", "8.5.0"))
    write(ascend / "cann-8.5.1/aarch64-linux/ascend_toolkit_install.info", INSTALL_INFO)
    (ascend / "cann").symlink_to("cann-8.5.1")
    assert cann_version(root) == "8.5.1"


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ("License-Expression: MIT AND BSD-3-Clause\nLicense: something else\n", "MIT AND BSD-3-Clause"),
        ("License: Apache 2.0\nClassifier: License :: OSI Approved :: MIT License\n", "Apache 2.0"),
        ("License: Permission is hereby granted\n        to any person\nClassifier: License :: Public Domain\n",
         "Public Domain"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved\n"
         "Classifier: License :: OSI Approved :: BSD License\n", "BSD License"),
        ("Classifier: Programming Language :: Python\n", ""),
    ],
)  # fmt: skip
def test_a_licence_is_what_the_package_states(
    fields: str, licence: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = root / "site"
    write(site / "odd-1.0.dist-info" / "METADATA", f"Metadata-Version: 2.4\nName: odd\nVersion: 1.0\n{fields}\n")
    (site / "~broken-2.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(site))
    found = collect(root=root).python_packages
    assert Package("odd", "1.0", licence) in found
    assert not any("broken" in str(package.name) for package in found)


def test_of_two_copies_the_one_that_is_imported_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "site" / "RICH-0.1.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: RICH\nVersion: 0.1\n\n")
    monkeypatch.syspath_prepend(str(root / "site"))
    assert [found.version for found in collect(root=root).python_packages if found.name.lower() == "rich"] == ["0.1"]


def test_the_command_writes_what_the_reader_reads(tmp_path: Path) -> None:
    told = ["--stack", "cpu", "--base", "python:3", "--base-digest", "sha256:0", "--commit", "abc"]
    command = [sys.executable, "-m", "runtime.ops.image_manifest", *told]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    manifest = read_manifest(write(tmp_path / "manifest.json", result.stdout))
    assert (manifest.stack, manifest.base_image, manifest.commit) == ("cpu", "python:3", "abc")
    assert manifest.base_digest == "sha256:0"
    written = json.loads(result.stdout)
    del written["base_digest"]  # as manifests before it
    assert read_manifest(write(tmp_path / "older.json", json.dumps(written))).base_digest == ""
    assert manifest.python == platform.python_version()
    assert f'version = "{manifest.version}"' in (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    assert manifest.python_packages == collect().python_packages


def test_an_image_needs_nothing_more_for_it_than_its_stack() -> None:
    script = "import sys, runtime.ops.image_manifest; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "cyclonedx", "yaml"} & set(result.stdout.split())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"python_packages": [{"nom": "rich"}], "os_packages": []}'])
def test_what_is_no_manifest_is_told(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "manifest.json", text)
    with pytest.raises(ManifestError, match="is no manifest of the kit") as caught:
        read_manifest(path)
    assert caught.value.subject == str(path)


def test_a_manifest_is_only_in_an_image(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"No such file.*while an image is built"):
        read_manifest(tmp_path / "manifest.json")

"""Installation: the real script, the real pip and a package index on loopback, with packages made for it."""

import functools
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.parse import quote

import pytest
from packaging.markers import Marker

from env import install, locks
from env.settings import Settings

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python of its own, without packages; pip is lent to it by `run`."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    return tmp_path / "venv/bin/python"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit with a stack `tiny` that pins one package, `asr-kit-probe` 1.0+cpu, of which no hash is known."""
    folder = tmp_path / "kit/env"
    (folder / "locks").mkdir(parents=True)
    shutil.copy(install.__file__, folder)
    write_lock(folder)
    return folder


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A directory with a wheel of asr-kit-probe 1.0+cpu."""
    wheel(tmp_path / "wheels", "1.0+cpu")
    return tmp_path / "wheels"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of a package index that knows asr-kit-probe, but has only its 2.0, as a CUDA build would be."""
    wheel(tmp_path / "web/simple/asr-kit-probe", "2.0")
    wheel(tmp_path / "web/extra/asr-kit-probe", "1.0+cpu")
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Lists and sends files, and writes no log."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def write_lock(
    folder: Path, *header: str, stack: str = "tiny", wanted: str = "asr-kit-probe==1.0+cpu", python: str = HERE
) -> None:
    """A lock for this Python, unless `python` names another."""
    lines = [locks.GENERATED, f"# stack {stack}, Python {python}, pins sha256:0", *header, "", wanted, ""]
    (folder / f"locks/{stack}.txt").write_text("\n".join(lines))


def wheel(folder: Path, version: str, name: str = "asr-kit-probe") -> str:
    """Write the wheel of a package that is an empty module; returns the requirement that a lock has for it."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = f"{module}-{version}.dist-info"
        archive.writestr(f"{module}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def run(python: Path, kit: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """env/install.py in its own Python, with this one's pip and a configuration that knows no index."""
    pip = pytest.importorskip("pip", reason="this Python has no pip to try the installation with")
    lent = kit.parent / "lent"
    if not lent.exists():
        lent.mkdir()
        (lent / "pip").symlink_to(Path(pip.__file__).parent)
    ours = ("PIP_", "TORCH_INDEX", "ASR_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PYTHONPATH": str(lent), "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        [str(python), str(kit / "install.py"), *arguments],
        env={**environment, "PIP_NO_INDEX": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_at_once(python: Path, kit: Path, *stacks: str) -> None:
    """It has nothing to do: there is neither anything to find packages in, nor anything to run pip with."""
    again = run(python, kit, *stacks, PYTHONPATH="")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def installed(python: Path, name: str = "asr-kit-probe") -> str:
    """The version of a package that is installed; empty if none is."""
    code = f"import importlib.metadata as m; print(*(d.version for d in m.distributions() if d.name == {name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_wheels_are_taken_from_a_directory_and_once(python: Path, kit: Path, wheels: Path) -> None:
    first = run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    assert first.returncode == 0, first.stderr
    assert "Installed tiny in" in first.stdout
    assert installed(python) == "1.0+cpu"
    assert_at_once(python, kit, "tiny")


def test_a_changed_lock_is_installed(python: Path, kit: Path, wheels: Path) -> None:
    run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    write_lock(kit, wanted=wheel(wheels, "2.0"))
    assert "Installed tiny in" in run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels)).stdout
    assert installed(python) == "2.0"


def test_what_pip_changed_since_is_put_right(python: Path, kit: Path, wheels: Path) -> None:
    run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    write_lock(kit, stack="other", wanted=wheel(wheels, "2.0"))
    run(python, kit, "other", PIP_FIND_LINKS=str(wheels))
    assert installed(python) == "2.0"
    assert run(python, kit, "tiny", PYTHONPATH="").returncode == 1, (
        "a stack of which a package was replaced is not there"
    )
    assert run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels)).returncode == 0
    assert installed(python) == "1.0+cpu"


def test_a_stack_that_another_one_holds_is_there_at_once(python: Path, kit: Path, wheels: Path) -> None:
    more = wheel(wheels, "1.0", "asr-kit-more")
    write_lock(kit, stack="whole", wanted=f"asr-kit-probe==1.0+cpu\n{more}")
    write_lock(kit, stack="part", wanted=more)
    run(python, kit, "whole", PIP_FIND_LINKS=str(wheels))
    assert_at_once(python, kit, "part")
    assert_at_once(python, kit, "whole")


def test_a_stack_adds_to_another_one_what_it_lacks(python: Path, kit: Path, wheels: Path) -> None:
    more = wheel(wheels, "1.0", "asr-kit-more")
    write_lock(kit, stack="whole", wanted=f"asr-kit-probe==1.0+cpu\n{more}")
    write_lock(kit, stack="part", wanted=more)
    run(python, kit, "part", PIP_FIND_LINKS=str(wheels))
    assert "Fetching 1 package\n" in run(python, kit, "whole", PIP_FIND_LINKS=str(wheels)).stdout
    assert_at_once(python, kit, "part", "whole", "tiny")


def test_stacks_that_cannot_be_in_one_python_are_refused(python: Path, kit: Path, wheels: Path) -> None:
    write_lock(kit, stack="other", wanted=wheel(wheels, "2.0"))
    refused = run(python, kit, "tiny", "other", PIP_FIND_LINKS=str(wheels))
    assert refused.returncode == 1
    assert "cannot be in one Python: asr-kit-probe 1.0+cpu and 2.0" in refused.stderr
    assert installed(python) == ""


def test_a_version_is_recognised_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in ("2026.1.5", "2026.01.05"):
        monkeypatch.setattr("importlib.metadata.version", lambda _, there=there: there)
        assert install.is_installed(install.Requirement("certifi", "2026.1.5"))
        assert not install.is_installed(install.Requirement("certifi", "2026.10.5"))
        assert not install.is_installed(install.Requirement("certifi", "2026.1.50"))


def test_an_installation_that_was_cut_off_is_not_taken_for_one(python: Path, kit: Path, wheels: Path) -> None:
    (packages,) = (python.parent.parent / "lib").glob("python*/site-packages")
    (packages / "asr_kit_probe-1.0+cpu.dist-info").mkdir()
    failed = run(python, kit, "tiny", PYTHONPATH="")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    done = run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    assert done.returncode == 0, done.stderr
    assert_at_once(python, kit, "tiny")


def test_what_is_installed_here_is_recognised() -> None:
    """A version that is never recognised would have pip run each time."""
    lock = install.find_lock("cpu")
    assert [
        wanted for wanted in install.read_lock(lock, HERE, os.uname().machine) if not install.is_installed(wanted)
    ] == []


def test_a_file_with_another_hash_is_refused(python: Path, kit: Path, wheels: Path) -> None:
    write_lock(kit, wanted=wheel(wheels, "2.0").replace("sha256:", "sha256:0000")[:-4])
    refused = run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert "not the one that the lock was made with" in refused.stderr
    assert installed(python) == ""


@pytest.mark.parametrize("hashed", [True, False])
def test_what_is_no_wheel_is_not_built(hashed: bool, python: Path, kit: Path, tmp_path: Path) -> None:
    """Its setup.py would run, whoever wrote it."""
    built = tmp_path / "built"
    archive = tmp_path / "sources" / "asr_kit_probe-2.0.tar.gz"
    archive.parent.mkdir()
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: asr-kit-probe\nVersion: 2.0\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        "backend.py": f"open({str(built)!r}, 'w').close()\n",
    }
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"asr_kit_probe-2.0/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    sum_of_it = hashlib.sha256(archive.read_bytes()).hexdigest()
    write_lock(kit, wanted="asr-kit-probe==2.0" + (f" \\\n    --hash=sha256:{sum_of_it}" if hashed else ""))
    refused = run(python, kit, "tiny", PIP_FIND_LINKS=str(archive.parent))
    assert refused.returncode == 1
    assert "No matching distribution found for asr-kit-probe==2.0" in refused.stderr
    assert not built.exists()


def test_one_of_several_hashes_is_enough(python: Path, kit: Path, wheels: Path) -> None:
    write_lock(kit, wanted=wheel(wheels, "2.0") + f" \\\n    --hash=sha256:{'0' * 64}")
    done = run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    assert done.returncode == 0, done.stderr
    assert installed(python) == "2.0"


def test_what_has_no_hash_comes_first_and_does_not_weaken_the_rest(python: Path, kit: Path, wheels: Path) -> None:
    more = wheel(wheels, "1.0", "asr-kit-more")
    write_lock(kit, wanted=f"{more[:-4]}0000\nasr-kit-probe==1.0+cpu")
    refused = run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert (installed(python), installed(python, "asr-kit-more")) == ("1.0+cpu", "")


def test_a_requirement_for_another_python_is_left_out(python: Path, kit: Path, wheels: Path) -> None:
    here, other = f"asr-kit-probe==1.0+cpu ; python_version == '{HERE}'", "asr-kit-more==1.0 ; python_version == '3.99'"
    write_lock(kit, wanted=f"{here} or python_version == '3.99'\n{other} \\\n    --hash=sha256:{'0' * 64}")
    done = run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels))
    assert done.returncode == 0, done.stderr
    assert (installed(python), installed(python, "asr-kit-more")) == ("1.0+cpu", "")


@pytest.mark.parametrize(
    ("marker", "places"),
    [
        ("python_full_version < '3.11'", {"3.10 x86_64", "3.10 aarch64"}),
        ("python_full_version == '3.11.*'", {"3.11 x86_64", "3.11 aarch64"}),
        ("python_full_version <= '3.11.0a6'", {"3.10 x86_64", "3.10 aarch64"}),
        ("python_full_version >= '3.11.4' and python_version < '3.12'", {"3.11 x86_64", "3.11 aarch64"}),
        ("python_version <= '3.10' and sys_platform != 'win32'", {"3.10 x86_64", "3.10 aarch64"}),
        ("(platform_machine == 'aarch64' and python_version == '3.10') or sys_platform == 'win32'", {"3.10 aarch64"}),
        ("python_version < '3.11' and (sys_platform == 'win32' or platform_machine == 'x86_64')", {"3.10 x86_64"}),
        ("platform_python_implementation == 'PyPy' or implementation_name != 'cpython'", set()),
    ],
)
def test_a_marker_means_what_it_means_to_pip(marker: str, places: set[str]) -> None:
    wanted = install.Requirement("numpy", "1", marker)
    linux = {"sys_platform": "linux", "implementation_name": "cpython", "platform_python_implementation": "CPython"}
    found, told = set(), set()
    for python, patch in (("3.10", "3.10.19"), ("3.11", "3.11.14")):
        for machine in install.MACHINES:
            here = {**linux, "python_version": python, "python_full_version": patch, "platform_machine": machine}
            if wanted.applies(python, machine):
                found.add(f"{python} {machine}")
            if Marker(marker).evaluate(here):
                told.add(f"{python} {machine}")
    assert found == told == places


def test_a_marker_that_is_not_understood_is_no_requirement_that_is_left_out() -> None:
    for marker in ("extra == 'all'", "python_version ~= '3.11'", "'3.11' in python_version"):
        with pytest.raises(install.InstallError, match="not understood"):
            install.Requirement("numpy", "1", marker).applies("3.11", "x86_64")


def test_a_setting_takes_torch_npu_from_the_package_index(
    python: Path, kit: Path, wheels: Path, tmp_path: Path
) -> None:
    wheel(wheels, "2.9.0.post1+git0", "torch-npu")
    other = wheel(tmp_path / "index", "2.9.0", "torch-npu").replace(" \\\n    ", " ")
    write_lock(kit, install.INDEX_TORCH_NPU_HEADER + other, wanted="torch-npu==2.9.0.post1+git0")
    for choice in ("", "wheel"):
        assert run(python, kit, "tiny", PIP_FIND_LINKS=str(wheels), ASR_TORCH_NPU=choice).returncode == 0
        assert installed(python, "torch-npu") == "2.9.0.post1+git0"
    done = run(python, kit, "tiny", PIP_FIND_LINKS=str(tmp_path / "index"), ASR_TORCH_NPU="index")
    assert done.returncode == 0, done.stderr
    assert installed(python, "torch-npu") == "2.9.0"
    refused = run(python, kit, "tiny", ASR_TORCH_NPU="indx")
    assert refused.returncode == 1
    assert "ASR_TORCH_NPU: 'indx' is not allowed, expected wheel or index" in refused.stderr


def test_the_installer_knows_what_the_setting_may_be() -> None:
    assert get_args(Settings.model_fields["torch_npu"].annotation) == install.TORCH_NPU


def test_the_lock_says_where_to_look_when_the_index_lacks_a_build(python: Path, kit: Path, index: str) -> None:
    write_lock(kit, f"{install.SOURCES_HEADER}--extra-index-url {index}/extra")
    done = run(python, kit, "tiny", PIP_NO_INDEX="0", PIP_INDEX_URL=f"{index}/simple")
    assert done.returncode == 0, done.stderr
    assert f"looking in {index}/extra" in done.stdout
    assert installed(python) == "1.0+cpu"


def test_a_wheel_at_an_address_is_found(python: Path, kit: Path, index: str) -> None:
    address = f"{index}/extra/asr-kit-probe/{quote('asr_kit_probe-1.0+cpu-py3-none-any.whl')}"
    write_lock(kit, f"{install.SOURCES_HEADER}--find-links {address}")
    done = run(python, kit, "tiny", PIP_NO_INDEX="0", PIP_INDEX_URL=f"{index}/simple")
    assert done.returncode == 0, done.stderr
    assert installed(python) == "1.0+cpu"


def test_a_mirror_of_torchs_index_is_taken(python: Path, kit: Path, index: str) -> None:
    write_lock(kit, f"{install.SOURCES_HEADER}--extra-index-url http://127.0.0.1:9/whl/cpu")
    mirror = {"PIP_INDEX_URL": f"{index}/simple", "TORCH_INDEX": f"{index}/extra"}
    done = run(python, kit, "tiny", PIP_NO_INDEX="0", **mirror)
    assert done.returncode == 0, done.stderr
    assert installed(python) == "1.0+cpu"


def test_another_build_is_never_taken_and_pips_words_are_shown(python: Path, kit: Path, index: str) -> None:
    failed = run(python, kit, "tiny", PIP_NO_INDEX="0", PIP_INDEX_URL=f"{index}/simple")
    assert failed.returncode == 1
    assert "No matching distribution found for asr-kit-probe==1.0+cpu" in failed.stderr
    assert "PIP_INDEX_URL" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert installed(python) == ""
    assert run(python, kit, "tiny").returncode == 1, "a failed installation must not count as done"


def test_a_python_without_wheels_is_refused(python: Path, kit: Path) -> None:
    write_lock(kit, python="3.99")
    refused = run(python, kit, "tiny")
    assert refused.returncode == 1
    assert "the tiny stack needs Python 3.99; this is" in refused.stderr


@pytest.mark.parametrize(("arguments", "reason"), [([], "name a stack: tiny"), (["npu"], "there is no stack 'npu'")])
def test_the_stacks_there_are_are_listed(python: Path, kit: Path, arguments: list[str], reason: str) -> None:
    refused = run(python, kit, *arguments)
    assert refused.returncode == 1
    assert reason in refused.stderr

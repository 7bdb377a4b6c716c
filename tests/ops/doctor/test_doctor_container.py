"""The doctor inside the kit's container, and the NPU's first use, on a simulated one."""

import json
from pathlib import Path

import fake_hosts
import pytest
from fake_hosts import answer, fault, kit_container, nodes, take_away, write
from simulated_npu import environment

from env.sources import load_settings
from env.stacks import load_stack
from runtime.host.probe import Host
from runtime.ops.doctor import Finding, docker, examine
from runtime.ops.doctor.findings import CheckResult, Examination

INSIDE = {"ASR_PROFILE": "atlas-800-a2"}  # what compose hands on
INFO = "ascend_toolkit_install.info"


def found(root: Path, **variables: str) -> dict[str, Finding]:
    return {finding.title: finding for finding in examine(load_settings(INSIDE | variables), root=root)}


def versions(**changes: str) -> str:
    """The packages of the npu stack, as recorded."""
    pins = load_stack("npu").pins_for(python="3.11", machine="aarch64")
    there = {pin.name: pin.version for pin in pins} | {"python": "3.11", "machine": "aarch64"} | changes
    return "".join(f"{name} {version}\n" for name, version in there.items() if version)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A container that is well, with its NPU tried."""
    kit_container(tmp_path)
    answer(tmp_path, "packages", versions())
    opened = {"device": "npu:0", "description": "Ascend910B4", "torch_npu": "2.9.0.post1"}
    calculated = {"error": 0.0017, "tolerance": 0.01, "dtype": "bfloat16"}
    answer(tmp_path, "trial", f"a warning\n{json.dumps(opened)}\n{json.dumps(calculated)}\n")
    return tmp_path


def test_a_container_that_is_well(root: Path) -> None:
    findings = found(root)
    assert {finding.status for finding in findings.values()} == {"pass"}
    assert findings["CANN"].evidence == "8.5.1"
    assert findings["Packages"].evidence.endswith("of the npu stack, as pinned")
    assert findings["torch_npu"].evidence == "torch_npu 2.9.0.post1 opens npu:0 (Ascend910B4)"
    assert findings["Calculation"].evidence == "bfloat16 on npu:0, off the CPU's result by 1.7e-03"
    assert findings["Driver and CANN"].evidence == "driver 25.5.1, CANN 8.5.1"
    assert "davinci5, davinci_manager" in findings["Device nodes"].evidence
    assert "NPU 5: 29942 of 32768 MB free" in findings["Device memory"].evidence
    assert not {"Docker", "Compose", "Port", "Mounts", "Firmware", "Hub"} & findings.keys()


def test_cann_where_older_releases_have_it(root: Path) -> None:
    take_away(root, "/usr/local/Ascend/cann-8.5.1")
    assert found(root)["CANN"].status == "fail"
    write(root, f"/usr/local/Ascend/cann-8.5.1/aarch64-linux/{INFO}", "version=8.5.1\n")
    (root / "usr/local/Ascend/ascend-toolkit/latest").unlink()
    assert found(root)["CANN"].evidence == "8.5.1"


@pytest.mark.parametrize(("version", "status"), [("8.5.2", "warn"), ("9.1.0", "fail")])
def test_another_cann(version: str, status: str, root: Path) -> None:
    write(root, f"/usr/local/Ascend/cann-8.5.1/aarch64-linux/{INFO}", f"version={version}\n")
    assert found(root)["CANN"].status == status


def test_the_cann_that_a_310p_wants_will_do_for_vllm(root: Path) -> None:
    write(root, f"/usr/local/Ascend/cann-8.5.1/aarch64-linux/{INFO}", "version=9.0.0\n")
    assert found(root)["CANN"].status == "fail"
    pins = load_stack("vllm").pins_for(python="3.11", machine="aarch64")
    there = {pin.name: pin.version for pin in pins} | {"torch-npu": "2.9.0.post2"}
    answer(root, "packages", "".join(f"{name} {version}\n" for name, version in there.items()))
    findings = found(root, ASR_STACK="vllm")
    assert findings["CANN"].status == "pass"
    assert findings["CANN"].evidence.startswith("9.0.0 in the place of 8.5.1: vllm-ascend 0.18.0's release notes")
    assert findings["Packages"].status == "warn"
    assert "torch-npu 2.9.0.post2 (pinned: 2.9.0.post1" in findings["Packages"].evidence


def test_a_cann_that_does_not_take_the_driver(root: Path) -> None:
    write(root, f"/usr/local/Ascend/cann-8.5.1/aarch64-linux/{INFO}", "version=9.1.0\n")
    write(root, "/usr/local/Ascend/driver/version.info", "Version=25.0.rc1.2\n")
    finding = found(root)["Driver and CANN"]
    assert finding.status == "fail"
    assert "25.2.X" in finding.fix


def test_packages_that_are_not_as_pinned(root: Path) -> None:
    answer(root, "packages", versions(transformers="5.0.0", numpy=""))
    finding = found(root)["Packages"]
    assert finding.status == "fail"
    assert "transformers 5.0.0 (pinned: 4.57.6)" in finding.evidence
    assert "numpy missing (pinned: 1.26.4)" in finding.evidence
    assert finding.fix == "invoke versions --stack npu"


def test_an_npu_that_miscalculates(root: Path) -> None:
    opened = {"device": "npu:0", "description": "Ascend910B4", "torch_npu": "2.9.0.post1"}
    calculated = {"error": 0.4, "tolerance": 0.01, "dtype": "bfloat16"}
    answer(root, "trial", f"{json.dumps(opened)}\n{json.dumps(calculated)}\n")
    assert found(root)["Calculation"].status == "fail"
    fault(root, "trial", "ended by SIGSEGV: Fatal Python error", f"{json.dumps(opened)}\n")
    assert found(root)["torch_npu"].status == "pass"
    assert "the first operator on npu:0: ended by SIGSEGV" in found(root)["Calculation"].evidence
    fault(root, "trial", "no answer within 180 s")
    assert "importing torch_npu: no answer within 180 s" in found(root)["torch_npu"].evidence
    assert "Calculation" not in found(root)


def test_a_container_without_its_devices(root: Path) -> None:
    nodes(root, [])
    finding = found(root)["Device nodes"]
    assert (finding.status, finding.fix) == ("fail", "start the container with its devices: make up")


def test_a_container_for_the_cpu(tmp_path: Path) -> None:
    kit_container(tmp_path)
    nodes(tmp_path, [])
    fault(tmp_path, "npu-smi-info", "not found")
    take_away(tmp_path, "/usr/local")
    findings = {finding.title: finding for finding in examine(load_settings({}), root=tmp_path)}
    assert not [finding for finding in findings.values() if finding.status == "fail"]
    assert not {"CANN", "torch_npu", "Calculation", "Driver"} & findings.keys()
    assert "Packages" in findings


def test_a_container_with_docker_of_its_own_is_a_host(tmp_path: Path) -> None:
    answer(kit_container(tmp_path), "docker-info", fake_hosts.info())
    assert {"Docker", "Port", "Mounts"} <= found(tmp_path).keys()


def tried(monkeypatch: pytest.MonkeyPatch, failure: str | None = None) -> tuple[CheckResult, CheckResult | None]:
    """The checks of torch_npu and of a calculation, with the stand-in for torch_npu."""
    for name, value in environment(failure).items():
        monkeypatch.setenv(name, value)
    case = Examination(Host(), load_settings({"ASR_DEVICE": "npu", "ASR_DTYPE": "bfloat16"}), False, "container")
    return docker.torch_npu(case), docker.calculation(case)


def test_the_npu_calculates(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, calculated = tried(monkeypatch)
    assert opened.status == "pass"
    assert "opens npu:0" in opened.evidence
    assert "simulated" in opened.evidence
    assert calculated is not None
    assert calculated.status == "pass"
    assert calculated.evidence.startswith("bfloat16 on npu:0, off the CPU's result by ")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("cann", "CANN is not in the environment"),
        ("driver", "the NPU driver's libraries are missing"),
        ("cuda", "a CUDA build of torch stands beside torch_npu"),
        ("busy", "npu:0 is held by another process"),
        ("none-visible", "torch_npu sees 0 NPUs"),
    ],
)
def test_the_famous_failures_are_decoded(failure: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, calculated = tried(monkeypatch, failure)
    assert opened.status == "fail"
    assert words in opened.evidence
    assert opened.fix
    assert calculated is None


def test_native_code_that_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "torch_npu/__init__.py", "import os\nprint('terminate called', flush=True)\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    case = Examination(Host(), load_settings({"ASR_DEVICE": "npu"}), False, "container")
    outcome = docker.torch_npu(case)
    assert outcome.status == "fail"
    assert "importing torch_npu: ended by SIGABRT" in outcome.evidence


def test_the_packages_of_this_python() -> None:
    case = Examination(Host(), load_settings({}), False, "container")
    assert docker.packages(case).status == "pass"


def test_nodes_that_are_closed_to_the_containers_user(root: Path) -> None:
    nodes(root, ["davinci5", *fake_hosts.MANAGERS], mode="660")
    answer(root, "user", "10001 10001 44")
    finding = found(root)["Device nodes"]
    assert (finding.status, finding.fix) == ("fail", "start the container with: make up")
    assert "closed to user 10001 with groups 44, 10001: /dev/davinci5" in finding.evidence
    answer(root, "user", "10001 10001 44 1000")
    assert found(root)["Device nodes"].status == "pass"


def test_the_server_in_the_container_may_hold_the_memory(root: Path) -> None:
    sample = (fake_hosts.SAMPLES / "910B3-x8-26.0.rc1-container-column.txt").read_text(encoding="utf-8")
    answer(root, "npu-smi-info", sample)
    assert found(root)["Device memory"].status == "pass"
    nothing_shown = [line for line in sample.splitlines() if "VLLMWorker_TP" not in line and " 2201990 " not in line]
    answer(root, "npu-smi-info", "\n".join(nothing_shown))
    assert found(root)["Device memory"].status == "fail"

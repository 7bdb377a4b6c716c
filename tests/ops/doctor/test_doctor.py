"""What the doctor finds on hosts that are well, and on hosts that are not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import fake_hosts
import pytest
from ailments import AILMENTS, BUSY, CHIP, DRIVER, HBM, IDLE, IN_CONTAINER, NO_WEIGHTS, npu_smi
from fake_hosts import answer, atlas_300i_duo, atlas_800_a2, fault, nodes, take_away, write
from invoke import Collection, Program

from env.errors import UsageError
from env.sources import PROJECT, load_settings
from runtime.ops.doctor import Finding, examine
from runtime.ops.doctor.checks import CHECKS, checks_table
from runtime.tasks import diagnose

A2 = {"ASR_PROFILE": "atlas-800-a2"}
DUO = {"ASR_PROFILE": "atlas-300i-duo", "ASR_NPUS": "1-2"}


def found(root: Path, settings: dict[str, str], *, quick: bool = False) -> dict[str, Finding]:
    """The findings by their checks' titles."""
    return {finding.title: finding for finding in examine(load_settings(settings), root=root, quick=quick)}


def statuses(findings: dict[str, Finding], status: str) -> set[str]:
    return {title for title, finding in findings.items() if finding.status == status}


def test_every_check_has_a_code_of_its_own_a_title_and_a_line_for_the_documents() -> None:
    assert len({check.code for check in CHECKS}) == len(CHECKS)
    assert len({check.title for check in CHECKS}) == len(CHECKS)
    assert [check.code for check in CHECKS] == sorted(check.code for check in CHECKS)
    lines = checks_table().splitlines()
    assert len(lines) == 2 + len(CHECKS)
    for check, line in zip(CHECKS, lines[2:], strict=True):
        assert re.fullmatch(r"ASR-D\d\d", check.code)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [f"`{check.code}`", check.title]
        assert all(cells)


def test_a_host_that_is_well(tmp_path: Path) -> None:
    findings = found(atlas_800_a2(tmp_path), A2)
    assert statuses(findings, "pass") == findings.keys()
    assert findings["Architecture"].evidence == "aarch64"
    assert findings["System"].evidence.startswith("openEuler 22.03 (LTS-SP4), Linux 5.10.0-216")
    assert findings["NPU"].evidence == "8 × 910B4, profile atlas-800-a2"
    assert findings["Driver"].evidence == "25.5.1 in /usr/local/Ascend"
    assert findings["Firmware"].evidence == "7.8.0.2.212"
    assert findings["Driver and CANN"].evidence == "driver 25.5.1, CANN 8.5.1"
    assert findings["npu-smi"].evidence == "25.5.1 in /usr/local/bin/npu-smi: 8 × 910B4"
    assert "mode 660, group HwHiAiUser (1000)" in findings["Device nodes"].evidence
    assert findings["Health"].evidence == "8 OK, the hottest at 45 °C"
    assert "NPU 0: 29957 of 32768 MB free" in findings["Device memory"].evidence
    assert findings["Docker"].evidence == "24.0.7, data in /var/lib/docker"
    assert findings["Compose"].evidence == "docker compose 2.24.5"
    assert findings["Weights"].evidence == "weights/Qwen3-ASR-1.7B, 4.40 GB, checksums as in weights/weights.lock"
    assert "CANN" not in findings  # that is in the container


def test_the_quick_checks_leave_out_the_hub(tmp_path: Path) -> None:
    root = atlas_800_a2(tmp_path)
    assert found(root, A2).keys() - found(root, A2, quick=True).keys() == {"Hub"}


def test_a_host_with_310p_cards_and_its_driver_elsewhere(tmp_path: Path) -> None:
    findings = found(atlas_300i_duo(tmp_path), DUO)
    assert statuses(findings, "pass") == findings.keys()
    assert findings["Driver"].evidence == "25.2.1 in /data/Ascend"
    assert findings["NPU"].evidence == "4 × 310P3, profile atlas-300i-duo"
    assert "/usr/local/sbin/npu-smi" in findings["npu-smi"].evidence
    assert "NPU 1: 42170 of 43693 MB free" in findings["Device memory"].evidence
    assert "NPU 2: 42582 of 44280 MB free" in findings["Device memory"].evidence


def test_a_driver_elsewhere_is_linked_to_where_containers_look(tmp_path: Path) -> None:
    root = atlas_300i_duo(tmp_path)
    (root / "usr/local/Ascend/driver").unlink()
    findings = found(root, DUO)
    assert findings["Driver"].status == "warn"
    assert "sudo ln -s /data/Ascend/driver /usr/local/Ascend/driver" in findings["Driver"].fix
    assert findings["Mounts"].status == "fail"
    assert "/usr/local/Ascend/driver/lib64" in findings["Mounts"].evidence


@pytest.mark.parametrize("ailment", AILMENTS)
def test_each_ailment_is_found_with_its_fix(ailment: str, tmp_path: Path) -> None:
    atlas_800_a2(tmp_path)
    expected = AILMENTS[ailment]
    for damage in expected.damage:
        damage(tmp_path)
    finding = found(tmp_path, A2)[expected.check]
    assert finding.status == expected.status, finding
    assert expected.evidence in finding.evidence
    assert expected.fix in finding.fix


@pytest.mark.parametrize(
    ("npus", "full", "instead"),
    [
        ("0-2", (), "1,2,3"),  # one that is well takes its place
        ("0", (("2814 / 32768", "31814/ 32768"),), "2"),  # not one whose memory somebody holds
        ("0-7", (), "1,2,3,4,5,6,7"),
    ],
)
def test_npus_that_are_well_take_the_place_of_one_that_is_not(
    npus: str, full: tuple[tuple[str, str], ...], instead: str, tmp_path: Path
) -> None:
    sample = (fake_hosts.SAMPLES / "910B4-x8-25.5.1.txt").read_text(encoding="utf-8")
    head, mark, tail = sample.replace(CHIP, CHIP.replace("OK   ", "Alarm")).partition("\n| 1 ")
    assert mark
    for old, new in full:
        assert old in tail
        tail = tail.replace(old, new, 1)
    answer(atlas_800_a2(tmp_path), "npu-smi-info", head + mark + tail)
    finding = found(tmp_path, A2 | {"ASR_NPUS": npus})["Health"]
    assert finding.status == "fail"
    assert finding.fix.startswith(f"to serve meanwhile: export ASR_NPUS={instead}, then make up; ")


def test_what_other_checks_tell_is_not_told_again(tmp_path: Path) -> None:
    fault(atlas_800_a2(tmp_path), "npu-smi-info", "no answer within 20 s")
    findings = found(tmp_path, A2)
    assert statuses(findings, "fail") == {"npu-smi"}
    assert not {"Health", "Device memory"} & findings.keys()


def test_the_kits_own_container_may_hold_port_and_memory(tmp_path: Path) -> None:
    npu_smi(HBM, (IDLE, BUSY))(atlas_800_a2(tmp_path))
    IN_CONTAINER(tmp_path)
    answer(tmp_path, "docker-ps", fake_hosts.container("qwen3-asr-8000-asr-1", ports="127.0.0.1:8000->8000/tcp"))
    findings = found(tmp_path, A2)
    assert statuses(findings, "pass") == findings.keys()
    assert "the kit's container qwen3-asr-8000-asr-1 has it" in findings["Port"].evidence


def test_an_old_driver_with_ranges_of_firmware_left_out(tmp_path: Path) -> None:
    write(atlas_800_a2(tmp_path), DRIVER, "Version=25.0.rc1\n")
    findings = found(tmp_path, A2)
    assert findings["Firmware"].status == "pass"
    assert findings["Driver and CANN"].status == "pass"


@pytest.mark.parametrize(
    ("variables", "evidence", "fix"),
    [
        ({"ASR_NPUS": "3-0"}, "'3-0' runs backwards", "export ASR_NPUS=0-3"),
        ({"ASR_DEVICE": "npu:2", "ASR_NPUS": "0,4"}, "the container has 2 NPUs", "export ASR_DEVICE=npu"),
        ({"ASR_PROFILE": "atlas-300i-duo", "ASR_DTYPE": "bfloat16"}, "bfloat16", "export ASR_DTYPE=float16"),
    ],
)
def test_settings_that_contradict_each_other(
    variables: dict[str, str], evidence: str, fix: str, tmp_path: Path
) -> None:
    finding = found(atlas_800_a2(tmp_path), A2 | variables)["Settings"]
    assert finding.status == "fail"
    assert evidence in finding.evidence
    assert finding.fix == fix


@pytest.mark.parametrize(
    ("variables", "ports", "status"),
    [
        ({}, "", None),
        ({"ASR_HOST": "0.0.0.0"}, "", "warn"),
        ({"ASR_HOST": "::"}, "", "warn"),
        ({"ASR_HOST": "10.0.0.11", "ASR_API_KEY": "long-enough"}, "", "pass"),
        ({"ASR_HOST": "0.0.0.0", "ASR_KEYS_FILE": "keys"}, "", "pass"),
        ({}, "127.0.0.1:8000->8000/tcp, ::1:8000->8000/tcp, [::1]:8000->8000/tcp", None),
        ({}, "[::]:8000->8000/tcp", "warn"),
        ({}, "0.0.0.0:8001->8001/tcp", None),  # another server, for another make up
    ],
)
def test_a_server_that_is_open_to_others_without_a_key(
    variables: dict[str, str], ports: str, status: str | None, tmp_path: Path
) -> None:
    answer(atlas_800_a2(tmp_path), "docker-ps", fake_hosts.container("asr", ports=ports))
    finding = found(tmp_path, A2 | variables, quick=True).get("Access")
    assert (finding and finding.status) == status


def test_unverified_weights_may_be_allowed(tmp_path: Path) -> None:
    NO_WEIGHTS(atlas_800_a2(tmp_path))
    assert found(tmp_path, A2 | {"ASR_ALLOW_UNVERIFIED_WEIGHTS": "true"})["Weights"].status == "warn"


def test_float32_takes_twice_the_memory(tmp_path: Path) -> None:
    npu_smi(("2811 / 32768", "22811/ 32768"))(atlas_800_a2(tmp_path))
    assert found(tmp_path, A2)["Device memory"].status == "pass"
    assert found(tmp_path, A2 | {"ASR_DTYPE": "float32"})["Device memory"].status == "fail"


def test_a_laptop_passes_with_one_line_on_the_npu(tmp_path: Path) -> None:
    write(tmp_path, "/etc/os-release", "PRETTY_NAME=Laptop\n")
    answer(tmp_path, "uname", "Linux 6.1.0 x86_64\n")
    for name in ("docker-info", "docker-ps", "compose-v1", "compose-v2"):
        fault(tmp_path, name, "not found")
    findings = found(tmp_path, {})
    assert not statuses(findings, "fail")
    assert findings["NPU"].evidence == "no NPU: the demo model runs on the CPU"
    assert findings["Docker"].status == "warn"
    assert not {"Driver", "Device nodes", "Health", "Mounts", "npu-smi", "Hub"} & findings.keys()
    assert found(tmp_path, {}, quick=True)["Docker"].status == "fail"  # make up cannot do without


def test_npus_that_the_profile_ignores(tmp_path: Path) -> None:
    findings = found(atlas_800_a2(tmp_path), {"ASR_PROFILE": "cpu"})
    assert statuses(findings, "warn") == {"NPU"}
    assert findings["NPU"].evidence == "8 × 910B4, which profile cpu does not use"
    assert findings["NPU"].fix == "export ASR_PROFILE=atlas-800-a2"
    fault(tmp_path, "npu-smi-info", "no answer within 20 s")
    assert "8 device nodes (npu-smi info: no answer" in found(tmp_path, {"ASR_PROFILE": "cpu"})["NPU"].evidence


def test_what_is_not_recorded_is_said_and_no_failure(tmp_path: Path) -> None:
    atlas_800_a2(tmp_path)
    paths = (tmp_path / "commands/paths.txt").read_text(encoding="utf-8")
    take_away(tmp_path, "/commands")
    answer(tmp_path, "paths", paths)
    findings = found(tmp_path, A2)
    unknown = statuses(findings, "warn")
    assert all("not recorded" in findings[title].evidence for title in unknown)
    assert {"Architecture", "Docker", "Compose", "npu-smi", "Weights", "Hub", "Port"} <= unknown
    assert not statuses(findings, "fail")


def test_nodes_as_plain_files_under_a_root(tmp_path: Path) -> None:
    atlas_800_a2(tmp_path)
    take_away(tmp_path, "/commands/paths.txt")
    for name in ("davinci0", *fake_hosts.MANAGERS):
        write(tmp_path, f"/dev/{name}")
        (tmp_path / "dev" / name).chmod(0o666)
    assert "mode 666" in found(tmp_path, A2)["Device nodes"].evidence


def doctor(*arguments: str | Path) -> int:
    """Run the task; returns its exit code."""
    try:
        Program(namespace=Collection.from_module(diagnose)).run(["invoke", "doctor", *map(str, arguments)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def on_atlas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in A2.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("on_atlas")
def test_the_task_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atlas_800_a2(tmp_path)
    assert doctor("--root", tmp_path) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ok +ASR-D20 +NPU +8 × 910B4, profile atlas-800-a2", shown, re.MULTILINE)
    nodes(tmp_path, ["davinci1"])
    assert doctor("--root", tmp_path, "--quick") == 1
    told = capsys.readouterr()
    assert re.search(r"^FAIL +ASR-D24 +Device nodes +/dev/davinci0, /dev/davinci_manager", told.out, re.MULTILINE)
    assert re.search(r"doctor: 1 of \d+ checks failed: ASR-D24", told.err)


@pytest.mark.usefixtures("on_atlas")
def test_the_task_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(atlas_800_a2(tmp_path), "port", "pid 9 (nginx)")
    assert doctor("--root", tmp_path, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"date", "host", "passed", "findings"}
    assert (told["host"], told["passed"]) == ("atlas", False)
    failed = [finding for finding in told["findings"] if finding["status"] == "fail"]
    assert failed == [
        {
            "code": "ASR-D05",
            "title": "Port",
            "status": "fail",
            "evidence": "8000: taken by pid 9 (nginx)",
            "fix": "export ASR_PORT=…, or stop it",
        }
    ]


def test_a_root_that_is_none_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="--root"):
        examine(load_settings({}), root=tmp_path / "none")
    assert doctor("--root", tmp_path / "none") == 2
    assert "is no directory" in capsys.readouterr().err


def test_a_host_needs_nothing_of_the_model() -> None:
    """It has the host stack alone: neither torch nor what reads audio."""
    heavy = "torch numpy transformers soundfile av soxr jiwer".split()
    script = "import sys, runtime.ops.doctor, runtime.ops.doctor.checks\n"
    script += "import runtime.ops.support_bundle, runtime.tasks.diagnose\n"
    script += f"print(sorted(set({heavy}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("Up 3 minutes (healthy)", "pass"),
        ("Exited (0) 2 hours ago", "pass"),
        ("Restarting (1) 5 seconds ago", "fail"),
        ("Exited (137) 2 hours ago", "warn"),
        ("Up 20 minutes (unhealthy)", "fail"),
    ],
)
def test_a_server_that_ends_again_and_again_does_not_go_unseen(told: str, status: str, tmp_path: Path) -> None:
    atlas_800_a2(tmp_path)
    answer(tmp_path, "docker-ps", fake_hosts.container("qwen3-asr-8000_asr_1", status=told))
    finding = found(tmp_path, A2)["Servers"]
    assert finding.status == status
    assert told in finding.evidence
    assert finding.fix == ("docker logs --tail 50 qwen3-asr-8000_asr_1" if status != "pass" else "")

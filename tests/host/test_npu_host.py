"""On an NPU host the demo model never takes a real one's place unless it was asked for."""

from pathlib import Path

import pytest
from fake_hosts import answer, atlas_800_a2, nodes, take_away, write
from invoking import assert_refused, invoke

from env.errors import KitError
from env.sources import PROJECT, load_settings
from runtime.host import npu_host
from runtime.host.probe import Host
from runtime.ops.deploy import compose
from runtime.ops.doctor import Finding, examine
from runtime.server import serve

CLIP = PROJECT / "runtime" / "demo" / "clips" / "english-2.wav"


def card(root: Path, *, vendor: str = "0x19e5", kind: str = "0x120000", device: str = "0xd802") -> None:
    """A device on the PCI bus."""
    for name, text in (("vendor", vendor), ("class", kind), ("device", device)):
        write(root, f"/sys/bus/pci/devices/0000:c1:00.0/{name}", f"{text}\n")


def test_what_says_that_a_host_has_npus(tmp_path: Path) -> None:
    assert npu_host.find_signs(tmp_path) == []
    write(tmp_path, "/usr/local/sbin/npu-smi")
    assert npu_host.find_signs(tmp_path) == ["/usr/local/sbin/npu-smi"]
    card(tmp_path)
    write(tmp_path, "/dev/davinci_manager")
    assert npu_host.find_signs(tmp_path) == [
        "/dev/davinci_manager",
        "/usr/local/sbin/npu-smi",
        "1 on the PCI bus, the first at 0000:c1:00.0",
    ]


@pytest.mark.parametrize(
    "other",
    [{"device": "0xa250"}, {"vendor": "0x10de"}, {"kind": "0x020000"}],
    ids=["Kunpeng's compression engine", "another vendor's", "a network card"],
)
def test_what_only_looks_like_an_npu(other: dict[str, str], tmp_path: Path) -> None:
    card(tmp_path, **other)
    (tmp_path / "usr/local/bin/npu-smi").mkdir(parents=True)  # as Docker makes of a missing mount
    assert npu_host.find_signs(tmp_path) == []


def test_a_server_refuses_the_demo_model_that_nobody_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = {"ASR_OUT_DIR": str(tmp_path / "out")}
    write(tmp_path, "/dev/davinci0")
    monkeypatch.setattr(npu_host, "HOST_ROOT", tmp_path)
    with pytest.raises(KitError, match=r"NPU host \(/dev/davinci0\), but /dev/davinci_manager is not there"):
        serve.check(load_settings(out), on_bytes=lambda _: None)
    write(tmp_path, "/dev/davinci_manager")
    with pytest.raises(KitError, match=r"NPU host \(/dev/davinci0\); .* → invoke doctor; export ASR_PROFILE=…"):
        serve.check(load_settings(out), on_bytes=lambda _: None)
    for asked in ({"ASR_PROFILE": "cpu"}, {"ASR_MODEL": "demo"}):
        serve.check(load_settings(out | asked), on_bytes=lambda _: None)


@pytest.mark.parametrize("words", [("container.up",), ("start",), ("serve",), ("smoke",), ("transcribe", CLIP)])
def test_with_npu_smi_and_no_driver_nothing_runs(words: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, "/npu-smi", "#!/bin/sh\nexit 1\n")
    (tmp_path / "npu-smi").chmod(0o755)
    result = invoke(*words, ASR_PROFILE="", ASR_OUT_DIR=str(tmp_path / "out"), PATH=f"{tmp_path}:/usr/bin:/bin")
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert f"({tmp_path}/npu-smi), but /dev/davinci_manager is not there: the NPU driver is not loaded" in said
    assert "export ASR_PROFILE=cpu, or once: ASR_PROFILE=cpu make smoke" in said
    assert "Traceback" not in said


def test_without_its_driver_a_host_can_still_end_a_server(tmp_path: Path) -> None:
    for name in ("npu-smi", "docker"):
        write(tmp_path, name, "#!/bin/sh\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    result = invoke("container.down", ASR_PROFILE="", ASR_OUT_DIR=str(tmp_path), PATH=f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    assert "No server on port" in result.stdout


def test_the_demo_model_that_was_asked_for_runs(tmp_path: Path) -> None:
    write(tmp_path, "/npu-smi", "#!/bin/sh\nexit 1\n")
    (tmp_path / "npu-smi").chmod(0o755)
    result = invoke("transcribe", CLIP, ASR_PROFILE="", ASR_MODEL="demo", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "bread chicken\n"


def test_a_profile_of_npus_without_weights_is_refused(tmp_path: Path) -> None:
    result = invoke(
        "serve",
        ASR_PROFILE="atlas-800-a2",
        ASR_STACK="cpu",
        ASR_MODEL=str(tmp_path / "Qwen3-ASR-1.7B"),
        ASR_OUT_DIR=str(tmp_path / "out"),
    )
    assert_refused(result, "Qwen3-ASR-1.7B", "invoke fetch-weights")


def presence(root: Path, **variables: str) -> Finding:
    """What the doctor says of the NPUs."""
    (found,) = [one for one in examine(load_settings(variables), root=root) if one.title == "NPU"]
    return found


def test_the_doctor_says_that_the_driver_is_not_loaded(tmp_path: Path) -> None:
    atlas_800_a2(tmp_path)
    take_away(tmp_path, "/commands/paths.txt")
    answer(tmp_path, "npu-smi-info", "# fault: exit code 1: dcmi module initialize failed. ret is -8005\n")
    answer(tmp_path, "npu-signs", "/usr/local/bin/npu-smi\n")
    with pytest.raises(KitError, match="the NPU driver is not loaded"):
        compose.detect(Host(tmp_path))
    told = presence(tmp_path)
    assert told.status == "fail"
    assert "(/usr/local/bin/npu-smi), but /dev/davinci_manager is not there" in told.evidence
    assert "export ASR_PROFILE=cpu" in told.fix
    assert presence(tmp_path, ASR_PROFILE="cpu").status == "pass"


def test_the_doctor_names_the_profile_that_was_not_chosen(tmp_path: Path) -> None:
    told = presence(atlas_800_a2(tmp_path))
    assert (told.status, told.fix) == ("fail", "export ASR_PROFILE=atlas-800-a2")
    nodes(tmp_path, ["davinci0"])
    assert presence(tmp_path, ASR_MODEL="demo").status == "warn"

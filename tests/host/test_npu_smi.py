"""Every layout that npu-smi prints is read; what is none is shown, with the line at fault."""

from pathlib import Path

import pytest

from env.sources import PROJECT
from runtime.host.npu_smi import Chip, ChipProcess, NpuSmiError, NpuSmiReport, Usage, parse, profile_for

SAMPLES = PROJECT / "tests" / "host" / "npu_smi"


def sample(name: str) -> NpuSmiReport:
    return parse((SAMPLES / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "chips", "profile"),
    [
        ("910B4-x8-25.5.1.txt", 8, "atlas-800-a2"),
        ("910B3-x8-26.0.rc1-container-column.txt", 8, "atlas-800-a2"),
        ("910_93-x3-25.3.rc1.txt", 6, "atlas-800-a3"),
        ("310P3-duo-x2-23.0.6.txt", 4, "atlas-300i-duo"),
        ("310P3-x4-25.2.1.txt", 4, "atlas-300i-duo"),
        ("950PR-x2-25.7.rc1.txt", 2, ""),
    ],
)
def test_each_layout_is_read(name: str, chips: int, profile: str) -> None:
    report = sample(name)
    assert len(report.chips) == chips
    assert profile_for(report.chips) == profile
    assert report.version == report.driver
    assert report.version in name
    assert all(chip.temperature and 30 < chip.temperature < 80 for chip in report.chips)


def test_a_910b_is_read_whole() -> None:
    assert sample("910B4-x8-25.5.1.txt").chips[3] == Chip(
        npu=3,
        chip=0,
        device=None,
        name="910B4",
        health="OK",
        bus_id="0000:02:00.0",
        power=87.9,
        temperature=41,
        aicore=0,
        memory=Usage(0, 0),
        hbm=Usage(2820, 32768),
    )


def test_wider_columns_health_and_the_process_ids_in_containers() -> None:
    report = sample("910B3-x8-26.0.rc1-container-column.txt")
    assert [chip.health for chip in report.chips[:5]] == ["OK", "Warning", "Alarm", "Critical", "UNKNOWN"]
    assert report.chips[5].main_memory == Usage(61877, 65536)
    assert report.processes == (
        ChipProcess(5, 0, 2201345, "VLLMWorker_TP", 58344, None),
        ChipProcess(5, 0, 2201990, "", 131, None),
        ChipProcess(6, 0, 2203001, "python3", 54600, 87),
    )
    assert "may not be completely installed" in report.notes[0]


def test_an_a3_has_two_dies_a_card_and_physical_ids() -> None:
    report = sample("910_93-x3-25.3.rc1.txt")
    assert [(chip.npu, chip.chip, chip.node) for chip in report.chips] == [
        *((0, 0, 0), (0, 1, 1)),
        *((1, 0, 2), (1, 1, 3)),
        *((2, 0, 4), (2, 1, 5)),
    ]
    assert [chip.power for chip in report.chips[:2]] == [165.2, None]
    assert (report.chips[3].aicore, report.chips[3].hbm) == (37, Usage(62498, 65536))
    assert report.processes == (ChipProcess(1, 1, 845163, "VLLMWorker_TP", 59656, None),)


def test_a_310p_has_no_hbm_and_its_device_number_is_not_its_npu_id() -> None:
    duo, cards = sample("310P3-duo-x2-23.0.6.txt"), sample("310P3-x4-25.2.1.txt")
    assert [(chip.npu, chip.chip, chip.node) for chip in duo.chips] == [(2, 0, 0), (2, 1, 1), (5, 0, 2), (5, 1, 3)]
    assert duo.chips[3].main_memory == Usage(20344, 43693)
    assert duo.processes == (ChipProcess(5, 1, 52411, "mindieservice_backend", 18610, None),)
    assert [chip.node for chip in cards.chips] == [0, 1, 2, 3]
    assert [chip.npu for chip in cards.chips] == [0, 32, 32768, 32800]
    broken = cards.chips[3]
    assert (broken.health, broken.bus_id, broken.power, broken.main_memory) == ("Alarm", "NA", None, None)


def test_a_950_has_no_chip_column() -> None:
    report = sample("950PR-x2-25.7.rc1.txt")
    assert [(chip.npu, chip.chip, chip.aicore, chip.hbm) for chip in report.chips] == [
        (0, 0, 64, Usage(88310, 131072)),
        (1, 0, 0, Usage(5871, 131072)),
    ]
    assert report.processes == (ChipProcess(0, 0, 733120, "python3", 82210, None),)


def test_spaces_around_and_a_bar_in_a_name_do_no_harm() -> None:
    text = (SAMPLES / "910_93-x3-25.3.rc1.txt").read_text(encoding="utf-8")
    text = text.replace("VLLMWorker_TP            ", "sh -c a|b                ")
    report = parse("DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\r\n" + text.replace("\n", "  \r\n"))
    assert report.processes[0].name == "sh -c a|b"
    assert report.notes == ("DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)",)
    assert len(report.chips) == 6


def test_hugepages_may_be_missing() -> None:
    text = (SAMPLES / "910B4-x8-25.5.1.txt").read_text(encoding="utf-8")
    head, rows = text.replace("Hugepages-Usage(page)", " " * 21).split("Temp(C)", 1)
    report = parse(f"{head}Temp(C){rows}".replace("                0    / 0             |", " " * 32 + "|"))
    assert report.chips[7].temperature == 45
    assert report.chips[7].hbm == Usage(2832, 32768)


def test_missing_values_go_by_their_place() -> None:
    text = (SAMPLES / "910B4-x8-25.5.1.txt").read_text(encoding="utf-8")
    row = "| 0                         | 0000:C1:00.0  | 0           0    / 0          2811 / 32768         |"
    assert row in text
    chip = parse(text.replace(row, row.replace("| 0           0    / 0 ", "|                      "))).chips[0]
    assert (chip.aicore, chip.memory, chip.hbm) == (None, None, Usage(2811, 32768))


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("", "printed nothing"),
        ("bash: npu-smi: command not found", "'bash: npu-smi: command not found'"),
        ("Killed\ndcmi module initialize failed. ret is -8005\n", "'dcmi module initialize failed. ret is -8005'"),
        ("| NPU   Name | Health |\n", "'| NPU   Name | Health |'"),
    ],
)
def test_what_is_no_report_is_shown(output: str, shown: str) -> None:
    with pytest.raises(NpuSmiError) as caught:
        parse(output)
    assert shown in caught.value.reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("2811 / 32768", "lots / 32768", "expected a whole number, not 'lots'"),
        ("| 84.0        38 ", "| 84.0.1      38 ", "expected a number for Power(W), not '84.0.1'"),
        ("| 0     910B4               | OK ", "| x     910B4               | OK ", "expected a whole number, not 'x'"),
        (
            "| 0     910B4               | OK            |",
            "| 0     910B4               OK            ",
            "expected 3 cells",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_shown(old: str, new: str, reason: str) -> None:
    text = (SAMPLES / "910B4-x8-25.5.1.txt").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(NpuSmiError) as caught:
        parse(text.replace(old, new, 1))
    assert reason in caught.value.reason
    assert new.split("/")[0].strip() in caught.value.reason


def test_output_that_ends_within_a_chip_is_refused() -> None:
    text = (SAMPLES / "910B4-x8-25.5.1.txt").read_text(encoding="utf-8")
    with pytest.raises(NpuSmiError, match="the second row of this chip is missing"):
        parse("\n".join(text.splitlines()[:13]))


@pytest.mark.parametrize(
    ("name", "device", "profile"),
    [
        ("910B2C", None, "atlas-800-a2"),
        ("Ascend910B4-1", None, "atlas-800-a2"),
        ("910_9392", 0, "atlas-800-a3"),
        ("Ascend910", 3, "atlas-800-a3"),
        ("Ascend910", None, ""),
        ("910B", None, ""),  # of the first Atlas 800
        ("310P1", 0, "atlas-300i-duo"),
        ("310B4", 0, ""),
    ],
)
def test_the_profile_goes_by_the_chips_name(name: str, device: int | None, profile: str) -> None:
    chip = Chip(0, 0, device, name, "OK", "", None, None, None, None, None)
    assert profile_for([chip, chip]) == profile


def test_no_profile_fits_chips_of_two_kinds() -> None:
    kinds = [sample("910B4-x8-25.5.1.txt").chips[0], sample("310P3-x4-25.2.1.txt").chips[0]]
    assert profile_for(kinds) == ""
    assert profile_for([]) == ""


def test_the_reports_of_real_hosts(reference: Path) -> None:
    folder = reference / "npu-smi"
    if not folder.is_dir():
        pytest.skip("the outputs of real hosts are not at ../shared/reference/npu-smi")
    busy = parse((folder / "910B2C-x2-25.0.rc1.2-busy.txt").read_text(encoding="utf-8"))
    assert [(chip.name, chip.aicore, chip.hbm) for chip in busy.chips] == [
        ("910B2C", 6, Usage(35738, 65536)),
        ("910B2C", 11, Usage(35761, 65536)),
    ]
    assert [(process.npu, process.pid, process.memory) for process in busy.processes] == [
        *((0, 6513, 617), (0, 33776, 31747)),
        (1, 33777, 31747),
    ]
    idle = parse((folder / "910B4-x1-25.5.2.txt").read_text(encoding="utf-8"))
    assert [(chip.node, chip.power, chip.hbm) for chip in idle.chips] == [(5, 89.9, Usage(2922, 32768))]
    assert idle.processes == ()
    assert profile_for(idle.chips) == "atlas-800-a2"

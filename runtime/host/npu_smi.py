"""What `npu-smi info` prints, whatever its version.

The output is a table of chips and one of processes, both with borders. Widths and columns differ between versions and
chips, so cells are found by the bars around them, and what is in a cell by the names that the header puts there. A chip
takes two rows, as the header does:

    | NPU   Name      | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
    | Chip  Phy-ID    | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |

The 310P has `Device` where the A3 has `Phy-ID` and the 910B nothing, and no HBM; its successor has `NPU ID`, no `Chip`
and `NPU Util(%)`. Processes may have `Process id in container`, and no `Chip`. Layouts: the npu-smi command references,
and npu-smi's own source in CANN's driver repository.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from env.errors import KitError
from env.field import variable
from runtime.host.npu_host import NPU_SMI
from runtime.host.probe import NOT_FOUND, CommandResult, Host

# Names of more than one word; every other name is one.
HEADING = re.compile(r"NPU ID|NPU Util\(%\)|Process (?:id in container|id|name|memory\(MB\))|\S+")
VALUE = re.compile(r"[^\s/]+(?:\s*/\s*[^\s/]+)?")  # a word, or used/total
VERSION = re.compile(r"npu-smi\s+(\S+)\s+Version:\s*(\S+)")
NONE_RUNNING = "No running processes"
UNKNOWN_VALUES = {"", "-", "NA", "N/A"}


@dataclass(frozen=True)
class Usage:
    """Memory in MB (2^20 bytes)."""

    used: int
    total: int

    @property
    def free(self) -> int:
        """MB that nothing uses."""
        return self.total - self.used


@dataclass(frozen=True)
class Chip:
    """A chip. What npu-smi does not tell is None."""

    npu: int
    chip: int
    device: int | None  # Phy-ID on an A3, Device on a 310P
    name: str
    health: str  # OK, Warning, Alarm, Critical, UNKNOWN
    bus_id: str
    power: float | None  # W
    temperature: int | None  # °C
    aicore: int | None  # %
    memory: Usage | None
    hbm: Usage | None

    @property
    def node(self) -> int:
        """N of /dev/davinciN."""
        return self.npu if self.device is None else self.device

    @property
    def main_memory(self) -> Usage | None:
        """The memory that models are in: HBM, where there is any."""
        return self.hbm if self.hbm and self.hbm.total else self.memory


@dataclass(frozen=True)
class ChipProcess:
    """A process that holds memory of a chip, in MB."""

    npu: int
    chip: int
    pid: int
    name: str
    memory: int
    container_pid: int | None


@dataclass(frozen=True)
class NpuSmiReport:
    """All of it. `notes` are lines outside the tables, such as warnings."""

    version: str
    driver: str
    chips: tuple[Chip, ...]
    processes: tuple[ChipProcess, ...]
    notes: tuple[str, ...]


class NpuSmiError(KitError):
    """Output that is no report of npu-smi."""


class _Cells(dict[str, str]):
    """A row's values by their headings, and the line that they are from."""

    def __init__(self, line: str, values: Iterable[tuple[str, str]]) -> None:
        super().__init__(values)
        self.line = line

    def number(self, *names: str) -> int:
        """The whole number under the first of these headings that is there."""
        found = self.maybe(*names)
        if found is None:
            raise _parse_error(self.line, f"expected a number for {names[0]}")
        return found

    def maybe(self, *names: str) -> int | None:
        """The same; None where npu-smi does not tell it."""
        text = next((self[name] for name in names if name in self), "")
        return None if text in UNKNOWN_VALUES else _whole_number(text, self.line)

    def decimal(self, name: str) -> float | None:
        """A number with a fraction."""
        text = self.get(name, "")
        try:
            return None if text in UNKNOWN_VALUES else float(text)
        except ValueError:
            raise _parse_error(self.line, f"expected a number for {name}, not {text!r}") from None

    def usage(self, name: str) -> Usage | None:
        """Used and total."""
        used, _, total = (part.strip() for part in self.get(name, "").partition("/"))
        if used in UNKNOWN_VALUES or total in UNKNOWN_VALUES:
            return None
        return Usage(_whole_number(used, self.line), _whole_number(total, self.line))


def parse(output: str) -> NpuSmiReport:
    """The report that `output` is. Raises NpuSmiError, which shows the line at fault, if it is none."""
    lines = [line.strip() for line in output.splitlines()]
    rows = [line for line in lines if line.startswith("|")]
    version = next((found for line in rows if (found := VERSION.search(line))), None)
    chips_at = next((n for n, line in enumerate(rows) if "Health" in line and "NPU" in line), None)
    if chips_at is None or chips_at + 1 == len(rows) or "Bus-Id" not in rows[chips_at + 1]:
        raise _parse_error(next(filter(None, reversed(lines)), ""), "there is no table of chips")
    processes_at = next((n for n, line in enumerate(rows) if "Process id" in line), len(rows))
    return NpuSmiReport(
        version=version[1] if version else "",
        driver=version[2] if version else "",
        chips=tuple(_chips(rows[chips_at : chips_at + 2], rows[chips_at + 2 : processes_at])),
        processes=tuple(_processes(rows[processes_at:])),
        notes=tuple(line for line in lines if line and line[0] not in "|+"),
    )


def profile_for(chips: Iterable[Chip]) -> str:
    """The profile of env/profiles that fits the chips; empty where none does, or several would."""
    found = {_profile(chip) for chip in chips}
    return found.pop() if len(found) == 1 else ""


def _profile(chip: Chip) -> str:
    name = chip.name.upper().removeprefix("ASCEND").strip()
    if re.match(r"910B\d", name):  # 910A and 910B without a number are those of the first Atlas 800
        return "atlas-800-a2"
    if name.startswith("910_93") or (name == "910" and chip.device is not None):
        return "atlas-800-a3"
    return "atlas-300i-duo" if name.startswith("310P") else ""


def _chips(headings: list[str], rows: list[str]) -> Iterator[Chip]:
    if len(rows) % 2:
        raise _parse_error(rows[-1], "the second row of this chip is missing")
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        upper, lower = _row(headings[0], first), _row(headings[1], second)
        yield Chip(
            npu=upper.number("NPU", "NPU ID"),
            chip=lower.number("Chip") if "Chip" in headings[1] else 0,
            device=lower.maybe("Phy-ID", "Device"),
            name=upper.get("Name", ""),
            health=upper.get("Health", ""),
            bus_id=lower.get("Bus-Id", ""),
            power=upper.decimal("Power(W)"),
            temperature=upper.maybe("Temp(C)"),
            aicore=lower.maybe("AICore(%)", "NPU Util(%)"),
            memory=lower.usage("Memory-Usage(MB)"),
            hbm=lower.usage("HBM-Usage(MB)"),
        )


def _processes(rows: list[str]) -> Iterator[ChipProcess]:
    for line in rows[1:]:
        if NONE_RUNNING in line:
            continue
        row = _row(rows[0], line)
        yield ChipProcess(
            npu=row.number("NPU", "NPU ID"),
            chip=row.number("Chip") if "Chip" in rows[0] else 0,
            pid=row.number("Process id"),
            name=row.get("Process name", ""),
            memory=row.number("Process memory(MB)"),
            container_pid=row.maybe("Process id in container"),
        )


def _row(heading: str, line: str) -> _Cells:
    names, cells = _cells(heading), _cells(line)
    if len(cells) > len(names) and "Process name" in heading:  # a name may have a bar in it
        at = next(n for n, cell in enumerate(names) if "Process name" in cell)
        more = len(cells) - len(names)
        cells[at : at + more + 1] = ["|".join(cells[at : at + more + 1])]
    if len(cells) != len(names):
        raise _parse_error(line, f"expected {len(names)} cells, as its heading has")
    return _Cells(line, (pair for name, cell in zip(names, cells, strict=True) for pair in _cell_values(name, cell)))


def _cells(line: str) -> list[str]:
    return line.removeprefix("|").removesuffix("|").split("|")


def _cell_values(heading: str, cell: str) -> Iterator[tuple[str, str]]:
    """The values in a cell by the names in its heading: one by one, or, where some are missing, by their place."""
    names, values = list(HEADING.finditer(heading)), list(VALUE.finditer(cell))
    if len(names) == 1 or len(values) > len(names):
        *front, last = names
        words = cell.split(maxsplit=len(front))
        yield from zip((name[0] for name in [*front, last]), (word.strip() for word in words), strict=False)
    elif len(names) == len(values):
        yield from ((name[0], value[0]) for name, value in zip(names, values, strict=True))
    else:
        yield from ((_nearest(names, value.start())[0], value[0]) for value in values)


def _nearest(names: list[re.Match[str]], place: int) -> re.Match[str]:
    return min(names, key=lambda name: abs(name.start() - place))


def _whole_number(text: str, line: str) -> int:
    if not text.isdecimal():
        raise _parse_error(line, f"expected a whole number, not {text!r}")
    return int(text)


def _parse_error(line: str, why: str) -> NpuSmiError:
    return NpuSmiError(
        "npu-smi info", f"{why}: {line!r}" if line else "printed nothing", "type it, and see what it says"
    )


# What npu-smi says where the driver does not let it in, and what that means.
DRIVER_FAULTS = {
    "-8020": (
        "another container holds the NPU: outside privileged containers, one NPU goes to one container",
        "docker ps, then stop the other container, or export ASR_NPUS=… to another NPU",
    ),
    "-8005": (
        "the driver does not answer: it is not loaded, was upgraded without a reboot, or is closed to this user",
        "sudo npu-smi info; if that works: sudo usermod -aG HwHiAiUser $USER, and log in again; if not: reboot",
    ),
}


def read_report(host: Host) -> NpuSmiReport:
    """What `npu-smi info` tells. Raises NpuSmiError, with its famous failures decoded, where it fails."""
    answer = host.run("npu-smi-info", [find_npu_smi(host) or "npu-smi", "info"])
    said = answer.output + answer.fault
    for code, (cause, advice) in DRIVER_FAULTS.items():
        if f"ret is {code}" in said:
            raise NpuSmiError("npu-smi info", f"{cause} (ret is {code})", advice)
    if answer.fault == NOT_FOUND:
        raise NpuSmiError("npu-smi", f"is not on PATH, nor {' or '.join(NPU_SMI)}", "install the NPU driver")
    if answer.fault:
        raise NpuSmiError("npu-smi info", answer.fault, "type it, and see what it says")
    return parse(answer.output)


def find_npu_smi(host: Host) -> str:
    """Where npu-smi is; empty if it is not."""
    found = host.ask("npu-smi-path", lambda: CommandResult(shutil.which("npu-smi") or ""))
    return found.output.strip() or next((path for path in NPU_SMI if host.state(path).kind == "file"), "")


def npu_numbers(npus: str) -> list[int]:
    """`0-3,6` → [0, 1, 2, 3, 6]. Raises KitError where a range runs backwards."""
    found: set[int] = set()
    for part in npus.split(","):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise KitError(variable("npus"), f"{part!r} runs backwards", f"{last}-{first}")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)

"""The list of checks. Codes are stable: what operators and support look for; a number is never given again."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from inspect import getdoc
from typing import Literal

from rich.table import Table
from rich.text import Text

from runtime import tables
from runtime.ops.doctor import docker, machine, npu, vllm_packages, weights
from runtime.ops.doctor import npu as driver
from runtime.ops.doctor import vllm as device
from runtime.ops.doctor import vllm as servers
from runtime.ops.doctor import vllm as setting
from runtime.ops.doctor.findings import CheckResult, Examination, Finding, Status

Where = Literal["host", "container", "both"]
OWN_FILE = "ASR-D14"  # which `make up` shows even where it passes

MARKS: dict[Status, Text] = {
    "pass": Text("ok", "green"),
    "warn": Text("warn", "yellow"),
    "fail": Text("FAIL", "bold red"),
}


@dataclass(frozen=True)
class Check:
    """A check: what it is called and where it is made. Its function answers None where there is nothing to say.

    `npu`: only where the settings want one. `vllm`: only where the engine is vllm. `slow`: not before `make up`,
    because it takes long or tells of what `make up` is about to change.
    """

    code: str
    title: str
    examine: Callable[[Examination], CheckResult | None]
    where: Where = "both"
    npu: bool = False
    vllm: bool = False
    slow: bool = False

    def applies(self, case: Examination) -> bool:
        """Whether it is made in this case."""
        return (
            self.where in ("both", case.place)
            and (case.wants_npu or not self.npu)
            and (case.settings.engine_name == "vllm" or not self.vllm)
            and not (self.slow and case.quick)
        )


CHECKS = (
    Check("ASR-D01", "Architecture", machine.architecture),
    Check("ASR-D02", "System", machine.system),
    Check("ASR-D03", "Memory", machine.memory),
    Check("ASR-D04", "Disk", machine.disk),
    Check("ASR-D05", "Port", machine.port, where="host"),
    Check("ASR-D06", "Settings", machine.settings),
    Check("ASR-D07", "Certificate", machine.certificate),
    Check("ASR-D08", "Certificate expiry", machine.certificate_expiry, slow=True),  # no reason not to start
    Check("ASR-D09", "Access", machine.access, where="host"),
    Check("ASR-D10", "Docker", docker.docker_engine, where="host"),
    Check("ASR-D11", "Compose", docker.compose, where="host"),
    Check("ASR-D12", "Ascend's runtime", docker.ascend_runtime, where="host", npu=True),
    Check("ASR-D13", "Servers", docker.servers, where="host", slow=True),
    Check(OWN_FILE, "Own compose file", docker.own_file, where="host"),
    Check("ASR-D20", "NPU", npu.presence),
    Check("ASR-D21", "Driver", driver.driver, npu=True),
    Check("ASR-D22", "Firmware", driver.firmware, where="host", npu=True),
    Check("ASR-D23", "Driver and CANN", driver.driver_and_cann, npu=True),
    Check("ASR-D24", "Device nodes", driver.device_nodes, npu=True),
    Check("ASR-D25", "Mounts", driver.mounts, where="host", npu=True),
    Check("ASR-D26", "npu-smi", npu.smi, npu=True),
    Check("ASR-D27", "Health", npu.health, npu=True),
    Check("ASR-D28", "Device memory", npu.memory, npu=True),
    Check("ASR-D30", "Weights", weights.weights),
    Check("ASR-D31", "Hub", weights.hub, where="host", slow=True),
    Check("ASR-D40", "CANN", docker.cann, where="container", npu=True),
    Check("ASR-D41", "Packages", docker.packages, where="container"),
    Check("ASR-D42", "torch_npu", docker.torch_npu, where="container", npu=True, slow=True),
    Check("ASR-D43", "Calculation", docker.calculation, where="container", npu=True, slow=True),
    Check("ASR-D50", "Engine", setting.engine),
    Check("ASR-D51", "vLLM", vllm_packages.versions, vllm=True),
    Check("ASR-D52", "qwen-asr", vllm_packages.trap, vllm=True),
    Check("ASR-D53", "Audio for vLLM", vllm_packages.audio, vllm=True),
    Check("ASR-D54", "Graphs", device.graphs, npu=True, vllm=True),
    Check("ASR-D55", "310P", device.for_310p, npu=True, vllm=True),
    Check("ASR-D56", "Model length", setting.length, vllm=True),
    Check("ASR-D57", "Memory share", device.memory_share, npu=True, vllm=True),
    Check("ASR-D58", "vLLM servers", servers.servers, vllm=True, slow=True),
)


def checks_table() -> str:
    """All checks, as a Markdown table for the documents."""
    lines = [("Code", "Check", "Passes if", "Where", "`make up`"), ("---",) * 5]
    for check in CHECKS:
        where = {"host": "host", "container": "container", "both": "host, container"}[check.where]
        where += ", engine vllm" if check.vllm else ""
        said = (getdoc(check.examine) or "").partition("\n")[0].rstrip(".")
        lines.append(
            (f"`{check.code}`", check.title, said, where, "no" if check.slow or check.where == "container" else "yes")
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(findings: Iterable[Finding]) -> Table:
    """Every finding: how bad, what was found, what to do."""
    shown = tables.table()
    for column in ("", "Code", "Check"):
        shown.add_column(column, no_wrap=True)
    for column in ("Found", "To do"):
        shown.add_column(column, overflow="fold")
    for finding in findings:
        words = (finding.code, finding.title, finding.evidence, finding.fix)
        shown.add_row(MARKS[finding.status], *map(Text, words))
    return shown


def document(findings: Sequence[Finding], host: str) -> str:
    """All of it as JSON."""
    told = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": host,
        "passed": all(finding.status != "fail" for finding in findings),  # warnings are no failures
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(told, ensure_ascii=False, indent=2) + "\n"

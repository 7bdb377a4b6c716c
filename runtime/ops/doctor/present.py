"""Findings for people and for programs. Needs nothing of the model, to run on a host where little is installed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone

from rich.table import Table
from rich.text import Text

from runtime import tables
from runtime.ops.doctor.findings import Finding, Status

MARKS: dict[Status, Text] = {
    "pass": Text("ok", "green"),
    "warn": Text("warn", "yellow"),
    "fail": Text("FAIL", "bold red"),
}


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

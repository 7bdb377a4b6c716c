"""What it runs on and with: host, NPU, packages, weights, image, settings."""

from collections.abc import Iterator

from env.settings import DEMO
from env.translation import in_context
from runtime.host.npu_smi import NpuSmiReport as NpuSmi
from runtime.host.npu_smi import Usage
from runtime.measure.metrics import amount
from runtime.measure.report.document import Block, Cell, Code, Mark, Paragraph, Say, Section, Table, Tone
from runtime.measure.report.record import Report
from runtime.ops.doctor.findings import Finding

# The doctor's checks that are about the NPU and its software, by their codes.
NPU_CHECKS = ("ASR-D12", *(f"ASR-D2{number}" for number in range(10)), "ASR-D40", "ASR-D42", "ASR-D43")


def host(report: Report, say: Say) -> Section:
    """The machine, and what the doctor says of it."""
    where = report.head.where
    rows: tuple[tuple[Cell, ...], ...] = (
        (say("Host name"), where.host),
        (say("System"), where.system),
        (
            say("Processor"),
            say("{machine}, {cores} cores", machine=where.machine, cores=where.cores),
        ),
        (say("Main memory"), amount(where.memory, "bytes")),
        (say("Kit"), where.kit),
        (say("Commit"), Code(where.commit) if where.commit else say("not known")),
    )
    found = [finding for finding in report.facts.findings if finding.code not in NPU_CHECKS]
    blocks = (Table((say("What"), say("Found")), rows), *_findings(found, say))
    return Section("host", say("Host"), blocks)


def npu(report: Report, say: Say) -> Section:
    """Chips, driver, firmware, CANN."""
    facts, where = report.facts, report.head.where
    none = say("none found")
    rows: tuple[tuple[Cell, ...], ...] = (
        (say("Device in use"), f"{where.device} ({where.description})"),
        (say("Driver"), facts.driver or none),
        ("CANN", facts.cann or none),
        ("npu-smi", facts.smi.version if facts.smi else facts.smi_fault),
    )
    blocks: list[Block] = []
    if facts.device_fault:
        words = say("No device could be opened: {}")
        blocks.append(Paragraph(words.format(facts.device_fault), "fail"))
    elif where.why_not_npu:
        blocks.append(Paragraph(say("No NPU is used: {}").format(where.why_not_npu), "cpu"))
    blocks.append(Table((say("What"), say("Found")), rows))
    if facts.smi:
        blocks.append(chips(facts.smi, say))
    found = [finding for finding in facts.findings if finding.code in NPU_CHECKS]
    blocks += _findings(found, say)
    return Section("npu", say("NPU, driver, CANN"), tuple(blocks))


def chips(told: NpuSmi, say: Say, *, caption: str = "npu-smi info") -> Table:
    """The chips as npu-smi lists them; memory in MB, as there."""
    headings: tuple[str, ...] = ("NPU", say("Type"), say("Health"), say("Power"))
    headings += (say("Temperature"), say("Memory used, MB"))
    rows = tuple(
        (
            str(chip.node),
            chip.name,
            chip.health,
            "–" if chip.power is None else f"{chip.power:g} W",
            "–" if chip.temperature is None else f"{chip.temperature} °C",
            _usage(chip.main_memory),
        )
        for chip in told.chips
    )
    return Table(headings, rows, caption, figures=3)


def packages(report: Report, say: Say) -> Section:
    """What is installed against what is pinned."""
    facts = report.facts
    words = {
        "same": Mark(say("same"), "pass"),
        "harmless": Mark(say("harmless"), "open"),
        "matters": Mark(say("matters"), "fail"),
    }
    headings = (
        say("Package"),
        say("Pinned"),
        say("Installed"),
        say("Difference"),
    )
    rows = tuple(
        (Code(row.name), row.pinned or "–", row.installed or "–", words[row.severity]) for row in facts.packages
    )
    text = say(
        (
            "Compared with the stack {stack} of env/stacks.toml, as invoke versions does. "
            "The validated stack on Ascend is npu."
        ),
        stack=facts.stack,
    )
    return Section("packages", say("Packages"), (Paragraph(text), Table(headings, rows)))


def weights(report: Report, say: Say) -> Section:
    """Which weights, from where, with which sums."""
    found = report.facts.weights
    size = sum(file.size for file in found.files)
    rows: list[tuple[Cell, ...]] = [(say("Model"), Code(found.model))]
    named = (
        (say("Repository"), found.repo),
        (say("Source"), " ".join(filter(None, [found.hub, found.endpoint]))),
        (say("Revision"), found.revision),
        (say("Commit"), found.commit),
        (say("Recorded"), found.date),
    )
    rows += [(name, value or say("not known")) for name, value in named if found.model != DEMO]
    if found.files:
        rows.append(
            (
                say("Size"),
                say(
                    "{size}, {files} files",
                    size=amount(size, "bytes"),
                    files=len(found.files),
                ),
            )
        )
    blocks: list[Block] = [Table((say("What"), say("Found")), tuple(rows))]
    if found.model == DEMO:
        words = say(
            "The embedded demo model: 2.7 million parameters, a vocabulary of some 200 words. "
            "Nothing here tells of the accuracy or speed of Qwen3-ASR-1.7B.",
        )
        blocks.insert(0, Paragraph(words, "open"))
    elif not found.recorded:
        words = say(
            "weights.lock has no entry for these weights: nothing tells what they must be → invoke verify-weights",
        )
        blocks.insert(0, Paragraph(words, "fail"))
    if found.files:
        headings = (say("File"), "sha256", say("Bytes"))
        files = tuple((Code(file.name), Code(file.sha256), str(file.size)) for file in found.files)
        blocks.append(Table(headings, files, figures=2))
    return Section("weights", say("Weights"), tuple(blocks))


def image(report: Report, say: Say) -> Section:
    """The image that this ran in, or that the settings mean."""
    found = report.facts.image
    inside = found.place == "container"
    if inside:
        text = say(
            "Made inside the image that manifest.json describes. A container cannot see its image's digest: on the "
            "host, docker image inspect shows it, and a report made there has it.",
        )
    elif found.id:
        text = say(
            "Not made in a container. This is the image that the settings mean, as docker on this host has it.",
        )
    else:
        text = say(
            "Not made in a container, and docker on this host has no image {}.",
        ).format(found.name)
    named = (
        (say("Name"), found.name),
        (
            say("Digest"),
            ", ".join(found.digests) or (say("none: not from a registry") if found.id else ""),
        ),
        ("Id", found.id),
        (say("Base image"), found.base),
        (say("Stack"), found.stack),
        (say("Kit"), found.version),
        (say("Commit"), found.commit),
        (say("Built"), found.written),
    )
    rows = tuple((name, Code(value)) for name, value in named if value)
    table = (Table((say("What"), say("Found")), rows),) if inside or found.id else ()
    return Section("image", say("Image"), (Paragraph(text), *table))


def settings(report: Report, say: Say) -> Section:
    """Every setting in force, those that differ from the defaults first."""
    headings = (say("Setting"), say("Value"), say("Unit"), say("From"))
    rows = report.facts.settings
    chosen = [row for row in rows if row.origin != "default"]
    others = [row for row in rows if row.origin == "default"]
    blocks: list[Block] = [Paragraph(say("As invoke config shows them. Secrets are masked."))]
    for group, caption in (
        (chosen, say("Set here or by the profile")),
        (others, say("As by default")),
    ):
        if group:
            table = tuple(
                (Code(row.variable), Code(row.value) if row.value else "–", row.unit, row.origin) for row in group
            )
            blocks.append(Table(headings, table, caption))
    return Section("settings", say("Settings"), tuple(blocks))


def _findings(findings: list[Finding], say: Say) -> Iterator[Block]:
    marks: dict[str, tuple[str, Tone]] = {
        "pass": (say("pass"), "pass"),
        "warn": (say("warning"), "open"),
        "fail": (say("fail"), "fail"),
    }
    if findings:
        headings = (say("Verdict"), say("Check"), say("Found"), say("To do"))
        rows = tuple(
            (Mark(*marks[one.status]), say.words(in_context("check", one.title)), one.evidence, one.fix)
            for one in findings
        )
        yield Table(headings, rows, say("By invoke doctor"))


def _usage(usage: Usage | None) -> str:
    return f"{usage.used} / {usage.total}" if usage else "–"

"""What a reader must know before anything else: what it ran on, what it concludes, the figures that are asked for."""

import shlex
from collections.abc import Iterator

from env.reference import MASK
from env.settings import DEMO
from env.translation import translated
from runtime.measure.bench.record import SEED, read
from runtime.measure.metrics import PARTS, amount, times
from runtime.measure.records import Head
from runtime.measure.report.document import (
    Banner,
    Block,
    Cell,
    Code,
    CodeBlock,
    Items,
    Mark,
    Paragraph,
    Say,
    Section,
    Table,
    Tone,
)
from runtime.measure.report.record import Name, Report, Status
from runtime.measure.report.sections.host import chips
from runtime.measure.report.sections.measured import unfinished
from runtime.measure.report.verdicts import QUESTIONS
from runtime.measure.statistics import Figure, apart

KEY_FIGURES = (
    "loading/seconds",
    "latency/total",
    "latency/rtf",
    "throughput/speed",
    "memory/loaded",
    "closed/throughput",
    "closed/first-token",
)

TASKS: tuple[Name, ...] = ("smoke", "bench", "accuracy")


def banner(report: Report, say: Say) -> Banner:
    """On what it was measured, in words nobody can misread."""
    where, facts = report.head.where, report.facts
    if facts.device_fault:
        title = say("Nothing was measured: no device could be opened")
        return Banner("none", title, facts.device_fault)
    if not report.measured:
        title = say("Nothing was measured")
        words = say("There is {}, but no figure here is from it.")
        return Banner("none", title, words.format(where.description))
    demo = where.model == DEMO
    stand_in = say(" The model is the embedded demo model, not Qwen3-ASR-1.7B.")
    more = stand_in if demo else ""
    if where.silicon == "NPU":
        words = say(
            "All figures are of {}, except those marked as from elsewhere or from a simulated NPU.",
        )
        title = say("Measured on an NPU: {}")
        return Banner("npu", title.format(where.description), words.format(where.description) + more)
    if where.silicon == "simulated NPU":
        text = say(
            "A stand-in for torch_npu calculated on this machine's CPU. Results are the CPU's to the bit; "
            "its speed and memory mean nothing for an NPU.",
        )
        return Banner("simulated", say("Simulated NPU: no NPU was used"), text + more)
    if where.silicon == "unknown":
        text = say(
            "The model is in a vLLM that runs elsewhere and does not tell on what: {}.{}",
        )
        return Banner("unknown", say("Measured on unknown silicon"), text.format(where.description, more))
    text = say(
        "{}. Speed and memory say nothing about an NPU.{} Why no NPU: {}",
    )
    why = where.why_not_npu or say("vLLM runs on the CPU")
    title = say("Measured on a CPU, not on an NPU")
    return Banner("cpu", title, text.format(where.description, more, why))


def facts(report: Report, say: Say) -> tuple[tuple[str, str], ...]:
    """What stands under the title."""
    where = report.head.where
    revision = f" @ {where.revision}" if where.revision else ""
    commit = f" ({where.commit[:12]})" if where.commit else ""
    return (
        (say("Model"), f"{where.model}{revision}"),
        (say("Number format"), where.dtype),
        (say("Engine"), where.engine_and_version),
        (say("Host"), where.host),
        (say("Date (UTC)"), report.head.begun.replace("T", " ").removesuffix("+00:00")),
        (say("Kit"), f"{where.kit}{commit}"),
    )


def summary(report: Report, say: Say) -> Section:
    """Verdicts, then the figures that people ask for first."""
    counts = {status: sum(one.status == status for one in report.verdicts) for status in ("pass", "fail", "not run")}
    text = say(
        "{passed} passed, {failed} failed, {not_run} not run.",
        passed=counts["pass"],
        failed=counts["fail"],
        not_run=counts["not run"],
    )
    headings = (say("Verdict"), say("Question"), say("Reason"))
    rows = tuple(
        (mark(one.status, say), say.words(QUESTIONS[one.question]), say.words(one.reason)) for one in report.verdicts
    )
    blocks: list[Block] = [
        *unfinished(report.head, say),
        Paragraph(text),
        Table(headings, rows),
        *_figures(report, say),
    ]
    return Section("summary", say("Summary"), tuple(blocks))


def mark(status: Status, say: Say) -> Mark:
    """A verdict's word, in its look."""
    looks: dict[Status, tuple[str, Tone]] = {
        "pass": (say("pass"), "pass"),
        "fail": (say("fail"), "fail"),
        "not run": (say("not run"), "open"),
    }
    return Mark(*looks[status])


def _figures(report: Report, say: Say) -> Iterator[Block]:
    if report.bench is None:
        return
    first = read(SEED)
    there, here = first.head.where, report.bench.head.where
    comparable = not apart(there, here)
    rows: list[tuple[Cell, ...]] = []
    for quantity in KEY_FIGURES:
        chosen = _chosen([figure for figure in report.bench.figures if figure.quantity == quantity])
        if chosen is None:
            continue
        stated = next((figure for figure in first.figures if figure.key == chosen.key), None)
        before = amount(stated.spread.middle, stated.meaning.unit) if stated else "–"
        if stated and comparable and stated.spread.middle:
            before += f" ({times(chosen.spread.middle / stated.spread.middle)})"
        spread = chosen.spread
        between = "–" if spread.count == 1 else f"{_of(chosen, spread.minimum)} – {_of(chosen, spread.maximum)}"
        rows.append((_name(chosen, say), _of(chosen, spread.middle), between, str(spread.count or "–"), before))
    if rows:
        headings = (
            say("Figure"),
            say("Median"),
            say("Least – most"),
            say("n"),
        )
        elsewhere = say("Elsewhere: first validation, {description}", description=there.description)
        caption = say("Figures at a glance")
        yield Table((*headings, elsewhere), tuple(rows), caption, figures=1)
        yield Paragraph(
            say(
                "The last column is not from here: {host}, measured by hand in the first validation.",
                host=translated(there.host),
            )
        )


def _chosen(figures: list[Figure]) -> Figure | None:
    """The one of a quantity that is shown: the best, where it was measured at several places."""
    if not figures:
        return None
    best = max if figures[0].meaning.better == "higher" else min
    return best(figures, key=lambda figure: figure.spread.middle)


def _name(figure: Figure, say: Say) -> str:
    part = PARTS[figure.quantity.partition("/")[0]]
    place = "" if figure.at is None else f" ({part.axis[say.language]}: {figure.at:g})"
    return say.typeset(f"{part.name[say.language]}: {figure.meaning.name[say.language]}{place}")


def _of(figure: Figure, value: float | None) -> str:
    return amount(value, figure.meaning.unit)


def resources(report: Report, say: Say) -> Section:
    """What is left when all has ended."""
    verdict = next(one for one in report.verdicts if one.question == "resources")
    text = say(
        "Each measurement is a process of its own, which gives back memory and device by ending.",
    )
    headings = (say("Verdict"), say("Reason"))
    blocks: list[Block] = [Paragraph(text), Table(headings, ((mark(verdict.status, say), say.words(verdict.reason)),))]
    before, after = report.facts.smi, report.facts.smi_after
    for told, caption in (
        (before, say("npu-smi info, before")),
        (after, say("npu-smi info, after")),
    ):
        if told:
            blocks.append(chips(told, say, caption=caption))
    return Section("resources", say("Resource clean-up"), tuple(blocks))


def sources(report: Report, say: Say) -> Section:
    """Which runs the figures are from."""
    how = {
        "taken": say("taken from an earlier run"),
        "measured": say("measured for this report"),
        "missing": say("not there"),
    }
    heads = _heads(report)
    rows = []
    for source in report.sources:
        head = heads.get(source.name)
        notes = (say.words(note) for note in source.notes)
        more = say.joined([*notes, _otherwise(report, head, say) if head else ""])
        rows.append(
            (
                Code(head.command if head else f"invoke {source.name}"),
                how[source.used],
                head.begun.replace("T", " ").removesuffix("+00:00") if head else "–",
                f"{head.seconds:.0f} s" if head else "–",
                (say("yes") if head.complete else head.ended) if head else "–",
                more,
            )
        )
    headings: tuple[str, ...] = (
        say("Run"),
        say("Where from"),
        say("Begun (UTC)"),
        say("Took"),
    )
    headings += (say("Complete"), say("Notes"))
    return Section("sources", say("What the figures rest on"), (Table(headings, tuple(rows)),))


def limits(report: Report, say: Say) -> Section:
    """What must not be read into it."""
    return Section("limits", say("Known limits"), (Items(tuple(_limits(report, say))),))


def reproduce(report: Report, say: Say) -> Section:
    """The commands, in order, with the settings that are not the defaults."""
    text = say(
        "On a host of the same kind, in a clone of the kit. Secrets are not shown: set those yourself.",
    )
    commands = "\n".join(_commands(report))
    return Section("reproduce", say("Do it again"), (Paragraph(text), CodeBlock(commands)))


def _heads(report: Report) -> dict[str, Head]:
    records = {"smoke": report.smoke, "bench": report.bench, "accuracy": report.accuracy}
    return {name: record.head for name, record in records.items() if record}


def _otherwise(report: Report, head: Head, say: Say) -> str:
    """What of host, kit and settings was not as now, though the figures are taken."""
    now, then = report.head.where, head.where
    told = [
        say("{name}: {value} then, {value2} now", name=name, value=one or "–", value2=other or "–")
        for name, one, other in (
            (translated("host"), then.host, now.host),
            (translated("commit"), then.commit[:18], now.commit[:18]),
        )
        if one != other
    ]
    names = sorted(
        name for name in {*then.settings, *now.settings} if then.settings.get(name) != now.settings.get(name)
    )
    if names:
        listed = ", ".join(f"{name}={then.settings.get(name, '–')}" for name in names)
        told.append(say("settings then: {listed}", listed=listed))
    return say.joined(told)


def _limits(report: Report, say: Say) -> Iterator[str]:
    where, bench = report.head.where, report.bench
    if where.silicon == "unknown":
        yield say(
            "The vLLM that was asked does not tell what it runs on, so its figures say nothing of any hardware.",
        )
    elif where.silicon != "NPU":
        yield say(
            "No NPU took part. Whether the model runs on one, how fast, and in how much memory, is not shown here.",
        )
    if where.model == DEMO:
        yield say(
            "The model is the embedded demo model. Its texts, error rates, times and memory are its own.",
        )
    yield say(
        "The figures of the first validation are from elsewhere, were measured by hand, and state no spread beyond "
        "what is shown.",
    )
    yield say(
        "Medians beyond noise differ by more than one run shows of it. What changed on the host between two runs, such "
        "as temperature or other work, no interval tells.",
    )
    if bench and bench.part("closed"):
        yield say(
            "Clients and server share this machine: under load they take processor time from each other.",
        )
    yield say(
        "Error rates hold for the data that they were measured on, and for how its texts are normalised.",
    )
    yield say(
        "Evidence by npu-smi and by the doctor is of the moment at which this report was made.",
    )


def _commands(report: Report) -> Iterator[str]:
    facts, where = report.facts, report.head.where
    commit = where.commit.removesuffix("-dirty")
    if commit:
        changed = "   # and what was changed since" if where.commit != commit else ""
        yield f"git checkout {commit}{changed}"
    inside = facts.image.place == "container"
    if not inside:
        yield f"python env/install.py {facts.stack}"
    for row in facts.settings:
        if row.origin != "default" and row.value != MASK and not row.origin.startswith("env/profiles"):
            yield f"export {row.variable}={shlex.quote(row.value)}"
    if where.model != DEMO:
        yield "invoke fetch-weights"
        yield "invoke verify-weights"
    if inside:
        yield "make up"
        yield "make shell   # and in it:"
    yield "invoke doctor"
    heads = _heads(report)
    for name in TASKS:
        yield (
            heads[name].command
            if name in heads
            else f"invoke {name}{' DATA' * (name == 'accuracy' and where.model != DEMO)}"
        )
    yield report.head.command

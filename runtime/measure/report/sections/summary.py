"""What a reader must know before anything else: what it ran on, what it concludes, the figures that are asked for."""

from collections.abc import Iterator

from env.settings import DEMO
from runtime.measure.bench.record import SEED, read
from runtime.measure.comparing import apart
from runtime.measure.figures import Figure
from runtime.measure.numbers import amount, times
from runtime.measure.quantities import PARTS
from runtime.measure.report.document import Banner, Block, Cell, Mark, Paragraph, Say, Section, Table, Tone
from runtime.measure.report.record import Report, Status
from runtime.measure.report.sections.parts import FIRST_ZH, unfinished
from runtime.measure.report.verdicts import QUESTIONS

KEY_FIGURES = (
    "loading/seconds",
    "latency/total",
    "latency/rtf",
    "throughput/speed",
    "memory/loaded",
    "closed/throughput",
    "closed/first-token",
)


def banner(report: Report, say: Say) -> Banner:
    """On what it was measured, in words nobody can misread."""
    where, facts = report.head.where, report.facts
    if facts.device_fault:
        title = say("Nothing was measured: no device could be opened", "未进行任何测量:无法打开任何设备")
        return Banner("none", title, facts.device_fault)
    if not report.measured:
        title = say("Nothing was measured", "未进行任何测量")
        words = say("There is {}, but no figure here is from it.", "本机有 {},但本报告没有任何由其测得的数据。")
        return Banner("none", title, words.format(where.description))
    demo = where.model == DEMO
    stand_in = say(
        " The model is the embedded demo model, not Qwen3-ASR-1.7B.", "模型为内置演示模型,并非 Qwen3-ASR-1.7B。"
    )
    more = stand_in if demo else ""
    if where.silicon == "NPU":
        words = say(
            "All figures are of {}, except those marked as from elsewhere or from a simulated NPU.",
            "除注明来自他处或模拟 NPU 的数据外,所有数据均在 {} 上测得。",
        )
        title = say("Measured on an NPU: {}", "在 NPU 上测得:{}")
        return Banner("npu", title.format(where.description), words.format(where.description) + more)
    if where.silicon == "simulated NPU":
        text = say(
            "A stand-in for torch_npu calculated on this machine's CPU. Results are the CPU's to the bit; "
            "its speed and memory mean nothing for an NPU.",
            "由本机 CPU 上的 torch_npu 替身计算。结果与 CPU 逐位一致;速度和内存数据对 NPU 没有参考意义。",
        )
        return Banner("simulated", say("Simulated NPU: no NPU was used", "模拟 NPU:未使用真实 NPU"), text + more)
    if where.silicon == "unknown":
        text = say(
            "The model is in a vLLM that runs elsewhere and does not tell on what: {}.{}",
            "模型在别处运行的 vLLM 中,该服务不报告其硬件:{}。{}",
        )
        return Banner(
            "unknown", say("Measured on unknown silicon", "在未知硬件上测得"), text.format(where.description, more)
        )
    text = say(
        "{}. Speed and memory say nothing about an NPU.{} Why no NPU: {}",
        "{}。速度和内存数据不代表 NPU。{}未使用 NPU 的原因:{}",
    )
    why = where.why_not_npu or say("vLLM runs on the CPU", "vLLM 运行在 CPU 上")
    title = say("Measured on a CPU, not on an NPU", "在 CPU 上测得,未使用 NPU")
    return Banner("cpu", title, text.format(where.description, more, why))


def facts(report: Report, say: Say) -> tuple[tuple[str, str], ...]:
    """What stands under the title."""
    where = report.head.where
    revision = f" @ {where.revision}" if where.revision else ""
    commit = f" ({where.commit[:12]})" if where.commit else ""
    return (
        (say("Model", "模型"), f"{where.model}{revision}"),
        (say("Number format", "数值格式"), where.dtype),
        (say("Engine", "推理引擎"), where.engine_and_version),
        (say("Host", "主机"), where.host),
        (say("Date (UTC)", "日期(UTC)"), report.head.begun.replace("T", " ").removesuffix("+00:00")),
        (say("Kit", "套件版本"), f"{where.kit}{commit}"),
    )


def summary(report: Report, say: Say) -> Section:
    """Verdicts, then the figures that people ask for first."""
    counts = {status: sum(one.status == status for one in report.verdicts) for status in ("pass", "fail", "not run")}
    text = say(
        f"{counts['pass']} passed, {counts['fail']} failed, {counts['not run']} not run.",
        f"通过 {counts['pass']} 项,不通过 {counts['fail']} 项,未执行 {counts['not run']} 项。",
    )
    headings = (say("Verdict", "结论"), say("Question", "检查内容"), say("Why", "依据"))
    rows = tuple(
        (mark(one.status, say), say.words(QUESTIONS[one.question]), say.words(one.reason)) for one in report.verdicts
    )
    blocks: list[Block] = [
        *unfinished(report.head, say),
        Paragraph(text),
        Table(headings, rows),
        *_figures(report, say),
    ]
    return Section("summary", say("Summary", "摘要"), tuple(blocks))


def mark(status: Status, say: Say) -> Mark:
    """A verdict's word, in its look."""
    looks: dict[Status, tuple[str, Tone]] = {
        "pass": (say("pass", "通过"), "pass"),
        "fail": (say("fail", "不通过"), "fail"),
        "not run": (say("not run", "未执行"), "open"),
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
            say("Figure", "指标"),
            say("Median", "中位数"),
            say("Least – most", "最小 – 最大"),
            say("n", "样本数"),
        )
        elsewhere = say(f"Elsewhere: first validation, {there.description}", f"他处:首次验证,{there.description}")
        caption = say("Figures at a glance", "主要指标")
        yield Table((*headings, elsewhere), tuple(rows), caption, figures=1)
        yield Paragraph(
            say(
                f"The last column is not from here: {there.host}, measured by hand in the first validation.",
                f"最后一列并非本机测得:{FIRST_ZH},首次验证时手工测得。",
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

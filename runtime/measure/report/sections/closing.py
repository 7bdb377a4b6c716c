"""What remains to be said: clean-up, what it rests on, limits, and how to do it again."""

import shlex
from collections.abc import Iterator

from env.reference import MASK
from env.settings import DEMO
from runtime.measure.quantities import Words
from runtime.measure.records import Head
from runtime.measure.report.document import Block, Code, Items, Listing, Paragraph, Say, Section, Table
from runtime.measure.report.record import Name, Report
from runtime.measure.report.sections.host import chips
from runtime.measure.report.sections.summary import mark

TASKS: tuple[Name, ...] = ("smoke", "bench", "accuracy")


def resources(report: Report, say: Say) -> Section:
    """What is left when all has ended."""
    verdict = next(one for one in report.verdicts if one.question == "resources")
    text = say(
        "Each measurement is a process of its own, which gives back memory and device by ending.",
        "每项测量都在独立进程中进行,进程结束即释放内存和设备。",
    )
    headings = (say("Verdict", "结论"), say("Why", "依据"))
    blocks: list[Block] = [Paragraph(text), Table(headings, ((mark(verdict.status, say), say.words(verdict.reason)),))]
    before, after = report.facts.smi, report.facts.smi_after
    for told, caption in (
        (before, say("npu-smi info, before", "npu-smi info,测量前")),
        (after, say("npu-smi info, after", "npu-smi info,测量后")),
    ):
        if told:
            blocks.append(chips(told, say, caption=caption))
    return Section("resources", say("Resource clean-up", "资源清理"), tuple(blocks))


def sources(report: Report, say: Say) -> Section:
    """Which runs the figures are from."""
    how = {
        "taken": say("taken from an earlier run", "取自先前的运行"),
        "measured": say("measured for this report", "为本报告测量"),
        "missing": say("not there", "无"),
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
                (say("yes", "是") if head.complete else head.ended) if head else "–",
                more,
            )
        )
    headings: tuple[str, ...] = (
        say("Run", "运行"),
        say("Where from", "来源"),
        say("Begun (UTC)", "开始(UTC)"),
        say("Took", "耗时"),
    )
    headings += (say("Complete", "是否完成"), say("Notes", "说明"))
    return Section("sources", say("What the figures rest on", "数据来源"), (Table(headings, tuple(rows)),))


def limits(report: Report, say: Say) -> Section:
    """What must not be read into it."""
    return Section("limits", say("Known limits", "已知局限"), (Items(tuple(_limits(report, say))),))


def reproduce(report: Report, say: Say) -> Section:
    """The commands, in order, with the settings that are not the defaults."""
    text = say(
        "On a host of the same kind, in a clone of the kit. Secrets are not shown: set those yourself.",
        "在同类主机上的套件目录中执行。密钥不在其列,请自行设置。",
    )
    commands = "\n".join(_commands(report))
    return Section("reproduce", say("Do it again", "复现命令"), (Paragraph(text), Listing(commands)))


def _heads(report: Report) -> dict[str, Head]:
    records = {"smoke": report.smoke, "bench": report.bench, "accuracy": report.accuracy}
    return {name: record.head for name, record in records.items() if record}


def _otherwise(report: Report, head: Head, say: Say) -> str:
    """What of host, kit and settings was not as now, though the figures are taken."""
    now, then = report.head.where, head.where
    told = [
        say(f"{name.en}: {one or '–'} then, {other or '–'} now", f"{name.zh}:当时 {one or '–'},现在 {other or '–'}")
        for name, one, other in (
            (Words("host", "主机"), then.host, now.host),
            (Words("commit", "提交"), then.commit[:18], now.commit[:18]),
        )
        if one != other
    ]
    names = sorted(
        name for name in {*then.settings, *now.settings} if then.settings.get(name) != now.settings.get(name)
    )
    if names:
        listed = ", ".join(f"{name}={then.settings.get(name, '–')}" for name in names)
        told.append(say(f"settings then: {listed}", f"当时的配置:{listed}"))
    return say.joined(told)


def _limits(report: Report, say: Say) -> Iterator[str]:
    where, bench = report.head.where, report.bench
    if where.silicon == "unknown":
        yield say(
            "The vLLM that was asked does not tell what it runs on, so its figures say nothing of any hardware.",
            "所用 vLLM 不报告其硬件,因此数据不能说明任何硬件的性能。",
        )
    elif where.silicon != "NPU":
        yield say(
            "No NPU took part. Whether the model runs on one, how fast, and in how much memory, is not shown here.",
            "没有 NPU 参与。本报告不能说明模型能否在 NPU 上运行、速度多快、占用多少显存。",
        )
    if where.model == DEMO:
        yield say(
            "The model is the embedded demo model. Its texts, error rates, times and memory are its own.",
            "所用为内置演示模型,其文本、错误率、耗时和内存均只属于该模型。",
        )
    yield say(
        "The figures of the first validation are from elsewhere, were measured by hand, and state no spread beyond "
        "what is shown.",
        "首次验证的数据来自他处,为手工测得,除所列之外没有离散度信息。",
    )
    yield say(
        "Medians beyond noise differ by more than one run shows of it. What changed on the host between two runs, such "
        "as temperature or other work, no interval tells.",
        "“超出噪声”指差异大于单次运行自身的波动。两次运行之间主机状态的变化(如温度、其他负载)不在区间之内。",
    )
    if bench and bench.part("closed"):
        yield say(
            "Clients and server share this machine: under load they take processor time from each other.",
            "客户端与服务在同一台机器上:高负载时会相互争用处理器。",
        )
    yield say(
        "Error rates hold for the data that they were measured on, and for how its texts are normalised.",
        "错误率只对所用数据集及其文本规范化方式成立。",
    )
    yield say(
        "Evidence by npu-smi and by the doctor is of the moment at which this report was made.",
        "npu-smi 和 doctor 的结果只代表生成本报告的时刻。",
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

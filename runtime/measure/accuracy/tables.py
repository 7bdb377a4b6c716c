"""A run over a data set as tables for people, in English and Chinese, on a terminal and as Markdown."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from runtime.languages import LANGUAGES
from runtime.measure.accuracy.run import Accuracy
from runtime.measure.accuracy.score import CONFIDENCE, LENGTHS, Bad, Identified, Rate
from runtime.measure.error_rate import Step, Unit
from runtime.measure.metrics import UNKNOWN, Language, amount
from runtime.tables import table

Say = Callable[[str, str], str]  # English and Chinese → the one that is wanted

MOST_ROWS = 20  # of speakers, confusions, failures and bad utterances; the record has all
LABELS: dict[Unit, str] = {"words": "WER", "characters": "CER"}


@dataclass(frozen=True)
class AccuracyTable:
    """A table with a title, and what is to be said below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def sayer(language: Language) -> Say:
    """Chooses a language's words."""
    return lambda english, chinese: english if language == "en" else chinese


def spoken(name: str, say: Say) -> str:
    """A language's name; a dash for none."""
    return say(name, LANGUAGES[name].chinese if name in LANGUAGES else name) or UNKNOWN


def percent(share: float | None) -> str:
    """A share as `1.50%`, a dash for None."""
    return UNKNOWN if share is None else f"{share:.2%}"


def marked(steps: Sequence[Step], unit: Unit) -> str:
    """An alignment in one line: what is missing or was something else as [-so-], what was heard instead as {+so+}."""
    parts = []
    for step in steps:
        if step.kind == "equal":
            parts.append(step.reference)
        else:
            said = f"[-{step.reference}-]" if step.reference else ""
            parts.append(said + (f"{{+{step.hypothesis}+}}" if step.hypothesis else ""))
    return (" " if unit == "words" else "").join(parts)


def summary(record: Accuracy, language: Language) -> list[str]:
    """What was measured, on what, and what a reader must know before the rates."""
    say, where, score = sayer(language), record.head.where, record.score
    audio = amount(score.seconds, "s")
    lines = [
        say(
            f"{record.name}: {record.done} of {record.asked} utterances, {audio} of audio",
            f"{record.name}:{record.asked} 条语音中的 {record.done} 条,音频共 {audio}",
        ),
        f"{where.model}, {where.dtype}, {where.silicon} ({where.description})"
        + (f", {where.url}" if where.url else ""),
    ]
    if record.asked < record.items:
        lines.append(say(f"A part of the set's {record.items} utterances", f"数据集共 {record.items} 条,只取一部分"))
    if not record.head.complete:
        lines.append(say(f"NOT WHOLE: {record.head.ended}", f"不完整:{record.head.ended}"))
    if record.failed:
        count = len(record.failed)
        lines.append(
            say(
                f"{count} utterances FAILED and are in no rate; “with failed” counts all of them as missed",
                f"{count} 条转写失败,不计入错误率;“含失败”一栏按全部漏识计算",
            )
        )
    if record.refused:
        count = len(record.refused)
        lines.append(say(f"{count} entries of the data set could not be used", f"数据集中有 {count} 个条目不可用"))
    if record.forced:
        lines.append(say("Languages were given to the model", "语种由外部指定"))
    return lines


def grids(record: Accuracy, language: Language) -> Iterator[AccuracyTable]:
    """All tables that have rows, the most important first."""
    say, score = sayer(language), record.score
    rates = [
        *((say("all", "全部"), rate) for rate in score.overall),
        *((spoken(rate.name, say), rate) for rate in score.languages),
    ]
    texts = (
        say("texts compared as they are", "文本未作归一化")
        if record.plain
        else say("texts normalised by language", "文本按语种归一化")
    )
    yield _rates(say("Error rates", "错误率"), rates, say, notes=(f"{texts}{say('; ', ';')}{_interval(record, say)}",))
    yield _rates(say("By length", "按时长"), [(_span(rate.name), rate) for rate in score.lengths], say)
    yield _speakers(score.speakers, say)
    if score.identified:
        yield _confusion(score.identified, say)
    yield _others(record, say)
    yield _published(record, say)
    for title, pairs in (
        (say("Failed", "转写失败"), [(each.name, each.reason) for each in record.failed]),
        (say("Entries that cannot be used", "不可用的条目"), [(each.where, each.reason) for each in record.refused]),
    ):
        shown = (say("Where", "位置"), say("Why", "原因"))
        yield AccuracyTable(title, shown, tuple(pairs[:MOST_ROWS]), _left_off(len(pairs), say))
    yield _worst(score.worst, say)


def print_tables(record: Accuracy, out: Console) -> None:
    """For a terminal, in English."""
    for line in summary(record, "en"):
        out.print(line, markup=False, highlight=False)
    for grid in grids(record, "en"):
        if grid.rows:
            shown = table(*grid.columns)
            for row in grid.rows:
                shown.add_row(*map(escape, row))
            out.print(f"\n[bold]{escape(grid.title)}[/]")
            out.print(shown)
            for note in grid.notes:
                out.print(note, markup=False, highlight=False)


def markdown(record: Accuracy, language: Language) -> str:
    """The same as a document."""
    say = sayer(language)
    lines = [f"# {say('Accuracy', '识别准确率')}", ""]
    lines += [f"- {_plain(line)}" for line in summary(record, language)]
    lines += [f"- {record.head.begun}", f"- `{record.head.command}`"]
    for grid in grids(record, language):
        if grid.rows:
            lines += ["", f"## {grid.title}", ""]
            lines += [_row(grid.columns), _row("---" for _ in grid.columns), *(_row(map(_plain, r)) for r in grid.rows)]
            lines += [text for note in grid.notes for text in ("", _plain(note))]
    return "\n".join(lines) + "\n"


def _row(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text of which Markdown makes nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _rates(title: str, rates: Sequence[tuple[str, Rate]], say: Say, *, notes: tuple[str, ...] = ()) -> AccuracyTable:
    columns = (
        *("", "", say("Utterances", "语音条数"), say("Failed", "失败"), say("Error rate", "错误率")),
        *(say(f"{CONFIDENCE:.0%} interval", f"{CONFIDENCE:.0%} 置信区间"), say("With failed", "含失败")),
        *(say("Units", "字词数"), say("Substituted", "替换"), say("Deleted", "删除"), say("Inserted", "插入")),
        say("Without error", "完全正确"),
    )
    return AccuracyTable(title, columns, tuple((name, *_cells(rate)) for name, rate in rates), notes if rates else ())


def _cells(rate: Rate) -> tuple[str, ...]:
    interval = UNKNOWN if rate.low is None or rate.high is None else f"{percent(rate.low)}–{percent(rate.high)}"
    done = rate.utterances - rate.failed
    return (
        *(LABELS[rate.unit], str(rate.utterances), str(rate.failed), percent(rate.rate), interval),
        *(percent(rate.with_failed), str(rate.length)),
        *(str(rate.substitutions), str(rate.deletions), str(rate.insertions)),
        f"{rate.exact / done:.1%}" if done else UNKNOWN,
    )


def _interval(record: Accuracy, say: Say) -> str:
    by_speaker = any(rate.resampled == "speakers" for rate in record.score.overall)
    english, chinese = ("speakers", "说话人") if by_speaker else ("utterances", "语音条")
    return say(f"interval by bootstrap over {english}", f"置信区间由对{chinese}的自助法(bootstrap)得出")


def _span(begin: str) -> str:
    """A group of lengths by where it begins, in seconds."""
    end = next((edge for edge in LENGTHS if edge > float(begin)), None)
    return f"> {begin} s" if end is None else f"{begin}–{end:g} s"


def _speakers(rates: Sequence[Rate], say: Say) -> AccuracyTable:
    ordered = sorted(rates, key=lambda rate: -(rate.with_failed or 0))
    title = say("By speaker, the worst first", "按说话人(错误率高者在前)")
    shown = _rates(title, [(rate.name, rate) for rate in ordered[:MOST_ROWS]], say)
    return AccuracyTable(shown.title, shown.columns, shown.rows, _left_off(len(rates), say))


def _confusion(found: Identified, say: Say) -> AccuracyTable:
    pairs = sorted(found.confusion, key=lambda pair: (pair[0] == pair[1], -pair[2]))
    rows = [
        (spoken(said, say), spoken(heard, say) if heard else say("nothing", "无"), str(times))
        for said, heard, times in pairs
    ]
    right = f"{found.right} / {found.utterances} = {found.right / found.utterances:.1%}"
    columns = (say("Spoken", "实际语种"), say("Detected", "识别语种"), say("Utterances", "语音条数"))
    title = say(f"Language identified: {right}", f"语种识别正确率:{right}")
    return AccuracyTable(title, columns, tuple(rows[:MOST_ROWS]), _left_off(len(rows), say))


def _others(record: Accuracy, say: Say) -> AccuracyTable:
    score = record.score
    rows = [
        (say("text cut off at the token limit", "达到 token 上限而被截断"), str(score.truncated)),
        (say("endless repetition left out", "去除了无限重复"), str(score.repeated)),
    ]
    if score.silences:
        share = f"{score.silent} / {score.silences} = {score.silent / score.silences:.1%}"
        rows.insert(0, (say("silence in which nothing was heard", "静音且无输出"), share))
    return AccuracyTable(say("Beyond the rates", "其他"), ("", say("Utterances", "语音条数")), tuple(rows))


def _published(record: Accuracy, say: Say) -> AccuracyTable:
    columns = (say("Model", "模型"), say("Data", "数据集"), "", say("Error rate", "错误率"), say("Source", "来源"))
    rows = [(each.model, each.data, LABELS[each.unit], percent(each.rate), each.source) for each in record.published]
    note = say(
        "As published: other hardware, another normalising of texts; some tenths of a per cent say little. The source "
        "calls all of them WER.",
        "公开数据:硬件与文本归一化方式不同,相差零点几个百分点不足为据。来源统称 WER。",
    )
    return AccuracyTable(say("Published", "公开数据"), columns, tuple(rows), (note,))


def _worst(bad: Sequence[Bad], say: Say) -> AccuracyTable:
    columns = (say("Utterance", "语音"), say("Errors", "错误数"), say("Said and heard", "参考与识别"))
    rows = tuple(
        (each.name, f"{each.errors} / {each.length}", marked(each.steps, each.unit)) for each in bad[:MOST_ROWS]
    )
    note = say("[-said, not heard-] {+heard, not said+}", "[-参考中有而未识别-] {+识别出而参考中无+}")
    return AccuracyTable(say("The worst utterances", "错误最多的语音"), columns, rows, (note,))


def _left_off(count: int, say: Say) -> tuple[str, ...]:
    more = count - MOST_ROWS
    return (say(f"and {more} more, in the record", f"另有 {more} 项,见记录文件"),) if more > 0 else ()

"""What it runs on and with: host, NPU, packages, weights, image, settings."""

from collections.abc import Iterator

from env.settings import DEMO
from runtime.host.npu_smi import NpuSmiReport as NpuSmi
from runtime.host.npu_smi import Usage
from runtime.measure.metrics import amount
from runtime.measure.report.document import Block, Cell, Code, Mark, Paragraph, Say, Section, Table, Tone
from runtime.measure.report.record import Report
from runtime.ops.doctor.findings import Finding

# The doctor's checks that are about the NPU and its software, by their codes.
NPU_CHECKS = ("ASR-D12", *(f"ASR-D2{number}" for number in range(10)), "ASR-D40", "ASR-D42", "ASR-D43")
# The doctor speaks English; its titles do not.
TITLES = {
    "ASR-D01": "处理器架构",
    "ASR-D02": "操作系统",
    "ASR-D03": "内存",
    "ASR-D04": "磁盘",
    "ASR-D05": "端口",
    "ASR-D06": "配置",
    "ASR-D07": "证书",
    "ASR-D08": "证书有效期",
    "ASR-D09": "访问控制",
    "ASR-D10": "Docker",
    "ASR-D11": "Compose",
    "ASR-D12": "昇腾 Docker Runtime",
    "ASR-D13": "服务容器",
    "ASR-D14": "自备 compose 文件",
    "ASR-D20": "NPU",
    "ASR-D21": "驱动",
    "ASR-D22": "固件",
    "ASR-D23": "驱动与 CANN 配套",
    "ASR-D24": "设备节点",
    "ASR-D25": "挂载",
    "ASR-D26": "npu-smi",
    "ASR-D27": "健康状态",
    "ASR-D28": "显存",
    "ASR-D30": "权重",
    "ASR-D31": "模型社区",
    "ASR-D40": "CANN",
    "ASR-D41": "软件包",
    "ASR-D42": "torch_npu",
    "ASR-D43": "试算",
    "ASR-D50": "引擎",
    "ASR-D51": "vLLM",
    "ASR-D52": "qwen-asr",
    "ASR-D53": "vLLM 读取音频",
    "ASR-D54": "图模式",
    "ASR-D55": "310P",
    "ASR-D56": "模型长度",
    "ASR-D57": "显存比例",
    "ASR-D58": "vLLM 服务",
}


def host(report: Report, say: Say) -> Section:
    """The machine, and what the doctor says of it."""
    where = report.head.where
    rows: tuple[tuple[Cell, ...], ...] = (
        (say("Host", "主机名"), where.host),
        (say("System", "系统"), where.system),
        (
            say("Processor", "处理器"),
            say(f"{where.machine}, {where.cores} cores", f"{where.machine}({where.cores} 核)"),
        ),
        (say("Memory", "内存"), amount(where.memory, "bytes")),
        (say("Kit", "套件版本"), where.kit),
        (say("Commit", "提交"), Code(where.commit) if where.commit else say("not known", "未知")),
    )
    found = [finding for finding in report.facts.findings if finding.code not in NPU_CHECKS]
    blocks = (Table((say("What", "项目"), say("Found", "实测")), rows), *_findings(found, say))
    return Section("host", say("Host", "主机"), blocks)


def npu(report: Report, say: Say) -> Section:
    """Chips, driver, firmware, CANN."""
    facts, where = report.facts, report.head.where
    none = say("none found", "未发现")
    rows: tuple[tuple[Cell, ...], ...] = (
        (say("Device in use", "所用设备"), f"{where.device} ({where.description})"),
        (say("Driver", "驱动"), facts.driver or none),
        ("CANN", facts.cann or none),
        ("npu-smi", facts.smi.version if facts.smi else facts.smi_fault),
    )
    blocks: list[Block] = []
    if facts.device_fault:
        words = say("No device could be opened: {}", "无法打开任何设备:{}")
        blocks.append(Paragraph(words.format(facts.device_fault), "fail"))
    elif where.why_not_npu:
        blocks.append(Paragraph(say("No NPU is used: {}", "未使用 NPU:{}").format(where.why_not_npu), "cpu"))
    blocks.append(Table((say("What", "项目"), say("Found", "实测")), rows))
    if facts.smi:
        blocks.append(chips(facts.smi, say))
    found = [finding for finding in facts.findings if finding.code in NPU_CHECKS]
    blocks += _findings(found, say)
    return Section("npu", say("NPU, driver, CANN", "NPU、驱动与 CANN"), tuple(blocks))


def chips(told: NpuSmi, say: Say, *, caption: str = "npu-smi info") -> Table:
    """The chips as npu-smi lists them; memory in MB, as there."""
    headings: tuple[str, ...] = ("NPU", say("Name", "型号"), say("Health", "健康状态"), say("Power", "功率"))
    headings += (say("Temperature", "温度"), say("Memory used, MB", "显存占用,MB"))
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
        "same": Mark(say("same", "一致"), "pass"),
        "harmless": Mark(say("harmless", "无碍"), "open"),
        "matters": Mark(say("matters", "有影响"), "fail"),
    }
    headings = (
        say("Package", "软件包"),
        say("Pinned", "锁定版本"),
        say("Installed", "已装版本"),
        say("Difference", "差异"),
    )
    rows = tuple(
        (Code(row.name), row.pinned or "–", row.installed or "–", words[row.severity]) for row in facts.packages
    )
    text = say(
        f"Compared with the stack {facts.stack} of env/stacks.toml, as invoke versions does. "
        "The validated stack on Ascend is npu.",
        f"与 env/stacks.toml 中的软件栈 {facts.stack} 对比,同 invoke versions。在昇腾上验证过的是 npu 栈。",
    )
    return Section("packages", say("Packages", "软件包"), (Paragraph(text), Table(headings, rows)))


def weights(report: Report, say: Say) -> Section:
    """Which weights, from where, with which sums."""
    found = report.facts.weights
    size = sum(file.size for file in found.files)
    rows: list[tuple[Cell, ...]] = [(say("Model", "模型"), Code(found.model))]
    named = (
        (say("Repository", "仓库"), found.repo),
        (say("Source", "来源"), " ".join(filter(None, [found.hub, found.endpoint]))),
        (say("Revision", "版本"), found.revision),
        (say("Commit", "提交"), found.commit),
        (say("Recorded", "记录日期"), found.date),
    )
    rows += [(name, value or say("not known", "未知")) for name, value in named if found.model != DEMO]
    if found.files:
        rows.append(
            (
                say("Size", "大小"),
                say(
                    f"{amount(size, 'bytes')}, {len(found.files)} files",
                    f"{amount(size, 'bytes')},共 {len(found.files)} 个文件",
                ),
            )
        )
    blocks: list[Block] = [Table((say("What", "项目"), say("Found", "实测")), tuple(rows))]
    if found.model == DEMO:
        words = say(
            "The embedded demo model: 2.7 million parameters, a vocabulary of some 200 words. "
            "Nothing here tells of the accuracy or speed of Qwen3-ASR-1.7B.",
            "内置演示模型:270 万参数,仅识别约 200 个词。本报告不反映 Qwen3-ASR-1.7B 的精度和速度。",
        )
        blocks.insert(0, Paragraph(words, "open"))
    elif not found.recorded:
        words = say(
            "weights.lock has no entry for these weights: nothing tells what they must be → invoke verify-weights",
            "weights.lock 中没有这份权重的记录,无从核对 → invoke verify-weights",
        )
        blocks.insert(0, Paragraph(words, "fail"))
    if found.files:
        headings = (say("File", "文件"), "sha256", say("Bytes", "字节数"))
        files = tuple((Code(file.name), Code(file.sha256), str(file.size)) for file in found.files)
        blocks.append(Table(headings, files, figures=2))
    return Section("weights", say("Weights", "权重"), tuple(blocks))


def image(report: Report, say: Say) -> Section:
    """The image that this ran in, or that the settings mean."""
    found = report.facts.image
    inside = found.place == "container"
    if inside:
        text = say(
            "Made inside the image that manifest.json describes. A container cannot see its image's digest: on the "
            "host, docker image inspect shows it, and a report made there has it.",
            "在 manifest.json 所描述的镜像内生成。容器内看不到镜像摘要:"
            "请在主机上用 docker image inspect 查看,或在主机上生成报告。",
        )
    elif found.id:
        text = say(
            "Not made in a container. This is the image that the settings mean, as docker on this host has it.",
            "本报告不是在容器内生成的。以下是配置所指的镜像在本机 docker 中的信息。",
        )
    else:
        text = say(
            "Not made in a container, and docker on this host has no image {}.",
            "本报告不是在容器内生成的,本机 docker 中也没有镜像 {}。",
        ).format(found.name)
    named = (
        (say("Name", "名称"), found.name),
        (
            say("Digest", "摘要"),
            ", ".join(found.digests) or (say("none: not from a registry", "无:并非来自镜像仓库") if found.id else ""),
        ),
        ("Id", found.id),
        (say("Base image", "基础镜像"), found.base),
        (say("Stack", "软件栈"), found.stack),
        (say("Kit", "套件版本"), found.version),
        (say("Commit", "提交"), found.commit),
        (say("Built", "构建时间"), found.written),
    )
    rows = tuple((name, Code(value)) for name, value in named if value)
    table = (Table((say("What", "项目"), say("Found", "实测")), rows),) if inside or found.id else ()
    return Section("image", say("Image", "镜像"), (Paragraph(text), *table))


def settings(report: Report, say: Say) -> Section:
    """Every setting in force, those that differ from the defaults first."""
    headings = (say("Setting", "配置项"), say("Value", "取值"), say("Unit", "单位"), say("From", "来自"))
    rows = report.facts.settings
    chosen = [row for row in rows if row.origin != "default"]
    others = [row for row in rows if row.origin == "default"]
    blocks: list[Block] = [
        Paragraph(say("As invoke config shows them. Secrets are masked.", "同 invoke config。密钥已隐去。"))
    ]
    for group, caption in (
        (chosen, say("Set here or by the profile", "由本机或配置文件设定")),
        (others, say("As by default", "默认值")),
    ):
        if group:
            table = tuple(
                (Code(row.variable), Code(row.value) if row.value else "–", row.unit, row.origin) for row in group
            )
            blocks.append(Table(headings, table, caption))
    return Section("settings", say("Settings", "配置"), tuple(blocks))


def _findings(findings: list[Finding], say: Say) -> Iterator[Block]:
    marks: dict[str, tuple[str, Tone]] = {
        "pass": (say("pass", "通过"), "pass"),
        "warn": (say("warning", "警告"), "open"),
        "fail": (say("fail", "不通过"), "fail"),
    }
    if findings:
        headings = (say("Verdict", "结论"), say("Check", "检查项"), say("Found", "实测"), say("To do", "处理"))
        rows = tuple(
            (Mark(*marks[one.status]), say(one.title, TITLES.get(one.code, one.title)), one.evidence, one.fix)
            for one in findings
        )
        yield Table(headings, rows, say("By invoke doctor", "invoke doctor 的检查结果"))


def _usage(usage: Usage | None) -> str:
    return f"{usage.used} / {usage.total}" if usage else "–"

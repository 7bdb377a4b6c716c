"""The report's chapters: what each says, in both languages."""

from env.translation import Language
from runtime.measure.report.document import ReportDocument, Say
from runtime.measure.report.record import Report
from runtime.measure.report.sections import host, measured, summary
from runtime.measure.report.sections import summary as closing

SECTIONS = (
    summary.summary,
    host.host,
    host.npu,
    host.packages,
    host.weights,
    host.image,
    host.settings,
    measured.loading,
    measured.smoke,
    measured.accuracy,
    measured.latency,
    measured.throughput,
    measured.memory,
    measured.long,
    measured.server,
    measured.sizing,
    measured.versus,
    closing.resources,
    closing.limits,
    closing.sources,
    closing.reproduce,
)


def document(report: Report, language: Language) -> ReportDocument:
    """What the report says."""
    say = Say(language)
    return ReportDocument(
        language,
        say("Qwen3-ASR deployment report"),
        summary.facts(report, say),
        summary.banner(report, say),
        tuple(make(report, say) for make in SECTIONS),
    )

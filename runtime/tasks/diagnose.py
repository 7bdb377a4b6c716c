"""What is wrong with a host, and what support needs to know of it: doctor, support-bundle."""

from pathlib import Path

from invoke import Context, Exit, task

from env.sources import under_project
from runtime.tasks.errors import handle_errors


@task(
    help={
        "root": "directory to examine instead of this host, such as an unpacked support bundle",
        "json": "print JSON instead of a table",
        "quick": "only what takes no more than a moment: no checksums, no hub, nothing on the NPU",
    }
)
@handle_errors
def doctor(_: Context, root: str = "/", json: bool = False, quick: bool = False) -> None:
    """Examine the host, or the container that this runs in; exit code 1 if a check fails."""
    from runtime.host.probe import Host
    from runtime.ops.doctor import checks, examine_host
    from runtime.ops.doctor.machine import hostname
    from runtime.ops.support_bundle import settings_for
    from runtime.progress import status_line
    from runtime.tables import console

    with status_line("Examining") as line:
        host = Host(Path(root), on_wait=line.step)
        settings = settings_for(host)
        findings = examine_host(settings, host, quick=quick)
    if json:
        print(checks.document(findings, hostname(host)), end="")
    else:
        console().print(checks.table(findings))
    failed = [finding for finding in findings if finding.status == "fail"]
    if failed:
        codes = ", ".join(finding.code for finding in failed)
        raise Exit(f"doctor: {len(failed)} of {len(findings)} checks failed: {codes}", code=1)


@task(help={"output": "directory to write to; default: ASR_OUT_DIR"})
@handle_errors
def support_bundle(_: Context, output: str = "") -> None:
    """Collect what support needs to know into one archive: findings, versions, settings, logs; no secrets."""
    from runtime.host.probe import Host
    from runtime.ops import support_bundle as support
    from runtime.progress import status_line

    settings = support.settings_for(Host())
    with status_line("Collecting") as line:
        folder = Path(output) if output else under_project(settings.out_dir)
        bundle = support.collect(settings, folder, on_wait=line.step)
    for name, about in bundle.contents.items():
        print(f"  {name}  {about}")
    print(f"Written to {bundle.path} ({bundle.path.stat().st_size / 1024:.0f} KiB), readable only by you.")
    print("Look into it before you hand it over: logs may hold what was said.")

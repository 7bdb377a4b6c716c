"""`invoke support-bundle`: what somebody elsewhere needs to find a fault, in one archive, without secrets.

The archive is a root for `invoke doctor --root`: it holds the files that the doctor read, under their own paths, and
the answers that it got. Every text goes through `redact` on its way in.
"""

import gzip
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from dotenv import dotenv_values
from rich.console import Console

from env.errors import KitError, UsageError
from env.reference import MASK, describe
from env.settings import Settings
from env.sources import load_settings, operator_environment, under_project
from env.stacks import active_stack, installed_versions
from runtime.files import make_private
from runtime.host.probe import PATHS_RECORD, RECORDS, Host, ignore_wait, run_command, states_text
from runtime.ops.deploy.compose import host_settings
from runtime.ops.doctor import Finding, checks, docker, examine_host
from runtime.ops.doctor.machine import hostname
from runtime.redaction import known_secrets, redact
from runtime.version import version

SETTINGS = "settings.env"
QUOTE, ESCAPED = "'", r"\'"
WIDTH = 200  # columns of the table in it
MOST_LOGS = 20  # files
MOST_LINES = 2000  # of a log
MOST_BYTES = 4 << 20  # of a log's end that is looked at

README = """\
Written by `invoke support-bundle` on {date}, on {host}.

doctor.txt, doctor.json    what was found
versions.json              the kit, Python and its packages
settings.txt               every setting in force and where it came from; secrets are masked
{settings}               those that are not the defaults, for the next line
logs/                      ends of the logs
{records}/                  what commands answered
everything else            files that were read, under their own paths

To examine that host from elsewhere: invoke doctor --root DIRECTORY
"""


@dataclass(frozen=True)
class Bundle:
    """The archive, and what is in it: parts and what they are about."""

    path: Path
    contents: dict[str, str]


def collect(settings: Settings, folder: Path, *, on_wait: Callable[[str], None] = ignore_wait) -> Bundle:
    """Examine this host and write `support-<host>-<time>.tar.gz` into `folder`, readable by its owner only. `on_wait`
    hears what is waited for.

    Raises KitError where it cannot be written.
    """
    host = Host(on_wait=on_wait)
    texts = dict(_texts(settings, host))
    secrets = known_secrets(settings, operator_environment())
    clean = {name: redact(text, secrets) for name, text in texts.items()}
    name = f"support-{hostname(host)}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    path = folder / f"{name}.tar.gz"
    _write(path, _archive(name, clean))
    parts = {
        "doctor.txt, doctor.json": "what was found",
        "versions.json": "the kit, Python and its packages",
        f"settings.txt, {SETTINGS}": "settings, secrets masked",
        "logs/": _counted(clean, "logs/", "log"),
        f"{RECORDS}/": _counted(clean, f"{RECORDS}/", "answer") + ": npu-smi, docker and others",
    }
    others = [name for name in clean if "/" in name and not name.startswith(("logs/", f"{RECORDS}/"))]
    return Bundle(path, {**parts, "files of the host": ", ".join(f"/{name}" for name in others)})


def settings_for(host: Host) -> Settings:
    """The settings to examine a host with: those that `make up` would take, or those in the bundle that is examined."""
    path = host.root / SETTINGS
    if path.is_file() and not host.live:
        return load_settings({key: text or "" for key, text in dotenv_values(path, interpolate=False).items()})
    if host.live:
        try:
            return host_settings()
        except UsageError:
            raise
        except KitError:  # the NPUs cannot be told: the doctor says why
            pass
    return load_settings()


def _texts(settings: Settings, host: Host) -> Iterator[tuple[str, str]]:
    """Names in the archive and their texts, not yet redacted."""
    findings = examine_host(settings, host)
    yield "doctor.json", checks.document(findings, hostname(host))
    yield "doctor.txt", _table(findings)
    yield "settings.txt", "".join(f"{row.variable}={row.value}  # {row.origin}\n" for row in describe(settings))
    yield SETTINGS, _assignments(settings)
    yield "versions.json", json.dumps(_versions(), indent=2) + "\n"
    yield from _logs(settings, host)
    host.run("docker-version", ["docker", "version"])
    host.text("/etc/hostname")
    host.run("npu-smi-mapping", ["npu-smi", "info", "-m"])
    yield f"{RECORDS}/{PATHS_RECORD}", states_text(host.states)
    for name, answer in host.answers.items():
        yield f"{RECORDS}/{name}.txt", answer.text
    for path, text in host.texts.items():
        yield path.lstrip("/"), text
    date = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC}"
    yield "README.txt", README.format(date=date, host=hostname(host), settings=SETTINGS, records=RECORDS)


def _logs(settings: Settings, host: Host) -> Iterator[tuple[str, str]]:
    """The ends of the newest logs under ASR_OUT_DIR, CANN's among them, and of those of the kit's containers."""
    folder = under_project(settings.out_dir)
    newest = sorted(folder.rglob("*.log"), key=lambda path: path.stat().st_mtime)[-MOST_LOGS:]
    for path in newest:
        yield f"logs/{path.relative_to(folder).as_posix().replace('/', '-')}", _end_of(path)
    for container in docker.containers(host):
        if container.ours:
            script = f'docker logs --timestamps --tail {MOST_LINES} "$0" 2>&1'
            yield f"logs/{container.name}.log", run_command(["sh", "-c", script, container.id], seconds=60).text


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - MOST_BYTES, 0))
            lines = file.read().decode("utf-8", errors="replace").splitlines(keepends=True)
    except OSError as error:
        return f"cannot be read: {error.strerror}\n"
    return "".join(lines[-MOST_LINES:])


def _versions() -> dict[str, object]:
    return {
        "kit": version(),
        "commit": run_command(["git", "rev-parse", "HEAD"], seconds=10).output.strip(),
        "python": platform.python_version(),
        "stack": active_stack(),
        "packages": installed_versions(),
    }


def _assignments(settings: Settings) -> str:
    """The settings that are not the defaults, as variables; without secrets, which nobody elsewhere needs."""
    rows = [row for row in describe(settings) if row.origin != "default" and row.value != MASK]
    return "".join(f"{row.variable}='{row.value.replace(QUOTE, ESCAPED)}'\n" for row in rows)


def _table(findings: Sequence[Finding]) -> str:
    paper = io.StringIO()
    Console(file=paper, width=WIDTH, color_system=None).print(checks.table(findings))
    return paper.getvalue()


def _archive(name: str, texts: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for inner, text in sorted(texts.items()):
            data = text.encode()
            entry = tarfile.TarInfo(f"{name}/{inner}")
            entry.size, entry.mtime, entry.mode = len(data), int(datetime.now(timezone.utc).timestamp()), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others: temporary files are made with mode 0600."""
    try:
        make_private(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=".support-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise KitError(str(path), f"cannot be written: {error.strerror}", "--output DIR names another place") from None


def _counted(texts: dict[str, str], start: str, noun: str) -> str:
    count = sum(name.startswith(start) for name in texts)
    return f"{count} {noun}{'s' * (count != 1)}"

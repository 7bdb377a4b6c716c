"""An operator's own compose file (ASR_COMPOSE_FILE), merged last: it may loosen what the kit's own files forbid."""

import json
import re
import subprocess
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from env.field import variable
from env.settings import Settings
from env.sources import PROJECT, under_project
from runtime.host import docker
from runtime.ops.deploy.compose_project import COMPOSE

VARIABLE = variable("compose_file")
# Stands for the second compose file, which is not written before all is known to be well: images, which compose misses.
SECOND = {"services": {name: {"image": "any"} for name in ("asr", "prometheus", "grafana")}}
PRIVILEGED = re.compile(r"^\s+privileged: true$", re.MULTILINE)
COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
SHOWN = 200  # characters of the file
TIMEOUT = 60  # seconds for compose, which opens no connection


@dataclass(frozen=True)
class OwnFile:
    """The operator's file: `content` without comments on one line, `privileged` where a service becomes so by it."""

    path: Path
    content: str
    privileged: bool

    def __str__(self) -> str:
        return f"{self.path}, merged last: {self.content}"


def path(settings: Settings) -> Path | None:
    """Where the file is; None where the settings name none."""
    return under_project(settings.compose_file) if settings.compose_file else None


def files(settings: Settings) -> list[Path]:
    """What compose is given behind the kit's own files. A file that has gone since does not keep a server from being
    stopped."""
    own = path(settings)
    return [own] if own and own.is_file() else []


def read(settings: Settings) -> OwnFile | None:
    """The file, which compose was asked to merge with the kit's; None where the settings name none.

    Raises KitError where it cannot be read, or compose refuses it.
    """
    own = path(settings)
    if not own:
        return None
    try:
        text = own.read_text(encoding="utf-8")
    except OSError as error:
        raise KitError(VARIABLE, f"{own} cannot be read: {error.strerror}", "correct it, or unset it") from None
    except UnicodeDecodeError:
        raise KitError(VARIABLE, f"{own} is not UTF-8, expected YAML", "correct it, or unset it") from None
    merged = _merge(own)
    content = " ".join(COMMENT.sub("", text).split())
    return OwnFile(own, textwrap.shorten(content, SHOWN, placeholder=" …"), bool(PRIVILEGED.search(merged)))


def _merge(own: Path) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as second:
        json.dump(SECOND, second)
        second.flush()
        command = [*docker.compose_command(), *docker.file_options(COMPOSE, Path(second.name), own), "config"]
        try:
            result = subprocess.run(
                command,
                cwd=PROJECT,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise KitError(command[0], f"did not answer within {TIMEOUT} s") from None
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
        raise KitError(VARIABLE, f"{own} cannot be merged: {reason}", "correct it, or unset it")
    return result.stdout

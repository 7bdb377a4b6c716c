"""The model in this process and a running server, behind one interface: a clip in, a written transcript out."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from env.settings import DEMO, Settings
from runtime import formats
from runtime.measure.client import KEY, TRANSCRIPTIONS, RemoteServer
from runtime.measure.records import Where, of
from runtime.transcriber import Transcriber, open_transcriber
from runtime.weights.catalog import shown

PATIENCE = 120.0  # seconds for an answer of a server, which is ready and has warmed up


@dataclass(frozen=True)
class SmokeRequest:
    """What shall be heard and how: a file or its bytes, a language to force (None: detect it), a context, a format."""

    source: Path | bytes
    language: str | None = None
    context: str = ""
    form: str = "json"


class SmokeBackend(Protocol):
    """What transcribes."""

    @property
    def where(self) -> Where:
        """Where it does."""

    @property
    def suspects(self) -> str:
        """What to look at where a transcript is wrong."""

    def hear(self, ask: SmokeRequest) -> str:
        """The transcript, in the format asked for. From many threads at once. Raises KitError for any failure."""

    def again(self, ask: SmokeRequest) -> str:
        """The command that asks the same; empty for bytes, which are in no file."""


@contextmanager
def hearing(settings: Settings, url: str = "") -> Iterator[SmokeBackend]:
    """The server at `url`, or the settings' model in this process. Raises KitError where that cannot be had."""
    if url:
        with RemoteServer(url, patience=PATIENCE) as remote:
            remote.check_ready()
            yield ServerBackend(remote, remote.where())
    else:
        with open_transcriber(settings) as transcriber:
            yield ModelBackend(transcriber, of(transcriber))


@dataclass(frozen=True)
class ModelBackend:
    """A model in this process."""

    transcriber: Transcriber
    where: Where

    @property
    def suspects(self) -> str:
        """The weights, if they are not the kit's own, the versions, and the number format."""
        weights = "" if self.where.model == DEMO else "invoke verify-weights, "
        rounding = "" if self.where.dtype == "float32" else ", ASR_DTYPE=float32 invoke smoke"
        return f"{weights}invoke versions{rounding}"

    def hear(self, ask: SmokeRequest) -> str:
        """The transcript."""
        form = formats.FORMATS[ask.form]
        return form.write(
            self.transcriber.transcribe(ask.source, language=ask.language, context=ask.context, timed=form.timed)
        )

    def again(self, ask: SmokeRequest) -> str:
        """A task."""
        if isinstance(ask.source, bytes):
            return ""
        flags = {"--language": ask.language, "--context": ask.context, "--format": ask.form}
        words = [word for flag, value in flags.items() if value for word in (flag, value)]
        return shlex.join(["invoke", "transcribe", shown(ask.source), *words])


@dataclass(frozen=True)
class ServerBackend:
    """A running server."""

    remote: RemoteServer
    where: Where

    @property
    def suspects(self) -> str:
        """The server, or the model."""
        return "invoke smoke where the server runs tells the model's faults from the server's"

    def hear(self, ask: SmokeRequest) -> str:
        """The transcript."""
        return self.remote.transcribe(
            ask.source, language=ask.language, context=ask.context, response_format=ask.form
        ).written

    def again(self, ask: SmokeRequest) -> str:
        """For curl; a key stays a variable."""
        if isinstance(ask.source, bytes):
            return ""
        fields = {"language": ask.language, "prompt": ask.context, "response_format": ask.form}
        forms = [f"file=@{shown(ask.source)}", *(f"{name}={value}" for name, value in fields.items() if value)]
        key = f' -H "Authorization: Bearer ${KEY}"' if self.remote.has_key else ""
        return f"curl{key} {shlex.join([w for form in forms for w in ('-F', form)])} {self.remote.url}{TRANSCRIPTIONS}"

"""A running server of the kit, asked over HTTP by as many threads as one likes."""

import json
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from env.errors import KitError, UsageError
from runtime.measure.records import Where, of_server
from runtime.measure.synthetic_audio import Recording
from runtime.proxies import Proxy, find_proxy

KEY = "OPENAI_API_KEY"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
CONNECTING, ASKING, PATIENCE = 10.0, 10.0, 600.0  # seconds: to connect, for words about the server, for a transcript
JSON_FORMS = ("json", "verbose_json")
SENDABLE = re.compile(r"[!-~]*")  # what a header can carry
OTHER = "give the --url of a server of this kit"
ADVICE = {
    401: f"put the server's key into {KEY}",
    404: OTHER,
    429: "ask again when it is less busy, or with a key that may ask more",
    503: "invoke status tells how far it is",
}

DATA = b"data: "  # what an event's line begins with


class ServerError(KitError):
    """What a server answered instead of what it was asked for: HTTP `status`, and `code` and `request_id` as far as it
    told them, else empty."""

    def __init__(self, url: str, answer: requests.Response) -> None:
        told = _told(answer)
        self.status: int = answer.status_code
        self.code, self.request_id = (str(told.get(name) or "") for name in ("code", "request_id"))
        words = str(told.get("message") or answer.reason or "no reason given")
        code = f" ({self.code})" if self.code else ""
        request = f" (request {self.request_id})" if self.request_id else ""
        log = "its log tells why" + (f", at request {self.request_id}" if self.request_id else "")
        advice = ADVICE.get(self.status, log if self.status >= 500 else "")
        super().__init__(url, f"answered {self.status}{code}: {words}{request}", advice)


@dataclass(frozen=True)
class ServerTranscript:
    """A transcript as the server wrote it, and what it says: `fields` are those of json and verbose_json. Other formats
    have none, no language and no length (`seconds`), and their `text` is all that is written."""

    written: str
    fields: dict[str, Any]
    text: str
    language: str | None
    seconds: float | None


class RemoteServer:
    """A server at `url`, as its origin or as OpenAI's clients have it, with /v1 at its end. `key` None is that of
    OPENAI_API_KEY; `patience` is how many seconds a transcript may take.

    A server elsewhere is reached through the proxy that HTTP_PROXY and its kin name, one on loopback never. Each thread
    has a connection of its own; `close` ends them all. Raises UsageError for what is no http or https URL, for a key
    that no header can carry and for a proxy that cannot be used.
    """

    def __init__(self, url: str, *, key: str | None = None, patience: float = PATIENCE) -> None:
        self.url = url.rstrip("/").removesuffix("/v1").rstrip("/")
        self._patience = patience
        _check_url(url)
        self._proxy = _proxy(self.url)
        key = os.environ.get(KEY, "") if key is None else key
        if not SENDABLE.fullmatch(key):
            raise UsageError(KEY, "holds spaces or letters that no key has", "copy it again")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._own = threading.local()
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> "RemoteServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        for session in self._sessions:
            session.close()

    @property
    def has_key(self) -> bool:
        """Whether requests bring a key."""
        return bool(self._headers)

    def check_ready(self) -> None:
        """Raises KitError where nobody answers, where it is no server of the kit, and where it is not ready."""
        answer = self._send("GET", "/health/ready", timeout=ASKING, advice="invoke start, or give another --url")
        told = _json(answer)
        if not isinstance(told, dict) or "status" not in told:
            reason = f"is no server of this kit: answers {answer.status_code} to /health/ready"
            raise KitError(self.url, reason, OTHER)
        if answer.status_code != 200 or told["status"] != "ready":
            raise KitError(self.url, f"is not ready: {answer.text.strip()[:200]}", "invoke status tells how far it is")

    def info(self) -> dict[str, Any]:
        """What /v1/info says. Raises KitError."""
        told = _json(self._send("GET", "/v1/info", timeout=ASKING, expected=200))
        if not isinstance(told, dict):
            raise KitError(self.url, "is no server of this kit: /v1/info is no JSON object", OTHER)
        return told

    def where(self) -> Where:
        """Where it runs, and with what. Raises KitError."""
        return of_server(self.url, self.info())

    def transcribe(
        self,
        source: Path | bytes,
        *,
        language: str | None = None,
        context: str = "",
        response_format: str = "json",
    ) -> ServerTranscript:
        """The transcript of a file. Raises ServerError where it is refused, KitError where there is no answer or one
        that no server of the kit would give, and where the file cannot be read."""
        wanted = {"language": language, "prompt": context, "response_format": response_format}
        data = {name: value for name, value in wanted.items() if value}
        answer = self.post(TRANSCRIPTIONS, files={"file": ("audio", _content(source))}, data=data)
        try:
            written = answer.content.decode("utf-8")
        except UnicodeDecodeError:
            raise self._odd("is no UTF-8") from None
        if response_format not in JSON_FORMS:
            return ServerTranscript(written, {}, written.strip(), None, None)
        fields = _json(answer)
        try:
            text, language, seconds = (fields[name] for name in ("text", "language", "duration"))
        except (TypeError, KeyError):
            raise self._odd("has no text, language and duration") from None
        if not (isinstance(text, str) and isinstance(language, str | None) and isinstance(seconds, int | float)):
            raise self._odd("has a text, language or duration of another type")
        return ServerTranscript(written, fields, text, language, float(seconds))

    def post(self, path: str, **options: Any) -> requests.Response:
        """One request with these options of requests; `stream=True` leaves the body to be read and the answer to be
        closed. Raises ServerError for a status other than 200, KitError for no answer."""
        return self._send("POST", path, timeout=self._patience, expected=200, **options)

    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        expected: int = 0,
        advice: str = "invoke status, then the server's log",
        **options: Any,
    ) -> requests.Response:
        """The answer, which has the expected status; 0: any."""
        limits = (CONNECTING, timeout)
        through = f" through the proxy {self._proxy.address} ({self._proxy.variable})" if self._proxy else ""
        try:
            answer = self._session().request(
                method, self.url + path, timeout=limits, headers=self._headers, allow_redirects=False, **options
            )
        except requests.exceptions.SSLError as error:
            advice = "REQUESTS_CA_BUNDLE=FILE names a certificate to trust; a server without one is at http"
            raise KitError(self.url, f"cannot be trusted: {_cause(error)}", advice) from None
        except requests.Timeout:
            raise KitError(self.url, f"gave no answer{through} within {timeout:g} s", advice) from None
        except requests.RequestException as error:
            raise KitError(self.url, f"cannot be reached{through}: {_cause(error)}", advice) from None
        if expected and answer.status_code != expected:
            with answer:
                raise ServerError(self.url, answer)
        return answer

    def _session(self) -> requests.Session:
        """The calling thread's own."""
        if not hasattr(self._own, "session"):
            self._own.session = open_session(self.url)
            self._sessions.append(self._own.session)
        return self._own.session  # type: ignore[no-any-return]

    def _odd(self, reason: str) -> KitError:
        return KitError(self.url, f"gave an answer that no server of this kit would: it {reason}", OTHER)


def open_session(url: str) -> requests.Session:
    """A client for the server at `url`, with the proxy and the certificates that the environment names for it. Raises
    UsageError for a proxy that cannot be used."""
    session = requests.Session()
    session.trust_env = False  # no credentials of the operator's, and no proxy for loopback
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    if proxy := _proxy(url):
        session.proxies = {"http": proxy.url, "https": proxy.url}
    return session


def _proxy(url: str) -> Proxy | None:
    parts = urlsplit(url)
    return find_proxy(parts.scheme, parts.hostname or "", parts.port)


def _check_url(url: str) -> None:
    if set(url) & set("@?#"):
        reason = "holds one of @ ? #, expected the server's address alone"
        raise UsageError("--url", reason, f"put the server's key into {KEY}")
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise UsageError("--url", f"{url!r} is no URL", "such as http://127.0.0.1:8000")


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise KitError(str(source), f"cannot be read: {error.strerror}") from None


def _json(answer: requests.Response) -> Any:
    """The body's content; None for no JSON."""
    try:
        return answer.json()
    except ValueError:
        return None


def _told(answer: requests.Response) -> dict[str, Any]:
    """What an error's body says: `error` of OpenAI's shape."""
    body = _json(answer)
    told = body.get("error") if isinstance(body, dict) else None
    return told if isinstance(told, dict) else {}


def _cause(error: BaseException) -> str:
    """The operating system's words for an error, else those at its bottom."""
    while not (isinstance(error, OSError) and error.strerror) and error.__context__:
        error = error.__context__
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


@dataclass(frozen=True)
class RequestOutcome:
    """What came of a request: seconds of its audio, the times in seconds at which it was due, at which its first text
    came (None where none did) and at which it ended, and the failure in few words that can be counted, empty for none.

    A transcript that was cut at the token limit is no failure: the time it took is as good as any.
    """

    audio_seconds: float
    due: float
    first: float | None
    ended: float
    failure: str = ""

    @property
    def latency(self) -> float:
        """Seconds from when it was due to its end."""
        return self.ended - self.due

    @property
    def first_token(self) -> float | None:
        """Seconds from when it was due to its first text."""
        return None if self.first is None else self.first - self.due

    @property
    def rtf(self) -> float:
        """Its latency for a second of its audio."""
        return self.latency / self.audio_seconds


def ask(server: RemoteServer, sound: Recording, *, due: float | None = None) -> RequestOutcome:
    """Ask for a transcript, and wait for its end. `due` is a time of `time.perf_counter`, None: now."""
    due = time.perf_counter() if due is None else due
    first = None
    try:
        first, failure = _streamed(server, sound)
    except ServerError as error:
        failure = f"{error.status} {error.code}".strip()
    except KitError as error:
        failure = error.reason
    return RequestOutcome(sound.seconds, due, first, time.perf_counter(), failure)


def _streamed(server: RemoteServer, sound: Recording) -> tuple[float | None, str]:
    """When the first text came, and what failed after it. Raises KitError."""
    first, last = None, b"{}"
    try:
        with server.post(
            TRANSCRIPTIONS, files={"file": ("clip.wav", sound.file)}, data={"stream": "true"}, stream=True
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith(DATA):
                    last = line.removeprefix(DATA)
                    if first is None and json.loads(last).get("delta"):
                        first = time.perf_counter()
        end = json.loads(last)
    except requests.RequestException as error:
        return first, f"a stream that broke off ({type(error).__name__})"
    except ValueError:
        return first, "a stream of something else"
    if end.get("type") == "transcript.text.done":
        return first, ""
    return first, end["error"]["code"] if "error" in end else "a stream without an end"

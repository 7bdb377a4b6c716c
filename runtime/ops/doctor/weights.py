"""Whether a server answers over HTTP, and at which step it does not: name, connection, TLS, HTTP.

With the client that fetches weights, and so with the same proxies and certificates; or directly, as vLLM is asked.
"""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from env.errors import KitError
from env.field import variable
from env.settings import DEMO
from env.sources import under_project
from runtime import dns
from runtime.host.probe import NOT_RECORDED, CommandResult
from runtime.model.checkpoint import Checkpoint
from runtime.ops.doctor.findings import CheckResult, Examination, Status
from runtime.urls import authorities, redact_url
from runtime.weights import catalog, verify

if TYPE_CHECKING:
    import requests

PATIENCE = 10.0  # seconds to connect, and to answer; a name server takes its own time

# Bytes of Qwen3-ASR-1.7B's files, rounded up: its two safetensors shards are about 4.4 GB.
TYPICAL_SIZE = 4_700_000_000
WANTS_TOKEN = ("401", "403")
MOST_FAULTS = 3  # that are told


def reach(url: str, *, seconds: float = PATIENCE, directly: bool = False) -> CommandResult:
    """The status that a GET of `url` gets; any below 500 is an answer, everything else a fault that names the step.
    Raises UsageError where REQUESTS_CA_BUNDLE is no file, if it goes there directly."""
    client = session(directly=directly)
    proxy = _proxy(url, client)
    host = urlsplit(proxy or url).hostname
    if host and (words := dns.failure(host, seconds=seconds)):
        return CommandResult("", f"DNS: the name of {_party(url, proxy)} cannot be resolved: {words}")
    outcome: list[CommandResult] = []
    # A name that leads to many addresses, or a redirect, may take any time; a thread can be left behind.
    thread = threading.Thread(target=lambda: outcome.append(_get(client, url, seconds)), daemon=True)
    thread.start()
    thread.join(3 * seconds)
    return outcome[0] if outcome else CommandResult("", f"no answer within {3 * seconds:g} s")


def session(*, directly: bool) -> "requests.Session":
    """A client; `directly`: one that knows no proxies, and no credentials of the operator's. Raises UsageError where
    REQUESTS_CA_BUNDLE is no file."""
    import requests

    made = requests.Session()
    if directly:
        made.trust_env, made.verify = False, authorities() or True
    return made


def _get(client: "requests.Session", url: str, seconds: float) -> CommandResult:
    import requests

    try:
        with client, client.get(url, timeout=seconds, stream=True) as answer:
            if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return CommandResult("", f"HTTP: answers {answer.status_code} {answer.reason}".rstrip())
            return CommandResult(str(answer.status_code))
    except requests.RequestException as error:
        return CommandResult("", _explain(error, _party(url, _proxy(url, client))))


def _proxy(url: str, client: "requests.Session") -> str:
    """The proxy on the way to `url`; empty if there is none."""
    from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

    found = select_proxy(url, get_environ_proxies(url)) if client.trust_env else None
    return prepend_scheme_if_needed(found, "http") if found else ""


def _party(url: str, proxy: str) -> str:
    return f"the proxy {redact_url(proxy)}" if proxy else str(urlsplit(url).hostname)


def _explain(error: Exception, party: str) -> str:
    """At which step it failed. Errors of requests wrap those of urllib3, and these the system's."""
    import requests
    from urllib3.exceptions import NameResolutionError

    chain = list(_chain(error))
    last = next((str(link) for link in reversed(chain) if str(link)), type(error).__name__)
    if any(isinstance(link, NameResolutionError | socket.gaierror) for link in chain):
        return f"DNS: the name of {party} cannot be resolved"
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS: {last}"
    if isinstance(error, requests.Timeout):
        return f"connection: no answer from {party} in time"
    if isinstance(error, requests.ConnectionError):
        told = next((link.strerror for link in reversed(chain) if isinstance(link, OSError) and link.strerror), last)
        return f"connection: {party}: {told}"
    return f"HTTP: {last}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it was made of, the system's own last."""
    while error is not None:
        yield error
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__


@dataclass(frozen=True)
class KnownWeights:
    """What is known of the weights: `faults` is what is wrong with them, `size` their bytes, 0 if that is not known."""

    directory: str
    faults: tuple[str, ...]
    advice: str
    size: int


def weights(case: Examination) -> CheckResult:
    """The weights are there and what their lock says; `make up` compares sizes, `invoke doctor` checksums."""
    if case.settings.model == DEMO:
        return CheckResult("pass", "the embedded demo model")
    if case.front:
        return _texts(case)
    state = _state(case)
    if not state:
        return CheckResult("warn", NOT_RECORDED)
    if state.faults:
        more = f" (and {len(state.faults) - MOST_FAULTS} more)" if len(state.faults) > MOST_FAULTS else ""
        status: Status = "warn" if case.settings.allow_unverified_weights else "fail"
        return CheckResult(status, "; ".join(state.faults[:MOST_FAULTS]) + more, state.advice)
    how = "sizes" if case.quick else "checksums"
    return CheckResult(
        "pass", f"{state.directory}, {state.size / 1e9:.2f} GB, {how} as in {case.settings.weights_lock}"
    )


def hub(case: Examination) -> CheckResult | None:
    """The hub or its mirror answers. Only a warning where the weights are there already."""
    if not case.wants_weights:
        return None
    endpoint = case.settings.hub_endpoint or catalog.load().hubs.get(case.settings.hub, "")
    state = _state(case)
    worse: Status = "warn" if state and not state.faults else "fail"
    name = variable("hub_endpoint")
    if not endpoint:
        return CheckResult(
            worse, f"ASR_HUB={case.settings.hub} has no default, and {name} is not set", f"export {name}=…"
        )
    case.host.wait_for(f"{case.settings.hub} at {redact_url(endpoint)}")
    answer = case.host.ask("hub", lambda: reach(endpoint))
    if answer.fault == NOT_RECORDED:
        return CheckResult("warn", NOT_RECORDED)
    where = f"{case.settings.hub} at {redact_url(endpoint)}"
    if answer.fault:
        advice = f"export {name}=… to a mirror, set HTTPS_PROXY, or bring the weights along: invoke bundle"
        return CheckResult(worse, f"{where}: {answer.fault}", advice)
    if answer.output in WANTS_TOKEN:
        return CheckResult(
            "warn", f"{where} answers {answer.output}: it wants a token", f"export {variable('hub_token')}=…"
        )
    return CheckResult("pass", f"{where} answers {answer.output}")


def size(case: Examination) -> int:
    """Bytes of the weights; a typical number where they are not there."""
    state = _state(case)
    return state.size if state and state.size else TYPICAL_SIZE


def missing(case: Examination) -> int:
    """Bytes that fetching the weights will still write."""
    state = _state(case)
    return 0 if state and not state.faults else max(TYPICAL_SIZE - (state.size if state else 0), 0)


def _texts(case: Examination) -> CheckResult:
    """The small files, where servers elsewhere have the weights."""
    directory = under_project(case.settings.model)
    answer = case.host.ask("weights-texts", lambda: _ask_texts(directory))
    if answer.fault:
        return CheckResult("warn" if answer.fault == NOT_RECORDED else "fail", answer.fault, "invoke fetch-weights")
    return CheckResult("pass", f"{directory}: tokenizer and configuration, all that is needed beside ASR_VLLM_URL")


def _ask_texts(directory: Path) -> CommandResult:
    try:
        Checkpoint.open_without_weights(directory)
    except KitError as error:
        return CommandResult("", f"{error.subject}: {error.reason}")
    return CommandResult("")


def _state(case: Examination) -> KnownWeights | None:
    """The weights' state; None where another host's is not recorded."""
    answer = case.host.ask("weights", lambda: _ask(case))
    if answer.fault:
        return None
    told = json.loads(answer.output)
    return KnownWeights(**{**told, "faults": tuple(told["faults"])})


def _ask(case: Examination) -> CommandResult:
    done, total = 0, 1

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        case.host.wait_for(f"checksums of {case.settings.model}, {100 * done // total} %")

    try:
        total = max(verify.size(under_project(case.settings.model)), 1)
        found = verify.state(case.settings, full=not case.quick, on_bytes=on_bytes)
        told = KnownWeights(str(found.directory), found.faults, found.advice, found.bytes)
    except KitError as error:  # the settings contradict each other
        told = KnownWeights(case.settings.model, (f"{error.subject}: {error.reason}",), error.advice, 0)
    return CommandResult(json.dumps(asdict(told), ensure_ascii=False) + "\n")

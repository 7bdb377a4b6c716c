"""The weights, and the hub that they come from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from env.errors import KitError
from env.field import variable
from env.settings import DEMO
from env.sources import under_project
from runtime.host.probe import NOT_RECORDED, Answer
from runtime.model.checkpoint import check_texts
from runtime.ops.doctor import reach
from runtime.ops.doctor.findings import Case, Outcome, Status
from runtime.urls import shown
from runtime.weights import catalog, verify

# Bytes of Qwen3-ASR-1.7B's files, rounded up: its two safetensors shards are about 4.4 GB.
TYPICAL_SIZE = 4_700_000_000
WANTS_TOKEN = ("401", "403")
MOST_FAULTS = 3  # that are told


@dataclass(frozen=True)
class Weights:
    """What is known of the weights: `faults` is what is wrong with them, `size` their bytes, 0 if that is not known."""

    directory: str
    faults: tuple[str, ...]
    advice: str
    size: int


def weights(case: Case) -> Outcome:
    """The weights are there and what their lock says; `make up` compares sizes, `invoke doctor` checksums."""
    if case.settings.model == DEMO:
        return Outcome("pass", "the embedded demo model")
    if case.front:
        return _texts(case)
    state = _state(case)
    if not state:
        return Outcome("warn", NOT_RECORDED)
    if state.faults:
        more = f" (and {len(state.faults) - MOST_FAULTS} more)" if len(state.faults) > MOST_FAULTS else ""
        status: Status = "warn" if case.settings.allow_unverified_weights else "fail"
        return Outcome(status, "; ".join(state.faults[:MOST_FAULTS]) + more, state.advice)
    how = "sizes" if case.quick else "checksums"
    return Outcome("pass", f"{state.directory}, {state.size / 1e9:.2f} GB, {how} as in {case.settings.weights_lock}")


def hub(case: Case) -> Outcome | None:
    """The hub or its mirror answers. Only a warning where the weights are there already."""
    if not case.wants_weights:
        return None
    endpoint = case.settings.hub_endpoint or catalog.load().hubs.get(case.settings.hub, "")
    state = _state(case)
    worse: Status = "warn" if state and not state.faults else "fail"
    name = variable("hub_endpoint")
    if not endpoint:
        return Outcome(worse, f"ASR_HUB={case.settings.hub} has no default, and {name} is not set", f"export {name}=…")
    case.host.wait_for(f"{case.settings.hub} at {shown(endpoint)}")
    answer = case.host.ask("hub", lambda: reach.reach(endpoint))
    if answer.fault == NOT_RECORDED:
        return Outcome("warn", NOT_RECORDED)
    where = f"{case.settings.hub} at {shown(endpoint)}"
    if answer.fault:
        advice = f"export {name}=… to a mirror, set HTTPS_PROXY, or bring the weights along: invoke bundle"
        return Outcome(worse, f"{where}: {answer.fault}", advice)
    if answer.output in WANTS_TOKEN:
        return Outcome(
            "warn", f"{where} answers {answer.output}: it wants a token", f"export {variable('hub_token')}=…"
        )
    return Outcome("pass", f"{where} answers {answer.output}")


def size(case: Case) -> int:
    """Bytes of the weights; a typical number where they are not there."""
    state = _state(case)
    return state.size if state and state.size else TYPICAL_SIZE


def missing(case: Case) -> int:
    """Bytes that fetching the weights will still write."""
    state = _state(case)
    return 0 if state and not state.faults else max(TYPICAL_SIZE - (state.size if state else 0), 0)


def _texts(case: Case) -> Outcome:
    """The small files, where servers elsewhere have the weights."""
    directory = under_project(case.settings.model)
    answer = case.host.ask("weights-texts", lambda: _ask_texts(directory))
    if answer.fault:
        return Outcome("warn" if answer.fault == NOT_RECORDED else "fail", answer.fault, "invoke fetch-weights")
    return Outcome("pass", f"{directory}: tokenizer and configuration, all that is needed beside ASR_VLLM_URL")


def _ask_texts(directory: Path) -> Answer:
    try:
        check_texts(directory)
    except KitError as error:
        return Answer("", f"{error.subject}: {error.reason}")
    return Answer("")


def _state(case: Case) -> Weights | None:
    """The weights' state; None where another host's is not recorded."""
    answer = case.host.ask("weights", lambda: _ask(case))
    if answer.fault:
        return None
    told = json.loads(answer.output)
    return Weights(**{**told, "faults": tuple(told["faults"])})


def _ask(case: Case) -> Answer:
    done, total = 0, 1

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        case.host.wait_for(f"checksums of {case.settings.model}, {100 * done // total} %")

    try:
        total = max(verify.size(under_project(case.settings.model)), 1)
        found = verify.state(case.settings, full=not case.quick, on_bytes=on_bytes)
        told = Weights(str(found.directory), found.faults, found.advice, found.bytes)
    except KitError as error:  # the settings contradict each other
        told = Weights(case.settings.model, (f"{error.subject}: {error.reason}",), error.advice, 0)
    return Answer(json.dumps(asdict(told), ensure_ascii=False) + "\n")

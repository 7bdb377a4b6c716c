"""The vLLM servers of ASR_VLLM_URL: whether each answers, with which vLLM and model, and takes prompts as they are."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from env.errors import UsageError
from env.field import variable
from env.groups.vllm import segment_tokens
from env.settings import DEMO, Settings
from env.sources import under_project
from runtime.demo import CHECKPOINT
from runtime.host.probe import NOT_RECORDED, Answer
from runtime.model.checkpoint import CheckpointError, read_json
from runtime.ops.doctor.findings import Case, Outcome
from runtime.ops.doctor.npu import together
from runtime.ops.doctor.reach import reach, session
from runtime.ops.doctor.vllm import releases
from runtime.urls import HOW_TO_TRUST, UNTRUSTED, vllm_servers

PATIENCE = 10.0  # seconds for an answer
# Any text that a template other than the raw one would put something around. Its first and last token are special ones:
# their numbers come after those of all words, so they tell checkpoints with other words apart.
FIRST, LAST = "<|im_start|>", "<asr_text>"
TEXT = f"{FIRST}assistant\nlanguage English{LAST}"
HOW = "start it with: invoke vllm"


@dataclass(frozen=True)
class Told:
    """What a server told. `fault` says why it told nothing more; `raw` is whether its chat template adds nothing, and
    `ours` whether its tokens are those of the checkpoint here, as far as that is known."""

    url: str
    fault: str = ""
    version: str = ""
    model: str = ""
    max_model_len: int = 0
    raw: bool = False
    ours: bool = True


def servers(case: Case) -> Outcome | None:
    """The servers of ASR_VLLM_URL answer, with the kit's vLLM and the model of ASR_MODEL, and leave prompts alone."""
    if not case.front:
        return None
    try:
        answer = case.host.ask("vllm-servers", lambda: _ask(case.settings))
    except UsageError as error:
        return Outcome("fail", f"{error.subject}: {error.reason}", error.advice)
    if answer.fault == NOT_RECORDED:
        return Outcome("warn", NOT_RECORDED)
    told = [Told(**entry) for entry in json.loads(answer.output)]
    outcomes = [_judge(one, case.settings) for one in told]
    if any(outcome.status != "fail" for outcome in outcomes):  # those that do not answer will be waited for
        outcomes = [Outcome("warn", o.evidence, o.fix) if o.status == "fail" else o for o in outcomes]
    models = sorted({one.model for one in told if one.model})
    if len(models) > 1:
        outcomes.append(Outcome("warn", f"they serve different models: {', '.join(models)}", "give them all the same"))
    return together(outcomes)


def _judge(told: Told, settings: Settings) -> Outcome:
    if told.fault:
        return Outcome("fail", f"{told.url}: {told.fault}", _cure(told.fault))
    named = f"{told.url}: vLLM {told.version}, {told.model}, {told.max_model_len} tokens"
    if not told.raw:
        return Outcome("fail", f"{named}: its chat template changes the kit's prompts", HOW)
    if not told.ours:
        name = variable("model")
        evidence = f"{named}: its tokens are not those of {name}={settings.model}"
        return Outcome("fail", evidence, f"export {name}=… to a copy of the checkpoint that is served there")
    least = segment_tokens(settings.segment_seconds, settings.max_new_tokens)
    if told.max_model_len < least:
        return Outcome("fail", f"{named}, {least} needed", f"restart it with --max-model-len {least}")
    if releases.public(told.version) != releases.tried():
        tried = f"vLLM {releases.tried()}"
        return Outcome("warn", f"{named}; the kit is tried with {tried}", f"install {tried} there")
    return Outcome("pass", named)


def _cure(fault: str) -> str:
    if "401" in fault:
        return f"export {variable('vllm_key')}=…"
    return HOW_TO_TRUST if UNTRUSTED in fault else f"{HOW}; or take it out of {variable('vllm_url')}"


def _ask(settings: Settings) -> Answer:
    key = settings.vllm_key.get_secret_value() if settings.vllm_key else ""
    ends = _ends(settings)
    return Answer(json.dumps([asdict(_tell(url, key, ends)) for url in vllm_servers(settings)]) + "\n")


def _ends(settings: Settings) -> list[int]:
    """The tokens that TEXT begins and ends with in the checkpoint here; none where it does not tell.

    Read without a tokenizer, which a host's Python need not have.
    """
    directory = CHECKPOINT if settings.model == DEMO else under_project(settings.model)
    try:
        added = read_json(directory / "tokenizer_config.json").get("added_tokens_decoder", {})
        numbers = {entry["content"]: int(number) for number, entry in added.items()}
        return [numbers[FIRST], numbers[LAST]]
    except (CheckpointError, AttributeError, LookupError, TypeError, ValueError):  # the check of the weights tells
        return []


def _tell(url: str, key: str, ends: list[int]) -> Told:
    import requests

    fault = reach(f"{url}/health", seconds=PATIENCE, directly=True).fault
    if fault:
        return Told(url, fault)
    with session(directly=True) as client:
        if key:
            client.headers["Authorization"] = f"Bearer {key}"

        def ask(path: str, body: dict[str, Any] | None = None) -> Any:
            with client.request("POST" if body else "GET", f"{url}{path}", json=body, timeout=PATIENCE) as answer:
                answer.raise_for_status()
                return answer.json()

        try:
            version = ask("/version")["version"]
            model = ask("/v1/models")["data"][0]
            # The text as it is, and the same through the chat template.
            plain = ask("/tokenize", {"model": model["id"], "prompt": TEXT, "add_special_tokens": False})
            messages = [{"role": "user", "content": TEXT}]
            written = ask("/tokenize", {"model": model["id"], "messages": messages, "add_special_tokens": False})
            tokens, through = plain["tokens"], written["tokens"]
            ours = not ends or [tokens[0], tokens[-1]] == ends
        except requests.HTTPError as error:
            return Told(url, str(error).partition(" for url")[0])
        except requests.RequestException as error:
            return Told(url, f"ends an answer early: {type(error).__name__}")
        except (LookupError, TypeError):
            return Told(url, "answers, but not as vLLM does")
    length = model.get("max_model_len", 0)
    return Told(url, "", version, model["id"], length, raw=tokens == through, ours=ours)

"""Checks of the engine vllm: where it runs, what is installed there, its device, its servers."""

import json
import math
import re
import shlex
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from env.errors import UsageError
from env.field import variable
from env.groups.vllm import segment_tokens
from env.settings import DEMO, Settings
from env.sources import under_project
from env.stacks import load_stack
from runtime.demo import CHECKPOINT
from runtime.host.npu_smi import Chip, profile_for
from runtime.host.probe import NOT_RECORDED, CommandResult
from runtime.model.checkpoint import CheckpointError, read_json
from runtime.ops.doctor.docker import cann_version
from runtime.ops.doctor.findings import CheckResult, Examination
from runtime.ops.doctor.npu import driver_version, holders, known_chips, needed, room, together, used_nodes
from runtime.ops.doctor.vllm_packages import another_image, has_vllm, judge_release, no_vllm
from runtime.ops.doctor.weights import reach, session
from runtime.urls import HOW_TO_TRUST, UNTRUSTED, is_loopback, vllm_servers

PATIENCE = 10.0  # seconds for an answer
# Any text that a template other than the raw one would put something around. Its first and last token are special ones:
# their numbers come after those of all words, so they tell checkpoints with other words apart.
FIRST, LAST = "<|im_start|>", "<asr_text>"
TEXT = f"{FIRST}assistant\nlanguage English{LAST}"
HOW = "start it with: invoke vllm"

PROFILE_310P = "atlas-300i-duo"

# The oldest driver on which vllm-ascend records graphs without running out of streams: its release notes for 0.21.0rc1,
# and the advice that its PR 10555 gives where recording fails. One user of 25.2.0 had to do without graphs.
GRAPH_DRIVER = "25.5.1"

# The level of TASK_QUEUE_ENABLE that goes with operators launched one by one: MindSpeed-RL's documents want 1 for vLLM
# with graphs, and 2 without. The profile of the A2 has 2.
GRAPHLESS_QUEUE = 2

# vllm-ascend 0.18.0's release notes, "Dependencies": the 310P wants this CANN, not the 8.5.1 of the image.
CANN_310P = "9.0.0"
TORCH_NPU_310P = "2.9.0.post2"  # the same: what goes with that CANN
# Tokens. vllm-ascend 0.18.0's page on the 310P calls 16384 conservative: attention's mask there is a square with sides
# of that length, in float16, 512 MiB.
LONGEST_310P = 16384

# MB that the driver keeps of each NPU, at most: idle ones show 2,811 (910B4) to 3,334 (an A3 of 64 GB) as used. That
# vLLM takes its share of the rest, because torch_npu tells no more, is an assumption.
RESERVED = 4096
MOST = 0.98  # share that ASR_VLLM_MEMORY_SHARE may be

ENGINE, STACK, URL = variable("engine"), variable("stack"), variable("vllm_url")


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


def servers(case: Examination) -> CheckResult | None:
    """The servers of ASR_VLLM_URL answer, with the kit's vLLM and the model of ASR_MODEL, and leave prompts alone."""
    if not case.front:
        return None
    try:
        answer = case.host.ask("vllm-servers", lambda: _ask(case.settings))
    except UsageError as error:
        return CheckResult("fail", f"{error.subject}: {error.reason}", error.advice)
    if answer.fault == NOT_RECORDED:
        return CheckResult("warn", NOT_RECORDED)
    told = [Told(**entry) for entry in json.loads(answer.output)]
    outcomes = [_judge(one, case.settings) for one in told]
    if any(outcome.status != "fail" for outcome in outcomes):  # those that do not answer will be waited for
        outcomes = [CheckResult("warn", o.evidence, o.fix) if o.status == "fail" else o for o in outcomes]
    models = sorted({one.model for one in told if one.model})
    if len(models) > 1:
        outcomes.append(
            CheckResult("warn", f"they serve different models: {', '.join(models)}", "give them all the same")
        )
    return together(outcomes)


def _judge(told: Told, settings: Settings) -> CheckResult:
    if told.fault:
        return CheckResult("fail", f"{told.url}: {told.fault}", _cure(told.fault))
    named = f"{told.url}: vLLM {told.version}, {told.model}, {told.max_model_len} tokens"
    if not told.raw:
        return CheckResult("fail", f"{named}: its chat template changes the kit's prompts", HOW)
    if not told.ours:
        name = variable("model")
        evidence = f"{named}: its tokens are not those of {name}={settings.model}"
        return CheckResult("fail", evidence, f"export {name}=… to a copy of the checkpoint that is served there")
    least = segment_tokens(settings.segment_seconds, settings.max_new_tokens)
    if told.max_model_len < least:
        return CheckResult("fail", f"{named}, {least} needed", f"restart it with --max-model-len {least}")
    return judge_release(named, told.version)


def _cure(fault: str) -> str:
    if "401" in fault:
        return f"export {variable('vllm_key')}=…"
    return HOW_TO_TRUST if UNTRUSTED in fault else f"{HOW}; or take it out of {variable('vllm_url')}"


def _ask(settings: Settings) -> CommandResult:
    key = settings.vllm_key.get_secret_value() if settings.vllm_key else ""
    ends = _ends(settings)
    return CommandResult(json.dumps([asdict(_tell(url, key, ends)) for url in vllm_servers(settings)]) + "\n")


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


def graphs(case: Examination) -> CheckResult:
    """Graphs are recorded only where the driver has enough streams for them, and with a task queue of level 0 or 1."""
    told, version = case.settings, driver_version(case.host)
    new = bool(version) and _numbers(version) >= _numbers(GRAPH_DRIVER)
    driver = f"driver {version or 'unknown'}"
    name, queue = variable("vllm_eager"), variable("task_queue_enable")
    if told.vllm_eager:
        hint = f"{name}=false may be faster" if new else f"graphs want {GRAPH_DRIVER}"
        return CheckResult("pass", f"operators are launched one by one; {driver}, {hint}")
    outcomes = []
    if not new:
        evidence = f"{name}=false with {driver}; before {GRAPH_DRIVER}, recording graphs may run out of streams"
        outcomes.append(CheckResult("warn", evidence, f"export {name}=true, or install a driver from {GRAPH_DRIVER}"))
    if told.task_queue_enable == GRAPHLESS_QUEUE:
        evidence = f"{name}=false with {queue}={GRAPHLESS_QUEUE}, during which torch_npu records no graphs"
        outcomes.append(CheckResult("warn", evidence, f"export {queue}=1"))
    return together(outcomes) if outcomes else CheckResult("pass", f"graphs are recorded; {driver}")


def for_310p(case: Examination) -> CheckResult | None:
    """On a 310P: float16, a short model length, CANN 9.0.0, and no graphs as the kit records them."""
    is_310p = case.settings.profile == PROFILE_310P or profile_for(known_chips(case)) == PROFILE_310P
    if not is_310p:
        return None
    told, outcomes = case.settings, []
    if told.dtype != "float16":
        advice = f"export {variable('dtype')}=float16"
        outcomes.append(CheckResult("fail", f"{variable('dtype')}={told.dtype}; the 310P wants float16", advice))
    if told.vllm_max_model_len > LONGEST_310P:
        length, name = told.vllm_max_model_len, variable("vllm_max_model_len")
        evidence = f"{name}={length}: attention's mask alone takes {length**2 * 2 >> 20} MiB on a 310P"
        outcomes.append(CheckResult("warn", evidence, f"export {name}={LONGEST_310P}"))
    if not told.vllm_eager:
        name = variable("vllm_eager")
        evidence = f"{name}=false; of graphs, vllm-ascend 0.18.0 supports only FULL_DECODE_ONLY on a 310P"
        outcomes.append(CheckResult("warn", evidence, f"export {name}=true"))
    cann = _cann(case)
    if cann and _numbers(cann) < _numbers(CANN_310P):
        evidence = f"CANN {cann}; vllm-ascend 0.18.0's release notes want {CANN_310P} for the 310P"
        advice = another_image(f"with CANN {CANN_310P} and torch-npu {TORCH_NPU_310P}")
        outcomes.append(CheckResult("warn", evidence, advice))
    if outcomes:
        return together(outcomes)
    return CheckResult("pass", f"{told.dtype}, {told.vllm_max_model_len} tokens, CANN {cann or 'not known here'}")


def _cann(case: Examination) -> str:
    """CANN's version where vLLM runs; empty where it is not known: this host cannot tell what an image of one's own
    has, its container does."""
    told = case.settings
    if case.place == "container" or told.vllm_python:
        return cann_version(case.host)
    return "" if told.base_image or told.image else load_stack("vllm").cann


def memory_share(case: Examination) -> CheckResult | None:
    """The share of each NPU's memory that vLLM takes is free there, or vLLM would not start, and holds the model."""
    used = [chip for chip in known_chips(case) if chip.node in used_nodes(case)]
    if not used:
        return None
    return together([_share(case, chip) for chip in used[: case.settings.vllm_replicas]])


def _share(case: Examination, chip: Chip) -> CheckResult:
    held, share, name = chip.main_memory, case.settings.vllm_memory_share, variable("vllm_memory_share")
    if held is None:
        return room(case, chip, 0)
    reserved = held.used - sum(process.memory for process in holders(case, chip))
    usable = held.total - min(max(reserved, 0), RESERVED)
    least = needed(case)
    if share * usable < least:
        evidence = f"NPU {chip.node}: {name}={share:g} of {usable} MB, and the model takes {least}"
        enough = math.ceil(100 * least / usable) / 100
        return CheckResult(
            "fail", evidence, f"export {name}={enough:g}" if enough <= MOST else "use an NPU with more memory"
        )
    found = room(case, chip, int(share * usable))
    rest = min(math.floor(100 * held.free / usable) / 100, MOST)
    if found.status == "fail" and rest * usable >= least:
        return CheckResult("fail", f"{name}={share:g}: {found.evidence}", f"{found.fix}, or export {name}={rest:g}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """25.5.rc1.1 → (25, 5, 1, 1)"""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def engine(case: Examination) -> CheckResult | None:
    """What decodes is there: the stack that is set has the engine, or others do."""
    told = case.settings
    if told.engine_name == "transformers":
        return _transformers(told)
    if case.front:
        return _front(case)
    if told.stack != "vllm" and not told.vllm_python and (case.quick or not has_vllm(case)):
        evidence = f"{ENGINE}=vllm, and the stack {told.stack} has no vLLM"
        return CheckResult("fail", evidence, no_vllm())
    count = len(used_nodes(case))
    if case.wants_npu and count and (told.vllm_replicas or 1) > count:
        name = variable("vllm_replicas")
        evidence = f"{name}={told.vllm_replicas}, each on an NPU of its own, of which there are {count}"
        return CheckResult("fail", evidence, f"export {name}={count}, or more in {variable('npus')}")
    where = f"in {told.vllm_python}" if told.vllm_python else f"of the stack {told.stack}"
    return CheckResult("pass", f"vllm, {where}")


def _transformers(told: Settings) -> CheckResult | None:
    """Only what is amiss is told: the usual engine needs no line of its own."""
    if told.stack == "vllm":
        evidence = f"{ENGINE}=transformers, and the stack vllm has no qwen-asr, which it needs"
        return CheckResult("fail", evidence, f"unset {ENGINE}, or export {STACK}=npu")
    if told.vllm_url:
        return CheckResult(
            "fail", f"{URL} is set, but the engine is transformers", f"export {ENGINE}=vllm, or unset {URL}"
        )
    return None


def _front(case: Examination) -> CheckResult:
    told, outcomes = case.settings, []
    try:
        addresses = vllm_servers(told)
    except UsageError as error:
        return CheckResult("fail", f"{error.subject}: {error.reason}", error.advice)
    here = [url for url in addresses if is_loopback(urlsplit(url).hostname or "")]
    if here and case.quick and case.place == "host":
        evidence = f"{', '.join(here)}: in the container that make up starts, this is the container itself"
        outcomes.append(CheckResult("fail", evidence, f"export {URL}=… with this host's address in the network"))
    set_too = [name for name in ("vllm_python", "vllm_replicas", "vllm_flags") if getattr(told, name) is not None]
    if set_too:
        names = " ".join(map(variable, set_too))
        outcomes.append(
            CheckResult("warn", f"{names}: for servers that the kit starts, not for {URL}", f"unset {names}")
        )
    if told.stack != "cpu" and case.place == "host":
        evidence = f"the stack {told.stack} takes NPUs of this host, which the servers of {URL} leave idle"
        outcomes.append(CheckResult("warn", evidence, _without_npus(told)))
    if outcomes:
        return together(outcomes)
    return CheckResult("pass", f"vllm, {len(addresses)} server{'s' * (len(addresses) > 1)} elsewhere")


def _without_npus(told: Settings) -> str:
    """The command that makes this a front without NPUs, whose servers are asked as they are now: with the cpu profile
    alone, the model and the length of its segments would be the demo's."""
    kept = {"model": told.model, "segment_seconds": f"{told.segment_seconds:g}"}
    words = {"profile": "cpu", "stack": "cpu", "engine": told.engine_name, **kept}
    return f"export {' '.join(f'{variable(name)}={shlex.quote(value)}' for name, value in words.items())}"


def length(case: Examination) -> CheckResult:
    """The longest segment's audio, its prompt and its answer fit into the model length together."""
    told, name = case.settings, variable("vllm_max_model_len")
    least = segment_tokens(told.segment_seconds, told.max_new_tokens)
    evidence = f"a segment of {told.segment_seconds:g} s with {told.max_new_tokens} tokens takes up to {least} tokens"
    if case.front:  # the servers tell their own length
        return CheckResult("pass", evidence)
    if told.vllm_max_model_len < least:
        advice = f"export {name}={least}, or lower {variable('segment_seconds')} or {variable('max_new_tokens')}"
        return CheckResult("fail", f"{evidence}, {name}={told.vllm_max_model_len}", advice)
    return CheckResult("pass", f"{evidence} of {told.vllm_max_model_len}")

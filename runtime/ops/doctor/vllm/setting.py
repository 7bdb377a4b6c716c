"""The settings of the engine: that what decodes is where they look for it, and that a segment has room there."""

import shlex
from urllib.parse import urlsplit

from env.errors import UsageError
from env.field import variable
from env.groups.vllm import segment_tokens
from env.settings import Settings
from runtime.ops.doctor.findings import Case, Outcome
from runtime.ops.doctor.npu import together, used_nodes
from runtime.ops.doctor.vllm.installed import has_vllm, no_vllm
from runtime.urls import is_loopback, vllm_servers

ENGINE, STACK, URL = variable("engine"), variable("stack"), variable("vllm_url")


def engine(case: Case) -> Outcome | None:
    """What decodes is there: the stack that is set has the engine, or others do."""
    told = case.settings
    if told.engine_name == "transformers":
        return _transformers(told)
    if case.front:
        return _front(case)
    if told.stack != "vllm" and not told.vllm_python and (case.quick or not has_vllm(case)):
        evidence = f"{ENGINE}=vllm, and the stack {told.stack} has no vLLM"
        return Outcome("fail", evidence, no_vllm())
    count = len(used_nodes(case))
    if case.wants_npu and count and (told.vllm_replicas or 1) > count:
        name = variable("vllm_replicas")
        evidence = f"{name}={told.vllm_replicas}, each on an NPU of its own, of which there are {count}"
        return Outcome("fail", evidence, f"export {name}={count}, or more in {variable('npus')}")
    where = f"in {told.vllm_python}" if told.vllm_python else f"of the stack {told.stack}"
    return Outcome("pass", f"vllm, {where}")


def _transformers(told: Settings) -> Outcome | None:
    """Only what is amiss is told: the usual engine needs no line of its own."""
    if told.stack == "vllm":
        evidence = f"{ENGINE}=transformers, and the stack vllm has no qwen-asr, which it needs"
        return Outcome("fail", evidence, f"unset {ENGINE}, or export {STACK}=npu")
    if told.vllm_url:
        return Outcome("fail", f"{URL} is set, but the engine is transformers", f"export {ENGINE}=vllm, or unset {URL}")
    return None


def _front(case: Case) -> Outcome:
    told, outcomes = case.settings, []
    try:
        addresses = vllm_servers(told)
    except UsageError as error:
        return Outcome("fail", f"{error.subject}: {error.reason}", error.advice)
    here = [url for url in addresses if is_loopback(urlsplit(url).hostname or "")]
    if here and case.quick and case.place == "host":
        evidence = f"{', '.join(here)}: in the container that make up starts, this is the container itself"
        outcomes.append(Outcome("fail", evidence, f"export {URL}=… with this host's address in the network"))
    set_too = [name for name in ("vllm_python", "vllm_replicas", "vllm_flags") if getattr(told, name) is not None]
    if set_too:
        names = " ".join(map(variable, set_too))
        outcomes.append(Outcome("warn", f"{names}: for servers that the kit starts, not for {URL}", f"unset {names}"))
    if told.stack != "cpu" and case.place == "host":
        evidence = f"the stack {told.stack} takes NPUs of this host, which the servers of {URL} leave idle"
        outcomes.append(Outcome("warn", evidence, _without_npus(told)))
    if outcomes:
        return together(outcomes)
    return Outcome("pass", f"vllm, {len(addresses)} server{'s' * (len(addresses) > 1)} elsewhere")


def _without_npus(told: Settings) -> str:
    """The command that makes this a front without NPUs, whose servers are asked as they are now: with the cpu profile
    alone, the model and the length of its segments would be the demo's."""
    kept = {"model": told.model, "segment_seconds": f"{told.segment_seconds:g}"}
    words = {"profile": "cpu", "stack": "cpu", "engine": told.engine_name, **kept}
    return f"export {' '.join(f'{variable(name)}={shlex.quote(value)}' for name, value in words.items())}"


def length(case: Case) -> Outcome:
    """The longest segment's audio, its prompt and its answer fit into the model length together."""
    told, name = case.settings, variable("vllm_max_model_len")
    least = segment_tokens(told.segment_seconds, told.max_new_tokens)
    evidence = f"a segment of {told.segment_seconds:g} s with {told.max_new_tokens} tokens takes up to {least} tokens"
    if case.front:  # the servers tell their own length
        return Outcome("pass", evidence)
    if told.vllm_max_model_len < least:
        advice = f"export {name}={least}, or lower {variable('segment_seconds')} or {variable('max_new_tokens')}"
        return Outcome("fail", f"{evidence}, {name}={told.vllm_max_model_len}", advice)
    return Outcome("pass", f"{evidence} of {told.vllm_max_model_len}")

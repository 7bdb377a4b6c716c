"""The vLLM servers that the kit starts: the device, command line and environment of each."""

import contextlib
import json
import math
import os
import re
import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from env.errors import UsageError
from env.field import PREFIX, variable
from env.groups.vllm import PROMPT_TOKENS, TOKENS_PER_SECOND, segment_tokens
from env.settings import DEMO, Settings
from env.sources import exports, under_project
from env.verify import AUTOLOAD
from runtime.engines.vllm.launcher import DEVICE_VARIABLE, IMAGE_VARIABLE
from runtime.host.npu_smi import npu_numbers
from runtime.model.device import make_operator_cache

VISIBLE_DEVICES = "ASCEND_RT_VISIBLE_DEVICES"  # CANN's: the NPUs that a process sees; it counts them from 0
DEV = Path("/dev")

PACKAGE = Path(__file__).resolve().parent
LAUNCHER, RAW_TEMPLATE = PACKAGE / "launcher.py", PACKAGE / "raw.jinja"
LOOPBACK = "127.0.0.1"

# Flags that the kit sets, with the setting that each comes from, and flags that would change how the kit reaches it.
RESERVED_FLAGS: Mapping[str, str] = {
    "--host": "",
    "--port": "",
    "--model": "ASR_MODEL",
    "--served-model-name": "",
    "--dtype": "ASR_DTYPE",
    "--max-model-len": "ASR_VLLM_MAX_MODEL_LEN",
    "--max-num-seqs": "ASR_VLLM_MAX_SEQS",
    "--gpu-memory-utilization": "ASR_VLLM_MEMORY_SHARE",
    "--enforce-eager": "ASR_VLLM_EAGER",
    "--chat-template": "",
    "--chat-template-content-format": "",
    "--limit-mm-per-prompt": "",
    "--allowed-media-domains": "",
    "--shutdown-timeout": "ASR_DRAIN_SECONDS",
    "--api-key": "ASR_VLLM_KEY",
    "--data-parallel-size": "ASR_VLLM_REPLICAS",
    "-dp": "ASR_VLLM_REPLICAS",
    **dict.fromkeys(("--uds", "--ssl-keyfile", "--ssl-certfile", "--root-path", "--config", "--headless"), ""),
}
FLAG_PATTERN = re.compile(r"^--?[A-Za-z]")


@dataclass(frozen=True)
class DeviceSlot:
    """A device by the `name` that it has in this process (`npu:0`, `cpu`), and its number for CANN in `visible`, empty
    for a CPU. `wanted` is the kind of device that vLLM must find, auto for any."""

    name: str
    visible: str
    wanted: Literal["npu", "cpu", "auto"]

    @property
    def is_npu(self) -> bool:
        """Whether the server runs on an NPU rather than the CPU."""
        return bool(self.visible)


def device_slots(settings: Settings, *, replicas: int | None) -> list[DeviceSlot]:
    """A device for each of `replicas` servers; None: one on each NPU, or one on the CPU.

    The NPUs are those of ASCEND_RT_VISIBLE_DEVICES where it is set, else all that a container has, else those of
    ASR_NPUS. Raises UsageError where there are fewer.
    """
    kind, _, index = settings.device.partition(":")
    nodes = sum(path.name.removeprefix("davinci").isdecimal() for path in DEV.glob("davinci[0-9]*"))
    if kind == "cpu" or (kind == "auto" and not nodes):
        wanted: Literal["cpu", "auto"] = "cpu" if kind == "cpu" else "auto"
        return [_cpu_slot(number, replicas or 1, wanted) for number in range(replicas or 1)]
    if index and (replicas or 1) > 1:
        reason = f"{replicas} servers want an NPU each, and ASR_DEVICE={settings.device} is one"
        raise UsageError(variable("vllm_replicas"), reason, "export ASR_DEVICE=npu")
    npus = _visible_slots() or _configured_slots(settings, nodes)
    if index:
        return [_slot_by_index(int(index))]
    if (replicas or 1) > len(npus):
        here = ", ".join(npu.name for npu in npus)
        reason = f"{replicas} servers want an NPU each, and there is only {here}"
        raise UsageError(variable("vllm_replicas"), reason, f"{variable('npus')} or {VISIBLE_DEVICES} may name more")
    return npus[:replicas]


def _cpu_slot(number: int, count: int, wanted: Literal["cpu", "auto"]) -> DeviceSlot:
    return DeviceSlot("cpu" if count == 1 else f"cpu, {number + 1} of {count}", "", wanted)


def _visible_slots() -> list[DeviceSlot]:
    """The NPUs of ASCEND_RT_VISIBLE_DEVICES; empty where it is not set."""
    numbered = [text.strip() for text in os.environ.get(VISIBLE_DEVICES, "").split(",") if text.strip()]
    return [DeviceSlot(f"npu:{number}", text, "npu") for number, text in enumerate(numbered)]


def _configured_slots(settings: Settings, nodes: int) -> list[DeviceSlot]:
    """The NPUs that the kit may use: all of a container, else those of ASR_NPUS."""
    # A container was given its NPUs to use them.
    found = range(nodes) if nodes and os.environ.get(IMAGE_VARIABLE) else npu_numbers(settings.npus)
    return [DeviceSlot(f"npu:{number}", str(number), "npu") for number in found]


def _slot_by_index(index: int) -> DeviceSlot:
    """npu:N, counted among the NPUs that this process sees. Raises UsageError where there is none."""
    visible = _visible_slots()
    if visible and index >= len(visible):
        named = f"{VISIBLE_DEVICES}={os.environ[VISIBLE_DEVICES]}"
        reason = f"there is no npu:{index}, as {named} leaves {len(visible)}, counted from 0"
        raise UsageError(variable("device"), reason)
    return visible[index] if visible else DeviceSlot(f"npu:{index}", str(index), "npu")


@dataclass(frozen=True)
class LaunchSpec:
    """How to start one vLLM: its `name` for people, its `command`, its complete `environment` and its `port`."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)  # may hold secrets
    port: int


def launch_specs(settings: Settings, directory: Path) -> list[LaunchSpec]:
    """A server on loopback for each NPU, or ASR_VLLM_REPLICAS of them, with the checkpoint in `directory`; each has a
    port that was free a moment ago.

    Raises UsageError where the settings contradict each other, DeviceError where CANN's cache cannot be made.
    """
    where = device_slots(settings, replicas=settings.vllm_replicas)
    addresses = [(LOOPBACK, port) for port in _free_ports(len(where))]
    is_only = len(where) == 1
    return [_launch_spec(settings, directory, *each, is_only=is_only) for each in zip(where, addresses, strict=True)]


def standalone_spec(settings: Settings, directory: Path) -> LaunchSpec:
    """One server on the first NPU, at ASR_HOST:ASR_PORT, that wants ASR_VLLM_KEY. Raises as `launch_specs` does."""
    where = device_slots(settings, replicas=1)[0]
    spec = _launch_spec(settings, directory, where, (settings.host, settings.port), is_only=True)
    if not settings.vllm_key:
        return spec
    key = settings.vllm_key.get_secret_value()  # in the environment, as lists of processes show commands
    return replace(spec, environment={**spec.environment, "VLLM_API_KEY": key})


def model_name(settings: Settings) -> str:
    """What requests call the model: demo, or its directory's name."""
    return DEMO if settings.model == DEMO else under_project(settings.model).name


def _launch_spec(
    settings: Settings, directory: Path, slot: DeviceSlot, address: tuple[str, int], *, is_only: bool
) -> LaunchSpec:
    """The spec of one server; `is_only`: it shares this host with no other."""
    host, port = address
    return LaunchSpec(
        name=f"vLLM on {slot.name}",
        command=(
            *(_python(settings), str(LAUNCHER)),
            *("--host", host, "--port", str(port)),
            *_flags(settings, directory, slot),
        ),
        environment=_environment(settings, slot, is_only=is_only),
        port=port,
    )


def _flags(settings: Settings, directory: Path, slot: DeviceSlot) -> list[str]:
    _check_lengths(settings)
    batched = max(settings.vllm_max_model_len, settings.vllm_max_seqs)
    return [
        *("--model", str(directory)),
        *("--served-model-name", model_name(settings)),
        *("--dtype", settings.dtype),
        *("--max-model-len", str(settings.vllm_max_model_len)),
        *("--max-num-seqs", str(settings.vllm_max_seqs)),
        # vLLM takes no audio of more tokens than this, so it must be what a segment may have.
        *("--max-num-batched-tokens", str(batched)),
        *(("--gpu-memory-utilization", str(settings.vllm_memory_share)) if slot.is_npu else ()),
        *(("--enforce-eager",) if settings.vllm_eager else ()),
        # The kit writes the whole prompt itself; this template passes it through.
        *("--chat-template", str(RAW_TEMPLATE)),
        *("--chat-template-content-format", "string"),
        *("--limit-mm-per-prompt", json.dumps({"audio": 1})),
        *("--allowed-media-domains", "none.invalid"),  # fetches nothing: the kit sends samples
        # Every utterance is decoded once: a cached one would never be used again.
        *("--mm-processor-cache-gb", "0"),
        "--no-enable-prefix-caching",
        *("--shutdown-timeout", str(math.ceil(settings.drain_seconds))),
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
        *_extra_flags(settings),
    ]


def _check_lengths(settings: Settings) -> None:
    needed = segment_tokens(settings.segment_seconds, settings.max_new_tokens)
    if needed > settings.vllm_max_model_len:
        reason = (
            f"{settings.vllm_max_model_len} tokens are less than the {needed} that a segment may need: "
            f"{TOKENS_PER_SECOND} for each of {settings.segment_seconds:g} s of audio (ASR_SEGMENT_SECONDS), "
            f"{PROMPT_TOKENS} for the prompt, {settings.max_new_tokens} for the answer (ASR_MAX_NEW_TOKENS)"
        )
        raise UsageError(variable("vllm_max_model_len"), reason, f"export {variable('vllm_max_model_len')}={needed}")


def _extra_flags(settings: Settings) -> list[str]:
    """The flags of ASR_VLLM_FLAGS. Raises UsageError where they cannot be parsed, or hold a reserved one."""
    subject = variable("vllm_flags")
    try:
        found = shlex.split(settings.vllm_flags or "")
    except ValueError as error:
        raise UsageError(subject, f"{settings.vllm_flags!r} cannot be read: {error}", "check its quotes") from None
    if found and not FLAG_PATTERN.match(found[0]):
        raise UsageError(subject, f"begins with {found[0]!r}, expected --flag value …")
    for word in filter(FLAG_PATTERN.match, found):
        # vLLM takes --a_b for --a-b, --no-a for the opposite of --a, --a.b for a part of --a, and beginnings of names.
        name = re.split(r"[=.]", word)[0].replace("_", "-").replace("--no-", "--")
        for own, source in RESERVED_FLAGS.items():
            if own == name or (name.startswith("--") and own.startswith(name)):
                raise UsageError(subject, f"{word}: the kit sets {own}", f"set {source}" if source else "leave it out")
    return found


def _environment(settings: Settings, slot: DeviceSlot, *, is_only: bool) -> dict[str, str]:
    """All variables of a server: the process's, but for those of the kit, and those that only the kit may set."""
    native = exports(settings)
    make_operator_cache(native)
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(PREFIX)}
    for name in (AUTOLOAD, "VLLM_API_KEY", "VLLM_CONFIGURE_LOGGING", "VLLM_LOGGING_CONFIG_PATH", "VLLM_LOGGING_PREFIX"):
        inherited.pop(name, None)  # the first keeps torch_npu out of the kit's own process; the rest hides progress
    found = {
        DEVICE_VARIABLE: slot.wanted,
        "PYTHONUNBUFFERED": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # as vLLM's command line has it; forks cannot use an NPU
        "VLLM_HOST_IP": LOOPBACK,  # of ports between its processes; not given: the host's address
        "VLLM_ENGINE_READY_TIMEOUT_S": str(math.ceil(settings.vllm_start_seconds)),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    if slot.is_npu:
        return {**inherited, **native, **found, VISIBLE_DEVICES: slot.visible}
    # On a CPU, vLLM takes half of the memory and pins its threads to cores, each server to the same ones.
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", **({} if is_only else {"VLLM_CPU_OMP_THREADS_BIND": "nobind"})}
    return {**cpu, **inherited, **native, **found}


def _python(settings: Settings) -> str:
    """The interpreter that has vLLM. Symbolic links are kept, as that of a virtual environment is one."""
    if settings.vllm_python is None:
        return sys.executable
    path = under_project(settings.vllm_python)
    if not os.access(path, os.X_OK) or path.is_dir():
        subject = variable("vllm_python")
        raise UsageError(subject, f"{path} is no program", "name the Python of the environment that has vLLM")
    return str(path)


def _free_ports(count: int) -> list[int]:
    """Different free ports of loopback, `count` of them."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]

"""vLLM on an NPU: graphs and the driver, what the 310P needs, the share of the memory."""

import math
import re

from env.field import variable
from env.stacks import load_stack
from runtime.host.npu_smi import Chip, profile_for
from runtime.ops.doctor.container import cann_version
from runtime.ops.doctor.driver import driver_version
from runtime.ops.doctor.findings import Case, Outcome
from runtime.ops.doctor.npu import holders, known_chips, needed, room, together, used_nodes
from runtime.ops.doctor.vllm.installed import another_image

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


def graphs(case: Case) -> Outcome:
    """Graphs are recorded only where the driver has enough streams for them, and with a task queue of level 0 or 1."""
    told, version = case.settings, driver_version(case.host)
    new = bool(version) and _numbers(version) >= _numbers(GRAPH_DRIVER)
    driver = f"driver {version or 'unknown'}"
    name, queue = variable("vllm_eager"), variable("task_queue_enable")
    if told.vllm_eager:
        hint = f"{name}=false may be faster" if new else f"graphs want {GRAPH_DRIVER}"
        return Outcome("pass", f"operators are launched one by one; {driver}, {hint}")
    outcomes = []
    if not new:
        evidence = f"{name}=false with {driver}; before {GRAPH_DRIVER}, recording graphs may run out of streams"
        outcomes.append(Outcome("warn", evidence, f"export {name}=true, or install a driver from {GRAPH_DRIVER}"))
    if told.task_queue_enable == GRAPHLESS_QUEUE:
        evidence = f"{name}=false with {queue}={GRAPHLESS_QUEUE}, during which torch_npu records no graphs"
        outcomes.append(Outcome("warn", evidence, f"export {queue}=1"))
    return together(outcomes) if outcomes else Outcome("pass", f"graphs are recorded; {driver}")


def for_310p(case: Case) -> Outcome | None:
    """On a 310P: float16, a short model length, CANN 9.0.0, and no graphs as the kit records them."""
    is_310p = case.settings.profile == PROFILE_310P or profile_for(known_chips(case)) == PROFILE_310P
    if not is_310p:
        return None
    told, outcomes = case.settings, []
    if told.dtype != "float16":
        advice = f"export {variable('dtype')}=float16"
        outcomes.append(Outcome("fail", f"{variable('dtype')}={told.dtype}; the 310P wants float16", advice))
    if told.vllm_max_model_len > LONGEST_310P:
        length, name = told.vllm_max_model_len, variable("vllm_max_model_len")
        evidence = f"{name}={length}: attention's mask alone takes {length**2 * 2 >> 20} MiB on a 310P"
        outcomes.append(Outcome("warn", evidence, f"export {name}={LONGEST_310P}"))
    if not told.vllm_eager:
        name = variable("vllm_eager")
        evidence = f"{name}=false; of graphs, vllm-ascend 0.18.0 supports only FULL_DECODE_ONLY on a 310P"
        outcomes.append(Outcome("warn", evidence, f"export {name}=true"))
    cann = _cann(case)
    if cann and _numbers(cann) < _numbers(CANN_310P):
        evidence = f"CANN {cann}; vllm-ascend 0.18.0's release notes want {CANN_310P} for the 310P"
        advice = another_image(f"with CANN {CANN_310P} and torch-npu {TORCH_NPU_310P}")
        outcomes.append(Outcome("warn", evidence, advice))
    if outcomes:
        return together(outcomes)
    return Outcome("pass", f"{told.dtype}, {told.vllm_max_model_len} tokens, CANN {cann or 'not known here'}")


def _cann(case: Case) -> str:
    """CANN's version where vLLM runs; empty where it is not known: this host cannot tell what an image of one's own
    has, its container does."""
    told = case.settings
    if case.place == "container" or told.vllm_python:
        return cann_version(case.host)
    return "" if told.base_image or told.image else load_stack("vllm").cann


def memory_share(case: Case) -> Outcome | None:
    """The share of each NPU's memory that vLLM takes is free there, or vLLM would not start, and holds the model."""
    used = [chip for chip in known_chips(case) if chip.node in used_nodes(case)]
    if not used:
        return None
    return together([_share(case, chip) for chip in used[: case.settings.vllm_replicas]])


def _share(case: Case, chip: Chip) -> Outcome:
    held, share, name = chip.main_memory, case.settings.vllm_memory_share, variable("vllm_memory_share")
    if held is None:
        return room(case, chip, 0)
    reserved = held.used - sum(process.memory for process in holders(case, chip))
    usable = held.total - min(max(reserved, 0), RESERVED)
    least = needed(case)
    if share * usable < least:
        evidence = f"NPU {chip.node}: {name}={share:g} of {usable} MB, and the model takes {least}"
        enough = math.ceil(100 * least / usable) / 100
        return Outcome(
            "fail", evidence, f"export {name}={enough:g}" if enough <= MOST else "use an NPU with more memory"
        )
    found = room(case, chip, int(share * usable))
    rest = min(math.floor(100 * held.free / usable) / 100, MOST)
    if found.status == "fail" and rest * usable >= least:
        return Outcome("fail", f"{name}={share:g}: {found.evidence}", f"{found.fix}, or export {name}={rest:g}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """25.5.rc1.1 → (25, 5, 1, 1)"""
    return tuple(int(number) for number in re.findall(r"\d+", version))

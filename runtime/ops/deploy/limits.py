"""What a container may take of its host: memory, processes, CPUs.

The memory is what the settings let a server hold at most, so that a container which reaches its limit is one that has a
fault. Where something is counted that the server decides, tests compare the two. Of an NPU's host nothing is measured.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env.settings import Settings
from runtime.sandbox.pool import MOST_SLOW_PLACES, QUICK_PLACES

MIB = 1 << 20
GIB = 1024  # MiB

# MiB of a process with a model, without the weights: torch, transformers and the server; with an NPU also CANN, whose
# compiler works in processes of its own.
WITHOUT_NPU, WITH_NPU = 2 * GIB, 12 * GIB
SCRATCH = 1 * GIB  # of /tmp beside the uploads: what CANN, vLLM and torch's compiler keep below HOME
HELPERS = QUICK_PLACES + MOST_SLOW_PLACES  # processes that read what comes from outside
# MiB of each, and MiB more for each second that audio may last and for each of what was uploaded: what they start with,
# and the bounds in runtime/audio and runtime/server/uploads.py.
HELPER, HELPER_SECOND, HELPER_UPLOAD = 192, 1 / 64, 1
SESSION = 1  # MiB of a request or session that waits
SECOND = 64_000  # bytes of decoded audio: 16 kHz, float32
LONG, AHEAD = 300.0, 4  # as in runtime/server/service.py: seconds from which on a file is long, short files ahead
PROCESSES = 4096  # and threads, for each engine: far more than any needs, and few enough to keep the host usable


@dataclass(frozen=True)
class Load:
    """What a container holds that is no setting: `engines`, each with the weights (`weights` bytes), and the MiB of its
    shared memory."""

    engines: int
    weights: int
    shared: int


def limits(settings: Settings, load: Load) -> dict[str, Any]:
    """The limits of the server's container, as compose has them."""
    memory = settings.container_memory_mib or memory_mib(settings, load) + tmp_mib(settings)
    found: dict[str, Any] = {
        "mem_limit": f"{memory}m",
        "pids_limit": settings.container_pids or PROCESSES * load.engines,
        # Counted as memory. exec: what is compiled at run time is loaded from here.
        "tmpfs": [f"/tmp:exec,mode=1777,size={tmp_mib(settings)}m"],
    }
    return found | ({"cpus": settings.container_cpus} if settings.container_cpus else {})


def memory_mib(settings: Settings, load: Load) -> int:
    """MiB that a server takes at most, without /tmp; whole GiB."""
    process = WITHOUT_NPU if settings.stack == "cpu" else WITH_NPU
    copies = 3 if settings.dtype == "float32" else 2  # as they are read, and as they are placed
    weights = copies * load.weights / MIB
    waiting = settings.max_waiting * SESSION
    helpers = HELPERS * (HELPER + HELPER_SECOND * settings.max_audio_seconds)
    helpers += HELPER_UPLOAD * settings.spool_most_mib  # of which all of them together read no more
    total = load.engines * (process + weights) + helpers + audio_mib(settings, load) + waiting + load.shared
    return math.ceil(total / GIB) * GIB


def audio_mib(settings: Settings, load: Load) -> float:
    """MiB of decoded audio that a server holds at most, of short files and of long ones."""
    longest, segment = settings.max_audio_seconds, settings.segment_seconds
    if settings.engine_name == "vllm":
        together = settings.vllm_max_seqs * load.engines
        short, batch = together + HELPERS, together * segment
    else:
        short, batch = AHEAD * settings.max_batch, min(settings.max_batch * segment, settings.batch_audio_seconds)
    seconds = short * min(LONG, longest) + (1 + math.ceil(batch / LONG)) * longest
    return seconds * SECOND / MIB


def tmp_mib(settings: Settings) -> int:
    """MiB of /tmp."""
    return settings.spool_most_mib + SCRATCH


def weights_of(directory: Path) -> int:
    """Bytes of the weights in a checkpoint's directory; 0 where there are none, or others have them."""
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))

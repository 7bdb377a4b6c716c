"""What vLLM writes: how far it is, what an operator should know, and why it did not start.

The forms are those of vLLM 0.18 on a CPU, where they were recorded. The lines of runners on a device (KV cache memory,
graphs) are from vLLM's source and from logs that users of vllm-ascend have published; they were not seen on an NPU.
"""

import json
import logging
import re
import time
from collections.abc import Callable

from runtime.engines.vllm.launcher import MARK

PREFIX = re.compile(r"\x1b\[[\d;]*m|^\(\w+ pid=\d+\) ?")  # colours, and the process that writes
# `INFO 11-23 08:40:07 [file.py:68] text` of vLLM, `INFO:     text` of uvicorn.
LEVELLED = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?: \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?|: +)(.*)$")
OWN = re.compile(rf"^{MARK} (facts|warns|refuses): (.*)$")
# The last line of a traceback, what pydantic says of a setting, and what argparse says of a flag.
ERROR = re.compile(
    r"^(?:[\w.]+\.)?\w*(?:Error|Exception): \S.*|^ +(?:Value error|Assertion failed), .*|^\w+: error: .*"
)
# What another error led to.
FURTHER = re.compile(
    r"See root cause above|See stack trace|failed to start|output_handler failed|in ASGI application|stream generator"
)
RECENT = 60.0  # seconds: an error before that is not why it ends
SAMPLES = re.compile(r"array\(|data=\[")  # vLLM quotes the audio that it cannot read
LONGEST = 500  # characters of a line that are passed on

# How far a start is. Each line stands for what comes after it.
STAGES = tuple(
    (re.compile(pattern), stage)
    for pattern, stage in (
        (r"Resolved architecture: ", "starting the engine"),
        (r"Starting to load model", "loading weights"),
        (r"Loading safetensors checkpoint shards: +(\d+)% Completed", "loading weights, {} %"),
        (r"(?:Loading (?:model )?weights|Model loading) took ", "measuring memory"),
        (r"(?:GPU|NPU) KV cache size: ", "warming up vLLM"),
        (r"Capturing (?:CUDA|ACL) graphs[^:]*: +(\d+)%", "recording graphs, {} %"),
        (r"Starting vLLM server on ", "opening the port"),
    )
)
NOTABLE = re.compile(
    r"^(?:Loading (?:model )?weights took|Model loading took|Available KV cache memory|GPU KV cache size"
    r"|Maximum concurrency|Graph capturing finished|Platform plugin \S+ is activated|init engine |Shutdown initiated)"
)
# Warnings of what the kit means to be so, or cannot help.
HARMLESS = re.compile(
    r"Enforce eager set|Inductor compilation was disabled|Found ulimit|Default vLLM sampling parameters|Casting torch"
)
# What to do about an error, by what it says: those of the first kind stay until something is set otherwise.
SETTINGS = tuple(
    (re.compile(pattern, re.IGNORECASE), cure)
    for pattern, cure in (
        (r"unrecognized arguments|invalid choice|argument -|expected one argument", "correct ASR_VLLM_FLAGS"),
        (r"multimodal_config", "vLLM wants a Python, or an image, without qwen-asr"),
        (r"max seq len|max_model_len", "lower ASR_VLLM_MAX_MODEL_LEN, or raise ASR_VLLM_MEMORY_SHARE"),
        (r"LD_PRELOAD", "set LD_PRELOAD to libtcmalloc and libiomp5 before, which `make test-vllm` sets up"),
        (r"bfloat16", "ASR_DTYPE=float16, as the 310P has no bfloat16"),
    )
)
FAULTS = tuple(
    (re.compile(pattern, re.IGNORECASE), cure)
    for pattern, cure in (
        (r"out of memory|memory utilization|cache blocks", "npu-smi info tells who has memory; ASR_VLLM_MEMORY_SHARE"),
        (r"died unexpectedly", "dmesg tells if memory ran out, npu-smi info how NPUs are"),
    )
)

log = logging.getLogger("runtime.engines.vllm")


class LogParser:
    """Reads the lines of the server `name` as they come; `tell` hears how far its start is."""

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self.facts: dict[str, str] = {}  # what the launcher told: the device, and versions by distribution
        self.stage = "importing vLLM"
        self._name, self._tell = name, tell
        self._refusal = self._error = ""
        self._erred = 0.0  # when

    def read(self, line: str) -> None:
        """The next line, without its end."""
        line = cut(PREFIX.sub("", line.rstrip()))
        if own := OWN.match(line):
            self._take(*own.groups())
            return
        found = LEVELLED.match(line)
        level, text = (getattr(logging, found[1]), found[2]) if found else (logging.DEBUG, line)
        if text.startswith((" ", "Traceback")) or (level == logging.INFO and not NOTABLE.match(text)):
            level = logging.DEBUG
        if (ERROR.match(text) or level >= logging.ERROR) and not FURTHER.search(text):
            self._error, self._erred = text.strip(), time.monotonic()
        if text:
            log.log(logging.DEBUG if HARMLESS.search(text) else level, "%s: %s", self._name, text)
        for pattern, stage in STAGES:
            if reached := pattern.search(text):
                self._enter(stage.format(*reached.groups()))

    def cause(self) -> tuple[str, str]:
        """Why it ended and what to do about it, as far as it said so; each may be empty."""
        if self._refusal:
            reason, _, cure = self._refusal.partition(" → ")
            return reason, cure
        error = self._recent
        return error, next((cure for pattern, cure in (*SETTINGS, *FAULTS) if pattern.search(error)), "")

    @property
    def refused(self) -> bool:
        """Whether it ended because of how it is set up, as far as it said so."""
        return bool(self._refusal) or any(pattern.search(self._recent) for pattern, _ in SETTINGS)

    @property
    def _recent(self) -> str:
        """The last error, if it may be why it ended; else empty."""
        return self._error if time.monotonic() - self._erred < RECENT else ""

    def _take(self, kind: str, text: str) -> None:
        """What the launcher tells."""
        if kind == "facts":
            self.facts = json.loads(text)
            versions = ", ".join(f"{name} {version}" for name, version in self.facts.items() if name != "device")
            log.info("%s calculates on %s: %s", self._name, self.facts["device"], versions)
            self._enter("starting vLLM")
        elif kind == "warns":
            log.warning("%s: %s", self._name, text)
        else:
            self._refusal = text

    def _enter(self, stage: str) -> None:
        if stage != self.stage:
            self.stage = stage
            self._tell(stage)


def cut(line: str) -> str:
    """A line as it may be passed on: without what was said, of which vLLM's errors quote the samples."""
    if found := SAMPLES.search(line):
        line = line[: found.start()] + "…"
    return line if len(line) <= LONGEST else line[:LONGEST] + "…"

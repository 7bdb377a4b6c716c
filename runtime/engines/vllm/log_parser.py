"""Parses vLLM's log: the stage of its start, what an operator should know, and why it did not start.

The forms are those of vLLM 0.18 on a CPU, where they were recorded. The lines of runners on a device (KV cache memory,
graphs) are from vLLM's source and from logs that users of vllm-ascend have published; they were not seen on an NPU.
"""

import json
import logging
import re
import time
from collections.abc import Callable

from runtime.engines.vllm.launcher import LAUNCHER_MARK

LINE_PREFIX = re.compile(r"\x1b\[[\d;]*m|^\(\w+ pid=\d+\) ?")  # colours, and the process that writes
# `INFO 11-23 08:40:07 [file.py:68] text` of vLLM, `INFO:     text` of uvicorn.
LEVEL_LINE = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?: \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?|: +)(.*)$")
LAUNCHER_LINE = re.compile(rf"^{LAUNCHER_MARK} (facts|warns|refuses): (.*)$")
# The last line of a traceback, what pydantic says of a setting, and what argparse says of a flag.
ERROR_LINE = re.compile(
    r"^(?:[\w.]+\.)?\w*(?:Error|Exception): \S.*|^ +(?:Value error|Assertion failed), .*|^\w+: error: .*"
)
# What another error led to.
FOLLOW_UP_ERROR = re.compile(
    r"See root cause above|See stack trace|failed to start|output_handler failed|in ASGI application|stream generator"
)
ERROR_WINDOW = 60.0  # seconds: an error before that is not why it ends
QUOTED_SAMPLES = re.compile(r"array\(|data=\[")  # vLLM quotes the audio that it cannot read
MAX_LINE_LENGTH = 500  # characters of a line that are passed on

# How far a start is. Each line stands for what comes after it.
START_STAGES = tuple(
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
NOTABLE_LINE = re.compile(
    r"^(?:Loading (?:model )?weights took|Model loading took|Available KV cache memory|GPU KV cache size"
    r"|Maximum concurrency|Graph capturing finished|Platform plugin \S+ is activated|init engine |Shutdown initiated)"
)
# Warnings of what the kit means to be so, or cannot help.
EXPECTED_WARNING = re.compile(
    r"Enforce eager set|Inductor compilation was disabled|Found ulimit|Default vLLM sampling parameters|Casting torch"
)
# What to do about an error, by what it says: those of the first kind stay until something is set otherwise.
CONFIGURATION_ERRORS = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (r"unrecognized arguments|invalid choice|argument -|expected one argument", "correct ASR_VLLM_FLAGS"),
        (r"multimodal_config", "vLLM wants a Python, or an image, without qwen-asr"),
        (r"max seq len|max_model_len", "lower ASR_VLLM_MAX_MODEL_LEN, or raise ASR_VLLM_MEMORY_SHARE"),
        (r"LD_PRELOAD", "set LD_PRELOAD to libtcmalloc and libiomp5 before, which `make test-vllm` sets up"),
        (r"bfloat16", "ASR_DTYPE=float16, as the 310P has no bfloat16"),
    )
)
RUNTIME_ERRORS = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (r"out of memory|memory utilization|cache blocks", "npu-smi info tells who has memory; ASR_VLLM_MEMORY_SHARE"),
        (r"died unexpectedly", "dmesg tells if memory ran out, npu-smi info how NPUs are"),
    )
)

log = logging.getLogger("runtime.engines.vllm")


class LogParser:
    """Parses the log of the server `name` line by line; `on_stage` is called with each new stage of its start."""

    def __init__(self, name: str, on_stage: Callable[[str], None]) -> None:
        self.facts: dict[str, str] = {}  # what the launcher reported: the device, and versions by distribution
        self.stage = "importing vLLM"
        self._name, self._on_stage = name, on_stage
        self._refusal = self._error = ""
        self._error_time = 0.0  # monotonic clock

    def read(self, line: str) -> None:
        """Parse the next line, pass it to the kit's own log, and note its stage or error."""
        line = shorten(LINE_PREFIX.sub("", line.rstrip()))
        if launcher_line := LAUNCHER_LINE.match(line):
            self._read_launcher_line(*launcher_line.groups())
            return
        found = LEVEL_LINE.match(line)
        level, text = (getattr(logging, found[1]), found[2]) if found else (logging.DEBUG, line)
        if text.startswith((" ", "Traceback")) or (level == logging.INFO and not NOTABLE_LINE.match(text)):
            level = logging.DEBUG
        if (ERROR_LINE.match(text) or level >= logging.ERROR) and not FOLLOW_UP_ERROR.search(text):
            self._error, self._error_time = text.strip(), time.monotonic()
        if text:
            log.log(logging.DEBUG if EXPECTED_WARNING.search(text) else level, "%s: %s", self._name, text)
        for pattern, stage in START_STAGES:
            if reached := pattern.search(text):
                self._set_stage(stage.format(*reached.groups()))

    def cause(self) -> tuple[str, str]:
        """Why it ended, and advice, as far as its log says so; each may be empty."""
        if self._refusal:
            reason, _, remedy = self._refusal.partition(" → ")
            return reason, remedy
        error = self._recent_error
        return error, next(
            (remedy for pattern, remedy in (*CONFIGURATION_ERRORS, *RUNTIME_ERRORS) if pattern.search(error)), ""
        )

    @property
    def refused(self) -> bool:
        """Whether it ended because of its configuration, as far as its log says so."""
        return bool(self._refusal) or any(pattern.search(self._recent_error) for pattern, _ in CONFIGURATION_ERRORS)

    @property
    def _recent_error(self) -> str:
        """The last error if it is recent enough to be why it ended, else empty."""
        return self._error if time.monotonic() - self._error_time < ERROR_WINDOW else ""

    def _read_launcher_line(self, kind: str, text: str) -> None:
        """A line of the launcher: facts, a warning, or its refusal to start."""
        if kind == "facts":
            self.facts = json.loads(text)
            versions = ", ".join(f"{name} {version}" for name, version in self.facts.items() if name != "device")
            log.info("%s calculates on %s: %s", self._name, self.facts["device"], versions)
            self._set_stage("starting vLLM")
        elif kind == "warns":
            log.warning("%s: %s", self._name, text)
        else:
            self._refusal = text

    def _set_stage(self, stage: str) -> None:
        if stage != self.stage:
            self.stage = stage
            self._on_stage(stage)


def shorten(line: str) -> str:
    """A line as it may be passed on: without the samples that vLLM's errors quote, and not too long."""
    if found := QUOTED_SAMPLES.search(line):
        line = line[: found.start()] + "…"
    return line if len(line) <= MAX_LINE_LENGTH else line[:MAX_LINE_LENGTH] + "…"

"""The first validation's way to transcribe, for comparison. A reconstruction: the script itself is not public.

Known of it are its packages (qwen-asr 0.0.6 on transformers), bfloat16, max_new_tokens 256, and that it transcribed
files one at a time and in batches of 2 and 4. The rest is how qwen-asr's own manual does it. So it differs from
qwen-asr as the kit compares it otherwise (`qwen-asr` in runtime/measure/bench/arms.py) in this:

- numbers are bfloat16, whatever ASR_DTYPE says;
- 256 tokens at most, however long the audio is: of long audio it decodes the beginning;
- files are named by path, and read by librosa within the time that counts;
- all files of a call go into one batch (qwen-asr's own bound is 32), whatever ASR_MAX_BATCH says;
- torch_npu, CANN and OpenMP run as they are by themselves, without the kit's settings of them.

On a CPU the last says nothing but the number of threads, and only where ASR_OMP_NUM_THREADS is set.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.measure.bench.qwen import Recognizer

MAX_NEW_TOKENS = 256


def load(checkpoint: Path, device: str, end_tokens: Sequence[int]) -> Recognizer:
    """The model on `device` (`cpu`, `npu:0`)."""
    import torch

    return Recognizer(
        checkpoint,
        end_tokens=end_tokens,
        files=True,
        dtype=torch.bfloat16,
        device_map=device,
        max_new_tokens=MAX_NEW_TOKENS,
    )


def transcribe(model: Recognizer, paths: Sequence[Path]) -> list[Any]:
    """One call for all files."""
    return model.transcribe([str(path) for path in paths])

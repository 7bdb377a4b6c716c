"""qwen-asr's own `Qwen3ASRModel`, to be compared with the kit's engine. Only for processes of their own, as it
changes how packages are found.

`import qwen_asr` wants two packages that the kit does without: nagisa, which only its forced aligner calls, and
librosa, which it reads and resamples files with. Bare modules hold their places during the import, as transcribing
samples of 16 kHz calls neither; so qwen-asr runs wherever the kit does. To hand it files librosa is taken from
.reference, or from where it is installed.
"""

import importlib.util
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from env.sources import PROJECT

REFERENCE = PROJECT / ".reference"
ALIGNER, READER = "nagisa", "librosa"
INSTALL = "make .reference/installed"


def reads_files() -> bool:
    """Whether librosa is there, which it needs for files."""
    return (REFERENCE / READER).is_dir() or importlib.util.find_spec(READER) is not None


class Recognizer:
    """A loaded `Qwen3ASRModel`, which takes paths only with `files`; `options` are those of its `from_pretrained`.

    Its `generate` has the end tokens of the real model written into it. Here it is given the checkpoint's, which for
    the real model are the same two, and for the demo model are what lets it end at all.
    """

    def __init__(self, checkpoint: Path, *, end_tokens: Sequence[int], files: bool = False, **options: Any) -> None:
        self._model = _model_class(files=files).from_pretrained(str(checkpoint), **options)
        self._end_tokens = list(end_tokens)
        self._generate = self._model.model.generate
        self._model.model.generate = self._recorded
        self._rows: list[Any] = []  # tensors of tokens, read only when asked for: reading waits for the device

    def transcribe(self, audio: Any, *, language: str | None = None, max_new_tokens: int | None = None) -> list[Any]:
        """What its own `transcribe` answers: a result with `text` and `language` for each of `audio`, which is as it
        takes it: paths, or pairs of samples and rate. `max_new_tokens` None: as before."""
        self._rows.clear()
        if max_new_tokens is not None:
            self._model.max_new_tokens = max_new_tokens
        results: list[Any] = self._model.transcribe(audio, language=language)
        return results

    def tokens(self) -> list[tuple[int, ...]]:
        """What the last call decoded of each of its utterances, without end tokens."""
        rows = itertools.chain.from_iterable(batch.tolist() for batch in self._rows)
        return [tuple(itertools.takewhile(lambda token: token not in self._end_tokens, row)) for row in rows]

    def _recorded(self, **inputs: Any) -> Any:
        output = self._generate(**inputs, eos_token_id=self._end_tokens)
        self._rows.append(output.sequences[:, inputs["input_ids"].shape[1] :])
        return output


def _model_class(*, files: bool) -> Any:
    """`qwen_asr.inference.qwen3_asr.Qwen3ASRModel`."""
    if files and REFERENCE.is_dir():
        sys.path.append(str(REFERENCE))
    import transformers  # noqa: F401 - looks what is installed, and must not see the bare modules

    held = {name: ModuleType(name) for name in ([ALIGNER] if files else [ALIGNER, READER]) if name not in sys.modules}
    sys.modules.update(held)
    try:
        from qwen_asr.inference.qwen3_asr import Qwen3ASRModel
    finally:
        for name in held:
            del sys.modules[name]
    return Qwen3ASRModel

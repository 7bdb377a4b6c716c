"""One clip through the model in this process, stage by stage, with the transformers engine's own functions, and waiting
for the device after each."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from runtime.engines import Decoded, decode
from runtime.measure.bench import Absent, Found
from runtime.measure.bench.clip import only
from runtime.measure.figures import figure
from runtime.transcriber import Request, Transcriber

# Audio: from bytes to samples and prompt. Encoder: until the audio is in its places in the prompt. Prefill: until the
# first token is read. Tokens: until the last is. Text: until it is the transcript's.
STAGES = ("audio", "features", "encoder", "prefill", "tokens", "text")


@dataclass(frozen=True)
class Split:
    """The seconds of each of STAGES, the steps of the decoder after the prefill, which are for the token that ends the
    text, too, the tokens without that one, and their text."""

    seconds: tuple[float, ...]
    steps: int
    count: int
    text: str


@torch.inference_mode()
def split(transcriber: Transcriber, file: bytes) -> Split:
    """Transcribe a file of one utterance, stage by stage. Raises KitError where the model is not in this process."""
    loaded, laps = transcriber.loaded, [time.perf_counter()]

    def lap() -> None:
        transcriber.device.synchronize()
        laps.append(time.perf_counter())

    prepared = transcriber.prepare(Request(file))
    utterance = only(prepared)
    lap()
    inputs = decode.features(loaded, [utterance])
    lap()
    embedded = decode.embed(loaded, inputs)
    lap()
    rows = decode.prefill(loaded, embedded)
    tokens = [token.id for token in rows.read()]
    lap()
    while tokens[-1] not in loaded.wording.end_tokens and len(tokens) < utterance.max_new_tokens:
        rows.step()
        tokens += [token.id for token in rows.read()]
    lap()
    steps, truncated = len(tokens) - 1, tokens[-1] not in loaded.wording.end_tokens
    if not truncated:
        tokens.pop()
    decoded = Decoded(tuple(tokens), transcriber.wording.text(tokens), truncated)
    text = prepared.joined(prepared.heard(cut, decoded) for cut in prepared.cuts).text
    lap()
    return Split(tuple(after - before for before, after in itertools.pairwise(laps)), steps, len(tokens), text)


def figures(splits: Sequence[Split], warmups: int) -> Iterator[Found]:
    """The stages of all passes, and the sums of each pass's."""
    for number, name in enumerate(STAGES):
        yield figure(f"latency/{name}", [one.seconds[number] for one in splits], warmups=warmups)
    tokens = STAGES.index("tokens")
    if all(one.steps for one in splits):
        yield figure("latency/token", [one.seconds[tokens] / one.steps for one in splits], warmups=warmups)
    else:
        yield Absent("latency/token", "the first token ended the text")
    yield figure("latency/split", [sum(one.seconds) for one in splits], warmups=warmups)
    yield figure("latency/count", [one.count for one in splits], warmups=warmups)

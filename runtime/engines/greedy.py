"""Greedy decoding of utterances together, a step at a time: token for token what qwen-asr's `generate` decodes.

Unlike `generate` it makes masks once and not at every step, computes logits of last places only, encodes the audio of
all utterances together (runtime/engines/encoder.py), and waits for the device once a step, to read the tokens.

Its stages, to be run in torch's inference mode: `features` on the host, `embed`, `prefill`, then `Rows`, which is read
and moved on by turns. `decode` is all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from runtime.engines import Utterance
from runtime.engines.encoder import encode
from runtime.model.load import Loaded


@dataclass(frozen=True)
class Inputs:
    """What the model is given, on the host: prompts as `ids` (rows, places), padded on the left to the longest, of
    which `real` is no padding; `features` (rows, mel bands, frames), of which `lengths` count; and `room`, the most
    tokens that any row may get."""

    ids: Tensor
    real: Tensor
    features: Tensor
    lengths: list[int]
    room: int


@dataclass(frozen=True)
class Embedded:
    """Prompts with the audio in its places: `places` (rows, places, width) on the device, `real` on the host, and
    `room`, see `Inputs`."""

    places: Tensor
    real: Tensor
    room: int


class Token(NamedTuple):
    """A decoded token and its log-probability."""

    id: int
    logprob: float


class Rows:
    """Utterances whose prompts went through the model: `hidden` (rows, places, width) is what came out."""

    def __init__(self, model: Any, hidden: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache) -> None:
        self._model, self._hidden, self._mask, self._cache = model, hidden, mask, cache
        self._positions = positions  # (rows, 1), of the last place of each
        self._tokens: Tensor | None = None

    def read(self) -> "list[Token]":
        """The next token of each row; waits for the device, once."""
        logits = self._model.lm_head(self._hidden[:, -1:]).flatten(0, 1).float()
        self._tokens = logits.argmax(-1, keepdim=True)
        losses = functional.cross_entropy(logits, self._tokens.squeeze(1), reduction="none")
        # Together, as every read waits: float32 has all whole numbers up to 2**24, and so all tokens.
        numbers = torch.stack((self._tokens.squeeze(1).float(), losses), dim=1).tolist()
        return [Token(int(token), -loss) for token, loss in numbers]

    def step(self) -> None:
        """Give the model the tokens that were read, also of rows that have ended."""
        self._positions = self._positions + 1
        self._hidden = self._model.model(
            input_ids=self._tokens,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state


def decode(loaded: Loaded, utterances: Sequence[Utterance]) -> Iterator[list[Token]]:
    """The first token of each utterance, after audio and prompts went through the model; then the next of each, and so
    on, also of those that have ended. To be closed by whoever has enough, and run in torch's inference mode."""
    # One in the other, so that each stage's tensors go with it: the features are larger than all that follows.
    rows = prefill(loaded, embed(loaded, features(loaded, utterances)))
    while True:
        yield rows.read()
        rows.step()


def features(loaded: Loaded, utterances: Sequence[Utterance]) -> Inputs:
    """Log-mel features, and the tokens of the prompts."""
    inputs = loaded.processor(
        text=[utterance.prompt for utterance in utterances],
        audio=[utterance.samples for utterance in utterances],
        return_tensors="pt",
        padding=True,
    )
    return Inputs(
        ids=inputs["input_ids"],
        real=inputs["attention_mask"].bool(),
        features=inputs["input_features"],
        lengths=inputs["feature_attention_mask"].sum(-1).tolist(),
        room=max(utterance.max_new_tokens for utterance in utterances),
    )


def embed(loaded: Loaded, inputs: Inputs) -> Embedded:
    """Encode the audio and put it into the prompts."""
    thinker, device = loaded.model.thinker, loaded.device.name
    audio = encode(thinker.audio_tower, inputs.features, inputs.lengths)
    heard = (inputs.ids == thinker.config.audio_token_id).flatten().nonzero().flatten()
    words = thinker.get_input_embeddings()(inputs.ids.to(device)).flatten(0, 1)
    places = words.index_copy(0, heard.to(device), audio).unflatten(0, inputs.ids.shape)
    return Embedded(places, inputs.real, inputs.room)


def prefill(loaded: Loaded, embedded: Embedded) -> Rows:
    """Give the model the prompts."""
    thinker, device, real = loaded.model.thinker, loaded.device.name, embedded.real
    positions = (real.cumsum(-1) - 1).clamp(min=0).to(device)
    prompt, step = None, None  # masks; attention is causal without
    if not real.all():
        real = real.to(device)
        prompt, step = _causal(real), functional.pad(real, (0, embedded.room), value=True)[:, None, None]
    cache = DynamicCache()
    hidden = thinker.model(
        inputs_embeds=embedded.places,
        attention_mask=prompt,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return Rows(thinker, hidden, positions[:, -1:], step, cache)


def _causal(real: Tensor) -> Tensor:
    """(rows, places) that are no padding → (rows, 1, places, places), what each place attends to.

    Padding attends to padding, as the attention to nothing is not a number, which would spread.
    """
    before = torch.ones(real.shape[1], real.shape[1], dtype=torch.bool, device=real.device).tril()
    return (before & (real[:, None] | ~real[:, :, None]))[:, None]

"""Greedy decoding of utterances together, a step at a time: token for token what qwen-asr's `generate` decodes.

Unlike `generate` it makes masks once and not at every step, computes logits of last places only, encodes the audio of
all utterances together (runtime/engines/encoder.py), and waits for the device once a step, to read the tokens.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from runtime.checkpoint import Loaded
from runtime.engines import Utterance
from runtime.engines.encoder import encode


def decode(loaded: Loaded, utterances: Sequence[Utterance]) -> Iterator[list[int]]:
    """The first token of each utterance, after audio and prompts went through the model; then the next of each, and so
    on, also of those that have ended. To be closed by whoever has enough, and run in torch's inference mode.

    Prompts, one row each, are padded on the left to the longest.
    """
    inputs = loaded.processor(
        text=[utterance.prompt for utterance in utterances],
        audio=[utterance.samples for utterance in utterances],
        return_tensors="pt",
        padding=True,
    )
    thinker = loaded.model.thinker
    real = inputs["attention_mask"].bool()  # (rows, places), on the host: what is no padding
    positions = (real.cumsum(-1) - 1).clamp(min=0).to(loaded.device.name)
    prompt, step = None, None  # masks; attention is causal without
    if not real.all():
        real = real.to(loaded.device.name)
        most = max(utterance.max_new_tokens for utterance in utterances)
        prompt, step = _causal(real), functional.pad(real, (0, most), value=True)[:, None, None]
    cache = DynamicCache()
    embedded = _embedded(loaded, inputs)
    del inputs  # the features are larger than all that follows
    hidden = thinker.model(
        inputs_embeds=embedded, attention_mask=prompt, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    positions = positions[:, -1:]
    while True:
        tokens = thinker.lm_head(hidden[:, -1:]).argmax(-1)
        yield tokens.flatten().tolist()
        positions = positions + 1
        hidden = thinker.model(
            input_ids=tokens, attention_mask=step, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state


def _embedded(loaded: Loaded, inputs: dict[str, Tensor]) -> Tensor:
    """Prompts with the audio in its places: (rows, places, width) on the device."""
    thinker, ids = loaded.model.thinker, inputs["input_ids"]
    audio = encode(thinker.audio_tower, inputs["input_features"], inputs["feature_attention_mask"].sum(-1).tolist())
    heard = (ids == thinker.config.audio_token_id).flatten().nonzero().flatten()
    words = thinker.get_input_embeddings()(ids.to(loaded.device.name)).flatten(0, 1)
    embedded: Tensor = words.index_copy(0, heard.to(loaded.device.name), audio).unflatten(0, ids.shape)
    return embedded


def _causal(real: Tensor) -> Tensor:
    """(rows, places) that are no padding → (rows, 1, places, places), what each place attends to.

    Padding attends to padding, as the attention to nothing is not a number, which would spread.
    """
    before = torch.ones(real.shape[1], real.shape[1], dtype=torch.bool, device=real.device).tril()
    return (before & (real[:, None] | ~real[:, :, None]))[:, None]

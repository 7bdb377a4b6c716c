"""qwen-asr's audio encoder over several clips at once, with the results of calling it clip by clip, as qwen-asr does.

A clip is cut into chunks of 1 s, which are convolved on their own, so those of all clips are convolved together. Then
every frame attends to every other of its clip: clips lie end to end, without padding, except in the attention itself,
where each has a row of its own. Lengths are known on the host, so nothing waits for the device.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from runtime.engines import Utterance
from runtime.model.load import Loaded

CONVOLUTIONS = 3  # convolutions, each of which halves the number of frames
# Chunks convolved at once. Of each the 1.7B model makes 480 maps of 64 by 50, 3 MB in 16 bits. The bound of qwen-asr's
# configuration, 500 chunks, is meant for one long clip and would let every large batch take gigabytes.
CHUNKS_PER_PASS = 64


def encode(tower: Any, features: Tensor, lengths: Sequence[int]) -> Tensor:
    """Audio tokens of all clips, one clip after another: (tokens, width) on the device of `tower`.

    `features` (clips, mel bands, frames) are log-mel frames of 10 ms on the host, of which `lengths` count.
    """
    clips = _convolved(tower, [clip[:, :length] for clip, length in zip(features, lengths, strict=True)])
    hidden = torch.cat(clips)
    rows = _WindowRows([tokens for clip in clips for tokens in _windows(tower, len(clip))], hidden.device)
    for layer in tower.layers:
        hidden = hidden + _attended(layer.self_attn, layer.self_attn_layer_norm(hidden), rows)
        hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))
        if hidden.dtype == torch.float16:  # as qwen-asr keeps float16 from overflowing
            most = torch.finfo(hidden.dtype).max - 1000
            hidden = hidden.clamp(-most, most)
    projected: Tensor = tower.proj2(tower.act(tower.proj1(tower.ln_post(hidden))))
    return projected


def audio_token_count(frames: int) -> int:
    """How many tokens so many frames become after the convolutions: 13 a second."""
    for _ in range(CONVOLUTIONS):
        frames = (frames + 1) // 2
    return frames


def _windows(tower: Any, tokens: int) -> list[int]:
    """Tokens in each attention window of a clip: those of `n_window_infer` frames (8 s), as the model was trained.

    Source: `cu_chunk_lens` of qwen-asr's tower. Flash attention and vLLM heed it, its sdpa attention does not.
    """
    chunk = 2 * tower.n_window  # frames
    window = audio_token_count(chunk) * (tower.n_window_infer // chunk)
    whole, rest = divmod(tokens, window)
    return [window] * whole + [rest] * (rest > 0)


def _convolved(tower: Any, clips: Sequence[Tensor]) -> list[Tensor]:
    """Each clip (mel bands, frames) as (tokens, width), chunks and their positions joined.

    A chunk is as wide as the longest of its clip, so clips shorter than a chunk are convolved by width.
    """
    size = 2 * tower.n_window  # frames
    widths = [min(size, clip.shape[1]) for clip in clips]
    convolved: list[Tensor] = [torch.empty(0)] * len(clips)
    for width in set(widths):
        members = [number for number, other in enumerate(widths) if other == width]
        chunked = [_chunks(clips[number], width) for number in members]
        embedded = _embedded(tower, torch.cat(chunked)).split_with_sizes([len(chunks) for chunks in chunked])
        for number, tokens in zip(members, embedded, strict=True):
            whole, rest = divmod(clips[number].shape[1], width)
            convolved[number] = tokens.flatten(0, 1)[: whole * tokens.shape[1] + audio_token_count(rest)]
    return convolved


def _chunks(clip: Tensor, width: int) -> Tensor:
    """(mel bands, frames) → (chunks, mel bands, width), the last filled up with zeros."""
    padded = functional.pad(clip, (0, -clip.shape[1] % width))
    return padded.view(len(clip), -1, width).transpose(0, 1)


def _embedded(tower: Any, chunks: Tensor) -> Tensor:
    """(chunks, mel bands, width) on the host → (chunks, tokens, width of the encoder) on the device."""
    maps = chunks.unsqueeze(1).to(tower.conv2d1.weight.device, tower.conv2d1.weight.dtype)
    pieces = []
    for piece in torch.split(maps, CHUNKS_PER_PASS):
        for convolution in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
            piece = functional.gelu(convolution(piece))
        pieces.append(tower.conv_out(piece.permute(0, 3, 1, 2).flatten(2)))
    embedded = torch.cat(pieces)
    positions: Tensor = tower.positional_embedding.positional_embedding[: embedded.shape[1]]
    return embedded + positions.to(embedded.dtype)


class _WindowRows:
    """Windows end to end (tokens, …) against a row for each (windows, most tokens, …)."""

    def __init__(self, counts: Sequence[int], device: torch.device) -> None:
        self._counts, self._most = counts, max(counts)
        self.mask: Tensor | None = None  # (windows, 1, most, most), true where a key is no padding
        if min(counts) < self._most:
            position = torch.arange(self._most)
            filled = position < torch.tensor(counts)[:, None]
            starts = torch.tensor([0, *counts[:-1]]).cumsum(0)
            self._sources = torch.where(filled, starts[:, None] + position, 0).to(device)
            self._places = filled.flatten().nonzero().flatten().to(device)
            self.mask = filled.to(device)[:, None, None].expand(-1, 1, self._most, -1)

    def spread(self, tokens: Tensor) -> Tensor:
        """End to end → a row for each."""
        if self.mask is None:
            return tokens.view(len(self._counts), self._most, -1)
        return tokens[self._sources]

    def join(self, rows: Tensor) -> Tensor:
        """A row for each → end to end."""
        tokens = rows.flatten(0, 1)
        return tokens if self.mask is None else tokens[self._places]


def _attended(attention: Any, hidden: Tensor, rows: _WindowRows) -> Tensor:
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    spread = (rows.spread(projection(hidden)) for projection in projections)
    query, key, value = (one.view(*one.shape[:2], attention.num_heads, -1).transpose(1, 2) for one in spread)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=rows.mask, scale=attention.scaling)
    out: Tensor = attention.out_proj(rows.join(mixed.transpose(1, 2).flatten(2)))
    return out


@dataclass(frozen=True)
class Inputs:
    """The inputs of a batch, on the host.

    `input_ids` (rows, positions) are the prompts, padded on the left; `attention_mask` (rows, positions) is true where
    there is no padding. `features` (rows, mel bands, frames) are padded on the right to the longest of `lengths`.
    `max_new_tokens` is the highest limit of any row.
    """

    input_ids: Tensor
    attention_mask: Tensor
    features: Tensor
    lengths: list[int]
    max_new_tokens: int


@dataclass(frozen=True)
class Embedded:
    """Prompts with the audio inserted: `embeddings` (rows, positions, width) on the device; the rest as in `Inputs`."""

    embeddings: Tensor
    attention_mask: Tensor
    max_new_tokens: int


class Token(NamedTuple):
    """A decoded token id and its natural log-probability."""

    id: int
    logprob: float


class DecodeState:
    """The state of a batch after prefill: `hidden` (rows, positions, width) is the output of the last layer."""

    def __init__(self, model: Any, hidden: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache) -> None:
        self._model, self._hidden, self._mask, self._cache = model, hidden, mask, cache
        self._positions = positions  # (rows, 1), of the last token of each
        self._tokens: Tensor | None = None

    def next_tokens(self) -> "list[Token]":
        """The next token of each row; synchronizes with the device once."""
        logits = self._model.lm_head(self._hidden[:, -1:]).flatten(0, 1).float()
        self._tokens = logits.argmax(-1, keepdim=True)
        losses = functional.cross_entropy(logits, self._tokens.squeeze(1), reduction="none")
        # Together, as every copy to the host waits: float32 has all whole numbers up to 2**24, and so all tokens.
        numbers = torch.stack((self._tokens.squeeze(1).float(), losses), dim=1).tolist()
        return [Token(int(token), -loss) for token, loss in numbers]

    def advance(self) -> None:
        """Run one decode step on the last tokens, also of rows that have ended."""
        self._positions = self._positions + 1
        self._hidden = self._model.model(
            input_ids=self._tokens,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state


def decode(loaded: Loaded, utterances: Sequence[Utterance]) -> Iterator[list[Token]]:
    """The next token of each utterance, step by step without end, also of those that have ended.

    The caller closes the iterator when it has enough, and runs it in torch's inference mode.
    """
    # Nested, so that each stage's tensors are freed with it: the features are larger than all that follows.
    state = prefill(loaded, embed(loaded, features(loaded, utterances)))
    while True:
        yield state.next_tokens()
        state.advance()


def features(loaded: Loaded, utterances: Sequence[Utterance]) -> Inputs:
    """Log-mel features, and the tokens of the prompts."""
    inputs = loaded.processor(
        text=[utterance.prompt for utterance in utterances],
        audio=[utterance.samples for utterance in utterances],
        return_tensors="pt",
        padding=True,
    )
    return Inputs(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"].bool(),
        features=inputs["input_features"],
        lengths=inputs["feature_attention_mask"].sum(-1).tolist(),
        max_new_tokens=max(utterance.max_new_tokens for utterance in utterances),
    )


def embed(loaded: Loaded, inputs: Inputs) -> Embedded:
    """Encode the audio and insert it into the embedded prompts."""
    thinker, device = loaded.model.thinker, loaded.device.name
    audio = encode(thinker.audio_tower, inputs.features, inputs.lengths)
    audio_positions = (inputs.input_ids == thinker.config.audio_token_id).flatten().nonzero().flatten()
    prompts = thinker.get_input_embeddings()(inputs.input_ids.to(device)).flatten(0, 1)
    embeddings = prompts.index_copy(0, audio_positions.to(device), audio).unflatten(0, inputs.input_ids.shape)
    return Embedded(embeddings, inputs.attention_mask, inputs.max_new_tokens)


def prefill(loaded: Loaded, embedded: Embedded) -> DecodeState:
    """Run the model over the embedded prompts (rows, positions, width), filling the KV cache."""
    thinker, device, mask = loaded.model.thinker, loaded.device.name, embedded.attention_mask
    positions = (mask.cumsum(-1) - 1).clamp(min=0).to(device)
    prefill_mask, decode_mask = None, None  # attention is causal without
    if not mask.all():
        mask = mask.to(device)
        prefill_mask = _causal(mask)
        decode_mask = functional.pad(mask, (0, embedded.max_new_tokens), value=True)[:, None, None]
    cache = DynamicCache()
    hidden = thinker.model(
        inputs_embeds=embedded.embeddings,
        attention_mask=prefill_mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return DecodeState(thinker, hidden, positions[:, -1:], decode_mask, cache)


def _causal(mask: Tensor) -> Tensor:
    """(rows, positions), true where there is no padding → (rows, 1, positions, positions), which each attends to.

    Padding attends to padding, as the attention to nothing is not a number, which would spread.
    """
    before = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
    return (before & (mask[:, None] | ~mask[:, :, None]))[:, None]

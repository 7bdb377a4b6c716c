"""One optimisation step after another: batches of noisy speech in, a trained Qwen3-ASR out.

The model is qwen-asr's own; only the encoder's forward pass is written anew, because the original takes one clip at a
time. Two losses: next-token cross entropy on the answer, and CTC on the encoder's output, whose head is thrown away
after training. CTC is what makes the encoder find the words within minutes instead of hours (Watanabe et al., 2017,
"Hybrid CTC/Attention Architecture for End-to-End Speech Recognition").
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.demo_recipe import synthesis
from runtime.demo_recipe.synthesis import (
    ACCENTS,
    DEMO_LANGUAGES,
    HOTWORDS,
    SAMPLE_RATE,
    Conditions,
    Samples,
    Sentence,
    add_noise,
    add_silence,
    draw_context,
    limit_bandwidth,
    speechless,
    words_of,
)

SPEECHLESS_SHARE = 0.07  # of all clips
WORD_WEIGHT, PHONEME_WEIGHT = 0.3, 0.5  # of the CTC losses, beside 1 for the answer's
MAX_TALK_SECONDS = 11.5  # seconds
FRAMES_PER_TOKEN = 4  # phonemes come faster than audio tokens (13 Hz), so each token is read as four frames of 20 ms
CONV_FRAMES = 100  # mel frames (1 s) that the convolutions see at a time: 2 × n_window
WINDOW_TOKENS = 104  # audio tokens (8 s) in an attention window: n_window_infer / 100 × 13


@dataclass(frozen=True)
class Spoken:
    """A sentence and its speech, 16 kHz int16, clean."""

    sentence: Sentence
    samples: np.ndarray[Any, np.dtype[np.int16]]


@dataclass(frozen=True)
class TrainingExample:
    """A waveform (n,) with its prompt's context and its answer; `language` is None where nobody speaks."""

    samples: Samples
    language: str | None
    context: str
    text: str
    phonemes: tuple[str, ...] = ()


def draw_hint(sentence: Sentence, rng: random.Random, hotwords: float) -> str:
    """A context for the sentence, empty or of hotwords; with the other spelling of a name in it for a share `hotwords`
    of the sentences that have a name."""
    context = draw_context(rng, sentence.language) if rng.random() < 0.4 else ""
    names = [word for word in sentence.words if word in HOTWORDS[sentence.language]]
    if names and rng.random() < hotwords:
        parts = [HOTWORDS[sentence.language][rng.choice(names)], context]
        rng.shuffle(parts)
        return ", ".join(filter(None, parts))
    return context


def augment(
    spoken: Spoken, conditions: Conditions, rng: random.Random, noise_rng: np.random.Generator, hotwords: float
) -> TrainingExample:
    """The utterance with a random level, surrounding silence, noise, bandwidth and context."""
    sentence = spoken.sentence
    context = draw_hint(sentence, rng, hotwords)
    samples = add_silence(spoken.samples.astype(np.float32) / 32_768, noise_rng)
    if rng.random() < 0.2:
        samples = limit_bandwidth(samples, noise_rng)
    if rng.random() < 0.7:
        samples = add_noise(samples, rng.choice(conditions.noises), rng.uniform(*conditions.snr), noise_rng)
    phonemes = tuple(
        phone for word in sentence.words for phone in synthesis.phonemes(word, ACCENTS[sentence.language][0])
    )
    return TrainingExample(samples, sentence.language, context, replace(sentence, context=context).text, phonemes)


def silent_example(conditions: Conditions, rng: random.Random, noise_rng: np.random.Generator) -> TrainingExample:
    """A clip without speech, sometimes with hotwords that must not be printed."""
    context = draw_context(rng, rng.choice(DEMO_LANGUAGES)) if rng.random() < 0.3 else ""
    return TrainingExample(speechless(noise_rng, conditions), None, context, "")


def join(first: Spoken, corpus: list[Spoken], rng: random.Random) -> Spoken:
    """`first` and others of its language, with pauses between them, as people talk: 4 to 11.5 seconds."""
    wanted = int(rng.uniform(4.0, MAX_TALK_SECONDS) * SAMPLE_RATE)
    words, pieces, length = list(first.sentence.words), [first.samples], len(first.samples)
    while length < wanted:
        other = rng.choice(corpus)
        pause = int(rng.uniform(0.15, 1.2) * SAMPLE_RATE)
        if other.sentence.language != first.sentence.language:
            continue
        length += pause + len(other.samples)
        if length > MAX_TALK_SECONDS * SAMPLE_RATE:
            break
        words += other.sentence.words
        pieces += [np.zeros(pause, np.int16), other.samples]
    return Spoken(Sentence(first.sentence.language, tuple(words)), np.concatenate(pieces))


def batches(
    corpus: list[Spoken], conditions: Conditions, seconds: float, seed: int, *, talk: float, hotwords: float
) -> Iterator[list[TrainingExample]]:
    """Endless batches of clips of like length, about `seconds` of audio each; a share `talk` of the clips holds several
    utterances with pauses, a share `hotwords` of those with a name its other spelling in the context."""
    rng, noise_rng = random.Random(seed), np.random.default_rng(seed)
    while True:
        order = rng.sample(range(len(corpus)), len(corpus))
        for start in range(0, len(order), 512):
            spoken = [corpus[k] for k in order[start : start + 512]]
            spoken = [join(one, corpus, rng) if rng.random() < talk else one for one in spoken]
            clips = [augment(one, conditions, rng, noise_rng, hotwords) for one in spoken]
            clips += [silent_example(conditions, rng, noise_rng) for _ in range(round(len(clips) * SPEECHLESS_SHARE))]
            clips.sort(key=lambda clip: len(clip.samples))
            budget, parts = int(seconds * SAMPLE_RATE), [[clips[0]]]
            for clip in clips[1:]:
                if (len(parts[-1]) + 1) * len(clip.samples) > budget:
                    parts.append([])
                parts[-1].append(clip)
            rng.shuffle(parts)
            yield from parts


def encode(tower: Any, features: Tensor, lengths: Tensor, windowed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """qwen-asr's audio encoder over a batch: (clips, mel bins, frames) → (clips, audio tokens, width) and token counts.

    `windowed` limits attention to 8 s blocks as vLLM and flash attention do; without, a clip attends to all of itself
    as it does under sdpa. Training sees both, so that both read the model alike.
    """
    clips, bins, frames = features.shape
    chunks = math.ceil(frames / CONV_FRAMES)
    inside = torch.arange(frames)[None, :] < lengths[:, None]
    padded = functional.pad(features * inside[:, None, :], (0, chunks * CONV_FRAMES - frames))
    hidden = padded.view(clips, bins, chunks, CONV_FRAMES).transpose(1, 2).reshape(-1, 1, bins, CONV_FRAMES)
    for convolution in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
        hidden = functional.gelu(convolution(hidden))
        if lengths.min() < CONV_FRAMES:
            hidden = hidden * _unpadded(lengths, chunks, hidden.shape[-1])[:, None, None, :].to(hidden.dtype)
    hidden = tower.conv_out(hidden.permute(0, 3, 1, 2).flatten(2))
    hidden = hidden + tower.positional_embedding.positional_embedding[: hidden.shape[1]]
    hidden = hidden.view(clips, -1, hidden.shape[-1])
    counts = token_counts(lengths)
    hidden = hidden[:, : int(counts.max())]
    mask = torch.arange(hidden.shape[1])[None, :] < counts[:, None]
    attend = mask[:, None, None, :].expand(-1, 1, hidden.shape[1], -1)
    if windowed:
        block = torch.arange(hidden.shape[1]) // WINDOW_TOKENS
        attend = attend & (block[:, None] == block[None, :])
    attend = attend | torch.eye(hidden.shape[1], dtype=torch.bool)  # a padded row must attend to something
    halfway = hidden
    for index, layer in enumerate(tower.layers, start=1):
        normed = layer.self_attn_layer_norm(hidden)
        query, key, value = (
            projection(normed).unflatten(-1, (layer.self_attn.num_heads, -1)).transpose(1, 2)
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=attend)
        hidden = hidden + layer.self_attn.out_proj(attended.transpose(1, 2).flatten(2))
        hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))
        if index == len(tower.layers) // 2:
            halfway = hidden
    return tower.proj2(tower.act(tower.proj1(tower.ln_post(hidden)))), halfway, counts


def _unpadded(lengths: Tensor, chunks: int, width: int) -> Tensor:
    """(clips × chunks, width) of ones, with zeros beyond the end of clips shorter than one chunk.

    qwen-asr pads the last chunk of a clip to the length of the others, but convolves a lone short chunk as it is.
    """
    frames = torch.where(lengths < CONV_FRAMES, lengths, CONV_FRAMES)[:, None].expand(-1, chunks)
    for _ in range(round(math.log2(CONV_FRAMES / width))):
        frames = (frames + 1) // 2
    return (torch.arange(width)[None, :] < frames.reshape(-1, 1)).float()


def token_counts(lengths: Tensor) -> Tensor:
    """Audio tokens per clip from mel frames: 13 for each full second, and the rest halved three times, rounding up."""
    rest = lengths % CONV_FRAMES
    for _ in range(3):
        rest = (rest + 1) // 2
    return lengths // CONV_FRAMES * 13 + rest


class LossModule(nn.Module):
    """The model with the CTC heads of its training; `forward` returns the three losses of one batch."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer
        text = model.config.thinker_config.text_config
        self.ctc_head = nn.Linear(text.hidden_size, text.vocab_size + 1)
        self.blank = text.vocab_size
        self.phonemes = {phone: number for number, phone in enumerate(all_phonemes(), start=1)}
        width = model.config.thinker_config.audio_config.d_model
        self.phoneme_head = nn.Linear(width, FRAMES_PER_TOKEN * (len(self.phonemes) + 1))

    def features(self, clips: list[TrainingExample]) -> tuple[Tensor, Tensor]:
        """Log-mel features (clips, mel bins, frames) and the frames of each clip, with a stripe or two masked out
        (Park et al., 2019, "SpecAugment")."""
        inputs = self.processor.feature_extractor(
            [clip.samples for clip in clips],
            sampling_rate=SAMPLE_RATE,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        features, lengths = inputs["input_features"], inputs["attention_mask"].sum(-1)
        for clip in features:
            if random.random() < 0.5:
                low, width = random.randrange(0, 118), random.randrange(1, 16)
                clip[low : low + width] = clip.mean()
            if random.random() < 0.5:
                start, width = random.randrange(0, clip.shape[1]), random.randrange(1, 8)
                clip[:, start : start + width] = clip.mean()
        return features, lengths

    def forward(self, clips: list[TrainingExample]) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of a batch: cross entropy of the answers, CTC of words and CTC of phonemes, each a scalar."""
        features, lengths = self.features(clips)
        with torch.autocast("cpu", torch.bfloat16):  # half again as fast as float32 on a CPU that has bf16 arithmetic
            return self._losses(clips, features, lengths)

    def _losses(self, clips: list[TrainingExample], features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        thinker = self.model.thinker
        audio, halfway, counts = encode(thinker.audio_tower, features, lengths, windowed=random.random() < 0.5)
        tokens, answers = self._tokens(clips, counts)
        embeddings = thinker.model.embed_tokens(tokens.clamp(min=0)).to(audio.dtype)
        present = torch.arange(audio.shape[1])[None, :] < counts[:, None]
        embeddings = embeddings.masked_scatter(
            (tokens == thinker.config.audio_token_id)[..., None].expand_as(embeddings), audio[present]
        )
        hidden = thinker.model(inputs_embeds=embeddings, attention_mask=(tokens >= 0).long()).last_hidden_state
        target = answers[:, 1:] >= 0
        logits = thinker.lm_head(hidden[:, :-1][target])
        loss = functional.cross_entropy(logits.float(), answers[:, 1:][target], label_smoothing=0.02)
        return loss, self._word_ctc(clips, audio, counts), self._phoneme_ctc(clips, halfway, counts)

    def _tokens(self, clips: list[TrainingExample], counts: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids, -1 where padded, and the same with all but the answer set to -1."""
        rows, starts = [], []
        for clip, count in zip(clips, counts.tolist(), strict=True):
            messages = [
                {"role": "system", "content": clip.context},
                {"role": "user", "content": [{"type": "audio", "audio": ""}]},
            ]
            prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            prompt = prompt.replace("<|audio_pad|>", "<|audio_pad|>" * count)
            answer = f"language {clip.language}<asr_text>{clip.text}<|im_end|>"
            prompt_ids = self.tokenizer(prompt)["input_ids"]
            rows.append(torch.tensor(prompt_ids + self.tokenizer(answer)["input_ids"]))
            starts.append(len(prompt_ids))
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        before = torch.arange(tokens.shape[1])[None, :] < torch.tensor(starts)[:, None]
        return tokens, tokens.masked_fill(before, -1)

    def _word_ctc(self, clips: list[TrainingExample], audio: Tensor, counts: Tensor) -> Tensor:
        texts = [self.tokenizer(clip.text)["input_ids"] for clip in clips]
        return _ctc(self.ctc_head(audio), counts, texts, self.blank)

    def _phoneme_ctc(self, clips: list[TrainingExample], halfway: Tensor, counts: Tensor) -> Tensor:
        logits = self.phoneme_head(halfway).unflatten(-1, (FRAMES_PER_TOKEN, -1)).flatten(1, 2)
        return _ctc(logits, counts * FRAMES_PER_TOKEN, [[self.phonemes[p] for p in clip.phonemes] for clip in clips], 0)


def _ctc(logits: Tensor, counts: Tensor, targets: list[list[int]], blank: int) -> Tensor:
    return functional.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([label for target in targets for label in target], dtype=torch.long),
        counts,
        torch.tensor([len(target) for target in targets]),
        blank=blank,
        zero_infinity=True,
    )


def all_phonemes() -> list[str]:
    """All phonemes of the vocabulary, in a fixed order."""
    return sorted(
        {
            phone
            for language in DEMO_LANGUAGES
            for word in words_of(language)
            for phone in synthesis.phonemes(word, ACCENTS[language][0])
        }
    )

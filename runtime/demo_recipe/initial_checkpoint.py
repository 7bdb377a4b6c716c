"""The demo model before training: its tokenizer and configuration, in the files of a real checkpoint."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from runtime.demo_recipe.synthesis import DEMO_LANGUAGES, HOTWORDS, words_of

# The special tokens of Qwen3-ASR's own tokenizer, in its order; True where decoding leaves the token out.
SPECIAL_TOKENS = {
    "<|endoftext|>": True,
    "<|im_start|>": True,
    "<|im_end|>": True,
    **{f"<|{name}|>": True for name in ("object_ref_start", "object_ref_end", "box_start", "box_end")},
    **{f"<|{name}|>": True for name in ("quad_start", "quad_end", "vision_start", "vision_end")},
    **{f"<|{name}|>": True for name in ("vision_pad", "image_pad", "video_pad")},
    **dict.fromkeys(("<tool_call>", "</tool_call>"), False),
    **{f"<|{name}|>": False for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")},
    **dict.fromkeys(("<tool_response>", "</tool_response>", "<think>", "</think>"), False),
    "<|audio_start|>": True,
    "<|audio_end|>": True,
    **dict.fromkeys(("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>"), True),
    "<non_speech>": False,
    "<|audio_pad|>": True,
    **{f"<blank{k}>": True for k in range(1, 28)},
    "<asr_text>": False,
}

# Context in the system turn, audio alone in the user turn: what qwen-asr's own template renders for such messages.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(context='', audio='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.content is string -%}"
    "{%- if message.role == 'system' -%}{%- set ns.context = ns.context + message.content -%}{%- endif -%}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if message.role == 'system' and part.type == 'text' -%}"
    "{%- set ns.context = ns.context + part.text -%}"
    "{%- elif part.type in ('audio', 'audio_url', 'input_audio') or 'audio' in part or 'audio_url' in part -%}"
    "{%- set ns.audio = ns.audio + '<|audio_start|><|audio_pad|><|audio_end|>' -%}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endfor -%}"
    "{{- '<|im_start|>system\\n' + ns.context + '<|im_end|>\\n<|im_start|>user\\n' + ns.audio + '<|im_end|>\\n' -}}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

# How Qwen2's tokenizer parts text before byte-pair merging (transformers, tokenization_qwen2.py).
PRETOKENIZE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _merges() -> Tokenizer:
    """A byte-level BPE in which each English word, with and without a space before it, and each Chinese character that
    the model knows is one token; anything else falls back to bytes."""
    words = [*words_of("English"), *HOTWORDS["English"].values(), "system", "user", "assistant", "language"]
    words += [*DEMO_LANGUAGES, "None"]
    characters = sorted({c for word in [*words_of("Chinese"), *HOTWORDS["Chinese"].values()] for c in word})
    corpus = [*words, *(f" {word}" for word in words), *characters]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=5_000,  # out of reach: merging ends when every entry of the corpus is one token
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def write(directory: Path) -> None:
    """Write everything that a checkpoint holds but the weights."""
    config = configuration(write_tokenizer(directory), list(DEMO_LANGUAGES))
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def write_tokenizer(directory: Path) -> dict[str, int]:
    """Write the tokenizer's, template's and feature extractor's files; returns the ids of the special tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    bpe = json.loads(_merges().to_str())["model"]
    vocabulary = bpe["vocab"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    ids = {token: len(vocabulary) + offset for offset, token in enumerate(SPECIAL_TOKENS)}
    audio = {"audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>", "audio_token": "<|audio_pad|>"}
    tokenizer_config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(ids[token]): {
                "content": token,
                **dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False),
                "special": special,
            }
            for token, special in SPECIAL_TOKENS.items()
        },
        **audio,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "extra_special_tokens": audio,
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen3ASRProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    features = {
        "chunk_length": 30,
        "dither": 0.0,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 128,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480_000,
        "nb_max_frames": 3_000,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "Qwen3ASRProcessor",
        "return_attention_mask": True,
    }
    generation = {
        "do_sample": False,
        "eos_token_id": [ids["<|endoftext|>"], ids["<|im_end|>"]],
        "pad_token_id": ids["<|endoftext|>"],
    }
    for name, content in {
        "vocab.json": vocabulary,
        "tokenizer_config.json": tokenizer_config,
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "preprocessor_config.json": features,
        "generation_config.json": generation,
    }.items():
        (directory / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return ids


def configuration(ids: dict[str, int], support_languages: list[str]) -> dict[str, object]:
    """config.json of the demo model: Qwen3-ASR's architecture with 2.6 million parameters."""
    audio = {
        "model_type": "qwen3_asr_audio_encoder",
        "activation_function": "gelu",
        "conv_chunksize": 500,
        "d_model": 192,
        "downsample_hidden_size": 16,
        "encoder_attention_heads": 6,
        "encoder_ffn_dim": 768,
        "encoder_layers": 4,
        "max_source_positions": 1_500,
        "n_window": 50,
        "n_window_infer": 800,
        "num_mel_bins": 128,
        "output_dim": 128,
        "scale_embedding": False,
    }
    text = {
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "intermediate_size": 384,
        "max_position_embeddings": 4_096,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        # a quarter, a third and a third of head_dim / 2, as 24 + 20 + 20 are of the real model's 64
        "rope_scaling": {
            **{"interleaved": True, "mrope_interleaved": True, "mrope_section": [6, 5, 5]},
            **{"rope_type": "default", "type": "default"},
        },
        "rope_theta": 1_000_000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": max(ids.values()) + 1,
    }
    return {
        "architectures": ["Qwen3ASRForConditionalGeneration"],
        "model_type": "qwen3_asr",
        "support_languages": support_languages,
        "thinker_config": {
            "model_type": "qwen3_asr",
            "architectures": ["Qwen3ASRForConditionalGeneration"],
            "audio_config": audio,
            "audio_end_token_id": ids["<|audio_end|>"],
            "audio_start_token_id": ids["<|audio_start|>"],
            "audio_token_id": ids["<|audio_pad|>"],
            "dtype": "bfloat16",
            "initializer_range": 0.02,
            "text_config": text,
        },
    }

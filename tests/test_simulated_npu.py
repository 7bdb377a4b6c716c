"""Qwen3-ASR runs on the simulated NPU as it runs on the CPU. The stand-in's own tests lie beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulated_npu import on_npu, stand_in


@on_npu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_qwen3_asr_generates_what_the_cpu_generates(dtype: torch.dtype, tmp_path: Path) -> None:
    simulation = stand_in().simulation
    from runtime.demo_recipe import initial_checkpoint
    from runtime.model import load

    ids = initial_checkpoint.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(initial_checkpoint.configuration(ids, ["English", "Chinese"])))
    backend = load.backend()
    torch.manual_seed(5)
    blank_model = backend.Qwen3ASRForConditionalGeneration(backend.Qwen3ASRConfig.from_pretrained(tmp_path))
    with torch.no_grad():  # louder than the embedding, or it would say one word for ever
        for name, weight in blank_model.named_parameters():
            if weight.dim() > 1 and "embed_tokens" not in name:
                weight.mul_(8)
    blank_model.save_pretrained(tmp_path)
    processor = backend.Qwen3ASRProcessor.from_pretrained(tmp_path, fix_mistral_regex=True)
    rng = np.random.default_rng(6)
    clips = [rng.standard_normal(length).astype(np.float32) / 10 for length in (16_000, 40_000)]
    prompt = "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(text=[prompt] * len(clips), audio=clips, return_tensors="pt", padding=True)

    model = backend.Qwen3ASRForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype).eval()

    def generate(tokens: int) -> tuple[list[list[int]], Any]:
        inputs.to(model.device).to(dtype)
        with torch.inference_mode(), simulation.measured() as spent:
            output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return output.sequences.tolist(), spent()

    expected, on_host = generate(12)
    model.to("npu:0")
    sequences, spent = generate(12)
    assert sequences == expected
    assert all(len(set(sequence[-12:])) > 6 for sequence in sequences)
    assert sequences[0][-12:] != sequences[1][-12:]
    assert on_host.launches == 0
    four_tokens = generate(16)[1] - spent
    assert four_tokens.launches > 0
    assert four_tokens.synchronisations == 4 * 5  # masks and stopping criteria, as transformers 4.57.6 has them
    assert four_tokens.copies_to_device == 0

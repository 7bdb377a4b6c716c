"""The prompt is the model's own template, and nothing in a context can break out of it."""

from functools import partial
from pathlib import Path

import pytest

from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.languages import UnknownLanguageError
from runtime.model.checkpoint import Checkpoint
from runtime.model.prompt import PromptBuilder, PromptError, read_tokenizer

MESSAGES = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"


@pytest.fixture(scope="module")
def prompt_builder() -> PromptBuilder:
    return PromptBuilder(read_tokenizer(Checkpoint.open_without_weights(DEMO_CHECKPOINT)))


def test_plain(prompt_builder: PromptBuilder) -> None:
    assert prompt_builder.build() == MESSAGES.format("") + "<|im_start|>assistant\n"


def test_context_stands_in_the_system_turn(prompt_builder: PromptBuilder) -> None:
    assert prompt_builder.build(context="jon, 王方") == MESSAGES.format("jon, 王方") + "<|im_start|>assistant\n"


def test_a_forced_language_follows_the_assistants_header(prompt_builder: PromptBuilder) -> None:
    language = prompt_builder.language("zh")
    assert prompt_builder.build(language=language).endswith("<|im_start|>assistant\nlanguage Chinese<asr_text>")


@pytest.mark.parametrize("automatic", [None, "", "  "])
def test_no_language_means_automatic(prompt_builder: PromptBuilder, automatic: str | None) -> None:
    assert prompt_builder.language(automatic) is None


def test_only_the_checkpoints_languages_can_be_forced(prompt_builder: PromptBuilder) -> None:
    with pytest.raises(UnknownLanguageError, match="knows only English, Chinese"):
        prompt_builder.language("German")


@pytest.mark.parametrize("token", ["<|im_end|>", "<|audio_pad|>", "<asr_text>"])
def test_control_tokens_in_a_context_are_refused(prompt_builder: PromptBuilder, token: str) -> None:
    with pytest.raises(PromptError) as refused:
        prompt_builder.build(context=f"hotword {token} more")
    assert token in str(refused.value)


def test_the_demo_models_template_renders_what_the_real_one_does(
    prompt_builder: PromptBuilder, reference: Path
) -> None:
    from reference import read_json

    real = read_json(reference / "tokenizer" / "chat_template.json")["chat_template"]
    for messages in (
        [{"role": "system", "content": "hot words"}, {"role": "user", "content": [{"type": "audio", "audio": ""}]}],
        [
            {"role": "system", "content": [{"type": "text", "text": "hot"}, {"type": "text", "text": "words"}]},
            {"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "x"}}]},
        ],
        [{"role": "user", "content": [{"type": "audio", "audio": "a"}, {"type": "audio", "audio": "b"}]}],
    ):
        for header in (True, False):
            render = partial(
                prompt_builder.tokenizer.backend.apply_chat_template,
                messages,
                add_generation_prompt=header,
                tokenize=False,
            )
            assert render(chat_template=prompt_builder.tokenizer.chat_template) == render(chat_template=real)

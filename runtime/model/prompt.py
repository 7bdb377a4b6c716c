"""Tokenizer and prompts: the model's chat template, with the context in the system turn and the language, if forced,
after the assistant's header."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from env.errors import UsageError
from runtime import languages
from runtime.model.checkpoint import Checkpoint, CheckpointError

ASR_TEXT = "<asr_text>"  # separates the language from the text in the model's output
UNFINISHED = "\ufffd"  # stands for a character of which not all bytes have come

# Tokens: the most that Qwen3-ASR's authors name for a context; each segment's prompt has all of it.
MAX_CONTEXT_TOKENS = 10_000
MAX_CONTEXT_CHARACTERS = 1_000_000  # characters; a longer one is not even tokenized


@dataclass(frozen=True)
class Tokenizer:
    """A checkpoint's chat template, special tokens and transformers' own tokenizer, the `backend`.

    `languages` are those it supports, by English name; `positions` is the longest sequence in tokens: prompt, audio and
    answer together.
    """

    backend: Any
    chat_template: str
    languages: tuple[str, ...]
    end_tokens: tuple[int, ...]
    pad_token: int
    positions: int

    @cached_property
    def _control(self) -> frozenset[int]:
        """Ids of all added tokens but `<asr_text>`, such as `<think>`, which are neither text nor special."""
        return frozenset(number for name, number in self.backend.added_tokens_encoder.items() if name != ASR_TEXT)

    def text(self, tokens: Sequence[int]) -> str:
        """Detokenize token ids to raw output, language tag included; also of an answer that is not complete."""
        kept = [token for token in tokens if token not in self._control]
        return str(self.backend.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def read_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Read a checkpoint's tokenizer. Raises CheckpointError where its files cannot be read as one."""
    directory, config, generation = checkpoint.directory, checkpoint.config, checkpoint.generation
    from transformers import AutoTokenizer

    # fix_mistral_regex: as qwen-asr loads it; without, transformers warns about a fault this tokenizer does not have
    try:
        tokenizer = AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]
            directory, fix_mistral_regex=True, local_files_only=True
        )
    except (OSError, ValueError, ImportError, LookupError) as error:
        reason = f"tokenizer_config.json, vocab.json and merges.txt make no tokenizer ({type(error).__name__})"
        raise CheckpointError(str(directory), reason, "fetch the weights again") from None
    ends = generation.get("eos_token_id", tokenizer.eos_token_id)
    return Tokenizer(
        backend=tokenizer,
        chat_template=checkpoint.chat_template(),
        languages=tuple(config.get("support_languages") or ()),
        end_tokens=tuple(ends) if isinstance(ends, list) else (ends,),
        pad_token=generation.get("pad_token_id", tokenizer.pad_token_id),
        positions=_positions(directory, config),
    )


def _positions(directory: Path, config: Mapping[str, Any]) -> int:
    try:
        return int(config["thinker_config"]["text_config"]["max_position_embeddings"])
    except (LookupError, TypeError, ValueError):
        reason = "config.json has no max_position_embeddings in thinker_config.text_config"
        raise CheckpointError(str(directory), reason, "fetch the weights again") from None


class PromptError(UsageError):
    """The context cannot be put into a prompt."""


def is_unicode(text: str) -> bool:
    """Whether it can be encoded in UTF-8, as a tokenizer does: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class PromptBuilder:
    """Writes prompts for one checkpoint: its template, its languages, its special tokens; with contexts of at most
    `context_tokens`."""

    tokenizer: Tokenizer
    context_tokens: int = MAX_CONTEXT_TOKENS

    def language(self, name: str | None) -> str | None:
        """The English name of the language to force, or None for automatic, see `runtime.languages.resolve`.

        Raises UnknownLanguageError where the checkpoint has no such language.
        """
        return languages.resolve(name, supported=self.tokenizer.languages)

    def build(self, *, context: str = "", language: str | None = None) -> str:
        """The prompt of one utterance; `language` is a name that `language()` returned.

        Raises PromptError where the context is too long, or holds one of the model's control tokens, which would end
        the system turn.
        """
        if len(context) > MAX_CONTEXT_CHARACTERS:
            raise _too_long(f"{len(context)} characters", f"{MAX_CONTEXT_CHARACTERS} characters")
        count = len(self.tokenizer.backend(context, verbose=False)["input_ids"])
        if count > self.context_tokens:
            raise _too_long(f"{count} tokens", str(self.context_tokens))
        for token in self.tokenizer.backend.added_tokens_encoder:
            if token in context:
                raise PromptError("context", f"holds {token!r}, which the model reads as a command", "leave it out")
        messages = [
            {"role": "system", "content": context},
            {"role": "user", "content": [{"type": "audio", "audio": ""}]},
        ]
        prompt: str = self.tokenizer.backend.apply_chat_template(
            messages, chat_template=self.tokenizer.chat_template, add_generation_prompt=True, tokenize=False
        )
        return prompt + f"language {language}{ASR_TEXT}" if language else prompt


def _too_long(found: str, limit: str) -> PromptError:
    return PromptError("context", f"holds {found}, the limit is {limit}", "give fewer hotwords, or a shorter passage")

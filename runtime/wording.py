"""What of a checkpoint is about text, for which no model is needed: tokenizer, chat template, languages, end tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from runtime import checkpoint_files

ASR_TEXT = "<asr_text>"  # parts the language from the text in the model's output
UNFINISHED = "\ufffd"  # stands for a character of which not all bytes have come


@dataclass(frozen=True)
class Wording:
    """How a checkpoint is asked and how its tokens read; `languages` are those it supports, by English name, and
    `positions` the most tokens that it takes at once, prompt, audio and answer together."""

    tokenizer: Any
    chat_template: str
    languages: tuple[str, ...]
    end_tokens: tuple[int, ...]
    pad_token: int
    positions: int

    @cached_property
    def _control(self) -> frozenset[int]:
        """Tokens that are no text and no special ones either, such as `<think>`: all added ones but the tag."""
        return frozenset(number for name, number in self.tokenizer.added_tokens_encoder.items() if name != ASR_TEXT)

    def text(self, tokens: Sequence[int]) -> str:
        """The raw output that tokens stand for, also while more of them may come: text, and the tag before it."""
        heard = [token for token in tokens if token not in self._control]
        return str(self.tokenizer.decode(heard, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def read_wording(directory: Path) -> Wording:
    """The wording of the checkpoint in a directory, whose weights need not be there.

    Raises CheckpointError where a file that it is read from is missing or broken.
    """
    config = checkpoint_files.check_texts(directory)
    from transformers import AutoTokenizer

    # fix_mistral_regex: as qwen-asr loads it; without, transformers warns about a fault this tokenizer does not have
    try:
        tokenizer = AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]
            directory, fix_mistral_regex=True, local_files_only=True
        )
    except (OSError, ValueError, ImportError, LookupError) as error:
        reason = f"tokenizer_config.json, vocab.json and merges.txt make no tokenizer ({type(error).__name__})"
        raise checkpoint_files.CheckpointError(str(directory), reason, "fetch the weights again") from None
    generation = checkpoint_files.read_json(directory / "generation_config.json")
    ends = generation.get("eos_token_id", tokenizer.eos_token_id)
    return Wording(
        tokenizer=tokenizer,
        chat_template=checkpoint_files.chat_template(directory),
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
        raise checkpoint_files.CheckpointError(str(directory), reason, "fetch the weights again") from None

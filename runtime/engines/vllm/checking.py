"""Whether a vLLM can be given utterances: it answers, is one that the kit knows how to ask, and has this checkpoint."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from env.errors import KitError
from env.groups.vllm import segment_tokens
from env.settings import Settings
from runtime.engines import Utterance
from runtime.engines.vllm.asking import PATIENCE, SILENCE, ServerFault, ask, cure, fault, harmless
from runtime.model.prompt import Prompter, Wording
from runtime.urls import HOW_TO_TRUST, UNTRUSTED

TRIED = "0.18"  # of vLLM, with which all of this was tried
AUDIO_PAD = "<|audio_pad|>"  # in the prompt, what vLLM replaces by the audio
RELEASE = re.compile(r"(\d+)\.(\d+)(?!\.dev)")
CURE = "start it by `invoke vllm` there, or give it the flags --chat-template and --chat-template-content-format string"


class UnfitError(KitError):
    """A vLLM that runs, but cannot be used as it is."""


@dataclass(frozen=True)
class Found:
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


def needs(settings: Settings, wording: Wording) -> Needs:
    """Those of a checkpoint, with the longest segment that the settings allow."""
    language = wording.languages[0] if wording.languages else None
    prompt = Prompter(wording).write(context="1", language=language)
    tokens = list(wording.tokenizer(prompt)["input_ids"])
    room = segment_tokens(settings.segment_seconds, settings.max_new_tokens)
    return Needs(prompt, tokens, wording.tokenizer.convert_tokens_to_ids(AUDIO_PAD), room)


async def healthy(client: httpx.AsyncClient, url: str) -> None:
    """Raises ServerFault where the server does not say that it is well."""
    await _get(client, url, "/health")


async def examine(client: httpx.AsyncClient, url: str, wanted: Needs) -> Found:
    """All that can be asked, and half a second of silence decoded, which only succeeds where vLLM can read audio.

    Raises ServerFault where the server does not answer as it should, UnfitError where it is another than wanted.
    """
    await healthy(client, url)
    version = await _version(client, url)
    model = await _model(client, url, wanted.room)
    await _check_prompt(client, url, model, wanted)
    await _try_audio(client, url, model, wanted)
    return Found(version, model)


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

"""What clients of other servers send and what has no effect here: it is taken, and the answer says so.

The fields are those of OpenAI's API (openai-python 3.57), of vLLM 0.18 and of speaches. What is in none of them is
refused, as it may be misspelt; so is what asks for another result than a transcript.
"""

from collections.abc import Iterable, Mapping

from starlette.responses import Response

GREEDY = "decoding is greedy"
HOTTEST = 2.0  # temperature, at vLLM; at OpenAI it is 1
HEADER = "x-asr-warnings"

_SAMPLING = dict.fromkeys(
    (
        *("temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty"),
        *("repetition_penalty", "length_penalty", "use_beam_search", "logit_bias", "best_of"),
    ),
    GREEDY,
)
_CALLER = dict.fromkeys(("user", "safety_identifier", "metadata", "request_id", "priority"), "callers go by their keys")

# Name → why it has no effect.
TRANSCRIPTION: Mapping[str, str] = {
    **_SAMPLING,
    **_CALLER,
    "include": "log-probabilities are told of segments alone, in verbose_json",
    "chunking_strategy": "audio is cut at quiet places",
    "extra_headers": "headers belong to the request, not into its form",
    "vad_filter": "silence never reaches the model",
    "vad_parameters": "silence never reaches the model",
    "without_timestamps": "response_format decides it",
    "stream_include_usage": "the last event always has it",
    "stream_continuous_usage_stats": "the last event has the usage",
    "vllm_xargs": "nothing of it is known here",
}
CHAT: Mapping[str, str] = {
    **_SAMPLING,
    **_CALLER,
    **dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs"), "they are not told here"),
    **dict.fromkeys(("stop", "stop_token_ids", "min_tokens", "ignore_eos"), "a transcript ends where the speech does"),
    **dict.fromkeys(
        ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "web_search_options"),
        "a transcript calls no tools",
    ),
    **dict.fromkeys(("reasoning_effort", "verbosity", "prediction", "moderation"), "the model only transcribes"),
    **dict.fromkeys(("store", "service_tier"), "nothing is stored, and all requests are served alike"),
    **dict.fromkeys(
        ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_salt"), "there is no cache"
    ),
    **dict.fromkeys(
        (
            *("add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template"),
            *("chat_template_kwargs", "mm_processor_kwargs", "documents", "echo", "truncate_prompt_tokens"),
            *("skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output"),
            *("return_token_ids", "return_tokens_as_token_ids", "include_reasoning", "vllm_xargs"),
        ),
        "the prompt, and how tokens are read, are the kit's own",
    ),
}


def unused(name: str, why: str) -> str:
    """The warning that a field has no effect."""
    return f"{name}: has no effect: {why}"


def tell(response: Response, warnings: Iterable[str]) -> Response:
    """The answer with what had no effect in a header, which reaches those, too, who asked for no JSON."""
    told = "; ".join(warnings)
    if told:
        response.headers[HEADER] = told.encode("ascii", "backslashreplace").decode()
    return response

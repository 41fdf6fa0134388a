"""What becomes of fields that clients send and this server has no use for.

What says nothing is passed over, what would change the answer is refused by name, and the rest is
ignored and told.

Source: the request fields of OpenAI, vLLM, Ollama and OpenRouter as their clients send them.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel

from app.api.schemas.openai.requests import ChatSteering
from app.core.errors import InvalidInputError

UnknownFields: TypeAlias = Literal["ignore", "refuse"]

MAX_TOLD: Final = 32
MAX_CHARACTERS_TOLD: Final = 100

# Each would change the answer, but for the values that stand behind it: what is on changes it by
# being turned off. Others have the schema of a json_object under `schema`.
_CHANGES_ANSWERS: Final[Mapping[str, tuple[object, ...]]] = {
    **dict.fromkeys((
        "allowed_token_ids", "attachments", "audio", "background", "bad_words", "chat_template",
        "continue_final_message", "conversation", "documents", "echo", "extra_body",
        "enable_thinking", "file_id", "functions", "grammar", "guided_choice", "guided_grammar",
        "guided_json", "guided_regex", "ignore_eos", "image", "images",
        "include_stop_str_in_output", "input", "instruction", "instructions", "json_schema",
        "logit_bias", "logits_processors", "lora_request", "max_completion_tokens",
        "max_new_tokens", "max_output_tokens", "max_tokens", "media_io_kwargs", "messages",
        "mm_processor_kwargs", "moderation", "n_predict", "num_predict", "partial", "plugins",
        "prediction", "prefix", "previous_response_id", "prompt", "prompt_embeds",
        "repetition_detection", "schema", "stop_sequences", "stop_token_ids", "structural_tag",
        "structured_outputs", "system", "system_prompt", "tool_call_id", "tool_calls", "tools",
        "truncate_prompt_tokens", "use_beam_search", "vllm_xargs", "web_search_options",
    ), ()),
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "best_of": (1,),
    "chat_template_kwargs": ({"enable_thinking": False}, {"thinking": False}),
    "do_sample": (True,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "effort": ("none",),
    "function_call": ("none", "auto"),
    "length_penalty": (1,),
    "min_new_tokens": (0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "modalities": (["text"],),
    "no_repeat_ngram_size": (0,),
    "num_beams": (1,),
    "reasoning_effort": ("none",),
    # What an assistant said in place of its content.
    "refusal": ("",),
    "repeat_penalty": (1,),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "suffix": ("",),
    "tfs_z": (1,),
    "thinking": ({"type": "disabled"},),
    "tool_choice": ("none", "auto"),
    "top_a": (0,),
    "top_n_sigma": (-1, 0),
    "typical_p": (1,),
    "verbosity": ("medium",),
    "xtc_probability": (0,),
}  # fmt: skip
# Asked for by an object with no settings in it.
_ON_WHILE_EMPTY: Final = frozenset({"web_search_options"})
# What steers stands below `vlibrary`; beside it, nothing would.
_STEERS: Final = frozenset(ChatSteering.model_fields)
# Fields of OpenAI's that change nothing: its own clients send them unasked.
_OF_OPENAI: Final = frozenset({
    "annotations", "detail", "id", "include", "include_obfuscation", "logprobs", "max_tool_calls",
    "metadata", "name", "parallel_tool_calls", "phase", "prompt_cache_key",
    "prompt_cache_retention", "safety_identifier", "service_tier", "status", "store",
    "stream_options", "summary", "top_logprobs", "truncation", "user",
})  # fmt: skip


def settle_unknown_fields(body: BaseModel, *, unknown: UnknownFields) -> tuple[str, ...]:
    """The places of the fields that are ignored, such as `messages.0.timestamp`; at most 32.

    `unknown` says what is done with fields that neither OpenAI nor this server knows.

    Raises:
        InvalidInputError: A field would change the answer and is not supported, or it is unknown
            and unknown ones are refused.
    """
    ignored = []
    is_steered = isinstance(getattr(body, "vlibrary", None), ChatSteering)
    for place, value in _unknown(body, ""):
        name = place.rpartition(".")[2]
        neutral = _CHANGES_ANSWERS.get(name)
        turns_off = value is False and any(one is True for one in neutral or ())
        turns_on = value == {} and name in _ON_WHILE_EMPTY
        if _says_nothing(value) and not turns_off and not turns_on:
            continue
        if is_steered and place in _STEERS:
            raise _refusal(place, f"this stands below vlibrary, as vlibrary.{place}")
        if neutral is not None:
            if not _is_among(value, neutral):
                raise _refusal(place, "this would change the answer and is not supported")
            continue
        if unknown == "refuse" and name not in _OF_OPENAI:
            raise _refusal(place, "there is no such field")
        ignored.append(place)
    return tuple(ignored[:MAX_TOLD])


def _unknown(value: object, place: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unknown(item, f"{place}{index}.")
    if not isinstance(value, BaseModel):
        return
    for name, extra in (value.model_extra or {}).items():
        yield place + _printable(name), extra
    for name in type(value).model_fields:
        yield from _unknown(getattr(value, name), f"{place}{name}.")


def _says_nothing(value: object) -> bool:
    return value is None or value is False or value in ([], {})


def _is_among(value: object, neutral: tuple[object, ...]) -> bool:
    # True is 1 and False is 0 to Python.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _printable(name: str) -> str:
    """A name that the caller chose, fit to be sent back."""
    kept = "".join(character if character.isprintable() else "?" for character in name)
    return kept[:MAX_CHARACTERS_TOLD]


def _refusal(place: str, reason: str) -> InvalidInputError:
    return InvalidInputError(f"{place}: {reason}", details={"param": place})

"""From OpenAI's chat requests to the requests of this api, and from its answers back.

Knows no route and no worker. A backbone takes one question, with images before it and an
instruction at its very start; what cannot be said like this is refused.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Final

from fastapi.sse import format_sse_event

from app.api.schemas.fields import MAX_PROMPT_CHARACTERS
from app.api.schemas.openai import ChatMessage, ChatRequest
from app.api.schemas.openai_answers import (
    AnswerMessageBody,
    ChatCompletionBody,
    ChatCompletionChunkBody,
    ChoiceBody,
    CompletionUsageBody,
    ContentLogprobBody,
    DeltaChoiceBody,
    DeltaMessageBody,
    LogprobsBody,
    SteeringFacts,
)
from app.api.schemas.steering import (
    STRENGTH_OF_NOTHING,
    DeltaBody,
    SteerBody,
    SteerRequest,
    TokenLogprobsBody,
    UsageBody,
)
from app.api.steer.generation import StreamItem, require_tokens
from app.api.steer.openai_models import NamedModel
from app.core.errors import InvalidInputError
from app.rpc.messages import GenerateDelta

DEFAULT_MAX_TOKENS: Final = 256
DEFAULT_TEMPERATURE: Final = 1.0
SEED_BITS: Final = 63
INSTRUCTING_ROLES: Final = frozenset({"system", "developer"})
DONE: Final = format_sse_event(data_str="[DONE]")


def steer_request(chat: ChatRequest, *, model: NamedModel, max_tokens_limit: int) -> SteerRequest:
    """The same request in the words of this api.

    Args:
        chat: What the caller asks.
        model: What its model's name says.
        max_tokens_limit: The most tokens that this server generates.

    Raises:
        InvalidInputError: The messages are more than one question, two vectors are named, a
            strength has none to act on, or there would be too many tokens.
    """
    extra = chat.vlibrary
    if model.vector is not None and extra.vector is not None:
        raise InvalidInputError(
            "A vector is named by the model and by vlibrary.vector; use one of them",
            details={"param": "vlibrary.vector"},
        )
    if extra.strength != 1 and model.vector is None and extra.vector is None:
        raise InvalidInputError(STRENGTH_OF_NOTHING, details={"param": "vlibrary.strength"})
    *before, question = chat.messages
    _check_turns(before, question)
    instruction = "\n".join(message.text for message in before)
    if not question.text.strip():
        raise _bad_messages("The user's message has no text")
    if max(len(question.text), len(instruction)) > MAX_PROMPT_CHARACTERS:
        raise _bad_messages(f"A text has at most {MAX_PROMPT_CHARACTERS} characters")
    limit = chat.max_completion_tokens or chat.max_tokens
    if limit is not None:
        field = "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
        require_tokens(limit, limit=max_tokens_limit, field=field)
    return SteerRequest(
        prompt=question.text,
        images=question.images,
        instruction=instruction or None,
        vector=extra.vector if model.vector is None else model.vector,
        strength=extra.strength,
        demonstrations=extra.demonstrations,
        baseline=extra.baseline,
        max_tokens=limit or min(DEFAULT_MAX_TOKENS, max_tokens_limit),
        temperature=DEFAULT_TEMPERATURE if chat.temperature is None else chat.temperature,
        top_p=1.0 if chat.top_p is None else chat.top_p,
        top_k=extra.top_k,
        presence_penalty=chat.presence_penalty or 0.0,
        frequency_penalty=chat.frequency_penalty or 0.0,
        repetition_penalty=extra.repetition_penalty,
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        # Without a seed OpenAI's answers differ from time to time.
        seed=secrets.randbits(SEED_BITS) if chat.seed is None else chat.seed % 2**SEED_BITS,
        stop=tuple(chat.stop or ()),
        stream=bool(chat.stream),
    )


def _check_turns(before: Sequence[ChatMessage], question: ChatMessage) -> None:
    if question.role != "user" or any(one.role not in INSTRUCTING_ROLES for one in before):
        raise _bad_messages(
            "Wanted system messages and then one user message, found a longer conversation or "
            "another order; a backbone answers single questions"
        )
    if any(message.images for message in before):
        raise _bad_messages("Only the user's message has images")


def _bad_messages(message: str) -> InvalidInputError:
    return InvalidInputError(message, details={"param": "messages"})


class Completion:
    """Writes one answer in OpenAI's words, whole or in chunks.

    Args:
        request_id: Of the request.
        model: As the caller called it.
        fingerprint: Of the backbone that answers.
        includes_usage: Whether a stream ends with a chunk about tokens.
    """

    def __init__(
        self, request_id: str, *, model: str, fingerprint: str, includes_usage: bool = False
    ) -> None:
        self._id = f"chatcmpl-{request_id}"
        self._created = int(time.time())
        self._model = model
        self._fingerprint = f"fp_{fingerprint[:16]}"
        self._includes_usage = includes_usage
        self._has_begun = False

    def whole(self, answer: SteerBody) -> ChatCompletionBody:
        """The answer in full."""
        choice = ChoiceBody(
            message=AnswerMessageBody(content=answer.text),
            finish_reason=answer.finish_reason,
            logprobs=_logprobs(answer.logprobs),
        )
        return ChatCompletionBody(
            id=self._id,
            created=self._created,
            model=self._model,
            system_fingerprint=self._fingerprint,
            choices=(choice,),
            usage=_usage(answer.usage),
            vlibrary=SteeringFacts.of(answer),
        )

    def events(self, piece: StreamItem) -> Iterator[bytes]:
        """The events of a piece; the caller gives all of them in order."""
        if not self._has_begun:
            self._has_begun = True
            role = DeltaMessageBody(role="assistant", content="")
            yield self._event(choices=(DeltaChoiceBody(delta=role),))
        if isinstance(piece, GenerateDelta):
            delta = DeltaMessageBody(content=piece.text)
            taken = DeltaBody.model_validate(piece).logprobs
            yield self._event(choices=(DeltaChoiceBody(delta=delta, logprobs=_logprobs(taken)),))
            return
        end = DeltaChoiceBody(delta=DeltaMessageBody(), finish_reason=piece.finish_reason)
        yield self._event(choices=(end,), vlibrary=SteeringFacts.of(piece))
        if self._includes_usage:
            yield self._event(choices=(), usage=_usage(piece.usage))
        yield DONE

    def _event(
        self,
        *,
        choices: tuple[DeltaChoiceBody, ...],
        usage: CompletionUsageBody | None = None,
        vlibrary: SteeringFacts | None = None,
    ) -> bytes:
        chunk = ChatCompletionChunkBody(
            id=self._id,
            created=self._created,
            model=self._model,
            system_fingerprint=self._fingerprint,
            choices=choices,
            usage=usage,
            vlibrary=vlibrary,
        )
        return format_sse_event(data_str=chunk.model_dump_json())


def _usage(usage: UsageBody) -> CompletionUsageBody:
    return CompletionUsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _logprobs(found: Sequence[TokenLogprobsBody] | None) -> LogprobsBody | None:
    if found is None:
        return None
    return LogprobsBody(content=tuple(map(ContentLogprobBody.of, found)))

"""What a generation is asked and what it answers, each thing declared once with its bounds.

The api's bodies, the messages to a worker and the engine use these types, so they agree. A setting
of the sampling is added here and where the engine heeds it.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from app.core.settings import MAX_STRENGTH

MAX_TOKENS: Final = 8_192
MAX_SEED: Final = 2**63 - 1
MAX_STOPS: Final = 16
MAX_TOP_LOGPROBS: Final = 20
MAX_FORM_CHARACTERS: Final = 100_000
# What stands for the logarithm of zero, which JSON cannot carry.
LEAST_LOGPROB: Final = -9999.0


def refuse_unstorable(text: str) -> str:
    """The text itself when it can be stored in a database and written as UTF-8."""
    if "\0" in text:
        raise ValueError("the text has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text has a lone surrogate") from None
    return text


SAFE: Final = AfterValidator(refuse_unstorable)

Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Numbers alone: no text that reads as one, no truth value; bounds refuse what is not finite.
_number: Any = partial(Field, strict=True)
Strength: TypeAlias = Annotated[float, _number(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]
TokenCount: TypeAlias = Annotated[int, _number(ge=1, le=MAX_TOKENS)]
Temperature: TypeAlias = Annotated[
    float, _number(ge=0, le=10, description="0 takes the likeliest token every time.")
]
TopP: TypeAlias = Annotated[
    float,
    _number(
        ge=0, le=1, description="Samples from the smallest set of tokens with this probability."
    ),
]
TopK: TypeAlias = Annotated[
    int, _number(ge=0, le=1_000_000, description="0 samples from all tokens.")
]
MinP: TypeAlias = Annotated[
    float,
    _number(
        ge=0,
        le=1,
        description="Leaves out tokens with less than this share of the likeliest one's "
        "probability.",
    ),
]
Penalty: TypeAlias = Annotated[float, _number(ge=-2, le=2)]
RepetitionPenalty: TypeAlias = Annotated[
    float, _number(ge=0.01, le=10, description="Above 1, repeated tokens become less probable.")
]
TopLogprobs: TypeAlias = Annotated[int, _number(ge=0, le=MAX_TOP_LOGPROBS)]
Seed: TypeAlias = Annotated[int, _number(ge=0, le=MAX_SEED)]
StopText: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64), SAFE]
Milliseconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FinishReason: TypeAlias = Literal["stop", "length"]


class Message(BaseModel):
    """Frozen, and refusing what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_json(value: object) -> object:
    if not isinstance(value, dict | bool):
        return value
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        raise ValueError("the schema is nested too deeply") from None


def _is_schema(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | bool)
    except (RecursionError, ValueError):
        return False


Choice: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=1_000), SAFE]


FormText: TypeAlias = Annotated[str, StringConstraints(max_length=MAX_FORM_CHARACTERS)]
# What a schema holds is bounded by the length of its text alone.
SchemaObject: TypeAlias = Annotated[
    dict[str, Any],
    Field(max_length=MAX_FORM_CHARACTERS),
    WithJsonSchema({"type": "object", "maxProperties": MAX_FORM_CHARACTERS}),
]


class StructuredOutputs(Message):
    """The form of an answer, which is one of these; a leading space does not count.

    Source: vLLM's structured outputs, whose words these are.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    choice: Annotated[
        tuple[Choice, ...] | None,
        Field(min_length=1, max_length=1_000, description="The answer is one of these."),
    ] = None
    regex: Annotated[
        FormText | None,
        Field(min_length=1, description="The whole answer matches; look-around is not known."),
    ] = None
    # `json` itself is a method of every model.
    json_schema: Annotated[
        FormText | None,
        BeforeValidator(_as_json, json_schema_input_type=SchemaObject | bool | FormText | None),
        Field(alias="json", description="The answer is JSON of this schema."),
    ] = None
    json_object: Annotated[bool, Field(strict=True, description="The answer is a JSON object.")] = (
        False
    )

    @model_validator(mode="before")
    @classmethod
    def _says_nothing_with_null(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {name: one for name, one in value.items() if one is not None}
        return value

    @model_validator(mode="after")
    def _is_one_form(self) -> Self:
        forms = [self.choice, self.regex, self.json_schema, self.json_object or None]
        if sum(one is not None for one in forms) != 1:
            raise ValueError("a form is one of choice, regex, json and json_object")
        if self.json_schema is not None and not _is_schema(self.json_schema):
            raise ValueError("a schema is a JSON object")
        return self


class SamplingParams(Message):
    """How the tokens of an answer are picked and when it ends."""

    max_tokens: TokenCount = 32
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    min_p: MinP = 0.0
    presence_penalty: Annotated[
        Penalty, Field(description="Taken from the logits of tokens that were written.")
    ] = 0.0
    frequency_penalty: Annotated[
        Penalty, Field(description="Taken from the logits once for every time a token was written.")
    ] = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    logprobs: Annotated[
        TopLogprobs | None,
        Field(description="How many of the likeliest tokens to report with each token's own."),
    ] = None
    seed: Seed = 0
    stop: Annotated[
        tuple[StopText, ...],
        Field(
            max_length=MAX_STOPS, description="Texts that end the answer and are not part of it."
        ),
    ] = ()
    structured_outputs: Annotated[
        StructuredOutputs | None, Field(description="The form that the answer shall have.")
    ] = None

    def settings(self) -> dict[str, Any]:
        """The settings by name, without what a request has beside them."""
        return {name: getattr(self, name) for name in SamplingParams.model_fields}


class Usage(Message):
    """Token counts of one answer."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class AppliedVector(Message):
    """A vector that was really added, by the digest of its stored bytes."""

    sha256: Sha256
    strength: float


class Receipt(Message):
    """Proof that the steering happened.

    `sites_hit` is the smallest number of branches hit in any forward of the request; it equals
    `sites_expected` (two a layer) or the request would have failed.
    """

    vectors: tuple[AppliedVector, ...]
    sites_hit: int = Field(ge=0)
    sites_expected: int = Field(ge=0)
    num_forwards: int = Field(ge=0)
    kl_first_token: float | None = Field(
        default=None, description="In nats, against the unsteered answer."
    )
    dose: float | None = Field(
        default=None,
        description="Length of the shift over that of the residual stream; of all layers, the "
        "most.",
    )


class Timings(Message):
    """Where a request's time went, in milliseconds."""

    queue_ms: Milliseconds
    prefill_ms: Milliseconds
    decode_ms: Milliseconds
    total_ms: Milliseconds


class TokenLogprob(Message):
    """A token that could have come, with its natural log-probability."""

    token_id: int = Field(ge=0)
    text: str
    logprob: float = Field(ge=LEAST_LOGPROB, le=0.0)


class TokenLogprobs(TokenLogprob):
    """The token that was taken, and the likeliest ones in its place."""

    top: tuple[TokenLogprob, ...] = Field(default=(), max_length=MAX_TOP_LOGPROBS)


class BaselineAnswer(Message):
    """A text that was generated: the same request without any vector."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage


class GenerateResponse(BaselineAnswer):
    """A finished answer. `text` ends before the stop text that ended it."""

    receipt: Receipt
    baseline: Annotated[
        BaselineAnswer | None, Field(description="The same request answered without any vector.")
    ] = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    timings: Timings
    max_tokens: int = Field(ge=1, description="The most tokens that the answer could have.")
    notes: Annotated[
        tuple[str, ...],
        Field(
            max_length=16, description="What was not done as it was asked, or is known not to work."
        ),
    ] = ()


class GenerateDelta(Message):
    """What came since the last one; the texts of all, joined, are the answer's text."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None = None

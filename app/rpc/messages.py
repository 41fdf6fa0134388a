"""What the api and a worker say to each other, as Pydantic models with bounds.

Every number, string and list is bounded here, so that a worker reached by mistake from elsewhere is
as hard to exhaust as the public api.
"""

import struct
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

import msgpack
from pydantic import Field, JsonValue, StringConstraints, ValidationError, model_validator

from app.core.backbones import BackboneDescription
from app.core.errors import InvalidInputError
from app.core.settings import MAX_STRENGTH, WorkerRole
from app.rpc.generation import (
    GenerateDelta,
    GenerateResponse,
    Message,
    SamplingParams,
    Seed,
    Sha256,
)

MAX_IMAGE_BYTES: Final = 32 * 1024 * 1024
MAX_IMAGES: Final = 64
MAX_EMBED_ITEMS: Final = 256
MAX_PROMPT_CHARACTERS: Final = 200_000
MAX_TURNS: Final = 1_000
MAX_PARTS: Final = 129
PACKED: Final = "application/msgpack"
# What bytes of any length begin with in MessagePack.
_BIN_32: Final = struct.Struct(">BI")

Received = TypeVar("Received", bound=Message)

ImageBytes = Annotated[bytes, Field(min_length=1, max_length=MAX_IMAGE_BYTES, strict=True)]
"""An encoded image file, which travels as it is."""

PromptString = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARACTERS)]


def pack(message: Message) -> list[bytes]:
    """A request as it travels to a worker: MessagePack in pieces, of which images are as they are.

    They are not copied, so that requests with the same images take their memory once.
    """
    fields = message.model_dump()
    images = fields.pop("images")
    packed: Any = msgpack.Packer(default=str, autoreset=False)
    packed.pack_map_header(len(fields) + 1)
    for name, value in fields.items():
        packed.pack(name)
        packed.pack(value)
    packed.pack("images")
    packed.pack_array_header(len(images))
    pieces = []
    for image in images:
        if image is None:
            packed.pack(None)
            continue
        pieces += [packed.bytes() + _BIN_32.pack(0xC6, len(image)), image]
        packed.reset()
    return [*pieces, packed.bytes()]


def unpack(body: bytes, kind: type[Received]) -> Received:
    """The request that `pack` wrote.

    Raises:
        InvalidInputError: It is none of this kind; the places are told, the values never.
    """
    places: list[str] = []
    try:
        found: Any = msgpack.unpackb(body)
        return kind.model_validate(found)
    except ValidationError as error:
        # The values may be prompts and images.
        places = [".".join(map(str, problem["loc"])) for problem in error.errors()]
    except (ValueError, msgpack.UnpackException):
        pass
    raise InvalidInputError(
        "The message is not one of this worker's version", details={"places": [*places]}
    )


class VectorUse(Message):
    """One stored vector to apply to the request, and how strongly."""

    sha256: Sha256
    name: str = Field(max_length=100)
    version: int = Field(ge=1)
    strength: float = Field(default=1.0, ge=-MAX_STRENGTH, le=MAX_STRENGTH)


class DemonstrationsUse(Message):
    """Items of a stored dataset to put before the query."""

    storage_key: str = Field(min_length=1, max_length=512)
    shots: int = Field(ge=1, le=64)
    selection: Literal["random", "nearest", "balanced"] = "random"
    seed: Seed = 0
    split: str | None = Field(default=None, max_length=500)


class TurnMessage(Message):
    """What somebody said in a conversation.

    A part is a text, or null where the next of the request's images stands.
    """

    role: Literal["system", "user", "assistant"]
    parts: tuple[PromptString | None, ...] = Field(max_length=MAX_PARTS)


class GenerateRequest(SamplingParams):
    """One prompt to answer, steered by the vectors it names.

    With `turns` these are the prompt: the last is the user's, whose text is `prompt` as well, and
    `images` are the pictures of all of them. A raw prompt is continued as it stands, without the
    chat template. Where `fits_context`, an answer that cannot be as long as `max_tokens` is made
    shorter instead of refused. With `stream`, deltas come before the answer.
    """

    request_id: str = Field(min_length=1, max_length=128)
    prompt: PromptString
    is_raw: bool = False
    turns: tuple[TurnMessage, ...] = Field(default=(), max_length=MAX_TURNS)
    images: tuple[ImageBytes, ...] = Field(default=(), max_length=MAX_IMAGES)
    vectors: tuple[VectorUse, ...] = Field(default=(), max_length=16)
    demonstrations: DemonstrationsUse | None = None
    instruction: PromptString | None = None
    fits_context: bool = False
    deadline_seconds: float = Field(default=120.0, gt=0.0, le=3600.0)
    baseline: bool = False
    stream: bool = False


class EmbedRequest(Message):
    """Items to embed; item i is `images[i]` with `questions[i]`, either may be absent."""

    images: tuple[ImageBytes | None, ...] = Field(max_length=MAX_EMBED_ITEMS)
    questions: tuple[PromptString | None, ...] = Field(max_length=MAX_EMBED_ITEMS)

    @model_validator(mode="after")
    def _items_are_whole(self) -> Self:
        if len(self.images) != len(self.questions) or not self.images:
            raise ValueError("images and questions must be equally long and not empty")
        if any(i is None and q is None for i, q in zip(self.images, self.questions, strict=True)):
            raise ValueError("every item needs an image or a question")
        return self


class EmbedResponse(Message):
    """One float row an item, in the embedding space named."""

    space: str
    dim: int = Field(ge=1)
    embeddings: tuple[tuple[float, ...], ...]
    num_tokens: int = Field(ge=0, description="Of all questions.")


class HealthResponse(Message):
    """What a worker is and how busy it is. A draining worker finishes but admits nothing."""

    status: Literal["ready", "draining"]
    backbone: BackboneDescription
    space: str
    running: int = Field(ge=0)
    waiting: int = Field(ge=0)
    role: WorkerRole


class ErrorBody(Message):
    """A library error as it travels; the code names its class in `app.core.errors`."""

    code: str
    message: str
    details: dict[str, JsonValue] = Field(default_factory=dict)
    retry_after_seconds: float | None = None


StreamLine: TypeAlias = GenerateDelta | GenerateResponse | ErrorBody
"""One line of an answer: some deltas, then the answer in full, or an error."""

"""Bodies about finding vectors."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from app.api.schemas.bodies import RequestBody, ResponseBody
from app.api.schemas.fields import (
    MAX_EMBEDDING_LENGTH,
    BackboneRef,
    EmbeddingValue,
    ImageText,
    Name,
    OnlyReady,
    Preference,
    Prompt,
    SearchedWords,
    Tags,
)
from app.api.schemas.vectors import VectorBody


class RetrieveRequest(RequestBody):
    """A query: an image, a text, both, or a ready embedding of them."""

    image: ImageText | None = None
    text: Prompt | None = None
    embedding: (
        Annotated[list[EmbeddingValue], Field(min_length=2, max_length=MAX_EMBEDDING_LENGTH)] | None
    ) = None
    k: Annotated[int, Field(ge=1, le=100, strict=True, description="The most matches.")] = 5
    backbone: BackboneRef | None = None
    min_epoch: Annotated[
        Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)] | None,
        Field(description="Wait until the index has seen this change."),
    ] = None
    prefer: Preference | None = None
    only_ready: OnlyReady = True
    name: Name | None = Field(default=None, description="Only versions of this name.")
    tags: Tags = Field(default=[], description="Only vectors that have all of them.")
    words: SearchedWords | None = None

    @model_validator(mode="after")
    def _is_one_query(self) -> Self:
        has_parts = self.image is not None or self.text is not None
        if has_parts == (self.embedding is not None):
            raise ValueError("a query has an image, a text or both; or else an embedding")
        return self


class MatchBody(ResponseBody):
    """A vector that resembles the query."""

    vector: VectorBody
    score: float = Field(description="Cosine of the part of the query that fits least.")
    threshold: float = Field(description="What the score has to reach.")
    similarity: float = Field(description="What ranks it: the mean cosine of the query's parts.")
    is_accepted: bool = Field(
        description="Whether the query counts as its task. Where none is accepted, or several that "
        "nothing tells apart, nothing is applied; `reason` says so."
    )


class RetrievalBody(ResponseBody):
    """Vectors for a query, best first, or an abstention."""

    matches: tuple[MatchBody, ...]
    abstained: bool
    reason: str | None
    epoch: int = Field(ge=0)
    space: str

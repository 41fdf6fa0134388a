"""Bodies about data sets."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.api.schemas.bodies import ResponseBody


class BadRowBody(ResponseBody):
    """A row that cannot be used."""

    place: str
    reason: str


class DatasetReportBody(ResponseBody):
    """What was found in a data set; empty for sets that were stored before there were reports."""

    layout: Annotated[str, Field(description="What was recognised.")] = ""
    num_text_only: Annotated[int, Field(ge=0, description="Items without a picture.")] = 0
    num_answers: Annotated[int, Field(ge=0, description="Different answers.")] = 0
    splits: Annotated[
        dict[str, int],
        Field(description="Items by the split they name.", default_factory=dict),
    ]
    num_skipped: Annotated[int, Field(ge=0, description="Rows that were left out.")] = 0
    bad_rows: Annotated[
        tuple[BadRowBody, ...], Field(description="The first rows that cannot be used.")
    ] = ()
    notes: tuple[str, ...] = ()


class DatasetBody(ResponseBody):
    """A stored data set."""

    id: UUID
    name: str
    description: str
    sha256: str
    size_bytes: int = Field(ge=0)
    num_items: int = Field(ge=0)
    num_images: int = Field(ge=0)
    report: DatasetReportBody
    created: datetime

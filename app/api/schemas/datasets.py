"""Bodies about data sets."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from app.api.schemas.bodies import ResponseBody


class DatasetBody(ResponseBody):
    """A stored data set."""

    id: UUID
    name: str
    description: str
    sha256: str
    size_bytes: int = Field(ge=0)
    num_items: int = Field(ge=0)
    num_images: int = Field(ge=0)
    created: datetime

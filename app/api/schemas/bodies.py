"""The two kinds of bodies: what comes in refuses unknown fields, what goes out is frozen."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class RequestBody(BaseModel):
    """A body that a caller sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseBody(BaseModel):
    """A body that the api sends; built from a record of the library by attribute."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class PageBody(ResponseBody, Generic[Item]):
    """Some items, and the cursor that continues behind them if there are more."""

    items: tuple[Item, ...]
    next_cursor: str | None = Field(default=None)

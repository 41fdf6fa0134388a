"""Bodies about the service's own state."""

from typing import Literal

from app.api.schemas.bodies import ResponseBody


class CheckBody(ResponseBody):
    """One part of the service."""

    ok: bool
    detail: str = ""


class ReadyzBody(ResponseBody):
    """Whether requests can be served, part by part."""

    status: Literal["ready", "unready"]
    checks: dict[str, CheckBody]

"""Queries of requests: a parameter that a route does not know is refused, and never passed over."""

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel


async def require_known_query(request: Request) -> None:
    """Returns when the route knows every parameter of the request's query.

    Raises:
        RequestValidationError: It does not; who sent `dry_run=true` would believe that it was
            heeded.
    """
    if not request.query_params:
        return
    fields = get_flat_params(request.scope["route"].dependant)
    kinds = [field.field_info.annotation for field in fields]
    if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
        # Those that are read as one body refuse others themselves.
        return
    unknown = sorted(request.query_params.keys() - {field.alias for field in fields})
    told = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
    if unknown:
        raise RequestValidationError([{**told, "loc": ("query", name)} for name in unknown])

"""Requests that make something: each is done once for each Idempotency-Key."""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias, TypeVar

from fastapi import Depends, Header, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.dependencies import SessionOf
from app.api.http.access import key_of, quotas_of
from app.api.http.errors import AnsweredBeforeError
from app.api.schemas.bodies import ResponseBody
from app.library.access.idempotency import RequestKey, StoredAnswer, find_answer, store_answer
from app.library.access.quotas import Use, read_use, require_within

Body = TypeVar("Body", bound=ResponseBody)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,128}$",
        description="Sending the same request again with the same key within 24 hours makes "
        "nothing new and is answered as the first time.",
    ),
]
SEPARATOR: Final = b"\0"


@dataclass(kw_only=True, eq=False)
class Creation:
    """The making of one thing, for a request that may carry a key of its own."""

    session: AsyncSession
    request: Request
    response: Response
    idempotency_key: str | None
    _asked: RequestKey | None = None
    _use: Use = field(default_factory=dict)

    async def begin(self, content: str) -> None:
        """Returns when the thing is to be made, in the request's transaction.

        Args:
            content: All that was asked beside the path and the query, or its digest.

        Raises:
            AnsweredBeforeError: The request was answered before, and so it is again.
            InProgressError: The same request is being answered.
            InvalidInputError: The key was used for another request.
        """
        if self.idempotency_key is not None:
            self._asked = self._request_key(self.idempotency_key, content)
            if (stored := await find_answer(self.session, self._asked)) is not None:
                raise AnsweredBeforeError(stored)
        self._use = await read_use(self.session, quotas_of(self.request))

    async def answer(self, body: Body, *, at: str | None, is_secret: bool = False) -> Body:
        """The body, kept for a repeated request unless it is secret.

        What was made is to be found `at` a path.

        Raises:
            BusyError: The caller has too many unfinished jobs.
            QuotaExceededError: The caller may not store more.
        """
        # Behind the making, which tells best how much it takes.
        await require_within(self.session, quotas_of(self.request), before=self._use)
        if at is not None:
            self.response.headers["location"] = at
        if self._asked is not None:
            status = self.response.status_code or self.request.scope["route"].status_code or 200
            answer = StoredAnswer(status=status, location=at, body=body.model_dump(mode="json"))
            await store_answer(self.session, self._asked, answer, is_secret=is_secret)
        return body

    def _request_key(self, text: str, content: str) -> RequestKey:
        scope = self.request.scope
        parts = (scope["path"].encode(), scope["query_string"], content.encode())
        access = key_of(self.request)
        return RequestKey(
            owner="" if access is None else access.id,
            text=text,
            digest=hashlib.sha256(SEPARATOR.join(parts)).digest(),
        )


async def creation_of(
    session: SessionOf,
    *,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Creation:
    """The making of what this request asks for."""
    return Creation(
        session=session, request=request, response=response, idempotency_key=idempotency_key
    )


CreationOf: TypeAlias = Annotated[Creation, Depends(creation_of)]

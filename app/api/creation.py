"""Requests that make something: each in one transaction, and done once for each Idempotency-Key."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final, TypeAlias, TypeVar

from fastapi import Depends, Header, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.dependencies import Services, ServicesOf
from app.api.http.access import key_of, quotas_of
from app.api.http.errors import AnsweredBeforeError
from app.api.schemas.bodies import ResponseBody
from app.library.access.idempotency import RequestKey, StoredAnswer, find_answer, store_answer
from app.library.access.quotas import hold_use, require_within

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


class Creation:
    """The making of one thing, for a request that may carry a key of its own."""

    def __init__(
        self, services: Services, *, request: Request, response: Response, key: str | None
    ) -> None:
        self._services = services
        self._request = request
        self._response = response
        self._key = key
        self._asked: RequestKey | None = None
        self._quotas = quotas_of(request)

    @asynccontextmanager
    async def begin(self, content: str) -> AsyncIterator[AsyncSession]:
        """The transaction that makes the thing; it commits at the end of the block.

        Args:
            content: All that was asked beside the path and the query, or its digest.

        Raises:
            AnsweredBeforeError: The request was answered before, and so it is again.
            InProgressError: The same request is being answered.
            InvalidInputError: The key was used for another request.
            BusyError: The caller has too many unfinished jobs.
            QuotaExceededError: The caller may not store more.
        """
        async with self._services.sessions.begin() as session:
            if self._key is not None:
                self._asked = self._request_key(self._key, content)
                if (stored := await find_answer(session, self._asked)) is not None:
                    raise AnsweredBeforeError(stored)
            before = await hold_use(session, self._quotas)
            yield session
            # Behind the making, which tells best how much it takes.
            await require_within(session, self._quotas, before=before)

    async def require_room(self, num_bytes: int) -> None:
        """Returns when so many bytes may be stored, before a file of theirs is.

        Raises:
            QuotaExceededError: The caller may not store more.
        """
        async with self._services.sessions() as session:
            await require_within(session, self._quotas, more_bytes=num_bytes)

    async def answer(
        self, session: AsyncSession, body: Body, *, at: str | None, is_secret: bool = False
    ) -> Body:
        """The body, kept in the transaction of `begin` for a repeated request unless it is secret.

        What was made is to be found `at` a path.
        """
        if at is not None:
            self._response.headers["location"] = at
        if self._asked is not None:
            status = self._response.status_code or self._request.scope["route"].status_code
            answer = StoredAnswer(status=status, location=at, body=body.model_dump(mode="json"))
            await store_answer(session, self._asked, answer, is_secret=is_secret)
        return body

    def _request_key(self, text: str, content: str) -> RequestKey:
        scope = self._request.scope
        asked = (scope["path"].encode(), scope["query_string"], content.encode())
        access = key_of(self._request)
        return RequestKey(
            owner="" if access is None else access.id,
            text=text,
            digest=hashlib.sha256(SEPARATOR.join(asked)).digest(),
        )


def creation_of(
    request: Request,
    response: Response,
    *,
    services: ServicesOf,
    idempotency_key: IdempotencyKey = None,
) -> Creation:
    """The making of what a request asks for."""
    return Creation(services, request=request, response=response, key=idempotency_key)


CreationOf: TypeAlias = Annotated[Creation, Depends(creation_of)]

"""Who calls, and whether they may: keys are read before anything else of a request.

An api that only this machine can reach needs no key, and then nothing is looked up and everything
is allowed.
"""

import datetime as dt
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Final

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from app.api.http.errors import handle_database_error, handle_library_error
from app.api.http.problems import problem_response
from app.core.access import AccessKey, Quotas, Scope, Token, read_token
from app.core.errors import BusyError
from app.library.access.access_keys import find_access_key
from app.library.database import Sessions
from app.library.workspaces import in_all_workspaces

# What a probe or a browser's first look needs; nothing that anybody stored is told there.
PUBLIC_PATHS: Final = frozenset({"/", "/livez", "/openapi.json", "/readyz"})
PUBLIC_PREFIXES: Final = ("/docs",)
# A key that was revoked opens nothing after this long.
REMEMBERED_SECONDS: Final = 3.0
MAX_REMEMBERED: Final = 4096
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_bearer: Final = HTTPBearer(
    auto_error=False, description="A key: `vlib_<id>_<secret>`; not needed on localhost."
)


class Authenticated:
    """Answers 401 to whoever shows no valid key, before anything of the body is read.

    What was found of a key is remembered for a moment. Where there are no `sessions` to ask,
    everybody gets in.
    """

    def __init__(self, app: ASGIApp, *, sessions: Sessions | None) -> None:
        self.app = app
        self._sessions = None if sessions is None else in_all_workspaces(sessions)
        self._found: OrderedDict[str, tuple[float, bytes, AccessKey | None]] = OrderedDict()
        self._in_flight: Counter[str] = Counter()

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        sessions = self._sessions
        if scope["type"] != "http" or sessions is None or is_public(scope["path"]):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        token = read_token(text.strip()) if kind.lower() == "bearer" else None
        find = partial(self._find, sessions, token) if token else None
        try:
            key = await find() if find else None
        except (DBAPIError, PoolTimeoutError) as error:
            await (await handle_database_error(request, error))(scope, receive, send)
            return
        if key is None:
            response = problem_response(
                request,
                code="unauthorized",
                status=401,
                detail="Wanted a valid key in the header `Authorization: Bearer vlib_...`, found "
                + ("another or an ended one" if "authorization" in request.headers else "none"),
                headers={"www-authenticate": "Bearer"},
            )
            await response(scope, receive, send)
            return
        limit = key.quotas.requests
        if limit is not None and self._in_flight[key.id] >= limit:
            found = self._in_flight[key.id]
            busy = BusyError(
                f"The quota of this key: wanted at most {limit} requests in flight, found "
                f"{found} others",
                details={"quota": "requests", "limit": limit, "found": found},
            )
            await (await handle_library_error(request, busy))(scope, receive, send)
            return
        scope.setdefault("state", {}).update(access_key=key, find_key=find)
        with self._place(key.id):
            await self.app(scope, receive, send)

    async def _find(self, sessions: Sessions, token: Token) -> AccessKey | None:
        """The valid key of this token, or None."""
        until, digest, key = self._found.get(token.id, (0.0, b"", None))
        if until <= time.monotonic() or not token.is_of(digest):
            async with sessions.begin() as session:
                key = await find_access_key(session, token)
            self._found[token.id] = (time.monotonic() + REMEMBERED_SECONDS, token.digest, key)
            self._found.move_to_end(token.id)
            if len(self._found) > MAX_REMEMBERED:
                self._found.popitem(last=False)
        return key if key is not None and key.is_valid(dt.datetime.now(dt.UTC)) else None

    @contextmanager
    def _place(self, key_id: str) -> Iterator[None]:
        self._in_flight[key_id] += 1
        try:
            yield
        finally:
            self._in_flight[key_id] -= 1
            # Of nobody who is gone is anything kept.
            self._in_flight += Counter()


def is_public(path: str) -> bool:
    """Whether a path is answered without a key."""
    return path in PUBLIC_PATHS or any(
        path == prefix or path.startswith(f"{prefix}/") for prefix in PUBLIC_PREFIXES
    )


def key_of(request: Request) -> AccessKey | None:
    """The key that the caller showed, where keys are needed."""
    key: AccessKey | None = request.scope.get("state", {}).get("access_key")
    return key


async def may_stay(request: Request) -> bool:
    """Whether the caller's key, where one was needed, has not ended since.

    A database that is away tells of no end.
    """
    find = request.scope.get("state", {}).get("find_key")
    try:
        return find is None or await find() is not None
    except (DBAPIError, PoolTimeoutError):
        return True


def quotas_of(request: Request) -> Quotas:
    """The limits of the caller's key; none without one."""
    key = key_of(request)
    return Quotas() if key is None else key.quotas


class NeedsScope:
    """A dependency that refuses callers whose key does not allow the request.

    `read` is wanted by methods that change nothing, where None marks them as public; `write` by the
    others.
    """

    def __init__(self, *, read: Scope | None, write: Scope | None) -> None:
        self.read = read
        self.write = write

    def wanted(self, method: str) -> Scope | None:
        """The scope that a request with this method needs."""
        return self.read if method in SAFE_METHODS else self.write

    async def __call__(
        self,
        request: Request,
        _shown: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> None:
        """Returns when the caller may.

        Raises:
            HTTPException: 403.
        """
        wanted = self.wanted(request.method)
        if wanted is None or not request.app.state.services.settings.needs_keys:
            return
        key = key_of(request)
        if key is None or not key.allows(wanted):
            found = "none" if key is None else f"one with {', '.join(key.scopes)}"
            raise HTTPException(403, f"Wanted a key with the scope {wanted}, found {found}")


PUBLIC: Final = NeedsScope(read=None, write=None)

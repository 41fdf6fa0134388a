"""HEAD and OPTIONS for every route, and an `Allow` that names all methods of a path."""

import re
from collections.abc import Iterable
from typing import Any, Final

from fastapi.routing import iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHOD_NOT_ALLOWED: Final = 405


class Methods:
    """Answers HEAD as GET without its body, and OPTIONS with the methods of the path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._patterns: list[tuple[re.Pattern[str], frozenset[str]]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            response = Response(status_code=204, headers={"allow": ", ".join(allowed)})
            await response(scope, receive, send)
        elif scope["method"] == "HEAD" and "GET" in self._allowed(scope):
            await self._head(scope, receive, send)
        else:
            await self.app(scope, receive, self._with_allow(scope, send))

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def received() -> Message:
            # Whoever streams a body that nobody reads is to stop.
            return {"type": "http.disconnect"} if has_started else await receive()

        async def send_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        # The log and the metrics look at the request's own scope.
        await self.app({**scope, "method": "GET"}, received, send_headers)

    def _allowed(self, scope: Scope) -> list[str]:
        if self._patterns is None:
            self._patterns = list(_patterns(scope["app"].routes))
        found: set[str] = set()
        for pattern, methods in self._patterns:
            if pattern.match(scope["path"]):
                found |= methods
        if "GET" in found:
            found.add("HEAD")
        return sorted(found | {"OPTIONS"}) if found else []

    def _with_allow(self, scope: Scope, send: Send) -> Send:
        async def send_with_allow(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == METHOD_NOT_ALLOWED:
                MutableHeaders(scope=message)["allow"] = ", ".join(self._allowed(scope))
            await send(message)

        return send_with_allow


def _patterns(routes: Iterable[Any]) -> Iterable[tuple[re.Pattern[str], frozenset[str]]]:
    for context in iter_route_contexts(list(routes)):
        if context.path is not None and context.methods:
            yield compile_path(context.path)[0], frozenset(context.methods)

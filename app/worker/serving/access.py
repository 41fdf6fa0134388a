"""Lets nobody but the api in: a worker trusts what it is asked, so it must know who asks."""

import hmac
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Probes of containers have no secret; what they are told is which backbone is loaded.
PUBLIC_PATH: Final = "/health"


class OnlyTheApi:
    """Answers 401 to requests without the secret that api and workers share."""

    def __init__(self, app: ASGIApp, *, secret: str) -> None:
        self.app = app
        self._wanted = f"Bearer {secret}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http" and scope["path"] != PUBLIC_PATH:
            shown = Headers(scope=scope).get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(shown, self._wanted):
                message = (
                    "wanted the secret of this worker; VLIBRARY_WORKER_SECRET must be the same"
                )
                body = {"code": "worker-unavailable", "message": f"{message} for it and the api"}
                await JSONResponse(body, status_code=401)(scope, receive, send)
                return
        await self.app(scope, receive, send)

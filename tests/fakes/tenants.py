"""Callers who work in workspaces of their own."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.library.access.access_keys import create_access_key
from app.library.database import run_transaction
from app.library.workspaces import in_workspace
from tests.fakes.training import Sessions


async def key_headers(
    sessions: Sessions,
    workspace: str = "default",
    *,
    scopes: Sequence[str] = ("admin",),
    **choices: Any,  # noqa: ANN401 - of `create_access_key`
) -> dict[str, str]:
    """Headers with a new key to a workspace."""

    async def work(session: AsyncSession) -> str:
        _, token = await create_access_key(session, name="test", scopes=scopes, **choices)
        return token.text

    text = await run_transaction(in_workspace(sessions, workspace), work)
    return {"authorization": f"Bearer {text}"}

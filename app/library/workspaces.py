"""Workspaces: who works in one sees and changes what is in it, and nothing else.

A session belongs to one workspace, or to all of them. Every statement of the ORM on a table with a
workspace is narrowed here, wherever in it the table occurs, so no query can forget to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, TypeAlias

from sqlalchemy import Executable, event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    Mapped,
    ORMExecuteState,
    Session,
    mapped_column,
    with_loader_criteria,
)

from app.core.access import DEFAULT_WORKSPACE

_Sessions: TypeAlias = async_sessionmaker[AsyncSession]

_KEY: Final = "workspace"


class InWorkspace:
    """A table whose rows belong to one workspace each."""

    workspace: Mapped[str] = mapped_column(sort_order=-1)


class WorkspaceSession(Session):
    """A session of one workspace, told in its `info`: `default` when not told, None for all."""


@event.listens_for(WorkspaceSession, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    workspace = state.session.info.get(_KEY, DEFAULT_WORKSPACE)
    if workspace is None or state.is_insert:
        return
    state.statement = _narrowed(state.statement, workspace)


# A statement that is kept in a module is narrowed once; the others soon make room again.
@lru_cache(maxsize=128)
def _narrowed(statement: Executable, workspace: str) -> Executable:
    return statement.options(
        with_loader_criteria(
            InWorkspace, lambda table: table.workspace == workspace, include_aliases=True
        )
    )


def workspace_of(session: AsyncSession) -> str:
    """The workspace in which the session stores what it is given.

    Raises:
        RuntimeError: It is of all of them.
    """
    workspace: str | None = session.info.get(_KEY, DEFAULT_WORKSPACE)
    if workspace is None:
        raise RuntimeError("Whoever stores something must say in which workspace")
    return workspace


@contextmanager
def seeing(session: AsyncSession, workspace: str | None) -> Iterator[None]:
    """Lets a session see another workspace for the block, or all with None."""
    own = session.info.get(_KEY, DEFAULT_WORKSPACE)
    session.info[_KEY] = workspace
    try:
        yield
    finally:
        session.info[_KEY] = own


def in_workspace(sessions: _Sessions, workspace: str | None) -> _Sessions:
    """The same sessions, of this workspace alone."""
    options: dict[str, Any] = {**sessions.kw, "info": {_KEY: workspace}}
    return async_sessionmaker(**options)


def in_all_workspaces(sessions: _Sessions) -> _Sessions:
    """The same sessions, which see everything: for what serves all workspaces at once."""
    return in_workspace(sessions, None)

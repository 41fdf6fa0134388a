"""The backbones that vectors were made for."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.backbones import BackboneDescription
from app.core.errors import NotFoundError
from app.library.records import record_of
from app.library.tables import BackboneRow


async def remember_backbone(session: AsyncSession, backbone: BackboneDescription) -> None:
    """Stores the description unless one with its fingerprint is there."""
    values = backbone.to_dict()
    await session.execute(insert(BackboneRow).values(values).on_conflict_do_nothing())


async def get_backbone(session: AsyncSession, fingerprint: str) -> BackboneDescription:
    """The description with this fingerprint.

    Raises:
        NotFoundError: It was never stored.
    """
    row = await session.get(BackboneRow, fingerprint)
    if row is None:
        raise NotFoundError(f"There is no backbone {fingerprint[:12]}")
    return record_of(BackboneDescription, row)

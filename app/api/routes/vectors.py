"""Routes of the library of vectors."""

import asyncio
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response

from app.api.creation import CreationOf
from app.api.dependencies import Services, ServicesOf, SessionOf
from app.api.http.preconditions import EntityTags, require_match, rest_from
from app.api.http.problems import problems
from app.api.http.uploads import (
    OCTET_STREAM,
    file_body,
    read_body,
    require_media_type,
    upload_place,
)
from app.api.schemas.bodies import PageBody
from app.api.schemas.catalogue import VectorQuery
from app.api.schemas.fields import Description, Name, Ref, Tag
from app.api.schemas.vectors import (
    AliasBody,
    AliasPut,
    EvaluationBody,
    ImportedVectorBody,
    VectorBody,
    VectorDetailBody,
    VectorPatch,
)
from app.core.backbones import BackboneDescription
from app.core.errors import InvalidVectorFileError, NotFoundError
from app.core.identifiers import MAX_TAGS, sha256_hex
from app.core.vectors.card import read_card
from app.core.vectors.file import decode_vector_file
from app.library.aliases import alias_version, set_alias
from app.library.catalogue.filters import list_vectors
from app.library.catalogue.transfer import current_file, import_vector, load_file
from app.library.evaluations import list_evaluations
from app.library.vector_rows import get_backbone
from app.library.vectors import (
    delete_vector,
    find_same,
    get_vector,
    update_vector,
)
from app.rpc.backbones import backbone_for

MEDIA_TYPES: Final = (OCTET_STREAM, "application/x-safetensors")

WITHOUT_KEY: Final = (
    "The file has no key, so `auto` does not find this vector; ask for it by its name, or train it "
    "again to get one"
)

router = APIRouter(tags=["vectors"])


@router.get("/vectors", responses=problems())
async def list_page(
    session: SessionOf, wanted: Annotated[VectorQuery, Query()]
) -> PageBody[VectorBody]:
    """Lists vectors that match every filter, newest first."""
    page = await list_vectors(session, wanted.filters(), limit=wanted.limit, cursor=wanted.cursor)
    return PageBody[VectorBody].model_validate(page)


@router.post(
    "/vectors",
    status_code=201,
    responses=problems(408, 409, 413, 415, 504)
    | {200: {"description": "The name has this file already", "model": ImportedVectorBody}},
    openapi_extra=file_body(*MEDIA_TYPES),
)
async def import_file(
    request: Request,
    response: Response,
    creation: CreationOf,
    *,
    services: ServicesOf,
    session: SessionOf,
    name: Name,
    description: Annotated[Description, Query()] = "",
    tags: Annotated[tuple[Tag, ...], Query(max_length=MAX_TAGS)] = (),
) -> ImportedVectorBody:
    """Imports an M2IV file as the next version of a name; the same file again changes nothing.

    Keys, measurements and provenance that the file carries come with it.
    """
    require_media_type(request, *MEDIA_TYPES)
    async with upload_place(request, services.uploads):
        blob = await read_body(request)
        tensors, metadata = await asyncio.to_thread(decode_vector_file, blob)
        if not tensors.has_effect:
            raise InvalidVectorFileError(
                "The vectors would have no effect: all that they add is zero"
            )
        card = await asyncio.to_thread(read_card, metadata)
        digest = await asyncio.to_thread(sha256_hex, blob)
        backbone = await _find_backbone(services, metadata["backbone"])
        await creation.begin(digest)
        same = await find_same(session, name=name, sha256=digest)
        record = same or await import_vector(
            session,
            name=name,
            blob=blob,
            metadata=metadata,
            card=card,
            backbone=backbone,
            description=description,
            tags=tags,
        )
        if same is not None:
            response.status_code = 200
        notes = () if card is not None and card.key is not None else (WITHOUT_KEY,)
        body = ImportedVectorBody(**dict(VectorBody.model_validate(record)), notes=notes)
        return await creation.answer(body, at=f"/vectors/{record.id}")


async def _find_backbone(services: Services, fingerprint: str) -> BackboneDescription:
    """The backbone that is served now or was seen before."""
    try:
        async with services.sessions.begin() as session:
            return await get_backbone(session, fingerprint)
    except NotFoundError:
        return backbone_for([fingerprint], await services.workers.pool.serving()).backbone


@router.get("/vectors/{ref}", responses=problems(404))
async def get_one(ref: Ref, services: ServicesOf, session: SessionOf) -> VectorDetailBody:
    """Describes one version: what was measured of it, and which others look the same to `auto`."""
    record = await get_vector(session, ref)
    measured = await list_evaluations(session, record.id)
    evaluations = tuple(EvaluationBody.model_validate(item) for item in measured)
    body = VectorBody.model_validate(record)
    await session.commit()
    overlaps = await services.retriever.overlaps(record.id)
    return VectorDetailBody(**dict(body), evaluations=evaluations, overlaps=tuple(overlaps))


@router.get(
    "/vectors/{ref}/file",
    response_class=Response,
    responses=problems(404)
    | {
        status: {
            "description": description,
            "content": {OCTET_STREAM: {"schema": {"type": "string", "format": "binary"}}},
        }
        for status, description in ((200, "The file"), (206, "The rest of it"))
    },
)
async def get_file(ref: Ref, session: SessionOf, request: Request) -> Response:
    """Sends the file with all that is known of it now; its SHA-256 is the ETag.

    It is the stored file unless something was measured, or the state was changed, since then. With
    `Range: bytes=N-` and the ETag in `If-Range` only the rest comes (206); any other range is
    answered with the whole.
    """
    record = await get_vector(session, ref)
    stored, measured = await load_file(session, record)
    await session.commit()
    blob = await asyncio.to_thread(current_file, stored, record=record, measured=measured)
    etag = f'"{await asyncio.to_thread(sha256_hex, blob)}"'
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        "content-disposition": f'attachment; filename="{record.name}-{record.version}.safetensors"',
    }
    start = rest_from(request.headers, etag=etag, size=len(blob))
    if start:
        headers["content-range"] = f"bytes {start}-{len(blob) - 1}/{len(blob)}"
    status = 206 if start else 200
    return Response(blob[start:], status, media_type=OCTET_STREAM, headers=headers)


@router.patch("/vectors/{ref}", responses=problems(404, 408, 413))
async def change(ref: Ref, body: VectorPatch, session: SessionOf) -> VectorBody:
    """Changes what is said about a version; the numbers never change."""
    changed = await update_vector(
        session, ref, description=body.description, tags=body.tags, status=body.status
    )
    return VectorBody.model_validate(changed)


@router.delete("/vectors/{ref}", status_code=204, responses=problems(404, 409))
async def delete(ref: Ref, session: SessionOf) -> None:
    """Takes a version out of the library, unless an alias points at it."""
    await delete_vector(session, ref)


@router.put("/vectors/{name}/aliases/{alias}", responses=problems(404, 408, 409, 412, 413))
async def put_alias(
    name: Annotated[Name, Path()],
    alias: Annotated[Name, Path()],
    *,
    body: AliasPut,
    session: SessionOf,
    response: Response,
    if_match: EntityTags = None,
    if_none_match: Annotated[Literal["*"] | None, Header()] = None,
) -> AliasBody:
    """Points an alias at a version, if it still points where the caller believes.

    Its ETag is the version; `If-Match` (`*` for an alias that there is), and `If-None-Match: *` for
    a new one, say the same as `expected_version` and are answered with 412 instead of 409.
    """
    expected = body.expected_version
    if if_match is not None or if_none_match is not None:
        require_match(
            await alias_version(session, name, alias),
            f"{name}@{alias}",
            expected=expected,
            if_match=if_match,
            if_none_match=if_none_match,
        )
    record = await set_alias(session, name, alias, version=body.version, expected_version=expected)
    response.headers["etag"] = f'"{record.version}"'
    return AliasBody.model_validate(record)

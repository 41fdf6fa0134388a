"""Routes of the library as a whole: many vectors at once, comparisons, combinations, aliases."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response

from app.api.creation import CreationOf
from app.api.dependencies import SessionOf
from app.api.http.preconditions import EntityTags, require_match
from app.api.http.problems import problems
from app.api.schemas.bodies import PageBody
from app.api.schemas.catalogue import (
    MAX_COMPARED,
    BatchBody,
    BatchRequest,
    CombinedBody,
    CombineRequest,
    ComparedBody,
    ComparisonBody,
    EvaluationRequest,
    OutcomeBody,
    PruneRequest,
    RefusalBody,
)
from app.api.schemas.fields import Name, Ref, Reference
from app.api.schemas.vectors import AliasBody, EvaluationBody, VectorBody
from app.core.errors import NotFoundError, VLibraryError
from app.core.identifiers import MAX_VERSION
from app.core.vectors.card import EvaluationCard
from app.library.aliases import alias_version, delete_alias, list_aliases
from app.library.catalogue.batches import change_each, prune_versions
from app.library.catalogue.combination import combine_vectors
from app.library.catalogue.comparison import check_distinct, compare_measurements, similarities
from app.library.evaluations import add_evaluation
from app.library.records import VectorRecord
from app.library.vectors import get_vector

NOT_MEASURED: Final = (
    "The sum was not measured, and sums of vectors of different tasks usually keep neither task; "
    "measure it beside its best part before it is used"
)

router = APIRouter(tags=["vectors"])

NamePath = Annotated[Name, Path()]


@router.get("/vectors/compare", responses=problems(404))
async def compare(
    session: SessionOf,
    *,
    ref: Annotated[
        list[Reference],
        Query(min_length=2, max_length=MAX_COMPARED, description="Which vectors; repeated."),
    ],
) -> ComparedBody:
    """Shows vectors beside each other: what was measured on equal terms, and how alike they are.

    A vector that is itself named `compare` is at `/vectors/compare@latest`.
    """
    records = [await get_vector(session, text) for text in ref]
    check_distinct(records)
    compared = await compare_measurements(session, [record.id for record in records])
    return ComparedBody(
        vectors=tuple(VectorBody.model_validate(record) for record in records),
        comparisons=tuple(ComparisonBody.model_validate(item) for item in compared),
        similarity=tuple(map(tuple, await similarities(session, records))),
    )


@router.post("/vectors/batch", responses=problems(408, 409, 413))
async def batch(body: BatchRequest, *, creation: CreationOf, session: SessionOf) -> BatchBody:
    """Deletes, tags or changes many vectors; a refusal of one leaves the others as they became."""
    await creation.begin(body.model_dump_json())
    outcomes = await change_each(
        session, body.vectors, action=body.action, tags=body.tags, status=body.status
    )
    items = tuple(_outcome(ref, found) for ref, found in outcomes.items())
    done = BatchBody(items=items, num_failed=sum(not item.ok for item in items))
    return await creation.answer(done, at=None)


def _outcome(ref: str, found: VectorRecord | VLibraryError) -> OutcomeBody:
    if isinstance(found, VLibraryError):
        error = RefusalBody(code=found.code, detail=found.message)
        return OutcomeBody(ref=ref, ok=False, error=error)
    return OutcomeBody(ref=ref, ok=True, id=found.id, name=found.name, version=found.version)


@router.post(
    "/vectors/combine", status_code=201, responses=problems(404, 408, 409, 413) | {200: {}}
)
async def combine(
    body: CombineRequest, response: Response, *, creation: CreationOf, session: SessionOf
) -> CombinedBody:
    """Stores the weighted sum of vectors as the next version of a name; its parents are recorded.

    The same sum under the same name again changes nothing and is answered with 200.
    """
    await creation.begin(body.model_dump_json())
    parts = [(await get_vector(session, part.vector), part.weight) for part in body.parts]
    record, is_new = await combine_vectors(
        session, name=body.name, parts=parts, description=body.description, tags=body.tags
    )
    ids = [part.id for part, _ in parts]
    measured = await compare_measurements(session, ids)
    best = next((ids[item.best] for item in measured if all(item.results)), None)
    response.status_code = 201 if is_new else 200
    facts: dict[str, Any] = dict(VectorBody.model_validate(record))
    combined = CombinedBody(**facts, best_part=best, notes=(NOT_MEASURED,))
    return await creation.answer(combined, at=f"/vectors/{record.id}")


@router.post("/vectors/{name}/prune", responses=problems(404, 408, 409, 413))
async def prune(
    name: NamePath, body: PruneRequest, *, creation: CreationOf, session: SessionOf
) -> PageBody[VectorBody]:
    """Deletes all but the newest versions of a name; what an alias points at stays as well."""
    await creation.begin(body.model_dump_json())
    pruned = await prune_versions(session, name, keep_last=body.keep_last)
    done = PageBody[VectorBody](items=tuple(map(VectorBody.model_validate, pruned)))
    return await creation.answer(done, at=None)


@router.post("/vectors/{ref}/evaluations", status_code=201, responses=problems(404, 408, 409, 413))
async def measure(
    ref: Ref, body: EvaluationRequest, *, creation: CreationOf, session: SessionOf
) -> EvaluationBody:
    """Attaches a measurement to a version; comparisons and filters look at the newest."""
    await creation.begin(body.model_dump_json())
    record = await get_vector(session, ref)
    measured = EvaluationCard(**body.model_dump())
    added = await add_evaluation(session, vector_id=record.id, measured=measured)
    return await creation.answer(EvaluationBody.model_validate(added), at=None)


@router.get("/vectors/{name}/aliases", responses=problems(404))
async def every_alias(name: NamePath, session: SessionOf) -> PageBody[AliasBody]:
    """Lists the aliases of a name, `latest` among them."""
    found = await list_aliases(session, name)
    if not found:
        raise NotFoundError(f"There is no vector named {name}")
    return PageBody[AliasBody](items=tuple(map(AliasBody.model_validate, found)))


@router.get("/vectors/{name}/aliases/{alias}", responses=problems(404))
async def one_alias(
    name: NamePath, alias: Annotated[Name, Path()], *, session: SessionOf, response: Response
) -> AliasBody:
    """Tells where an alias points; the version is its ETag."""
    found = await list_aliases(session, name)
    record = next((item for item in found if item.alias == alias), None)
    if record is None:
        raise NotFoundError(f"There is no alias {name}@{alias}")
    response.headers["etag"] = f'"{record.version}"'
    return AliasBody.model_validate(record)


@router.delete(
    "/vectors/{name}/aliases/{alias}", status_code=204, responses=problems(404, 409, 412)
)
async def remove_alias(
    name: NamePath,
    alias: Annotated[Name, Path()],
    *,
    session: SessionOf,
    expected_version: Annotated[int | None, Query(ge=1, le=MAX_VERSION)] = None,
    if_match: EntityTags = None,
) -> None:
    """Takes an alias away, if it still points where the caller believes; the version stays.

    `If-Match` says the same as `expected_version` and is answered with 412 instead of 409.
    """
    # What is not there is not found, whatever is asked of it.
    if if_match is not None and (found := await alias_version(session, name, alias)):
        require_match(found, f"{name}@{alias}", expected=expected_version, if_match=if_match)
    await delete_alias(session, name, alias, expected_version=expected_version)

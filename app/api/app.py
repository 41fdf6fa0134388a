"""Builds the api from its parts: routers with their limits, handlers, layers, the schema."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from opentelemetry.trace import TracerProvider
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app.api.dependencies import Services, require_known_query
from app.api.http.access import PUBLIC, PUBLIC_PATHS, Authenticated, NeedsScope
from app.api.http.errors import error_handlers
from app.api.http.methods import Methods
from app.api.http.middleware import (
    REQUEST_ID_HEADER,
    ObservedRequests,
    ProblemShim,
    SameSiteOnly,
)
from app.api.http.problems import Problem
from app.api.http.steady_bodies import SteadyBodies
from app.api.routes import (
    access,
    catalogue,
    datasets,
    health,
    openai,
    retrieval,
    scraping,
    steering,
    training,
    vectors,
)
from app.api.schemas.examples import add_examples
from app.api.steer.generation import VECTOR_HEADER
from app.core.settings import Settings, is_loopback
from app.core.telemetry.tracing import telemetry
from app.core.vectors.file import MAX_FILE_BYTES
from app.core.version import software_version

LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "::1", "[::1]")
MAX_SMALL_BODY_BYTES: Final = 1024 * 1024
REF_TEMPLATE: Final = "#/components/schemas/{model}"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_api(
    services: Services,
    *,
    lifespan: Lifespan | None = None,
    tracing: TracerProvider | None = None,
) -> FastAPI:
    """The api on top of its services."""
    settings = services.settings
    api = FastAPI(
        title="VLibrary",
        summary="Train, keep, find and apply multimodal in-context vectors.",
        version=software_version(),
        lifespan=lifespan,
        telemetry=telemetry(tracing),
        # The interactive pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        exception_handlers=error_handlers(),
        middleware=[
            Middleware(ObservedRequests, metrics=services.metrics),
            Middleware(ProblemShim),
            Middleware(
                TrustedHostMiddleware, allowed_hosts=allowed_hosts(settings), www_redirect=False
            ),
            *_cross_origin(settings),
            Middleware(SameSiteOnly, origins=settings.cors_origins),
            Middleware(
                Authenticated,
                sessions=services.sessions if settings.needs_keys else None,
            ),
            Middleware(SteadyBodies),
            Middleware(Methods),
        ],
    )
    api.state.services = services
    # Clients of OpenAI and what scrapes add parameters that mean something elsewhere.
    lenient = (openai.router, scraping.router, health.router)
    for router, max_body_bytes, needs in _routers(settings):
        checks = [Depends(needs)] + [Depends(require_known_query)] * (router not in lenient)
        api.include_router(router, max_body_size=max_body_bytes, dependencies=checks)
    _describe_problems(api)
    return api


def _routers(settings: Settings) -> list[tuple[APIRouter, int, NeedsScope]]:
    """Every router with the most bytes of a body of its routes, and who may use them."""
    small = MAX_SMALL_BODY_BYTES
    return [
        # First what is asked most: a path is held against all routes up to its own.
        (steering.router, settings.max_body_bytes, NeedsScope(read="read", write="steer")),
        (openai.router, settings.max_body_bytes, NeedsScope(read="read", write="steer")),
        (retrieval.router, settings.max_body_bytes, NeedsScope(read="read", write="read")),
        (datasets.router, settings.max_upload_bytes, NeedsScope(read="read", write="write")),
        # Before what takes any word for a vector's name.
        (catalogue.router, small, NeedsScope(read="read", write="write")),
        (vectors.router, MAX_FILE_BYTES, NeedsScope(read="read", write="write")),
        (training.router, small, NeedsScope(read="read", write="train")),
        (access.router, small, NeedsScope(read="admin", write="admin")),
        (scraping.router, small, NeedsScope(read="read", write="admin")),
        (health.backbones, small, NeedsScope(read="read", write="admin")),
        (health.router, small, PUBLIC),
    ]


# Beside what browsers let any page read.
_READ_BY_CLIENTS: Final = (
    "retry-after",
    "x-should-retry",
    "location",
    "etag",
    "idempotency-replayed",
)


def _cross_origin(settings: Settings) -> list[Middleware]:
    """The layer that tells browsers which other sites' pages may call; none by default."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID_HEADER, VECTOR_HEADER, *_READ_BY_CLIENTS],
        )
    ]


def allowed_hosts(settings: Settings) -> list[str]:
    """The Host headers that are answered.

    On a loopback address only its own names are, so that a page of another site which points its
    name at this machine gets nothing. On any other address, where nobody gets in without a key,
    they are its own and the names that were set, or any.
    """
    if not (settings.allowed_hosts or is_loopback(settings.host)):
        return ["*"]
    own = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    return [*LOCAL_HOSTS, own, *settings.allowed_hosts]


def _operation_id(route: APIRoute) -> str:
    module = route.endpoint.__module__.rpartition(".")[2]
    return f"{module}_{route.name}"


def _describe_problems(api: FastAPI) -> None:
    """Adds the error body, to which every route refers, and which routes need no key."""
    generate = api.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        described = Problem.model_json_schema(ref_template=REF_TEMPLATE)
        inner = described.pop("$defs")
        schema["components"]["schemas"] |= {**inner, Problem.__name__: described}
        for path in PUBLIC_PATHS & set(schema["paths"]):
            for operation in schema["paths"][path].values():
                operation.pop("security", None)
        add_examples(schema)
        return schema

    api.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way to extend the schema

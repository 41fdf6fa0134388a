import json
import re
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.api.http.admission import AdmittedRoute

METHODS = {"get", "put", "post", "patch", "delete"}
BOUNDED_FORMATS = {"uuid", "binary", "date-time"}


@pytest.fixture
def schema(api: FastAPI) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return api.openapi()


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield f"{method} {path}", operation


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    if isinstance(node, list):
        for value in node:
            yield from references(value)


def unbounded(node: dict[str, Any], schema: dict[str, Any], *, place: str) -> Iterator[str]:
    """Places below `node` where a request may hold a value without a bound."""
    if "$ref" in node:
        node = schema["components"]["schemas"][node["$ref"].rpartition("/")[2]]
    if not _is_bounded(node):
        yield place
    for name, inner in _parts(node):
        yield from unbounded(inner, schema, place=place + name)


def _parts(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from (("", option) for option in node.get("anyOf", []))
    yield from ((f".{name}", value) for name, value in node.get("properties", {}).items())
    if "items" in node:
        yield "[]", node["items"]
    if isinstance(node.get("additionalProperties"), dict):
        yield ".*", node["additionalProperties"]


def _is_bounded(node: dict[str, Any]) -> bool:
    match node.get("type"):
        case "integer" | "number":
            return _is_bounded_number(node)
        case "string":
            return _is_bounded_text(node)
        case "array":
            return "maxItems" in node
        case "object":
            return not node.get("additionalProperties") or "maxProperties" in node
        case "boolean" | "null":
            return True
        case _:
            return "anyOf" in node


def _is_bounded_number(node: dict[str, Any]) -> bool:
    has_low = "minimum" in node or "exclusiveMinimum" in node
    return has_low and ("maximum" in node or "exclusiveMaximum" in node)


def _is_bounded_text(node: dict[str, Any]) -> bool:
    is_chosen = {"enum", "const", "maxLength"} & set(node) or node.get("format") in BOUNDED_FORMATS
    return bool(is_chosen) or node.get("pattern", "").endswith(("}$", "}-"))


def test_the_schema_is_json_and_complete(schema: dict[str, Any]) -> None:
    json.dumps(schema, allow_nan=False)
    known = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert set(references(schema)) <= known
    names = [operation["operationId"] for _, operation in operations(schema)]
    assert len(set(names)) == len(names)
    assert all(operation.get("summary") for _, operation in operations(schema))


def test_every_route_is_in_the_schema(api: FastAPI, schema: dict[str, Any]) -> None:
    routed = {
        (context.path_format, method.lower())
        for context in iter_route_contexts(api.routes)
        for method in context.methods or ()
        if context.path_format not in {"/openapi.json", None}
    }
    documented = {(path, method) for path, item in schema["paths"].items() for method in item}
    assert routed == documented
    assert len(documented) > 15


def test_every_route_documents_its_errors_as_problems(schema: dict[str, Any]) -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for name, operation in operations(schema):
        if " /v1/" in name:
            continue
        errors = errors_of(operation)
        assert {"422", "500", "503"} <= set(errors), name
        for status, answer in errors.items():
            if (name, status) != ("get /readyz", "503"):
                assert answer["content"] == {"application/problem+json": problem}, (name, status)


def test_every_route_documents_how_keys_and_bodies_are_refused(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        if " /v1/" in name:
            continue
        # A key may be limited in its requests, and any body be too slow or too large.
        assert {"401", "403", "429"} <= set(errors_of(operation)), name
        of_body = {"408", "413"} & set(errors_of(operation))
        assert of_body == ({"408", "413"} if "requestBody" in operation else set()), name


def test_openai_routes_document_their_errors_in_openais_shape(schema: dict[str, Any]) -> None:
    error = {"schema": {"$ref": "#/components/schemas/OpenAIErrorBody"}}
    found = {name: errors_of(item) for name, item in operations(schema) if " /v1/" in name}
    assert len(found) == 6
    for name, errors in found.items():
        assert {"400", "500", "503", "4XX"} <= set(errors), name
        assert "422" not in errors, name
        for answer in errors.values():
            assert answer["content"] == {"application/json": error}, name


def errors_of(operation: dict[str, Any]) -> dict[str, Any]:
    return {status: answer for status, answer in operation["responses"].items() if status >= "4"}


def test_every_route_that_names_a_thing_can_miss_it(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        if "{" in name:
            assert "404" in operation["responses"], name


def test_every_value_of_a_request_has_bounds(schema: dict[str, Any]) -> None:
    found: list[str] = []
    for name, operation in operations(schema):
        for parameter in operation.get("parameters", []):
            place = f"{name} {parameter['name']}"
            found += unbounded(parameter["schema"], schema, place=place)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            found += unbounded(content["schema"], schema, place=name)
    assert found == []


def test_unknown_fields_are_refused_in_every_request(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        content = operation.get("requestBody", {}).get("content", {})
        for reference in references(content.get("application/json", {})):
            body = schema["components"]["schemas"][reference.rpartition("/")[2]]
            # Clients of OpenAI send more than anybody knows.
            assert body["additionalProperties"] is (" /v1/" in name), name


@pytest.mark.anyio
async def test_unknown_parameters_are_refused_in_every_query(
    http: httpx.AsyncClient, schema: dict[str, Any]
) -> None:
    probed = ("/livez", "/readyz", "/metrics")
    for name, _ in operations(schema):
        method, path = name.split()
        if path.startswith(("/v1/", *probed)) or path == "/":
            continue
        url = re.sub(r"\{\w+\}", str(uuid.UUID(int=7)), path)
        response = await http.request(method, url, params={"dry_run": "true"})
        places = [error["location"] for error in response.json()["errors"]]
        assert (response.status_code, "query.dry_run" in places) == (422, True), name


@pytest.mark.anyio
async def test_what_is_no_list_is_said_once_in_every_query(
    http: httpx.AsyncClient, schema: dict[str, Any]
) -> None:
    listed = []
    for name, operation in operations(schema):
        method, path = name.split()
        url = re.sub(r"\{\w+\}", str(uuid.UUID(int=7)), path)
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "query":
                continue
            asked = {parameter["name"]: ["1", "2"]}
            if parameter["schema"].get("type") == "array":
                listed.append(f"{name} {parameter['name']}")
                continue
            response = await http.request(method, url, params=asked)
            problem = {
                "location": f"query.{parameter['name']}",
                "message": "wanted it once, found it 2 times",
            }
            assert problem in response.json()["errors"], (name, asked)
    assert sorted(listed) == [
        "get /vectors tag",
        "get /vectors/compare ref",
        "post /datasets map",
        "post /vectors tags",
    ]


def test_what_reaches_a_worker_needs_a_place(api: FastAPI) -> None:
    admitted = {
        context.path
        for context in iter_route_contexts(api.routes)
        if isinstance(context.original_route, AdmittedRoute)
    }
    assert admitted == {
        "/steer/generate",
        "/retrieve",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
    }


def test_nothing_is_loaded_from_elsewhere(api: FastAPI) -> None:
    assert (api.docs_url, api.redoc_url) == (None, None)


@pytest.mark.anyio
async def test_without_a_database_the_process_lives_and_is_not_ready(
    http: httpx.AsyncClient,
) -> None:
    assert (await http.get("/livez")).status_code == 200
    response = await http.get("/readyz")
    assert response.status_code == 503
    checks = response.json()["checks"]
    assert {name: check["ok"] for name, check in checks.items()} == {
        "database": False,
        "worker": True,
        "index": False,
    }
    assert "127.0.0.1" not in response.text
    listing = await http.get("/vectors")
    assert (listing.status_code, listing.headers["retry-after"]) == (503, "2")

"""Keys, scopes and the trail, on an api that others could reach."""

import asyncio
import datetime as dt

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.api.http.access import PUBLIC, PUBLIC_PATHS, NeedsScope, is_public
from app.core.access import SCOPES
from app.core.settings import Settings
from app.library.access.access_keys import has_valid_access_key, list_access_keys
from tests.fakes.library import store_dataset
from tests.fakes.tenants import key_headers

pytestmark = pytest.mark.anyio

Sessions = async_sessionmaker[AsyncSession]


async def test_every_route_has_a_scope_or_is_marked_as_public(api: FastAPI) -> None:
    unguarded, marked = [], set()
    for context in iter_route_contexts(api.routes):
        if context.path is None:
            continue
        guards = context.dependant.dependencies if hasattr(context, "dependant") else ()
        needed = [guard.call for guard in guards if isinstance(guard.call, NeedsScope)]
        if needed == [PUBLIC]:
            marked.add(context.path)
        elif len(needed) != 1 and context.path not in PUBLIC_PATHS:
            unguarded.append(context.path)
        else:
            assert all(
                one.wanted(method) in SCOPES for one in needed for method in context.methods or ()
            )
    assert unguarded == []
    assert marked == {"/", "/docs", "/docs/{name}", "/livez", "/readyz"}


async def test_without_a_key_only_public_routes_answer(api: FastAPI) -> None:
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for context in iter_route_contexts(api.routes):
            if context.path is None:
                continue
            path = context.path.replace("{key_id}", "0" * 16).replace("{", "").replace("}", "")
            for method in context.methods or ():
                response = await client.request(method, path)
                if is_public(path):
                    assert response.status_code in {200, 404, 503}, (method, path)
                else:
                    assert response.status_code == 401, (method, path)
                    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "shown",
    [
        "Bearer none",
        "Bearer vlib_0123456789abcdef_" + "a" * 43,
        "Bearer vlib__",
        "Basic dXNlcjpwYXNz",
        "Bearer " + "a" * 5000,
        "Bearer vlib_é",
    ],
)
async def test_what_is_no_key_opens_nothing(http: httpx.AsyncClient, shown: str) -> None:
    response = await http.get("/vectors", headers=[(b"authorization", shown.encode())])
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


async def test_a_secret_of_another_key_opens_nothing(
    http: httpx.AsyncClient, sessions: Sessions
) -> None:
    one, other = [await key_headers(sessions) for _ in range(2)]
    ids = [item["authorization"].split("_")[1] for item in (one, other)]
    secret = other["authorization"].split("_", 2)[2]
    for _ in range(2):
        mixed = {"authorization": f"Bearer vlib_{ids[0]}_{secret}"}
        assert (await http.get("/vectors", headers=mixed)).status_code == 401
        assert (await http.get("/vectors", headers=one)).status_code == 200


async def test_a_scope_allows_what_it_stands_for_and_no_more(
    http: httpx.AsyncClient, sessions: Sessions
) -> None:
    asked = {
        "read": ("GET", "/vectors"),
        "write": ("POST", "/datasets?name=x"),
        "train": ("POST", "/train"),
        "steer": ("POST", "/steer/generate"),
        "admin": ("GET", "/keys"),
    }
    for held in SCOPES:
        headers = await key_headers(sessions, scopes=(held,))
        for wanted, (method, path) in asked.items():
            answer = await http.request(method, path, headers=headers)
            is_refused = answer.status_code == 403
            assert is_refused == (held not in {wanted, "admin"}), (held, wanted, answer)
            if is_refused:
                told = f"Wanted a key with the scope {wanted}, found one with {held}"
                assert answer.json()["detail"] == told


async def test_a_key_ends_when_it_is_revoked_and_when_its_time_is_up(
    http: httpx.AsyncClient, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.http.access.REMEMBERED_SECONDS", 0.0)
    admin = await key_headers(sessions)
    other = await key_headers(sessions, scopes=("read",), valid_days=1)
    assert (await http.get("/vectors", headers=other)).status_code == 200
    key_id = other["authorization"].split("_")[1]
    revoked = await http.delete(f"/keys/{key_id}", headers=admin)
    assert revoked.json()["revoked"] is not None
    assert (await http.delete(f"/keys/{key_id}", headers=admin)).json() == revoked.json()
    assert (await http.get("/vectors", headers=other)).status_code == 401
    ended = await key_headers(sessions, scopes=("read",), valid_days=1)
    assert (await http.get("/vectors", headers=ended)).status_code == 200
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE access_keys SET expires = now() - interval '1 second' WHERE id = :id"),
            {"id": ended["authorization"].split("_")[1]},
        )
    assert (await http.get("/vectors", headers=ended)).status_code == 401
    assert (await http.delete(f"/keys/{'0' * 16}", headers=admin)).status_code == 404


async def test_a_stream_ends_with_its_key(
    http: httpx.AsyncClient, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.http.access.REMEMBERED_SECONDS", 0.0)
    admin, other = await key_headers(sessions), await key_headers(sessions, scopes=("read",))
    async with sessions.begin() as session:
        await store_dataset(session, "d")
    asked = {"name": "colours", "dataset": "d"}
    path = (await http.post("/train", json=asked, headers=admin)).headers["location"]
    listening = asyncio.create_task(http.get(f"{path}/events", headers=other))
    await asyncio.sleep(0.1)
    await http.delete(f"/keys/{other['authorization'].split('_')[1]}", headers=admin)
    await http.post(f"{path}/cancel", headers=admin)
    heard = await listening
    assert (heard.status_code, "cancelled" in heard.text) == (200, False)
    assert "cancelled" in (await http.get(f"{path}/events", headers=admin)).text


async def test_a_key_is_shown_once_and_stored_as_a_digest(
    http: httpx.AsyncClient, sessions: Sessions
) -> None:
    admin = await key_headers(sessions)
    body = {"name": "ci", "scopes": ["steer", "read"], "valid_days": 30}
    made = (await http.post("/keys", json=body, headers=admin)).json()
    assert made["scopes"] == ["read", "steer"]
    ends = dt.datetime.fromisoformat(made["expires"]) - dt.datetime.fromisoformat(made["created"])
    assert abs(ends - dt.timedelta(days=30)) < dt.timedelta(minutes=5)
    secret = made["key"].split("_", 2)[2]
    headers = {"authorization": f"Bearer {made['key']}"}
    assert (await http.get("/vectors", headers=headers)).status_code == 200
    listing = await http.get("/keys", headers=admin)
    (listed,) = [item for item in listing.json()["items"] if item["id"] == made["id"]]
    assert listed["last_used"] is not None
    assert secret not in listing.text
    async with sessions() as session:
        rows = (await session.execute(text("SELECT access_keys::text FROM access_keys"))).scalars()
        audited = (await session.execute(text("SELECT audit::text FROM audit"))).scalars()
        assert not any(secret in row for row in [*rows, *audited])


async def test_a_key_that_ends_makes_none_that_goes_on(
    http: httpx.AsyncClient, sessions: Sessions
) -> None:
    admin = await key_headers(sessions, valid_days=2)
    (own,) = (await http.get("/keys", headers=admin)).json()["items"]
    for days, wanted in ((None, own["expires"]), (9, own["expires"]), (1, None)):
        body = {"name": "ci", "scopes": ["admin"], "valid_days": days}
        made = (await http.post("/keys", json=body, headers=admin)).json()
        assert made["expires"] == wanted or (wanted is None and made["expires"] < own["expires"])


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "valid_days": 0},
        {"name": "a\u0000b", "scopes": ["read"]},
        {"name": "a\nb", "scopes": ["read"]},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(
    http: httpx.AsyncClient, sessions: Sessions, body: dict[str, object]
) -> None:
    admin = await key_headers(sessions)
    assert (await http.post("/keys", json=body, headers=admin)).status_code == 422
    async with sessions() as session:
        assert len(await list_access_keys(session)) == 1


async def test_the_trail_tells_who_did_what(http: httpx.AsyncClient, sessions: Sessions) -> None:
    admin = await key_headers(sessions)
    actor = admin["authorization"].split("_")[1]
    made = (await http.post("/keys", json={"name": "a", "scopes": ["read"]}, headers=admin)).json()
    await http.delete(f"/keys/{made['id']}", headers=admin)
    page = (await http.get("/audit", params={"subject": made["id"]}, headers=admin)).json()
    assert [(item["action"], item["actor"]) for item in page["items"]] == [
        ("key.create", actor),
        ("key.revoke", actor),
    ]
    first = (await http.get("/audit", params={"limit": 1}, headers=admin)).json()
    rest = (await http.get("/audit", params={"after": first["next_after"]}, headers=admin)).json()
    assert first["items"][0]["id"] < rest["items"][0]["id"]
    assert rest["next_after"] is None
    only = await http.get("/audit", params={"action": "key.revoke"}, headers=admin)
    assert [item["action"] for item in only.json()["items"]] == ["key.revoke"]


async def test_who_holds_a_key_is_one_caller(
    http: httpx.AsyncClient, *, api: FastAPI, sessions: Sessions
) -> None:
    # Many may share an address behind a proxy.
    headers = await key_headers(sessions, scopes=("steer",))
    seen: list[str | None] = []
    admission = api.state.services.admission
    place = admission.place

    def noting(**given: object) -> object:
        seen.append(given["caller"])  # type: ignore[arg-type]
        return place(**given)

    admission.place = noting
    await http.post("/steer/generate", json={}, headers=headers)
    assert seen == [f"key {headers['authorization'].split('_')[1]}"]


async def test_whether_anybody_has_a_valid_key(sessions: Sessions) -> None:
    async with sessions() as session:
        assert not await has_valid_access_key(session)
    await key_headers(sessions, scopes=("read",))
    async with sessions() as session:
        assert await has_valid_access_key(session)


class TestOnThisMachine:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"require_keys": None})

    async def test_no_key_is_needed(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/keys")).status_code == 200
        headers = {"authorization": "Bearer none"}
        assert (await http.get("/vectors", headers=headers)).status_code == 200

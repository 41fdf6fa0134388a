"""Rules about listings, searches, data sets, keys and the trail."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.fakes.api_calls import OCTETS
from tests.fakes.servers.worker import embedding_of
from tests.fakes.waiting import wait_until
from tests.integration.tenants.machine import (
    ALIASES,
    CONTENTS,
    NAMES,
    SEEDS,
    STATES,
    TAGS,
    Machine,
    names,
    places,
    references,
    sides,
)
from tests.integration.tenants.model import DataSet, Tenant

WORDS = ("GEAR", "round", "%", "_", "a", "none", "round gears")
filters = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "tag": st.sampled_from(TAGS),
        "status": st.sampled_from(STATES),
        "alias": st.sampled_from((*ALIASES, "latest")),
        "text": st.sampled_from(WORDS),
    },
)


class Listing:
    """A listing that a tenant goes on with between other steps."""

    def __init__(self, tenant: Tenant, wanted: dict[str, str]) -> None:
        self.filters = wanted
        self.cursor: str | None = None
        self.seen: list[str] = []
        # What fits all the time must be shown, and nothing twice.
        self.steady = {version.id for version in tenant.matching(wanted)}

    def look_again(self, tenant: Tenant) -> None:
        self.steady &= {version.id for version in tenant.matching(self.filters)}


class OtherRules(Machine):
    """Tenants list, search and store data sets, and make and revoke keys."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as above
        super().__init__(*arguments, **options)
        self.listings: dict[int, Listing] = {}

    @rule(side=sides, wanted=filters)
    def search(self, side: int, *, wanted: dict[str, str]) -> None:
        reply = self.ask(side, "GET", "/vectors", params={**wanted, "limit": 200})
        found = [item["id"] for item in reply.json()["items"]]
        assert found == [version.id for version in self.tenants[side].matching(wanted)]

    @rule(side=sides, wanted=filters, limit=st.integers(1, 2))
    def turn_a_page(self, side: int, *, wanted: dict[str, str], limit: int) -> None:
        tenant = self.tenants[side]
        listing = self.listings.setdefault(side, Listing(tenant, wanted))
        params: dict[str, Any] = {**listing.filters, "limit": limit}
        params |= {} if listing.cursor is None else {"cursor": listing.cursor}
        page = self.ask(side, "GET", "/vectors", params=params).json()
        listing.seen += [item["id"] for item in page["items"]]
        assert len(set(listing.seen)) == len(listing.seen), "a row was shown twice"
        listing.cursor = page["next_cursor"]
        if listing.cursor is None:
            del self.listings[side]
            assert listing.steady <= set(listing.seen)
            return
        # In the hands of a stranger it shows what is the stranger's.
        params["cursor"] = listing.cursor
        foreign = self.ask(1 - side, "GET", "/vectors", params=params).json()["items"]
        own = {version.id for version in self.tenants[1 - side].versions}
        assert {item["id"] for item in foreign} <= own

    @invariant()
    def listings_hold_what_stays(self) -> None:
        for side, listing in self.listings.items():
            listing.look_again(self.tenants[side])

    @rule(side=sides, seed=st.sampled_from(SEEDS))
    def retrieve(self, side: int, *, seed: int) -> None:
        """Finds what fits and is there; what was just done may take a moment to be known."""
        tenant = self.tenants[side]
        ready = {one.id for one in tenant.live() if one.status == "ready"}
        wanted = {one.id for one in tenant.live() if one.seed == seed} & ready
        query = {"embedding": embedding_of(None, f"{seed}"), "k": 100}

        def is_known() -> bool:
            found = self.ask(side, "POST", "/retrieve", json=query).json()
            ids = {match["vector"]["id"] for match in found["matches"]}
            assert ids <= {one.id for one in tenant.versions}
            return wanted <= ids <= ready

        wait_until(is_known)

    # Data sets

    # Every upload is read by a process of its own, which takes longer than all else.
    @precondition(lambda self: self.num_steps % 3 == 0)
    @rule(side=sides, name=names, content=st.sampled_from(CONTENTS))
    def upload(self, side: int, *, name: str, content: int) -> None:
        tenant = self.tenants[side]
        reply = self.ask(
            side, "POST", "/datasets", params={"name": name}, content=self.contents[content],
            headers=OCTETS,
        )  # fmt: skip
        known = next((one for one in tenant.datasets if one.content == content), None)
        made = reply.json()
        if known is not None:
            assert reply.status_code == (201 if known.is_deleted else 200), reply.text
            assert made["id"] == known.id
        else:
            assert reply.status_code == 201, reply.text
            known = DataSet(id=made["id"], name=name, content=content, is_deleted=True)
            tenant.datasets.append(known)
        if known.is_deleted:
            known.is_deleted, known.name = False, name
            tenant.deeds.append(("dataset.create", known.id))
            is_moved = name in tenant.dataset_names
        else:
            is_moved = tenant.dataset_names.get(name) is not known
        if is_moved:
            tenant.deeds.append(("dataset.name", known.id))
        tenant.dataset_names[name] = known

    @rule(side=sides, is_own=st.booleans(), place=places, is_deletion=st.booleans())
    def use_dataset(self, side: int, *, is_own: bool, place: int, is_deletion: bool) -> None:
        tenant = self.tenants[side]
        owner = tenant if is_own else self.tenants[1 - side]
        refs = [*NAMES, *(dataset.id for dataset in owner.datasets)]
        ref = refs[place % len(refs)]
        found = tenant.find_dataset(ref)
        reply = self.ask(side, "DELETE" if is_deletion else "GET", f"/datasets/{ref}")
        if found is None:
            assert reply.status_code == 404, reply.text
        elif is_deletion and ref in tenant.dataset_names and tenant.names_of(found) > 1:
            assert reply.status_code == 409, reply.text
        elif is_deletion:
            assert reply.status_code == 204, reply.text
            tenant.bury_dataset(found)
        else:
            assert reply.json()["id"] == found.id

    # Keys and the trail

    @rule(side=sides, name=names)
    def make_key(self, side: int, *, name: str) -> None:
        tenant = self.tenants[side]
        body = {"name": name, "scopes": ["read"]}
        made = self.ask(side, "POST", "/keys", json=body).json()
        tenant.keys[made["id"]] = False
        tenant.texts[made["id"]] = made["key"]
        tenant.deeds.append(("key.create", made["id"]))

    @rule(side=sides, is_own=st.booleans(), place=places)
    def revoke_key(self, side: int, *, is_own: bool, place: int) -> None:
        tenant = self.tenants[side]
        owner = tenant if is_own else self.tenants[1 - side]
        if not owner.texts:
            return
        key = list(owner.texts)[place % len(owner.texts)]
        reply = self.ask(side, "DELETE", f"/keys/{key}")
        assert reply.status_code == (200 if is_own else 404), reply.text
        if is_own and not tenant.keys[key]:
            tenant.keys[key] = True
            tenant.deeds.append(("key.revoke", key))

    @rule(side=sides, place=places, reference=references)
    def use_key(self, side: int, *, place: int, reference: tuple[str, Any]) -> None:
        """A key that may only read does so, and nothing else; one that was revoked does nothing."""
        tenant = self.tenants[side]
        if not tenant.texts:
            return
        key, text = list(tenant.texts.items())[place % len(tenant.texts)]
        headers = {"authorization": f"Bearer {text}"}
        listed = self.ask(side, "GET", "/vectors", headers=headers)
        path = f"/vectors/{self.written(side, reference)}"
        changed = self.ask(side, "PATCH", path, json={"description": "mine"}, headers=headers)
        if tenant.keys[key]:
            assert (listed.status_code, changed.status_code) == (401, 401)
        else:
            assert len(listed.json()["items"]) == min(50, len(tenant.live()))
            assert changed.status_code == 403

    @rule(side=sides, limit=st.integers(3, 20))
    def read_the_trail(self, side: int, *, limit: int) -> None:
        deeds: list[tuple[str, str]] = []
        after = 0
        while after is not None:
            params = {"after": after, "limit": limit}
            page = self.ask(side, "GET", "/audit", params=params).json()
            deeds += [(item["action"], item["subject"]) for item in page["items"]]
            after = page["next_after"]
        assert deeds == self.tenants[side].deeds

"""Rules about vectors and their aliases."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.fakes.api_calls import OCTETS
from tests.integration.tenants.machine import (
    DESCRIPTIONS,
    LIMITED_VECTORS,
    SEEDS,
    STATES,
    TAGS,
    Machine,
    aliases,
    names,
    numbers,
    references,
    sides,
    tag_sets,
)
from tests.integration.tenants.model import Version


class VectorRules(Machine):
    """Vectors are brought, looked at, changed and deleted; aliases are pointed and taken away."""

    @rule(
        side=sides,
        name=names,
        seed=st.sampled_from(SEEDS),
        described=st.sampled_from(DESCRIPTIONS),
        tags=tag_sets,
        is_limited=st.booleans(),
    )
    def bring(
        self, side: int, *, name: str, seed: int, described: str, tags: set[str], is_limited: bool
    ) -> None:
        tenant = self.tenants[side]
        reply = self.ask(
            side,
            "POST",
            "/vectors",
            params={"name": name, "description": described, "tags": sorted(tags)},
            content=self.files[seed],
            headers={**(tenant.limited if is_limited else {}), **OCTETS},
        )
        same = tenant.same(name, seed)
        if same is not None:
            assert (reply.status_code, reply.json()["id"]) == (200, same.id), reply.text
        elif is_limited and len(tenant.live()) >= LIMITED_VECTORS:
            assert (reply.status_code, reply.json()["code"]) == (403, "quota-exceeded"), reply.text
        else:
            assert reply.status_code == 201, reply.text
            made = reply.json()
            assert made["version"] == tenant.last[name] + 1
            tenant.store(
                Version(
                    id=made["id"],
                    name=name,
                    number=made["version"],
                    seed=seed,
                    description=described,
                    tags=tags,
                )
            )

    @rule(side=sides, name=names, seed=st.sampled_from(SEEDS), word=st.sampled_from(("k", "l")))
    def bring_once(self, side: int, *, name: str, seed: int, word: str) -> None:
        """The same request with the same Idempotency-Key does nothing again."""
        tenant = self.tenants[side]
        headers = {**OCTETS, "idempotency-key": f"{word}-{name}-{seed}"}
        first, second = (
            self.ask(
                side, "POST", "/vectors", params={"name": name}, content=self.files[seed],
                headers=headers,
            )
            for _ in range(2)
        )  # fmt: skip
        assert second.headers["idempotency-replayed"] == "true"
        assert (first.status_code, first.json()) == (second.status_code, second.json())
        made = first.json()
        if "idempotency-replayed" in first.headers:
            assert made["id"] in {version.id for version in tenant.versions}
        elif first.status_code == 201:
            assert tenant.same(name, seed) is None
            assert made["version"] == tenant.last[name] + 1
            tenant.store(Version(id=made["id"], name=name, number=made["version"], seed=seed))
        else:
            same = tenant.same(name, seed)
            assert same is not None
            assert made["id"] == same.id

    @rule(side=sides, reference=references)
    def look_at(self, side: int, *, reference: tuple[str, Any]) -> None:
        ref = self.written(side, reference)
        found = self.tenants[side].find(ref)
        reply = self.ask(side, "GET", f"/vectors/{ref}")
        file = self.ask(side, "GET", f"/vectors/{ref}/file")
        if found is None:
            assert (reply.status_code, file.status_code) == (404, 404), (ref, reply.text)
        else:
            assert (reply.json()["id"], file.status_code) == (found.id, 200)

    @rule(
        side=sides,
        reference=references,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "description": st.sampled_from(DESCRIPTIONS),
                "tags": tag_sets.map(sorted),
                "status": st.sampled_from(STATES),
            },
        ),
    )
    def change(self, side: int, *, reference: tuple[str, Any], changes: dict[str, Any]) -> None:
        ref = self.written(side, reference)
        tenant = self.tenants[side]
        found = tenant.find(ref)
        reply = self.ask(side, "PATCH", f"/vectors/{ref}", json=changes)
        if found is None:
            assert reply.status_code == 404, reply.text
            return
        assert reply.status_code == 200, reply.text
        tenant.change(found, **changes)

    @rule(side=sides, reference=references)
    def delete(self, side: int, *, reference: tuple[str, Any]) -> None:
        ref = self.written(side, reference)
        tenant = self.tenants[side]
        found = tenant.find(ref)
        reply = self.ask(side, "DELETE", f"/vectors/{ref}")
        assert reply.status_code == (tenant.refuses_burial(found) or 204), reply.text
        if found is not None and reply.status_code == 204:
            tenant.bury(found)

    @rule(
        side=sides,
        action=st.sampled_from(("delete", "tag", "untag", "set-status")),
        chosen=st.lists(references, min_size=1, max_size=4),
        tag=st.sampled_from(TAGS),
        status=st.sampled_from(STATES),
    )
    def change_many(
        self, side: int, *, action: str, chosen: list[tuple[str, Any]], tag: str, status: str
    ) -> None:
        refs = [self.written(side, reference) for reference in chosen]
        tenant = self.tenants[side]
        body: dict[str, Any] = {"action": action, "vectors": refs}
        body |= {"tags": [tag]} if action in {"tag", "untag"} else {}
        body |= {"status": status} if action == "set-status" else {}
        outcomes = self.ask(side, "POST", "/vectors/batch", json=body).json()["items"]
        # What each meant before anything was changed.
        meant = {ref: tenant.find(ref) for ref in refs}
        pairs = zip(meant.items(), outcomes, strict=True)
        # Names are changed in their order, whatever the one in which they are asked for.
        for (ref, found), outcome in sorted(
            pairs, key=lambda pair: getattr(pair[0][1], "name", "")
        ):
            refused = tenant.refuses_burial(found) if action == "delete" else None
            is_done = found is not None and refused is None
            assert (outcome["ref"], outcome["ok"]) == (ref, is_done), outcome
            if not is_done:
                wanted = "not-found" if found is None else "conflict"
                assert outcome["error"]["code"] == wanted
                continue
            assert found is not None
            assert outcome["id"] == found.id
            if action == "delete":
                # Two references may mean one version, which is deleted once.
                if not found.is_deleted:
                    tenant.bury(found)
            elif action == "set-status":
                tenant.change(found, status=status)
            else:
                tags = found.tags | {tag} if action == "tag" else found.tags - {tag}
                tenant.change(found, tags=tags)

    @rule(side=sides, name=names, kept=numbers)
    def prune(self, side: int, *, name: str, kept: int) -> None:
        tenant = self.tenants[side]
        reply = self.ask(side, "POST", f"/vectors/{name}/prune", json={"keep_last": kept})
        if not tenant.last[name]:
            assert reply.status_code == 404, reply.text
            return
        gone = [one for one in tenant.live(name)[kept:] if not tenant.called(one)]
        assert [item["id"] for item in reply.json()["items"]] == [one.id for one in gone]
        for version in gone:
            tenant.bury(version)

    @rule(
        side=sides,
        name=names,
        alias=aliases,
        number=numbers,
        expected=st.none() | st.integers(0, 4),
        by_header=st.booleans(),
    )
    def point(
        self,
        side: int,
        *,
        name: str,
        alias: str,
        number: int,
        expected: int | None,
        by_header: bool,
    ) -> None:
        tenant = self.tenants[side]
        headers, body = {}, {"version": number}
        if expected is not None and by_header:
            headers = {"if-match": f'"{expected}"'} if expected else {"if-none-match": "*"}
        elif expected is not None:
            body["expected_version"] = expected
        path = f"/vectors/{name}/aliases/{alias}"
        reply = self.ask(side, "PUT", path, json=body, headers=headers)
        now = tenant.aliases.get((name, alias))
        target = tenant.find(f"{name}@{number}")
        if not tenant.last[name]:
            assert reply.status_code == 404, reply.text
        elif expected is not None and expected != (now.number if now else 0):
            assert reply.status_code == (412 if by_header else 409), reply.text
        elif target is None:
            assert reply.status_code == 404, reply.text
        else:
            assert reply.headers["etag"] == f'"{number}"'
            tenant.aliases[name, alias] = target
            tenant.deeds.append(("alias.set", f"{name}@{alias}"))

    @rule(side=sides, name=names, alias=aliases)
    def take_alias(self, side: int, *, name: str, alias: str) -> None:
        tenant = self.tenants[side]
        path = f"/vectors/{name}/aliases/{alias}"
        now = tenant.aliases.get((name, alias))
        shown = self.ask(side, "GET", path)
        reply = self.ask(side, "DELETE", path)
        if now is None:
            assert (shown.status_code, reply.status_code) == (404, 404)
            return
        assert (shown.json()["version"], reply.status_code) == (now.number, 204)
        del tenant.aliases[name, alias]
        tenant.deeds.append(("alias.delete", f"{name}@{alias}"))

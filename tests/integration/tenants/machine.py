"""A state machine over the whole api: two tenants do all that a library is for, in any order.

Every answer is compared with a model in plain Python, and after every step so is what both tenants
can list. Nothing of one tenant may be seen, or changed, by the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from tests.integration.tenants.model import Tenant

NAMES = ("a", "b")
ALIASES = ("prod", "beta")
TAGS = ("x", "round y", "100%")
DESCRIPTIONS = ("", "Round gears", "50% of all_axles")
STATES = ("ready", "retired")
LIMITED_VECTORS = 3
SHOWN = ("id", "name", "version", "description", "tags", "status", "aliases")
SEEDS = range(3)
CONTENTS = range(3)

sides = st.sampled_from((0, 1))
names = st.sampled_from(NAMES)
aliases = st.sampled_from(ALIASES)
numbers = st.integers(1, 4)
tag_sets = st.sets(st.sampled_from(TAGS))
places = st.integers(0, 30)
# How a vector is referred to, and by what; the ids are those of either tenant.
references = st.one_of(
    st.tuples(st.just("own"), places),
    st.tuples(st.just("foreign"), places),
    st.tuples(st.just("ref"), names),
    st.tuples(st.just("ref"), st.builds("{}@{}".format, names, numbers)),
    st.tuples(
        st.just("ref"), st.builds("{}@{}".format, names, st.sampled_from((*ALIASES, "latest")))
    ),
)


class Machine(RuleBasedStateMachine):
    """Two tenants of one service, each with a model of what it has.

    Args:
        http: Reaches the api.
        admit: Makes the headers of a new workspace's administrator, and of a limited member.
        files: Vector files by seed, which carry keys.
        contents: Data sets by number.
    """

    def __init__(
        self,
        http: httpx.Client,
        *,
        admit: Callable[[], Tenant],
        files: Sequence[bytes],
        contents: Sequence[bytes],
    ) -> None:
        super().__init__()
        self.http = http
        self.admit = admit
        self.files = files
        self.contents = contents
        self.tenants: list[Tenant] = []
        self.num_steps = 0

    @initialize()
    def begin(self) -> None:
        self.tenants = [self.admit(), self.admit()]

    def ask(self, side: int, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - of httpx
        headers = {**self.tenants[side].headers, **options.pop("headers", {})}
        reply = self.http.request(method, path, headers=headers, **options)
        assert reply.status_code < 500, (method, path, reply.text)
        return reply

    def written(self, side: int, reference: tuple[str, Any]) -> str:
        """A reference as a caller writes it."""
        kind, what = reference
        if kind == "ref":
            return str(what)
        owner = self.tenants[side if kind == "own" else 1 - side]
        if not owner.versions:
            return "nothing"
        return str(owner.versions[what % len(owner.versions)].id)

    @invariant()
    def everybody_sees_what_is_theirs(self) -> None:
        self.num_steps += 1
        for side in range(len(self.tenants)):
            self.look_at_vectors(side)
            # Few steps change these, so they are looked at now and then, and at the end.
            if self.num_steps % 5 == 0:
                self.look_at_the_rest(side)

    def teardown(self) -> None:
        for side in range(len(self.tenants)):
            self.look_at_the_rest(side)

    def look_at_vectors(self, side: int) -> None:
        """Holds the list of vectors against the model."""
        tenant = self.tenants[side]
        vectors = self.ask(side, "GET", "/vectors", params={"limit": 200}).json()["items"]
        for item in vectors:
            item["aliases"].sort()
        shown = [{name: item[name] for name in SHOWN} for item in vectors]
        assert shown == [tenant.shown(version) for version in tenant.live()]

    def look_at_the_rest(self, side: int) -> None:
        """Holds the lists of data sets and keys, and the trail, against the model."""
        tenant = self.tenants[side]
        datasets = self.ask(side, "GET", "/datasets", params={"limit": 200}).json()["items"]
        kept = {one.id: tenant.shown_name(one) for one in tenant.datasets if not one.is_deleted}
        assert {item["id"]: item["name"] for item in datasets} == kept
        keys = self.ask(side, "GET", "/keys").json()["items"]
        revoked = {key["id"]: key["revoked"] is not None for key in keys}
        assert revoked == tenant.keys
        trail = self.ask(side, "GET", "/audit", params={"limit": 200}).json()["items"]
        deeds = [(item["action"], item["subject"]) for item in trail]
        assert deeds == tenant.deeds[:200]

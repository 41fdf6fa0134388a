"""What one tenant's library must hold, in plain Python: the oracle of the state machine."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

LATEST = "latest"


@dataclass(eq=False, kw_only=True)
class Version:
    """One stored version of a vector."""

    id: str
    name: str
    number: int
    seed: int
    description: str = ""
    tags: set[str] = field(default_factory=set)
    status: str = "ready"
    is_deleted: bool = False

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"


@dataclass(eq=False, kw_only=True)
class DataSet:
    """The items of one file, whatever they are called; `name` is the first that they got."""

    id: str
    name: str
    content: int
    is_deleted: bool = False


class Tenant:
    """What a workspace must hold, and how its members call on the api.

    Attributes:
        headers: With the key of its administrator.
        limited: With a key that may fill the workspace only so far.
        keys: Whether each key, by its id, was revoked.
        texts: Of the keys that were made later and may only read.
        deeds: What the trail must tell, action and subject.
    """

    def __init__(self, headers: dict[str, str], limited: dict[str, str]) -> None:
        self.headers = headers
        self.limited = limited
        self.versions: list[Version] = []
        self.last: Counter[str] = Counter()
        self.aliases: dict[tuple[str, str], Version] = {}
        self.datasets: list[DataSet] = []
        self.dataset_names: dict[str, DataSet] = {}
        self.keys: dict[str, bool] = {}
        self.texts: dict[str, str] = {}
        self.deeds: list[tuple[str, str]] = []

    def live(self, name: str | None = None) -> list[Version]:
        """The versions that are there, of one name or of all, newest first."""
        return [
            version
            for version in reversed(self.versions)
            if not version.is_deleted and name in {None, version.name}
        ]

    def find(self, ref: str) -> Version | None:
        """What a reference means."""
        name, _, rest = ref.partition("@")
        for version in self.live():
            if ref in {version.id, version.ref}:
                return version
        if not rest or rest == LATEST:
            return next(iter(self.live(name)), None)
        return self.aliases.get((name, rest))

    def called(self, version: Version) -> set[str]:
        """Aliases of a version, beside `latest`."""
        return {alias for (_, alias), found in self.aliases.items() if found is version}

    def same(self, name: str, seed: int) -> Version | None:
        """The newest version of a name with this file."""
        return next((one for one in self.live(name) if one.seed == seed), None)

    def store(self, version: Version) -> None:
        """Notes a new version."""
        self.last[version.name] += 1
        self.versions.append(version)
        self.deeds.append(("vector.create", version.id))

    def change(
        self,
        version: Version,
        *,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        status: str | None = None,
    ) -> None:
        """Notes a change; one that changes nothing is no deed."""
        before = (version.description, version.tags, version.status)
        version.description = version.description if description is None else description
        version.tags = version.tags if tags is None else set(tags)
        version.status = status or version.status
        if before != (version.description, version.tags, version.status):
            self.deeds.append(("vector.update", version.id))

    def refuses_burial(self, version: Version | None) -> int | None:
        """The status by which a deletion is refused, if it is."""
        if version is None:
            return 404
        return 409 if self.called(version) else None

    def bury(self, version: Version) -> None:
        """Notes a deletion."""
        version.is_deleted = True
        self.deeds.append(("vector.delete", version.id))

    def shown(self, version: Version) -> dict[str, object]:
        """What a listing must tell of a version."""
        latest = next(iter(self.live(version.name)), None) is version
        return {
            "id": version.id,
            "name": version.name,
            "version": version.number,
            "description": version.description,
            "tags": sorted(version.tags),
            "status": version.status,
            "aliases": sorted(self.called(version) | ({LATEST} if latest else set())),
        }

    def matching(self, filters: dict[str, str]) -> list[Version]:
        """The versions that a listing must show, newest first."""
        return [version for version in self.live() if self._fits(version, filters)]

    def _fits(self, version: Version, filters: dict[str, str]) -> bool:
        texts = [version.name, version.description, "\n".join(sorted(version.tags))]
        called = self.shown(version)["aliases"]
        assert isinstance(called, list)
        return (
            filters.get("name") in {None, version.name}
            and filters.get("status") in {None, version.status}
            and ("tag" not in filters or filters["tag"] in version.tags)
            and ("alias" not in filters or filters["alias"] in called)
            and all(_occurs(word, texts) for word in filters.get("text", "").split())
        )

    def find_dataset(self, ref: str) -> DataSet | None:
        """What a reference to a data set means."""
        by_id = (one for one in self.datasets if one.id == ref and not one.is_deleted)
        return next(by_id, self.dataset_names.get(ref))

    def shown_name(self, dataset: DataSet) -> str:
        """What a list calls a data set: a name that finds it, the first one if it does, or its id.

        Knows no order of further names, so it holds for two names in all.
        """
        finding = [name for name, one in self.dataset_names.items() if one is dataset]
        return dataset.name if dataset.name in finding else next(iter(finding), dataset.id)

    def names_of(self, dataset: DataSet) -> int:
        """How many names a data set has."""
        return sum(one is dataset for one in self.dataset_names.values())

    def bury_dataset(self, dataset: DataSet) -> None:
        """Notes the deletion of a data set, whose names are free again."""
        dataset.is_deleted = True
        kept = {name: one for name, one in self.dataset_names.items() if one is not dataset}
        self.dataset_names = kept
        self.deeds.append(("dataset.delete", dataset.id))


def _occurs(word: str, texts: Iterable[str]) -> bool:
    return any(word.lower() in text.lower() for text in texts)

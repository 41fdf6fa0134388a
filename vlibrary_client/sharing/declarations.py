"""What a library shall hold, as a file declares it, and what is missing for that.

    vectors:
      gears:
        source: {folder: shared/gears}
        tags: [checked]
        aliases: [prod]
      colours:
        source: {hub: me/colours, revision: v1}
      parts:
        source: {server: "http://other:8000", vector: parts@prod}
      both:
        source: {combine: {gears: 0.5, colours: 0.5}}

Nothing is ever deleted, and what is not declared is left as it is.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlibrary_client.calls.sharing import pull_folder
from vlibrary_client.errors import InvalidInputError, VLibraryError
from vlibrary_client.sharing.folders import VectorFolder, read_folder
from vlibrary_client.types import Vector, VectorStatus

if TYPE_CHECKING:
    from vlibrary_client.client import Client

MAX_VECTORS = 1000


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_every_word(cls, value: object) -> object:
        if isinstance(value, cls):
            return value
        if isinstance(value, dict):
            # One that is misspelt would declare nothing.
            found = ", ".join(sorted(map(str, value.keys() - cls.model_fields)))
        else:
            found = "nothing" if value is None else type(value).__name__
        if found:
            raise ValueError(f"wanted {', '.join(cls.model_fields)}, found {found}")
        return value


class Source(_Declared):
    """Where a vector comes from: exactly one of the ways.

    Attributes:
        folder: As `client.vectors.export` writes it; relative to the declaration.
        file: A vector file; relative to the declaration.
        hub: A repository of the Hugging Face hub.
        revision: Of the repository.
        server: Another library's address.
        vector: Which of its vectors.
        combine: Vectors of this library with their weights.
    """

    folder: Path | None = None
    file: Path | None = None
    hub: str | None = None
    revision: str | None = None
    server: str | None = None
    vector: str | None = None
    combine: dict[str, float] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        ways = (self.folder, self.file, self.hub, self.server, self.combine)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("wanted one of folder, file, hub, server and combine")
        if (self.server is None) != (self.vector is None):
            raise ValueError("server and vector belong together")
        if self.revision is not None and self.hub is None:
            raise ValueError("a revision is one of a hub's repository")
        return self


class Entry(_Declared):
    """What is declared of one name; what is not declared stays.

    `source` is where the newest version comes from; the tags are all that it shall have, and
    `aliases` point at it.
    """

    source: Source
    description: str | None = None
    tags: list[str] | None = None
    status: VectorStatus | None = None
    aliases: list[str] = []


class Declaration(_Declared):
    """What a library shall hold, by name."""

    vectors: Annotated[dict[str, Entry], Field(max_length=MAX_VECTORS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """What was done about one name, or would be; `error` tells what stood in the way."""

    name: str
    changes: tuple[str, ...] = ()
    error: str | None = None


def read_declaration(value: Any) -> Declaration:  # noqa: ANN401 - what YAML or JSON holds
    """The declaration that a parsed file makes.

    Raises:
        InvalidInputError: It declares nothing that can be understood; the message names the place.
    """
    try:
        return Declaration.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, reason = first["loc"], first["msg"].removeprefix("Value error, ")
        if where[-1:] == ("[key]",):
            # Of a mapping, which is what stands before the key.
            where = where[:-2]
        if first["type"] == "string_type":
            found = f"{first['input']!s:.40}"
            reason = f"wanted text, found {found}; YAML reads as text what stands in quotes"
        place = ".".join(map(str, where)) or "the file"
        raise InvalidInputError(f"cannot be declared: {place}: {reason}") from None


def sync(
    client: "Client",
    declaration: Declaration,
    *,
    folder: Path,
    dry_run: bool = False,
    other: "Callable[[str], Client] | None" = None,
) -> list[Synced]:
    """Makes a library hold what is declared, name by name; a failure of one stops no other.

    Run again it changes nothing.

    Paths are relative to the folder; `other` makes the client of another library by its address,
    for sources that need one.
    """
    work = _Sync(client, folder=folder, dry_run=dry_run, other=other)
    done = []
    for name, entry in declaration.vectors.items():
        try:
            done.append(Synced(name=name, changes=tuple(work.bring(name, entry))))
        except VLibraryError as error:
            done.append(Synced(name=name, error=str(error)))
    return done


class _Sync:
    def __init__(
        self,
        client: "Client",
        *,
        folder: Path,
        dry_run: bool,
        other: "Callable[[str], Client] | None",
    ) -> None:
        self._vectors = client.vectors
        self._folder = folder
        self._dry_run = dry_run
        self._other = other
        # Names of which a dry run would have stored another version by now.
        self._coming: set[str] = set()

    def bring(self, name: str, entry: Entry) -> list[str]:
        """What changed, in words."""
        if entry.source.combine is not None:
            found, changes = self._combined(name, entry.source.combine)
        else:
            found, changes = self._stored(name, self._read(entry.source))
        if found is None:
            # A dry run: all that is declared would be new.
            self._coming.add(name)
            return [*changes, *(f"alias {alias}" for alias in entry.aliases)]
        return [*changes, *self._described(found, entry), *self._called(found, entry.aliases)]

    def _read(self, source: Source) -> VectorFolder:
        if source.folder is not None:
            return read_folder(self._folder / source.folder)
        if source.file is not None:
            path = self._folder / source.file
            try:
                return VectorFolder(content=path.read_bytes(), config={})
            except OSError:
                raise InvalidInputError(f"{path}: wanted a vector file, found none") from None
        if source.hub is not None:
            return pull_folder(source.hub, revision=source.revision)
        return self._fetch(source.server or "", source.vector or "")

    def _fetch(self, server: str, ref: str) -> VectorFolder:
        if self._other is None:
            raise InvalidInputError(f"no way to reach {server} was given")
        with self._other(server) as client:
            vector = client.vectors.get(ref)
            content = client.vectors.download(vector)
        about = {"description": vector.description, "tags": list(vector.tags)}
        return VectorFolder(content=content, config=about)

    def _stored(self, name: str, source: VectorFolder) -> tuple[Vector | None, list[str]]:
        digest = hashlib.sha256(source.content).hexdigest()
        for vector in self._vectors.iterate(name=name):
            if vector.sha256 == digest:
                return vector, []
        if self._dry_run:
            return None, ["store"]
        stored = self._vectors.upload(
            source.content, name=name, description=source.description, tags=source.tags
        )
        return stored, [f"store {stored.ref}"]

    def _combined(self, name: str, weights: dict[str, float]) -> tuple[Vector | None, list[str]]:
        if self._dry_run:
            if any(ref.partition("@")[0] in self._coming for ref in weights):
                return None, ["combine"]
            found = [(self._vectors.get(ref), weight) for ref, weight in weights.items()]
            # As a sum says of itself, also one that came as a file.
            parts = [
                {"vector": part.ref, "sha256": part.sha256, "weight": weight}
                for part, weight in found
            ]
            for vector in self._vectors.iterate(name=name):
                if vector.hyper_parameters == {"parts": parts}:
                    return vector, []
            return None, ["combine"]
        known = {vector.id for vector in self._vectors.iterate(name=name)}
        combined = self._vectors.combine(name, dict(weights))
        return combined, [] if combined.id in known else [f"combine {combined.ref}"]

    def _described(self, vector: Vector, entry: Entry) -> list[str]:
        changed: dict[str, Any] = {}
        if entry.description not in {None, vector.description}:
            changed["description"] = entry.description
        if entry.tags is not None and set(entry.tags) != set(vector.tags):
            changed["tags"] = entry.tags
        if entry.status not in {None, vector.status}:
            changed["status"] = entry.status
        if changed and not self._dry_run:
            self._vectors.update(vector, **changed)
        return [f"change {name}" for name in changed]

    def _called(self, vector: Vector, aliases: list[str]) -> list[str]:
        moved = [alias for alias in aliases if alias not in vector.aliases]
        for alias in moved if not self._dry_run else ():
            self._vectors.set_alias(vector.name, alias, vector.version)
        return [f"alias {alias}" for alias in moved]

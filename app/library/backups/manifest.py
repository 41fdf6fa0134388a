"""What a backup says about itself: its files and tables, each with a digest."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import InvalidInputError

MANIFEST: Final = "backup.json"
DUMP: Final = "library.dump"
OBJECTS: Final = "objects/"

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Data sets of all but the first workspace lie in a folder of its name.
_FOLDER: Final = r"(datasets(/[a-z0-9][a-z0-9._-]{0,99})?|checkpoints)"
_OBJECT: Final = rf"objects/{_FOLDER}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,199}}"


class BackupFile(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True)

    path: Annotated[str, Field(pattern=rf"^(library\.dump|{_OBJECT})$")]
    sha256: _Digest
    size_bytes: int


class TableContents(BaseModel):
    """How many rows a table has, and one digest of them all, in whatever order they lie."""

    model_config = ConfigDict(frozen=True)

    rows: int
    sha256: _Digest


class Manifest(BaseModel):
    """Everything that is needed to tell whether a backup, or a restored library, is whole.

    `revision` is that of the tables, `place` their schema, `postgres` the server's major version;
    `damaged` names what was damaged or missing already when the backup was made.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    software: str
    created: str
    revision: str
    place: str = "public"
    postgres: int
    tables: dict[str, TableContents]
    files: tuple[BackupFile, ...]
    damaged: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths) or DUMP not in paths:
            raise ValueError(f"wanted {DUMP} among the files, and none twice")
        return self

    @property
    def dump(self) -> BackupFile:
        """The file that holds the database."""
        return next(file for file in self.files if file.path == DUMP)

    @property
    def size_bytes(self) -> int:
        """Length of all files."""
        return sum(file.size_bytes for file in self.files)


def parse_manifest(text: bytes) -> Manifest:
    """The manifest.

    Raises:
        InvalidInputError: It is none, or one of a newer layout.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or MANIFEST
        raise InvalidInputError(
            f"{MANIFEST} is not of a backup: {place}: {problem['msg']}"
        ) from None

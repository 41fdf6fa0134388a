"""What takes several requests: vectors on their way to folders, files and the hub, and back.

The Hugging Face hub is reached through `huggingface_hub`, of the extra `hub`. A token comes from
where that package has it: its login, or `HF_TOKEN`.
"""

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlibrary_client.calls import requests
from vlibrary_client.calls.arguments import VectorRef
from vlibrary_client.errors import (
    ConfigurationError,
    ConnectionFailedError,
    NotFoundError,
    VLibraryError,
)
from vlibrary_client.sharing.folders import (
    CARD_NAME,
    CONFIG_NAME,
    FILE_NAME,
    VectorFolder,
    read_folder,
    write_folder,
)
from vlibrary_client.sharing.gguf import GgufExport, write_gguf
from vlibrary_client.types import Vector
from vlibrary_client.wire.replies import Call, Steps

FILES = (CARD_NAME, CONFIG_NAME, FILE_NAME)


def export(ref: VectorRef, folder: str | Path) -> Steps[Path]:
    """Writes a vector as a folder with `vector.safetensors`, `vector_config.json` and a card.

    Args:
        ref: Which version.
        folder: Made when it is missing; files of the same names are replaced.

    Returns:
        The folder.

    Raises:
        NotFoundError: There is no such vector.
        CorruptDataError: The bytes are not those that were stored.
    """
    vector, content = yield from _with_file(ref)
    return write_folder(Path(folder), vector=vector, content=content)


def export_gguf(ref: VectorRef, path: str | Path) -> Steps[GgufExport]:
    """Writes a vector as a control-vector file of llama.cpp, which is lossy.

    Needs the extra `gguf`; `vlibrary_client.sharing.gguf` tells what is lost.

    Args:
        ref: Which version.
        path: The file; one that is there is replaced.

    Raises:
        NotFoundError: There is no such vector.
        ConfigurationError: `gguf` or `safetensors` is missing.
    """
    vector, content = yield from _with_file(ref)
    return write_gguf(Path(path), vector=vector, content=content)


def import_folder(folder: str | Path, *, name: str | None = None) -> Call[Vector]:
    """Stores what `export` wrote as the next version of a name; the same file again is found.

    Args:
        folder: With `vector.safetensors` and `vector_config.json`.
        name: What it is called here; as in the folder when not given.

    Raises:
        InvalidVectorFileError: The folder holds no vector.
        CorruptDataError: The file is not the one that the configuration names.
        IncompatibleBackboneError: No backbone that the server knows made it.
    """
    return _import(read_folder(Path(folder)), name=name)


def push_to_hub(
    ref: VectorRef,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Steps[str]:
    """Puts a vector into a repository of the Hugging Face hub; the address of the commit.

    The repository has the files of `export` and is made when it is missing. Needs the extra `hub`.

    Args:
        ref: Which version.
        repo_id: Such as `me/gears`.
        private: Whether a repository that is made is private.
        commit_message: Of the commit.
        token: Instead of the one of the hub's login.
        endpoint: Another hub.

    Raises:
        NotFoundError: There is no such vector, or no such repository for the token.
        ConfigurationError: `huggingface_hub` is missing, or told to stay offline.
        ConnectionFailedError: The hub cannot be reached.
    """
    vector, content = yield from _with_file(ref)
    with _hub(endpoint, token) as api, tempfile.TemporaryDirectory(prefix="vlibrary-") as folder:
        write_folder(Path(folder), vector=vector, content=content)
        api.create_repo(repo_id, private=private, exist_ok=True)
        message = commit_message or f"{vector.name}@{vector.version}"
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, allow_patterns=FILES, commit_message=message
        )
    return str(commit.commit_url)


def from_hub(
    repo_id: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Call[Vector]:
    """Stores what a repository of the Hugging Face hub holds; the same file again is found.

    Args:
        repo_id: Such as `me/gears`.
        name: What it is called here; as in the repository when not given.
        revision: A branch, a tag or a commit.
        token: Instead of the one of the hub's login.
        endpoint: Another hub.

    Raises:
        NotFoundError: There is no such repository or revision for the token.
        InvalidVectorFileError: It holds no vector.
        CorruptDataError: The file is not the one that the configuration names.
        IncompatibleBackboneError: No backbone that the server knows made it.
        ConfigurationError: `huggingface_hub` is missing, or told to stay offline.
    """
    found = pull_folder(repo_id, revision=revision, token=token, endpoint=endpoint)
    return _import(found, name=name)


def pull_folder(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> VectorFolder:
    """What a repository holds at a revision; only the three files of a vector are fetched.

    Raises:
        ConfigurationError: `huggingface_hub` is missing, or told to stay offline.
        NotFoundError: There is no such repository or revision for this token.
        InvalidVectorFileError: The repository holds no vector.
        CorruptDataError: The vector file is not the one that its configuration names.
        ConnectionFailedError: The hub cannot be reached.
    """
    with _hub(endpoint, token) as api:
        # A hub that is away must not be answered for by what was fetched from it some other time.
        commit = api.model_info(repo_id, revision=revision or "main").sha
        folder = api.snapshot_download(repo_id, revision=commit, allow_patterns=list(FILES))
    return read_folder(Path(folder))


def _with_file(ref: VectorRef) -> Generator[Call[Any], Any, tuple[Vector, bytes]]:
    vector = yield from requests.get_vector(ref)
    return vector, (yield from requests.download_vector(vector))


def _import(found: VectorFolder, *, name: str | None) -> Call[Vector]:
    return requests.upload_vector(
        found.content,
        name=name or found.config["name"],
        description=found.description,
        tags=found.tags,
    )


@contextmanager
def _hub(endpoint: str | None, token: str | None) -> Iterator[Any]:
    """The hub's api, whose errors are those of this package; they name the repository."""
    try:
        # By itself it brings its errors along only when they are used.
        from huggingface_hub import HfApi, errors  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "The hub needs huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        yield HfApi(endpoint=endpoint, token=token, library_name="vlibrary")
    except errors.OfflineModeIsEnabled as error:
        raise ConfigurationError(f"The hub is switched off here: {error}") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise NotFoundError(_first_line(error)) from error
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionFailedError(_first_line(error)) from error
    except errors.HFValidationError as error:
        raise ConfigurationError(_first_line(error)) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise VLibraryError(_first_line(error), status=status) from error
    # The hub's package tells of connections by its own HTTP client's errors.
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise ConnectionFailedError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"The hub: {' '.join(lines[:2])}" if lines else f"The hub: {type(error).__name__}"

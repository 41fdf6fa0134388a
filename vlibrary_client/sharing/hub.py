"""Folders of vectors as repositories of the Hugging Face hub, through `huggingface_hub`.

Needs the extra `hub`: `pip install 'vlibrary-client[hub]'`. A token comes from where that package
has it: its login, or `HF_TOKEN`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

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
from vlibrary_client.types import Vector

FILES = (CARD_NAME, CONFIG_NAME, FILE_NAME)


def push_folder(
    vector: Vector,
    content: bytes,
    *,
    repo_id: str,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Puts a vector into a repository, which is made when it is missing, as one commit.

    Returns:
        The address of the commit.

    Raises:
        ConfigurationError: `huggingface_hub` is missing, or told to stay offline.
        NotFoundError: The repository is not there for this token.
        ConnectionFailedError: The hub cannot be reached.
    """
    hub = _hub()
    with _hub_errors(hub), tempfile.TemporaryDirectory(prefix="vlibrary-") as folder:
        write_folder(Path(folder), vector=vector, content=content)
        api = hub.HfApi(endpoint=endpoint, token=token, library_name="vlibrary")
        api.create_repo(repo_id, private=private, exist_ok=True)
        message = commit_message or f"{vector.name}@{vector.version}"
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, allow_patterns=FILES, commit_message=message
        )
    return str(commit.commit_url)


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
    hub = _hub()
    with _hub_errors(hub):
        folder = hub.snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=list(FILES),
            token=token,
            endpoint=endpoint,
            library_name="vlibrary",
        )
    return read_folder(Path(folder))


def _hub() -> ModuleType:
    try:
        import huggingface_hub  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "The hub needs huggingface_hub: pip install 'vlibrary-client[hub]'"
        ) from None
    return huggingface_hub


@contextmanager
def _hub_errors(hub: ModuleType) -> Iterator[None]:
    """What the hub's package raises, as errors of this one; its sentences name the repository."""
    errors = hub.errors
    try:
        yield
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
    except OSError as error:
        raise ConnectionFailedError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"The hub: {' '.join(lines[:2])}" if lines else f"The hub: {type(error).__name__}"

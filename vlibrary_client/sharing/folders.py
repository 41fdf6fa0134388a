"""A vector as a folder: `vector.safetensors`, `vector_config.json` and a `README.md` for people.

The file alone is the whole vector, with its keys and measurements; the configuration repeats what
somebody may want to read without it, and names it by its digest. Knows no server.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlibrary_client.errors import ConfigurationError, CorruptDataError, InvalidVectorFileError
from vlibrary_client.sharing.cards import card_text
from vlibrary_client.types import Vector

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FILE_NAME = "vector.safetensors"
CONFIG_NAME = "vector_config.json"
CARD_NAME = "README.md"
FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1024 * 1024
_TENSORS = {"attention_vectors", "attention_weights", "mlp_vectors", "mlp_weights"}

_FACTS = (
    "name",
    "version",
    "method",
    "shots",
    "seed",
    "status",
    "dose",
    "max_dose",
    "dataset_sha256",
    "hyper_parameters",
    "library_versions",
    "description",
    "tags",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFolder:
    """What a folder holds.

    `config` is what `vector_config.json` says, with at least `name` and `sha256`.
    """

    content: bytes
    config: dict[str, Any]

    @property
    def description(self) -> str:
        """Text for people; empty where the folder has none."""
        return str(self.config.get("description") or "")

    @property
    def tags(self) -> list[str]:
        """For filters."""
        tags = self.config.get("tags") or []
        return [str(tag) for tag in tags] if isinstance(tags, list) else []


def write_folder(folder: Path, *, vector: Vector, content: bytes) -> Path:
    """Writes the three files of a vector; those that are there are replaced.

    The vector is as `client.vectors.get` returns it, with its measurements.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {name: getattr(vector, name) for name in _FACTS}
    config = {
        "format_version": FORMAT_VERSION,
        "base_model_name_or_path": vector.backbone.name,
        "backbone": asdict(vector.backbone),
        **facts,
        # Of this file: it has what was measured since the stored one.
        "sha256": hashlib.sha256(content).hexdigest(),
        "evaluations": [asdict(measured) for measured in vector.evaluations],
    }
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    (folder / FILE_NAME).write_bytes(content)
    (folder / CARD_NAME).write_text(card_text(vector), encoding="utf-8")
    # Last, because a folder is one by its configuration.
    (folder / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")
    return folder


def read_folder(folder: Path) -> VectorFolder:
    """What a folder holds, after the file was checked against its digest.

    Raises:
        InvalidVectorFileError: A file is missing or cannot be read.
        CorruptDataError: The vector file is not the one that the configuration names.
    """
    config = _read_config(folder / CONFIG_NAME)
    try:
        content = (folder / FILE_NAME).read_bytes()
    except OSError:
        raise InvalidVectorFileError(
            f"{folder} is no vector: wanted {FILE_NAME} beside {CONFIG_NAME}, found none"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if config["sha256"] != found:
        raise CorruptDataError(
            f"{folder / FILE_NAME}: wanted SHA-256 {config['sha256']}, found {found}"
        )
    return VectorFolder(content=content, config=config)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise InvalidVectorFileError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        config = json.loads(data)
    except (OSError, ValueError, RecursionError):
        raise InvalidVectorFileError(
            f"{path.parent} is no vector: wanted a readable {CONFIG_NAME}, found none"
        ) from None
    if not isinstance(config, dict) or config.get("format_version") != FORMAT_VERSION:
        raise InvalidVectorFileError(f"{path}: wanted format_version {FORMAT_VERSION}")
    for name in ("name", "sha256"):
        if not isinstance(config.get(name), str):
            raise InvalidVectorFileError(f"{path}: wanted a text under {name}, found none")
    return config


def read_shift(content: bytes) -> "npt.NDArray[np.float32]":
    """The shifts of a vector file at strength 1, `[layers, 2, hidden]`: attention, then MLP.

    Raises:
        ConfigurationError: `safetensors` is missing.
        InvalidVectorFileError: It is no vector file.
    """
    try:
        import numpy as np  # noqa: PLC0415 - comes with an extra
        import safetensors.numpy  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("to read a vector file, pip install safetensors numpy") from None
    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError:
        raise InvalidVectorFileError("no vector file: safetensors cannot read it") from None
    if set(tensors) != _TENSORS:
        raise InvalidVectorFileError(f"no vector file: wanted {', '.join(sorted(_TENSORS))}")
    try:
        branches = [
            tensors[f"{branch}_weights"][:, None] * tensors[f"{branch}_vectors"]
            for branch in ("attention", "mlp")
        ]
        shift: npt.NDArray[np.float32] = np.stack(branches, axis=1).astype(np.float32)
    except (IndexError, ValueError):
        raise InvalidVectorFileError("no vector file: its tensors do not fit each other") from None
    if shift.ndim != 3 or not np.isfinite(shift).all():  # noqa: PLR2004 - layers, branches, width
        raise InvalidVectorFileError("no vector file: it has values that are not finite")
    return shift

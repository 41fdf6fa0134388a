"""A vector as a folder: `vector.safetensors`, `vector_config.json` and a `README.md` for people.

The file alone is the whole vector, with its keys and measurements; the configuration repeats what
somebody may want to read without it, and names it by its digest. The page tells what a vector is,
how it did and how it is used; what others wrote (names, descriptions) is text there and never
markup or front matter of its own. Knows no server.
"""

import hashlib
import html
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlibrary_client.calls.requests import replace_file
from vlibrary_client.errors import ConfigurationError, CorruptDataError, InvalidVectorFileError
from vlibrary_client.types import Evaluation, Vector

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FILE_NAME = "vector.safetensors"
CONFIG_NAME = "vector_config.json"
CARD_NAME = "README.md"
FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1024 * 1024
LIBRARY_NAME = "vlibrary"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
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
    replace_file(folder / FILE_NAME, content)
    replace_file(folder / CARD_NAME, _card_text(vector).encode())
    # Last, because a folder is one by its configuration.
    replace_file(folder / CONFIG_NAME, f"{text}\n".encode())
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
    except KeyError as error:
        # A type of numbers that numpy has not.
        raise InvalidVectorFileError(f"no vector file: wanted float32, found {error}") from None
    if set(tensors) != _TENSORS:
        raise InvalidVectorFileError(f"no vector file: wanted {', '.join(sorted(_TENSORS))}")
    if found := {str(tensor.dtype) for tensor in tensors.values()} - {"float32"}:
        raise InvalidVectorFileError(f"no vector file: wanted float32, found {', '.join(found)}")
    try:
        branches = [
            tensors[f"{branch}_weights"][:, None] * tensors[f"{branch}_vectors"]
            for branch in ("attention", "mlp")
        ]
        shift: npt.NDArray[np.float32] = np.stack(branches, axis=1)
    except (IndexError, ValueError):
        raise InvalidVectorFileError("no vector file: its tensors do not fit each other") from None
    if shift.ndim != 3 or not np.isfinite(shift).all():  # noqa: PLR2004 - layers, branches, width
        raise InvalidVectorFileError("no vector file: it has values that are not finite")
    return shift


def _card_text(vector: Vector) -> str:
    """The page in Markdown, with the front matter that the hub reads."""
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in _metadata(vector).items())
    parts = [f"---\n{front}\n---", f"# {_escaped(vector.name)}"]
    if vector.description:
        parts.append(_escaped(vector.description))
    parts += [_facts(vector), _scores(vector), _usage(vector)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(vector: Vector) -> dict[str, Any]:
    """The front matter; values are JSON, which every reader of YAML takes."""
    found: dict[str, Any] = {
        "library_name": LIBRARY_NAME,
        "pipeline_tag": "image-text-to-text",
        "tags": [LIBRARY_NAME, vector.method, *vector.tags],
    }
    # Other names, such as a folder's, are no models of the hub, and it refuses them.
    if _HUB_ID.fullmatch(vector.backbone.name):
        found["base_model"] = vector.backbone.name
    if vector.evaluations:
        results = [_result(measured) for measured in vector.evaluations]
        found["model-index"] = [{"name": vector.name, "results": results}]
    return found


def _result(measured: Evaluation) -> dict[str, Any]:
    return {
        "task": {"type": "visual-question-answering"},
        "dataset": {"name": measured.dataset, "type": measured.dataset, "split": measured.split},
        "metrics": [{"type": "accuracy", "name": measured.scorer, "value": measured.accuracy}],
    }


def _facts(vector: Vector) -> str:
    backbone = vector.backbone
    rows = {
        "backbone": f"{backbone.name} ({backbone.architecture}, {backbone.num_layers} layers)",
        "fingerprint": backbone.fingerprint,
        "method": f"{vector.method}, {vector.shots} demonstrations a context, seed {vector.seed}",
        "held-out items": f"{vector.status}. {vector.advice}",
        "version": f"{vector.version}, stored {vector.created:%Y-%m-%d}",
        "SHA-256": vector.sha256,
    }
    body = "\n".join(f"| {name} | {_escaped(value)} |" for name, value in rows.items())
    return f"A multimodal in-context vector for a frozen backbone.\n\n| | |\n| --- | --- |\n{body}"


def _scores(vector: Vector) -> str:
    if not vector.evaluations:
        return "## Scores\n\nNothing was measured."
    head = "| data | items | accuracy | 95 % interval | zero-shot | ICL | kNN-ICL |"
    rows = "\n".join(map(_score, vector.evaluations))
    return f"## Scores\n\n{head}\n| --- | --- | --- | --- | --- | --- | --- |\n{rows}"


def _score(measured: Evaluation) -> str:
    cells = (
        _escaped(f"{measured.dataset} {measured.split}, {measured.scorer}"),
        str(measured.items),
        _percent(measured.accuracy),
        f"{_percent(measured.low)} to {_percent(measured.high)}",
        *map(_percent, (measured.zero_shot, measured.icl, measured.knn_icl)),
    )
    return f"| {' | '.join(cells)} |"


def _usage(vector: Vector) -> str:
    return f"""## Use

In a library, where a server of the backbone runs:

```python
from vlibrary_client import Client

with Client() as client:
    vector = client.vectors.import_folder(".")
    print(client.steer.generate("What is this?", images=["a.png"], vector=vector).text)
```

In a process with the backbone, without a server:

```python
from vlibrary_client import apply

with apply(model, "."):  # {_escaped(vector.backbone.architecture)}
    model.generate(**inputs)
```"""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _escaped(text: str) -> str:
    """The text on one line, as a reader of Markdown shows it."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))

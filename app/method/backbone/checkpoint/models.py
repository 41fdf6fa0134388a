"""A checkpoint's configuration and weights, read whole or refused with what is wrong with them."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils.hub import cached_file, extract_commit_hash

from app.core.errors import NotFoundError, UnsupportedBackboneError
from app.core.telemetry.logs import get_logger
from app.method.backbone.checkpoint.fingerprint import sizes_of
from app.method.backbone.checkpoint.placement import leave_inputs

EAGER: Final = "eager"
WANTED: Final = "a folder or hub id with a checkpoint in safetensors files"
_INDEX: Final = "model.safetensors.index.json"
_MOST_NAMED: Final = 3

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckpointPlace:
    """Where a checkpoint lies.

    Attributes:
        revision: Commit, branch or tag of a hub id; None for a folder, and for the main branch.
    """

    source: str
    place: str
    revision: str | None = None

    def unsupported(self, found: str, error: Exception | None = None) -> UnsupportedBackboneError:
        """An error that tells which part cannot be used, and why."""
        reason = found if error is None else f"{found}: {first_line(error)}"
        return UnsupportedBackboneError(
            f"{self.source} cannot be loaded: wanted an image-text-to-text model and its "
            f"processor, found {reason}",
            details={"source": self.source, "reason": type(error).__name__ if error else reason},
        )

    def missing(self, wanted: str, error: Exception) -> NotFoundError:
        """An error that tells what is not there."""
        named = self.source if self.revision is None else f"{self.source} at {self.revision}"
        return NotFoundError(
            f"No such backbone: wanted {wanted}, found {named}: {first_line(error)}",
            details={"source": self.source, "reason": type(error).__name__},
        )


def first_line(error: Exception) -> str:
    """What an error says at first; a line that announces another comes with that."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason"]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def pinned(checkpoint: CheckpointPlace) -> CheckpointPlace:
    """The checkpoint at the commit that its revision stands for now; a folder is as it is.

    A branch may move while its files are fetched; a commit does not, and tells weights apart.

    Raises:
        NotFoundError: The hub, or what is kept of it here, has no such model or revision.
    """
    if Path(checkpoint.place).is_dir():
        return checkpoint
    try:
        found = cached_file(checkpoint.place, "config.json", revision=checkpoint.revision)
    except OSError as error:
        raise checkpoint.missing(WANTED, error) from error
    commit = extract_commit_hash(found, None)
    return replace(checkpoint, revision=commit or checkpoint.revision)


def read_config(checkpoint: CheckpointPlace) -> PreTrainedConfig:
    """The configuration of a checkpoint's model.

    Raises:
        NotFoundError: There is no checkpoint.
        UnsupportedBackboneError: Its configuration is invalid, or asks for code of its own.
    """
    folder = Path(checkpoint.place)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise checkpoint.missing(WANTED, FileNotFoundError("no config.json in the folder"))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            checkpoint.place, revision=checkpoint.revision, trust_remote_code=False
        )
    except OSError as error:
        if folder.is_dir():
            raise checkpoint.unsupported("an invalid config.json", error) from error
        raise checkpoint.missing(WANTED, error) from error
    except Exception as error:
        if _asks_for_code(checkpoint):
            raise checkpoint.unsupported(
                "one that brings code of its own (auto_map in config.json), which is never run"
            ) from error
        raise checkpoint.unsupported("an invalid config.json", error) from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:  # noqa: SLF001 - its only list
        raise checkpoint.unsupported(f"model_type {config.model_type} in config.json")
    try:
        sizes_of(config)
    except (AttributeError, RuntimeError) as error:
        raise checkpoint.unsupported(
            "a text decoder without one size of each kind", error
        ) from error
    return config


def load_model(
    checkpoint: CheckpointPlace,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    attention: str,
    places: Mapping[str, torch.device] | None = None,
) -> PreTrainedModel:
    """The model with all of its weights, on the CPU or where `places` says of each part.

    A family without the attention implementation gets `eager`.

    Raises:
        NotFoundError: There are no weights in safetensors files.
        UnsupportedBackboneError: Weights are missing, damaged, or packed in a way that is not
            installed.
    """
    _require_shards(checkpoint)
    _require_settings(checkpoint)
    options: dict[str, Any] = {
        "revision": checkpoint.revision,
        "dtype": dtype,
        "attn_implementation": attention,
        # Pickled weights run code when they are read.
        "use_safetensors": True,
        "trust_remote_code": False,
        # What does not fit is told by name below.
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    if places is not None:
        options["device_map"] = dict(places)
    try:
        try:
            model, report = _load(checkpoint.place, options)
        except ValueError as error:
            if attention == EAGER or "attention implementation" not in str(error):
                raise
            log.warning(
                "attention not supported, eager attention is used",
                action="backbone.load",
                attention=attention,
                backbone=checkpoint.source,
            )
            model, report = _load(checkpoint.place, {**options, "attn_implementation": EAGER})
    except OSError as error:
        raise checkpoint.missing(WANTED, error) from error
    except SafetensorError as error:
        raise checkpoint.unsupported("damaged weights", error) from error
    except Exception as error:
        # Libraries that read quantised weights fail in ways of their own.
        raise checkpoint.unsupported(_quantisation(config) or "weights", error) from error
    _require_whole(checkpoint, report)
    if places is not None:
        leave_inputs(model)
    return model


def _load(place: str, options: Mapping[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    load: Any = AutoModelForImageTextToText.from_pretrained
    with warnings.catch_warnings():
        # It knows no parameters but those of modules, and some families have others beside them.
        warnings.filterwarnings("ignore", message="The following device_map keys do not match")
        loaded: tuple[PreTrainedModel, dict[str, Any]] = load(place, **options)
    return loaded


def _require_whole(checkpoint: CheckpointPlace, report: Mapping[str, Iterable[Any]]) -> None:
    """Returns when every weight of the model was in the checkpoint, in its shape."""
    absent = sorted(report["missing_keys"])
    if absent:
        raise checkpoint.unsupported(f"{len(absent)} weights missing: {_some(absent)}")
    misfits = [
        f"{name} {tuple(found)} instead of {tuple(wanted)}"
        for name, found, wanted in sorted(report["mismatched_keys"])
    ]
    if misfits:
        raise checkpoint.unsupported(f"{len(misfits)} weights of another shape: {_some(misfits)}")


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _asks_for_code(checkpoint: CheckpointPlace) -> bool:
    try:
        found, _ = PreTrainedConfig.get_config_dict(checkpoint.place, revision=checkpoint.revision)
    except (OSError, ValueError, TypeError):
        return False
    return "auto_map" in found


def _require_settings(checkpoint: CheckpointPlace) -> None:
    """Returns when what is said of generation can be read: transformers passes over what cannot."""
    path = Path(checkpoint.place) / GENERATION_CONFIG_NAME
    if path.is_file():
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise checkpoint.unsupported(f"an invalid {path.name}", error) from error


def _require_shards(checkpoint: CheckpointPlace) -> None:
    """Returns when every file of weights in a folder is there and whole."""
    folder = Path(checkpoint.place)
    index = folder / _INDEX
    if index.is_file():
        try:
            wanted = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise checkpoint.unsupported(f"an invalid {_INDEX}", error) from error
        absent = [name for name in wanted if not (folder / name).is_file()]
        if absent:
            raise checkpoint.unsupported(
                f"{len(absent)} of the {len(wanted)} files of {_INDEX} missing: {_some(absent)}"
            )
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise checkpoint.unsupported(f"a damaged {path.name}", error) from error


def _quantisation(config: PreTrainedConfig) -> str | None:
    """What to say of how the weights are packed, where they are."""
    packing = getattr(config, "quantization_config", None)
    if not isinstance(packing, Mapping):
        return None
    return f"weights quantised by {packing.get('quant_method', 'an unknown method')}"

"""The frozen vision-language model with its processor, and the fingerprint that names it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from app.core.backbones import BackboneDescription
from app.core.errors import ConfigurationError, UnsupportedBackboneError
from app.method.backbone.chat import AnswerFormat, adopt_template, find_answer_format
from app.method.backbone.checkpoint.digests import digest_of_files
from app.method.backbone.checkpoint.fingerprint import describe, digest_of_parameters
from app.method.backbone.checkpoint.models import CheckpointPlace, load_model, pinned, read_config
from app.method.backbone.checkpoint.placement import device_map, require_accelerate
from app.method.backbone.checkpoint.processors import load_processor

POCKET: Final = "pocket"
_ASSETS: Final = Path(__file__).resolve().parents[2] / "assets"
POCKET_FOLDER: Final = _ASSETS / "pocket-lvlm"
# Bundled backbones by the name that asks for them.
BUNDLED: Final[Mapping[str, Path]] = {POCKET: POCKET_FOLDER, "pocket-2": _ASSETS / "pocket-2"}

# How transformers is told to spread a model, and whether the first device gets no layers then.
_SPREADS: Final[Mapping[str, bool]] = {"balanced": False, "balanced_low_0": True}
_DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A loaded backbone in evaluation mode whose parameters take no gradient.

    Attributes:
        answer_format: How its chat template writes an answer.
        eos_token_ids: Tokens that end a generation, ascending.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    name: str
    description: BackboneDescription
    answer_format: AnswerFormat
    eos_token_ids: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where tokens go in and logits come out; layers may lie elsewhere."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.dtype

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor's tokenizer; it has a padding token."""
        return cast("PreTrainedTokenizerBase", self.processor.tokenizer)

    @property
    def num_layers(self) -> int:
        """Decoder layers of the text decoder."""
        return self.description.num_layers

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.description.hidden_size

    def fits_context(self, num_tokens: int) -> bool:
        """Whether so many tokens are no more than the backbone was made for."""
        limit = self.description.max_position_embeddings
        return not limit or num_tokens <= limit


def _ids(value: object) -> Iterable[int]:
    if isinstance(value, int):
        return (value,)
    return tuple(value) if isinstance(value, list | tuple) else ()


def _without_choices(config: GenerationConfig | None) -> GenerationConfig:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    make: Any = GenerationConfig
    kept: GenerationConfig = make(**{name: getattr(config, name, None) for name in names})
    return kept


def backbone_from_parts(
    model: PreTrainedModel, processor: ProcessorMixin, *, name: str, revision: str | None = None
) -> Backbone:
    """A backbone from a model and a processor that are already in memory.

    The model is put into evaluation mode and its parameters are frozen. A tokenizer without a
    padding token gets its end token for that, and a processor without a chat template gets its
    tokenizer's. Of the model's `generation_config` only the tokens
    stay that begin, end and pad a text: how tokens are chosen is said by whoever asks.

    Without a revision the weights are digested.

    Raises:
        UnsupportedBackboneError: The chat template has no end of turn, or the tokenizer no token
            that could pad.
    """
    tokenizer = processor.tokenizer
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise UnsupportedBackboneError(
                "The tokenizer cannot pad: wanted a padding or end token, found neither"
            )
        tokenizer.pad_token = tokenizer.eos_token
    adopt_template(processor)
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    layout = find_answer_format(processor)
    model.generation_config = _without_choices(getattr(model, "generation_config", None))
    ends = {
        *_ids(model.generation_config.eos_token_id),
        *_ids(tokenizer.eos_token_id),
        layout.end_token_id,
    }
    return Backbone(
        model=model,
        processor=processor,
        name=name,
        description=describe(
            model, processor, name=name, revision=revision or digest_of_parameters(model)
        ),
        answer_format=layout,
        eos_token_ids=tuple(sorted(ends)),
    )


def _resolve_device(device: str) -> torch.device:
    if device == "auto" or device in _SPREADS:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "sequential" or device.startswith("{"):
        raise ConfigurationError(
            f"Layers are spread evenly or not at all: wanted {', '.join(_SPREADS)}, auto, cpu or a "
            f"device such as cuda:1, found {device}; CUDA_VISIBLE_DEVICES chooses the devices"
        )
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"Unknown device: wanted auto, cpu, cuda or balanced, found {device}"
        ) from error
    try:
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        # What is said in place of an error is torch's own: no such kind, number, driver or room.
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"Cannot compute on {device}: wanted a device of this machine, which has the CPU and "
            f"{torch.cuda.device_count()} GPUs that torch {torch.__version__} can use: {reason}"
        ) from error
    return found


def visible_devices() -> list[torch.device]:
    """What layers are spread over."""
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def _resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in _DTYPES:
        raise ConfigurationError(f"Unknown dtype: wanted auto, {', '.join(_DTYPES)}, found {dtype}")
    return _DTYPES[dtype]


def _identity(checkpoint: CheckpointPlace) -> str:
    """What tells these weights from others."""
    folder = Path(checkpoint.place)
    return digest_of_files(folder) if folder.is_dir() else checkpoint.revision or checkpoint.place


def load_backbone(
    source: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "sdpa",
) -> Backbone:
    """Loads a backbone with its processor.

    Args:
        source: `pocket` or `pocket-2` for a bundled one, a folder, or a hub id.
        revision: Commit, branch or tag of a hub id; its main branch if None.
        device: `auto` takes a GPU when there is one, `cuda:1` a certain one. `balanced` spreads the
            decoder layers over all GPUs, `balanced_low_0` over all but the first, where all else
            lies; with less than two GPUs they are as `auto`.
        dtype: `auto` is float32 on a CPU and bfloat16 elsewhere.
        attention: The attention implementation, `sdpa` or `eager`; a family without it gets
            `eager`, which is logged.

    Raises:
        NotFoundError: There is no such checkpoint.
        UnsupportedBackboneError: It is no whole image-text-to-text model with a usable processor;
            the error tells which part is wrong.
        ConfigurationError: The device or the dtype is unknown, or a folder is to have a revision.
    """
    place = str(BUNDLED.get(source, source))
    if revision is not None and Path(place).is_dir():
        raise ConfigurationError(
            f"A revision is a commit, branch or tag of a hub id: wanted one, found {source}, which "
            "lies in a folder"
        )
    target = _resolve_device(device)
    precision = _resolve_dtype(dtype, target)
    checkpoint = pinned(CheckpointPlace(source=source, place=place, revision=revision))
    config = read_config(checkpoint)
    processor = _load_processor(checkpoint, config)
    places = None
    if device in _SPREADS and len(devices := visible_devices()) > 1:
        require_accelerate()
        places = device_map(config, devices, spares_first=_SPREADS[device])
    model = load_model(checkpoint, config, dtype=precision, attention=attention, places=places)
    if places is None:
        nn.Module.to(model, target)
    return backbone_from_parts(model, processor, name=source, revision=_identity(checkpoint))


def _load_processor(checkpoint: CheckpointPlace, config: PreTrainedConfig) -> ProcessorMixin:
    try:
        processor = load_processor(checkpoint.place, config, revision=checkpoint.revision)
    except Exception as error:
        # Its parts are read by many libraries, each with errors of its own.
        raise checkpoint.unsupported(
            "no processor" if isinstance(error, OSError) else "a processor that cannot be used",
            error,
        ) from error
    if not hasattr(processor, "image_processor"):
        raise checkpoint.unsupported(
            f"{type(processor).__name__}, which takes no pictures, for a processor"
        )
    return processor

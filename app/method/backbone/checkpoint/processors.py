"""A checkpoint's processor, as far as texts and pictures need it.

Many families' processors take videos as well, and the part for those wants torchvision, of which
not every torch has a build. Nothing here shows videos, so where torchvision does not work,
processors are loaded without that part.
"""

import importlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast, no_type_check

from transformers import PreTrainedConfig, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, AutoProcessor
from transformers.utils.hub import cached_file

_FILES: Final = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
_VIDEOS: Final = "video_processor"
_Processor: Any = ProcessorMixin  # its methods have no types


class NoVideos(_Processor):  # type: ignore[misc]
    """Leaves out the part for videos of the processor class that it is mixed into.

    It stands behind that class, so that it sees what its constructor hands on.
    """

    # Some classes hand these on to every template, videos or not.
    video_processor: Any = SimpleNamespace(num_frames=None, fps=None)

    def __init__(self, *parts: object, **options: object) -> None:
        names = super().get_attributes()
        options.pop(_VIDEOS, None)
        kept = [part for name, part in zip(names, parts, strict=False) if name != _VIDEOS]
        super().__init__(*kept, **options)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of the parts that are loaded."""
        return [name for name in super().get_attributes() if name != _VIDEOS]

    @classmethod
    def _get_arguments_from_pretrained(cls, *place: object, **options: object) -> list[object]:
        parts = iter(super()._get_arguments_from_pretrained(*place, **options))
        names = super().get_attributes()
        return [None if name == _VIDEOS else next(parts) for name in names]


class PixtralProcessor(_Processor):  # type: ignore[misc]
    """Pixtral's layout of a picture: rows of image tokens, each with a break, the last with an end.

    The family's own class cannot be imported without torchvision.
    """

    patch_size: int
    spatial_merge_size: int
    image_token: str
    image_break_token: str
    image_end_token: str
    image_token_id: int

    # By position, as a processor's file is read; the names are taken from its code, so that it must
    # not be wrapped by checks of types.
    @no_type_check
    def __init__(  # noqa: PLR0917
        self,
        image_processor: Any = None,  # noqa: ANN401 - untyped in transformers
        tokenizer: Any = None,  # noqa: ANN401
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",  # noqa: S107
        image_break_token: str = "[IMG_BREAK]",  # noqa: S107
        image_end_token: str = "[IMG_END]",  # noqa: S107
        **_others: object,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.patch_size = patch_size
        self.spatial_merge_size = spatial_merge_size
        self.image_token = image_token
        self.image_break_token = image_break_token
        self.image_end_token = image_end_token
        tokens = (image_token, image_break_token, image_end_token)
        self.image_token_ids = tokenizer.convert_tokens_to_ids(list(tokens))
        self.image_token_id = self.image_token_ids[0]

    @property
    def _side(self) -> int:
        """Pixels that one token stands for, in each direction."""
        return self.patch_size * self.spatial_merge_size

    def _process_images(self, images: object, **options: object) -> Any:  # noqa: ANN401
        return super()._process_images(images, **{**options, "patch_size": self._side})

    def replace_image_token(self, image_inputs: Any, image_idx: int, **_options: object) -> str:  # noqa: ANN401
        """What stands for a picture."""
        height, width = (int(side) // self._side for side in image_inputs["image_sizes"][image_idx])
        row = self.image_token * width
        return self.image_break_token.join([row] * height) + self.image_end_token


@cache
def _has_torchvision() -> bool:
    """Whether torchvision can be used; one that was built for another torch cannot."""
    try:
        importlib.import_module("torchvision.transforms.v2.functional")
    except (ImportError, RuntimeError, OSError, AttributeError):
        return False
    return True


def load_processor(
    place: str, config: PreTrainedConfig, *, revision: str | None = None
) -> ProcessorMixin:
    """The processor of a checkpoint.

    Raises:
        Exception: Whatever transformers raises, from an OSError about a missing file to an
            ImportError about a missing package.
    """
    kind: Any = AutoProcessor
    if not _has_torchvision():
        kind = _without_videos(config, name=_class_name(place, revision))
    return cast(
        "ProcessorMixin", kind.from_pretrained(place, revision=revision, trust_remote_code=False)
    )


def _without_videos(config: PreTrainedConfig, *, name: str | None) -> Any:  # noqa: ANN401
    """The class that reads the checkpoint, as far as it works without torchvision."""
    if name == PixtralProcessor.__name__:
        return PixtralProcessor
    known: Any = getattr(importlib.import_module("transformers"), name, None) if name else None
    if known is None:
        known = PROCESSOR_MAPPING.get(type(config), None)
    if known is None or _VIDEOS not in known.get_attributes():
        return AutoProcessor
    return type(known.__name__, (known, NoVideos), {})


def _class_name(place: str, revision: str | None) -> str | None:
    """The name of the processor class, as the first of the checkpoint's files says it."""
    for file in _FILES:
        path = cached_file(
            place,
            file,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        found = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(found, Mapping) and isinstance(found.get("processor_class"), str):
            return str(found["processor_class"])
    return None

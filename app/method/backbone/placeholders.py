"""What a processor writes into a prompt in place of each picture, by the processor's own rules.

A picture's share of a prompt depends on its size only, so it is asked for once a size. The prompt
is tokenised with it in place: tokens at its edges may join with the text around it.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, cast

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.chat import image_token
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.backbone.padding import TOKEN_KEYS
from app.method.backbone.prompts import build_prompt, process, told_refusals, writes_bos

Side: TypeAlias = Literal["left", "right"]

_TYPE_KEYS: Final = frozenset({"mm_token_type_ids", "token_type_ids"})
_PROBE_SIZES: Final = ((96, 64), (40, 72), (64, 64))
_PROBE_GREY: Final = (127, 127, 127)
# A text may be a few hundred thousand characters long.
_KEPT_SIZES: Final = 1024


class Placeholders:
    """The texts that stand for pictures, and prompts with them in place.

    Whether prompts with one picture, and with several, are then those of the processor is found out
    once, on pictures of its own: what is asked for later never changes it.

    Attributes:
        fits_one: Whether prompts with one picture are the processor's.
        fits_several: Whether prompts with several are.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        # What its parts do together has no public name.
        self._processor: Any = backbone.processor
        self.token = image_token(backbone.processor)
        self._of_size: dict[tuple[int, int], str] = {}
        self._type_keys: dict[str, bool] = {}
        self.fits_one = self._follows(0)
        self.fits_several = self.fits_one and self._follows(1)

    def known(self, size: tuple[int, int]) -> str | None:
        """What stands for pictures of this width and height, if one was asked about lately."""
        return self._of_size.get(size)

    def text_for(self, image: Image.Image) -> str:
        """What stands for a picture, as for all of its size.

        Raises:
            InvalidInputError: The processor refuses the picture.
        """
        if image.size not in self._of_size:
            with told_refusals():
                self._of_size[image.size] = self._ask(image)
            if len(self._of_size) > _KEPT_SIZES:
                del self._of_size[next(iter(self._of_size))]
        return self._of_size[image.size]

    def rows(self, texts: Sequence[str], shown: Sequence[Sequence[str]]) -> list[list[int]]:
        """The ids of prompts.

        Raises:
            InvalidInputError: There are not as many placeholders as pictures.
        """
        whole = [self._expanded(text, row) for text, row in zip(texts, shown, strict=True)]
        encoded = self._backbone.tokenizer(
            whole, add_special_tokens=not writes_bos(self._backbone, texts[0])
        )
        return cast("list[list[int]]", encoded["input_ids"])

    def padded(
        self, rows: Sequence[list[int]], *, side: Side
    ) -> dict[str, Int[Tensor, "rows tokens"]]:
        """The rows as one batch on the backbone's device, with masks and token types."""
        pad = cast("int", self._backbone.tokenizer.pad_token_id)
        columns = {"input_ids": (rows, pad), "attention_mask": ([[1] * len(r) for r in rows], 0)}
        for key, marks_pictures in self._type_keys.items():
            types = (
                self._processor.create_mm_token_type_ids(list(rows))
                if marks_pictures
                else [[0] * len(row) for row in rows]
            )
            columns[key] = (types, 0)
        return {
            key: pad_sequence(
                [torch.tensor(row, dtype=torch.long) for row in values],
                batch_first=True,
                padding_value=fill,
                padding_side=side,
            ).to(self._backbone.device)
            for key, (values, fill) in columns.items()
        }

    def _ask(self, image: Image.Image) -> str:
        images = self._processor.prepare_inputs_layout(images=[[image]], text=[self.token])[0]
        options = self._processor._merge_kwargs(  # noqa: SLF001
            tokenizer_init_kwargs=self._backbone.tokenizer.init_kwargs, return_tensors="pt"
        )["images_kwargs"]
        _, (text,) = self._processor._process_images(images, **options)  # noqa: SLF001
        return str(text)

    def _expanded(self, text: str, shown: Sequence[str]) -> str:
        if text.count(self.token) != len(shown):
            raise InvalidInputError(
                f"Placeholders and images do not match: wanted {len(shown)}, "
                f"found {text.count(self.token)}"
            )
        if not shown:
            return text
        # Some write more into the text once it shows pictures; which ones makes no difference.
        blank = Image.new("RGB", (1, 1))
        texts = self._processor.prepare_inputs_layout(images=[[blank] * len(shown)], text=[text])[1]
        expanded: list[str] = self._processor.get_text_with_replacements(texts, list(shown))[0]
        return expanded[0]

    def _follows(self, num_demonstrations: int) -> bool:
        """Whether prompts built here are exactly what the processor itself makes of them."""
        one, other, *shown = (
            Picture.of(Image.new("RGB", size, _PROBE_GREY)) for size in _PROBE_SIZES
        )
        examples = [
            Example(image=picture, question="What is it?", answers=("that",), image_id="", id="")
            for picture in shown[:num_demonstrations]
        ]
        asked = [one, other] if examples else [one]
        prompt = build_prompt(self._backbone, "What is shown?", asked, demonstrations=examples)
        try:
            wanted = process(self._backbone, [prompt], padding_side="right")
            texts = [self.text_for(picture.decoded()) for picture in prompt.images]
        except (InvalidInputError, NotImplementedError):
            return False
        keys = set(wanted) & set(TOKEN_KEYS)
        if keys - _TYPE_KEYS != {"input_ids", "attention_mask"}:
            return False
        self._type_keys = {key: bool(wanted[key].any()) for key in sorted(keys & _TYPE_KEYS)}
        found = self.padded(self.rows([prompt.text], [texts]), side="right")
        return all(torch.equal(wanted[key], found[key]) for key in keys)

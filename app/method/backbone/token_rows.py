"""Prompts as rows of token ids, with the tokens of each picture where its placeholder stands.

Knows texts and ids; knows neither pictures nor their features.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

import torch
from jaxtyping import Int
from torch import Tensor

from app.core.errors import InvalidInputError
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import writes_bos

Side: TypeAlias = Literal["left", "right"]


def token_rows(
    backbone: Backbone,
    texts: Sequence[str],
    pictures: Sequence[Sequence[Sequence[int]]],
    *,
    image_token: str,
) -> list[list[int]]:
    """The ids of each text.

    Args:
        backbone: Whose tokenizer reads the texts.
        texts: With one `image_token` for each picture.
        pictures: For each text, the ids that stand for each of its pictures.
        image_token: The placeholder.

    Raises:
        InvalidInputError: There are not as many placeholders as pictures.
    """
    tokenizer = backbone.tokenizer
    placeholder = tokenizer.convert_tokens_to_ids(image_token)
    encoded = tokenizer(list(texts), add_special_tokens=not writes_bos(backbone, texts[0]))
    rows: list[list[int]] = []
    for ids, shown in zip(encoded["input_ids"], pictures, strict=True):
        if ids.count(placeholder) != len(shown):
            raise InvalidInputError(
                f"Placeholders and images do not match: wanted {len(shown)}, "
                f"found {ids.count(placeholder)}"
            )
        left = iter(shown)
        row: list[int] = []
        for token_id in ids:
            row += next(left) if token_id == placeholder else (token_id,)
        rows.append(row)
    return rows


def padded(
    backbone: Backbone, rows: Sequence[list[int]], *, side: Side, type_keys: Sequence[str]
) -> dict[str, Int[Tensor, "rows tokens"]]:
    """The rows as one batch on the backbone's device, with masks and token types.

    Args:
        backbone: Whose padding token fills the gaps.
        rows: Ids of each row.
        side: Where the gaps are.
        type_keys: Names under which the backbone expects token types.
    """
    pad = cast("int", backbone.tokenizer.pad_token_id)
    columns = {"input_ids": (rows, pad), "attention_mask": ([[1] * len(r) for r in rows], 0)}
    for key in type_keys:
        columns[key] = (backbone.processor.create_mm_token_type_ids(list(rows)), 0)
    length = max(map(len, rows))
    return {
        key: torch.tensor(
            [_filled(row, length, fill=fill, side=side) for row in values],
            dtype=torch.long,
            device=backbone.device,
        )
        for key, (values, fill) in columns.items()
    }


def _filled(row: Sequence[int], length: int, *, fill: int, side: Side) -> list[int]:
    gap = [fill] * (length - len(row))
    return [*gap, *row] if side == "left" else [*row, *gap]

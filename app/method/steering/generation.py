"""Answers in text, a batch at a time, steered or not.

Knows how to call `generate`; the serving engine has its own loop and only shares prompts and hooks.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from app.core.errors import InvalidInputError
from app.method.backbone.chat import as_written
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch, PromptText, encode_prompts
from app.method.steering.injection import Shifts, inject

_LOWEST: Final = torch.finfo(torch.float32).min


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the backbone answered to one prompt.

    Attributes:
        text: The answer without control tokens and the space before it.
        token_ids: What was generated, without padding and without the token that ended it.
        finish_reason: `stop` when the backbone ended its turn, `length` when it ran out of tokens.
        num_prompt_tokens: Length of the prompt, image tokens included.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    num_prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: 0 takes the most likely token; above, how flat the distribution is made.
        top_p: Probability mass that is kept, in (0, 1].
        top_k: How many of the most likely tokens are kept; 0 keeps all.
        seed: Of the draws.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses settings that are no distribution.

        Raises:
            InvalidInputError: A value is out of its range.
        """
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise InvalidInputError(
                "Wanted temperature >= 0, 0 < top_p <= 1 and top_k >= 0, found "
                f"{self.temperature}, {self.top_p} and {self.top_k}"
            )


class _GumbelSampler(LogitsProcessor):
    """Turns the greedy choice into an exact draw from the tempered, truncated distribution.

    The largest of logits plus Gumbel noise is distributed as the softmax of the logits, so drawing
    needs only an explicit generator and no global state.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def __call__(
        self, _input_ids: Int[Tensor, "rows tokens"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        kept = self._truncated(scores.float() / self._sampling.temperature)
        noise = torch.empty(scores.shape).exponential_(generator=self._generator)
        return kept - noise.log().to(scores.device)

    def _truncated(self, scores: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
        ordered, order = scores.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        dropped = before >= self._sampling.top_p
        if self._sampling.top_k:
            dropped[:, self._sampling.top_k :] = True
        dropped[:, 0] = False
        return scores.masked_fill(dropped.scatter(-1, order, dropped), _LOWEST)


def _read(backbone: Backbone, ids: Sequence[int], num_prompt_tokens: int) -> Generation:
    ends = set(backbone.eos_token_ids)
    stop = next((index for index, token_id in enumerate(ids) if token_id in ends), None)
    kept = tuple(ids if stop is None else ids[:stop])
    return Generation(
        text=as_written(
            str(backbone.tokenizer.decode(list(kept), skip_special_tokens=True))
        ).lstrip(),
        token_ids=kept,
        finish_reason="length" if stop is None else "stop",
        num_prompt_tokens=num_prompt_tokens,
    )


@torch.inference_mode()
def generate_encoded(
    backbone: Backbone,
    batch: EncodedBatch,
    *,
    shifts: Shifts | None = None,
    max_new_tokens: int = 32,
    sampling: Sampling | None = None,
) -> list[Generation]:
    """Answers to prompts that are already encoded, padded on the left.

    Args:
        backbone: Who answers.
        batch: Open prompts.
        shifts: One row for each prompt or one for all; None leaves the backbone unsteered.
        max_new_tokens: The most tokens of an answer.
        sampling: How tokens are drawn; greedy when it is not given.

    Raises:
        SteeringError: The shifts could not be applied in full.
    """
    sampling = sampling or Sampling()
    run = cast("Callable[..., Any]", backbone.model.generate)
    samplers = [_GumbelSampler(sampling)] if sampling.temperature > 0 else []
    with nullcontext() if shifts is None else inject(backbone, shifts) as receipt:
        sequences: Int[Tensor, "rows tokens"] = run(
            **batch.inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(backbone.eos_token_ids),
            pad_token_id=backbone.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList(samplers),
        )
    if receipt is not None:
        receipt.verify()
    generated = sequences[:, batch.inputs["input_ids"].shape[1] :].tolist()
    return [
        _read(backbone, ids, count)
        for ids, count in zip(generated, batch.num_prompt_tokens, strict=True)
    ]


def generate(
    backbone: Backbone,
    prompts: Sequence[PromptText],
    *,
    shifts: Shifts | None = None,
    max_new_tokens: int = 32,
    sampling: Sampling | None = None,
) -> list[Generation]:
    """Answers to prompts, as one batch.

    Args:
        backbone: Who answers.
        prompts: At least one.
        shifts: One row for each prompt or one for all; None leaves the backbone unsteered.
        max_new_tokens: The most tokens of an answer.
        sampling: How tokens are drawn; greedy when it is not given.

    Raises:
        SteeringError: The shifts could not be applied in full.
        ContextOverflowError: A prompt is longer than the backbone's context window.
        InvalidInputError: The processor refuses a prompt.
    """
    return generate_encoded(
        backbone,
        encode_prompts(backbone, prompts),
        shifts=shifts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
    )

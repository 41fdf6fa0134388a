"""What a request gives alone: the stock `generate` under the same shift, with the same draws."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from app.method.backbone.loading import Backbone
from app.method.backbone.padding import TOKEN_KEYS
from app.method.backbone.vision import encode_images, join_features, takes_precomputed
from app.method.steering.injection import inject
from app.rpc.generation import SamplingParams
from app.worker.engine.sampling import Sampler, sample
from tests.fakes.models.backbones import tiny_backbone
from tests.fakes.models.families import tiny_inputs, tiny_model
from tests.fakes.models.family_configs import FAMILIES

# The logits of tiny random models differ by so little that a draw at 1 would ignore them.
SHARP: Final = 0.05


@cache
def bare_backbone(family: str, attention: str | None = None) -> Backbone:
    """A backbone whose prompts are already tensors: the processor is never asked for any."""
    known = tiny_backbone()
    model = tiny_model(family, attention=attention)
    config = model.config.get_text_config()
    description = replace(
        known.description,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
    )
    return replace(known, model=model, description=description, eos_token_ids=(10**6,))


@dataclass(frozen=True, kw_only=True)
class RequestSpec:
    """A request in numbers, so that equal specs are equal requests.

    A `vector` of 0 is no vector at all; a strength of 0 is one that does nothing. Families without
    placeholders always show an image, which their forward cannot do without. An image that
    `is_known` comes as features where the family takes them.
    """

    seed: int
    length: int = 7
    shows_image: bool = True
    is_known: bool = False
    vector: int = 0
    strength: float = 1.0
    max_new_tokens: int = 6
    temperature: float = SHARP

    def inputs(self, family: str) -> dict[str, Tensor]:
        inputs = tiny_inputs(family, rows=1, seed=self.seed, length=self.length)
        if self.shows_image or not FAMILIES[family].has_placeholders:
            return inputs
        ids = torch.randint(
            3, 90, (1, self.length), generator=torch.Generator().manual_seed(self.seed)
        )
        types = {key: torch.zeros_like(ids) for key in FAMILIES[family].token_types}
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **types}

    def served(self, family: str) -> dict[str, Any]:
        """Its inputs as an engine gets them."""
        inputs, model = self.inputs(family), tiny_model(family)
        is_fed = self.is_known and "pixel_values" in inputs and takes_precomputed(model)
        if not is_fed:
            return inputs
        with torch.inference_mode():
            features = encode_images(model, inputs, count=1)
        assert features is not None
        tokens = {key: value for key, value in inputs.items() if key in TOKEN_KEYS}
        return {**tokens, **join_features(features)}

    def shift(self, backbone: Backbone) -> Tensor | None:
        if self.vector == 0:
            return None
        shape = (backbone.num_layers, 2, backbone.hidden_size)
        generator = torch.Generator().manual_seed(self.vector)
        return torch.randn(shape, generator=generator) * 0.5 * self.strength

    def sampling(self) -> SamplingParams:
        return SamplingParams(
            max_tokens=self.max_new_tokens, temperature=self.temperature, seed=self.seed
        )


@cache
def answer_alone(family: str, attention: str | None, spec: RequestSpec) -> tuple[int, ...]:
    """The tokens of a spec that nobody else runs beside."""
    backbone = bare_backbone(family, attention)
    return tuple(
        sampled_alone(
            backbone,
            spec.inputs(family),
            shift=spec.shift(backbone),
            sampling=spec.sampling(),
        )
    )


class _Draw(LogitsProcessor):
    """Leaves the token that the engine's own sampling would pick."""

    def __init__(self, sampling: SamplingParams) -> None:
        self._picker = Sampler(sampling=sampling)

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        picked = sample(scores, [self._picker])
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor(picked), 0.0)


def sampled_alone(
    backbone: Backbone, inputs: dict[str, Tensor], *, shift: Tensor | None, sampling: SamplingParams
) -> list[int]:
    """Tokens of one prompt by the stock loop."""
    # Its methods for generation come from a mixin that type checkers do not see.
    model: Any = backbone.model
    with (
        torch.inference_mode(),
        nullcontext() if shift is None else inject(backbone.model, shift[None]),
    ):
        drawn = model.generate(
            **inputs,
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([_Draw(sampling)]),
        )
    return [int(one) for one in drawn[0, inputs["input_ids"].shape[1] :]]

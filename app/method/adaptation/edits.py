"""Changing, or reading, what modules give out or take in within a block.

Edits return new tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from app.core.errors import UnsupportedBackboneError
from app.method.adaptation.problem import Problem, draw_contexts, encode_parts
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.evaluation.conditions import Applied
from app.method.steering.sites import LayerSites, find_sites

Hidden: TypeAlias = Float[Tensor, "batch tokens width"]
Edit: TypeAlias = Callable[[Hidden], Hidden]


def adaptable_sites(backbone: Backbone) -> list[LayerSites]:
    """The sites of every decoder layer, where each branch is the output of a module.

    Raises:
        UnsupportedBackboneError: A layer scales a branch behind its module.
    """
    sites = find_sites(backbone.model)
    gated = [site.index for site in sites if site.is_gated]
    if gated:
        raise UnsupportedBackboneError(
            f"{type(backbone.model).__name__} cannot be adapted: wanted branches that are added as "
            f"they are, found gates in layers {gated}"
        )
    return sites


def output_projections(backbone: Backbone) -> list[nn.Linear]:
    """The projection behind the heads of every layer's attention.

    Raises:
        UnsupportedBackboneError: A layer has none by the usual name.
    """
    found = []
    for site in adaptable_sites(backbone):
        attention = site.layer.get_submodule("self_attn")
        projection = getattr(attention, "o_proj", None)
        if not isinstance(projection, nn.Linear):
            raise UnsupportedBackboneError(
                f"Heads cannot be told apart: wanted o_proj in {type(attention).__name__}, "
                "found none"
            )
        found.append(projection)
    return found


def head_counts(backbone: Backbone) -> tuple[int, int]:
    """How many heads a layer has, and the width of each."""
    config = backbone.model.config.get_text_config()
    heads = int(config.num_attention_heads)
    return heads, output_projections(backbone)[0].in_features // heads


def _edited(backbone: Backbone, hidden: Hidden, edit: Edit) -> Hidden:
    """The edited states where the states lie; an edit sees them where its own tensors do."""
    return edit(hidden.to(backbone.device)).to(hidden.device)


@contextmanager
def edit_outputs(backbone: Backbone, edits: Sequence[tuple[nn.Module, Edit]]) -> Iterator[None]:
    """Within the block the modules give out what the edits make of their outputs."""

    def change(_module: nn.Module, _inputs: object, output: Any, *, edit: Edit) -> object:  # noqa: ANN401
        if isinstance(output, tuple):
            return (_edited(backbone, output[0], edit), *output[1:])
        return _edited(backbone, output, edit)

    with ExitStack() as hooks:
        for module, edit in edits:
            hooks.enter_context(module.register_forward_hook(partial(change, edit=edit)))
        yield


@contextmanager
def edit_inputs(backbone: Backbone, edits: Sequence[tuple[nn.Module, Edit]]) -> Iterator[None]:
    """Within the block the modules take in what the edits make of their first input."""

    def change(_module: nn.Module, inputs: tuple[Any, ...], *, edit: Edit) -> object:
        return (_edited(backbone, inputs[0], edit), *inputs[1:])

    with ExitStack() as hooks:
        for module, edit in edits:
            hooks.enter_context(module.register_forward_pre_hook(partial(change, edit=edit)))
        yield


def last_prompt_tokens(batch: EncodedBatch) -> Int[Tensor, " rows"]:
    """Where the last token of each row's prompt stands."""
    width = int(batch.inputs["input_ids"].shape[1])
    device = batch.predicts_answer.device
    if not batch.answer_ids:
        # Open prompts are padded on the left.
        return torch.full((len(batch.num_prompt_tokens),), width - 1, device=device)
    return torch.tensor(batch.num_prompt_tokens, device=device) - 1


def last_tokens(batch: EncodedBatch) -> Int[Tensor, " rows"]:
    """Where each row ends, its answer included."""
    answers = batch.answer_ids or ((),) * len(batch.num_prompt_tokens)
    added = torch.tensor([len(ids) for ids in answers], device=batch.predicts_answer.device)
    return last_prompt_tokens(batch) + added


def at_last_prompt_token(batch: EncodedBatch, change: Edit) -> Edit:
    """An edit of the last prompt token alone, in the pass that reads the prompt.

    The change sees the token of every row as `[rows, 1, width]`; steps of decoding are left alone.
    """
    width = int(batch.inputs["input_ids"].shape[1])
    places = last_prompt_tokens(batch)

    def edit(hidden: Hidden) -> Hidden:
        if hidden.shape[1] != width:
            return hidden
        is_last = torch.arange(width, device=hidden.device) == places[:, None]
        rows = torch.arange(len(places), device=hidden.device)
        changed = change(hidden[rows, places][:, None])
        return torch.where(is_last[..., None], changed.to(hidden.dtype), hidden)

    return edit


def edit_layer(backbone: Backbone, layer: int, change: Edit) -> Applied:
    """The change to what a layer gives out at the last prompt token."""
    module = adaptable_sites(backbone)[layer].layer
    return lambda batch: edit_outputs(backbone, [(module, at_last_prompt_token(batch, change))])


def replace_heads(
    backbone: Backbone,
    means: Float[Tensor, "layers heads width"],
    heads: Bool[Tensor, "layers heads"],
) -> Applied:
    """Puts the means of these heads in their places at the last prompt token."""
    projections = output_projections(backbone)
    chosen = heads.repeat_interleave(means.shape[-1], dim=1)

    def put(hidden: Hidden, *, layer: int) -> Hidden:
        wanted = means[layer].flatten().to(hidden.dtype)
        return torch.where(chosen[layer].to(hidden.device), wanted, hidden)

    return lambda batch: edit_inputs(
        backbone,
        [
            (projections[layer], at_last_prompt_token(batch, partial(put, layer=layer)))
            for layer in heads.any(1).nonzero().flatten().tolist()
        ],
    )


@torch.no_grad()
def outputs_at(
    backbone: Backbone,
    batch: EncodedBatch,
    modules: Sequence[nn.Module],
    *,
    places: Int[Tensor, " rows"],
    edit: Callable[..., AbstractContextManager[None]] = edit_outputs,
) -> Float[Tensor, "rows modules width"]:
    """What each module gives out, or with `edit_inputs` takes in, at one token of each row."""
    kept: list[Tensor] = []

    def keep(hidden: Hidden) -> Hidden:
        rows = torch.arange(len(places), device=hidden.device)
        kept.append(hidden[rows, places].float())
        return hidden

    with edit(backbone, [(module, keep) for module in modules]):
        backbone.model(**batch.inputs, use_cache=False)
    return torch.stack(kept, dim=1)


def mean_heads(
    problem: Problem, *, count: int, purpose: str
) -> Float[Tensor, "layers heads width"]:
    """What every head gives out at the last prompt token, over prompts with demonstrations."""
    projections = output_projections(problem.backbone)
    episodes = draw_contexts(problem, count=count, purpose=purpose)
    found = [
        outputs_at(
            problem.backbone, batch, projections, places=last_prompt_tokens(batch), edit=edit_inputs
        )
        for _, batch in encode_parts(problem, episodes, with_answers=False)
    ]
    mean: Tensor = torch.cat(found).mean(0)
    return mean.reshape(len(projections), *head_counts(problem.backbone))

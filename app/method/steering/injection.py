"""Adding a shift to both branches of every decoder layer, a different one for every row.

    h_l = h_{l-1} + (a_l + shift_l^a) + (m_l + shift_l^m)

at every token position, in prefill and in decode. Hooks return new tensors and never write in
place, so what other code holds stays as it was.

Source: M2IV, arXiv 2504.04633, section 3; the receipt is ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from app.core.errors import IncompatibleBackboneError, SteeringError
from app.method.steering.sites import LayerSites, branch_scale, find_decoder, find_sites

ATTENTION, MLP = 0, 1

Hidden: TypeAlias = Float[Tensor, "batch tokens hidden"]
Shifts: TypeAlias = Float[Tensor, "rows layers 2 hidden"]
SiteShift: TypeAlias = Float[Tensor, "rows 1 hidden"]
TokenRows: TypeAlias = Int[Tensor, " tokens"]
SiteShifts: TypeAlias = tuple[tuple[SiteShift, SiteShift], ...]
"""The shifts of both branches layer by layer, in the backbone's dtype and where each layer lies."""


@dataclass
class InjectionReceipt:
    """Proof of what was applied in the block of one set of shifts.

    Attributes:
        passes: The sites that each pass through the text decoder shifted.
    """

    sites_expected: int
    passes: list[set[int]] = field(default_factory=list, repr=False)

    @property
    def num_forwards(self) -> int:
        """Passes through the text decoder."""
        return len(self.passes)

    @property
    def sites_hit(self) -> int:
        """Distinct sites shifted in a pass, the fewest over all passes; 0 before the first."""
        return min(map(len, self.passes), default=0)

    def verify(self) -> None:
        """Returns when every pass shifted every site.

        Raises:
            SteeringError: There was no pass, or one left a site as it was.
        """
        if self.num_forwards and self.sites_hit == self.sites_expected:
            return
        raise SteeringError(
            f"The vectors were not applied in full: wanted {self.sites_expected} sites in every "
            f"pass, found {self.sites_hit} in {self.num_forwards} passes",
            details={
                "sites_expected": self.sites_expected,
                "sites_hit": self.sites_hit,
                "num_forwards": self.num_forwards,
            },
        )


class ShiftHooks:
    """Hooks on a resident backbone that add whatever shifts are applied at the time.

    Installed once. While nothing is applied the hooks return nothing, so the backbone computes
    exactly what it would without them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._sites = find_sites(model)
        self._devices = [sites.device for sites in self._sites]
        self._width = int(model.config.get_text_config().hidden_size)
        self._scale = branch_scale(model)
        self._bound: SiteShifts | None = None
        self._token_rows: dict[torch.device, TokenRows] | None = None
        self._receipt = InjectionReceipt(sites_expected=self.num_sites)
        self._hits: set[int] = set()
        self._handles: list[RemovableHandle] = [
            find_decoder(model).register_forward_pre_hook(self._begin)
        ]
        for sites in self._sites:
            self._handles += self._install(sites)
        self._handles += self._install_behind_skipped(find_decoder(model))

    @property
    def num_sites(self) -> int:
        """Sites of the backbone, two a decoder layer."""
        return 2 * len(self._sites)

    @contextmanager
    def applied(
        self, shifts: Shifts | SiteShifts | None, *, token_rows: TokenRows | None = None
    ) -> Iterator[InjectionReceipt]:
        """Shifts the passes of the block, one at least, and sees to it that all were.

        Args:
            shifts: One row for each row of the batch (or one for all), on any device; a zero row is
                an unsteered row. They are cast to the backbone's dtype; those that are split are
                cast, placed and divided by `branch_scale` already. None steers nothing.
            token_rows: Where prompts lie end to end in a batch of one row: which of the shifts is
                each token's, on the backbone's device.

        Yields:
            The receipt of these passes.

        Raises:
            IncompatibleBackboneError: Layers or width are not those of the backbone.
            SteeringError: There was no pass to shift, or one left a site as it was.
        """
        self._token_rows = (
            None
            if token_rows is None
            else {device: token_rows.to(device) for device in set(self._devices)}
        )
        # Last, so that nothing is bound where one of the two finds no room on a device.
        self._bound = self._split(shifts) if isinstance(shifts, Tensor) else shifts
        self._receipt = receipt = InjectionReceipt(sites_expected=self.num_sites)
        try:
            yield receipt
        finally:
            self._bound = None
        if shifts is not None:
            receipt.verify()

    def remove(self) -> None:
        """Takes the hooks off; the backbone is as it was before them."""
        for handle in self._handles:
            handle.remove()

    def _split(self, shifts: Shifts) -> SiteShifts:
        wanted = (len(self._sites), 2, self._width)
        found = tuple(shifts.shape[1:])
        if found != wanted or shifts.shape[0] == 0:
            raise IncompatibleBackboneError(
                f"The shifts do not fit the backbone: wanted [rows, {wanted[0]}, 2, {wanted[2]}], "
                f"found {list(shifts.shape)}",
                details={"wanted": list(wanted), "found": list(shifts.shape)},
            )
        cast = (shifts / self._scale).to(device=self._model.device, dtype=self._model.dtype)
        placed = map(Tensor.to, cast.unbind(1), self._devices)
        return tuple((layer[:, ATTENTION, None], layer[:, MLP, None]) for layer in placed)

    def _begin(self, *_call: object) -> None:
        if self._bound is not None:
            self._hits = set()
            self._receipt.passes.append(self._hits)

    def _install(self, sites: LayerSites) -> list[RemovableHandle]:
        layer = sites.index
        if sites.is_gated:
            return [
                sites.attention.register_forward_pre_hook(
                    partial(self._before_second_norm, layer=layer)
                ),
                sites.layer.register_forward_hook(partial(self._after_gated, layer=layer)),
            ]
        return [
            module.register_forward_hook(partial(self._after_branch, layer=layer, branch=branch))
            for branch, module in ((ATTENTION, sites.attention), (MLP, sites.mlp))
        ]

    def _install_behind_skipped(self, decoder: nn.Module) -> list[RemovableHandle]:
        """Hooks on what follows gated layers, which are skipped where no picture is shown."""
        handles: list[RemovableHandle] = []
        before: list[int] = []
        for sites in self._sites:
            if sites.is_gated:
                before.append(sites.index)
            elif before:
                hook = partial(self._before_next, skipped=tuple(before))
                handles.append(sites.layer.register_forward_pre_hook(hook))
                before = []
        if before:
            hook = partial(self._before_next, skipped=tuple(before))
            handles.append(decoder.get_submodule("norm").register_forward_pre_hook(hook))
        return handles

    def _before_next(
        self, _module: nn.Module, inputs: tuple[Any, ...], *, skipped: tuple[int, ...]
    ) -> object:
        """Shifts the stream as layers would have that this pass left out.

        A layer that is left out adds nothing, so its shifts are all that its branches add.
        """
        if self._bound is None:
            return None
        hidden = inputs[0]
        for layer in skipped:
            for branch, shift in enumerate(self._bound[layer]):
                if 2 * layer + branch not in self._hits:
                    self._hits.add(2 * layer + branch)
                    hidden = self._shifted(hidden.to(shift.device), shift)
        return (hidden, *inputs[1:])

    def _after_branch(
        self,
        _module: nn.Module,
        _inputs: object,
        output: Any,  # noqa: ANN401 - a tensor or a tuple
        *,
        layer: int,
        branch: int,
    ) -> object:
        """Shifts what a branch adds; runs twice a layer in every decode step."""
        if self._bound is None:
            return None
        self._hits.add(2 * layer + branch)
        shift = self._bound[layer][branch]
        if isinstance(output, tuple):
            return (self._shifted(output[0], shift), *output[1:])
        return self._shifted(output, shift)

    def _after_gated(
        self, _module: nn.Module, _inputs: object, output: Hidden, *, layer: int
    ) -> object:
        """Shifts a gated layer's output by both branches.

        It kept its residual from before the second norm, so the attention branch's shift reaches
        the stream only at the layer's end, together with the MLP branch's.
        """
        if self._bound is None:
            return None
        self._hits.add(2 * layer + MLP)
        attention, mlp = self._bound[layer]
        return self._shifted(self._shifted(output, mlp), attention)

    def _before_second_norm(
        self, _module: nn.Module, inputs: tuple[Any, ...], *, layer: int
    ) -> object:
        if self._bound is None:
            return None
        self._hits.add(2 * layer + ATTENTION)
        return (self._shifted(inputs[0], self._bound[layer][ATTENTION]), *inputs[1:])

    def _shifted(self, hidden: Hidden, shift: SiteShift) -> Hidden:
        rows, batch = shift.size(0), hidden.size(0)
        if self._token_rows is not None:
            return hidden + shift[self._token_rows[shift.device], 0][None]
        if rows in {batch, 1}:
            return hidden + shift
        if batch % rows == 0:
            # Beam search and several returned sequences repeat each row in place.
            return hidden + shift.repeat_interleave(batch // rows, dim=0)
        raise SteeringError(
            f"The shifts do not fit the batch: wanted {batch} rows or a divisor, found {rows}",
            details={"wanted": batch, "found": rows},
        )


@contextmanager
def inject(model: PreTrainedModel, shifts: Shifts) -> Iterator[InjectionReceipt]:
    """Shifts the passes of the block, one at least, and restores the model exactly afterwards.

    Args:
        model: A backbone's.
        shifts: One row for each row of the batch, or one row for all of them; gradients flow into
            it. A zero row is an unsteered row.

    Yields:
        The receipt of these passes.

    Raises:
        IncompatibleBackboneError: Layers or width are not those of the backbone.
        UnsupportedBackboneError: The backbone's sites are unknown.
        SteeringError: There was no pass, or one left a site as it was.
    """
    hooks = ShiftHooks(model)
    try:
        with hooks.applied(shifts) as receipt:
            yield receipt
    finally:
        hooks.remove()

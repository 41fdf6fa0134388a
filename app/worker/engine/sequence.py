"""One request inside the engine: what it wants, and how far it is.

A sequence belongs to the device thread between `Engine.add` and its return from `Engine.step`.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from app.core.errors import VLibraryError
from app.worker.engine.sampling import Sampling
from app.worker.engine.stacking import layout_of

Shift = Float[Tensor, "layers 2 hidden"]

_MOST_BYTES_OF_A_CHARACTER: Final = 4
_SPARE_TOKENS: Final = 4


@dataclass(kw_only=True, eq=False)
class Sequence:
    """A prompt and the answer that grows behind it.

    Attributes:
        id: Unique among the sequences in the engine.
        inputs: The backbone's keyword arguments for this prompt alone: a batch of one, no padding.
        sampling: How tokens are picked and when it ends.
        shift: What is added at every site; none leaves the row unsteered.
        deadline: Monotonic time in seconds at which the sequence fails.
        keeps_first: Whether to keep the distribution of the first token.
        token_ids: The answer so far, without the token that ends the turn.
        text: The answer without control tokens and surrounding space, set when it is finished.
        finish_reason: Why it ended, set when it is finished.
        error: What it failed with; text and finish reason are not set then.
        sites_hit: Fewest sites shifted in any pass; 0 while unsteered.
        num_forwards: Passes through the backbone.
        first_log_probabilities: Natural logarithms over the vocabulary, float32 on the CPU.
        added: Monotonic time of `Engine.add`; likewise `began` of the prefill, `first` of the first
            token and `ended`.
    """

    id: str
    inputs: Mapping[str, Any]
    sampling: Sampling
    shift: Shift | None = None
    deadline: float = float("inf")
    keeps_first: bool = False

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    error: VLibraryError | None = None
    sites_hit: int = 0
    num_forwards: int = 0
    first_log_probabilities: Float[Tensor, " vocab"] | None = None
    added: float = 0.0
    began: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    generator: torch.Generator | None = field(init=False)

    def __post_init__(self) -> None:
        """Gives the row its own source of randomness."""
        self.generator = self.sampling.generator()

    @property
    def num_prompt_tokens(self) -> int:
        """Length of the prompt, image tokens included."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.finish_reason is not None or self.error is not None

    @property
    def layout(self) -> Hashable:
        """Equal for prompts whose inputs can be stacked into one batch."""
        return layout_of(self.inputs)

    def note_forward(self, *, sites_hit: int) -> None:
        """Count a pass through the backbone in which this many sites were shifted."""
        self.sites_hit = min(self.sites_hit, sites_hit) if self.num_forwards else sites_hit
        self.num_forwards += 1

    def append(
        self, token_id: int, *, ends: frozenset[int], decode: Callable[[list[int]], str]
    ) -> None:
        """Take the next token, and finish when it or the text it completes ends the answer.

        Args:
            token_id: What was picked.
            ends: Tokens that end a turn; they are no part of the answer.
            decode: Text of token ids, without control tokens.
        """
        if token_id in ends:
            self._finish(decode(self.token_ids), reason="stop")
            return
        self.token_ids.append(token_id)
        cut = self._stop_position(decode)
        if cut is not None:
            self._finish(decode(self.token_ids)[:cut], reason="stop")
        elif len(self.token_ids) >= self.sampling.max_new_tokens:
            self._finish(decode(self.token_ids), reason="length")

    def _finish(self, text: str, *, reason: Literal["stop", "length"]) -> None:
        self.text = text.strip()
        self.finish_reason = reason

    def _stop_position(self, decode: Callable[[list[int]], str]) -> int | None:
        stop = self.sampling.stop
        if not stop:
            return None
        # Every token writes at least one byte, so a stop text that was just completed lies within
        # the last few tokens; decoding the whole answer each time would cost quadratic time.
        window = max(map(len, stop)) * _MOST_BYTES_OF_A_CHARACTER + _SPARE_TOKENS
        tail = decode(self.token_ids[-window:])
        if not any(text in tail for text in stop):
            return None
        whole = decode(self.token_ids)
        return min((whole.find(text) for text in stop if text in whole), default=None)

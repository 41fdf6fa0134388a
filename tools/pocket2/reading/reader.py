"""The decoder's side of training: from items to token ids, losses and hits on every answer.

Knows the model's layout; knows nothing of how episodes are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import Idefics3ForConditionalGeneration, PreTrainedTokenizerFast

from tools.pocket2.anatomy import ControlIds, control_ids
from tools.pocket2.reading.material import Item

_MOST_KNOWN: Final = 200_000


@dataclass(frozen=True, eq=False)
class Batch:
    """Conversations as ids, padded on the right.

    Attributes:
        ids: Token ids.
        pictures: Numbers in the gallery, in the order of their placeholders.
        is_answer: Tokens of answers, the end of the turn included.
        is_taught: Those of them that can be known.
        item: The item (all rows' items counted through) of each token, -1 outside answers.
    """

    ids: Int[Tensor, "rows tokens"]
    pictures: Int[Tensor, " pictures"]
    is_answer: Bool[Tensor, "rows tokens"]
    is_taught: Bool[Tensor, "rows tokens"]
    item: Int[Tensor, "rows tokens"]

    def to(self, device: torch.device) -> "Batch":
        """The same batch there."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


class Writer:
    """Writes items the way the chat template does, remembering the ids of texts it has seen."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.control: ControlIds = control_ids(tokenizer)
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        if text not in self._known:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]

    def write_alike(self, rows: Sequence[Sequence[Item]], *, parts: int) -> list[Batch]:
        """The conversations in this many batches of rows of like length, to pad little."""
        ordered = sorted(rows, key=self._num_tokens)
        bounds = [round(part * len(ordered) / parts) for part in range(parts + 1)]
        return [self.write(ordered[low:high]) for low, high in pairwise(bounds) if high > low]

    def _num_tokens(self, items: Sequence[Item]) -> int:
        return sum(len(self.ids(item.question)) + len(self.ids(item.answer)) for item in items)

    def write(self, rows: Sequence[Sequence[Item]]) -> Batch:
        """One conversation a row."""
        control = self.control
        all_ids, all_items, pictures = [], [], list[int]()
        taught: list[bool] = []
        for items in rows:
            ids: list[int] = []
            owners: list[int] = []
            for item in items:
                ids.append(control.user)
                if item.picture is not None:
                    ids += control.picture
                    pictures.append(item.picture)
                ids += [*self.ids(item.question), control.model]
                owners += [-1] * (len(ids) - len(owners))
                ids += [*self.ids(item.answer), control.end]
                owners += [len(taught)] * (len(ids) - len(owners))
                taught.append(item.is_taught)
            all_ids.append(ids)
            all_items.append(owners)
        longest = max(map(len, all_ids))
        ids_tensor = torch.tensor([ids + [control.pad] * (longest - len(ids)) for ids in all_ids])
        owner = torch.tensor([owners + [-1] * (longest - len(owners)) for owners in all_items])
        is_answer = owner >= 0
        known = torch.tensor([*taught, False])
        return Batch(
            ids_tensor, torch.tensor(pictures, dtype=torch.long), is_answer, known[owner], owner
        )


def prose_batch(writer: Writer, texts: Sequence[str]) -> Batch:
    """Plain texts of equal length, every token of which is to be foretold from those before."""
    ids = [writer.ids(text) for text in texts]
    shortest = min(map(len, ids))
    tensor = torch.tensor([row[:shortest] for row in ids])
    everything = torch.ones_like(tensor, dtype=torch.bool)
    nothing = torch.empty(0, dtype=torch.long)
    return Batch(tensor, nothing, everything, everything, torch.zeros_like(tensor))


class Reader(nn.Module):
    """The decoder over visual tokens that were computed before.

    `adapter` stands for the last linear map of the connector and is folded into it afterwards.
    """

    def __init__(self, model: Idefics3ForConditionalGeneration) -> None:
        super().__init__()
        self.text = model.model.text_model
        width = model.config.get_text_config().hidden_size
        self.adapter = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.adapter.weight)
        self._image = int(model.config.image_token_id)

    @torch.no_grad()
    def start_from(self, spread: Float[Tensor, "width width"]) -> None:
        """Lets the adapter begin with this map."""
        self.adapter.weight.copy_(spread)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.adapter.weight.device

    def hidden(
        self, batch: Batch, tokens: Float[Tensor, "pictures width"]
    ) -> Float[Tensor, "rows tokens width"]:
        """The decoder's last states."""
        embeddings = self.text.embed_tokens(batch.ids)
        if len(batch.pictures):
            seen = self.adapter(tokens)
            places = (batch.ids == self._image).unsqueeze(-1).expand_as(embeddings)
            embeddings = embeddings.masked_scatter(places, seen.to(embeddings.dtype))
        states: Tensor = self.text(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return states

    def logits(
        self,
        batch: Batch,
        tokens: Float[Tensor, "pictures width"],
        chosen: Bool[Tensor, "rows tokens"],
    ) -> tuple[Tensor, Tensor]:
        """Logits that predict the chosen tokens, and those tokens, row after row."""
        states = self.hidden(batch, tokens)[:, :-1][chosen[:, 1:]]
        return functional.linear(states, self.text.embed_tokens.weight), batch.ids[:, 1:][
            chosen[:, 1:]
        ]


def answer_loss(
    reader: Reader, batch: Batch, tokens: Float[Tensor, "pictures width"]
) -> tuple[Tensor, int]:
    """Summed cross-entropy over the answer tokens that can be known, and their number."""
    logits, targets = reader.logits(batch, tokens, batch.is_taught)
    return functional.cross_entropy(logits, targets, reduction="sum"), len(targets)


@torch.no_grad()
def item_hits(
    reader: Reader, batch: Batch, tokens: Float[Tensor, "pictures width"]
) -> Bool[Tensor, " items"]:
    """For every item, whether greedy decoding would say exactly its answer."""
    logits, targets = reader.logits(batch, tokens, batch.is_answer)
    owner = batch.item[:, 1:][batch.is_answer[:, 1:]]
    wrong = torch.zeros(int(owner.max()) + 1, dtype=torch.long, device=owner.device)
    return wrong.index_add(0, owner, (logits.argmax(-1) != targets).long()) == 0

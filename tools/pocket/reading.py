"""The decoder's side of training: from written items to losses and hits on every answer.

Knows the model's layout; knows no words and no world.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import Idefics3ForConditionalGeneration

from tools.pocket.curriculum import Sequences


@dataclass(frozen=True, eq=False)
class AnswerLogits:
    """The logits that predict every answer token of a batch, in reading order.

    Attributes:
        logits: One row a predicted token.
        targets: The tokens to be said.
        item: To which item of the batch (all rows' items counted through) a token belongs.
    """

    logits: Float[Tensor, "answers vocabulary"]
    targets: Int[Tensor, " answers"]
    item: Int[Tensor, " answers"]

    def loss(self) -> Tensor:
        """Mean cross-entropy over all answer tokens."""
        return functional.cross_entropy(self.logits.float(), self.targets)

    def hits(self) -> Tensor:
        """For every item, whether greedy decoding would say exactly its answer."""
        wrong = (self.logits.argmax(-1) != self.targets).long()
        errors = torch.zeros(int(self.item.max()) + 1, dtype=torch.long)
        return errors.index_add(0, self.item, wrong) == 0


def answer_logits(
    model: Idefics3ForConditionalGeneration,
    features: Float[Tensor, "pool patches vision"],
    sequences: Sequences,
) -> AnswerLogits:
    """Reads a batch of conversations with the pool's cached features in place of pixels.

    Rows are padded on the right; attention is causal, so padding changes nothing before it.
    """
    longest = max(map(len, sequences.token_ids))
    padding = model.config.get_text_config().pad_token_id
    ids = torch.full((len(sequences.token_ids), longest), padding)
    for row, tokens in enumerate(sequences.token_ids):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    embeddings = model.model.text_model.embed_tokens(ids)
    if sequences.images:
        seen = model.model.connector(features[torch.tensor(sequences.images)].float())
        places = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(embeddings)
        embeddings = embeddings.masked_scatter(places, seen)
    hidden = model.model.text_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    rows, columns, items = _answer_places(sequences)
    return AnswerLogits(
        logits=model.lm_head(hidden[rows, columns - 1]), targets=ids[rows, columns], item=items
    )


def _answer_places(sequences: Sequences) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, items = list[int](), list[int](), list[int]()
    count = 0
    for row, spans in enumerate(sequences.answers):
        for start, end in spans:
            rows += [row] * (end - start)
            columns += range(start, end)
            items += [count] * (end - start)
            count += 1
    return torch.tensor(rows), torch.tensor(columns), torch.tensor(items)

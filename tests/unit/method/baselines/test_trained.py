"""MimIC, LoRA, prefix and prompt tuning, HiFICL against naive ways to the same logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from app.method.adaptation.attention import attend_gated, attend_virtually, attend_with
from app.method.adaptation.edits import head_counts
from app.method.adaptation.problem import (
    Adaptation,
    Problem,
    encode_parts,
    measure,
    without_context,
)
from app.method.backbone.loading import Backbone
from app.method.baselines import hificl, lora, mimic, prefix, prompt, word_table
from app.method.steering.greedy import generate_encoded
from app.method.steering.sites import find_decoder
from tests.fakes.models.backbones import tiny_backbone, tiny_examples
from tests.fakes.models.problems import alone, assert_near, logits


def kv_heads(backbone: Backbone) -> int:
    return int(backbone.model.config.get_text_config().num_key_value_heads)


def random_virtual(backbone: Backbone, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (backbone.num_layers, kv_heads(backbone), count, head_counts(backbone)[1])
    keys, values = (torch.randn(shape, generator=generator) for _ in range(2))
    return keys, values


def test_virtual_keys_are_a_cache_that_stands_before_the_prompt(problem: Problem) -> None:
    backbone = problem.backbone
    keys, values = random_virtual(backbone, 5)
    batch = alone(backbone, without_context(problem.items)[0])
    cache = DynamicCache()
    for layer in range(backbone.num_layers):
        cache.update(keys[layer][None], values[layer][None], layer)
    length = batch.inputs["input_ids"].shape[1]
    inputs = {
        **batch.inputs,
        "attention_mask": torch.ones(1, 5 + length, dtype=torch.long),
        "position_ids": torch.arange(length)[None],
    }
    with torch.no_grad():
        wanted = backbone.model(**inputs, past_key_values=cache).logits
    with torch.no_grad(), attend_with(backbone, attend_virtually(keys, values)):
        found = logits(backbone, batch)
    assert_near(found, wanted)


def test_virtual_keys_hold_in_padded_batches_and_while_decoding(problem: Problem) -> None:
    backbone = problem.backbone
    attend = attend_virtually(*random_virtual(backbone, 4))
    for places, batch in encode_parts(problem, without_context(problem.items), with_answers=False):
        with attend_with(backbone, attend):
            together = generate_encoded(backbone, batch, max_new_tokens=4)
            for place, answer in zip(places, together, strict=True):
                one = alone(backbone, without_context([problem.items[place]])[0])
                apart = generate_encoded(backbone, one, max_new_tokens=4)[0]
                assert answer == apart


def naive_virtual(query: Tensor, key: Tensor, value: Tensor, *, given: dict[str, Tensor]) -> Tensor:
    """One row, one head, token by token: one softmax over its virtual keys and what it may see."""
    out = torch.zeros_like(query)
    for token in range(len(query)):
        seen = [place for place in range(token + 1) if given["is_real"][place]]
        keys = [*given["keys"], *(key[place] for place in seen)]
        values = [*given["values"], *(value[place] for place in seen)]
        masses = [torch.exp(query[token] @ one * given["scale"]) for one in keys]
        out[token] = sum(m * v for m, v in zip(masses, values, strict=True)) / sum(masses)
    return out


def test_every_head_of_queries_attends_to_low_rank_keys_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    # Two heads of queries share one of keys.
    query, key, value = drawn(2, 4, 5, 6), drawn(2, 2, 5, 6), drawn(2, 2, 5, 6)
    leaves = {
        "keys_left": drawn(1, 4, 3, 2), "keys_right": drawn(1, 4, 2, 6),
        "values_left": drawn(1, 4, 3, 2), "values_right": drawn(1, 4, 2, 6),
    }  # fmt: skip
    is_real = torch.tensor([[True] * 5, [False, False, True, True, True]])
    allowed = torch.ones(5, 5).tril().bool()[None, None] & is_real[:, None, None, :]
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    attend = attend_virtually(*hificl.products(leaves))
    found = attend(0, query, key, value, mask, 0.5)
    for row in range(2):
        for head in range(4):
            pairs = {
                name: torch.stack(
                    [
                        sum(
                            (
                                leaves[f"{name}_left"][0, head, place, rank]
                                * leaves[f"{name}_right"][0, head, rank]
                                for rank in range(2)
                            ),
                            start=torch.zeros(6),
                        )
                        for place in range(3)
                    ]
                )
                for name in ("keys", "values")
            }
            given = {**pairs, "scale": torch.tensor(0.5), "is_real": is_real[row]}
            shared = (row, head // 2)
            wanted = naive_virtual(query[row, head], key[shared], value[shared], given=given)
            real = is_real[row]
            assert_near(found[row, head][real], wanted[real])


def test_prompt_tuning_is_embeddings_before_the_prompt(problem: Problem) -> None:
    backbone = problem.backbone
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(3, backbone.hidden_size, generator=generator)
    decoder: Any = find_decoder(backbone.model)
    ids = torch.tensor([[9, 11, 40, 7, 25]])
    table: Any = backbone.model.get_input_embeddings()
    text = table(ids)
    with torch.no_grad():
        whole = decoder(inputs_embeds=torch.cat([embeddings[None], text], dim=1))
        keys, values = prompt.read_virtual(backbone, embeddings)
        with attend_with(backbone, attend_virtually(keys, values)):
            found = decoder(inputs_embeds=text).last_hidden_state
    assert_near(found, whole.last_hidden_state[:, 3:])


def naive_gated(query: Tensor, key: Tensor, value: Tensor, *, given: dict[str, Tensor]) -> Tensor:
    """One row, one head, token by token: only what a token may see has a part in its gate."""
    out = torch.zeros_like(query)
    for token in range(len(query)):
        seen = [place for place in range(token + 1) if given["is_real"][place]]
        if not seen:
            continue
        masses = torch.tensor([float(query[token] @ key[p]) * given["scale"] for p in seen]).exp()
        mean = sum(m * value[p] for m, p in zip(masses / masses.sum(), seen, strict=True))
        virtual = torch.exp(query[token] @ given["gate"] + given["bias"])
        share = virtual / (virtual + masses.sum())
        out[token] = mean + share * given["vector"]
    return out


def test_the_gate_counts_only_keys_that_the_mask_shows() -> None:
    generator = torch.Generator().manual_seed(0)
    heads, tokens, width = 2, 5, 4
    query, key, value = (torch.randn(2, heads, tokens, width, generator=generator) for _ in "qkv")
    gates, vectors = (torch.randn(1, heads, width, generator=generator) for _ in "gv")
    biases = torch.randn(1, heads, generator=generator)
    is_real = torch.tensor([[True] * 5, [False, False, True, True, True]])
    causal = torch.ones(tokens, tokens).tril().bool()
    allowed = causal[None, None] & is_real[:, None, None, :]
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    found = attend_gated(vectors, gates, biases)(0, query, key, value, mask, 0.5)
    for row in range(2):
        for head in range(heads):
            given = {
                "scale": torch.tensor(0.5), "gate": gates[0, head], "vector": vectors[0, head],
                "bias": biases[0, head], "is_real": is_real[row],
            }  # fmt: skip
            wanted = naive_gated(query[row, head], key[row, head], value[row, head], given=given)
            real = is_real[row]
            assert_near(found[row, head][real], wanted[real])


def test_mimic_without_vectors_is_the_backbone(problem: Problem) -> None:
    backbone = problem.backbone
    heads, width = head_counts(backbone)
    zeros = torch.zeros(backbone.num_layers, heads, width)
    batch = alone(backbone, without_context(problem.items)[0])
    before = logits(backbone, batch)
    with torch.no_grad(), attend_with(backbone, attend_gated(zeros, zeros, zeros[..., 0])):
        assert_near(logits(backbone, batch), before)
    assert torch.equal(logits(backbone, batch), before)


def test_mimic_compares_states_of_the_same_answer_tokens(problem: Problem) -> None:
    wanted = mimic.teacher_states(problem)
    assert sorted(wanted) == list(range(len(problem.items)))
    for places, batch in encode_parts(problem, without_context(problem.items)):
        _, states = mimic.answer_states(problem, batch)
        assert states.shape == torch.cat([wanted[place] for place in places], dim=1).shape


def test_lora_is_the_same_as_adding_its_product_to_the_weights(problem: Problem) -> None:
    backbone = problem.backbone
    leaves = lora.fresh_adapters(backbone, seed=0)
    generator = torch.Generator().manual_seed(4)
    leaves = {name: torch.randn(x.shape, generator=generator) * 0.1 for name, x in leaves.items()}
    batch = alone(backbone, without_context(problem.items)[0])
    plain_logits = logits(backbone, batch)
    with torch.no_grad(), lora._adapting(backbone, leaves)(batch):
        found = logits(backbone, batch)
    assert torch.equal(logits(backbone, batch), plain_logits)
    decoder = find_decoder(backbone.model)
    kept = {}
    for name in [name for name in leaves if "lora_A" in name]:
        path = name.removeprefix("model.").partition(".lora_A")[0]
        weight: Any = decoder.get_submodule(path).weight
        kept[path] = weight.data.clone()
        product = leaves[name.replace("lora_A", "lora_B")] @ leaves[name]
        weight.data += 2 * product
    folded = logits(backbone, batch)
    for path, data in kept.items():
        module: Any = decoder.get_submodule(path)
        module.weight.data = data
    assert len(kept) == 2 * backbone.num_layers
    assert_near(found, folded)
    assert not torch.allclose(found, plain_logits)


def test_adapters_are_learned_in_float32_beside_a_backbone_of_half_the_width() -> None:
    backbone = tiny_backbone()
    nn.Module.to(backbone.model, torch.bfloat16)
    leaves = lora.fresh_adapters(backbone, seed=0)
    assert {leaf.dtype for leaf in leaves.values()} == {torch.float32}
    batch = alone(backbone, without_context(tiny_examples(1))[0])
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    with lora._adapting(backbone, leaves)(batch):
        found = backbone.model(**batch.inputs, use_cache=False).logits
    assert found.dtype == torch.bfloat16
    found.float().square().sum().backward()
    assert all(leaf.grad is not None for leaf in leaves.values())


@pytest.mark.parametrize(
    "fit",
    [lora.fit, prefix.fit, prompt.fit, mimic.fit, hificl.fit],
    ids=["lora", "prefix", "prompt", "mimic", "hificl"],
)
def test_what_is_trained_is_never_worse_on_validation_than_its_start(
    problem: Problem, fit: Callable[[Problem], Adaptation]
) -> None:
    backbone = problem.backbone
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    held = encode_parts(problem, without_context(problem.validation))
    found = fit(problem)
    assert measure(problem, held, found.applied) >= measure(problem, held) or (
        int(str(found.notes["steps"])) == 0
    )
    after = dict(backbone.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in after.values())
    batch = alone(backbone, without_context(problem.items)[0])
    with found.applied(batch):
        generate_encoded(backbone, batch, max_new_tokens=2)


def test_a_word_table_keeps_the_most_usual_truth_and_knows_nothing_else() -> None:
    table = word_table.fit(["Red", "red", "red", "blue"], ["rojo", "rojo", "azul", "azul"])
    assert table == {"red": "rojo", "blue": "azul"}
    assert [word_table.look_up(table, said) for said in ("RED", "green")] == ["rojo", "green"]

"""The engine against the stock `generate`: a mixed batch gives what each request gives alone."""

from contextlib import nullcontext

import pytest
import torch
from PIL import Image
from torch import Tensor

from app.core.errors import (
    ConflictError,
    SteeringError,
)
from app.core.pictures import Picture
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt, encode_prompts
from app.method.steering.injection import inject
from app.rpc.generation import SamplingParams
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.models.backbones import lose_a_hook, tiny_examples
from tests.fakes.models.generation import generate
from tests.fakes.models.sequences import greedy, run

COLOURS = ((220, 30, 30), (30, 200, 30), (30, 30, 220))


def _shift(backbone: Backbone, seed: int, *, strength: float = 1.0) -> Tensor:
    shape = (backbone.num_layers, 2, backbone.hidden_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.5 * strength


def _prompts(backbone: Backbone) -> list[PromptText]:
    """Text only, one image, two images, and one with demonstrations; of many lengths."""
    pictures = [Picture.of(Image.new("RGB", (16, 16), colour)) for colour in COLOURS]
    examples = tiny_examples(6)
    return [
        build_prompt(backbone, "what color?", ()),
        build_prompt(backbone, "what shape is in the image?", pictures[0]),
        build_prompt(backbone, "is there a red shape? yes or no?", pictures[1]),
        build_prompt(backbone, "which of them is blue?", pictures[:2]),
        build_prompt(backbone, "what color is it?", pictures[2], demonstrations=examples[:3]),
        build_prompt(backbone, "say yes", ()),
        build_prompt(backbone, "what color is the shape?", pictures[0]),
    ]


def test_a_mixed_batch_equals_each_request_alone(backbone: Backbone, engine: Engine) -> None:
    prompts = _prompts(backbone)
    shifts = [
        None,
        _shift(backbone, 1),
        _shift(backbone, 1, strength=-2.0),
        _shift(backbone, 2),
        _shift(backbone, 3, strength=0.5),
        _shift(backbone, 2),
        None,
    ]
    lengths = [3, 9, 5, 12, 8, 6, 11]
    cache = FeatureCache(backbone)
    sequences = [
        Sequence(
            id=str(index),
            # Both ways of showing a picture, features and pixels.
            inputs=(
                cache.encode([prompt]) if index % 2 else encode_prompts(backbone, [prompt])
            ).inputs,
            sampling=SamplingParams(max_tokens=length),
            shift=shift,
            keeps_first=True,
        )
        for index, (prompt, shift, length) in enumerate(zip(prompts, shifts, lengths, strict=True))
    ]
    finished = run(engine, sequences)
    assert {one.id for one in finished} == {one.id for one in sequences}
    for sequence, prompt, shift, length in zip(sequences, prompts, shifts, lengths, strict=True):
        rows = None if shift is None else shift[None]
        alone = generate(backbone, [prompt], shifts=rows, max_new_tokens=length)[0]
        assert sequence.error is None
        assert tuple(sequence.token_ids) == alone.token_ids
        assert sequence.text == alone.text
        assert sequence.finish_reason == alone.finish_reason
        assert sequence.num_prompt_tokens == alone.num_prompt_tokens
        wanted = _first_log_probabilities(backbone, prompt, rows)
        assert sequence.first_log_probabilities is not None
        torch.testing.assert_close(sequence.first_log_probabilities, wanted, atol=2e-5, rtol=1e-4)


def _first_log_probabilities(
    backbone: Backbone, prompt: PromptText, shifts: Tensor | None
) -> Tensor:
    inputs = encode_prompts(backbone, [prompt]).inputs
    with (
        torch.inference_mode(),
        nullcontext() if shifts is None else inject(backbone.model, shifts),
    ):
        logits: Tensor = backbone.model(**inputs).logits[0, -1]
    return logits.log_softmax(-1)


def test_sampled_rows_do_not_depend_on_their_neighbours(backbone: Backbone, engine: Engine) -> None:
    def sequences() -> list[Sequence]:
        return [
            Sequence(
                id=str(index),
                inputs=encode_prompts(backbone, [prompt]).inputs,
                sampling=SamplingParams(
                    max_tokens=10, temperature=1.2, top_p=0.95, top_k=50, seed=index
                ),
                shift=_shift(backbone, index) if index % 2 else None,
            )
            for index, prompt in enumerate(_prompts(backbone))
        ]

    together = sequences()
    run(engine, together)
    for sequence, alone in zip(together, sequences(), strict=True):
        run(engine, [alone])
        assert sequence.token_ids == alone.token_ids
    assert len({tuple(sequence.token_ids) for sequence in together}) == len(together)


def test_abort_frees_the_row_at_once_and_the_others_go_on(
    backbone: Backbone, engine: Engine
) -> None:
    prompts = [build_prompt(backbone, "what color?", ())] * 3
    sequences = greedy(backbone, prompts, max_new_tokens=6)
    for sequence in sequences:
        engine.add(sequence)
    engine.step()
    engine.step()
    assert engine.num_running == 3
    assert engine.abort("1")
    assert engine.num_running == 2
    assert not engine.abort("1")
    finished = run(engine, [])
    assert {one.id for one in finished} == {"0", "2"}
    alone = generate(backbone, prompts[:1], max_new_tokens=6)[0]
    assert tuple(sequences[2].token_ids) == alone.token_ids


def test_a_waiting_sequence_can_be_aborted(backbone: Backbone, engine: Engine) -> None:
    sequence = greedy(backbone, [build_prompt(backbone, "what color?", ())])[0]
    engine.add(sequence)
    assert engine.num_waiting == 1
    assert engine.abort("0")
    assert (engine.num_waiting, engine.has_work) == (0, False)


def test_no_more_rows_run_than_allowed_and_newcomers_join(backbone: Backbone) -> None:
    engine = Engine(backbone, max_rows=2)
    prompts = [build_prompt(backbone, f"what color {index}?", ()) for index in range(5)]
    sequences = greedy(backbone, prompts, max_new_tokens=4)
    most, seen = 0, 0
    for sequence in sequences:
        engine.add(sequence)
    while engine.has_work:
        seen += len(engine.step())
        most = max(most, engine.num_running)
    assert (most, seen) == (2, 5)
    for sequence, prompt in zip(sequences, prompts, strict=True):
        assert (
            tuple(sequence.token_ids) == generate(backbone, [prompt], max_new_tokens=4)[0].token_ids
        )
    engine.close()


def test_a_sequence_is_added_once(backbone: Backbone, engine: Engine) -> None:
    sequence = greedy(backbone, [build_prompt(backbone, "what color?", ())])[0]
    engine.add(sequence)
    with pytest.raises(ConflictError):
        engine.add(sequence)
    engine.abort("0")


def test_steering_that_misses_a_site_is_an_error_and_never_an_unsteered_answer(
    backbone: Backbone,
) -> None:
    engine = Engine(backbone, max_rows=4)
    lose_a_hook(backbone)
    sequences = greedy(backbone, [build_prompt(backbone, "what color?", ())] * 2)
    sequences[0].shift = _shift(backbone, 1)
    run(engine, sequences)
    engine.close()
    assert isinstance(sequences[0].error, SteeringError)
    assert sequences[1].error is None


def test_the_receipt_counts_passes_and_sites(backbone: Backbone, engine: Engine) -> None:
    sequences = greedy(backbone, [build_prompt(backbone, "what color?", ())] * 2, max_new_tokens=5)
    sequences[0].shift = _shift(backbone, 1)
    run(engine, sequences)
    assert sequences[0].num_forwards == len(sequences[0].token_ids) + (
        sequences[0].finish_reason == "stop"
    )
    assert sequences[0].sites_hit == 2 * backbone.num_layers
    assert sequences[1].sites_hit == 0


def test_while_nothing_is_bound_the_hooks_change_nothing(backbone: Backbone) -> None:
    inputs = encode_prompts(backbone, [build_prompt(backbone, "what color?", ())]).inputs
    with torch.inference_mode():
        before = backbone.model(**inputs).logits
        engine = Engine(backbone, max_rows=1)
        beside = backbone.model(**inputs).logits
        engine.close()
    assert torch.equal(before, beside)

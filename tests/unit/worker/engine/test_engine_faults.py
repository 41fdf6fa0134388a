"""What goes wrong in a pass, and for whom: the request at fault fails, and no other notices."""

import gc
import weakref

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.core.errors import OutOfDeviceMemoryError, VLibraryError
from app.core.pictures import Picture
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt
from app.rpc.generation import GenerateDelta
from app.worker.engine.batching import cache
from app.worker.engine.batching.continuous import ContinuousBatching
from app.worker.engine.batching.static import StaticBatching
from app.worker.engine.engine import Engine
from app.worker.engine.faults import is_fatal
from tests.fakes.models.alone import RequestSpec, answer_alone, bare_backbone
from tests.fakes.models.generation import generate
from tests.fakes.models.sequences import greedy, run
from tests.fakes.models.traffic import Arrival, run_arrivals


def test_a_request_that_breaks_the_backbone_fails_alone(backbone: Backbone, engine: Engine) -> None:
    picture = Picture.of(Image.new("RGB", (16, 16), (220, 30, 30)))
    prompts = [build_prompt(backbone, "what color?", picture)] * 3
    sequences = greedy(backbone, prompts)
    ids = sequences[1].inputs["input_ids"].clone()
    ids[0, 0] = 10**6
    sequences[1].inputs = {**sequences[1].inputs, "input_ids": ids}
    run(engine, sequences)
    assert type(sequences[1].error) is VLibraryError
    assert sequences[1].error.__cause__ is not None
    for sequence in (sequences[0], sequences[2]):
        alone = generate(backbone, prompts[:1], max_new_tokens=8)[0]
        assert tuple(sequence.token_ids) == alone.token_ids


def _failing(
    backbone: Backbone, error: Exception, *, marker: int, after: int = 0
) -> RemovableHandle:
    """Makes passes fail that read this token; the first `after` of them do not."""
    seen = 0

    def fail(_module: nn.Module, _args: object, kwargs: dict[str, Tensor]) -> None:
        nonlocal seen
        if marker in kwargs["input_ids"]:
            seen += 1
            if seen > after:
                raise error

    return backbone.model.register_forward_pre_hook(fail, with_kwargs=True)


def test_running_out_of_memory_fails_one_request_which_may_be_tried_again(
    backbone: Backbone, engine: Engine
) -> None:
    prompts = [build_prompt(backbone, text, ()) for text in ("what color?", "what colo\u00e9?")]
    sequences = greedy(backbone, prompts)
    only_second = set(sequences[1].inputs["input_ids"][0].tolist()) - set(
        sequences[0].inputs["input_ids"][0].tolist()
    )
    handle = _failing(backbone, torch.OutOfMemoryError("no room"), marker=min(only_second))
    run(engine, sequences)
    handle.remove()
    assert isinstance(sequences[1].error, OutOfDeviceMemoryError)
    assert sequences[1].error.retry_after_seconds is not None
    assert sequences[0].error is None


def test_a_failing_decode_step_ends_its_rows_and_not_the_engine(
    backbone: Backbone, engine: Engine
) -> None:
    prompt = build_prompt(backbone, "what color?", ())
    sequence = greedy(backbone, [prompt])[0]
    engine.add(sequence)
    engine.step()
    handle = _failing(backbone, RuntimeError("a kernel"), marker=sequence.token_ids[-1])
    assert engine.step() == [sequence]
    handle.remove()
    assert type(sequence.error) is VLibraryError
    again = greedy(backbone, [prompt])[0]
    run(engine, [again])
    assert again.error is None


def test_a_lost_device_ends_the_engine(backbone: Backbone, engine: Engine) -> None:
    sequences = greedy(backbone, [build_prompt(backbone, "what color?", ())] * 2)
    lost = torch.AcceleratorError("the context is gone")
    handle = _failing(backbone, lost, marker=int(sequences[0].inputs["input_ids"][0, 0]))
    with pytest.raises(torch.AcceleratorError):
        run(engine, sequences)
    handle.remove()
    assert is_fatal(lost)


def test_a_decode_that_fails_for_one_row_is_repeated_for_the_others() -> None:
    family = "idefics3"
    backbone = bare_backbone(family)
    request_specs = [
        RequestSpec(seed=seed, vector=seed, max_new_tokens=8, length=6 + seed) for seed in (1, 2, 3)
    ]
    alone = [answer_alone(family, None, spec) for spec in request_specs]
    # A token that only the second answer has makes the pass that reads it fail.
    marker = next(one for one in alone[1][1:] if one not in {*alone[0], *alone[2]})
    prompts = sum(
        bool((spec.inputs(family)["input_ids"] == marker).any()) for spec in request_specs
    )
    handle = _failing(backbone, RuntimeError("a kernel"), marker=marker, after=prompts)
    engine = Engine(backbone, max_rows=4)
    ended, _ = run_arrivals(engine, [Arrival(spec=spec) for spec in request_specs], family=family)
    handle.remove()
    engine.close()
    sequences = {sequence.id: sequence for _, sequence in ended}
    assert type(sequences["1"].error) is VLibraryError
    for name, wanted in (("0", alone[0]), ("2", alone[2])):
        assert sequences[name].error is None
        assert tuple(sequences[name].token_ids) == wanted
        # Passes that were repeated count once.
        assert sequences[name].num_forwards == len(wanted)
        assert sequences[name].sites_hit == backbone.description.num_sites


def test_a_row_that_became_no_number_leaves_nothing_to_the_next_in_its_place() -> None:
    family = "idefics3"
    ruined = RequestSpec(seed=1, length=30, vector=1, strength=1e39, max_new_tokens=6)
    long = RequestSpec(seed=2, length=40, max_new_tokens=16)
    short = RequestSpec(seed=3, length=6, vector=2, max_new_tokens=6)
    engine = Engine(bare_backbone(family), max_rows=2)
    # The short one takes the place of the ruined one, beside a longer row.
    plan = [Arrival(spec=long), Arrival(spec=ruined, joins=1), Arrival(spec=short, joins=2)]
    ended, _ = run_arrivals(engine, plan, family=family)
    engine.close()
    for arrival, sequence in ended:
        if arrival.spec is ruined:
            assert type(sequence.error) is VLibraryError
        else:
            assert sequence.error is None
            assert tuple(sequence.token_ids) == answer_alone(family, None, arrival.spec)


def test_a_listener_that_fails_ends_its_own_sequence_only(
    backbone: Backbone, engine: Engine
) -> None:
    prompts = [build_prompt(backbone, "what color?", ())] * 2
    sequences = greedy(backbone, prompts)

    def fail(_delta: GenerateDelta) -> None:
        raise RuntimeError("nobody listens")

    sequences[0].listener = fail
    run(engine, sequences)
    assert type(sequences[0].error) is VLibraryError
    assert sequences[1].error is None
    assert sequences[1].token_ids


def test_growing_that_finds_no_memory_is_undone_in_all_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = "llava"
    engine = Engine(bare_backbone(family), max_rows=3)
    resized, calls = cache._resized, 0

    def scarce(states: Tensor, room: int) -> Tensor:
        nonlocal calls
        is_for_long = room >= long.length
        calls += is_for_long
        if is_for_long and calls == 4:
            raise torch.OutOfMemoryError("no room")
        return resized(states, room)

    monkeypatch.setattr(cache, "_resized", scarce)
    long, short = RequestSpec(seed=1, length=400), RequestSpec(seed=2, length=8, max_new_tokens=12)
    ended, _ = run_arrivals(
        engine, [Arrival(spec=short), Arrival(spec=long, joins=1)], family=family
    )
    runner = engine._runner
    assert isinstance(runner, ContinuousBatching)
    assert calls >= 4
    assert len({layer.room for layer in runner._cache._layers}) == 1
    assert runner._cache.room < long.length
    engine.close()
    for arrival, sequence in ended:
        if arrival.spec is long:
            assert isinstance(sequence.error, OutOfDeviceMemoryError)
        else:
            assert tuple(sequence.token_ids) == answer_alone(family, None, short)


def test_a_batch_that_cannot_be_reduced_fails_and_the_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = "mllama"
    engine = Engine(bare_backbone(family), max_rows=4)

    def scarce(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    short, long = RequestSpec(seed=1, max_new_tokens=2), RequestSpec(seed=2, max_new_tokens=9)
    with monkeypatch.context() as patched:
        patched.setattr("transformers.cache_utils.DynamicLayer.batch_select_indices", scarce)
        ended, _ = run_arrivals(engine, [Arrival(spec=short), Arrival(spec=long)], family=family)
    found = {arrival.spec: sequence for arrival, sequence in ended}
    assert tuple(found[short].token_ids) == answer_alone(family, None, short)
    assert isinstance(found[long].error, OutOfDeviceMemoryError)
    again, _ = run_arrivals(engine, [Arrival(spec=long)], family=family)
    engine.close()
    assert tuple(again[0][1].token_ids) == answer_alone(family, None, long)


@pytest.mark.parametrize(
    ("family", "kind"), [("llava", ContinuousBatching), ("mllama", StaticBatching)]
)
def test_tokens_that_cannot_be_kept_fail_their_rows_and_the_engine_goes_on(
    family: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(bare_backbone(family), max_rows=4)
    short, long = RequestSpec(seed=1, max_new_tokens=1), RequestSpec(seed=2, max_new_tokens=9)

    def scarce(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(kind, "take", scarce)
        ended, _ = run_arrivals(engine, [Arrival(spec=short), Arrival(spec=long)], family=family)
    found = {arrival.spec: sequence for arrival, sequence in ended}
    # It has all of its tokens already.
    assert tuple(found[short].token_ids) == answer_alone(family, None, short)
    assert found[short].error is None
    assert isinstance(found[long].error, OutOfDeviceMemoryError)
    again, _ = run_arrivals(engine, [Arrival(spec=long)], family=family)
    engine.close()
    assert tuple(again[0][1].token_ids) == answer_alone(family, None, long)


def test_a_failed_pass_lets_go_of_its_tensors(backbone: Backbone, engine: Engine) -> None:
    held: list[weakref.ref[Tensor]] = []

    def fail(*_: object) -> None:
        scratch = torch.zeros(1000)
        held.append(weakref.ref(scratch))
        raise RuntimeError("a kernel")

    handle = backbone.model.register_forward_pre_hook(fail)
    sequence = greedy(backbone, [build_prompt(backbone, "what color?", ())])[0]
    gc.disable()
    try:
        run(engine, [sequence])
        assert sequence.error is not None
        assert [reference() for reference in held] == [None]
    finally:
        gc.enable()
        handle.remove()

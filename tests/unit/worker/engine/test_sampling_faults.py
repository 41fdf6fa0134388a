"""What goes wrong once a pass is through: each request has its own token, or fails alone."""

import pytest
import torch
from torch import Tensor

from app.core.errors import OutOfDeviceMemoryError
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.rpc.generation import SamplingParams
from app.worker.engine import engine as engine_module
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.models.sequences import greedy, run


def _drawn(backbone: Backbone, texts: tuple[str, ...]) -> list[Sequence]:
    """Requests of different seeds that want the scores of their tokens."""
    return [
        Sequence(
            id=text,
            inputs=encode_prompts(backbone, [build_prompt(backbone, text, ())]).inputs,
            sampling=SamplingParams(max_tokens=6, temperature=1.5, seed=seed, logprobs=2),
            keeps_first=True,
        )
        for seed, text in enumerate(texts)
    ]


@pytest.mark.parametrize("name", ["sample", "score_tokens"])
def test_tokens_that_cannot_be_drawn_together_are_drawn_alone_and_are_the_same(
    backbone: Backbone, engine: Engine, monkeypatch: pytest.MonkeyPatch, *, name: str
) -> None:
    texts = ("what color?", "what shape?", "where?")
    wanted = run(engine, _drawn(backbone, texts))
    real, failures = getattr(engine_module, name), 0

    def scarce(logits: Tensor, *given: object, **named: object) -> object:
        nonlocal failures
        found = real(logits, *given, **named)
        if len(logits) > 1:
            failures += 1
            raise torch.OutOfMemoryError("no room")
        return found

    monkeypatch.setattr(engine_module, name, scarce)
    found = run(engine, _drawn(backbone, texts))
    assert failures > 3
    assert [one.error for one in found] == [None] * 3
    answers, others = ({one.id: one for one in ended} for ended in (wanted, found))
    for text in texts:
        assert answers[text].token_ids == others[text].token_ids
        assert len(answers[text].scores) == len(others[text].scores)


@pytest.mark.parametrize("name", ["sample", "score_tokens"])
def test_a_request_whose_tokens_cannot_be_drawn_fails_alone(
    backbone: Backbone, engine: Engine, monkeypatch: pytest.MonkeyPatch, *, name: str
) -> None:
    texts = ("what color?", "what shape?")
    wanted = run(engine, _drawn(backbone, texts))
    real, calls = getattr(engine_module, name), 0

    def scarce(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        # The first two of the third call on: both together, then the first of them alone.
        if calls in {3, 4}:
            raise torch.OutOfMemoryError("no room")
        return real(*given, **named)

    monkeypatch.setattr(engine_module, name, scarce)
    found = {one.id: one for one in run(engine, _drawn(backbone, texts))}
    failed, whole = (found[text] for text in texts)
    assert isinstance(failed.error, OutOfDeviceMemoryError)
    assert whole.error is None
    assert whole.token_ids == {one.id: one for one in wanted}["what shape?"].token_ids


def test_a_first_distribution_without_room_fails_its_request_alone(
    backbone: Backbone, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, kept = greedy(backbone, [build_prompt(backbone, "what color?", ())] * 2)
    kept.keeps_first = True

    def scarce(*_: object, **_named: object) -> None:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "log_softmax", scarce)
        run(engine, [plain, kept])
    assert isinstance(kept.error, OutOfDeviceMemoryError)
    assert plain.error is None

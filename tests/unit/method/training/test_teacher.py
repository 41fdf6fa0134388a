from dataclasses import replace

import pytest
import torch

from app.core.errors import ContextOverflowError
from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, encode_prompts
from app.method.steps import finish
from app.method.training.answers import answer_episodes, answer_logits
from app.method.training.losses import TeacherLogProbs
from app.method.training.progress import Reporter, TrainingProgress
from app.method.training.prompts import write_prompts
from app.method.training.teacher import TeacherCache, compute_teacher
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.models.generation import generate

EXAMPLES = tiny_examples(16)


def episodes(*, shots: int = 3) -> list[Episode]:
    return [
        Episode(query=example, context=tuple(EXAMPLES[8 + index : 8 + index + shots]))
        for index, example in enumerate(EXAMPLES[:5])
    ]


def teach(
    backbone: Backbone, taught: list[Episode], *, token_budget: int = 500, top_k: int = 300
) -> TeacherCache:
    return finish(
        compute_teacher(
            FeatureCache(backbone),
            taught,
            temperature=2.0,
            top_k=top_k,
            token_budget=token_budget,
            max_rows=4,
            instruction="Answer.",
        )
    )


def written(backbone: Backbone, asked: list[Episode], instruction: str | None) -> list[PromptText]:
    features = FeatureCache(backbone)
    return finish(write_prompts(features, asked, instruction))[0]


def test_too_many_demonstrations_are_refused_with_how_many_fit(backbone: Backbone) -> None:
    wordy = tuple(replace(example, question="word " * 120) for example in EXAMPLES[8:])
    with pytest.raises(ContextOverflowError, match=r"of 8 shots would fit") as refusal:
        teach(backbone, [Episode(query=EXAMPLES[0], context=wordy)])
    fit = refusal.value.details["shots_that_fit"]
    assert isinstance(fit, int)
    assert 0 < fit < 8
    assert teach(backbone, [Episode(query=EXAMPLES[0], context=wordy[:fit])]).is_right is not None
    with pytest.raises(ContextOverflowError):
        teach(backbone, [Episode(query=EXAMPLES[0], context=wordy[: fit + 1])])


def test_kept_predictions_equal_those_computed_anew(backbone: Backbone) -> None:
    taught = episodes()
    cache = teach(backbone, taught)
    prompts = written(backbone, taught, "Answer.")
    for number, (episode, prompt) in enumerate(zip(taught, prompts, strict=True)):
        batch = encode_prompts(backbone, [prompt], answers=[episode.query.answer])
        with torch.no_grad():
            logits = backbone.model(**batch.inputs).logits[batch.predicts_answer]
        wanted = TeacherLogProbs.from_logits(logits, temperature=2.0, top_k=0)
        found = cache.rows([number])
        torch.testing.assert_close(found.log_probs, wanted.log_probs, atol=2e-5, rtol=0)
        assert found.indices is None


def test_episodes_may_be_asked_for_in_any_order(backbone: Backbone) -> None:
    cache = teach(backbone, episodes())
    both = cache.rows([3, 1]).log_probs
    assert torch.equal(both, torch.cat([cache.rows([3]).log_probs, cache.rows([1]).log_probs]))
    assert torch.equal(cache.on(torch.device("cpu")).rows([3, 1]).log_probs, both)


def test_other_demonstrations_give_other_predictions(backbone: Backbone) -> None:
    wanted = teach(backbone, episodes()).predictions.log_probs
    assert not torch.allclose(teach(backbone, episodes(shots=2)).predictions.log_probs, wanted)
    swapped = [
        Episode(query=episode.query, context=tuple(reversed(episode.context)))
        for episode in episodes()
    ]
    assert not torch.allclose(teach(backbone, swapped).predictions.log_probs, wanted)


def test_a_large_vocabulary_is_abridged(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.method.training.teacher.SMALL_VOCABULARY", 10)
    cache = teach(backbone, episodes(), top_k=7)
    whole = cache.predictions
    assert whole.log_probs.shape[1] == 8
    assert whole.indices is not None
    assert whole.log_probs.exp().sum(-1).tolist() == pytest.approx(
        [1.0] * len(whole.log_probs), abs=1e-4
    )
    moved = cache.on(torch.device("cpu")).predictions.indices
    assert moved is not None
    assert torch.equal(moved, whole.indices)


def test_progress_is_told(backbone: Backbone) -> None:
    told: list[tuple[int, int]] = []
    reporter = Reporter()
    reporter.begin("teacher", 5)

    def hear(event: object) -> None:
        if isinstance(event, TrainingProgress):
            told.append((event.step, event.num_steps))

    steps = compute_teacher(
        FeatureCache(backbone),
        episodes(),
        temperature=1.0,
        top_k=0,
        token_budget=1,
        max_rows=4,
        reporter=reporter,
    )
    finish(steps, on_event=hear)
    assert told == [(done, 5) for done in range(1, 6)]


def states_before_answers(
    backbone: Backbone, prompts: list[PromptText], answer: str
) -> tuple[torch.Tensor, ...]:
    """What the head reads before each token of an answer, which are rows of all prompts."""
    batch = encode_prompts(backbone, prompts, answers=[answer] * len(prompts))
    seen: list[torch.Tensor] = []
    hook = backbone.model.get_submodule("lm_head").register_forward_pre_hook(
        lambda _head, inputs: seen.append(inputs[0])
    )
    with torch.no_grad():
        answer_logits(backbone, batch)
    hook.remove()
    return seen[0].view(len(prompts), -1, backbone.hidden_size).unbind(1)


@pytest.mark.parametrize("end", ["<end_of_utterance>", "<|im_end|>"])
def test_greedy_rightness_equals_generation(end: str, backbone: Backbone) -> None:
    end_id = backbone.tokenizer.convert_tokens_to_ids(end)
    assert end_id in backbone.eos_token_ids
    asked = [Episode(query=example, context=()) for example in EXAMPLES[:6]]
    prompts = written(backbone, asked, None)
    head = backbone.model.get_submodule("lm_head")
    assert isinstance(head, torch.nn.Linear)
    kept = head.weight.detach().clone()
    (blue,) = backbone.tokenizer.encode(" blue", add_special_tokens=False)
    first, second = (states.mean(0) for states in states_before_answers(backbone, prompts, "blue"))
    try:
        # Makes "blue" likely first and the end likely after it.
        with torch.no_grad():
            between = (first + second) / 2
            shift = first - second
            shift = 100 * (shift - between * (shift @ between) / (between @ between))
            head.weight[blue] += shift
            head.weight[end_id] -= shift
        answered = finish(
            answer_episodes(
                FeatureCache(backbone),
                asked,
                token_budget=100,
                max_rows=4,
            )
        )
        generated = generate(backbone, prompts, max_new_tokens=8)
    finally:
        with torch.no_grad():
            head.weight.copy_(kept)
    wanted = [
        answer.finish_reason == "stop" and answer.text == episode.query.answer
        for answer, episode in zip(generated, asked, strict=True)
    ]
    assert any(wanted)
    assert not all(wanted)
    assert [answer.is_right for answer in answered] == wanted
    assert [answer.num_tokens for answer in answered] == [
        answer.num_prompt_tokens for answer in generated
    ]

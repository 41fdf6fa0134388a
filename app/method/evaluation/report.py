"""Measuring a backbone on a task under one condition."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

from app.core.errors import InvalidInputError
from app.method.backbone.batching import prompt_batches
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt
from app.method.evaluation.conditions import Condition, choose_demonstrations
from app.method.evaluation.metrics import find_scorer, mean_interval
from app.method.steering.greedy import answer_text, generate_encoded


@dataclass(frozen=True, kw_only=True)
class ConditionReport:
    """How well the backbone did under one condition.

    Attributes:
        labels: Labelled items that an answer depends on; None where nobody knows.
        accuracy: Mean score, in [0, 1].
        prompt_tokens_mean: Image tokens included.
        ms_per_query: Wall time of encoding and generating, shared among the items of a batch.
            Vision features of all pictures are computed before the clock starts.
        texts: The answers, in the order of the items.
        scores: Theirs, each in [0, 1].
    """

    condition: str
    scorer: str
    shots: int
    labels: int | None
    items: int
    accuracy: float
    low: float
    high: float
    prompt_tokens_mean: float
    ms_per_query: float
    texts: tuple[str, ...]
    scores: tuple[float, ...]


def evaluate(
    backbone: Backbone,
    examples: Sequence[Example],
    *,
    condition: Condition,
    scorer: str = "exact-match",
    max_new_tokens: int = 16,
    token_budget: int = 16384,
    features: FeatureCache | None = None,
) -> ConditionReport:
    """Asks every item and scores the answers.

    Args:
        backbone: Who answers, greedily.
        examples: At least one.
        condition: What stands before each query and what steers.
        scorer: A name of `SCORERS`.
        max_new_tokens: The most tokens of an answer.
        token_budget: Most prompt tokens of a batch, padding included.
        features: Vision features computed before, to be reused.

    Raises:
        InvalidInputError: There are no items, or the scorer is unknown.
        SteeringError: The vectors could not be applied in full.
    """
    score = find_scorer(scorer)
    if not examples:
        raise InvalidInputError("Nothing to evaluate: wanted items, found none")
    cache = features or FeatureCache(backbone)
    chosen = choose_demonstrations(condition, examples, cache)
    # Of a large support nobody waits for what is never shown.
    shown = (*examples, *chain.from_iterable(chosen))
    cache.prepare([picture for example in shown for picture in example.pictures])
    started = time.perf_counter()
    if condition.name == "nearest_copy":
        answers = [(context[-1].answer if context else "", 0) for context in chosen]
    else:
        prompts = [
            build_prompt(backbone, example.question, example.pictures, demonstrations=context)
            for example, context in zip(examples, chosen, strict=True)
        ]
        answers = _generate(
            backbone,
            prompts,
            condition=condition,
            features=cache,
            max_new_tokens=max_new_tokens,
            token_budget=token_budget,
        )
    seconds = time.perf_counter() - started
    texts = tuple(text for text, _ in answers)
    scores = tuple(
        score(text, example.answers) for text, example in zip(texts, examples, strict=True)
    )
    accuracy, low, high = mean_interval(scores)
    return ConditionReport(
        condition=condition.name,
        scorer=scorer,
        shots=condition.shots,
        labels=condition.num_labels,
        items=len(examples),
        accuracy=accuracy,
        low=low,
        high=high,
        prompt_tokens_mean=sum(tokens for _, tokens in answers) / len(examples),
        ms_per_query=1000 * seconds / len(examples),
        texts=texts,
        scores=scores,
    )


def _generate(
    backbone: Backbone,
    prompts: Sequence[PromptText],
    *,
    condition: Condition,
    features: FeatureCache,
    max_new_tokens: int,
    token_budget: int,
) -> list[tuple[str, int]]:
    """The answer that counts to each prompt, and how many tokens the prompt has."""
    vectors = condition.vectors
    shifts = None if vectors is None else vectors.shift(condition.strength)[None]
    lengths = features.count_tokens(prompts)
    found: dict[int, tuple[str, int]] = {}
    for batch in prompt_batches(prompts, lengths, features=features, token_budget=token_budget):
        encoded = features.encode([prompts[index] for index in batch])
        with nullcontext() if condition.applied is None else condition.applied(encoded):
            answers = generate_encoded(
                backbone, encoded, shifts=shifts, max_new_tokens=max_new_tokens
            )
        texts = [condition.translate(answer_text(backbone, ids)) for ids in answers]
        found.update(zip(batch, zip(texts, encoded.num_prompt_tokens, strict=True), strict=True))
    return [found[index] for index in range(len(prompts))]

"""The demo's comparison: the same questions asked five ways through the service, and copied."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from rich.progress import track

from app.cli.console import plain_console
from app.core.jobs import BALANCED_SHOTS, Method

if TYPE_CHECKING:
    from app.method.backbone.examples import Example
    from vlibrary_client import Answer, Client, Dataset, Vector

CONDITIONS: Final[tuple[Method, ...]] = ("zero_shot", "icl", "icl_balanced", "knn_icl", "m2iv")
COPY: Final[Method] = "nearest_copy"
_SHOWN: Final[tuple[Method, ...]] = ("zero_shot", "icl", "knn_icl", "m2iv")
# As many as the worker takes into one batch, for every condition alike.
_CONCURRENT: Final = 16
_MAX_TOKENS: Final = 12
_SIDE_BY_SIDE: Final = 3


def compare(
    client: "Client",
    questions: "Sequence[Example]",
    *,
    training: "Sequence[Example]",
    dataset: "Dataset",
    vector: "Vector",
    shots: int,
) -> dict[str, Any]:
    """Accuracy, labels, prompt tokens and milliseconds a question under each condition."""
    from vlibrary_client import Demonstrations

    def demonstrated(selection: Any, count: int) -> Callable[[int], dict[str, Any]]:  # noqa: ANN401
        return lambda place: {
            "demonstrations": Demonstrations(
                dataset=dataset, shots=count, selection=selection, seed=place
            )
        }

    options: dict[str, Callable[[int], dict[str, Any]]] = {
        "zero_shot": lambda _: {},
        "icl": demonstrated("random", shots),
        "icl_balanced": demonstrated("balanced", BALANCED_SHOTS),
        "knn_icl": demonstrated("nearest", shots),
        "m2iv": lambda _: {"vector": vector},
    }
    answers: dict[str, list[Answer]] = {}
    facts: dict[str, Any] = {}
    speed: dict[str, float] = {}
    tokens: dict[str, float] = {}
    for name in CONDITIONS:
        # One question beforehand, so that nobody pays for what is loaded once.
        _ask(client, questions[0], options[name](0))
        started = time.perf_counter()
        answers[name] = _ask_all(client, questions, options[name], name=name)
        speed[name] = round(1000 * (time.perf_counter() - started) / len(questions), 2)
        tokens[name] = sum(answer.usage.prompt_tokens for answer in answers[name]) / len(questions)
        facts[name] = _accuracy(answers[name], questions)
    facts[COPY], tokens[COPY] = _copied(training, questions), 0.0
    return {
        **facts,
        "labels": {
            "zero_shot": 0,
            COPY: len(training),
            "icl": shots,
            "icl_balanced": BALANCED_SHOTS,
            "knn_icl": len(training),
            "m2iv": len(training),
        },
        "ms_per_query": speed,
        "prompt_tokens": tokens,
        "side_by_side": _side_by_side(questions, answers),
    }


def _ask(client: "Client", example: "Example", options: dict[str, Any]) -> "Answer":
    return client.steer.generate(
        example.question,
        images=[picture.data for picture in example.pictures],
        max_tokens=_MAX_TOKENS,
        **options,
    )


def _ask_all(
    client: "Client",
    questions: "Sequence[Example]",
    options: Callable[[int], dict[str, Any]],
    *,
    name: str,
) -> "list[Answer]":
    with ThreadPoolExecutor(_CONCURRENT) as pool:
        pending = [
            pool.submit(_ask, client, example, options(place))
            for place, example in enumerate(questions)
        ]
        console = plain_console(stderr=True)
        return [answer.result() for answer in track(pending, description=name, console=console)]


def _accuracy(answers: "Sequence[Answer]", questions: "Sequence[Example]") -> dict[str, float]:
    from app.method.evaluation.metrics import exact_match, wilson_interval

    right = sum(
        exact_match(answer.text, example.answers) == 1.0
        for answer, example in zip(answers, questions, strict=True)
    )
    accuracy, low, high = wilson_interval(right, len(questions))
    return {"accuracy": accuracy, "low": low, "high": high}


def _copied(training: "Sequence[Example]", questions: "Sequence[Example]") -> dict[str, float]:
    """What the answers of the items nearest in picture and question are worth, asked of nobody."""
    from app.method.backbone.loading import load_backbone
    from app.method.evaluation.conditions import in_context
    from app.method.evaluation.report import evaluate

    print("Copying the answer of the nearest training item ...")
    report = evaluate(
        load_backbone("pocket", device="cpu"),
        questions,
        condition=in_context("nearest_copy", training, shots=1),
    )
    return {"accuracy": report.accuracy, "low": report.low, "high": report.high}


def _side_by_side(
    questions: "Sequence[Example]", answers: "dict[str, list[Answer]]"
) -> list[dict[str, str]]:
    """The first questions that not everyone answered alike."""
    rows = [
        {
            "question": example.question,
            "answer": example.answer,
            **{name: answers[name][place].text.strip() for name in _SHOWN},
        }
        for place, example in enumerate(questions)
    ]
    telling = [row for row in rows if len({row[name].lower() for name in _SHOWN}) > 1]
    return (telling or rows)[:_SIDE_BY_SIDE]

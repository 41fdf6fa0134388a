"""Every family through `vlibrary serve`, with its real processor, tokenizer and chat template."""

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import numpy as np
import pytest

from tests.families.conftest import Served, encoded, picture
from tests.families.plain import MAX_TOKENS
from vlibrary_client import Dataset, Demonstrations, VectorUse

pytestmark = [
    pytest.mark.families,
    # PaliGemma's processor makes arrays of tensors.
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

COLOURS = ("red", "green", "blue", "grey")
# Their processors take no prompt without a picture.
NEED_A_PICTURE = {"paligemma", "paligemma2"}
TRAINING: dict[str, Any] = {
    "shots": 2,
    "num_queries": 8,
    "contexts_per_query": 1,
    "max_steps": 3,
    "trial_steps": 0,
    "batch_size": 4,
    "held_out_fraction": 0.25,
    "min_held_out": 4,
    "max_held_out": 4,
    "cross_fit_below": 0,
    "evaluate_every": 3,
}
NUM_ITEMS = 24
SHOTS = 16


def items() -> list[dict[str, Any]]:
    return [
        {
            "image": encoded(picture(seed)),
            "question": "Which colour is it?",
            "answer": COLOURS[seed % len(COLOURS)],
        }
        for seed in range(NUM_ITEMS)
    ]


@pytest.fixture(scope="package")
def dataset(served: Served) -> Dataset:
    return served.client.datasets.upload(items(), name="colours")


@pytest.fixture(scope="package")
def embeddings(served: Served) -> list[float]:
    """Of a picture that nobody has asked about yet."""
    return embed(served, 100)


@pytest.fixture(scope="package")
def vector(served: Served, embeddings: list[float], dataset: Dataset) -> str:
    """Trained in a few steps; what it is worth is none of these tests' business."""
    assert embeddings
    job = served.client.train("colours", dataset, **TRAINING).wait(timeout=300)
    assert job.state == "succeeded", job
    return "colours"


def embed(served: Served, seed: int) -> list[float]:
    body = {
        "model": str(served.folder),
        "input": ["what is it?"],
        "vlibrary": {"images": [base64.b64encode(encoded(picture(seed, (80, 48)))).decode()]},
    }
    reply = httpx.post(
        f"{served.installation.url}/v1/embeddings", json=body, timeout=120, trust_env=False
    )
    assert reply.status_code == 200, reply.text
    row: list[float] = reply.json()["data"][0]["embedding"]
    return row


def ask(served: Served, question: str, seeds: list[tuple[int, tuple[int, int]]]) -> list[int]:
    answer = served.client.steer.generate(
        question,
        images=[encoded(picture(seed, size)) for seed, size in seeds],
        max_tokens=MAX_TOKENS,
        logprobs=0,
    )
    assert answer.logprobs is not None
    return [token.token_id for token in answer.logprobs]


@pytest.mark.parametrize(
    "pictures",
    [
        [(1, (56, 56))],
        [(2, (150, 90))],
        [(3, (56, 56)), (4, (56, 56))],
        [(5, (60, 130)), (6, (56, 56))],
        [],
    ],
    ids=["square", "wide", "two", "two-sizes", "text"],
)
def test_unsteered_tokens_are_those_of_generate(
    served: Served, pictures: list[tuple[int, tuple[int, int]]]
) -> None:
    question = "What is shown here?"
    if not pictures and served.family in NEED_A_PICTURE:
        with pytest.raises(Exception, match="images"):
            ask(served, question, pictures)
        return
    images = [picture(seed, size) for seed, size in pictures]
    wanted = served.plain.answer(served.plain.prompt(question, images))
    assert ask(served, question, pictures) == wanted


def test_what_is_steered_has_a_whole_receipt(served: Served, vector: str) -> None:
    plain = ask(served, "Which colour is it?", [(30, (56, 56))])
    answer = served.client.steer.generate(
        "Which colour is it?",
        images=[encoded(picture(30))],
        vector=VectorUse(vector, strength=1.0),
        baseline=True,
        max_tokens=MAX_TOKENS,
        logprobs=0,
    )
    assert answer.receipt.sites_hit == answer.receipt.sites_expected > 0
    assert [use.name for use in answer.applied] == [vector]
    assert answer.baseline is not None
    assert answer.receipt.kl_first_token is not None
    assert ask(served, "Which colour is it?", [(30, (56, 56))]) == plain


def test_a_text_alone_is_steered(served: Served, vector: str) -> None:
    if served.family in NEED_A_PICTURE:
        return
    answer = served.client.steer.generate("And now?", vector=vector, max_tokens=4)
    assert answer.receipt.sites_hit == answer.receipt.sites_expected > 0


def test_a_stream_is_the_whole_answer(served: Served, vector: str) -> None:
    options: Any = {"images": [encoded(picture(31))], "vector": vector, "max_tokens": MAX_TOKENS}
    whole = served.client.steer.generate("Which colour is it?", **options)
    with served.client.steer.stream("Which colour is it?", **options) as stream:
        pieces = [delta.text for delta in stream]
    assert "".join(pieces) == whole.text


@pytest.mark.parametrize("selection", ["random", "nearest"])
def test_sixteen_shots_are_the_processors_prompt(
    served: Served, dataset: Dataset, selection: Literal["random", "nearest"]
) -> None:
    wanted = served.plain.prompt(
        "Which colour is it?",
        [picture(40)],
        [(picture(one), "Which colour is it?", COLOURS[0]) for one in range(SHOTS)],
    )
    answer = served.client.steer.generate(
        "Which colour is it?",
        images=[encoded(picture(40))],
        demonstrations=Demonstrations(dataset=dataset, shots=SHOTS, selection=selection),
        max_tokens=MAX_TOKENS,
    )
    # Answers differ in their length, pictures do not.
    num_tokens = wanted["input_ids"].shape[1]
    assert abs(answer.usage.prompt_tokens - num_tokens) <= 3 * SHOTS
    assert answer.usage.completion_tokens > 0


def test_what_does_not_fit_is_refused_with_what_would(served: Served, dataset: Dataset) -> None:
    with pytest.raises(Exception, match="of 20 shots would fit") as caught:
        served.client.steer.generate(
            "Which colour is it? " * 1500,
            images=[encoded(picture(41))],
            demonstrations=Demonstrations(dataset=dataset, shots=20),
            max_tokens=MAX_TOKENS,
        )
    assert "context" in str(caught.value)


def test_sixteen_mixed_requests_at_once_are_as_if_alone(
    served: Served, vector: str, dataset: Dataset
) -> None:
    def one(number: int) -> str:
        options: Any = {"images": [encoded(picture(50 + number, (56 + 9 * (number % 3), 56)))]}
        if number % 4 == 1:
            options["vector"] = vector
        if number % 4 == 2:
            options["images"] *= 2
        if number % 4 == 3:
            options["demonstrations"] = Demonstrations(dataset=dataset, shots=2, seed=number)
        return served.client.steer.generate(
            f"What is number {number}?", max_tokens=2 + number % 7, **options
        ).text

    alone = [one(number) for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(one, range(16))) == alone


def test_embeddings_do_not_depend_on_what_was_asked(
    served: Served, embeddings: list[float], vector: str
) -> None:
    assert vector
    ask(served, "What is it?", [(100, (80, 48))])
    assert np.allclose(embed(served, 100), embeddings, atol=1e-6)
    assert np.allclose(embed(served, 101), embed(served, 101), atol=1e-6)
    assert not np.allclose(embed(served, 101), embeddings, atol=1e-4)


def test_the_vector_is_found(served: Served, vector: str) -> None:
    found = served.client.retrieve(
        image=encoded(picture(0)), text="Which colour is it?", only_ready=False
    )
    assert found.abstained or [match.vector.name for match in found.matches] == [vector]

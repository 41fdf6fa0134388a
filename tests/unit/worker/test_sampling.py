import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from app.worker.engine.sampling import Picker, Sampling, pick_tokens, score_token

VOCAB = 40


def _logits(*, rows: int, seed: int) -> torch.Tensor:
    return torch.randn((rows, VOCAB), generator=torch.Generator().manual_seed(seed)) * 3


def _draws(logits: torch.Tensor, sampling: Sampling, *, count: int) -> list[int]:
    picker = Picker(sampling=sampling)
    return [pick_tokens(logits, [picker])[0] for _ in range(count)]


def test_greedy_rows_take_the_likeliest_token() -> None:
    logits = _logits(rows=5, seed=0)
    greedy = Picker(sampling=Sampling(max_new_tokens=1))
    assert pick_tokens(logits, [greedy] * 5) == logits.argmax(-1).tolist()


@given(seed=st.integers(0, 2**63 - 1), neighbours=st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_a_seeded_row_draws_the_same_whoever_runs_beside_it(seed: int, neighbours: int) -> None:
    logits = _logits(rows=neighbours + 1, seed=1)
    drawn = Sampling(max_new_tokens=1, temperature=0.8, top_p=0.9, top_k=20, seed=seed)
    other = Sampling(max_new_tokens=1, temperature=1.5, seed=seed + 1)
    samplings = [other] * neighbours + [drawn]
    together = pick_tokens(logits, [Picker(sampling=one) for one in samplings])
    alone = pick_tokens(logits[-1:], [Picker(sampling=drawn)])
    assert together[-1] == alone[0]


def test_top_k_keeps_the_k_likeliest_tokens() -> None:
    logits = _logits(rows=1, seed=2)
    drawn = _draws(logits, Sampling(max_new_tokens=1, temperature=5.0, top_k=3), count=200)
    assert set(drawn) == set(logits[0].topk(3).indices.tolist())


def test_top_p_keeps_the_smallest_set_with_that_mass() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    nucleus = Sampling(max_new_tokens=1, temperature=1.0, top_p=0.7)
    assert set(_draws(probabilities.log(), nucleus, count=200)) == {0, 1}


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1]])
    drawn = _draws(probabilities.log(), Sampling(max_new_tokens=1, temperature=1.0), count=2000)
    for token, probability in enumerate(probabilities[0].tolist()):
        # Five standard deviations of a binomial count.
        spread = 5 * (probability * (1 - probability) / 2000) ** 0.5
        assert abs(drawn.count(token) / 2000 - probability) < spread


def test_a_tiny_temperature_is_greedy_and_not_an_error() -> None:
    logits = _logits(rows=1, seed=3) * 1e4
    drawn = _draws(logits, Sampling(max_new_tokens=1, temperature=1e-300), count=3)
    assert drawn == [int(logits.argmax())] * 3


def _pick(logits: torch.Tensor, *, answer: list[int], prompt: list[int], **penalties: float) -> int:
    sampling = Sampling(max_new_tokens=1, **penalties)  # type: ignore[arg-type]  # numbers all
    picker = Picker(sampling=sampling, prompt_ids=prompt, answer_ids=answer)
    return pick_tokens(logits, [picker])[0]


def test_presence_and_frequency_penalties_count_the_answer_only() -> None:
    logits = torch.tensor([[2.0, 1.5, 0.0]])
    assert _pick(logits, answer=[], prompt=[0], presence_penalty=1.0) == 0
    assert _pick(logits, answer=[0], prompt=[], presence_penalty=0.4) == 0
    assert _pick(logits, answer=[0], prompt=[], presence_penalty=1.0) == 1
    assert _pick(logits, answer=[0], prompt=[], frequency_penalty=0.3) == 0
    assert _pick(logits, answer=[0, 0], prompt=[], frequency_penalty=0.3) == 1


@given(factor=st.floats(0.5, 4.0), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_repetition_penalty_is_that_of_transformers(factor: float, seed: int) -> None:
    logits = _logits(rows=1, seed=seed)
    prompt, answer = [1, 2, 3], [4, 5, int(logits.argmax())]
    stock = RepetitionPenaltyLogitsProcessor(factor)
    wanted = int(stock(torch.tensor([prompt + answer]), logits.clone()).argmax())
    assert _pick(logits, answer=answer, prompt=prompt, repetition_penalty=factor) == wanted


def test_scores_are_the_backbones_own_and_list_the_likeliest() -> None:
    logits = _logits(rows=1, seed=4)[0]
    wanted = logits.log_softmax(-1)
    score = score_token(logits, 7, num_top=3)
    assert score.logprob == float(wanted[7])
    assert [one for one, _ in score.top] == wanted.topk(3).indices.tolist()
    assert score_token(logits, 7, num_top=0).top == ()

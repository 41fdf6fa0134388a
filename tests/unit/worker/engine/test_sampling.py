import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor

from app.core.errors import VLibraryError
from app.rpc.generation import SamplingParams
from app.worker.engine.sampling import Sampler, sample, score_tokens

VOCAB = 40


def _logits(*, rows: int, seed: int) -> torch.Tensor:
    return torch.randn((rows, VOCAB), generator=torch.Generator().manual_seed(seed)) * 3


def _token(logits: torch.Tensor, sampler: Sampler) -> int:
    (token_id,) = sample(logits, [sampler])
    assert isinstance(token_id, int)
    return token_id


def _draws(logits: torch.Tensor, sampling: SamplingParams, *, count: int) -> list[int]:
    sampler = Sampler(sampling=sampling)
    return [_token(logits, sampler) for _ in range(count)]


def test_greedy_rows_take_the_likeliest_token() -> None:
    logits = _logits(rows=5, seed=0)
    greedy = Sampler(sampling=SamplingParams(max_tokens=1))
    assert sample(logits, [greedy] * 5) == logits.argmax(-1).tolist()


@given(seed=st.integers(0, 2**63 - 1), neighbours=st.integers(0, 4))
@example(seed=2**63 - 1, neighbours=1)
@settings(max_examples=25)
def test_a_seeded_row_draws_the_same_whoever_runs_beside_it(seed: int, neighbours: int) -> None:
    logits = _logits(rows=neighbours + 1, seed=1)
    drawn = SamplingParams(max_tokens=1, temperature=0.8, top_p=0.9, top_k=20, seed=seed)
    # Another seed that is never out of bounds.
    other = SamplingParams(max_tokens=1, temperature=1.5, seed=seed ^ 1)
    samplings = [other] * neighbours + [drawn]
    together = sample(logits, [Sampler(sampling=one) for one in samplings])
    alone = sample(logits[-1:], [Sampler(sampling=drawn)])
    assert together[-1] == alone[0]


def test_top_k_keeps_the_k_likeliest_tokens() -> None:
    logits = _logits(rows=1, seed=2)
    drawn = _draws(logits, SamplingParams(max_tokens=1, temperature=5.0, top_k=3), count=200)
    assert set(drawn) == set(logits[0].topk(3).indices.tolist())


def test_top_p_keeps_the_smallest_set_with_that_mass() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    nucleus = SamplingParams(max_tokens=1, temperature=1.0, top_p=0.7)
    assert set(_draws(probabilities.log(), nucleus, count=200)) == {0, 1}


@pytest.mark.parametrize("temperature", [1.5, 3.0])
def test_min_p_keeps_what_transformers_keeps(temperature: float) -> None:
    logits = _logits(rows=1, seed=7)
    scaled = logits / temperature
    warper: LogitsProcessor = MinPLogitsWarper(0.2)
    kept = warper(torch.LongTensor([[0]]), torch.FloatTensor(scaled)).isfinite()
    sampling = SamplingParams(max_tokens=1, temperature=temperature, min_p=0.2)
    wanted = set(kept[0].nonzero()[:, 0].tolist())
    assert 1 < len(wanted) < VOCAB
    assert set(_draws(logits, sampling, count=400)) == wanted


def test_the_largest_min_p_is_greedy_and_rows_without_one_are_left_alone() -> None:
    logits = _logits(rows=2, seed=8)
    strict = SamplingParams(max_tokens=1, temperature=1.0, min_p=1.0)
    free = SamplingParams(max_tokens=1, temperature=1.0, seed=5)
    first, second = sample(logits, [Sampler(sampling=strict), Sampler(sampling=free)])
    assert first == int(logits[0].argmax())
    assert second == _token(logits[1:], Sampler(sampling=free))


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1]])
    drawn = _draws(probabilities.log(), SamplingParams(max_tokens=1, temperature=1.0), count=2000)
    for token, probability in enumerate(probabilities[0].tolist()):
        # Five standard deviations of a binomial count.
        spread = 5 * (probability * (1 - probability) / 2000) ** 0.5
        assert abs(drawn.count(token) / 2000 - probability) < spread


def test_a_tiny_temperature_is_greedy_and_not_an_error() -> None:
    logits = _logits(rows=1, seed=3) * 1e4
    drawn = _draws(logits, SamplingParams(max_tokens=1, temperature=1e-300), count=3)
    assert drawn == [int(logits.argmax())] * 3


def _sampled(
    logits: torch.Tensor, *, answer: list[int], prompt: list[int], **penalties: float
) -> int:
    sampling = SamplingParams(max_tokens=1, **penalties)
    sampler = Sampler(sampling=sampling, prompt_ids=prompt, answer_ids=answer)
    return _token(logits, sampler)


def test_presence_and_frequency_penalties_count_the_answer_only() -> None:
    logits = torch.tensor([[2.0, 1.5, 0.0]])
    assert _sampled(logits, answer=[], prompt=[0], presence_penalty=1.0) == 0
    assert _sampled(logits, answer=[0], prompt=[], presence_penalty=0.4) == 0
    assert _sampled(logits, answer=[0], prompt=[], presence_penalty=1.0) == 1
    assert _sampled(logits, answer=[0], prompt=[], frequency_penalty=0.3) == 0
    assert _sampled(logits, answer=[0, 0], prompt=[], frequency_penalty=0.3) == 1


@given(factor=st.floats(0.5, 4.0), seed=st.integers(0, 99))
def test_the_repetition_penalty_is_that_of_transformers(factor: float, seed: int) -> None:
    logits = _logits(rows=1, seed=seed)
    prompt, answer = [1, 2, 3], [4, 5, int(logits.argmax())]
    stock = RepetitionPenaltyLogitsProcessor(factor)
    wanted = int(stock(torch.tensor([prompt + answer]), logits.clone()).argmax())
    assert _sampled(logits, answer=answer, prompt=prompt, repetition_penalty=factor) == wanted


def test_scores_are_the_backbones_own_and_list_the_likeliest() -> None:
    logits = _logits(rows=2, seed=4)
    wanted = logits.log_softmax(-1)
    first, second = score_tokens(logits, [7, 9], top_logprobs=[3, 0], read=str)
    assert first.logprob == float(wanted[0, 7])
    assert [one.token_id for one in first.top] == wanted[0].topk(3).indices.tolist()
    assert [one.text for one in first.top] == [str(one.token_id) for one in first.top]
    assert second.logprob == float(wanted[1, 9])
    assert second.top == ()


def test_rows_are_read_back_once_whatever_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counted(name: str) -> None:
        original = getattr(torch.Tensor, name)

        def read(self: torch.Tensor, *args: object) -> object:
            reads.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, read)

    # A row's random number is drawn on the CPU and read as a float, whatever the device.
    for name in ("tolist", "item", "__int__", "__index__", "__bool__"):
        counted(name)
    mixed = [
        SamplingParams(max_tokens=1),
        SamplingParams(max_tokens=1, temperature=0.7, top_k=3),
        SamplingParams(max_tokens=1, temperature=1.2, top_p=0.8, presence_penalty=1.0),
        SamplingParams(max_tokens=1, repetition_penalty=1.3),
    ]
    samplers = [Sampler(sampling=one, prompt_ids=[1], answer_ids=[2]) for one in mixed]
    sample(_logits(rows=4, seed=8), samplers)
    assert reads == ["tolist"]


@given(seed=st.integers(0, 999), data=st.data())
@settings(max_examples=40)
def test_a_row_gets_alone_what_it_gets_among_others(seed: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 6))
    chosen = [
        SamplingParams(
            max_tokens=1,
            temperature=data.draw(st.sampled_from([0.0, 0.5, 1.5])),
            top_k=data.draw(st.sampled_from([0, 1, 4, 100])),
            top_p=data.draw(st.sampled_from([1.0, 0.9, 0.2])),
            frequency_penalty=data.draw(st.sampled_from([0.0, 0.8])),
            repetition_penalty=data.draw(st.sampled_from([1.0, 1.7])),
            seed=place,
        )
        for place in range(rows)
    ]
    logits = _logits(rows=rows, seed=seed)

    def sampler(place: int) -> Sampler:
        return Sampler(sampling=chosen[place], prompt_ids=[3, 5], answer_ids=[place, 7, 7])

    together = sample(logits, [sampler(place) for place in range(rows)])
    alone = [sample(logits[place : place + 1], [sampler(place)])[0] for place in range(rows)]
    assert together == alone


def test_a_row_without_numbers_fails_alone() -> None:
    logits = _logits(rows=3, seed=5)
    logits[1, 7] = torch.nan
    drawn = SamplingParams(max_tokens=1, temperature=1.0)
    for sampling in (SamplingParams(max_tokens=1), drawn):
        first, second, third = sample(logits, [Sampler(sampling=sampling) for _ in range(3)])
        assert isinstance(first, int)
        assert isinstance(second, VLibraryError)
        assert isinstance(third, int)


def test_the_least_repetition_penalty_and_tokens_beyond_the_head_are_no_error() -> None:
    logits = _logits(rows=1, seed=6)
    picked = _sampled(logits, answer=[3], prompt=[VOCAB + 5], repetition_penalty=0.01)
    assert 0 <= picked < VOCAB

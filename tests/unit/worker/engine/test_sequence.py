import torch
from hypothesis import given
from hypothesis import strategies as st

from app.rpc.generation import GenerateDelta, SamplingParams, TokenLogprob, TokenLogprobs
from app.worker.engine.sequence import Sequence

END = 0


def _text(token_ids: list[int]) -> str:
    return "".join(chr(token_id) for token_id in token_ids)


def _answered(letters: str, *, stop: tuple[str, ...] = (), max_new_tokens: int = 1000) -> Sequence:
    """A sequence that is offered these letters and then the end token, one at a time."""
    sequence = Sequence(
        id="one",
        inputs={"input_ids": torch.ones((1, 3), dtype=torch.long)},
        sampling=SamplingParams(max_tokens=max_new_tokens, stop=stop),
    )
    for token_id in [*map(ord, letters), END]:
        if not sequence.is_finished:
            sequence.append(token_id, ends=frozenset({END}), decode=_text)
    return sequence


@given(
    letters=st.text("abc ", max_size=60),
    stop=st.lists(st.text("abc ", min_size=1, max_size=4), max_size=3),
)
def test_an_answer_ends_before_the_first_stop_text(letters: str, stop: list[str]) -> None:
    answered = _answered(letters, stop=tuple(stop))
    # The stop text completed first ends it; of several completed at once, the leftmost counts.
    ends = [
        index for index in range(1, len(letters) + 1) if any(s in letters[:index] for s in stop)
    ]
    wanted = letters
    if ends:
        seen = letters[: ends[0]]
        wanted = seen[: min(seen.find(s) for s in stop if s in seen)]
    assert answered.text == wanted.lstrip()
    assert answered.finish_reason == "stop"


def test_the_end_token_is_no_part_of_the_answer() -> None:
    answered = _answered("yes")
    assert answered.text == "yes"
    assert answered.token_ids == [ord(letter) for letter in "yes"]


def test_an_answer_ends_at_its_limit() -> None:
    answered = _answered("abcdef", max_new_tokens=4)
    assert (answered.text, answered.finish_reason) == ("abcd", "length")


def test_the_receipt_keeps_the_fewest_sites_of_all_passes() -> None:
    sequence = _answered("a")
    for sites in (6, 4, 6):
        sequence.note_forward(sites_hit=sites, now=float(sites))
    assert (sequence.sites_hit, sequence.num_forwards) == (4, 3)
    assert (sequence.first_token_at, sequence.last_token_at) == (6.0, 6.0)


def _score(token_id: int) -> TokenLogprobs:
    likeliest = TokenLogprob(token_id=token_id, text="alone", logprob=-1.0)
    return TokenLogprobs(token_id=token_id, text="alone", logprob=-1.0, top=(likeliest,))


@given(
    letters=st.text("ab ", max_size=30),
    stop=st.lists(st.text("ab ", min_size=1, max_size=3), max_size=2),
)
def test_scores_cover_the_text_that_is_shown_and_no_more(letters: str, stop: list[str]) -> None:
    streamed: list[GenerateDelta] = []
    sequences = []
    for listener in (None, streamed.append):
        sequence = Sequence(
            id="one",
            inputs={"input_ids": torch.ones((1, 3), dtype=torch.long)},
            sampling=SamplingParams(max_tokens=1000, stop=tuple(stop), logprobs=1),
            listener=listener,
        )
        for token_id in [*map(ord, letters), END]:
            if not sequence.is_finished:
                sequence.append(
                    token_id, ends=frozenset({END}), decode=_text, score=_score(token_id)
                )
        sequences.append(sequence)
    whole, watched = sequences
    assert "".join(score.text for score in whole.scores) == whole.text == watched.text
    assert "".join(one.text for one in streamed) == whole.text
    told = [score for one in streamed for score in one.logprobs or ()]
    assert told == whole.scores == watched.scores
    assert sum(len(one.token_ids) for one in streamed) == len(told)

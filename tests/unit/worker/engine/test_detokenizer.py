"""What a growing answer shows: never a part of a stop text, never half a character."""

from hypothesis import given
from hypothesis import strategies as st

from app.worker.engine.detokenizer import Detokenizer, whole_text
from tests.fakes.models.backbones import tiny_processor

LETTERS = "abc "


def _by_letter(token_ids: list[int]) -> str:
    return "".join(chr(token_id) for token_id in token_ids)


def _by_byte(token_ids: list[int]) -> str:
    """As byte-level tokenizers do: what is no whole character reads as a replacement."""
    return bytes(token_ids).decode(errors="replace")


def _show(growing: Detokenizer, token_ids: list[int]) -> list[str]:
    shown = []
    for token_id in token_ids:
        growing.add(token_id)
        shown.append(growing.shown(is_last=growing.is_stopped))
        if growing.is_stopped:
            return shown
    growing.end()
    return [*shown, growing.shown(is_last=True)]


@given(
    letters=st.text(LETTERS, max_size=40),
    stop=st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=3),
)
def test_what_was_shown_is_the_whole_answer(letters: str, stop: list[str]) -> None:
    growing = Detokenizer(_by_letter, stop=tuple(stop))
    shown = _show(growing, list(map(ord, letters)))
    assert "".join(shown) == growing.whole
    assert not any(one in growing.whole for one in stop)


@given(
    text=st.text("ab \u00e9\u4e09\U0001f642", max_size=30),
    stop=st.lists(st.text("ab \u00e9\U0001f642", min_size=1, max_size=3), max_size=3),
)
def test_shares_of_tokens_joined_are_the_text_that_is_shown(text: str, stop: list[str]) -> None:
    growing = Detokenizer(_by_byte, stop=tuple(stop))
    shown = ""
    told: list[str] = []
    for token_id in text.encode():
        growing.add(token_id)
        shown += growing.shown(is_last=growing.is_stopped)
        if growing.is_stopped:
            break
        settled = growing.num_settled
        told += [growing.share(place) for place in range(len(told), settled)]
        assert shown.startswith("".join(told))
    growing.end()
    shown += growing.shown(is_last=True)
    shares = [growing.share(place) for place in range(growing.num_covered)]
    assert "".join(shares) == shown == growing.whole
    assert shares[: len(told)] == told
    if not growing.is_stopped:
        assert len(shares) == len(text.encode())
    elif shares:
        # The last of them begins before the stop text.
        assert shares[-1] or not growing.whole


def test_another_token_reads_as_it_would_in_that_place() -> None:
    words = ["\u2581red", "\u2581disc", "s", "<control>"]

    def decode(token_ids: list[int]) -> str:
        text = "".join(words[one] for one in token_ids if one != 3).replace("\u2581", " ")
        return text.removeprefix(" ")

    growing = Detokenizer(decode)
    growing.add(0)
    assert [growing.read(one) for one in (0, 1, 2, 3)] == ["red", "disc", "s", ""]
    growing.add(1)
    assert [growing.read(one) for one in (0, 1, 2, 3)] == [" red", " disc", "s", ""]
    growing.add(2)
    assert [growing.share(place) for place in range(3)] == ["red", " disc", "s"]


@given(letters=st.text(LETTERS, min_size=1, max_size=40), stop=st.text("abc", min_size=2))
def test_no_part_of_a_stop_text_is_ever_shown(letters: str, stop: str) -> None:
    growing = Detokenizer(_by_letter, stop=(stop,))
    shown = ""
    for letter in letters + stop:
        growing.add(ord(letter))
        shown += growing.shown(is_last=growing.is_stopped)
        if growing.is_stopped:
            break
    assert growing.is_stopped
    assert (letters + stop)[: (letters + stop).index(stop)].lstrip() == shown


@given(text=st.text(max_size=20))
def test_half_a_character_waits_for_its_other_bytes(text: str) -> None:
    growing = Detokenizer(_by_byte)
    shown = _show(growing, list(text.encode(errors="ignore")))
    wanted = text.encode(errors="ignore").decode().lstrip()
    assert "".join(shown) == wanted
    if "\ufffd" not in wanted:
        assert not any("\ufffd" in part for part in shown)


def test_bytes_that_never_become_a_character_are_shown_at_the_end() -> None:
    growing = Detokenizer(_by_byte)
    shown = _show(growing, [ord("a"), 0xE2])
    assert shown == ["a", "", "\ufffd"]


@given(text=st.text("what color is the triangle? \u00e9\u4e09", max_size=40))
def test_a_real_tokenizer_reads_the_same_a_token_at_a_time(text: str) -> None:
    tokenizer = _TOKENIZER
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    growing = Detokenizer(lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)))
    assert "".join(_show(growing, token_ids)) == str(tokenizer.decode(token_ids)).lstrip()


def test_a_word_behind_a_control_token_keeps_its_space() -> None:
    # As SentencePiece has it: a space belongs to the word behind it, and the first one goes.
    words = ["\u2581hello", "<control>", "\u2581world"]

    def decode(token_ids: list[int]) -> str:
        text = "".join(words[one] for one in token_ids if one != 1).replace("\u2581", " ")
        return text.removeprefix(" ")

    growing = Detokenizer(decode)
    assert "".join(_show(growing, [0, 1, 2])) == decode([0, 1, 2]) == "hello world"


def test_endless_bytes_without_a_character_are_not_held_for_ever() -> None:
    growing = Detokenizer(_by_byte)
    shown = _show(growing, [0xE2] * 40)
    assert any(shown[:-1])
    assert "".join(shown) == "\ufffd" * 40


_TOKENIZER = tiny_processor().tokenizer


def _with_fallback(token_ids: list[int]) -> str:
    """As SentencePiece's bytes do: one that is no character spoils all of its run."""
    try:
        return bytes(token_ids).decode()
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}" * len(token_ids)


@given(st.lists(st.sampled_from([0x38, 0x20, 0xC3, 0xA4, 0xFF]), max_size=30))
def test_an_answer_reads_the_same_whether_it_was_watched_or_not(token_ids: list[int]) -> None:
    watched = Detokenizer(_with_fallback)
    assert whole_text(token_ids, _with_fallback) == "".join(_show(watched, token_ids))


@given(text=st.text("what color? \n", min_size=1, max_size=20))
def test_space_belongs_to_a_text_that_goes_on(text: str) -> None:
    tokenizer = _TOKENIZER
    known, token_ids = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("what is", text)
    )
    growing = Detokenizer(tokenizer.decode, known=known)
    assert "".join(_show(growing, token_ids)) == growing.whole == text
    assert [growing.share(place) for place in range(len(token_ids))] == [
        tokenizer.decode([one]) for one in token_ids
    ]


def test_the_first_word_behind_a_text_has_its_space() -> None:
    # As SentencePiece has it: the first space of what is decoded goes.
    words = ["\u2581red", "\u2581disc"]
    growing = Detokenizer(
        lambda ids: "".join(words[one] for one in ids).replace("\u2581", " ").removeprefix(" "),
        known=[0],
    )
    growing.add(1)
    assert [growing.read(one) for one in (0, 1)] == [" red", " disc"]
    assert (growing.whole, growing.num_covered, growing.share(0)) == (" disc", 1, " disc")

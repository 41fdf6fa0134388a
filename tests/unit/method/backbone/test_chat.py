from typing import Any

import pytest
from transformers import Idefics3Processor

from app.core.errors import UnsupportedBackboneError
from app.method.backbone.chat import (
    PLAIN_TEMPLATE,
    adopt_template,
    as_plain_text,
    as_written,
    encode_answer,
    find_answer_format,
    model_message,
    render,
    user_message,
)
from tests.fakes.models.backbones import CHAT_TEMPLATE, tiny_processor

SPECIALS = ["<image>", "<end_of_utterance>", "<|im_start|>", "<fake_token_around_image>"]


@pytest.fixture
def processor() -> Idefics3Processor:
    return tiny_processor()


def ids_of(processor: Idefics3Processor, text: str) -> list[int]:
    ids: list[int] = processor.tokenizer.encode(text, add_special_tokens=False)
    return ids


@pytest.mark.parametrize("special", SPECIALS)
def test_user_text_cannot_write_control_tokens(special: str, processor: Idefics3Processor) -> None:
    forbidden = set(processor.tokenizer.added_tokens_decoder)
    for text in (special, f"a{special}b{special}", f"{special[:3]}{special}{special[3:]}"):
        assert forbidden & set(ids_of(processor, text))
        assert not forbidden & set(ids_of(processor, as_plain_text(processor, text)))


@pytest.mark.parametrize("special", [*SPECIALS, "a < b <image> </s> <pad>"])
def test_what_looks_like_a_control_token_comes_back_as_it_was(
    special: str, processor: Idefics3Processor
) -> None:
    layout = find_answer_format(processor)
    for text in (special, f"a{special}b {special}"):
        *ids, end = encode_answer(processor, layout, text)
        assert end == layout.end_token_id
        said = str(processor.tokenizer.decode(ids, skip_special_tokens=True))
        assert as_written(said).strip() == text


def test_overlapping_control_tokens_are_broken_too(processor: Idefics3Processor) -> None:
    processor.tokenizer.add_tokens(["ab", "bc", "q"], special_tokens=True)
    plain = as_plain_text(processor, "abc q abc")
    assert not set(ids_of(processor, plain)) & set(processor.tokenizer.added_tokens_decoder)


def test_other_text_stays_as_it_is(processor: Idefics3Processor) -> None:
    text = "what's <this> | {{ jinja }} \u00fc\U0001f600\n"
    assert as_plain_text(processor, text) == text


def test_the_answer_format_is_read_off_the_template(processor: Idefics3Processor) -> None:
    found = find_answer_format(processor)
    assert found.opening == "<end_of_utterance>\n<|im_start|>Assistant:"
    assert found.lead == " "
    assert found.end_token_id == processor.tokenizer.convert_tokens_to_ids("<end_of_utterance>")


def test_answers_are_encoded_as_they_stand_in_a_conversation(
    processor: Idefics3Processor,
) -> None:
    layout = find_answer_format(processor)
    turns = [user_message("what is it?", num_images=0), model_message("a red circle")]
    whole = ids_of(processor, render(processor, turns, with_generation_prompt=False))
    prompt = ids_of(processor, render(processor, turns[:1], with_generation_prompt=True))
    answer = encode_answer(processor, layout, "a red circle")
    assert prompt + answer == whole[: len(prompt) + len(answer)]
    assert answer[-1] == layout.end_token_id


def test_an_answer_cannot_end_the_turn_by_itself(processor: Idefics3Processor) -> None:
    layout = find_answer_format(processor)
    ids = encode_answer(processor, layout, "no<end_of_utterance>yes")
    assert ids.count(layout.end_token_id) == 1


def test_the_pictures_come_first() -> None:
    turn = user_message("what?", num_images=2)
    kinds = [part.get("text", part["type"]) for part in turn["content"]]
    assert kinds == ["image", "image", "what?"]


def test_a_checkpoint_without_a_template_gets_a_plain_one() -> None:
    processor = tiny_processor()
    processor.chat_template = None
    turns = [user_message("what?", num_images=1), model_message("this")]
    text = render(processor, turns, with_generation_prompt=True)
    assert text == "<image>Question: what?\nAnswer: this\nAnswer:"
    layout = find_answer_format(processor)
    assert layout.end_token_id == processor.tokenizer.eos_token_id
    assert "image_token" in PLAIN_TEMPLATE


def test_a_tokenizers_template_is_the_processors_where_that_has_none() -> None:
    wanted, processor = tiny_processor(), tiny_processor()
    processor.chat_template, processor.tokenizer.chat_template = None, CHAT_TEMPLATE
    adopt_template(processor)
    turns = [user_message("what?", num_images=1)]
    text = render(processor, turns, with_generation_prompt=True)
    assert text == render(wanted, turns, with_generation_prompt=True)


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}",
        "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}",
    ],
)
def test_a_tokenizers_template_for_texts_alone_is_left(template: str | None) -> None:
    processor = tiny_processor()
    processor.chat_template, processor.tokenizer.chat_template = None, template
    adopt_template(processor)
    assert processor.chat_template is None


def test_a_processors_template_is_not_changed() -> None:
    processor = tiny_processor()
    processor.tokenizer.chat_template = "<image>" + CHAT_TEMPLATE
    adopt_template(processor)
    assert processor.chat_template == CHAT_TEMPLATE


def test_a_template_that_opens_turns_in_its_own_way_still_works() -> None:
    processor = tiny_processor()
    processor.chat_template = CHAT_TEMPLATE.replace("Assistant:{%", "Assistant: <think></think>{%")
    layout = find_answer_format(processor)
    assert layout.opening.endswith("<think></think>")
    assert layout.lead == ""
    # Past turns still show what the model writes behind an answer.
    end = processor.tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    assert layout.end_token_id == end != processor.tokenizer.eos_token_id


def test_an_answer_that_merges_with_its_opening_is_encoded_alone() -> None:
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}{% for p in m['content'] %}"
        "{{ p['text'] if p['type'] == 'text' else '<image>' }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}> re{% endif %}"
    )
    layout = find_answer_format(processor)
    whole, opening = ids_of(processor, "> red"), ids_of(processor, "> re")
    assert whole[: len(opening)] != opening
    ids = encode_answer(processor, layout, "d")
    assert ids == [*ids_of(processor, "d"), layout.end_token_id]


def test_a_turn_without_an_end_is_refused() -> None:
    processor: Any = tiny_processor()
    processor.chat_template = None
    processor.tokenizer.eos_token = None
    with pytest.raises(UnsupportedBackboneError, match="wanted a token that ends"):
        find_answer_format(processor)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for %}", "Expected an expression"),
        ("{{ raise_exception('no pictures') }}", "no pictures"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages[0]['content'] + '</s>' }}", "can only concatenate list"),
        ("{{ messages[0]['content'] }}", "wanted a prompt with the question, found none"),
        ("", "wanted a prompt with the question, found none"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_words(template: str, words: str) -> None:
    processor = tiny_processor()
    processor.chat_template = template
    with pytest.raises(UnsupportedBackboneError, match="chat template cannot be used: .*" + words):
        find_answer_format(processor)


def test_a_tokenizers_tokens_are_read_once_for_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = tiny_processor()
    tokenizer: Any = processor.tokenizer
    reads: list[int] = []
    original = tokenizer.get_added_vocab

    def counted() -> dict[str, int]:
        reads.append(1)
        found: dict[str, int] = original()
        return found

    monkeypatch.setattr(tokenizer, "get_added_vocab", counted)
    for text in ("one", "two", "three"):
        as_plain_text(processor, text)
    assert len(reads) <= 1

"""Turns are written in their order by the backbone's own template, or refused; never moved."""

import pytest

from app.core.errors import ContextOverflowError, InvalidInputError
from app.method.backbone.chat import PLAIN_TEMPLATE
from app.method.backbone.context import require_context
from app.method.backbone.conversation import (
    MOVED,
    Turn,
    build_conversation,
    latest_turns,
    writes_system_turns,
)
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt, encode_prompts
from tests.fakes.models.backbones import CHAT_TEMPLATE, tiny_backbone, tiny_examples

EXAMPLES = tiny_examples(4)
ONE, TWO, THREE = (EXAMPLES[place].pictures[0] for place in (0, 2, 3))
PICTURES_FIRST = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}:"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>"
    "{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] }}{% endfor %}"
    "<end_of_utterance>{% endfor %}<|im_start|>Assistant:"
)
STRICT = (
    "{% for message in messages %}"
    "{% if message['role'] != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('roles must alternate user and assistant') }}{% endif %}"
    "<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>{% endfor %}<|im_start|>"
)
FORGETFUL = CHAT_TEMPLATE.replace("messages %}", "messages[-1:] %}", 1)


def with_template(template: str | None) -> Backbone:
    made = tiny_backbone()
    made.processor.chat_template = template
    return made


def user(*parts: object) -> Turn:
    return Turn(role="user", parts=parts)  # type: ignore[arg-type]  # the test says what they are


def model(text: str) -> Turn:
    return Turn(role="assistant", parts=(text,))


def system(text: str) -> Turn:
    return Turn(role="system", parts=(text,))


def test_turns_that_solve_examples_are_demonstrations(backbone: Backbone) -> None:
    shown = EXAMPLES[:2]
    turns = [
        turn
        for example in shown
        for turn in (user(example.pictures[0], example.question), model(example.answer))
    ]
    said = build_conversation(backbone, [*turns, user(TWO, "what color?")])
    wanted = build_prompt(backbone, "what color?", TWO, demonstrations=shown)
    assert (said.text, said.images, said.notes) == (wanted.text, wanted.images, ())
    told = build_conversation(backbone, [user(TWO, "what color?")], demonstrations=shown)
    assert (told.text, told.images) == (wanted.text, wanted.images)


def test_texts_and_pictures_keep_their_order(backbone: Backbone) -> None:
    prompt = build_conversation(
        backbone,
        [
            system("be brief"),
            user("first:", ONE, "second:", TWO, "which is red?"),
            model("the first"),
            user("and this?", THREE),
        ],
    )
    assert prompt.text == (
        "<|im_start|>System: be brief<end_of_utterance>\n"
        "<|im_start|>User: first:<image> second:<image> which is red?<end_of_utterance>\n"
        "<|im_start|>Assistant: the first<end_of_utterance>\n"
        "<|im_start|>User: and this?<image><end_of_utterance>\n"
        "<|im_start|>Assistant:"
    )
    assert prompt.images == (ONE, TWO, THREE)
    assert encode_prompts(backbone, [prompt]).num_prompt_tokens[0] > 0


def test_a_template_that_cannot_keep_it_is_refused_or_told_of() -> None:
    backbone = with_template(PICTURES_FIRST)
    assert build_conversation(backbone, [user(ONE, TWO, "which?")]).notes == ()
    moved = build_conversation(backbone, [user("which?", ONE, TWO)])
    assert moved.notes == (MOVED,)
    assert "<image><image>which?" in moved.text
    with pytest.raises(InvalidInputError, match="in this order") as caught:
        build_conversation(backbone, [user("a", ONE, "b", TWO, "which?")])
    assert caught.value.details["param"] == "messages"


def test_a_template_that_refuses_or_forgets_is_told_of() -> None:
    with pytest.raises(InvalidInputError, match="roles must alternate"):
        build_conversation(with_template(STRICT), [user("one"), user("two")])
    with pytest.raises(InvalidInputError, match="leaves out"):
        build_conversation(with_template(FORGETFUL), [user("one"), model("x"), user("two")])


@pytest.mark.parametrize(("words", "fitting"), [(350, 1), (200, 3), (95, 7), (75, 9)])
def test_a_template_of_turns_in_pairs_tells_how_many_fit(words: int, fitting: int) -> None:
    backbone = with_template(STRICT)
    features = FeatureCache(backbone)
    turns = [*[user("what color? " * words), model("red")] * 5, user("and now?")]

    def build(count: int) -> PromptText:
        return build_conversation(backbone, latest_turns(turns, count))

    with pytest.raises(ContextOverflowError, match=f"{fitting} of 11 turns would fit"):
        require_context(features, build(11), build=build, most=11, unit="turns", num_new_tokens=1)
    (found,) = features.count_tokens([build(fitting)])
    (more,) = features.count_tokens([build(fitting + 2)])
    assert backbone.fits_context(found + 1)
    assert not backbone.fits_context(more + 1)


@pytest.mark.parametrize(
    ("template", "knows"),
    [
        (CHAT_TEMPLATE, True),
        (None, True),
        (STRICT, False),
        (FORGETFUL, False),
    ],
)
def test_whether_there_are_system_turns_is_read_off_the_template(
    template: str | None, *, knows: bool
) -> None:
    assert writes_system_turns(with_template(template).processor) == knows


def test_roles_that_are_no_control_tokens_are_not_taken_for_turns() -> None:
    made = with_template(
        "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>{% else %}"
        "<|{{ m['role'] }}|>{% endif %}{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
        "{% endfor %}"
    )
    assert not writes_system_turns(made.processor)
    prompt = build_conversation(made, [system("be brief."), user(ONE, "what?")])
    assert prompt.text == "<|im_start|>be brief.<image>what?"
    # Demonstrations then stand behind it.
    prompt = build_conversation(
        made, [system("be brief."), user(ONE, "what?")], demonstrations=EXAMPLES[:1]
    )
    assert prompt.text.startswith("<|im_start|>be brief.<image>" + EXAMPLES[0].question)


def test_without_a_template_turns_are_questions_and_answers() -> None:
    assert "system" in PLAIN_TEMPLATE
    prompt = build_conversation(
        with_template(None), [system("Look."), user(ONE, "what?"), model("disc"), user("sure?")]
    )
    assert prompt.text == ("Look.\n<image>Question: what?\nAnswer: disc\nQuestion: sure?\nAnswer:")


def test_nobody_can_write_control_tokens(backbone: Backbone) -> None:
    prompt = build_conversation(
        backbone, [user("<image><end_of_utterance>"), model("<|im_start|>"), user(ONE, "what?")]
    )
    assert prompt.text.count("<image>") == 1
    assert prompt.text.count("<|im_start|>") == 4


def test_the_latest_turns_keep_what_the_system_said_first() -> None:
    turns = [system("a"), user("b"), model("c"), user("d")]
    assert [turn.parts[0] for turn in latest_turns(turns, 1)] == ["a", "d"]
    assert [turn.parts[0] for turn in latest_turns(turns, 0)] == ["a"]
    assert latest_turns(turns, 9) == turns

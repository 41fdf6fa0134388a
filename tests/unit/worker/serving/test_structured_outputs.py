"""Answers that keep a form, beside rows that have none."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from app.core.errors import InvalidInputError, UnsupportedBackboneError
from app.method.backbone.loading import Backbone, load_backbone
from app.rpc.generation import GenerateDelta, GenerateResponse, StructuredOutputs
from app.worker.engine.grammar import GrammarCompiler
from tests.fakes.answers import answer_of
from tests.fakes.servers.serving import Parts, request_of

pytestmark = pytest.mark.anyio

COLOURS = ["red", 'a "blue" one', "grün"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "is_round": {"type": "boolean"}},
    "required": ["colour", "is_round"],
    "additionalProperties": False,
}


def _is_of_schema(text: str) -> bool:
    found = json.loads(text)
    return (
        set(found) == set(SCHEMA["required"])
        and found["colour"] in {"red", "blue"}
        and isinstance(found["is_round"], bool)
    )


FORMS = [
    ({"choice": COLOURS}, lambda text: text in COLOURS),
    ({"regex": r"[a-c]{3}/\d{2}|none"}, lambda text: re.fullmatch(r"[a-c]{3}/\d{2}|none", text)),
    ({"regex": r"^[a-c]{3}$"}, lambda text: re.fullmatch(r"[a-c]{3}", text)),
    ({"regex": r"^a|b{2}\\$"}, lambda text: text in {"a", "bb\\"}),
    ({"regex": r"a\$"}, lambda text: text == "a$"),
    ({"json": SCHEMA}, _is_of_schema),
    ({"json": json.dumps(SCHEMA), "regex": None}, _is_of_schema),
]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize(("form", "is_kept"), FORMS)
async def test_an_answer_keeps_its_form(
    parts: Parts, *, form: dict[str, Any], is_kept: Callable[[str], object], temperature: float
) -> None:
    asked = request_of(
        structured_outputs=form,
        max_tokens=200,
        temperature=temperature,
        vectors=[parts.use(0, 1.0)],
        baseline=True,
        logprobs=1,
    )
    answer = await answer_of(parts.serving, asked)
    assert answer.finish_reason == "stop"
    assert is_kept(answer.text), answer.text
    assert answer.baseline is not None
    assert is_kept(answer.baseline.text), answer.baseline.text
    assert answer.logprobs is not None
    assert "".join(one.text for one in answer.logprobs) == answer.text


async def test_an_object_is_begun_even_where_the_room_ends_within_it(parts: Parts) -> None:
    asked = request_of(structured_outputs={"json_object": True}, max_tokens=30)
    answer = await answer_of(parts.serving, asked)
    assert answer.text.startswith("{")
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.text), dict)


@pytest.mark.parametrize("seed", range(4))
async def test_json_is_written_on_one_line(parts: Parts, seed: int) -> None:
    asked = request_of(
        structured_outputs={"json": SCHEMA}, max_tokens=200, temperature=2.0, seed=seed
    )
    answer = await answer_of(parts.serving, asked)
    assert not re.search(r"\n|  ", answer.text), answer.text


async def test_rows_beside_it_get_the_tokens_that_they_get_alone(parts: Parts) -> None:
    plain = [request_of(prompt=f"what {n}?", temperature=1.0, seed=n) for n in range(2)]
    alone = [await answer_of(parts.serving, one) for one in plain]
    formed = request_of(structured_outputs={"regex": "[a-z]{12}"}, max_tokens=40)
    again = [one.model_copy(update={"request_id": f"{place}"}) for place, one in enumerate(plain)]
    *together, kept = await asyncio.gather(
        *(answer_of(parts.serving, one) for one in (*again, formed))
    )
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert re.fullmatch("[a-z]{12}", kept.text)


async def test_a_stream_keeps_the_form_of_the_whole_answer(parts: Parts) -> None:
    asked = request_of(structured_outputs={"json": SCHEMA}, max_tokens=200, stream=True)
    *deltas, answer = [part async for part in parts.serving.generate(asked)]
    assert isinstance(answer, GenerateResponse)
    assert _is_of_schema(answer.text)
    assert "".join(one.text for one in deltas if isinstance(one, GenerateDelta)) == answer.text


@pytest.mark.parametrize(
    "form", [{"regex": "a)|(b"}, {"regex": "(?=a)b"}, {"json": {"type": "objec"}}, {"json": False}]
)
async def test_a_form_that_cannot_be_kept_is_refused_by_name(
    parts: Parts, form: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=r"^structured_outputs: the form cannot be used: "):
        await answer_of(parts.serving, request_of(structured_outputs=form))


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (
            {"regex": "(a"},
            'invalid regex "(a" (in regex): regex parse error: (a error: unclosed group',
        ),
        (
            {"json": {"oneOf": [{"type": "string"}, {"enum": ["a"]}]}},
            (
                "failed to compile JSON schema: oneOf constraints are not supported. "
                "Branches that exclude each other by a const, or anyOf, are."
            ),
        ),
        ({"json": {"type": "foo"}}, "failed to compile JSON schema: Invalid type: foo"),
    ],
)
async def test_the_cause_of_a_refusal_is_told(
    parts: Parts, form: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await answer_of(parts.serving, request_of(structured_outputs=form))
    assert caught.value.message == f"structured_outputs: the form cannot be used: {reason}"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 999_983},
        {"type": "integer", "allOf": [{"multipleOf": 997}, {"multipleOf": 1009}]},
        {
            "anyOf": [
                {"type": "number", "multipleOf": 0.0001},
                {"properties": {"a": {"multipleOf": 11}}},
            ]
        },
        {"type": "number", "multipleOf": 1e300},
    ],
)
async def test_a_schema_whose_numbers_would_take_the_memory_of_the_worker_is_refused(
    parts: Parts, schema: dict[str, Any]
) -> None:
    asked = request_of(structured_outputs={"json": schema})
    with pytest.raises(InvalidInputError, match="least common multiple of all multipleOf"):
        await answer_of(parts.serving, asked)


@pytest.mark.parametrize("multiple", [True, "7", None])
async def test_a_multiple_of_no_number_is_refused(parts: Parts, multiple: object) -> None:
    schema = {"type": "number", "multipleOf": multiple}
    with pytest.raises(InvalidInputError, match="structured_outputs"):
        await answer_of(parts.serving, request_of(structured_outputs={"json": schema}))


@pytest.mark.parametrize("multiple", [7, 0.25, 1e3, 1.0])
async def test_an_answer_is_a_multiple(parts: Parts, multiple: float) -> None:
    schema = {
        "type": "object",
        "properties": {"multipleOf": {"type": "number", "multipleOf": multiple, "maximum": 10**6}},
        "required": ["multipleOf"],
        "additionalProperties": False,
    }
    asked = request_of(structured_outputs={"json": schema}, max_tokens=200, temperature=1.0)
    found = json.loads((await answer_of(parts.serving, asked)).text)
    assert found["multipleOf"] % multiple == 0


@pytest.mark.parametrize(
    "form", [{}, {"choice": []}, {"regex": "a", "json_object": True}, {"json": "[1]"}, {"ebnf": ""}]
)
def test_a_form_is_one_of_those_that_there_are(form: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="structured_outputs"):
        request_of(structured_outputs=form)


def test_a_tokenizer_that_cannot_is_told(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(backbone.tokenizer), "backend_tokenizer", None)
    compiler = GrammarCompiler(backbone)
    with pytest.raises(UnsupportedBackboneError, match=r"structured_outputs: .*no fast tokenizer"):
        compiler.compile(StructuredOutputs(regex="a"))


def test_forced_words_go_on_without_a_space_that_the_tokenizer_would_add() -> None:
    pocket = load_backbone("pocket")
    form = StructuredOutputs.model_validate({"choice": ['blue "xylophone"', 'blue "xyz"']})
    grammar = GrammarCompiler(pocket).compile(form).fresh()
    taken: list[int] = []
    width = pocket.description.vocab_size
    while not (allowed := grammar.allowed(width))[list(pocket.eos_token_ids)].any():
        taken.append(int(allowed.nonzero()[-1]))
        grammar.accept(taken[-1])
    assert str(pocket.tokenizer.decode(taken)).strip() in {'blue "xylophone"', 'blue "xyz"'}
    assert not grammar.problem

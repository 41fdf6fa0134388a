"""Answers of a given form: which tokens may come next, and whether an answer may end.

Source: llguidance, which does the work; the forms are those of vLLM's structured outputs.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from torch import Tensor

from app.core.errors import InvalidInputError, UnsupportedBackboneError, VLibraryError
from app.method.backbone.loading import Backbone
from app.rpc.generation import StructuredOutputs

# Backbones that were not trained on JSON would fill their answers with white space.
_JSON_OPTIONS: Final = {"whitespace_pattern": r" ?"}
_DRAWN: Final = re.compile(r"\s*(?:\d+ \||\^\s*$)")
_PLACE: Final = re.compile(r"^at \d+\(\d+\): ")
_ADVICE: Final = "Enable 'coerce_one_of' option to approximate oneOf with anyOf"
_MAX_REASON_CHARACTERS: Final = 300
# Each becomes a state of what reads numbers, before anything of llguidance's own bounds them.
_MOST_REMAINDERS: Final = 100_000


class Grammar:
    """What may still come in one answer."""

    def __init__(self, matcher: LLMatcher, *, num_tokens: int) -> None:
        self._matcher = matcher
        self._num_tokens = num_tokens

    @property
    def problem(self) -> str:
        """Why it allows nothing any more; empty while it does."""
        return _reason(self._matcher.get_error()) if self._matcher.is_error() else ""

    def fresh(self) -> "Grammar":
        """The same for another answer, which begins as this one is now."""
        return Grammar(self._matcher.deep_copy(), num_tokens=self._num_tokens)

    def allowed(self, width: int) -> Bool[Tensor, " vocab"]:
        """Which of so many tokens may come next, on the CPU; where the answer may end, its ends."""
        mask = allocate_token_bitmask(1, self._num_tokens)
        fill_next_token_bitmask(self._matcher, mask)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: min(width, self._num_tokens)]
        found = torch.zeros(width, dtype=torch.bool)
        found[: len(bits)] = torch.from_numpy(bits.astype(bool))
        return found

    def accept(self, token_id: int) -> None:
        """Takes a token that was allowed.

        Raises:
            VLibraryError: It does not go on as the form wants.
        """
        if not self._matcher.consume_token(token_id):
            raise VLibraryError(f"The answer could not be kept in its form: {self.problem}")


class GrammarCompiler:
    """Makes grammars for the tokens of one backbone. Any thread may use it once it is made."""

    def __init__(self, backbone: Backbone) -> None:
        self._num_tokens = max(len(backbone.tokenizer), backbone.description.vocab_size)
        self._tokenizer: LLTokenizer | None = None
        self._refusal = ""
        backend = getattr(backbone.tokenizer, "backend_tokenizer", None)
        if backend is None:
            self._refusal = f"{type(backbone.tokenizer).__name__} is no fast tokenizer"
            return
        try:
            self._tokenizer = LLTokenizer(
                _without_added_spaces(backend.to_str()),
                n_vocab=self._num_tokens,
                eos_token=list(backbone.eos_token_ids),
            )
        except ValueError as error:
            self._refusal = _reason(str(error))

    def compile(self, form: StructuredOutputs) -> Grammar:
        """The grammar of a form.

        Raises:
            UnsupportedBackboneError: The backbone's tokens cannot be read one by one.
            InvalidInputError: The form cannot be understood or is too complex.
        """
        if self._tokenizer is None:
            raise UnsupportedBackboneError(
                "structured_outputs: this backbone's tokenizer cannot be held to a form: "
                f"{self._refusal}",
                details={"param": "structured_outputs"},
            )
        try:
            matcher = LLMatcher(self._tokenizer, _source(form), log_level=0)
        except ValueError as error:
            raise _unusable(str(error)) from None
        if matcher.is_error():
            raise _unusable(matcher.get_error())
        return Grammar(matcher, num_tokens=self._num_tokens)


def _unusable(reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"structured_outputs: the form cannot be used: {_reason(reason)}",
        details={"param": "structured_outputs"},
    )


def _source(form: StructuredOutputs) -> str:
    """The form in the words of llguidance."""
    # Many templates end where a word begins with its space; answers are shown without it.
    if form.regex is not None:
        # Alone first: what is put around it must not make sense of a stray bracket.
        regex = _without_anchors(form.regex)
        alone = LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(regex))
        if alone:
            raise ValueError(alone)
        return LLMatcher.grammar_from_regex(f" ?(?:{regex})")
    if form.choice is not None:
        return f'start: " "? ({" | ".join(map(json.dumps, form.choice))})'
    schema = {"type": "object"} if form.json_object else _read_schema(form.json_schema or "{}")
    if schema is False:
        raise ValueError("the schema false allows no answer")
    whole = {**(schema if isinstance(schema, Mapping) else {}), "x-guidance": _JSON_OPTIONS}
    return f'start: " "? body\nbody: %json {json.dumps(whole)}'


def _read_schema(text: str) -> object:
    """A schema whose `multipleOf`, all of which may meet in one number, are kept cheaply.

    Raises:
        ValueError: They are not.
    """
    found: list[Decimal] = []

    def note(part: dict[str, Any]) -> dict[str, Any]:
        value: Any = part.get("multipleOf")
        # What is no number is refused by llguidance; JSON's true is one to Python.
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and 0 < value < math.inf:
            found.append(Decimal(repr(value)).normalize())
        return part

    schema: object = json.loads(text, object_hook=note)
    places = max((len(f"{value:f}".partition(".")[2]) for value in found), default=0)
    remainders = 1
    for value in found:
        remainders = math.lcm(remainders, int(value.scaleb(places)))
        if remainders > _MOST_REMAINDERS:
            raise ValueError(
                "the least common multiple of all multipleOf, in units of their last decimal "
                f"place, is more than {_MOST_REMAINDERS}"
            )
    return schema


def _without_anchors(regex: str) -> str:
    """The expression without what says that the whole answer matches, which it does anyway."""
    body = regex.removeprefix("^")
    unended = body.removesuffix("$")
    is_escaped = (len(unended) - len(unended.rstrip("\\"))) % 2
    return body if is_escaped else unended


def _without_added_spaces(tokenizer: str) -> str:
    """The tokenizer's file, in which texts are read from their first character on.

    Forced texts are pieces of an answer, before which no space must be thought.
    """
    found: dict[str, Any] = json.loads(tokenizer)
    found["padding"] = found["truncation"] = None
    for name in ("normalizer", "pre_tokenizer"):
        found[name] = _plain(found.get(name))
    return json.dumps(found, ensure_ascii=False)


def _plain(step: Any) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(step, dict):
        return step
    for parts in ("normalizers", "pretokenizers"):
        if parts in step:
            kept = [_plain(part) for part in step[parts]]
            step = {**step, parts: [part for part in kept if part is not None]}
    if step.get("type") == "Prepend":
        return None
    changes = {"add_prefix_space": False, "prepend_scheme": "never"}
    return {name: changes.get(name, value) for name, value in step.items()}


def _reason(text: str) -> str:
    # A place in a grammar of ours, a drawing of it, and an option that only we could set
    # say nothing to whoever gave the form.
    kept = [line for line in text.splitlines() if not _DRAWN.match(line)]
    reason = _PLACE.sub("", " ".join(" ".join(kept).split()))
    reason = reason.replace(_ADVICE, "Branches that exclude each other by a const, or anyOf, are.")
    return reason[:_MAX_REASON_CHARACTERS] or "no reason"

"""What the pocket LVLM reads: single items, and episodes whose rule and wording must be read off.

Turns scenes and words into token ids with marked answers; knows no model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from transformers import PreTrainedTokenizerBase

from tools.pocket.anatomy import END, MODEL, TOKENS_PER_IMAGE, USER, token_id
from tools.pocket.questions import KIND_SHARES, Question, sample_question
from tools.pocket.words import LABELS, Lexicon, plain_lexicon, sample_lexicon
from tools.pocket.world import ATTRIBUTES, Scene

MAX_ITEMS: Final = 17
EPISODES: Final = ("questions", "rules", "labels", "copying")
EPISODE_SHARES: Final = (0.74, 0.14, 0.08, 0.04)
WORDING_EPISODES: Final = ("wording", "questions", "rules", "labels")
WORDING_SHARES: Final = (0.6, 0.25, 0.12, 0.03)
# Questions whose answers show how values are called, where most others are yes or no.
_WORDING_KINDS: Final[Mapping[str, float]] = {
    "shape": 0.3,
    "color": 0.3,
    "size": 0.05,
    "count": 0.05,
    "presence": 0.15,
    "absence": 0.15,
}
_LENGTHS: Final = (5, 9, 13, 17)
_RULES: Final = ("shape", "color", "size", "count", "background")
_RULE_SHARES: Final = (0.35, 0.35, 0.1, 0.12, 0.08)
_MAX_CLASSES: Final = 4
_SAME_KIND_SHARE: Final = 0.25
_BRIDGE_SHARE: Final = 0.5


@dataclass(frozen=True)
class Item:
    """One turn: an image of the pool (or none), what is asked, and what is to be said."""

    image: int | None
    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Sequences:
    """A batch of token ids before padding.

    Attributes:
        token_ids: One list a row.
        images: Pool rows in the order in which their placeholders stand in the batch.
        answers: For every row, where each item's answer starts and ends (end of turn included).
    """

    token_ids: list[list[int]]
    images: list[int]
    answers: list[list[tuple[int, int]]]


class Writer:
    """Writes items the way the chat template does, remembering the ids of texts it has seen."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._encode = tokenizer
        self._known: dict[str, list[int]] = {}
        fake, view, image = (
            token_id(tokenizer, token)
            for token in ("<fake_token_around_image>", "<global-img>", "<image>")
        )
        self._user, self._model, self._end = (
            token_id(tokenizer, token) for token in (USER, MODEL, END)
        )
        self._image = [fake, view, *[image] * TOKENS_PER_IMAGE, fake]

    def ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        if text not in self._known:
            self._known[text] = self._encode.encode(text, add_special_tokens=False)
        return self._known[text]

    def write(self, rows: Sequence[Sequence[Item]]) -> Sequences:
        """Token ids of conversations, one a row."""
        sequences = Sequences([], [], [])
        for items in rows:
            row: list[int] = []
            spans: list[tuple[int, int]] = []
            for item in items:
                row.append(self._user)
                if item.image is not None:
                    row += self._image
                    sequences.images.append(item.image)
                row += [*self.ids(item.question), self._model]
                start = len(row)
                row += [*self.ids(item.answer), self._end]
                spans.append((start, len(row)))
            sequences.token_ids.append(row)
            sequences.answers.append(spans)
        return sequences


def single_items(
    scenes: Sequence[Scene],
    rng: np.random.Generator,
    *,
    count: int,
    shares: Mapping[str, float] = KIND_SHARES,
    lexicon: Lexicon | None = None,
) -> list[list[Item]]:
    """Rows of one question each, of kinds drawn by their shares, in plain words if not told how."""
    lexicon = lexicon or plain_lexicon()
    rows = rng.integers(len(scenes), size=count)
    kinds = rng.choice(list(shares), size=count, p=list(shares.values()))
    return [
        [_asked(int(row), sample_question(scenes[row], rng, kind=str(kind)), lexicon)]
        for row, kind in zip(rows, kinds, strict=True)
    ]


def episodes(
    scenes: Sequence[Scene],
    rng: np.random.Generator,
    *,
    token_budget: int,
    kinds: Sequence[str] = EPISODES,
    shares: Sequence[float] = EPISODE_SHARES,
) -> list[list[Item]]:
    """Rows of several items that share one rule and one wording, all of one length.

    Args:
        scenes: What the pool's images show.
        rng: Of the draw.
        token_budget: About how many tokens the rows hold together.
        kinds: Episode kinds to draw from.
        shares: Their shares.
    """
    length = int(rng.choice(_LENGTHS))
    count = max(1, token_budget // (20 * length))
    chosen = rng.choice(len(kinds), size=count, p=shares)
    return [episode(scenes, rng, kind=kinds[int(index)], length=length) for index in chosen]


def episode(
    scenes: Sequence[Scene], rng: np.random.Generator, *, kind: str, length: int
) -> list[Item]:
    """One episode of `length` items of the given kind."""
    makers: dict[str, Callable[[Sequence[Scene], np.random.Generator, int], list[Item]]] = {
        "questions": _question_episode,
        "wording": _wording_episode,
        "rules": _rule_episode,
        "labels": _label_episode,
        "copying": _copying_episode,
    }
    return makers[kind](scenes, rng, length)


def _asked(image: int, question: Question, lexicon: Lexicon) -> Item:
    return Item(image, question.text, lexicon.answer(question.value), question.kind)


def _question_episode(scenes: Sequence[Scene], rng: np.random.Generator, length: int) -> list[Item]:
    lexicon = sample_lexicon(rng)
    rows = rng.integers(len(scenes), size=length)
    kind = None
    if rng.random() < _SAME_KIND_SHARE:
        kind = sample_question(scenes[int(rows[0])], rng).kind
    return [
        _asked(int(row), sample_question(scenes[int(row)], rng, kind=kind), lexicon) for row in rows
    ]


def _wording_episode(scenes: Sequence[Scene], rng: np.random.Generator, length: int) -> list[Item]:
    lexicon = sample_lexicon(rng)
    drawn = single_items(scenes, rng, count=length, shares=_WORDING_KINDS, lexicon=lexicon)
    return [item for (item,) in drawn]


def _rule_episode(scenes: Sequence[Scene], rng: np.random.Generator, length: int) -> list[Item]:
    lexicon = sample_lexicon(rng)
    rule = _RULES[int(rng.choice(len(_RULES), p=_RULE_SHARES))]
    return [
        Item(int(row), "?", lexicon.answer(scenes[int(row)].value(rule)), f"rule {rule}")
        for row in rng.integers(len(scenes), size=length)
    ]


def _label_episode(scenes: Sequence[Scene], rng: np.random.Generator, length: int) -> list[Item]:
    """Two to four values of one attribute, each under a label that means nothing."""
    rule = _RULES[int(rng.choice(3, p=(0.45, 0.45, 0.1)))]
    values = ATTRIBUTES[rule]
    num_classes = min(int(rng.integers(2, _MAX_CLASSES + 1)), len(values))
    classes = rng.choice(len(values), size=num_classes, replace=False)
    labels = dict(zip(classes.tolist(), rng.permutation(len(LABELS)).tolist(), strict=False))
    # Half of these name the value before the label: the bridge over which binding is learnt.
    names_value = rng.random() < _BRIDGE_SHARE
    items = []
    for wanted in rng.choice(classes, size=length):
        row = _row_with(scenes, rng, rule, value=int(wanted))
        label = LABELS[labels[int(wanted)]]
        answer = f"{values[int(wanted)]} {label}" if names_value else label
        items.append(Item(row, "label?", answer, "label bridge" if names_value else "label"))
    return items


def _row_with(
    scenes: Sequence[Scene], rng: np.random.Generator, attribute: str, *, value: int
) -> int:
    while True:
        row = int(rng.integers(len(scenes)))
        if getattr(scenes[row], attribute) == value:
            return row


def _copying_episode(_: Sequence[Scene], rng: np.random.Generator, length: int) -> list[Item]:
    """Words bound to labels without any image: pure looking up of what was said before."""
    words = [name for values in ATTRIBUTES.values() for name in values]
    pairs = min(max(2, length // 3), 6)
    keys = rng.choice(len(words), size=pairs, replace=False)
    labels = rng.choice(len(LABELS), size=pairs, replace=False)
    return [
        Item(None, f"what is {words[int(keys[index])]}?", LABELS[int(labels[index])], "copying")
        for index in rng.integers(pairs, size=length)
    ]

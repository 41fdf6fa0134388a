from collections.abc import Sequence

import numpy as np

from tools.pocket2.building import Supplies
from tools.pocket2.gallery import (
    VIEW,
)
from tools.pocket2.reading.episodes import bind, draw_episode, frame
from tools.pocket2.reading.lessons import draw_prose, long_enough, step_episodes
from tools.pocket2.reading.material import Difficulty, Item, Material
from tools.pocket2.reading.reader import (
    Writer,
    prose_batch,
)
from tools.pocket2.reading.words import LANGUAGES, Words


def _classes(material: Material, items: Sequence[Item]) -> list[int]:
    return [
        int(material.gallery.classes[item.picture]) for item in items if item.picture is not None
    ]


def test_an_episode_binds_each_class_to_one_label(
    material: Material, rng: np.random.Generator
) -> None:
    items = bind(material, rng, ways=4, length=40)
    pairs = set(zip(_classes(material, items), [item.answer for item in items], strict=True))
    assert len(pairs) == len({number for number, _ in pairs}) == len({label for _, label in pairs})


def test_only_what_was_shown_before_is_taught(material: Material, rng: np.random.Generator) -> None:
    for kind in ("bind", "recall"):
        for _ in range(10):
            items = draw_episode(material, Difficulty(shares={kind: 1.0}), rng, length=17)
            seen = set[str]()
            for item in items:
                assert item.is_taught == (item.answer in seen)
                seen.add(item.answer)


def test_labels_are_drawn_anew(material: Material, rng: np.random.Generator) -> None:
    told = [{item.answer for item in bind(material, rng, ways=2, length=9)} for _ in range(20)]
    assert len(set().union(*told)) > 30


def test_the_same_picture_comes_back_when_it_is_to(
    material: Material, rng: np.random.Generator
) -> None:
    same = bind(material, rng, ways=2, length=30, shows_same=True)
    assert len({item.picture for item in same}) == 2
    other = bind(material, rng, ways=2, length=30)
    assert len({item.picture for item in other}) > 2


def test_words_tell_the_rule_and_labels_only_themselves(
    material: Material, rng: np.random.Generator
) -> None:
    known = unknown = 0
    for _ in range(60):
        items = draw_episode(material, Difficulty(shares={"rule": 1.0}), rng, length=9)
        assert not items[0].is_taught
        first = [item.answer not in {i.answer for i in items[:n]} for n, item in enumerate(items)]
        assert all(item.is_taught for item, new in zip(items, first, strict=True) if not new)
        later = [item.is_taught for item, new in zip(items[1:], first[1:], strict=True) if new]
        known, unknown = known + sum(later), unknown + len(later) - sum(later)
    assert known
    assert unknown


def test_a_frame_is_the_same_around_every_answer(
    material: Material, rng: np.random.Generator
) -> None:
    pairs = [(0, "xxx"), (1, "yyy"), (2, "zzz")]
    for _ in range(20):
        items = frame(material, pairs, rng, question="?")
        frames = {
            item.answer.lower().replace(answer, "{}")
            for item, (_, answer) in zip(items, pairs, strict=True)
        }
        assert len(frames) == 1
        assert frames != {"{}"} or items[0].answer == "XXX"
        assert [item.is_taught for item in items] == [False, True, True]


def test_values_are_those_of_the_scenes(material: Material, rng: np.random.Generator) -> None:
    for _ in range(20):
        items = draw_episode(material, Difficulty(shares={"value": 1.0}), rng, length=5)
        assert all(
            item.is_taught and material.gallery.kinds[item.picture] != VIEW for item in items
        )


def test_episodes_grow_longer_and_wider(material: Material) -> None:
    def longest(progress: float) -> int:
        rows = [
            step_episodes(material, np.random.default_rng(n), progress=progress, num_tokens=100)
            for n in range(40)
        ]
        return max(len(items) for step in rows for items in step)

    assert longest(0.0) == 17
    assert longest(1.0) == longest(7.0) == 65


def test_labels_of_an_episode_are_different(words: Words, rng: np.random.Generator) -> None:
    for _ in range(50):
        assert len(set(words.labels(9, rng))) == 9


def test_foreign_labels_come_from_other_languages(rng: np.random.Generator) -> None:
    ranked = {language: (f"{language}word",) for language in LANGUAGES}
    told = {Words(ranked, ()).label("foreign", rng) for _ in range(40)}
    assert "englishword" not in told
    assert len(told) > 3


def test_prose_starts_at_words_and_is_cut_to_one_length(
    words: Words, supplies: Supplies, rng: np.random.Generator
) -> None:
    passages = draw_prose(long_enough(words.prose), rng, num_tokens=2_000)
    assert len(passages) == 4
    assert all(f" {passage}" in f" {' '.join(words.prose)}" for passage in passages)
    batch = prose_batch(Writer(supplies.tokenizer), passages)
    assert batch.is_taught.all()

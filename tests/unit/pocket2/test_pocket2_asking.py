import numpy as np
import pytest
import torch
from transformers import Idefics3ForConditionalGeneration

from app.method.backbone.loading import load_backbone
from tools.pocket2.gallery import VIEW, Gallery, spread
from tools.pocket2.reading.episodes import draw_episode
from tools.pocket2.reading.material import Difficulty, Item, Material
from tools.pocket2.reading.reader import Reader, Writer, item_hits
from tools.pocket2.sight import Sight, one_shot_accuracy


def test_questions_of_one_episode_ask_different_things(
    material: Material, rng: np.random.Generator
) -> None:
    for _ in range(20):
        items = draw_episode(material, Difficulty(shares={"ask": 1.0}), rng, length=40)
        asked = {item.question for item in items}
        assert len(asked) in {2, 3}
        answers = [{i.answer for i in items if i.question == question} for question in asked]
        assert all(len(told) > 1 for told in answers)


def test_an_empty_question_is_known_once_it_was_answered(
    material: Material, rng: np.random.Generator
) -> None:
    counts = set[int]()
    for _ in range(40):
        items = draw_episode(material, Difficulty(shares={"ask": 1.0}), rng, length=9)
        unknown = [item for item in items if not item.is_taught]
        counts.add(len(unknown))
        assert len(unknown) == len({(item.question, item.answer) for item in unknown})
    assert len(counts) > 2


def test_checks_are_answered_by_what_the_picture_shows(
    material: Material, rng: np.random.Generator
) -> None:
    named = 0
    for _ in range(30):
        items = draw_episode(material, Difficulty(shares={"check": 1.0}), rng, length=30)
        answers = {item.answer for item in items}
        assert len(answers) == 2
        for item in items:
            assert item.picture is not None
            name = material.names[int(material.gallery.classes[item.picture])]
            if answers == {"no", "yes"} and material.gallery.kinds[item.picture] == VIEW:
                named += 1
                assert (item.question == f"{name}?") == (item.answer == "yes")
    assert named


def test_spread_tokens_tell_classes_apart_and_have_no_mean() -> None:
    rng = torch.Generator().manual_seed(0)
    classes = np.repeat(np.arange(40), 6)
    signal = torch.randn(40, 16, generator=rng)[classes]
    # Most of a token is common to all pictures or differs from view to view.
    noise = torch.randn(240, 16, generator=rng) * torch.tensor([4.0] * 8 + [0.4] * 8)
    tokens = 30 + signal + noise
    made = Gallery(
        tokens=tokens.half(),
        kinds=np.full(240, VIEW),
        drawings=classes,
        classes=classes,
        values={},
    )
    seen = tokens @ spread(made).T
    assert seen.norm(dim=-1).mean() == pytest.approx(1, abs=0.02)
    assert (seen.mean(0).norm() / seen.norm(dim=-1).mean()) < 0.2
    held = torch.from_numpy(classes)
    assert one_shot_accuracy(seen, held) > one_shot_accuracy(tokens, held) + 0.2


def test_the_bundled_checkpoint_binds_codes_to_things_it_was_never_taught() -> None:
    # Two textures under labels that mean nothing: only the demonstrations can tell.
    backbone = load_backbone("pocket-2", device="cpu")
    assert isinstance(backbone.model, Idefics3ForConditionalGeneration)
    reader, writer = Reader(backbone.model), Writer(backbone.processor.tokenizer)
    sight = Sight(backbone.model, num_classes=3)
    dice = np.random.default_rng(0)
    rows = np.arange(64)
    stripes = np.repeat(np.repeat((rows // 8 % 2)[None, :], 64, 0)[None], 8, 0)
    rings = ((np.hypot(rows[:, None] - 32, rows[None] - 32) // 6) % 2)[None].repeat(8, 0)
    shades = np.concatenate([stripes, rings]) * 160 + dice.integers(0, 60, (16, 1, 1))
    pixels = torch.from_numpy(shades.astype(np.uint8))[:, None].expand(-1, 3, -1, -1)
    order = dice.permutation(16)
    labels = ("Q7", "blim")
    items = [Item(int(row), "?", labels[int(row) // 8]) for row in order]
    with torch.no_grad():
        tokens = sight.tokens(pixels[torch.from_numpy(order)])
    hits = item_hits(reader, writer.write([items]), tokens)
    assert hits[6:].float().mean() == 1.0

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from transformers import Idefics3ForConditionalGeneration

from app.core.pictures import Picture
from app.method.backbone.examples import Example
from app.method.backbone.loading import backbone_from_parts, load_backbone
from app.method.backbone.prompts import build_prompt, encode_prompts
from tools.pocket2.anatomy import make_processor
from tools.pocket2.building import Plan, Supplies
from tools.pocket2.gallery import (
    Gallery,
    load_gallery,
    save_gallery,
)
from tools.pocket2.pictures.views import views
from tools.pocket2.reading.curves import accuracy_by_shots, binding_episodes, nearest_by_shots
from tools.pocket2.reading.lessons import step_episodes
from tools.pocket2.reading.material import Item, Material, gather
from tools.pocket2.reading.reader import (
    Batch,
    Reader,
    Writer,
    answer_loss,
    item_hits,
)
from tools.pocket2.report import abilities, assemble, card, write_checkpoint
from tools.pocket2.sight import Sight


def _classes(material: Material, items: Sequence[Item]) -> list[int]:
    return [
        int(material.gallery.classes[item.picture]) for item in items if item.picture is not None
    ]


@pytest.fixture
def pixels(supplies: Supplies, rng: np.random.Generator) -> UInt8[Tensor, "3 3 side side"]:
    return views(supplies.bank, supplies.bank.for_training[:3], rng)


def _picture(pixels: UInt8[Tensor, "3 side side"]) -> Picture:
    return Picture.of(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))


@pytest.fixture
def assembled(supplies: Supplies, sight: Sight, reader: Reader) -> Idefics3ForConditionalGeneration:
    return assemble(supplies, sight, reader)


def test_the_assembled_model_reads_pixels_as_the_reader_reads_tokens(
    assembled: Idefics3ForConditionalGeneration,
    sight: Sight,
    reader: Reader,
    *,
    supplies: Supplies,
    pixels: UInt8[Tensor, "3 3 side side"],
) -> None:
    processor = make_processor(supplies.tokenizer)
    backbone = backbone_from_parts(assembled, processor, name="pocket-2")
    items = [Item(0, "which one", "river"), Item(1, "which one", "stone K7"), Item(2, "?", "lamp")]
    demonstrations = [
        Example(
            image=_picture(shown),
            question=item.question,
            answers=(item.answer,),
            image_id=item.answer,
            id=item.answer,
        )
        for shown, item in zip(pixels[:2], items[:2], strict=True)
    ]
    asked, shown = items[2], _picture(pixels[2])
    prompt = build_prompt(backbone, asked.question, shown, demonstrations=demonstrations)
    encoded = encode_prompts(backbone, [prompt], answers=[asked.answer])
    batch = Writer(supplies.tokenizer).write([items])
    assert batch.ids.tolist() == encoded.inputs["input_ids"].tolist()

    with torch.no_grad():
        expected = backbone.model(**encoded.inputs).logits[0]
        logits, targets = reader.logits(batch, sight.tokens(pixels), batch.is_answer)
    chosen = batch.is_answer[0, 1:]
    torch.testing.assert_close(logits, expected[:-1][chosen], atol=2e-4, rtol=1e-4)
    assert targets.tolist() == batch.ids[0, 1:][chosen].tolist()


def test_the_saved_checkpoint_loads_as_any_other(
    assembled: Idefics3ForConditionalGeneration,
    supplies: Supplies,
    pixels: UInt8[Tensor, "3 3 side side"],
    *,
    tmp_path: Path,
) -> None:
    write_checkpoint(supplies, assembled, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 32 * 2**20
    backbone = load_backbone(str(tmp_path), device="cpu")
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) < 15_000_000
    encoded = encode_prompts(backbone, [build_prompt(backbone, "?", _picture(pixels[0]))])
    control = Writer(supplies.tokenizer).control
    assert encoded.inputs["input_ids"][0, 1:5].tolist() == list(control.picture)


def test_loss_counts_only_what_is_taught(
    supplies: Supplies, reader: Reader, gallery: Gallery
) -> None:
    writer = Writer(supplies.tokenizer)
    items = [Item(0, "?", "river"), Item(1, "?", "stone"), Item(0, "?", "river")]
    hidden = [Item(0, "?", "river", is_taught=False), items[1], items[2]]
    sums = []
    for rows in (items, hidden):
        batch = writer.write([rows])
        total, count = answer_loss(reader, batch, gallery.tokens[batch.pictures].float())
        sums.append((float(total.detach()), count))
    first = writer.write([items[:1]])
    own, count = answer_loss(reader, first, gallery.tokens[first.pictures].float())
    assert sums[0][1] - sums[1][1] == count == 2
    assert sums[0][0] - sums[1][0] == pytest.approx(float(own.detach()), rel=1e-4)


def test_padding_changes_no_loss(supplies: Supplies, reader: Reader, material: Material) -> None:
    writer = Writer(supplies.tokenizer)
    rows = step_episodes(material, np.random.default_rng(0), progress=0.0, num_tokens=500)
    tokens = material.gallery.tokens
    together = answer_loss(reader, writer.write(rows), tokens[writer.write(rows).pictures].float())
    apart = [
        answer_loss(reader, batch, tokens[batch.pictures].float())
        for batch in writer.write_alike(rows, parts=3)
    ]
    assert sum(count for _, count in apart) == together[1]
    total = sum(float(part.detach()) for part, _ in apart)
    assert total == pytest.approx(float(together[0].detach()), rel=1e-4)


class _Parrot(Reader):
    """Says every answer right but for one token."""

    def __init__(self, wrong: int) -> None:
        torch.nn.Module.__init__(self)
        self._wrong = wrong

    def logits(self, batch: Batch, tokens: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        del tokens
        targets = batch.ids[:, 1:][chosen[:, 1:]]
        logits = torch.nn.functional.one_hot(targets).float()
        logits[self._wrong] = 0.0
        return logits, targets


@pytest.mark.parametrize(("wrong", "hits"), [(0, [False, True]), (3, [True, False])])
def test_a_hit_is_a_whole_answer(supplies: Supplies, wrong: int, hits: list[bool]) -> None:
    batch = Writer(supplies.tokenizer).write([[Item(None, "?", "river"), Item(None, "?", "lamp")]])
    assert int(batch.is_answer.sum()) == 4
    assert item_hits(_Parrot(wrong), batch, torch.empty(0, 256)).tolist() == hits


def _clear(material: Material) -> Material:
    """The same pictures, each with a token that tells its class and nothing else."""
    numbers = torch.from_numpy(material.gallery.classes)
    tokens = torch.nn.functional.one_hot(numbers).half()
    old = material.gallery
    clear = Gallery(tokens, old.kinds, old.drawings, old.classes, old.values)
    return gather(clear, material.words, material.names)


def test_copying_is_right_once_the_class_was_shown(material: Material) -> None:
    clear = _clear(material)
    make = binding_episodes(clear, ways=3, length=9)
    curve = nearest_by_shots(clear, make, episodes=60, shots=(0, 1, 8))
    assert 0 not in curve
    assert curve[1] < 0.5
    assert curve[8] == 1.0


def test_measured_episodes_show_no_picture_twice(
    material: Material, rng: np.random.Generator
) -> None:
    make = binding_episodes(material, ways=3, length=9)
    for _ in range(20):
        items = make(rng)
        assert len({item.picture for item in items}) == 9
        assert sorted(np.unique(_classes(material, items), return_counts=True)[1]) == [3, 3, 3]


def test_too_few_pictures_are_told(material: Material) -> None:
    with pytest.raises(ValueError, match="wanted 3 classes of 400 pictures, found 0"):
        binding_episodes(material, ways=3, length=1_200)


def test_an_untrained_reader_binds_nothing(
    supplies: Supplies, reader: Reader, material: Material
) -> None:
    make = binding_episodes(material, ways=2, length=5)
    curve = accuracy_by_shots((reader, Writer(supplies.tokenizer)), material, make, episodes=18)
    assert curve == {0: 0.0, 1: 0.0, 2: 0.0, 4: 0.0}


def test_a_gallery_is_read_as_it_was_written(gallery: Gallery, tmp_path: Path) -> None:
    save_gallery(gallery, tmp_path / "gallery.safetensors")
    read = load_gallery(tmp_path / "gallery.safetensors")
    assert torch.equal(read.tokens, gallery.tokens)
    for name in ("kinds", "drawings", "classes"):
        assert np.array_equal(getattr(read, name), getattr(gallery, name))
    assert all(np.array_equal(read.values[name], gallery.values[name]) for name in gallery.values)


def test_the_card_tells_every_figure_and_licence() -> None:
    curves = {"new, 5 ways": {0: 0.0, 16: 0.75}}
    text = card(curves, Plan(), parameters=10_000_000)
    assert "| new, 5 ways | 0.0% |  |  |  |  | 75.0% |  |  |" in text
    assert "CC-BY-SA-4.0 | evaluation" in text
    assert abilities(curves, parameters=1)["in_context"] == {
        "new, 5 ways@0": 0.0,
        "new, 5 ways@16": 0.75,
    }

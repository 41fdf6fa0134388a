import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.pocket2.conftest import drawings
from tools.pocket2.packages import archive, fetch, read_members
from tools.pocket2.pictures.bank import Bank, join, rows_by_class
from tools.pocket2.pictures.drawings import SIDE_PIXELS, render_source
from tools.pocket2.pictures.scenes import ATTRIBUTES, UNKNOWN, group_scenes, pair_scenes
from tools.pocket2.pictures.sources import (
    HELD_OUT_VENDOR,
    SOURCES,
    Source,
    class_key,
    class_words,
    is_held_out,
)
from tools.pocket2.pictures.views import (
    Placement,
    apart,
    normalise,
    place,
    random_grounds,
    random_inks,
    views,
)


def _pack(folder: Path, source: Source, bodies: dict[str, str]) -> None:
    content = {"width": 8, "height": 8, "icons": {n: {"body": b} for n, b in bodies.items()}}
    data = json.dumps(content).encode()
    with tarfile.open(archive(source.package, source.version, folder), "w:gz") as packed:
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(data)
        packed.addfile(member, BytesIO(data))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("love-letter", "loveletter"),
        ("cat-outline", "cat"),
        ("cat-bold-duotone", "cat"),
        ("waving-hand-medium-dark-skin-tone", "waving-hand"),
        ("mic-20", "mic"),
    ],
)
def test_styles_and_spellings_of_one_thing_are_one_class(one: str, other: str) -> None:
    assert class_key(one) == class_key(other) is not None


@pytest.mark.parametrize(
    "name", ["keycap-5", "number-circle", "counter-3", "three", "dice", "alarm-clock", "filter-7"]
)
def test_digits_and_dials_are_left_out(name: str) -> None:
    assert class_key(name) is None


def test_other_skin_tones_are_left_out() -> None:
    assert class_key("waving-hand-light-skin-tone") is None


def test_words_of_a_class_are_readable() -> None:
    assert class_words("shooting-star-fill") == "shooting star"


def test_a_fifth_of_all_names_is_held_out() -> None:
    share = np.mean([is_held_out(f"thing{number}") for number in range(4_000)])
    assert share == pytest.approx(51 / 256, abs=0.02)


def test_the_vendor_kept_for_evaluation_is_the_share_alike_one() -> None:
    assert [source for source in SOURCES if source.use == "evaluation"] == [HELD_OUT_VENDOR]
    assert {source.licence for source in SOURCES if "SA" in source.licence} == {
        HELD_OUT_VENDOR.licence
    }


def test_a_bank_joins_vendors_by_class(bank: Bank) -> None:
    members = rows_by_class(bank, np.arange(len(bank.classes)))
    for number, rows in members.items():
        assert {class_key(bank.parts[bank.vendors[r]].names[bank.places[r]]) for r in rows} == {
            bank.keys[number]
        }
    assert max(map(len, members.values())) == 3


def test_nothing_held_out_is_for_training(bank: Bank) -> None:
    rows = bank.for_training
    assert not any(is_held_out(bank.keys[number]) for number in bank.classes[rows])
    assert {bank.parts[vendor].source.use for vendor in bank.vendors[rows]} == {"training"}
    held_out = set(bank.of_held_out_classes("training")) | set(
        bank.of_held_out_classes("evaluation")
    )
    assert not held_out & set(rows)
    assert all(is_held_out(bank.keys[number]) for number in bank.classes[sorted(held_out)])


def test_names_with_spaces_are_kept_where_a_vendor_writes_none() -> None:
    joined = join(
        [
            drawings("one", ["loveletter"], is_colored=True),
            drawings("two", ["love-letter"], is_colored=True),
        ]
    )
    assert joined.words == ("love letter",)


def test_views_differ_and_repeat_from_their_seed(bank: Bank) -> None:
    rows = np.zeros(6, int)
    first, again = (views(bank, rows, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (6, 3, SIDE_PIXELS, SIDE_PIXELS)
    assert torch.equal(first, again)
    assert all(not torch.equal(first[0], other) for other in first[1:])


def test_the_tower_gets_what_the_processor_makes() -> None:
    assert normalise(torch.tensor([[[[0, 255]] * 2] * 3], dtype=torch.uint8))[0, 0, 0].tolist() == [
        -1,
        1,
    ]


def test_a_drawing_stands_where_it_is_placed() -> None:
    full = torch.ones(1, 4, SIDE_PIXELS, SIDE_PIXELS)
    one = np.ones(1)
    placed = place(
        full,
        Placement(x=0.5 * one, y=-0.25 * one, scale=0.25 * one, turn=0 * one, stretch=one),
        side=SIDE_PIXELS,
    )[0, 3]
    rows, columns = torch.nonzero(placed > 0.5).float().T
    assert columns.mean() == pytest.approx(SIDE_PIXELS * 0.75, abs=1)
    assert rows.mean() == pytest.approx(SIDE_PIXELS * 0.375, abs=1)
    assert placed.sum() == pytest.approx((SIDE_PIXELS / 4) ** 2, rel=0.1)


def test_inks_can_be_told_from_their_grounds() -> None:
    rng = np.random.default_rng(0)
    grounds = random_grounds(500, rng)
    assert (np.abs(apart(random_inks(500, rng), grounds) - grounds).max(1) > 0.2).all()


def test_scenes_show_as_much_ink_as_they_count(bank: Bank) -> None:
    rows = np.full(300, int(np.flatnonzero(~bank.is_colored(np.arange(len(bank.classes))))[0]))
    scenes = group_scenes(bank, rows, np.random.default_rng(1))
    pixels = scenes.pixels.float() / 255
    inked = (pixels - pixels.flatten(2).median(-1).values[..., None, None]).abs().amax(1) > 0.25
    amounts = inked.float().mean((1, 2)).numpy()
    several = scenes.values["count"] > 0
    means = [amounts[several & (scenes.values["count"] == n)].mean() for n in range(1, 5)]
    assert np.all(np.diff(means) > 0)
    sizes = [amounts[scenes.values["size"] == n].mean() for n in range(3)]
    assert np.all(np.diff(sizes) > 0)


def test_small_things_stand_in_their_column_and_line(bank: Bank) -> None:
    rows = np.full(400, int(np.flatnonzero(~bank.is_colored(np.arange(len(bank.classes))))[0]))
    scenes = group_scenes(bank, rows, np.random.default_rng(2))
    pixels = scenes.pixels.float() / 255
    inked = (pixels - pixels.flatten(2).median(-1).values[..., None, None]).abs().amax(1) > 0.25
    for name, axis in (("column", 1), ("line", 2)):
        profile = inked.float().sum(axis)
        centre = (profile * torch.linspace(-1, 1, SIDE_PIXELS)).sum(1) / profile.sum(1).clamp(min=1)
        means = [float(centre[scenes.values[name] == value].mean()) for value in range(3)]
        assert means == sorted(means)
        assert means[0] < -0.3
        assert means[2] > 0.3


def test_scenes_know_only_what_they_show(bank: Bank) -> None:
    rows = np.random.default_rng(0).choice(bank.for_training, 200)
    scenes = group_scenes(bank, rows, np.random.default_rng(3))
    assert set(scenes.values) == set(ATTRIBUTES)
    assert ((scenes.values["ink"] == UNKNOWN) == bank.is_colored(rows)).all()
    assert (scenes.values["ink"] != scenes.values["ground"]).all()
    assert ((scenes.values["size"] == UNKNOWN) == (scenes.values["count"] > 0)).all()


def test_pairs_stand_along_their_axis(bank: Bank) -> None:
    scenes = pair_scenes(bank, bank.for_training[:8].reshape(4, 2), np.random.default_rng(0))
    assert scenes.pixels.shape == (4, 3, SIDE_PIXELS, SIDE_PIXELS)
    assert set(scenes.values["axis"]) <= {0, 1}


def test_a_package_is_rendered_once_and_read_again(tmp_path: Path) -> None:
    source = Source(package="@made/icons", version="1", licence="MIT")
    bodies = {
        "square": '<path fill="currentColor" d="M0 0h4v8H0z"/>',
        "nothing": "<g/>",
        "broken": "<path",
    }
    _pack(tmp_path, source, bodies)
    counts = list[tuple[str, int, int]]()
    made = render_source(
        source,
        packages=tmp_path,
        folder=tmp_path / "drawings",
        on_count=lambda *count: counts.append(count),
    )
    assert made.names == ("square",)
    assert made.pixels.shape == (1, SIDE_PIXELS, SIDE_PIXELS)
    assert made.pixels[0, :, : SIDE_PIXELS // 2 - 1].min() == 255
    assert made.pixels[0, :, SIDE_PIXELS // 2 + 1 :].max() == 0
    archive(source.package, source.version, tmp_path).unlink()
    again = render_source(source, packages=tmp_path, folder=tmp_path / "drawings")
    assert np.array_equal(again.pixels, made.pixels)


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    source = Source(package="@made/icons", version="1", licence="MIT")
    _pack(tmp_path, source, {})
    before = archive("@made/icons", "1", tmp_path).read_bytes()
    fetch([(source.package, source.version)], tmp_path)
    assert archive("@made/icons", "1", tmp_path).read_bytes() == before


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    source = Source(package="@made/icons", version="1", licence="MIT")
    _pack(tmp_path, source, {})
    path = archive("@made/icons", "1", tmp_path)
    assert list(read_members(path, lambda name: name.endswith(".json"))) == ["package/icons.json"]
    with pytest.raises(FileNotFoundError, match="made-icons-1"):
        read_members(path, "package/other".__eq__)

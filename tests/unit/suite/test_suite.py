import gzip
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.method.experiments.suite import load_suite
from tests.fakes.suites import tiny_suite, tiny_task
from tools.suite.clothes import clothes_tasks, read_idx
from tools.suite.digits import Digits, digit_tasks
from tools.suite.emoji import Drawing, Drawings, emoji_tasks, view
from tools.suite.items import SPLITS, Task, write_suite
from tools.suite.scenes import scene_tasks
from tools.suite.shapes import choosing_tasks, shape_tasks
from tools.suite.stamps import stamp_tasks


def write_idx(path: Path, values: np.ndarray) -> None:
    header = np.array([2048 + values.ndim, *values.shape], dtype=">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def pictures(task: Task) -> dict[str, set[str]]:
    return {split: {item.picture for item in task.items[split]} for split in SPLITS}


def are_apart(task: Task) -> bool:
    shown = pictures(task)
    everything = set().union(*shown.values())
    return len(everything) == sum(map(len, shown.values()))


def test_a_suite_is_read_as_it_was_written(tmp_path: Path) -> None:
    suite = load_suite(str(tiny_suite(tmp_path, "one")))
    (task,) = suite.tasks
    items = {split: task.load(split) for split in SPLITS}
    assert {split: len(some) for split, some in items.items()} == {
        "train": 16,
        "validation": 8,
        "test": 8,
    }
    shown = [{item.image_id for item in some} for some in items.values()]
    assert len(set.union(*shown)) == sum(map(len, shown))
    item = task.load("test")[0]
    assert item.question == "what color is the shape?"
    assert item.answer in {"red", "blue"}
    assert load_suite(str(tmp_path)).digest == suite.digest


def test_a_picture_in_two_splits_is_never_written(tmp_path: Path) -> None:
    task = tiny_task("one")
    theirs = task.items["train"][0]
    shared_parts: list[dict[str, Any]] = [{"picture": theirs.picture}, {"image": theirs.image}]
    for same in shared_parts:
        shared = replace(task.items["test"][0], **same)
        mixed = replace(task, items={**task.items, "test": [shared]})
        with pytest.raises(ValueError, match="one/train/0 is in train and in test"):
            write_suite("tiny", [mixed], tmp_path)
    assert not (tmp_path / "suite.json").exists()


def test_idx_files_are_read_and_others_refused(tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", values)
    assert np.array_equal(read_idx(tmp_path / "a.gz"), values)
    (tmp_path / "b.gz").write_bytes(gzip.compress(np.array([7, 1], dtype=">i4").tobytes()))
    with pytest.raises(ValueError, match="found magic 7"):
        read_idx(tmp_path / "b.gz")


def test_clothes_have_the_names_of_their_labels(tmp_path: Path) -> None:
    for source in ("train", "t10k"):
        labels = np.arange(1500) % 10
        images = np.zeros((1500, 28, 28)) + labels[:, None, None] * 20
        write_idx(tmp_path / f"{source}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{source}-labels-idx1-ubyte.gz", labels)
    name, group = clothes_tasks(tmp_path)
    for named, grouped in zip(name.items["test"], group.items["test"], strict=True):
        label = round(float(np.asarray(named.image)[30, 30]) / 20)
        assert named.answer == (
            "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
            "ankle boot",
        )[label]  # fmt: skip
        assert (grouped.answer == "shoe") == (label in {5, 7, 9})
    assert are_apart(name)


def test_digits_are_compared_and_summed_by_what_they_show() -> None:
    labels = np.arange(200) % 10
    images = np.zeros((200, 8, 8)) + labels[:, None, None]
    digits = Digits(images, labels)
    name, parity, compare, operator = digit_tasks(digits)
    assert {item.answer for item in parity.items["test"]} == {"odd", "even"}
    assert all(are_apart(task) for task in (name, parity, compare, operator))
    for item in compare.items["test"]:
        left, right = (int(part) for part in item.picture.removeprefix("digits/").split("+"))
        difference = int(labels[left]) - int(labels[right])
        assert item.answer == ("equal" if not difference else "left" if difference > 0 else "right")
    for item in operator.items["train"]:
        pair = [int(part) for part in item.picture.removeprefix("digits/").split("?")]
        assert item.answer == str(sum(int(labels[place]) for place in pair))
        assert max(int(labels[place]) for place in pair) <= 4


def test_easy_vqa_asks_the_same_pictures_in_other_words() -> None:
    tasks = {task.name: task for task in (*shape_tasks(), *choosing_tasks())}
    assert all(are_apart(task) for task in tasks.values())
    rule = tasks["easy_vqa_rule"]
    nickname = {item.picture: item.answer for item in tasks["easy_vqa_nickname"].items["test"]}
    for item in rule.items["test"]:
        if item.picture in nickname:
            is_disc = nickname[item.picture] == "disc"
            assert (item.answer in {"triangle", "rectangle"}) != is_disc
    chosen = pictures(tasks["choose_german"])
    reported = set().union(*pictures(tasks["easy_vqa"]).values())
    assert not reported & set().union(*chosen.values())


def fake_drawings() -> Drawings:
    vendors = (
        "noto", "twemoji", "fluent-emoji-flat", "fluent-emoji", "emojione", "noto-v1", "openmoji",
    )  # fmt: skip
    keys = [
        "grinningsquintingface", "sleepyface", *(f"thing{letter}" for letter in ascii_lowercase)
    ]  # fmt: skip
    groups = ("Animals Nature", "Food Drink")
    return Drawings(
        by_key={
            key: [
                Drawing(
                    key=key, vendor=vendor, image=Image.new("RGBA", (64, 64), (9 * n, 0, 0, 255))
                )
                for vendor in vendors
            ]
            for n, key in enumerate(keys)
        },
        categories={key: groups[n % 2] for n, key in enumerate(keys)},
        others={},
    )


def test_emoji_tasks_keep_vendors_or_classes_apart() -> None:
    tasks = {task.name: task for task in emoji_tasks(fake_drawings())}
    assert all(are_apart(task) for task in tasks.values())
    for name in ("emoji_mood", "emoji_codes", "binding"):
        vendors = {
            split: {picture.split("/")[0] for picture in shown}
            for split, shown in pictures(tasks[name]).items()
        }
        assert vendors["test"] == {"openmoji", "twemoji"}
        assert not vendors["train"] & (vendors["test"] | vendors["validation"])
    classes = [
        {picture.split("/")[1] for picture in shown}
        for shown in pictures(tasks["emoji_group"]).values()
    ]
    assert not classes[0] & classes[1] | classes[0] & classes[2] | classes[1] & classes[2]
    codes, made_up = (
        {item.picture.split("/")[1] for item in tasks[name].items["train"]}
        for name in ("emoji_codes", "binding")
    )
    assert not codes & made_up
    assert len({item.answer for item in tasks["emoji_codes"].items["train"]}) == 16


def test_scenes_show_as_many_things_and_on_the_side_that_the_answer_says() -> None:
    counting, relations = scene_tasks(fake_drawings())
    assert {item.answer for item in counting.items["train"]} == set("123456")
    for item in relations.items["test"][:40]:
        pixels = np.asarray(item.image).astype(int)
        dark = pixels[..., 1] < 100
        rows, columns = np.nonzero(dark)
        middle = (columns.mean() - 31.5, rows.mean() - 31.5)
        # The large one has most of the ink.
        side = {
            "left": middle[0] < 0,
            "right": middle[0] > 0,
            "above": middle[1] < 0,
            "below": middle[1] > 0,
        }
        assert side[item.answer]


def test_variants_of_a_stamp_stay_in_one_split(tmp_path: Path) -> None:
    for kind in (
        "animals", "food", "plants", "vehicles", "household", "symbols", "town", "clothes",
    ):  # fmt: skip
        (tmp_path / kind).mkdir()
        for letter in "abcdefghij":
            for name in (f"thing{letter}", f"thing{letter}2", f"thing{letter}_mirror"):
                Image.new("LA", (30, 20), (0, 255)).save(tmp_path / kind / f"{name}.png")
    (task,) = stamp_tasks(tmp_path)
    motifs = {
        split: {f"{parts[1]}/{parts[2][:6]}" for picture in shown if (parts := picture.split("/"))}
        for split, shown in pictures(task).items()
    }
    assert not motifs["train"] & motifs["test"]
    assert not motifs["train"] & motifs["validation"]
    assert len({item.answer for item in task.items["train"]}) == 8


def test_a_view_keeps_what_is_transparent_out_of_sight() -> None:
    drawing = Drawing(key="a", vendor="b", image=Image.new("RGBA", (64, 64), (0, 0, 0, 0)))
    colors = view(drawing, np.random.default_rng(0)).getcolors()
    assert colors is not None
    assert len(colors) == 1

"""Tasks about emoji that no backbone of ours was trained on: classes held out under every vendor.

Knows which drawings may be used; scenes composed of them are made elsewhere.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from tools.pocket2.packages import archive, fetch, read_members
from tools.pocket2.pictures.drawings import render_source
from tools.pocket2.pictures.sources import HELD_OUT_VENDOR, SOURCES, class_key, is_held_out
from tools.suite.items import SIDE_PIXELS, Item, Task, by_split, generator_of

VENDORS: Final = (
    *("noto", "twemoji", "fluent-emoji-flat", "fluent-emoji", "emojione", "noto-v1", "openmoji"),
)
_BY_SPLIT: Final = {
    "train": ("noto", "fluent-emoji-flat", "fluent-emoji", "emojione"),
    "validation": ("noto-v1",),
    "test": ("openmoji", "twemoji"),
}
_COUNTS: Final = {"train": 1000, "validation": 150, "test": 400}
_ABOUT: Final = "emoji of classes held out under every vendor"
_GROUPS: Final = {
    "Animals Nature": "nature", "Food Drink": "food", "Travel Places": "travel",
    "Objects": "object", "People Body": "person", "Smileys Emotion": "feeling", "Flags": "flag",
    "Symbols": "symbol", "Activities": "activity",
}  # fmt: skip
_MOODS: Final = {
    "grinningsquintingface": "happy", "partyingface": "happy", "moneymouthface": "happy",
    "frowningfacewithopenmouth": "sad", "slightlyfrowningface": "sad",
    "facewithsteamfromnose": "angry", "facewithsymbolsonmouth": "angry",
    "astonishedface": "surprised", "sleepyface": "tired",
}  # fmt: skip
_CODES: Final = (
    "K7", "B2", "X9", "M4", "T1", "R8", "J3", "W6", "D5", "Q2", "H9", "Z4", "L6", "F1", "V3", "N8",
)  # fmt: skip
_MADE_UP: Final = ("dax", "blicket", "perpo", "slation", "shously")
_OTHER_MADE_UP: Final = ("wug", "toma", "fendle", "gazzer", "zup", "kipa", "modi", "lorp")
_LEAST_SCALE: Final = 0.55


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """One drawing of a vendor.

    Attributes:
        key: What it shows, the same for every vendor.
        vendor: Whose it is.
        image: RGBA.
    """

    key: str
    vendor: str
    image: Image.Image


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawings:
    """Drawings by what they show.

    Attributes:
        by_key: One a vendor, of classes that no training saw.
        categories: The category of each class that OpenMoji names.
        others: OpenMoji's drawings of all other classes; that vendor was never trained on.
    """

    by_key: Mapping[str, Sequence[Drawing]]
    categories: Mapping[str, str]
    others: Mapping[str, Drawing]


def load_drawings(work: Path) -> Drawings:
    """The drawings, fetched and rendered where they are missing."""
    sources = [one for one in (*SOURCES, HELD_OUT_VENDOR) if one.vendor in VENDORS]
    unique = list({one.vendor: one for one in sources}.values())
    fetch([(one.package, one.version) for one in unique], work / "packages")
    by_key: dict[str, dict[str, Drawing]] = defaultdict(dict)
    others: dict[str, Drawing] = {}
    for source in unique:
        part = render_source(source, packages=work / "packages", folder=work / "drawings")
        for name, pixels in zip(part.names, part.pixels, strict=True):
            key = class_key(name)
            if key is None:
                continue
            drawing = Drawing(
                key=key, vendor=source.vendor, image=Image.fromarray(np.array(pixels))
            )
            if is_held_out(key):
                by_key[key].setdefault(source.vendor, drawing)
            elif source is HELD_OUT_VENDOR:
                others.setdefault(key, drawing)
    package = archive(HELD_OUT_VENDOR.package, HELD_OUT_VENDOR.version, work / "packages")
    (text,) = read_members(package, "package/metadata.json".__eq__).values()
    content: dict[str, Any] = json.loads(text)
    categories = {
        key: category
        for category, names in content["categories"].items()
        for name in names
        if (key := class_key(name)) is not None
    }
    return Drawings(
        by_key={key: list(found.values()) for key, found in sorted(by_key.items())},
        categories=categories,
        others=dict(sorted(others.items())),
    )


def view(drawing: Drawing, rng: np.random.Generator) -> Image.Image:
    """The drawing somewhere on a light ground, larger or smaller and a little turned."""
    side = round(SIDE_PIXELS * rng.uniform(_LEAST_SCALE, 1.0))
    ground = tuple(int(value) for value in rng.integers(200, 256, size=3))
    canvas = Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS), ground)
    turned = drawing.image.resize((side, side), Image.Resampling.BICUBIC).rotate(
        float(rng.uniform(-12, 12)), resample=Image.Resampling.BICUBIC
    )
    room = SIDE_PIXELS - side + 1
    canvas.paste(turned, (int(rng.integers(room)), int(rng.integers(room))), turned)
    return canvas


def emoji_tasks(drawings: Drawings) -> list[Task]:
    """The tasks of the suite."""
    common = _common(drawings)
    codes = dict(zip(common[: len(_CODES)], _CODES, strict=True))
    rest = common[len(_CODES) :]
    names = dict(zip(rest[: len(_MADE_UP)], _MADE_UP, strict=True))
    return [
        _group(drawings),
        _named(drawings, "emoji_mood", question="how does it feel?", answers=_MOODS),
        _named(drawings, "emoji_codes", question="which code does it have?", answers=codes),
        _named(drawings, "binding", question="what is this called?", answers=names),
    ]


def choosing_tasks(drawings: Drawings) -> list[Task]:
    """Tasks that recipes are chosen on: codes and names of classes that the suite does not ask for.

    Names are of drawings of other vendors in every split; the suite shows their classes too, in the
    task of groups and in scenes.
    """
    named = _common(drawings)[len(_CODES) + len(_MADE_UP) :]
    names = dict(zip(named, _OTHER_MADE_UP, strict=False))
    keys = generator_of("choose codes").permutation(sorted(drawings.others))[:8].tolist()
    codes = dict(zip(keys, ("ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"), strict=True))

    def make(split: str, rng: np.random.Generator, number: int) -> Item:
        key = str(rng.choice(list(codes)))
        return Item(
            image=view(drawings.others[key], rng),
            picture=f"openmoji/{key}/{split}/{number}",
            question="its mark?",
            answer=codes[key],
        )

    counts = {"train": 1000, "validation": 150, "test": 300}
    items = by_split(counts, make, purpose="choose codes")
    return [
        Task(name="choose_codes", about="OpenMoji (CC-BY-SA-4.0): marks", items=items),
        _named(drawings, "choose_names", question="its name here?", answers=names),
    ]


def _common(drawings: Drawings) -> list[str]:
    """Classes that every vendor has drawn, in an order drawn once; faces are left out."""
    keys = [
        key
        for key, found in drawings.by_key.items()
        if {one.vendor for one in found} == set(VENDORS) and key not in _MOODS
    ]
    return [str(key) for key in generator_of("common classes").permutation(keys)]


def _group(drawings: Drawings) -> Task:
    """The group of a class; classes of one split are in no other."""
    known = [key for key in drawings.by_key if drawings.categories.get(key) in _GROUPS]
    order = generator_of("emoji_group").permutation(known).tolist()
    cuts = (round(0.6 * len(order)), round(0.7 * len(order)))
    keys = {
        "train": order[: cuts[0]], "validation": order[cuts[0] : cuts[1]], "test": order[cuts[1] :]
    }  # fmt: skip

    def make(split: str, rng: np.random.Generator, number: int) -> Item:
        key = str(rng.choice(keys[split]))
        found = drawings.by_key[key]
        drawing = found[int(rng.integers(len(found)))]
        return Item(
            image=view(drawing, rng),
            picture=f"{drawing.vendor}/{key}/{number}",
            question="which group does it belong to?",
            answer=_GROUPS[drawings.categories[key]],
        )

    about = f"{_ABOUT}: OpenMoji's group of the class; every split has classes of its own"
    items = by_split(_COUNTS, make, purpose="emoji_group")
    return Task(name="emoji_group", about=about, items=items)


def _named(drawings: Drawings, name: str, *, question: str, answers: Mapping[str, str]) -> Task:
    """Answers by class; every split has vendors of its own."""
    known = sorted(set(answers) & set(drawings.by_key))
    pools = {
        split: [
            one for key in known for one in drawings.by_key[key] if one.vendor in vendors
        ]
        for split, vendors in _BY_SPLIT.items()
    }  # fmt: skip

    def make(split: str, rng: np.random.Generator, number: int) -> Item:
        # Every class as often as every other, whoever has drawn it.
        key = known[int(rng.integers(len(known)))]
        mine = [one for one in pools[split] if one.key == key] or pools[split]
        drawing = mine[int(rng.integers(len(mine)))]
        return Item(
            image=view(drawing, rng),
            picture=f"{drawing.vendor}/{drawing.key}/{number}",
            question=question,
            answer=answers[drawing.key],
        )

    about = f"{_ABOUT}: {question} Every split has vendors of its own"
    return Task(name=name, about=about, items=by_split(_COUNTS, make, purpose=name))

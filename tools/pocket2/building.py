"""`pocket-2` from nothing: fetch and render the drawings, learn to see, then to bind in context.

Knows the order of the stages and their figures; each stage's matter stands in its own module.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float16
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tools.pocket2.anatomy import make_model, read_tokenizer, train_tokenizer
from tools.pocket2.gallery import Gallery, hang_gallery, load_gallery, save_gallery, spread
from tools.pocket2.packages import fetch
from tools.pocket2.pictures.bank import Bank, join, rows_by_class
from tools.pocket2.pictures.drawings import render_source
from tools.pocket2.pictures.sources import SOURCES, Use
from tools.pocket2.reading.curves import accuracy_by_shots, binding_episodes, flat
from tools.pocket2.reading.lessons import PROSE_SHARE, draw_prose, long_enough, step_episodes
from tools.pocket2.reading.material import Material, gather
from tools.pocket2.reading.reader import Batch, Reader, Writer, answer_loss, prose_batch
from tools.pocket2.reading.words import Words, load_words, tokenizer_corpus
from tools.pocket2.sight import Sight, draw_pairs, sight_losses, sight_scores, taught_classes
from tools.pocket2.stages import Stage, run_stage

WORK_FOLDER: Final = Path.home() / ".cache" / "vlibrary" / "pocket-2"
_BUCKETS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything.

    Attributes:
        seed: Of all that is random.
        sight_steps: Steps of the first stage.
        sight_pairs: Classes a step shows twice.
        copies: Views of every drawing that episodes draw from.
        groups: Composed scenes that episodes draw from.
        measured_classes: Classes never trained on that binding is measured with, of each kind.
        measured_views: Pictures of each of them.
        measured_images: Pictures that the first stage is measured with, of each kind.
        measured_episodes: Episodes that the second stage is measured with, of each kind.
        reading_steps: Steps of the second stage.
        reading_tokens: About how many tokens a step reads.
        easy_steps: Steps over which episodes grow from the easiest to their full difficulty.
    """

    seed: int = 11
    sight_steps: int = 5_000
    sight_pairs: int = 512
    copies: int = 4
    groups: int = 60_000
    measured_classes: int = 400
    measured_views: int = 33
    measured_images: int = 1_600
    measured_episodes: int = 64
    reading_steps: int = 1_800
    reading_tokens: int = 40_000
    easy_steps: int = 800


@dataclass(frozen=True, eq=False)
class Supplies:
    """What is there before anything is learnt."""

    bank: Bank
    words: Words
    tokenizer: PreTrainedTokenizerFast


def build(
    plan: Plan, supplies: Supplies, *, folder: Path, loaders: int = 0
) -> tuple[Sight, Reader]:
    """All stages, each from what an earlier call left in the folder, on the bank's device."""
    checkpoints = folder / "checkpoints"
    sight = learn_to_see(plan, supplies, folder=checkpoints, loaders=loaders)
    galleries = hang_galleries(plan, supplies, sight, folder=folder / "galleries")
    return sight, learn_to_read(plan, supplies, galleries, folder=checkpoints, loaders=loaders)


def load_supplies(folder: Path, device: torch.device | str = "cpu") -> Supplies:
    """Drawings, words and tokenizer, fetched, rendered and fitted where they are missing."""
    packages = folder / "packages"
    fetch([(source.package, source.version) for source in SOURCES], packages)
    bank = join(
        [
            render_source(source, packages=packages, folder=folder / "drawings", on_count=_show)
            for source in SOURCES
        ],
        device,
    )
    words = load_words(packages)
    if not (folder / "tokenizer").exists():
        numbers = np.unique(bank.classes[bank.for_training]).tolist()
        fitted = train_tokenizer(tokenizer_corpus(words, [bank.words[n] for n in numbers]))
        fitted.save_pretrained(folder / "tokenizer")
    return Supplies(bank, words, read_tokenizer(folder / "tokenizer"))


def learn_to_see(plan: Plan, supplies: Supplies, *, folder: Path, loaders: int = 0) -> Sight:
    """The first stage, from its checkpoint."""
    taught = taught_classes(supplies.bank)
    sight = untrained_sight(plan, supplies, num_classes=len(taught.numbers))
    sight.to(supplies.bank.device)
    names = [name for name, _ in sight.named_parameters()]
    run_stage(
        Stage(
            name="sight",
            num_steps=plan.sight_steps,
            matrix_rate=3e-3,
            other_rate=2e-3,
            by_adam=frozenset(n for n in names if not n.startswith(("tower.encoder", "connector"))),
            draw=lambda _, rng: draw_pairs(taught, rng, num_pairs=plan.sight_pairs),
            loss=lambda shown: sight_losses(sight, taught, shown),
            validate=lambda: sight_scores(sight, supplies.bank, num_images=plan.measured_images),
        ),
        sight,
        folder=folder,
        seed=plan.seed,
        loaders=loaders,
    )
    return sight


def untrained_sight(plan: Plan, supplies: Supplies, *, num_classes: int) -> Sight:
    """Tower, connector and read-outs with random weights from the plan's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return Sight(make_model(supplies.tokenizer), num_classes)


def untrained_reader(plan: Plan, supplies: Supplies) -> Reader:
    """The decoder with random weights from the plan's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed + 1)
        return Reader(make_model(supplies.tokenizer))


def hang_galleries(
    plan: Plan, supplies: Supplies, sight: Sight, *, folder: Path
) -> dict[str, Gallery]:
    """What the frozen vision side makes of drawings: for training, and of two unseen kinds.

    `new` holds classes that were never trained on, `new_vendor` such classes by a vendor of whom
    nothing was.
    """
    sight.train(mode=False)
    bank = supplies.bank
    wanted: dict[str, Callable[[], np.ndarray]] = {
        "training": lambda: np.tile(bank.for_training, plan.copies),
        "new": lambda: _equal_shares(plan, bank, "training"),
        "new_vendor": lambda: _equal_shares(plan, bank, "evaluation"),
    }
    galleries = {}
    for number, (name, draw) in enumerate(wanted.items()):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            print(f"gallery {name}", flush=True)
            rows, groups = draw(), plan.groups // (1 if name == "training" else 8)
            seed = plan.seed + number
            save_gallery(hang_gallery(sight, bank, rows, groups=groups, seed=seed), path)
        galleries[name] = load_gallery(path)
    return galleries


def learn_to_read(
    plan: Plan,
    supplies: Supplies,
    galleries: Mapping[str, Gallery],
    *,
    folder: Path,
    loaders: int = 0,
) -> Reader:
    """The second stage, from its checkpoint."""
    bank, words = supplies.bank, supplies.words
    materials = {name: gather(hung, words, bank.words) for name, hung in galleries.items()}
    reader, writer = untrained_reader(plan, supplies), Writer(supplies.tokenizer)
    reader.start_from(spread(galleries["training"]))
    reader.to(bank.device)
    seen = galleries["training"].tokens.to(bank.device)
    run_stage(
        Stage(
            name="reading",
            num_steps=plan.reading_steps,
            matrix_rate=3e-3,
            other_rate=2e-3,
            by_adam=frozenset({"text.embed_tokens.weight"}),
            draw=lambda step, rng: draw_batches(
                plan, writer, materials["training"], step=step, rng=rng
            ),
            loss=lambda batches: reading_losses(reader, batches, seen),
            validate=lambda: reading_scores(
                (reader, writer), materials, episodes=plan.measured_episodes
            ),
        ),
        reader,
        folder=folder,
        seed=plan.seed + 1,
        loaders=loaders,
    )
    return reader


def draw_batches(
    plan: Plan, writer: Writer, material: Material, *, step: int, rng: np.random.Generator
) -> tuple[str, list[Batch]]:
    """What one step of the second stage reads: episodes most often, else plain prose."""
    if rng.random() < PROSE_SHARE:
        passages = draw_prose(
            long_enough(material.words.prose), rng, num_tokens=plan.reading_tokens
        )
        return "prose", [prose_batch(writer, passages)]
    progress = step / plan.easy_steps
    rows = step_episodes(material, rng, progress=progress, num_tokens=plan.reading_tokens)
    return "episodes", writer.write_alike(rows, parts=_BUCKETS)


def reading_losses(
    reader: Reader, drawn: tuple[str, list[Batch]], seen: Float16[Tensor, "pictures width"]
) -> dict[str, Tensor]:
    """The mean loss over what one step reads, and its kind."""
    kind, batches = drawn
    sums = []
    for batch in batches:
        there = batch.to(reader.device)
        with torch.autocast(
            reader.device.type, torch.bfloat16, enabled=reader.device.type != "cpu"
        ):
            sums.append(answer_loss(reader, there, seen[there.pictures].float()))
    mean = torch.stack([total for total, _ in sums]).sum() / sum(count for _, count in sums)
    return {"loss": mean, kind: mean}


def reading_scores(
    read: tuple[Reader, Writer], materials: Mapping[str, Material], *, episodes: int
) -> dict[str, float]:
    """Binding by shots on what was never trained on."""
    scores: dict[str, float] = {}
    for name in ("new", "new_vendor"):
        for ways, length in ((2, 17), (5, 65)):
            make = binding_episodes(materials[name], ways=ways, length=length)
            curve = accuracy_by_shots(read, materials[name], make, episodes=episodes)
            scores |= flat(f"{name} {ways} ways", curve)
    return scores


def _equal_shares(plan: Plan, bank: Bank, use: Use) -> np.ndarray:
    """Drawings of some unseen classes, as many of each: again and again where one has too few."""
    rng = np.random.default_rng(plan.seed)
    members = rows_by_class(bank, bank.of_held_out_classes(use))
    numbers = rng.permutation(sorted(members))[: plan.measured_classes].tolist()
    return np.concatenate(
        [np.resize(rng.permutation(members[number]), plan.measured_views) for number in numbers]
    )


def _show(vendor: str, done: int, wanted: int) -> None:
    print(f"render {vendor} {done}/{wanted}", flush=True)

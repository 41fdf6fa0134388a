"""The pocket LVLM from nothing: draw the world, learn to see, to answer, to read demonstrations.

Knows the order of the stages and their figures; each stage's matter stands in its own module.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from tools.pocket.abilities import scores_of_episodes, scores_of_singles
from tools.pocket.anatomy import make_model, make_processor, train_tokenizer
from tools.pocket.curriculum import (
    WORDING_EPISODES,
    WORDING_SHARES,
    Item,
    Writer,
    episodes,
    single_items,
)
from tools.pocket.pool import ScenePool, patch_features, render_pool
from tools.pocket.questions import sample_question
from tools.pocket.reading import answer_logits
from tools.pocket.stages import Stage, StageProgress, run_stage
from tools.pocket.vision import attribute_accuracy, attribute_loss, heads_for
from tools.pocket.words import CORPUS_USAGE, LABELS, LANGUAGES, SYNONYMS, sample_lexicon
from tools.pocket.world import sample_scene

_CORPUS_ITEMS = 20_000
_WORD_SHARES: Mapping[str, float] = {"shape": 0.2, "color": 0.2, "presence": 0.6}
_FILLER = (
    "Answer the question about the image. Answer with one word. Use a single word or phrase. "
    "label? ? a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9"
)


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """How much of everything; the defaults made the bundled checkpoint.

    Attributes:
        seed: Of all that is random.
        pool_images: Rendered for training.
        held_out_images: Rendered for validation and for the report.
        vision_steps: Steps of `vision_images` images each.
        word_steps: At most this many steps of `single_rows` single items without negation.
        single_steps: At most this many steps of `single_rows` single items of all kinds.
        verdict_goal: Accuracy of yes/no questions at which these two stages end early.
        episode_steps: Steps of about `episode_tokens` tokens each.
        wording_steps: The same size of steps, on episodes that show how values are called.
        report_items: Questions and episodes that the finished model is measured on.
    """

    seed: int = 7
    pool_images: int = 40_000
    held_out_images: int = 3_000
    vision_steps: int = 3_000
    vision_images: int = 192
    word_steps: int = 1_000
    single_steps: int = 1_000
    single_rows: int = 256
    verdict_goal: float = 0.88
    episode_steps: int = 900
    wording_steps: int = 120
    episode_tokens: int = 7_000
    report_items: int = 400

    def scaled(self, share: float) -> "BuildPlan":
        """The same plan with this share of all images and steps."""
        return replace(
            self,
            **{
                name: max(100 if name.endswith("images") else 1, round(share * getattr(self, name)))
                for name in (
                    "pool_images", "held_out_images", "vision_steps", "word_steps",
                    "single_steps", "episode_steps", "wording_steps", "report_items",
                )
            },
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class World:
    """The pools of a build."""

    training: ScenePool
    held_out: ScenePool


@dataclass(frozen=True, eq=False)
class PocketParts:
    """A pocket LVLM in memory."""

    model: Idefics3ForConditionalGeneration
    processor: Idefics3Processor
    tokenizer: PreTrainedTokenizerFast


OnProgress = Callable[[StageProgress], None]


def build_pocket(plan: BuildPlan, *, folder: Path, on_progress: OnProgress) -> PocketParts:
    """Trains the pocket LVLM, resuming from whatever an earlier call left in the folder.

    Args:
        plan: How much of everything.
        folder: Working files: one checkpoint a stage.
        on_progress: Called every few steps and after each validation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = render_world(plan, on_progress)
    parts = untrained_pocket(plan)
    _learn_to_see(plan, parts, world, folder=folder, on_progress=on_progress)
    vision_tower = parts.model.model.vision_model.requires_grad_(requires_grad=False).train(
        mode=False
    )
    features = patch_features(vision_tower, world.training)
    held_out = patch_features(vision_tower, world.held_out)
    _learn_to_read(
        plan, parts, world, features=(features, held_out), folder=folder, on_progress=on_progress
    )
    parts.model.train(mode=False)
    return parts


def render_world(plan: BuildPlan, on_progress: OnProgress) -> World:
    """The pools of this plan."""

    def report(name: str) -> Callable[[int, int], None]:
        return lambda done, wanted: on_progress(
            StageProgress(stage=name, step=done, num_steps=wanted, loss=0.0, seconds=0.0)
        )

    return World(
        training=render_pool(plan.pool_images, seed=plan.seed, on_progress=report("render")),
        held_out=render_pool(plan.held_out_images, seed=plan.seed + 1),
    )


def untrained_pocket(plan: BuildPlan) -> PocketParts:
    """Tokenizer, processor and random weights, all from the plan's seed."""
    tokenizer = train_tokenizer(_corpus(np.random.default_rng(plan.seed + 2)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = make_model(tokenizer)
    return PocketParts(model, make_processor(tokenizer), tokenizer)


def _corpus(rng: np.random.Generator) -> Iterator[str]:
    for _ in range(_CORPUS_ITEMS):
        scene, lexicon = sample_scene(rng), sample_lexicon(rng, CORPUS_USAGE)
        question = sample_question(scene, rng)
        yield question.text
        yield lexicon.answer(question.value)
    # Every word as a token of its own, alone and inside a sentence.
    words = [word for values in SYNONYMS.values() for word in values]
    words += [word for language in LANGUAGES.values() for word in language.values()]
    for word in [*words, *SYNONYMS, *LABELS]:
        for _ in range(60):
            yield word
            yield f"what is {word}?"
    yield _FILLER


def _learn_to_see(
    plan: BuildPlan, parts: PocketParts, world: World, *, folder: Path, on_progress: OnProgress
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed + 3)
        heads = heads_for(parts.model)
    size = len(world.training)
    run_stage(
        Stage(
            name="vision",
            num_steps=plan.vision_steps,
            learning_rate=2e-3,
            loss=lambda rng: attribute_loss(
                parts.model,
                heads,
                world.training,
                rows=rng.integers(size, size=plan.vision_images),
            ),
            validate=lambda: attribute_accuracy(parts.model, heads, world.held_out),
        ),
        nn.ModuleList([parts.model.model.vision_model, heads]),
        folder=folder,
        seed=plan.seed,
        on_progress=on_progress,
    )


def _learn_to_read(
    plan: BuildPlan,
    parts: PocketParts,
    world: World,
    *,
    features: tuple[Tensor, Tensor],
    folder: Path,
    on_progress: OnProgress,
) -> None:
    writer = Writer(parts.tokenizer)
    scenes = world.training.scenes

    def loss_of(rows: list[list[Item]]) -> Tensor:
        return answer_logits(parts.model, features[0], writer.write(rows)).loss()

    def single_scores() -> Mapping[str, float]:
        return scores_of_singles(parts.model, writer, world.held_out, features=features[1])

    def in_context_scores() -> Mapping[str, float]:
        return scores_of_episodes(parts.model, writer, world.held_out, features=features[1])

    def decides(*kinds: str) -> Callable[[Mapping[str, float]], bool]:
        return lambda scores: min(scores[kind] for kind in kinds) >= plan.verdict_goal

    stages = (
        # Negation turns every answer round: met at once, it hides the comparison to be learnt.
        Stage(
            name="words",
            num_steps=plan.word_steps,
            learning_rate=2e-3,
            loss=lambda rng: loss_of(
                single_items(scenes, rng, count=plan.single_rows, shares=_WORD_SHARES)
            ),
            validate=single_scores,
            is_done=decides("presence"),
            validate_every=100,
        ),
        Stage(
            name="singles",
            num_steps=plan.single_steps,
            learning_rate=2e-3,
            loss=lambda rng: loss_of(single_items(scenes, rng, count=plan.single_rows)),
            validate=single_scores,
            is_done=decides("presence", "absence"),
            validate_every=100,
        ),
        Stage(
            name="episodes",
            num_steps=plan.episode_steps,
            learning_rate=1.5e-3,
            loss=lambda rng: loss_of(episodes(scenes, rng, token_budget=plan.episode_tokens)),
            validate=in_context_scores,
            validate_every=100,
        ),
        # The last stretch dwells on what demonstrations are needed for most: how things are called.
        Stage(
            name="wording",
            num_steps=plan.wording_steps,
            learning_rate=1e-3,
            loss=lambda rng: loss_of(
                episodes(
                    scenes,
                    rng,
                    token_budget=plan.episode_tokens,
                    kinds=WORDING_EPISODES,
                    shares=WORDING_SHARES,
                )
            ),
            validate=in_context_scores,
            validate_every=100,
        ),
    )
    for stage in stages:
        run_stage(stage, parts.model, folder=folder, seed=plan.seed, on_progress=on_progress)

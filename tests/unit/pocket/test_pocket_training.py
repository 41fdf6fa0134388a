from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from app.core.errors import CorruptDataError
from app.core.pictures import Picture
from app.method.backbone.loading import backbone_from_parts
from app.method.backbone.prompts import build_prompt, encode_prompts
from tools.pocket.building import BuildPlan, PocketParts, build_pocket, untrained_pocket
from tools.pocket.curriculum import EPISODES, Writer, episode, episodes, single_items
from tools.pocket.pool import patch_features, render_pool
from tools.pocket.reading import answer_logits
from tools.pocket.report import wordings, write_checkpoint
from tools.pocket.stages import Stage, StageProgress, run_stage

PLAN = BuildPlan(
    pool_images=100,
    held_out_images=100,
    vision_steps=2,
    vision_images=8,
    word_steps=2,
    single_steps=1,
    single_rows=8,
    episode_steps=1,
    wording_steps=1,
    episode_tokens=400,
    report_items=2,
)


@pytest.fixture(scope="module")
def parts() -> PocketParts:
    return untrained_pocket(PLAN)


def test_the_writer_writes_what_the_processor_would(parts: PocketParts) -> None:
    backbone = backbone_from_parts(parts.model, parts.processor, name="pocket")
    pool = render_pool(3, seed=0)
    rows = [single_items(pool.scenes, np.random.default_rng(seed), count=1)[0] for seed in (0, 1)]
    for (item,) in rows:
        written = Writer(parts.tokenizer).write([[item]])
        assert item.image is not None
        pixels = pool.pixels[item.image].permute(1, 2, 0).contiguous().numpy()
        prompt = build_prompt(backbone, item.question, Picture.of(Image.fromarray(pixels)))
        encoded = encode_prompts(backbone, [prompt], answers=[item.answer])
        assert written.token_ids[0] == encoded.inputs["input_ids"][0].tolist()
        assert written.token_ids[0][slice(*written.answers[0][0])] == list(encoded.answer_ids[0])


def test_cached_features_give_the_logits_of_the_pixels(parts: PocketParts) -> None:
    backbone = backbone_from_parts(parts.model, parts.processor, name="pocket")
    pool = render_pool(4, seed=0)
    features = patch_features(parts.model.model.vision_model, pool)
    (row,) = single_items(pool.scenes, np.random.default_rng(3), count=1)
    with torch.no_grad():
        ours = answer_logits(parts.model, features, Writer(parts.tokenizer).write([row])).logits
        image = row[0].image
        assert image is not None
        pixels = pool.pixels[image].permute(1, 2, 0).contiguous().numpy()
        prompt = build_prompt(backbone, row[0].question, Picture.of(Image.fromarray(pixels)))
        encoded = encode_prompts(backbone, [prompt], answers=[row[0].answer])
        theirs = parts.model(**encoded.inputs).logits[encoded.predicts_answer]
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("kind", EPISODES)
def test_an_episode_is_consistent_about_what_it_says(kind: str) -> None:
    pool = render_pool(100, seed=1)
    items = episode(pool.scenes, np.random.default_rng(0), kind=kind, length=17)
    assert len(items) == 17
    if kind == "copying":
        said: dict[str, str] = {}
        for item in items:
            assert said.setdefault(item.question, item.answer) == item.answer
    if kind == "rules":
        assert {item.question for item in items} == {"?"}


def test_episodes_keep_to_their_budget_and_have_one_length() -> None:
    pool = render_pool(100, seed=1)
    rows = episodes(pool.scenes, np.random.default_rng(0), token_budget=3000)
    assert len({len(row) for row in rows}) == 1
    assert 1000 < 20 * len(rows) * len(rows[0]) <= 3000


def stage(module: nn.Linear, **changes: object) -> Stage:
    def loss(rng: np.random.Generator) -> torch.Tensor:
        values = torch.from_numpy(rng.normal(size=(4, 3))).float()
        missed: torch.Tensor = module(values) - values.sum(1, keepdim=True)
        return missed.pow(2).mean()

    def validate() -> Mapping[str, float]:
        return {"weight": float(module.weight.detach().sum())}

    options: dict[str, object] = {
        "name": "toy", "num_steps": 60, "learning_rate": 0.05, "loss": loss, "validate": validate,
        "checkpoint_every": 10, "validate_every": 30, **changes,
    }  # fmt: skip
    return Stage(**options)  # type: ignore[arg-type]


def linear() -> nn.Linear:
    module = nn.Linear(3, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


class StoppedError(Exception):
    pass


def test_a_killed_stage_resumes_to_the_very_same_weights(tmp_path: Path) -> None:
    whole, parted = linear(), linear()
    (tmp_path / "a").mkdir()
    run_stage(stage(whole), whole, folder=tmp_path / "a", seed=0, on_progress=lambda _: None)

    def stop(progress: StageProgress) -> None:
        if progress.step == 40:
            raise StoppedError

    (tmp_path / "b").mkdir()
    with pytest.raises(StoppedError):
        run_stage(stage(parted), parted, folder=tmp_path / "b", seed=0, on_progress=stop)
    resumed = linear()
    scores = run_stage(
        stage(resumed), resumed, folder=tmp_path / "b", seed=0, on_progress=lambda _: None
    )
    assert torch.equal(whole.weight, resumed.weight)
    assert scores["weight"] == pytest.approx(float(whole.weight.detach().sum()))


def test_a_stage_ends_when_its_goal_is_reached(tmp_path: Path) -> None:
    module, steps = linear(), list[int]()
    goal = stage(module, is_done=lambda scores: scores["weight"] > -100.0)
    run_stage(
        goal, module, folder=tmp_path, seed=0, on_progress=lambda report: steps.append(report.step)
    )
    assert steps[-1] == 30


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run_stage(
        stage(module := linear(), num_steps=30),
        module, folder=tmp_path, seed=0, on_progress=lambda _: None,
    )  # fmt: skip
    other = nn.Sequential(nn.Linear(3, 1))
    with pytest.raises(CorruptDataError, match="of another model"):
        run_stage(stage(linear()), other, folder=tmp_path, seed=0, on_progress=lambda _: None)


def test_a_build_goes_through_all_stages_and_writes_a_loadable_checkpoint(tmp_path: Path) -> None:
    seen: list[str] = []
    parts = build_pocket(
        PLAN, folder=tmp_path / "work", on_progress=lambda report: seen.append(report.stage)
    )
    assert list(dict.fromkeys(seen)) == ["vision", "words", "singles", "episodes", "wording"]
    abilities = write_checkpoint(parts, PLAN, tmp_path / "out")
    assert abilities["parameters"] < 4_000_000
    assert set(abilities["in_context"]) == {
        f"{kind}@{shots}" for kind in ("questions", "rules", "labels")
        for shots in (0, 1, 2, 4, 8, 16)
    }  # fmt: skip
    assert "Measured" in (tmp_path / "out" / "README.md").read_text()


def test_wordings_hold_every_convention() -> None:
    assert {"yes", "true", "right", "oui", "ja"} <= wordings("yes")
    assert {"teal", "turquoise", "cyan", "petrol"} <= wordings("teal")

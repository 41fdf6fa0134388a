import torch

from app.method.backbone.embedding import embed
from app.method.backbone.features import FeatureCache
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train
from app.method.training.plan import make_plan
from benchmarks.figures.naive_training import naive_vectors
from tests.fakes.models.backbones import tiny_backbone, tiny_examples


def test_the_published_loop_and_ours_end_with_the_same_vectors() -> None:
    backbone = tiny_backbone()
    examples = tiny_examples(12)
    config = TrainingConfig(
        shots=2, num_queries=4, max_steps=3, trial_steps=0, held_out_fraction=0.0, keep="last",
        mimicry_of="all",
    )  # fmt: skip
    ours = train(backbone, examples, config).vectors.shift()
    images = [example.image for example in examples]
    questions = [example.question for example in examples]
    rows = embed(FeatureCache(backbone), images, questions)
    steps: list[int] = []
    plan = make_plan(examples, rows, config)
    theirs = naive_vectors(backbone, plan, config, on_step=steps.append).shift()
    assert steps == [1, 2, 3]
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)
    other = config.changed(mimicry_weight=0.0)
    assert (ours - naive_vectors(backbone, plan, other).shift()).abs().max() > 2e-4

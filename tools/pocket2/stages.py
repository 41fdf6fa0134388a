"""A stage of training that can be stopped at any time and goes on from its checkpoint.

Knows optimisers and files; knows nothing of what is learnt. Every step draws from its own
generator, so a checkpoint needs no random state.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tools.pocket2.muon import Muon

_CLIP: Final = 1.0
_WARM_UP_STEPS: Final = 100
_FLOOR: Final = 0.03
_MATRIX: Final = 2


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage does.

    Attributes:
        name: Of its files.
        num_steps: The length of the schedule.
        matrix_rate: Peak learning rate of hidden matrices, which Muon steps.
        other_rate: Peak learning rate of everything else, which AdamW steps.
        by_adam: Parameters that AdamW steps though they are matrices: embeddings, read-outs.
        draw: What a step learns from, out of its number and its own generator; runs in loaders.
        loss: Losses by name from what was drawn; `loss` is minimised.
        validate: Scores by name.
        validate_every: Steps between two validations.
        checkpoint_every: Steps between two checkpoints.
        cooled_after: Share of the steps at full rate; then it falls linearly.
    """

    name: str
    num_steps: int
    matrix_rate: float
    other_rate: float
    by_adam: frozenset[str]
    draw: Callable[[int, np.random.Generator], Any]
    loss: Callable[[Any], Mapping[str, Tensor]]
    validate: Callable[[], Mapping[str, float]]
    validate_every: int = 500
    checkpoint_every: int = 100
    cooled_after: float = 0.6


class _Draws(Dataset[Any]):
    """What each step learns from, by its number."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage, self._seed = stage, seed

    def __getitem__(self, step: int) -> Any:  # noqa: ANN401 - each stage draws its own
        return self._stage.draw(step, np.random.default_rng([self._seed, step]))


def run_stage(
    stage: Stage, trained: nn.Module, *, folder: Path, seed: int, loaders: int = 0
) -> None:
    """Runs the stage's remaining steps; what it measured stands in `NAME.jsonl` in the folder.

    Args:
        stage: What is learnt.
        trained: What learns it.
        folder: Of checkpoint and log.
        seed: Of every step's generator, together with its number.
        loaders: Processes that draw ahead of the steps; 0 draws between them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / f"{stage.name}.safetensors", folder / f"{stage.name}.jsonl"
    optimizers = _optimizers(stage, trained)
    first = _restore(checkpoint, trained, optimizers)
    sums: dict[str, Tensor] = {}
    started, counted = time.monotonic(), 0
    steps = range(first, stage.num_steps)
    drawn = DataLoader(
        _Draws(stage, seed),
        batch_size=None,
        sampler=steps,
        num_workers=loaders,
        collate_fn=lambda one: one,
    )
    for step, material in zip(steps, drawn, strict=True):
        _set_rates(stage, optimizers, step)
        losses = stage.loss(material)
        torch.autograd.backward(losses["loss"])
        nn.utils.clip_grad_norm_(trained.parameters(), _CLIP)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        counted += 1
        done = step + 1
        if done % stage.checkpoint_every == 0 or done == stage.num_steps:
            _save(checkpoint, trained, optimizers, step=done)
            entry: dict[str, Any] = {"step": done, "seconds": round(time.monotonic() - started, 1)}
            entry |= {name: round(float(value) / counted, 4) for name, value in sums.items()}
            if done % stage.validate_every == 0 or done == stage.num_steps:
                trained.train(mode=False)
                entry["scores"] = {
                    name: round(value, 4) for name, value in stage.validate().items()
                }
                trained.train()
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            print(stage.name, json.dumps(entry), flush=True)
            sums, counted, started = {}, 0, time.monotonic()


def _optimizers(stage: Stage, trained: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in trained.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim == _MATRIX and name not in stage.by_adam
        (matrices if is_matrix else others).append(parameter)
    return (
        Muon(matrices, lr=stage.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=stage.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _set_rates(stage: Stage, optimizers: tuple[torch.optim.Optimizer, ...], step: int) -> None:
    share = step / stage.num_steps
    left = 1.0 if share < stage.cooled_after else (1 - share) / (1 - stage.cooled_after)
    factor = min(1.0, (step + 1) / _WARM_UP_STEPS) * max(_FLOOR, left)
    for optimizer, peak in zip(optimizers, (stage.matrix_rate, stage.other_rate), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * factor


def _save(
    path: Path, trained: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...], *, step: int
) -> None:
    tensors = {f"model.{name}": value.contiguous() for name, value in trained.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer.{number}.{index}.{key}"] = torch.as_tensor(value)
    fresh = path.with_suffix(".new")
    save_file(tensors, fresh, metadata={"step": str(step)})
    fresh.replace(path)


def _restore(path: Path, trained: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...]) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    trained.load_state_dict(
        {
            name.removeprefix("model."): value
            for name, value in tensors.items()
            if name.startswith("model.")
        }
    )
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        prefix = f"optimizer.{number}."
        for name, value in tensors.items():
            if name.startswith(prefix):
                index, key = name.removeprefix(prefix).split(".")
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["step"])

"""A stage of training that can be killed at any time: same steps, same result, from a checkpoint.

Knows optimisers and files; knows nothing of what is learnt. Every step draws from its own
generator, so a checkpoint needs no random state.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from app.core.errors import CorruptDataError

_CLIP: Final = 1.0
_BETAS: Final = (0.9, 0.98)
_WEIGHT_DECAY: Final = 0.02
_WARM_UP_STEPS: Final = 100
_FLOOR: Final = 0.05
# Tied to the embeddings, which are kept anyway.
_SHARED: Final = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage does.

    Attributes:
        name: Of its checkpoint file and in reports.
        num_steps: At most this many steps.
        learning_rate: Peak, reached after the warm-up and left on a cosine.
        loss: The loss of one step from the step's own generator.
        validate: Scores by name, asked every `validate_every` steps.
        is_done: Whether these scores end the stage early.
    """

    name: str
    num_steps: int
    learning_rate: float
    loss: Callable[[np.random.Generator], Tensor]
    validate: Callable[[], Mapping[str, float]]
    is_done: Callable[[Mapping[str, float]], bool] = lambda _: False
    validate_every: int = 200
    checkpoint_every: int = 100


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """Where a stage stands: `loss` is the mean since the last report."""

    stage: str
    step: int
    num_steps: int
    loss: float
    seconds: float
    scores: Mapping[str, float] | None = None


def run_stage(
    stage: Stage,
    module: nn.Module,
    *,
    folder: Path,
    seed: int,
    on_progress: Callable[[StageProgress], None],
) -> Mapping[str, float]:
    """Trains the module's trainable parameters through the stage, resuming where it was left.

    Args:
        stage: What to do.
        module: Whose parameters that require a gradient are trained, in place.
        folder: Where the checkpoint lives.
        seed: Of every step's generator, together with stage and step.
        on_progress: Called every 20 steps and after each validation.

    Returns:
        The scores of the last validation.
    """
    optimiser = torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=stage.learning_rate,
        betas=_BETAS,
        weight_decay=_WEIGHT_DECAY,
    )
    path = folder / f"{stage.name}.safetensors"
    step, scores, seconds = _load(path, module, optimiser)
    started, losses = time.monotonic() - seconds, list[float]()
    tag = int.from_bytes(stage.name.encode()[:4], "big")
    while step < stage.num_steps and not (scores and stage.is_done(scores)):
        rng = np.random.default_rng([seed, tag, step])
        losses.append(_step(stage, module, optimiser, step=step, rng=rng))
        step += 1
        if step % stage.validate_every == 0 or step == stage.num_steps:
            scores = dict(stage.validate())
        elif step % 20:
            continue
        is_validated = step % stage.validate_every == 0 or step == stage.num_steps
        on_progress(
            StageProgress(
                stage=stage.name,
                step=step,
                num_steps=stage.num_steps,
                loss=float(np.mean(losses)),
                seconds=time.monotonic() - started,
                scores=scores if is_validated else None,
            )
        )
        losses.clear()
        if step % stage.checkpoint_every == 0 or is_validated:
            state = (step, scores, time.monotonic() - started)
            _save(path, module, optimiser, state=state)
    return scores


def _step(
    stage: Stage,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    step: int,
    rng: np.random.Generator,
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = stage.learning_rate * _schedule(step, stage.num_steps)
    loss = stage.loss(rng)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
    optimiser.step()
    return float(loss.detach())


def _schedule(step: int, num_steps: int) -> float:
    if step < _WARM_UP_STEPS:
        return (step + 1) / _WARM_UP_STEPS
    done = (step - _WARM_UP_STEPS) / max(1, num_steps - _WARM_UP_STEPS)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def _save(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    state: tuple[int, Mapping[str, float], float],
) -> None:
    tensors = {f"module.{name}": value.contiguous() for name, value in _own_state(module).items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
    step, scores, seconds = state
    metadata = {"step": str(step), "scores": json.dumps(dict(scores)), "seconds": str(seconds)}
    draft = path.with_suffix(".tmp")
    save_file({name: value.clone() for name, value in tensors.items()}, draft, metadata)
    draft.replace(path)


def _load(
    path: Path, module: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, Mapping[str, float], float]:
    if not path.exists():
        return 0, {}, 0.0
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    own = {name.removeprefix("module."): value for name, value in tensors.items()
           if name.startswith("module.")}  # fmt: skip
    missing, unexpected = module.load_state_dict(own, strict=False)
    if unexpected or not all(name.endswith(_SHARED) for name in missing):
        raise CorruptDataError(
            f"The checkpoint {path} is of another model: lacks {missing}, has also {unexpected}"
        )
    optimiser_state = optimiser.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            optimiser_state["state"].setdefault(int(index), {})[key] = value
    optimiser.load_state_dict(optimiser_state)
    return int(metadata["step"]), json.loads(metadata["scores"]), float(metadata["seconds"])


def _own_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors, a shared one once (safetensors refuses to write it twice)."""
    return {name: value for name, value in module.state_dict().items()
            if not name.endswith(_SHARED)}  # fmt: skip

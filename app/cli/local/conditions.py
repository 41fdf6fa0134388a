"""Conditions of `vlibrary evaluate`: which are measured, and how each asks its items."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import typer

from app.core.jobs import BALANCED_SHOTS, Method

EPISODIC: Final[tuple[Method, ...]] = ("zero_shot", "icl", "m2iv")
"""Where demonstrations come with every question."""
CONDITIONS: Final[tuple[Method, ...]] = (
    "zero_shot", "icl", "icl_balanced", "knn_icl", "nearest_copy", "m2iv"
)  # fmt: skip
MOST_SHOTS: Final = 64


def spelled(names: Iterable[Method]) -> str:
    """As the command writes and reads them."""
    return ", ".join(names).replace("_", "-")


def read_shots(text: str | None, *, usual: int) -> int:
    """How many demonstrations are wanted.

    Raises:
        BadParameter: It is no such number.
    """
    found = text or str(usual)
    if not found.isdecimal() or not 1 <= int(found) <= MOST_SHOTS:
        raise typer.BadParameter(
            f"wanted a whole number from 1 to {MOST_SHOTS}, found {found}", param_hint="--shots"
        )
    return int(found)


def read_conditions(
    conditions: list[str] | None, usual: tuple[Method, ...], *, has_vector: bool
) -> tuple[Method, ...]:
    """What is measured: all that is usual, where nothing is named.

    Raises:
        BadParameter: One is unknown, or M2IV comes without a vector or the other way round.
    """
    if not conditions:
        return usual if has_vector else usual[:-1]
    known = {spelled([name]): name for name in usual}
    if unknown := sorted(set(conditions) - set(known)):
        raise typer.BadParameter(
            f"wanted {spelled(usual)}, found {', '.join(unknown)}", param_hint="--condition"
        )
    names = tuple(known[text] for text in conditions)
    if "m2iv" in names and not has_vector:
        raise typer.BadParameter("m2iv wants --vector", param_hint="--condition")
    if has_vector and "m2iv" not in names:
        raise typer.BadParameter("--vector is for m2iv", param_hint="--condition")
    return names


# Types of torch stay out of this module's imports.
def unsteered(name: Any, pool: Any, *, shots: int, seed: int, is_episodic: bool) -> Any:  # noqa: ANN401
    """The condition that asks without a vector, with demonstrations out of the pool."""
    from app.method.evaluation.conditions import fixed_contexts, in_context, zero_shot

    if name == "zero_shot":
        return zero_shot()
    if name == "icl" and is_episodic:
        return fixed_contexts(pool, shots=shots)
    most = {"icl_balanced": BALANCED_SHOTS, "nearest_copy": 1}.get(name, MOST_SHOTS)
    return in_context(name, pool, shots=min(most, shots), seed=seed)


def steered_by(path: Path, backbone: Any, *, strength: float) -> Any:  # noqa: ANN401
    """The condition that steers with the vector of a file, or of an export's folder.

    Raises:
        InvalidVectorFileError: It is none.
        IncompatibleBackboneError: It was made for another backbone.
    """
    from app.core.backbones import require_same_backbone
    from app.core.vectors.file import decode_vector_file
    from app.method.evaluation.conditions import steered
    from app.method.steering.vectors import InContextVectors
    from vlibrary_client.sharing.folders import FILE_NAME

    wanted = backbone.description
    content = (path / FILE_NAME if path.is_dir() else path).read_bytes()
    tensors, metadata = decode_vector_file(
        content, num_layers=wanted.num_layers, hidden_size=wanted.hidden_size
    )
    require_same_backbone(wanted=wanted.fingerprint, found=metadata["backbone"])
    labels = int(metadata["labels"]) if metadata.get("labels", "").isdecimal() else None
    vectors = InContextVectors.from_tensors(tensors)
    return steered(vectors, strength=strength, num_labels=labels)

"""Vectors as control-vector files of llama.cpp, measured beside the vectors themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.cli.local.datasets import load_local

if TYPE_CHECKING:
    from vlibrary_client import Client

SUFFIX: Final = ".gguf"
WORD: Final = "gguf"
_TOKEN_BUDGET: Final = 4096


def file_of(ref: str, to: str) -> Path:
    """Where the file of `NAME@VERSION` goes: here for the word `gguf`, else the given file."""
    return Path(f"{ref}{SUFFIX}") if to == WORD else Path(to)


def export_gguf(
    client: "Client",
    ref: str,
    *,
    to: str,
    dataset: str | None,
    items: int,
    backbone: str | None,
) -> dict[str, Any]:
    """Writes the file; gives its path, its shares of loss and what was measured, as JSON values.

    Without a data set nothing is measured; what answers is the backbone that the vector names, if
    no other is given.
    """
    from vlibrary_client.calls.arguments import require_name

    vector = client.vectors.get(ref)
    # It becomes that of a file.
    require_name(vector.name)
    exported = client.vectors.export_gguf(vector, file_of(vector.ref, to))
    facts: dict[str, Any] = {
        "ref": ref,
        "file": str(exported.path),
        "late_share": exported.late_share,
        "unseen_share": exported.unseen_share,
        "error": None,
    }
    if dataset is not None:
        content = client.vectors.download(vector)
        facts["measured"] = measure_loss(
            content,
            dataset=dataset,
            items=items,
            backbone=backbone or vector.backbone.name,
            fingerprint=vector.backbone.fingerprint,
        )
    return facts


def measure_loss(
    content: bytes, *, dataset: str, items: int, backbone: str, fingerprint: str
) -> dict[str, Any]:
    """How the same items are answered with the vector, as the file does, and with neither.

    Raises:
        IncompatibleBackboneError: It is another backbone.
        InvalidDatasetError: It is no data set.
    """
    import torch

    from app.core.backbones import require_same_backbone
    from app.method.backbone.examples import Episode
    from app.method.backbone.features import FeatureCache
    from app.method.backbone.loading import load_backbone
    from app.method.steps import finish
    from app.method.training.answers import answer_episodes
    from vlibrary_client.sharing.folders import read_shift
    from vlibrary_client.sharing.gguf import as_carried

    loaded = load_backbone(backbone)
    require_same_backbone(wanted=fingerprint, found=loaded.description.fingerprint)
    examples = load_local(dataset, split=None, limit=items, seed=0, columns={})
    episodes = [Episode(query=example, context=()) for example in examples]
    features = FeatureCache(loaded)
    shift = read_shift(content)
    shifts = {"vector": shift, "file": as_carried(shift), "none": None}
    answers = {
        name: finish(
            answer_episodes(
                features,
                episodes,
                token_budget=_TOKEN_BUDGET,
                shifts=None if one is None else torch.from_numpy(one).to(loaded.device)[None],
            )
        )
        for name, one in shifts.items()
    }
    return {
        "items": len(episodes),
        "accuracy": {
            name: sum(answer.is_right for answer in found) / len(found)
            for name, found in answers.items()
        },
        "loss": {
            name: sum(answer.loss for answer in found) / len(found)
            for name, found in answers.items()
        },
    }


def print_loss(facts: Mapping[str, Any]) -> None:
    """What a file loses, for people."""
    from app.cli.library.server import percent
    from vlibrary_client.sharing.gguf import NOTE

    print(facts["file"])
    print(f"  {NOTE}")
    print(
        f"  {percent(facts['late_share'])} of the squared length of its shifts act one layer late, "
        f"{percent(facts['unseen_share'])} are not seen by the MLP of their layer"
    )
    if (measured := facts.get("measured")) is None:
        print("  What that does to answers is not measured: --measure DATASET does")
        return
    accuracy, loss = measured["accuracy"], measured["loss"]
    shown = ", ".join(
        f"{words} {percent(accuracy[name])} (loss {loss[name]:.3f})"
        for name, words in (("vector", "the vector"), ("file", "the file"), ("none", "neither"))
    )
    print(f"  right answers on {measured['items']} items: {shown}")

"""Vector files and folders for tiny models, and what the models say, as `apply` is tested with."""

import hashlib
import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from app.core.vectors.file import encode_vector_file
from tests.fakes.models.families import tiny_inputs
from tests.fakes.vectors import make_tensors
from vlibrary_client.sharing.folders import CONFIG_NAME, FILE_NAME


def file_for(model: PreTrainedModel, *, seed: int = 0) -> bytes:
    config = model.config.get_text_config()
    tensors = make_tensors(
        seed, num_layers=config.num_hidden_layers, hidden_size=config.hidden_size
    )
    return encode_vector_file(tensors, metadata={"method": "m2iv", "backbone": "a" * 64})


def folder_for(model: PreTrainedModel, folder: Path, **config: object) -> Path:
    content = file_for(model)
    (folder / FILE_NAME).write_bytes(content)
    facts = {
        "format_version": 1,
        "name": "gears",
        "sha256": hashlib.sha256(content).hexdigest(),
        "backbone": {"architecture": type(model).__name__},
    }
    (folder / CONFIG_NAME).write_text(json.dumps({**facts, **config}))
    return folder


def logits(model: PreTrainedModel, family: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**tiny_inputs(family)).logits
    return found


def text_inputs(model: PreTrainedModel, family: str) -> dict[str, torch.Tensor]:
    """The same prompt with words in place of its picture."""
    text = {
        name: part
        for name, part in tiny_inputs(family).items()
        if name in {"input_ids", "attention_mask"}
    }
    image_id = int(getattr(model.config, "image_token_id", -1))
    text["input_ids"] = text["input_ids"].masked_fill(text["input_ids"].eq(image_id), 5)
    return text

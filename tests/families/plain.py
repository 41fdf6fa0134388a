"""What transformers alone answers: the processor's own prompt and `generate()`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers as hf
from PIL import Image

from app.method.backbone.chat import PLAIN_TEMPLATE
from app.method.backbone.checkpoint.processors import load_processor

MAX_TOKENS: Final = 8


class Plain:
    """A checkpoint's model and processor as transformers loads them."""

    def __init__(self, folder: Path) -> None:
        config: Any = hf.AutoConfig.from_pretrained(folder)
        load: Any = hf.AutoModelForImageTextToText.from_pretrained
        kind = config.get_text_config().model_type
        attention = "eager" if kind.startswith("gemma2") else "sdpa"
        self.model = load(folder, dtype=torch.float32, attn_implementation=attention).eval()
        self.processor: Any = load_processor(str(folder), config)
        self.has_template = self.processor.chat_template is not None

    def prompt(
        self,
        question: str,
        images: Sequence[Image.Image],
        shots: Sequence[tuple[Image.Image, str, str]] = (),
    ) -> dict[str, Any]:
        """The processor's own inputs for a question after solved examples."""
        messages = []
        for picture, asked, answer in shots:
            messages += [user(asked, [picture]), model(answer)]
        messages.append(user(question, images))
        options = {}
        if not self.has_template:
            token = getattr(self.processor, "image_token", "<image>")
            options = {"chat_template": PLAIN_TEMPLATE, "image_token": token}
        text = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **options
        )
        pictures = [*(picture for picture, _, _ in shots), *images]
        return dict(self._read(text, pictures))

    def _read(self, text: str, pictures: Sequence[Image.Image]) -> Any:  # noqa: ANN401
        if isinstance(self.processor, hf.IdeficsProcessor):
            return self.processor(text=interleaved(text, pictures), return_tensors="pt")
        bos = self.processor.tokenizer.bos_token
        return self.processor(
            text=[text],
            images=[list(pictures)] if pictures else None,
            add_special_tokens=not (bos and text.startswith(bos)),
            return_tensors="pt",
        )

    def answer(self, inputs: dict[str, Any], *, max_tokens: int = MAX_TOKENS) -> list[int]:
        """The ids that `generate` writes, without those that end the answer."""
        inputs.pop("labels", None)
        ends = self.model.generation_config.eos_token_id
        with torch.no_grad():
            whole = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        written = whole[0, inputs["input_ids"].shape[1] :].tolist()
        return [one for one in written if one not in ([ends] if isinstance(ends, int) else ends)]


def user(text: str, images: Sequence[Image.Image]) -> dict[str, Any]:
    """A turn of the user."""
    return {
        "role": "user",
        "content": [*({"type": "image"} for _ in images), {"type": "text", "text": text}],
    }


def model(text: str) -> dict[str, Any]:
    """A turn of the model."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def interleaved(text: str, pictures: Sequence[Image.Image]) -> list[str | Image.Image]:
    """Texts and pictures in turn, as the first Idefics takes them."""
    parts: list[str | Image.Image] = []
    texts = text.split("<image>")
    for place, piece in enumerate(texts):
        parts += [piece] if piece else []
        parts += [pictures[place]] if place < len(pictures) else []
    return parts

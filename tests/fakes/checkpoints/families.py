"""Every family of which there is a checkpoint, by the name that people know it by."""

from collections.abc import Callable
from typing import Final

from tests.fakes.checkpoints import gemma, idefics, llava, mistral, qwen
from tests.fakes.checkpoints.parts import Parts

CHECKPOINTS: Final[dict[str, Callable[[], Parts]]] = {
    "qwen2_vl": qwen.qwen2_vl,
    "qwen2_5_vl": qwen.qwen2_5_vl,
    "qwen3_vl": qwen.qwen3_vl,
    "qwen3_vl_moe": qwen.qwen3_vl_moe,
    "llava": llava.llava,
    "llava_next": llava.llava_next,
    "llava_onevision": llava.llava_onevision,
    "internvl": llava.internvl,
    "idefics": idefics.idefics,
    "idefics2": idefics.idefics2,
    "idefics3": idefics.idefics3,
    "smolvlm": idefics.smolvlm,
    "gemma3": gemma.gemma3,
    "paligemma": gemma.paligemma,
    "paligemma2": gemma.paligemma2,
    "mistral3": mistral.mistral3,
    "pixtral": mistral.pixtral,
    "mllama": mistral.mllama,
}

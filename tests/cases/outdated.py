"""What a later decision has made wrong in scripts about what people bring."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """What a script still wants.

    Attributes:
        lines: Pattern of what it calls WRONG and is right now.
        reason: Why it is right.
    """

    lines: str
    reason: str

    def wants(self, line: str) -> bool:
        return re.search(self.lines, line) is not None


OUTDATED: Final = {
    "01_exif_orientation.py": Outdated(
        lines=r"JPEG tag \d: cosine to the right picture 0\.9[89]",
        reason="JPEG changes the pixels of a drawing, and keys tell more of them than they did; "
        "without loss the turned file and the upright one have equal keys",
    ),
    "08_order_of_parts.py": Outdated(
        lines=r"prompt tokens \{'prompt_tokens': (\d+),.* / \{'prompt_tokens': \1,",
        reason="texts that follow each other are lines of one text, which makes as many tokens as "
        "texts between pictures do here; that the order is kept is checked by the answers",
    ),
    "s5_fields_sent_unasked.py": Outdated(
        lines=r"dimensions 256 \(its own\): 400 .*Embeddings have \d+ dimensions",
        reason="embeddings have another number of dimensions now; what is not theirs is refused",
    ),
    "19_localhost_and_ipv6.py": Outdated(
        lines=r"--host (0\.0\.0\.0|::): did not start: .*key",
        reason="addresses that others reach are refused while keys are off",
    ),
}
# Every process shows its own metrics now; what a worker takes stands at its own address.
_METRICS: Final = 'H.get("/metrics").text'
_WITH_WORKER: Final = f"""({_METRICS} + httpx.get(
        os.environ["VLIB_WORKER_URL"] + "/metrics", trust_env=False,
        headers={{"authorization": "Bearer " + os.environ["VLIB_WORKER_SECRET"]}},
    ).raise_for_status().text.replace("_memory_bytes ", '_memory_bytes{{worker="0"}} '))"""
_MEMORY: Final = (
    f"""    for line in {_METRICS}.splitlines():
        if line.startswith("process_resident""",
    f"""    text = {_METRICS}
    return {{line.split()[0].split("{{")[0]""",
)
# What has moved since; the scripts are run with the names of today.
_NAMES: Final = {
    **{memory: memory.replace(_METRICS, _WITH_WORKER) for memory in _MEMORY},
    "app.method.backbone import load_backbone": "app.method.backbone.loading import load_backbone",
    "app.method.fingerprint import": "app.method.backbone.checkpoint.digests import",
    "vlibrary_client.uploads import": "vlibrary_client.layouts.packing import",
}


def with_names_of_today(script: Path, folder: Path) -> Path:
    """The script, or a copy in the folder that finds things where they are today."""
    written = text = script.read_text()
    for old, new in _NAMES.items():
        written = written.replace(old, new)
    if written == text:
        return script
    copy = folder / script.name
    copy.write_text(written)
    return copy

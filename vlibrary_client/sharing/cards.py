"""The page that tells people what a vector is, how it did, and how it is used.

What others wrote (names, descriptions) is text there and never markup or front matter of its own.
"""

import html
import json
import re
from typing import Any

from vlibrary_client.types import Evaluation, Vector

LIBRARY_NAME = "vlibrary"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def card_text(vector: Vector) -> str:
    """The page in Markdown, with the front matter that the hub reads."""
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in _metadata(vector).items())
    parts = [f"---\n{front}\n---", f"# {_escaped(vector.name)}"]
    if vector.description:
        parts.append(_escaped(vector.description))
    parts += [_facts(vector), _scores(vector), _usage(vector)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(vector: Vector) -> dict[str, Any]:
    """The front matter; values are JSON, which every reader of YAML takes."""
    found: dict[str, Any] = {
        "library_name": LIBRARY_NAME,
        "pipeline_tag": "image-text-to-text",
        "tags": [LIBRARY_NAME, vector.method, *vector.tags],
    }
    # Other names, such as a folder's, are no models of the hub, and it refuses them.
    if _HUB_ID.fullmatch(vector.backbone.name):
        found["base_model"] = vector.backbone.name
    if vector.evaluations:
        results = [_result(measured) for measured in vector.evaluations]
        found["model-index"] = [{"name": vector.name, "results": results}]
    return found


def _result(measured: Evaluation) -> dict[str, Any]:
    return {
        "task": {"type": "visual-question-answering"},
        "dataset": {"name": measured.dataset, "type": measured.dataset, "split": measured.split},
        "metrics": [{"type": "accuracy", "name": measured.scorer, "value": measured.accuracy}],
    }


def _facts(vector: Vector) -> str:
    backbone = vector.backbone
    rows = {
        "backbone": f"{backbone.name} ({backbone.architecture}, {backbone.num_layers} layers)",
        "fingerprint": backbone.fingerprint,
        "method": f"{vector.method}, {vector.shots} demonstrations a context, seed {vector.seed}",
        "held-out items": f"{vector.status}. {vector.advice}",
        "version": f"{vector.version}, stored {vector.created:%Y-%m-%d}",
        "SHA-256": vector.sha256,
    }
    body = "\n".join(f"| {name} | {_escaped(value)} |" for name, value in rows.items())
    return f"A multimodal in-context vector for a frozen backbone.\n\n| | |\n| --- | --- |\n{body}"


def _scores(vector: Vector) -> str:
    if not vector.evaluations:
        return "## Scores\n\nNothing was measured."
    head = "| data | items | accuracy | 95 % interval | zero-shot | ICL | kNN-ICL |"
    rows = "\n".join(map(_score, vector.evaluations))
    return f"## Scores\n\n{head}\n| --- | --- | --- | --- | --- | --- | --- |\n{rows}"


def _score(measured: Evaluation) -> str:
    cells = (
        _escaped(f"{measured.dataset} {measured.split}, {measured.scorer}"),
        str(measured.items),
        _percent(measured.accuracy),
        f"{_percent(measured.low)} to {_percent(measured.high)}",
        *map(_percent, (measured.zero_shot, measured.icl, measured.knn_icl)),
    )
    return f"| {' | '.join(cells)} |"


def _usage(vector: Vector) -> str:
    return f"""## Use

In a library, where a server of the backbone runs:

```python
from vlibrary_client import Client

with Client() as client:
    vector = client.vectors.import_folder(".")
    print(client.steer.generate("What is this?", images=["a.png"], vector=vector).text)
```

In a process with the backbone, without a server:

```python
from vlibrary_client import apply

with apply(model, "."):  # {_escaped(vector.backbone.architecture)}
    model.generate(**inputs)
```"""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _escaped(text: str) -> str:
    """The text on one line, as a reader of Markdown shows it."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))

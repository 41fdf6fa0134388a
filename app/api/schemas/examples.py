"""Requests that can be sent as they are, shown beside the routes that take them."""

from typing import Any, Final

# A blue disc on light ground.
PICTURE: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEX19fAeMtcF9WWTAAAAcklEQVR42s3QsQ3C"
    "MBSE4c/PSKRkBDYhbO4RGCEjuIwQiilMCgsKyvzV6e6e9HQcj3P9iNuGjCWlIkjMvdJaJZiYiP00uHAiuBJjNJNG"
    "p5MpSOU7+kdkzNx/dwptdBY2gsprjFZWgicPgtZ/29cY9jkAb7FqFwcNkzldAAAAAElFTkSuQmCC"
)
QUESTION: Final = "Which part is this?"
BODIES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("post", "/train"): {
        "name": "parts",
        "dataset": "parts",
        "shots": 16,
        "description": "What the workshop calls a part",
    },
    ("post", "/retrieve"): {"image": PICTURE, "text": QUESTION, "k": 3},
    ("post", "/steer/generate"): {
        "prompt": QUESTION,
        "images": [PICTURE],
        "vector": "parts",
        "baseline": True,
    },
    ("post", "/v1/chat/completions"): {
        "model": "pocket:auto",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": QUESTION},
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                ],
            }
        ],
    },
    ("post", "/v1/embeddings"): {"model": "pocket", "input": [QUESTION]},
    ("post", "/keys"): {"name": "web", "scopes": ["read", "steer"], "valid_days": 90},
}


def add_examples(schema: dict[str, Any]) -> None:
    """Puts the examples into an OpenAPI schema."""
    for (method, path), body in BODIES.items():
        content = schema["paths"][path][method]["requestBody"]["content"]
        content["application/json"]["example"] = body

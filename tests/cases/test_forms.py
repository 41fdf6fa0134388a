"""Answers of a form come as they were asked for from the bundled backbone, whole and streamed."""

import json
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.cases

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "found", "schema": SCHEMA}}
CHAT = {
    "model": "pocket",
    "messages": [{"role": "user", "content": "What color is the shape?"}],
    "max_tokens": 200,
    "temperature": 0,
    "response_format": FORMAT,
}


def is_of_schema(text: str) -> bool:
    found = json.loads(text)
    return set(found) == {"colour", "count"} and found["colour"] in {"red", "blue"}


def test_a_chat_is_answered_in_json(http: httpx.Client) -> None:
    choice = http.post("/v1/chat/completions", json=CHAT).raise_for_status().json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert is_of_schema(choice["message"]["content"])


def test_the_pieces_of_a_stream_are_the_json(http: httpx.Client) -> None:
    text = ""
    with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
    assert is_of_schema(text)


def test_one_of_some_texts_is_the_answer(http: httpx.Client) -> None:
    choices = ["yes, it is", "no, it is not"]
    body = {"prompt": "Is it red?", "structured_outputs": {"choice": choices}}
    assert http.post("/steer/generate", json=body).raise_for_status().json()["text"] in choices
    refused = http.post("/steer/generate", json={**body, "structured_outputs": {"regex": "("}})
    assert refused.status_code == 422
    assert "structured_outputs: the form cannot be used" in refused.json()["detail"]

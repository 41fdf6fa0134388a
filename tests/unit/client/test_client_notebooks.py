"""What notebooks show of results."""

import httpx
import pytest

from tests.fakes.servers.scripted_server import (
    JOB_ID,
    ScriptedServer,
    answer_json,
    job_json,
    vector_json,
)
from vlibrary_client import Client

REPORT = {
    "items": 8,
    "conditions": {"m2iv": {"accuracy": 0.75, "low": 0.4, "high": 0.9}},
}
RISKY = "<script>alert(1)</script>"


def shown(value: object) -> str:
    text: str = value._repr_html_()  # type: ignore[attr-defined]
    return text


def client_of(*answers: object) -> Client:
    replies = [httpx.Response(200, json=answer) for answer in answers]
    return Client(transport=ScriptedServer([*replies]).transport)


def test_vectors_and_pages_are_tables_of_escaped_text() -> None:
    vector = vector_json(description=RISKY, tags=["a", "b"])
    with client_of(vector, {"items": [vector], "next_cursor": None}) as client:
        one, many = shown(client.vectors.get("n")), shown(client.vectors.list())
    for text in (one, many):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
        assert "a, b" in text
    assert "<th>ref</th>" in many
    assert one.count("<table>") == many.count("<table>") == 1
    assert "hyper_parameters" not in one


def test_a_job_shows_how_its_vector_did() -> None:
    with client_of(job_json("succeeded", report=REPORT), job_json("queued")) as client:
        done, queued = shown(client.job(JOB_ID)), shown(client.job(JOB_ID))
    assert "<td>m2iv</td><td>75.0%</td><td>40.0% - 90.0%</td>" in done
    assert "<td>queued</td>" in queued
    assert queued.count("<table>") == 1


def test_an_answer_shows_what_steered_it() -> None:
    with client_of(answer_json(text=RISKY)) as client:
        answer = client.steer.generate("What?")
    text = shown(answer)
    assert "&lt;script&gt;" in text
    assert answer.applied[0].ref in text


def test_long_texts_are_cut() -> None:
    with client_of(vector_json(description="x" * 5000)) as client:
        assert len(shown(client.vectors.get("n"))) < 2000


@pytest.mark.parametrize("items", [0, 2])
def test_a_page_of_jobs_is_a_table_as_well(items: int) -> None:
    page = {"items": [job_json("running")] * items, "next_cursor": None}
    with client_of(page) as client:
        assert shown(client.jobs()).count("<td>running</td>") == items

"""What notebooks show of results."""

import httpx
import pytest

from tests.fakes.servers.scripted_server import (
    JOB_ID,
    TIME,
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
    assert "abstained" not in text


def test_an_answer_that_nothing_steered_shows_why() -> None:
    retrieval = {"abstained": True, "reason": "ambiguous", "score": 0.9, "threshold": 0.8}
    with client_of(answer_json(applied=[], retrieval=retrieval)) as client:
        text = shown(client.steer.generate("What?", vector="auto"))
    assert "ambiguous" in text


def test_long_texts_are_cut() -> None:
    with client_of(vector_json(description="x" * 5000)) as client:
        assert len(shown(client.vectors.get("n"))) < 2000


@pytest.mark.parametrize("items", [0, 2])
def test_a_page_of_jobs_is_a_table_as_well(items: int) -> None:
    page = {"items": [job_json("running")] * items, "next_cursor": None}
    with client_of(page) as client:
        assert shown(client.jobs()).count("<td>running</td>") == items


MEASURED = {
    "dataset": "gears",
    "split": "test",
    "scorer": "exact-match",
    "items": 10,
    "accuracy": 0.123456789,
    "low": 0.1,
    "high": 0.2,
    "created": TIME,
}


def test_what_a_record_has_of_others_is_no_representation_of_python() -> None:
    progress = {"phase": "student", "step": 3, "num_steps": 9, "losses": {}}
    job = job_json("succeeded", progress=progress)
    with client_of(vector_json(evaluations=[MEASURED, MEASURED]), job) as client:
        vector, done = shown(client.vectors.get("n")), shown(client.job(JOB_ID))
    assert vector.count("<td>gears</td><td>test</td><td>exact-match</td>") == 2
    assert "<td>0.1235</td>" in vector
    assert vector.count("<table>") == 2
    assert "<td>vector</td><td>colours@3</td>" in done
    assert "phase student, step 3, num_steps 9" in done
    for text in (vector, done):
        assert "(" not in text


def test_pages_show_what_tells_their_items_apart() -> None:
    texts = {"id": "0" * 16, "name": "web", "workspace": "w", "created": TIME, "revoked": TIME}
    key = {"scopes": ["read", "steer"], "quotas": {}, **texts}
    alias = {"name": "colours", "alias": "prod", "version": 3}
    deed = {"id": 7, "action": "key.create", "subject": RISKY, "created": TIME}
    pages = ({"items": [key]}, {"items": [alias]}, {"items": [deed], "next_after": None})
    with client_of(*pages, {"items": [job_json("queued")]}) as client:
        keys, aliases = shown(client.keys.list()), shown(client.vectors.aliases("colours"))
        audit, jobs = shown(client.audit()), shown(client.jobs())
    assert f"<td>{'0' * 16}</td><td>web</td><td>read, steer</td>" in keys
    assert "<td>colours</td><td>prod</td><td>3</td>" in aliases
    assert "<td>key.create</td><td>&lt;script&gt;" in audit
    assert f"<td>{JOB_ID}</td>" in jobs


def test_what_was_found_compared_and_changed_are_tables() -> None:
    match = {"vector": vector_json(), "score": 0.5, "threshold": 0.75, "is_accepted": False}
    found = {"matches": [match], "abstained": True, "reason": "below-threshold"}
    refusal = {"code": "conflict", "detail": RISKY}
    outcome = {"ref": "colours@3", "ok": False, "error": refusal}
    comparison = {"dataset": "gears", "split": "test", "scorer": "exact-match", "best": 0}
    comparison |= {"results": [MEASURED, None], "is_clear": True}
    other = vector_json(name="other")
    compared = {"vectors": [vector_json(), other], "comparisons": [comparison]}
    with client_of(
        {**found, "epoch": 1, "space": "s"},
        {"items": [outcome], "num_failed": 1},
        {**compared, "similarity": [[1.0, None], [None, 1.0]]},
        answer_json(),
    ) as client:
        retrieval = shown(client.retrieve(text="q"))
        changed = shown(client.vectors.delete_many(["colours@3"]))
        beside = shown(client.vectors.compare(["colours", "other"]))
        answer = shown(client.steer.generate("What?", baseline=True))
    assert "abstained: below-threshold" in retrieval
    assert "<td>colours@3</td><td>0.500</td><td>0.750</td><td>False</td>" in retrieval
    assert "<td>colours@3</td><td>False</td><td>&lt;script&gt;" in changed
    assert "<th>colours@3</th><th>other@3</th>" in beside
    assert "<td>gears test</td><td>12.3%</td><td></td>" in beside
    assert "<td>cosine with other@3</td><td></td><td>1.000</td>" in beside
    assert "<td>without</td><td>blue</td>" in answer

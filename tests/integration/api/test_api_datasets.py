import base64
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from app.core.settings import Settings
from app.library.storage import ObjectStore, dataset_key
from tests.fakes.api_calls import OCTETS, parquet, png, upload

pytestmark = pytest.mark.anyio


class TestDatasets:
    async def test_the_same_bytes_are_the_same_data_set(
        self, http: httpx.AsyncClient, settings: Settings, tmp_path: Path
    ) -> None:
        content = parquet(tmp_path)
        first = await upload(http, content, name="first")
        again = await upload(http, content, name="second")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        assert first.headers["location"] == f"/datasets/{first.json()['id']}"
        body = first.json()
        assert (body["num_items"], body["num_images"]) == (3, 1)
        stored = await ObjectStore(settings.objects_url).get_bytes(dataset_key(body["sha256"]))
        assert body["sha256"] == hashlib.sha256(stored).hexdigest()
        assert body["size_bytes"] == len(stored)
        wanted = pq.read_table(io.BytesIO(content)).column("question").to_pylist()
        assert pq.read_table(io.BytesIO(stored)).column("question").to_pylist() == wanted
        assert not list((settings.data_dir / "scratch").iterdir())
        by_name = await http.get("/datasets/second")
        by_id = await http.get(f"/datasets/{body['id']}")
        assert by_name.json()["id"] == by_id.json()["id"] == body["id"]

    async def test_the_reply_tells_whose_the_name_was(
        self, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        one, other = parquet(tmp_path, items=1), parquet(tmp_path, items=2)
        first, moved, same, back = [
            (await upload(http, content, name="d")).json() for content in (one, other, other, one)
        ]
        for made, before in ((first, None), (moved, first), (same, None), (back, moved)):
            said = [note for note in made["report"]["notes"] if "The name d" in note]
            wanted = before and f"The name d meant the data set {before['id']} until now"
            assert said == [*filter(None, [wanted])]
            # It is said of the upload, not of what is stored.
            stored = (await http.get(f"/datasets/{made['id']}")).json()
            assert not any("The name d" in note for note in stored["report"]["notes"])

    async def test_the_reply_tells_what_was_found_and_left_out(
        self, http: httpx.AsyncClient
    ) -> None:
        picture = base64.b64encode(png()).decode()
        lines = [
            {"image": f"data:image/png;base64,{picture}", "problem": "q", "solution": answer}
            for answer in ("a", "b", " ")
        ]
        content = "\n".join(json.dumps({**line, "split": "test"}) for line in lines).encode()
        choices: dict[str, Any] = {"map": ["question=problem", "answer=solution"]}
        refused = await upload(http, content, **choices)
        assert "file line 3: its answer is empty" in refused.json()["detail"]
        assert refused.json()["details"]["num_bad"] == 1
        made = await upload(http, content, **choices, skip_bad=True)
        assert made.status_code == 201
        report = {
            "layout": "JSON lines",
            "num_text_only": 0,
            "num_answers": 2,
            "splits": {"test": 2},
            "num_skipped": 1,
            "bad_rows": [{"place": "file line 3", "reason": "its answer is empty"}],
            "notes": [],
        }
        assert made.json()["report"] == report
        assert (await http.get(f"/datasets/{made.json()['id']}")).json()["report"] == report
        asked = {"name": "v", "dataset": made.json()["id"], "split": "dev"}
        response = await http.post("/train", json=asked)
        assert (response.status_code, response.json()["code"]) == (422, "invalid-dataset")
        assert "wanted dev, found test (2)" in response.json()["detail"]
        job = (await http.post("/train", json={**asked, "split": None})).json()
        assert job["config"]["split"] == "test"

    async def test_one_question_may_stand_before_labels(self, http: httpx.AsyncClient) -> None:
        picture = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
        content = json.dumps([{"image": picture, "label": "red"}]).encode()
        asked = {"map": "answer=label", "question": "Which colour?"}
        made = await upload(http, content, **asked)
        assert (made.status_code, made.json()["num_items"]) == (201, 1)
        itself = json.dumps([{"image": picture, "label": "red", "question": "What?"}]).encode()
        refused = await upload(http, itself, **asked)
        assert "it has questions of its own in question" in refused.json()["detail"]

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"map": ["question=a", "question=b"]}, "a name is mapped twice"),
            ({"map": ["question=a"], "question": "Which?"}, "found both"),
        ],
    )
    async def test_what_is_asked_is_said_once(
        self, http: httpx.AsyncClient, asked: dict[str, Any], words: str
    ) -> None:
        refused = await upload(http, b"[]", **asked)
        assert refused.status_code == 422
        assert words in refused.text

    async def test_what_is_no_data_set_is_refused(self, http: httpx.AsyncClient) -> None:
        for content, status, code in (
            (b"", 422, "invalid-input"),
            (b"nonsense", 422, "invalid-dataset"),
            (b"PAR1" + b"x" * 100 + b"PAR1", 422, "invalid-dataset"),
            (b"x" * 200_001, 413, "too-large"),
        ):
            response = await upload(http, content)
            assert (response.status_code, response.json()["code"]) == (status, code)
        assert (await http.get("/datasets")).json() == {"items": [], "next_cursor": None}

    async def test_an_endless_body_is_cut_off(self, http: httpx.AsyncClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 50_000

        response = await http.post("/datasets?name=d", content=endless(), headers=OCTETS)
        assert (response.status_code, response.json()["code"]) == (413, "too-large")
        assert response.json()["detail"].endswith("wanted at most 200000 bytes")

    async def test_the_name_and_the_type_are_checked(self, http: httpx.AsyncClient) -> None:
        assert (await upload(http, b"x", name="../up")).status_code == 422
        response = await http.post("/datasets?name=d", content=b"x")
        assert (response.status_code, response.json()["code"]) == (415, "unsupported-media-type")
        assert response.json()["detail"].startswith("Wanted a Content-Type of ")

    async def test_pages_follow_each_other(self, http: httpx.AsyncClient, tmp_path: Path) -> None:
        made = [
            (await upload(http, parquet(tmp_path, items=n), name=f"d{n}")).json()["id"]
            for n in range(1, 4)
        ]
        first = (await http.get("/datasets", params={"limit": 2})).json()
        rest = (await http.get("/datasets", params={"cursor": first["next_cursor"]})).json()
        assert [item["id"] for item in first["items"] + rest["items"]] == made[::-1]
        assert rest["next_cursor"] is None
        bad = await http.get("/datasets", params={"cursor": "zz"})
        assert (bad.status_code, bad.json()["code"]) == (422, "invalid-input")

    async def test_an_unknown_data_set_is_404(self, http: httpx.AsyncClient) -> None:
        for ref in ("nobody", str(uuid.UUID(int=7))):
            assert (await http.get(f"/datasets/{ref}")).status_code == 404

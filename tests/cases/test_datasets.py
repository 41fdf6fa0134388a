"""An upload that is taken can be trained on and shown from; what cannot is refused by its row."""

import io
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from tests.fakes.servers.installation import Installation
from vlibrary_client import Client

pytestmark = pytest.mark.cases
COLOURS = {"red": (210, 40, 40), "blue": (40, 70, 210), "green": (40, 160, 70)}
NAMES = list(COLOURS)
TRAINING = {"num_queries": 6, "epochs": 1, "batch_size": 3}
SECONDS = 240.0


def square(number: int, form: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401
    picture = Image.new("RGB", (64, 64), (245, 245, 245))
    place = 4 + number % 30
    draw = ImageDraw.Draw(picture)
    draw.rectangle((place, place, place + 24, place + 24), fill=COLOURS[NAMES[number % 3]])
    draw.point((0, number % 64), fill=(number % 256, 0, 0))
    buffer = io.BytesIO()
    if form == "MPO":
        options = {"save_all": True, "append_images": [picture.resize((16, 16))]}
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def rows(count: int = 30, form: str = "PNG") -> list[dict[str, Any]]:
    return [
        {
            "image": {"bytes": square(number, form), "path": f"{number}.bin"},
            "question": "What color is it?",
            "answer": NAMES[number % 3],
        }
        for number in range(count)
    ]


def upload(http: httpx.Client, items: list[dict[str, Any]], **choices: Any) -> httpx.Response:  # noqa: ANN401
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(items), out)
    return http.post(
        "/datasets",
        params={"name": f"set-{uuid.uuid4().hex[:8]}", **choices},
        content=out.getvalue(),
        headers={"content-type": "application/vnd.apache.parquet"},
    )


def trained(http: httpx.Client, dataset: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401
    asked = {"name": "made", "dataset": dataset, "shots": 2, "config": TRAINING, **body}
    job: dict[str, Any] = http.post("/train", json=asked).raise_for_status().json()
    until = time.monotonic() + SECONDS
    while job["state"] in {"queued", "running"} and time.monotonic() < until:
        time.sleep(0.3)
        job = http.get(f"/train/{job['id']}").json()
    return job


def shown(http: httpx.Client, dataset: str, **choice: Any) -> httpx.Response:  # noqa: ANN401
    chosen = {"dataset": dataset, "shots": 3, **choice}
    return http.post("/steer/generate", json={"prompt": "What color?", "demonstrations": chosen})


def test_files_of_cameras_are_trained_on_and_shown(http: httpx.Client) -> None:
    made = upload(http, rows(form="MPO"))
    assert made.status_code == 201
    assert trained(http, made.json()["id"])["state"] == "succeeded"
    assert shown(http, made.json()["name"]).status_code == 200


def test_a_damaged_picture_is_found_at_the_door_or_left_out(http: httpx.Client) -> None:
    items = rows()
    items[17]["image"]["bytes"] = items[17]["image"]["bytes"][:120]
    refused = upload(http, items)
    assert refused.status_code == 422
    assert "row 17: " in refused.json()["detail"]
    made = upload(http, items, skip_bad=True)
    assert (made.json()["num_items"], made.json()["report"]["num_skipped"]) == (29, 1)


def test_rows_without_a_picture_are_counted_or_taken_as_text(http: httpx.Client) -> None:
    items = [{**row, "image": None} if place % 5 == 4 else row for place, row in enumerate(rows())]
    refused = upload(http, items)
    assert "6 of 30 rows have no picture" in refused.json()["detail"]
    made = upload(http, items, text_only=True).json()
    assert (made["num_items"], made["report"]["num_text_only"]) == (30, 6)
    job = trained(http, made["id"])
    assert job["state"] == "succeeded", job["error"]
    for selection in ("random", "nearest", "balanced"):
        assert shown(http, made["name"], shots=20, selection=selection).status_code == 200


def test_splits_are_told_and_chosen(http: httpx.Client) -> None:
    parts = ("train", "validation", "test")
    items = [{**row, "split": parts[place % 3]} for place, row in enumerate(rows(36))]
    made = upload(http, items).json()
    assert made["report"]["splits"] == dict.fromkeys(parts, 12)
    too_many = shown(http, made["name"], shots=13)
    assert "found 12" in too_many.json()["detail"]
    assert shown(http, made["name"], split="validation").status_code == 200
    refused = http.post("/train", json={"name": "v", "dataset": made["id"], "split": "dev"})
    assert "found test (12), train (12), validation (12)" in refused.json()["detail"]


@pytest.mark.parametrize("listing", ["metadata.jsonl", "metadata.csv", "train/metadata.jsonl"])
def test_a_folder_means_the_same_to_the_sdk_and_to_the_command(
    service: Installation, tmp_path: Path, listing: str
) -> None:
    where = tmp_path / "a folder, with % and #" / listing
    where.parent.mkdir(parents=True)
    lines = []
    for number, row in enumerate(rows(8)):
        name = f"Straße {number} 100%.png"
        (where.parent / name).write_bytes(row["image"]["bytes"])
        lines.append({"file_name": name, "question": row["question"], "answer": row["answer"]})
    if listing.endswith(".csv"):
        texts = [",".join(lines[0]), *(",".join(line.values()) for line in lines)]
    else:
        texts = [json.dumps(line, ensure_ascii=False) for line in lines]
    where.write_text("\n".join(texts), encoding="utf-8")
    root = tmp_path / "a folder, with % and #"
    with Client(service.url, timeout=SECONDS) as client:
        made = client.datasets.upload(root, name=f"set-{uuid.uuid4().hex[:8]}")
    told = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "app", "datasets", "check", str(root), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(told.stdout)
    assert (made.num_items, made.num_images) == (report["num_items"], report["num_images"])
    assert made.report.splits == report["splits"] == ({"train": 8} if "train" in listing else {})

"""Clients that write without a pause, each in a thread, and note what was acknowledged."""

import hashlib
import io
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from app.core.backbones import BackboneDescription
from tests.fakes.api_calls import OCTETS, png
from tests.fakes.files.parquet import write_parquet
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.vectors import make_vector_file, split_file
from tests.kill.ledger import ABSENT, Ledger, Thing

TIMEOUT_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.05
PAUSE_WHILE_AWAY_SECONDS: Final = 0.3
MAX_OLDER: Final = 4
LESSONS: Final = "lessons"
TRAINED: Final = "trained"
OUTAGES: Final = frozenset({429, 503})
# Long enough to be killed in its middle, short enough to come to an end between two kills.
CONFIG: Final[dict[str, Any]] = {
    "num_queries": 8,
    "batch_size": 4,
    "epochs": 6,
    "held_out_fraction": 0.25,
    "cross_fit_below": 0,
    "trial_steps": 0,
    "checkpoint_every": 1,
    "seed": 3,
}


class Caller:
    """Requests that are not repeated, and how they were answered."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False)
        self.answers: Counter[str] = Counter()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:  # noqa: ANN401
        """The answer, or None while something is away."""
        try:
            reply = self.http.request(method, path, **options)
        except httpx.TransportError as error:
            self.answers[type(error).__name__] += 1
            return None
        self.answers[str(reply.status_code)] += 1
        return None if reply.status_code in OUTAGES else reply


class Writer(threading.Thread):
    """One client, until it is ended."""

    def __init__(self, url: str, ledger: Ledger, *, ending: threading.Event) -> None:
        super().__init__(name=type(self).__name__)
        self.caller = Caller(url)
        self.ledger = ledger
        self.unexpected: list[str] = []
        self.num_acknowledged = 0
        self._ending = ending

    def run(self) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            self.turn(number)
            time.sleep(PAUSE_SECONDS)

    def turn(self, number: int) -> None:
        """Does its writes once."""
        raise NotImplementedError

    def write(self, thing: Thing, value: str, *request: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """The acknowledged answer; nothing when there was none."""
        with self.ledger.write(thing, value) as acknowledge:
            reply = self.caller.ask(*request, **options)
            if reply is None:
                time.sleep(PAUSE_WHILE_AWAY_SECONDS)
            elif reply.is_success:
                acknowledge()
                self.num_acknowledged += 1
                return dict(reply.json()) if reply.content else {"done": True}
            else:
                self.unexpected.append(f"{' '.join(request)}: {reply.status_code} {reply.text}")
        return {}


class Uploader(Writer):
    """Stores data sets, and deletes every second one again."""

    def turn(self, number: int) -> None:
        name = f"set-{number}"
        rows = [{"image": {"bytes": png(), "path": None}, "question": name, "answer": "red"}]
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), content)
        params, body = {"name": name}, content.getvalue()
        made = self.write(
            ("dataset", name), "stored", "POST", "/datasets", params=params, content=body,
            headers=OCTETS,
        )  # fmt: skip
        if made and number % 2:
            self.write(("dataset", name), ABSENT, "DELETE", f"/datasets/{made['id']}")


class Librarian(Writer):
    """Imports vectors, describes them, points an alias at the newest and deletes older ones."""

    def __init__(self, *arguments: Any, backbone: BackboneDescription, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **options)
        self._backbone = backbone
        self._pointed_at: defaultdict[str, list[str]] = defaultdict(list)

    def turn(self, number: int) -> None:
        name = f"vector-{number % 5}"
        blob = make_vector_file(number, backbone=self._backbone)
        made = self.write(
            ("blob", f"{number}"), body_digest(blob), "POST", "/vectors", params={"name": name},
            content=blob, headers={**OCTETS, "idempotency-key": f"import-{number}"},
        )  # fmt: skip
        if not made:
            return
        ref, text, version = str(made["id"]), f"as told by {number}", int(made["version"])
        self.ledger.settle(("vector", ref), body_digest(blob))
        self.write(
            ("description", ref), text, "PATCH", f"/vectors/{ref}", json={"description": text}
        )
        path, alias = f"/vectors/{name}/aliases/current", ("alias", f"{name}@current")
        if self.write(alias, str(version), "PUT", path, json={"version": version}):
            self._delete_older(self._pointed_at[name])
            self._pointed_at[name].append(ref)

    def _delete_older(self, refs: list[str]) -> None:
        if len(refs) > MAX_OLDER:
            ref = refs.pop(0)
            with self.ledger.write(("description", ref), ABSENT) as acknowledge:
                if self.write(("vector", ref), ABSENT, "DELETE", f"/vectors/{ref}"):
                    acknowledge()


class Student(Writer):
    """Has one training done after the other; a request is repeated under its key until it is
    acknowledged, so there must be exactly one job for each."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **options)
        self.jobs: list[str] = []

    def turn(self, number: int) -> None:
        body = {"name": TRAINED, "dataset": LESSONS, "shots": 2, "config": CONFIG}
        key = f"train-{number}-{uuid.uuid4().hex}"
        made: dict[str, Any] = {}
        while not made and not self._ending.is_set():
            made = self.write(
                ("request", key), "made", "POST", "/train", json=body,
                headers={"idempotency-key": key},
            )  # fmt: skip
        if not made:
            return
        job = str(made["id"])
        self.jobs.append(job)
        self.ledger.settle(("job", job), "known")
        while not self._ending.is_set():
            reply = self.caller.ask("GET", f"/train/{job}")
            if reply is not None and reply.json()["state"] not in {"queued", "running"}:
                return
            time.sleep(PAUSE_WHILE_AWAY_SECONDS)


def body_digest(vector_file: bytes) -> str:
    """SHA-256 of the numbers in a vector file, whatever is said of them."""
    return hashlib.sha256(split_file(vector_file)[1]).hexdigest()


def upload_lessons(http: httpx.Client, folder: Path) -> None:
    """Stores what the trainings are about."""
    path = write_parquet(folder / "lessons.parquet", tiny_examples(24))
    http.post(
        "/datasets", params={"name": LESSONS}, content=path.read_bytes(), headers=OCTETS
    ).raise_for_status()


def observe(caller: Caller, thing: Thing) -> str | None:
    """The state that a thing is in; None for what cannot be looked at, or not now."""
    kind, ref = thing
    path, field = {
        "dataset": (f"/datasets/{ref}", "stored"),
        "vector": (f"/vectors/{ref}/file", "body"),
        "description": (f"/vectors/{ref}", "description"),
        "alias": (f"/vectors/{ref}", "version"),
        "job": (f"/train/{ref}", "known"),
    }.get(kind, ("", ""))
    reply = caller.ask("GET", path) if path else None
    if reply is None:
        return None
    if reply.status_code == httpx.codes.NOT_FOUND:
        return ABSENT
    if field == "body":
        return body_digest(reply.content)
    return str(reply.json().get(field, field))


def lost(caller: Caller, ledger: Ledger, things: Sequence[Thing]) -> list[str]:
    """What is not as it was acknowledged to be."""
    found = []
    for thing in things:
        # Its writer may be at it just now.
        allowed = ledger.allowed(thing)
        state = observe(caller, thing)
        allowed |= ledger.allowed(thing)
        if state is not None and state not in allowed:
            found.append(f"{thing}: wanted {sorted(allowed)}, found {state}")
    return found

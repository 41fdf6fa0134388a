"""The sync client of a VLibrary server.

with Client() as client:
    dataset = client.datasets.upload("pictures/", name="colours")
    job = client.train("colours", dataset, shots=16).wait(progress=True)
    answer = client.steer.generate("What colour?", images=["a.png"], vector=job.vector)
"""

from collections.abc import Sequence
from typing import Any, Self
from uuid import UUID

import httpx

from vlibrary_client import queries, requests
from vlibrary_client.arguments import DatasetRef
from vlibrary_client.images import ImageSource
from vlibrary_client.jobs import Job
from vlibrary_client.resources import Datasets, Steering, Vectors
from vlibrary_client.retrying import RetryPolicy
from vlibrary_client.transport import Connection, SyncTransport
from vlibrary_client.types import JobState, Page, Readiness, Retrieval

DEFAULT_TIMEOUT_SECONDS = 150.0


class Client:
    """A connection to a VLibrary server; use it in a `with` block, or `close` it.

    Args:
        base_url: Where the server is; `VLIBRARY_URL`, or this machine's port 8000, when not given.
        api_key: A key, where the server asks for one; `VLIBRARY_API_KEY` when not given.
        timeout: How long an answer may take, in seconds.
        max_retries: Further tries of a request that is harmless to repeat.
        transport: Replaces the network, for tests.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        connection = Connection(
            base_url=base_url,
            api_key=api_key,
            timeout_seconds=timeout,
            policy=RetryPolicy(max_retries=max_retries),
        )
        self._transport = SyncTransport(connection, transport=transport)
        self.datasets = Datasets(self._transport)
        self.vectors = Vectors(self._transport)
        self.steer = Steering(self._transport)

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connections."""
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def train(
        self,
        name: str,
        dataset: DatasetRef,
        *,
        split: str | None = None,
        shots: int = 16,
        description: str = "",
        tags: Sequence[str] = (),
        **config: Any,  # noqa: ANN401 - the server checks names and bounds
    ) -> Job:
        """Queues the training of the next version of `name`.

        Args:
            name: What the vector will be called.
            dataset: A data set, its id or its name.
            split: Which part of the data set; not needed where one is called train.
            shots: How many demonstrations the vector shall stand for.
            description: What the vector is for.
            tags: Words to find it by.
            **config: Further settings of the training, such as `max_steps=200` or `seed=1`.

        Raises:
            NotFoundError: There is no such data set.
            InvalidInputError: A setting is unknown or out of bounds.
        """
        call = requests.train(
            name,
            dataset,
            split=split,
            shots=shots,
            description=description,
            tags=tags,
            config=config,
        )
        return Job(record=self._transport.send(call), transport=self._transport)

    def job(self, job_id: UUID | str) -> Job:
        """A training job by id.

        Raises:
            NotFoundError: There is none.
        """
        record = self._transport.send(requests.get_job(UUID(str(job_id))))
        return Job(record=record, transport=self._transport)

    def jobs(
        self, *, state: JobState | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Job]:
        """One page of the training jobs, newest first.

        Raises:
            VLibraryError: The server refuses, or cannot be reached.
        """
        page = self._transport.send(requests.list_jobs(state=state, limit=limit, cursor=cursor))
        jobs = tuple(Job(record=record, transport=self._transport) for record in page.items)
        return Page(items=jobs, next_cursor=page.next_cursor)

    def retrieve(
        self,
        *,
        image: ImageSource | None = None,
        text: str | None = None,
        embedding: Sequence[float] | None = None,
        k: int = 5,
        backbone: str | None = None,
        min_epoch: int | None = None,
        include_collapsed: bool = False,
    ) -> Retrieval:
        """Vectors that fit a query, best first; it abstains when none fits.

        Args:
            image: The query's image.
            text: The query's question.
            embedding: A ready embedding of the query instead of the two.
            k: How many vectors at most.
            backbone: The fingerprint they must belong to; the serving one by default.
            min_epoch: Wait until the index has seen this change.
            include_collapsed: Also find those that are unproven, ineffective or collapsed.

        Raises:
            InvalidInputError: Neither an image, a text nor an embedding is given.
        """
        call = queries.retrieve(
            image=image,
            text=text,
            embedding=embedding,
            k=k,
            backbone=backbone,
            min_epoch=min_epoch,
            include_collapsed=include_collapsed,
        )
        return self._transport.send(call)

    def ready(self) -> Readiness:
        """Whether the service can take requests, part by part.

        Raises:
            ConnectionFailedError: It does not answer at all.
        """
        return self._transport.send(queries.ready())

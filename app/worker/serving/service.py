"""From a request message to its answer: a place, vectors held, sequences run, receipt written.

Runs on the event loop and hands everything heavy to the device thread or to threads of its own.
"""

import asyncio
from collections import abc, defaultdict
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

from jaxtyping import Float
from torch import Tensor

from app.core.errors import (
    BusyError,
    DeadlineExceededError,
    InvalidInputError,
    WorkerUnavailableError,
)
from app.method.backbone.features import FeatureCache
from app.method.backbone.prompts import check_length
from app.method.keys.encoder import KeyEncoder, space_id
from app.method.steering.dose import check_dose
from app.rpc.generation import GenerateDelta, GenerateResponse, SamplingParams
from app.rpc.messages import EmbedRequest, EmbedResponse, GenerateRequest
from app.worker.device import DeviceThread
from app.worker.engine.sequence import Listener, Sequence, Shift
from app.worker.serving.metrics import RequestTracker, WorkerMetrics
from app.worker.serving.preprocessing import PreparedPrompt, Preprocessor
from app.worker.serving.responses import response_of
from app.worker.serving.vector_cache import VectorCache

RETRY_AFTER_SECONDS: Final = 1.0


class Serving:
    """Answers requests with one backbone.

    Attributes:
        num_requests: Requests that are not answered yet.
        is_draining: Whether no further requests are taken.
    """

    def __init__(
        self,
        features: FeatureCache,
        *,
        device: DeviceThread,
        vector_cache: VectorCache,
        preprocessor: Preprocessor,
        max_requests: int,
        max_new_tokens: int,
        norms: Float[Tensor, " layers"],
        max_dose: float,
        metrics: WorkerMetrics,
    ) -> None:
        self.metrics = metrics
        self._backbone = features.backbone
        self._device = device
        self._vector_cache = vector_cache
        self._preprocessor = preprocessor
        self._keys = KeyEncoder(features)
        self._preparing: asyncio.Task[None] | None = None
        self._max_requests = max_requests
        self._max_new_tokens = max_new_tokens
        self._norms = norms
        self._max_dose = max_dose
        self.num_requests = 0
        self.is_draining = False

    @property
    def num_waiting(self) -> int:
        """Requests that are prepared or wait for a row."""
        return max(0, self.num_requests - self._device.num_running)

    def drain(self) -> None:
        """Take no further requests; those that are here get their answers."""
        self.is_draining = True

    async def generate(
        self, request: GenerateRequest
    ) -> abc.AsyncGenerator[GenerateDelta | GenerateResponse, None]:
        """The answer in full, after its deltas where the request streams.

        Closing it, or cancelling the awaiting task, frees the request's rows.

        Raises:
            BusyError: Every place is taken.
            WorkerUnavailableError: The worker shuts down.
            DeadlineExceededError: The request's time was used up.
            InvalidInputError: The request can never be answered as it is.
            SteeringError: The vectors could not be applied in full.
        """
        if not request.stream:
            yield await self._answer(request, listener=None)
            return
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[GenerateDelta | None] = asyncio.Queue()
        answering = asyncio.create_task(
            self._answer(
                request,
                listener=lambda one: loop.call_soon_threadsafe(deltas.put_nowait, one),
            )
        )
        answering.add_done_callback(lambda _: deltas.put_nowait(None))
        try:
            while (delta := await deltas.get()) is not None:
                yield delta
            yield await answering
        finally:
            answering.cancel()

    async def _answer(
        self, request: GenerateRequest, *, listener: Listener | None
    ) -> GenerateResponse:
        if request.max_tokens > self._max_new_tokens and not request.fits_context:
            raise InvalidInputError(
                f"An answer has at most {self._max_new_tokens} tokens, found {request.max_tokens}"
            )
        with self.metrics.track(use.sha256 for use in request.vectors) as tracker:
            async with self._admit(), _time_limit(request.deadline_seconds):
                prepared = await self._preprocessor.prepare(request)
                digests = [use.sha256 for use in request.vectors]
                try:
                    async with self._vector_cache.hold(digests) as slots:
                        parts = [(slots[use.sha256], use.strength) for use in request.vectors]
                        steered, plain, dose = await self._answers(
                            request, prepared, parts, tracker=tracker, listener=listener
                        )
                finally:
                    self._preprocessor.forget(prepared)
            return response_of(
                request,
                steered,
                plain,
                num_sites=self._backbone.description.num_sites,
                began=tracker.arrived,
                dose=dose,
                notes=prepared.prompt.notes,
            )

    def _shift(self, parts: abc.Sequence[tuple[int, float]]) -> tuple[Shift, float]:
        """What the request's vectors add up to, and its dose. Device thread only."""
        cache, norms = self._vector_cache, self._norms
        # One file may be stored under several names.
        strengths: defaultdict[int, float] = defaultdict(float)
        for slot, strength in parts:
            strengths[slot] += strength
        for slot, strength in strengths.items():
            shift = cache.combined([(slot, strength)])
            check_dose(shift, norms=norms, highest=cache.highest_dose(slot), strength=strength)
        shift = cache.combined(strengths.items())
        alone = parts[0][1] if len(parts) == 1 else None
        return shift, check_dose(shift, norms=norms, highest=self._max_dose, strength=alone)

    async def embed(self, request: EmbedRequest) -> EmbedResponse:
        """One row an item.

        Raises:
            BusyError: Every place is taken.
            WorkerUnavailableError: The worker shuts down.
            InvalidImageError: An image cannot be read.
        """
        async with self._admit():
            images = await self._preprocessor.images(request.images)
            pixel_features = await self._preprocessor.in_thread(
                lambda: self._keys.pixel_features(images)
            )
            await self._prepare_keys()
            await self._preprocessor.see_surplus([one for one in images if one is not None])
            # The tokenizer belongs to the device thread: its calls change its own state.
            rows, num_tokens = await self._device.call(
                lambda: (
                    self._keys.encode(
                        images, list(request.questions), pixel_features=pixel_features
                    ),
                    self._num_tokens(request.questions),
                )
            )
        return EmbedResponse(
            space=space_id(self._backbone),
            dim=rows.shape[1],
            embeddings=rows.tolist(),
            num_tokens=num_tokens,
        )

    async def _prepare_keys(self) -> None:
        """Returns when the background of all keys was seen, in passes that answers wait for."""
        preparing = self._preparing
        if preparing is None or (preparing.done() and preparing.exception() is not None):
            steps = self._keys.prepare()
            preparing = asyncio.create_task(self._device.run_background(steps, goes_first=True))
            self._preparing = preparing
        await asyncio.shield(preparing)

    def _num_tokens(self, questions: abc.Iterable[str | None]) -> int:
        tokenizer = self._backbone.tokenizer
        return sum(len(tokenizer(question)["input_ids"]) for question in questions if question)

    @asynccontextmanager
    async def _admit(self) -> abc.AsyncIterator[None]:
        if self.is_draining:
            raise WorkerUnavailableError(
                "The worker shuts down", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        if self.num_requests >= self._max_requests:
            raise BusyError(
                f"All {self._max_requests} places are taken",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self.num_requests += 1
        try:
            yield
        finally:
            self.num_requests -= 1

    def _room(self, request: GenerateRequest, num_prompt_tokens: int) -> int:
        """The most tokens of the answer; refuses more than there is room for."""
        limit = self._backbone.description.max_position_embeddings
        room = request.max_tokens
        if request.fits_context:
            room = min(room, self._max_new_tokens)
            room = max(1, min(room, limit - num_prompt_tokens)) if limit else room
        check_length(self._backbone, num_prompt_tokens, num_new_tokens=room)
        return room

    async def _answers(
        self,
        request: GenerateRequest,
        prepared: PreparedPrompt,
        parts: abc.Sequence[tuple[int, float]],
        *,
        tracker: RequestTracker,
        listener: Listener | None,
    ) -> tuple[Sequence, Sequence | None, float | None]:
        """The steered answer, the plain one, which is the same when nothing steers, and the dose.

        Each answer is one task of the device thread, so that beside a training it waits once.
        """
        doses: list[float] = []

        def run(
            used: abc.Sequence[tuple[int, float]], streams_to: Listener | None
        ) -> "asyncio.Task[Sequence]":
            # Callers choose their requests' ids, which need not differ.
            name = uuid4().hex

            def make() -> Sequence:
                batch = self._preprocessor.encode(prepared)
                shift: Shift | None = None
                if used:
                    shift, dose = self._shift(used)
                    doses.append(dose)
                room = self._room(request, batch.num_prompt_tokens[0])
                sequence = Sequence(
                    id=name,
                    inputs=batch.inputs,
                    sampling=SamplingParams(**{**request.settings(), "max_tokens": room}),
                    grammar=prepared.grammar.fresh() if prepared.grammar else None,
                    shift=shift,
                    keeps_first=request.baseline,
                    # What a form allows is the whole answer.
                    goes_on=request.is_raw and request.structured_outputs is None,
                    listener=streams_to,
                )
                tracker.sequences.append(sequence)
                return sequence

            return asyncio.create_task(self._device.generate(name, make))

        tasks = [run(parts, listener)]
        if request.baseline and parts:
            tasks.append(run((), None))
        try:
            finished = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        dose = doses[0] if doses else None
        return finished[0], finished[-1] if request.baseline else None, dose


@asynccontextmanager
async def _time_limit(seconds: float) -> abc.AsyncIterator[None]:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceededError(f"The answer was not ready within {seconds:g} s") from None

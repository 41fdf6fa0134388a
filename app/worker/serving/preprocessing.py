"""From a request message to its prompt, images opened and seen, and to a shift within its dose.

Runs on the event loop and hands everything heavy to threads of its own or to the device thread.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from typing import Final, TypeVar

from app.core.errors import InvalidImageError, InvalidInputError, VLibraryError
from app.core.pictures import Picture, PictureLimits, check_picture
from app.core.telemetry.logs import get_logger
from app.method.backbone.context import require_context
from app.method.backbone.conversation import (
    Turn,
    build_conversation,
    count_turns,
    latest_turns,
    raw_prompt,
)
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.prompts import EncodedBatch, PromptText, build_prompt
from app.rpc.messages import GenerateRequest
from app.worker.device import DeviceThread
from app.worker.engine.faults import forget_frames, is_fatal, public_error
from app.worker.engine.grammar import Grammar, GrammarCompiler
from app.worker.serving.demonstrations import DatasetPools

NUM_THREADS: Final = 2
# Running rows wait for one pass of the vision tower at most.
MAX_PASS_PICTURES: Final = 16

Result = TypeVar("Result")

log = get_logger(__name__)


def turns_of(request: GenerateRequest, images: Sequence[Picture]) -> tuple[Turn, ...]:
    """The request's turns with their pictures in them.

    Raises:
        InvalidInputError: There are not as many pictures as places for them.
    """
    num_places = sum(turn.parts.count(None) for turn in request.turns)
    if request.turns and num_places != len(images):
        raise InvalidInputError(
            f"Pictures and their places do not match: wanted {num_places}, found {len(images)}"
        )
    left = iter(images)
    return tuple(
        Turn(
            role=turn.role,
            parts=tuple(next(left) if part is None else part for part in turn.parts),
        )
        for turn in request.turns
    )


@dataclass(kw_only=True, eq=False)
class PreparedPrompt:
    """A prompt with what the device thread still has to find out.

    Attributes:
        check: Raises where the prompt does not fit the context.
        num_first: Pictures that its first pass takes, from the first on.
        grammar: Of the answer's form, to be copied for every answer.
    """

    prompt: PromptText
    check: Callable[[], None]
    num_first: int
    grammar: Grammar | None = None

    @cached_property
    def refusal(self) -> VLibraryError | None:
        """What the request fails with, if its prompt does not fit. Device thread only."""
        try:
            self.check()
        except Exception as error:
            if is_fatal(error):
                raise
            # Others ask as well, whose requests it must not fail.
            return public_error(error)
        return None


class Preprocessor:
    """Makes prompts out of requests."""

    def __init__(
        self,
        features: FeatureCache,
        *,
        device: DeviceThread,
        pools: DatasetPools,
        limits: PictureLimits,
    ) -> None:
        self._backbone = features.backbone
        self._device = device
        self._pools = pools
        self._features = features
        self._limits = limits
        self._waiting: deque[PreparedPrompt] = deque()
        self._grammars = GrammarCompiler(features.backbone)
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="read")

    def close(self) -> None:
        """Give the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def images(self, files: Sequence[bytes | None]) -> list[Picture | None]:
        """The pictures of image files, none where there is no file; each has been decoded.

        Raises:
            InvalidImageError: A file cannot be read or exceeds a limit.
        """
        numbers = count()
        are_several = sum(data is not None for data in files) > 1

        def load(data: bytes) -> Picture:
            place = f"images.{next(numbers)}"
            try:
                check_picture(data, self._limits)
                picture = Picture.of(data)
                self._prefetch([picture])
            except InvalidImageError as error:
                message = f"{place}: {error.message}" if are_several else error.message
                details = {**error.details, "param": place}
                raise InvalidImageError(message, details=details) from None
            return picture

        return await self.in_thread(
            lambda: [None if data is None else load(data) for data in files]
        )

    def _prefetch(self, pictures: Sequence[Picture]) -> None:
        """Has pixels ready, which the device thread must not wait for."""
        self._features.pixels.prefetch(one for one in pictures if not self._features.is_cached(one))

    async def prepare(self, request: GenerateRequest) -> PreparedPrompt:
        """The request's prompt, to be encoded on the device thread.

        Raises:
            ContextOverflowError: It has many pictures and is too long for the backbone's context.
            InvalidImageError: A picture cannot be read.
            InvalidInputError: The request can never be answered as it is.
            NotFoundError: There is no such dataset.
            UnsupportedBackboneError: The answer shall have a form, which the tokenizer cannot keep.
        """
        form = request.structured_outputs
        grammar = None
        if form is not None:
            grammar = await self.in_thread(lambda: self._grammars.compile(form))
        images = [one for one in await self.images(request.images) if one is not None]
        shown: tuple[Example, ...] = ()
        if request.demonstrations is not None:
            turns = turns_of(request, images)
            shown = await self._pools.choose(
                request.demonstrations,
                question=request.prompt,
                images=turns[-1].pictures if turns else images,
            )
        prepared = await self.in_thread(lambda: self._read(request, images, shown, grammar=grammar))
        if prepared.prompt.images and self._features.uses_cached_features([prepared.prompt]):
            await self._prepare_surplus(prepared)
            self._waiting.append(prepared)
        return prepared

    def _read(
        self,
        request: GenerateRequest,
        images: Sequence[Picture],
        shown: Sequence[Example],
        *,
        grammar: Grammar | None,
    ) -> PreparedPrompt:
        """The prompt with its pictures decoded. Not on the event loop."""
        backbone, turns = self._backbone, turns_of(request, images)

        def build(count: int) -> PromptText:
            if request.is_raw:
                return raw_prompt(backbone, request.prompt)
            if turns and shown:
                return build_conversation(backbone, turns, demonstrations=shown[:count])
            if turns:
                return build_conversation(backbone, latest_turns(turns, count))
            return build_prompt(
                backbone,
                request.prompt,
                images,
                demonstrations=shown[:count],
                instruction=request.instruction,
            )

        most = len(shown) if shown else count_turns(turns)
        prompt = build(most)
        self._prefetch(prompt.images)
        self._features.pixels.prefetch(self._features.pixels_to_encode([prompt]))
        check = partial(
            require_context,
            self._features,
            prompt,
            build=build,
            most=most,
            unit="shots" if shown else "turns",
            num_new_tokens=1 if request.fits_context else request.max_tokens,
        )
        return PreparedPrompt(
            prompt=prompt,
            check=check,
            num_first=self._leading(prompt.images),
            grammar=grammar,
        )

    def forget(self, prepared: PreparedPrompt) -> None:
        """Have no picture of it seen on behalf of others: nobody waits for its answer any more."""
        with suppress(ValueError):
            self._waiting.remove(prepared)

    def encode(self, prepared: PreparedPrompt) -> EncodedBatch:
        """The prompt as the backbone reads it. Device thread only.

        Its pictures are seen in one pass with those of other requests that are prepared by now.

        Raises:
            ContextOverflowError: The prompt is too long.
            InvalidInputError: The processor refuses a picture or the prompt.
        """
        self._prepare_waiting()
        if prepared.refusal is not None:
            raise prepared.refusal
        return self._features.encode([prepared.prompt])

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, done on one of the few threads that read pictures."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _prepare_surplus(self, prepared: PreparedPrompt) -> None:
        """Have the pictures seen that are too many for one pass, in passes of their own."""
        surplus = prepared.prompt.images[prepared.num_first :]
        if not surplus:
            return
        # Before any picture of it is seen.
        refusal = await self._device.call(lambda: prepared.refusal)
        if refusal is not None:
            raise refusal
        await self._see(lambda: self._features.missing(surplus))

    async def see_surplus(self, pictures: Sequence[Picture]) -> None:
        """Have those seen for their summaries that are too many for one pass, likewise."""
        surplus = pictures[self._leading(pictures) :]
        if surplus:
            await self._see(lambda: self._features.missing_summaries(surplus))

    async def _see(self, find_missing: Callable[[], list[list[Picture]]]) -> None:
        for batch in await self._device.call(find_missing):
            for start in range(0, len(batch), MAX_PASS_PICTURES):
                chunk = batch[start : start + MAX_PASS_PICTURES]
                await self._device.call(partial(self._prepare_pictures, chunk))

    def _prepare_waiting(self) -> None:
        pictures: list[Picture] = []
        while self._leading(pictures) == len(pictures) < MAX_PASS_PICTURES:
            try:
                prepared = self._waiting.popleft()
            except IndexError:
                # The last one may have been forgotten just now.
                break
            if prepared.refusal is None:
                pictures += prepared.prompt.images[: prepared.num_first]
        self._prepare_pictures(pictures[: self._leading(pictures)])

    def _leading(self, pictures: Sequence[Picture]) -> int:
        """How many of the pictures, from the first on, running rows wait for together."""
        return min(MAX_PASS_PICTURES, self._features.passes.leading(pictures))

    def _prepare_pictures(self, pictures: Sequence[Picture]) -> None:
        try:
            self._features.prepare(pictures)
        except Exception as error:
            if is_fatal(error):
                raise
            # Some are of other requests; each is told when its own prompt is encoded.
            log.warning("pictures not seen", action="read.see", error=type(error).__name__)
            forget_frames(error)

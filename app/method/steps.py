"""How background work hands the backbone over: it is a generator that stops between two passes.

Whoever runs it may use the backbone whenever it has yielded, because nothing is bound to it then,
and ends it early by closing it.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class OffDevice:
    """Work that leaves the backbone alone, so that another thread can do it.

    Attributes:
        work: To be called once. The generator is sent what it returns, or has thrown into it what
            it raises. It computes nothing with torch, whose threads would slow the device's.
    """

    work: Callable[[], Any]


BackgroundSteps: TypeAlias = Generator[OffDevice | None, Any, Result]
"""Work that yields None wherever others may have the backbone, or work for another thread."""


def finish(
    steps: Generator[Any, Any, Result], *, on_event: Callable[[Any], object] | None = None
) -> Result:
    """What the steps return, run to their end on this thread.

    Closes them in any case; `on_event` hears what they yield, but for the work done here.
    """
    with closing(steps):
        answer: Any = None
        while True:
            try:
                event = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer = None
            if isinstance(event, OffDevice):
                answer = event.work()
            elif on_event is not None:
                on_event(event)


def relayed(
    steps: Generator[Any, Any, Result], relay: Callable[[Any], Any]
) -> Generator[Any, Any, Result]:
    """The same steps, which yield what `relay` makes of each of their events."""
    with closing(steps):
        answer: Any = None
        while True:
            try:
                event = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer = yield relay(event)

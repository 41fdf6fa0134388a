"""Methods of clients made of the functions that say what is asked, so that each is written once.

    class Vectors(Resource[Transport]):
        get = endpoint(requests.get_vector)

The method takes what the function takes, has its documentation, and sends what it returns on the
`_transport` of its object: in a sync client it waits, in an async one it is to be awaited.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from vlibrary_client.wire.replies import Call, Steps
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport

P = ParamSpec("P")
T = TypeVar("T")
Waited = TypeVar("Waited")
Awaited = TypeVar("Awaited")
Transport = TypeVar("Transport", bound=SyncTransport | AsyncTransport)


class Resource(Generic[Transport]):
    """A part of the server, whose methods send on the client's transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class Endpoint(Generic[P, Waited, Awaited]):
    """A method that waits, or one to be awaited, whichever the object's transport asks for."""

    def __init__(
        self, make: Callable[P, Call[Any] | Steps[Any]], wrap: Callable[[Any, Any], Any]
    ) -> None:
        def waiting(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401
            with closing(iter(make(*args, **kwargs))) as work:
                call, answer = _next_call(work)
                while call is not None:
                    call, answer = _next_call(work, self._transport.send(call))
            return wrap(answer, self._transport)

        async def awaited(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401
            # In other threads, because files are read and written on the way.
            work = iter(await asyncio.to_thread(make, *args, **kwargs))
            try:
                call, answer = await asyncio.to_thread(_next_call, work)
                while call is not None:
                    sent = await self._transport.send(call)
                    call, answer = await asyncio.to_thread(_next_call, work, sent)
            except BaseException:
                # Where a cancelled thread still works on it, it ends with that.
                with suppress(ValueError):
                    await asyncio.to_thread(work.close)
                raise
            return wrap(answer, self._transport)

        def unbound(owner: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401
            method: Callable[..., Any] = self.__get__(owner)
            return method(*args, **kwargs)

        self._waiting = _documented(waiting, make)
        self._awaited = _documented(awaited, make)
        self._unbound = _documented(unbound, make)

    @overload
    def __get__(
        self, owner: Resource[SyncTransport], kind: type | None = None
    ) -> Callable[P, Waited]: ...
    @overload
    def __get__(
        self, owner: Resource[AsyncTransport], kind: type | None = None
    ) -> Callable[P, Coroutine[Any, Any, Awaited]]: ...
    @overload
    def __get__(self, owner: None, kind: type | None = None) -> Callable[..., Any]: ...
    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """The method of an object; of a class a function whose first argument is an object."""
        if owner is None:
            return self._unbound
        is_async = isinstance(owner._transport, AsyncTransport)  # noqa: SLF001 - a resource of ours
        return MethodType(self._awaited if is_async else self._waiting, owner)


def endpoint(make: Callable[P, Call[T] | Steps[T]]) -> Endpoint[P, T, T]:
    """A method that returns the answer of a call, or what was made of the answers of several."""
    return Endpoint(make, lambda answer, _: answer)


def endpoint_as(
    make: Callable[P, Call[T]],
    waited: Callable[[T, SyncTransport], Waited],
    awaited: Callable[[T, AsyncTransport], Awaited],
) -> Endpoint[P, Waited, Awaited]:
    """As `endpoint`, for what is made of the answer and the transport of either kind."""

    def wrap(answer: T, transport: Any) -> Any:  # noqa: ANN401 - of either kind
        wrapper = awaited if isinstance(transport, AsyncTransport) else waited
        return wrapper(answer, transport)

    return Endpoint(make, wrap)


def _next_call(work: Steps[Any], answer: object = None) -> tuple[Call[Any] | None, Any]:
    """The next call, or None and what came of all."""
    try:
        return work.send(answer), None
    except StopIteration as end:
        return None, end.value


def _documented(method: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    """The method with the function's documentation and arguments, for `help` and editors."""
    signature = inspect.signature(make)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    vars(method)["__signature__"] = signature.replace(
        parameters=[own, *signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    method.__doc__ = make.__doc__
    method.__name__ = make.__name__
    method.__qualname__ = make.__qualname__
    return method

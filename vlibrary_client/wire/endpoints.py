"""Methods of clients made of the functions that make calls, so that each request is written once.

    class Vectors(Resource):
        get = blocking(requests.get_vector)

    class AsyncVectors(AsyncResource):
        get = awaitable(requests.get_vector)

Either method takes what the function takes, has its documentation, and sends what it returns on the
`_transport` of its object.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from vlibrary_client.wire.replies import Call
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Resource:
    """A part of the server, whose methods send on the client's transport."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport


class AsyncResource:
    """A part of the server, whose coroutines send on the client's transport."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport


def blocking(make_call: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """A method that waits for the answer of the call."""
    return blocking_as(_as_it_is, make_call)


def blocking_as(
    wrap: Callable[[T, Any], R], make_call: Callable[P, Call[T]]
) -> Callable[Concatenate[Any, P], R]:
    """As `blocking`, for what `wrap` makes of the answer and the transport."""

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: ANN401 - any client
        transport = self._transport
        return wrap(transport.send(make_call(*args, **kwargs)), transport)

    return _documented(method, make_call)


def awaitable(
    make_call: Callable[P, Call[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A method whose coroutine returns the answer of the call."""
    return awaitable_as(_as_it_is, make_call)


def awaitable_as(
    wrap: Callable[[T, Any], R], make_call: Callable[P, Call[T]]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """As `awaitable`, for what `wrap` makes of the answer and the transport."""

    async def method(
        self: Any,  # noqa: ANN401 - any client
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        transport = self._transport
        # Images may be files.
        call = await asyncio.to_thread(make_call, *args, **kwargs)
        return wrap(await transport.send(call), transport)

    return _documented(method, make_call)


def _as_it_is(result: T, _transport: object) -> T:
    return result


Method = TypeVar("Method", bound=Callable[..., Any])


def _documented(method: Method, make_call: Callable[..., Any]) -> Method:
    """The method with the function's documentation and arguments, for `help` and editors."""
    signature = inspect.signature(make_call)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    vars(method).update(
        __signature__=signature.replace(
            parameters=[own, *signature.parameters.values()],
            return_annotation=inspect.Signature.empty,
        )
    )
    method.__doc__ = make_call.__doc__
    method.__name__ = make_call.__name__
    method.__qualname__ = make_call.__qualname__
    return method

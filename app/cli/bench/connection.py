"""A connection that takes next to no processor time, for hundreds of clients beside the service.

A full client takes a millisecond a request. On the machine that also runs the service that would be
part of what every request is felt to take.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx

TIMEOUT_SECONDS: Final = 60.0
_END_OF_HEAD: Final = b"\r\n\r\n"


class Connection:
    """One kept-alive connection; one request at a time, to servers that announce lengths."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, base: httpx.URL
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._base = base

    async def post(self, route: str, body: bytes) -> httpx.Response:
        """The response to a JSON body.

        Raises:
            TimeoutError: It did not come in time.
            EOFError: The server closed the connection before its end.
        """
        head = (
            f"POST {self._base.path.rstrip('/')}{route} HTTP/1.1\r\n"
            f"host: {self._base.netloc.decode()}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            self._writer.write(head.encode() + body)
            await self._writer.drain()
            status, headers = _head_of(await self._reader.readuntil(_END_OF_HEAD))
            content = await self._reader.readexactly(int(headers["content-length"]))
        return httpx.Response(status, headers=headers, content=content)


def _head_of(received: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = received.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, value in pairs}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection to the server of an `http://` address, for the block."""
    base = httpx.URL(url)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        reader, writer = await asyncio.open_connection(base.host, base.port or 80)
    try:
        yield Connection(reader, writer, base=base)
    finally:
        writer.close()

"""A connection that takes next to no processor time, for hundreds of clients beside the service.

A full client takes a millisecond a request. On the machine that also runs the service that would be
part of what every request seems to take.
"""

import asyncio
from typing import Final

import httpx

TIMEOUT_SECONDS: Final = 60.0
_END_OF_HEAD: Final = b"\r\n\r\n"


class Connection:
    """One connection, kept open; one request at a time, to servers that announce lengths.

    Args:
        url: An `http://` address.
    """

    def __init__(self, url: str) -> None:
        self._base = httpx.URL(url)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Both directions of it; connects again when the server has closed it meanwhile."""
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                self._streams = await asyncio.open_connection(
                    self._base.host, self._base.port or 80
                )
        return self._streams

    def close(self) -> None:
        """Close it; harmless when it is closed."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def post(self, route: str, body: bytes) -> httpx.Response:
        """The response to a JSON body.

        Raises:
            TimeoutError: It did not come in time.
            EOFError: The server closed the connection before its end.
        """
        reader, writer = await self.open()
        head = (
            f"POST {self._base.path.rstrip('/')}{route} HTTP/1.1\r\n"
            f"host: {self._base.netloc.decode()}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            writer.write(head.encode() + body)
            await writer.drain()
            status, headers = _head_of(await reader.readuntil(_END_OF_HEAD))
            content = await reader.readexactly(int(headers["content-length"]))
        return httpx.Response(status, headers=headers, content=content)


def _head_of(received: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = received.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, value in pairs}

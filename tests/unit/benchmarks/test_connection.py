import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest

from benchmarks.setting.connection import Connection

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def responses_of(answer: Answering, *bodies: bytes) -> list[tuple[int, str, bytes]]:
    """What a connection reads from a server that answers each of its connections so."""

    async def ask() -> list[tuple[int, str, bytes]]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            found = []
            with closing(Connection(f"http://127.0.0.1:{port}/below")) as connection:
                for body in bodies:
                    response = await connection.post("/there", body)
                    found.append(
                        (response.status_code, response.headers["x-line"], response.content)
                    )
                    await asyncio.sleep(0.02)
        return found

    return asyncio.run(ask())


async def echo_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a request's body back in small parts, then closes as an idle server does."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *_ = head.split(b"\r\n")
    body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    for part in (
        b"HTTP/1.1 429 Too Many",
        b" Requests\r\nX-Line: " + line + b"\r\nContent-Le",
        b"ngth: " + str(len(body)).encode() + b"\r\n\r\n",
        body[:1],
        body[1:],
    ):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.001)
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    writer.close()


def test_a_response_is_read_whole_and_a_closed_connection_opened_again() -> None:
    line = "POST /below/there HTTP/1.1"
    assert responses_of(echo_once, b"first", b"second") == [
        (429, line, b"first"),
        (429, line, b"second"),
    ]


def test_a_response_that_breaks_off_is_no_response() -> None:
    with pytest.raises(EOFError):
        responses_of(hang_up, b"{}")

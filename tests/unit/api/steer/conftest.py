from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from fastapi import FastAPI

from tests.fakes.servers.live_server import serving


@pytest.fixture
def url(api: FastAPI) -> Iterator[str]:
    with serving(api) as address:
        yield f"{address}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened

"""A browser's requests to the live page, without a browser and without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from uno_actors import ActorSystem
from uno_actors.ops.application import Page
from uno_actors.ops.sources import Source, SystemSource

SAME_SITE = {"X-Uno-Actors": "test"}


@asynccontextmanager
async def client_of(page: Any, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an ASGI application."""
    transport = httpx.ASGITransport(page)
    async with httpx.AsyncClient(transport=transport, base_url="http://page.test", headers=headers) as client:
        yield client


class Asking:
    """Asks the API of a page that needs no login."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, what: str, status: int = 200, **given: Any) -> Any:
        answer = await self.client.get(f"/api/{what}", params=given)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, what: str, status: int = 200, **given: Any) -> Any:
        answer = await self.client.post(f"/api/{what}", json=given, headers=SAME_SITE)
        assert answer.status_code == status, answer.text
        return answer.json()


@asynccontextmanager
async def asking(shown: ActorSystem | Source) -> AsyncIterator[Asking]:
    """Ask about a system, or a store."""
    source = SystemSource(shown) if isinstance(shown, ActorSystem) else shown
    page = Page(source)
    async with client_of(page) as client:
        yield Asking(client)
    page.close()
